import { Clock, Effect, Fiber, Stream } from "effect"
import * as Format from "./Format.ts"
import { type PullEvent, short } from "./PullEvent.ts"
import * as Sentence from "./Sentence.ts"
import * as State from "./State.ts"

/** Where a renderer writes, and how large it is; `columns` 0 means unknown. */
export interface Screen {
  readonly write: (text: string) => Effect.Effect<void>
  readonly size: () => { readonly columns: number; readonly rows: number }
}

const words: Record<State.Phase, string> = {
  waiting: "waiting", downloading: "downloading", retrying: "retrying", verified: "verified", extracting: "extracting",
  done: "done", exists: "exists"
}

const line = (layer: State.LayerView, columns: number): string => {
  const id = short(layer.layer)
  const moving = layer.phase === "downloading" || layer.phase === "extracting"
  const size = moving ? Format.part(layer.bytes, layer.total) : layer.total === undefined ? "" : Format.bytes(layer.total)
  const head = `${id} ${words[layer.phase].padEnd(11)} `
  if (layer.phase === "retrying") return Format.fit(`${head}${Format.printable(layer.note ?? "")}`, columns)
  const room = columns - head.length - size.length - 1
  const bar = moving && layer.total !== undefined && room >= 10 ? `${Format.bar(layer.total === 0 ? 1 : layer.bytes / layer.total, Math.min(room, 52))} ` : ""
  return Format.fit(`${head}${bar}${size}`, columns)
}

/** Bytes a second over the last few seconds. */
export class Rate {
  private samples: Array<{ readonly at: number; readonly bytes: number }> = []

  /** Takes the count `bytes` at the time `at` (ms) and returns bytes a second; 0 while it knows too little. */
  next(at: number, bytes: number): number {
    this.samples.push({ at, bytes })
    while (this.samples.length > 2 && at - (this.samples[0]?.at ?? at) > 5000) this.samples.shift()
    const first = this.samples[0]
    return first === undefined || at - first.at < 200 ? 0 : Math.max(0, (bytes - first.bytes) * 1000 / (at - first.at))
  }
}

/** The lines for `state` on a screen of `columns` by `rows`: a line a layer, the finished ones left out first, and a total. */
export const frame = (state: State.State, rate: number, { columns, rows }: { readonly columns: number; readonly rows: number }): Array<string> => {
  const { fetched, finished, had, layers, total } = State.totals(state)
  if (layers === 0) return []
  const all = [...state.layers.values()]
  const room = Math.max(1, rows - 2)
  const rank = (phase: State.Phase) => phase === "done" || phase === "exists" ? 2 : phase === "waiting" ? 1 : 0
  const shown = all.length <= room ? all : [...all].sort((a, b) => rank(a.phase) - rank(b.phase)).slice(0, room)
  // Where nobody knows how much there is, there is no share of it.
  const open = all.some((layer) => layer.total === undefined && rank(layer.phase) < 2)
  const left = total - fetched
  const speed = rate === 0 || (left <= 0 && !open) ? "" : ` ${Format.bytes(rate)}/s${open ? "" : ` ${Format.duration(left / rate)} left`}`
  const text = `${finished}/${layers} layers ${Format.part(fetched - had, open ? undefined : total - had)}${speed}`
  if (open) return [...shown.map((layer) => line(layer, columns)), Format.fit(text, columns)]
  const width = Math.min(52, columns - text.length - 1)
  const share = total === had ? 1 : (fetched - had) / (total - had)
  return [
    ...shown.map((layer) => line(layer, columns)),
    Format.fit(width >= 10 ? `${Format.bar(share, width)} ${text}` : text, columns)
  ]
}

/** What is said once, and stays above the moving lines. */
const messageOf = (event: PullEvent): string | undefined => {
  const reference = Format.printable(event.reference)
  switch (event._tag) {
    case "warning": return `warning: ${Format.printable(event.message)}`
    case "resolved": return `${reference} is ${event.digest} at ${Format.printable(event.endpoint)}`
    case "repository": return `${reference}: ${Sentence.repository(event)}`
    case "image": return event.state === "complete" || event.from === undefined ? undefined : `${reference}: ${Sentence.image(event)}`
    case "verified": return "by" in event ? `${reference}: ${Sentence.signed(event)}` : undefined
    default: return undefined
  }
}

const clearDown = "\u001b[J"
const up = (lines: number) => lines > 0 ? `\u001b[${lines}A\r` : ""

/** Draws the events on a terminal, ten times a second at most, until they end; messages stay above the moving lines. */
export const render = Effect.fnUntraced(function*(events: Stream.Stream<PullEvent>, screen: Screen) {
  let state = State.empty
  let drawn = 0
  let dirty = false
  let messages: Array<string> = []
  const rate = new Rate()
  const draw = Effect.gen(function*() {
    const { columns, rows } = screen.size()
    const now = yield* Clock.currentTimeMillis
    const { fetched, had } = State.totals(state)
    const speed = rate.next(now, fetched - had)
    if (!dirty) return
    dirty = false
    const lines = frame(state, speed, { columns: Math.max(20, Math.min(columns === 0 ? 80 : columns, 200) - 1), rows: rows === 0 ? 24 : rows })
    const text = [...messages, ...lines].map((each) => `${each}\n`).join("")
    messages = []
    yield* screen.write(`${up(drawn)}${clearDown}${text}`)
    drawn = lines.length
  })
  const ticker = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep("100 millis"), draw)))
  yield* Stream.runForEachArray(events, (array) => Effect.sync(() => {
    for (const event of array) {
      state = State.after(state, event)
      const message = messageOf(event)
      if (message !== undefined) messages.push(message)
      dirty = true
    }
  })).pipe(Effect.ensuring(Effect.andThen(Fiber.interrupt(ticker), draw)))
})
