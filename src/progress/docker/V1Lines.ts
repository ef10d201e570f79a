import { type LayerEvent, type LayerKey, type PullEvent, short } from "../PullEvent.ts"
import * as Message from "./Message.ts"
import { Meter } from "./Meter.ts"
import * as Words from "./Words.ts"

/** What is to be said of a layer, and whether that is all. */
interface Line {
  size: number | undefined
  said: Array<string>
  download: Meter | undefined
  complete: boolean
}

type Of<Tag extends PullEvent["_tag"]> = Extract<PullEvent, { readonly _tag: Tag }>

/**
 * The lines of an image as Docker 1.9.1 wrote them in a v1 pull (graph/pull_v1.go): one layer after the other, from the
 * base up. What happens to a layer before its turn is said when that comes.
 */
export class V1Lines {
  private lines = new Map<LayerKey, Line>()
  /** Whether the lines are in the plan's order. */
  private ordered = false
  private readonly columns: number | undefined
  /** Whether any layer was not there before. */
  moved = false

  constructor(columns: number | undefined) { this.columns = columns }

  /** Learns the order; an image that is in the graph needs nothing more. */
  planned({ layers }: Of<"planned">): ReadonlyArray<string> {
    const before = this.lines
    this.lines = new Map()
    this.ordered = true
    for (const { image, layer, size } of layers) {
      const line = before.get(layer) ?? { size, said: [], download: undefined, complete: false }
      line.size = size
      if (image?.known === true && !line.complete) finish(short(layer), line)
      this.lines.set(layer, line)
    }
    return this.advance()
  }

  /** What is said of the image itself. A new endpoint begins with the layers anew, and the end waits for nothing. */
  image(event: Of<"image">): ReadonlyArray<string> {
    const words = Words.image(event)
    const left = event.state === "complete" ? this.rest() : []
    this.lines.clear()
    this.ordered = false
    return [...left, ...(words === undefined ? [] : [say(short(event.image), words)])]
  }

  /** What is said when `event` happens to a layer. */
  take(event: LayerEvent): ReadonlyArray<string> {
    const id = short(event.layer)
    if (event._tag === "step" && event.doing === "ancestry") {
      const words = Words.step(event)
      return words === undefined ? [] : [say(id, words)]
    }
    const line = this.lines.get(event.layer) ?? { size: undefined, said: [], download: undefined, complete: false }
    this.lines.set(event.layer, line)
    if (line.complete) return []
    switch (event._tag) {
      case "step": {
        const words = Words.step(event)
        if (words !== undefined) line.said.push(say(id, words))
        if (event.doing === "request") line.download = undefined
        break
      }
      case "downloading":
        line.download ??= new Meter(event.total ?? line.size ?? -1)
        this.meter(id, line, line.download.at(event.bytes))
        break
      case "committed": {
        const meter = line.download ?? new Meter(line.size ?? -1)
        this.meter(id, line, [...(meter.size > 0 ? meter.at(meter.size) : []), ...meter.end()])
        this.moved = true
        finish(id, line)
        break
      }
      case "exists":
        if (line.download !== undefined) this.meter(id, line, line.download.close())
        finish(id, line)
        break
      default:
    }
    return this.advance()
  }

  /** What is still to be said, whosever turn it is. */
  rest(): ReadonlyArray<string> {
    const said = [...this.lines.values()].flatMap((line) => line.said)
    this.lines.clear()
    return said
  }

  private meter(id: string, line: Line, amounts: ReturnType<Meter["end"]>): void {
    line.said.push(...amounts.map((amount) => Message.progress(Message.docker19, id, "Downloading", amount, this.columns)))
  }

  /** Says what is to be said of the complete layers and of the one above them; before the plan nobody knows which that is. */
  private advance(): ReadonlyArray<string> {
    if (!this.ordered) return []
    const said: Array<string> = []
    for (const line of this.lines.values()) {
      said.push(...line.said)
      line.said = []
      if (!line.complete) break
    }
    return said
  }
}

const say = (id: string, action: string): string => Message.progress(Message.docker19, id, action)

const finish = (id: string, line: Line): void => {
  line.said.push(say(id, "Download complete"))
  line.complete = true
}
