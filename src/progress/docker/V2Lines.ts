import type { ImageId } from "../../image/ImageId.ts"
import { type LayerEvent, type LayerKey, type PullEvent, short } from "../PullEvent.ts"
import * as Message from "./Message.ts"
import { Meter } from "./Meter.ts"
import type { Amount } from "./Units.ts"

/** One image of the plan that is not in the graph, and how far it is. */
interface Line {
  readonly id: string
  /** Whether it is an image of the graph, and not a blob that stands for one. */
  readonly image: boolean
  readonly layer: LayerKey
  readonly size: number | undefined
  /** Bytes come, and its lines with them. */
  download: Meter | undefined
  downloaded: boolean
  extract: Meter | undefined
  /** Bytes unpacked; they are told once the images below are complete. */
  extracted: number
  complete: "no" | "made" | "found"
}

type Planned = Extract<PullEvent, { readonly _tag: "planned" }>

/**
 * The lines of layers as Docker 1.9.1 wrote them in a v2 pull (graph/pull_v2.go): all that are missing come at once, and are
 * unpacked strictly from the base up, each after its own download. An image that has another image's blob has lines of its own.
 */
export class V2Lines {
  private readonly lines: Array<Line> = []
  /** Layers of images that are in the graph: whatever happens to their blobs is not told. */
  private readonly quiet = new Set<LayerKey>()
  /** All below this are complete. */
  private turn = 0
  private readonly columns: number | undefined
  /** Whether any layer was not there before. */
  moved = false

  constructor(columns: number | undefined) { this.columns = columns }

  /** Announces what is not in the graph. */
  planned({ layers }: Planned): ReadonlyArray<string> {
    for (const { image, layer } of layers) if (image?.known === true) this.quiet.add(layer)
    return layers.filter(({ image, state }) => !(image?.known ?? state === "unpacked"))
      .flatMap(({ image, layer, size }) => this.announce(layer, image?.id, size))
  }

  /** What is said when `event` happens to a layer. */
  take(event: LayerEvent): ReadonlyArray<string> {
    // A layer that was thought to be there, and comes after all.
    const late = event._tag === "waiting" && !this.quiet.has(event.layer) && !this.lines.some(({ layer }) => layer === event.layer)
      ? this.announce(event.layer, undefined, undefined) : []
    const touched = this.lines.filter(({ complete, layer }) => layer === event.layer && complete === "no")
    return [...late, ...touched.flatMap((line) => this.change(line, event)), ...this.advance()]
  }

  private announce(layer: LayerKey, image: ImageId | undefined, size: number | undefined): ReadonlyArray<string> {
    const id = short(image ?? layer)
    this.lines.push({ id, image: image !== undefined, layer, size, download: undefined, downloaded: false, extract: undefined, extracted: 0, complete: "no" })
    return [this.say(id, "Pulling fs layer")]
  }

  private change(line: Line, event: LayerEvent): ReadonlyArray<string> {
    switch (event._tag) {
      case "downloading":
        line.download ??= new Meter(event.total ?? line.size ?? -1)
        return line.downloaded ? [] : this.meter(line, "Downloading", line.download.at(event.bytes))
      case "verified": return this.downloaded(line)
      case "extracting":
        line.extracted = event.bytes
        // Nothing had to come: its blob was there.
        return line.download === undefined ? this.downloaded(line) : []
      case "committed":
        line.complete = "made"
        this.moved = true
        return this.downloaded(line)
      case "exists": {
        line.complete = "found"
        // The image is new all the same.
        this.moved ||= line.image
        const left = line.downloaded || line.download === undefined ? [] : this.meter(line, "Downloading", line.download.close())
        return line.downloaded ? [] : [...left, this.complete(line)]
      }
      default: return []
    }
  }

  /** The download's last lines, if they are not said yet. */
  private downloaded(line: Line): ReadonlyArray<string> {
    if (line.downloaded) return []
    const { download } = line
    if (download === undefined) return [this.complete(line)]
    return [
      ...this.meter(line, "Downloading", [...(download.size > 0 ? download.at(download.size) : []), ...download.end()]),
      this.say(line.id, "Verifying Checksum"), this.complete(line)
    ]
  }

  private complete(line: Line): string {
    line.downloaded = true
    return this.say(line.id, "Download complete")
  }

  /** Unpacks, as far as the lines go: from the base up. */
  private advance(): ReadonlyArray<string> {
    const said: Array<string> = []
    for (let line = this.lines[this.turn]; line?.downloaded === true; line = this.lines[this.turn]) {
      if (line.complete !== "found") {
        line.extract ??= new Meter(line.download?.size ?? line.size ?? -1)
        said.push(...this.meter(line, "Extracting", line.extract.at(line.extracted)))
      }
      if (line.complete === "no") break
      if (line.extract !== undefined && line.complete === "made") {
        const { extract } = line
        said.push(...this.meter(line, "Extracting", [...(extract.size > 0 ? extract.at(extract.size) : []), ...extract.end()]))
      }
      said.push(this.say(line.id, "Pull complete"))
      this.turn++
    }
    return said
  }

  private meter({ id }: Line, action: string, amounts: ReadonlyArray<Amount>): ReadonlyArray<string> {
    return amounts.map((amount) => Message.progress(Message.docker19, id, action, amount, this.columns))
  }

  private say(id: string, action: string): string { return Message.progress(Message.docker19, id, action) }
}
