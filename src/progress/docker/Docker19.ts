import { Stream } from "effect"
import type { PullEvent } from "../PullEvent.ts"
import * as Message from "./Message.ts"
import { Repositories } from "./Repositories.ts"
import { V1Lines } from "./V1Lines.ts"
import { V2Lines } from "./V2Lines.ts"
import * as Words from "./Words.ts"

/** What of a terminal decides the lines: over 110 columns have bars. Docker took the daemon's; where that had none, 200. */
export interface Options {
  readonly columns?: number
}

/** The stream that Docker 1.9.1's daemon sent of one process's pulls, message by message: events in, exact texts out. */
export class Docker19 {
  private readonly pulls = new Map<string, V1Lines | V2Lines>()
  private readonly repositories = new Repositories()
  /** References whose tag already pointed at another image. */
  private readonly moved = new Map<string, boolean>()
  private readonly columns: number | undefined

  constructor({ columns }: Options = {}) { this.columns = columns }

  /** The messages that `event` makes. Each is one write of the daemon's: most have no end of line. Warnings went to its log. */
  take(event: PullEvent): ReadonlyArray<string> {
    const { reference } = event
    switch (event._tag) {
      case "repository":
        return this.repositories.begin(event) && event.protocol === "v1" ? [Message.status("", Words.repository(event.name))] : []
      case "resolved": {
        if (this.repositories.of(reference)?.v1 === true) return []
        const { ref, remote } = Words.names(reference)
        return [Message.status(ref ?? "latest", `Pulling from ${remote}`)]
      }
      case "image": {
        const lines = this.lines(reference)
        return lines instanceof V1Lines ? lines.image(event) : []
      }
      case "planned": return this.lines(reference).planned(event)
      case "verified": return "by" in event ? [] : this.lines(reference).take(event)
      case "tagged":
        this.moved.set(reference, event.moved === true)
        return []
      case "done": return this.done(event)
      case "failed": {
        // Only errors of v1 registries carried their status.
        const code = this.repositories.of(reference)?.v1 === true ? event.code : undefined
        this.forget(reference)
        return [Message.error(event.message, code)]
      }
      case "warning": return []
      default: return this.lines(reference).take(event)
    }
  }

  private done({ digest, reference }: Extract<PullEvent, { readonly _tag: "done" }>): ReadonlyArray<string> {
    const repository = this.repositories.of(reference)
    const lines = this.lines(reference)
    const rest = lines instanceof V1Lines ? lines.rest() : digest === undefined ? [] : [Message.status("", `Digest: ${digest}`)]
    // A tag that is new to the store counts, one that moved to layers that were there does not; v1 looked at layers alone.
    const newer = lines.moved || (lines instanceof V2Lines && this.moved.get(reference) === false)
    const closing = this.repositories.done(reference, newer)
    const legacy = closing.length > 0 && repository?.v1 === true ? [Words.legacy(repository.name)] : []
    this.forget(reference)
    return [...rest, ...[...closing, ...legacy].map((text) => Message.status("", text))]
  }

  /** The lines of a pull, begun with its first event. */
  private lines(reference: string): V1Lines | V2Lines {
    const lines = this.pulls.get(reference) ?? (this.repositories.of(reference)?.v1 === true ? new V1Lines(this.columns) : new V2Lines(this.columns))
    this.pulls.set(reference, lines)
    return lines
  }

  private forget(reference: string): void {
    this.pulls.delete(reference)
    this.moved.delete(reference)
    this.repositories.end(reference)
  }
}

/** The messages of `--progress docker-1.9`, to be written as they are, one after the other. */
export const render = (events: Stream.Stream<PullEvent>, options?: Options): Stream.Stream<string> => Stream.suspend(() => {
  const docker = new Docker19(options)
  return Stream.flatMap(events, (event) => Stream.fromIterable(docker.take(event)))
})
