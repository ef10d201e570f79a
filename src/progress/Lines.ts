import { Clock, Effect, Schema, Stream } from "effect"
import * as Format from "./Format.ts"
import { PullEvent, short, version } from "./PullEvent.ts"
import * as Sentence from "./Sentence.ts"

/** Between two progress lines of a layer in a log: 5 s. */
const quietFor = 5000

const plainLine = (event: PullEvent): string | undefined => {
  const of = (text: string) => `${Format.printable(event.reference)}: ${text}`
  switch (event._tag) {
    case "resolved": return of(`${event.digest} at ${Format.printable(event.endpoint)}`)
    case "repository": return of(Sentence.repository(event))
    case "image": return of(Sentence.image(event))
    case "planned": return of(Sentence.planned(event))
    case "step": {
      const sentence = Sentence.step(event)
      return sentence === undefined ? undefined : of(`${short(event.layer)} ${sentence}`)
    }
    case "downloading": return of(`${short(event.layer)} downloading ${Format.part(event.bytes, event.total)}`)
    case "extracting": return of(`${short(event.layer)} extracting ${Format.part(event.bytes, event.total)}`)
    case "retrying": return of(`${short(event.layer)} again in ${Format.duration(event.delay / 1000)}: ${Format.printable(event.cause)}`)
    case "resumed": return of(`${short(event.layer)} goes on at ${Format.bytes(event.offset)}`)
    case "committed": return of(`${short(event.layer)} done`)
    case "exists": return of(`${short(event.layer)} exists`)
    case "warning": return of(`warning: ${Format.printable(event.message)}`)
    case "tagged": return of(`is now ${event.digest ?? event.image ?? "complete"}`)
    case "done": return of(event.changed ? "done" : "up to date")
    case "verified": return "by" in event ? of(Sentence.signed(event)) : undefined
    case "waiting":
    case "failed": return undefined
  }
}

/** Lines for a log: every change of a layer, and its progress at most every 5 s. */
export const plain = (events: Stream.Stream<PullEvent>): Stream.Stream<string> => Stream.suspend(() => {
  const last = new Map<string, number>()
  return Stream.flatMap(Stream.mapEffect(events, (event) => Effect.map(Clock.currentTimeMillis, (now) => {
    if (event._tag === "downloading" || event._tag === "extracting") {
      const key = `${event.reference} ${event.layer}`
      const before = last.get(key)
      if (before === undefined) last.set(key, now)
      if (before === undefined || now - before < quietFor) return []
      last.set(key, now)
    }
    const text = plainLine(event)
    return text === undefined ? [] : [text]
  })), Stream.fromIterable)
})

const encode = Schema.encodeSync(PullEvent)

/** Every event as one line of JSON, `version` first. */
export const events = (stream: Stream.Stream<PullEvent>): Stream.Stream<string> =>
  Stream.map(stream, (event) => JSON.stringify({ version, ...encode(event) }))

/** The lines of today's Docker Engine API for one event (`POST /images/create`). */
const dockerLines = (event: PullEvent): ReadonlyArray<object> => {
  const moving = (status: string, id: string, current: number, total: number | undefined) => [total === undefined
    ? { status, progressDetail: { current }, progress: Format.bytes(current), id }
    : {
      status, progressDetail: { current, total },
      progress: `${Format.bar(total === 0 ? 1 : current / total, 52)}  ${Format.bytes(current)}/${Format.bytes(total)}`, id
    }]
  const still = (status: string, id: string) => [{ status, progressDetail: {}, id }]
  switch (event._tag) {
    case "planned": return event.layers.map(({ layer }) => ({ status: "Pulling fs layer", progressDetail: {}, id: short(layer) }))
    case "waiting": return still("Waiting", short(event.layer))
    case "downloading": return moving("Downloading", short(event.layer), event.bytes, event.total)
    case "retrying": return still(`Retrying in ${Format.duration(event.delay / 1000)}`, short(event.layer))
    case "verified": return "by" in event ? [] : [...still("Verifying Checksum", short(event.layer)), ...still("Download complete", short(event.layer))]
    case "extracting": return moving("Extracting", short(event.layer), event.bytes, event.total)
    case "committed": return still("Pull complete", short(event.layer))
    case "exists": return still("Already exists", short(event.layer))
    case "warning": return [{ status: event.message }]
    case "done": return [
      ...(event.digest === undefined ? [] : [{ status: `Digest: ${event.digest}` }]),
      { status: `Status: ${event.changed ? "Downloaded newer image" : "Image is up to date"} for ${event.reference}` }
    ]
    case "resolved": {
      const at = Math.max(event.reference.indexOf("@"), event.reference.lastIndexOf(":"))
      const name = event.reference.slice(0, at).replace(/^[^/]*\//, "")
      return [{ status: `Pulling from ${name}`, id: event.reference.slice(at + 1) }]
    }
    case "failed": return [{ errorDetail: { ...(event.code === undefined ? {} : { code: event.code }), message: event.message }, error: event.message }]
    case "repository":
    case "image":
    case "step":
    case "resumed":
    case "tagged": return []
  }
}

/** Every event as the JSON lines a client of Docker's API expects. */
export const docker = (stream: Stream.Stream<PullEvent>): Stream.Stream<string> =>
  Stream.flatMap(Stream.map(stream, dockerLines), (lines) => Stream.fromIterable(lines.map((line) => JSON.stringify(line))))
