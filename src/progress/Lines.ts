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
    case "image": return event.state === "pulling" && event.from === undefined ? undefined : of(Sentence.image(event))
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
