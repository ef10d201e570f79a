import { Stream } from "effect"
import { type LayerEvent, type LayerKey, type PullEvent, short } from "../PullEvent.ts"
import * as Message from "./Message.ts"
import { Meter } from "./Meter.ts"
import { Repositories } from "./Repositories.ts"
import type { Amount } from "./Units.ts"
import * as Words from "./Words.ts"

const status = (id: string, text: string) => Message.status(id, text)
const progress = (layer: LayerKey, action: string, amount?: Amount) => Message.progress(Message.today, short(layer), action, amount)
const plural = (seconds: number) => `${seconds} second${seconds === 1 ? "" : "s"}`

/** The lines of today's Docker Engine API (`POST /images/create`): events in, lines with their ends out. */
export class Today {
  private readonly repositories = new Repositories()
  private readonly meters = new Map<string, Meter>()

  /** The lines that `event` makes. */
  take(event: PullEvent): ReadonlyArray<string> {
    switch (event._tag) {
      case "repository":
        return this.repositories.begin(event) && event.protocol === "v1" ? [status("", Words.repository(event.name))] : []
      case "resolved": {
        const { ref, remote } = Words.names(event.reference)
        return [status(ref ?? "latest", `Pulling from ${remote}`)]
      }
      case "image": {
        const words = Words.image(event)
        return words === undefined ? [] : [Message.progress(Message.today, short(event.image), words)]
      }
      case "planned": return event.layers.filter(({ state }) => state !== "unpacked").map(({ layer }) => progress(layer, "Pulling fs layer"))
      case "verified": return "by" in event ? [] : this.layer(event.reference, event)
      case "warning": return [status("", event.message)]
      case "done": return [
        ...(event.digest === undefined ? [] : [status("", `Digest: ${event.digest}`)]),
        ...this.repositories.done(event.reference, event.changed).map((text) => status("", text))
      ]
      case "failed":
        this.repositories.end(event.reference)
        return [Message.error(event.message)]
      case "tagged": return []
      default: return this.layer(event.reference, event)
    }
  }

  private layer(reference: string, event: LayerEvent): ReadonlyArray<string> {
    const { layer } = event
    const meter = (action: string, size: number) => {
      const key = `${reference} ${action} ${layer}`
      const meter = this.meters.get(key) ?? new Meter(size)
      this.meters.set(key, meter)
      return meter
    }
    const moving = (action: string, { bytes, total = -1 }: { readonly bytes: number; readonly total?: number }) =>
      meter(action, total).at(bytes).map((amount) => progress(layer, action, amount))
    /** The last line of a reader, which today is written once. */
    const ended = (action: string) => {
      const key = `${reference} ${action} ${layer}`
      const meter = this.meters.get(key)
      this.meters.delete(key)
      if (meter === undefined) return []
      if (meter.size > 0) meter.at(meter.size)
      return meter.end().slice(0, 1).map((amount) => progress(layer, action, amount))
    }
    switch (event._tag) {
      case "waiting": return [progress(layer, "Waiting")]
      case "downloading": return moving("Downloading", event)
      case "retrying": return [progress(layer, `Retrying in ${plural(Math.ceil(event.delay / 1000))}`)]
      case "verified": return [...ended("Downloading"), progress(layer, "Verifying Checksum"), progress(layer, "Download complete")]
      // While bytes come the reader hears of those.
      case "extracting": return this.meters.has(`${reference} Downloading ${layer}`) ? [] : moving("Extracting", event)
      case "committed": return [...ended("Extracting"), progress(layer, "Pull complete")]
      case "exists": return [progress(layer, "Already exists")]
      case "step": {
        const words = Words.step(event)
        return words === undefined ? [] : [progress(layer, words)]
      }
      case "resumed": return []
    }
  }
}

/** The lines of `--progress json`, ends of line included. */
export const render = (events: Stream.Stream<PullEvent>): Stream.Stream<string> => Stream.suspend(() => {
  const docker = new Today()
  return Stream.flatMap(events, (event) => Stream.fromIterable(docker.take(event)))
})
