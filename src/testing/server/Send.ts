import { Effect } from "effect"
import type { ServerResponse } from "node:http"
import type { Delivery } from "./Answer.ts"

/** What the log learns while an answer is sent. */
export interface Progress {
  status: number
  bytesSent: number
  finished: boolean
}

/** Real time: a server is outside of a test, and so of its TestClock. */
const wait = (ms: number): Effect.Effect<void> =>
  ms === Infinity ? Effect.never : Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), ms)
    return Effect.sync(() => clearTimeout(timer))
  })

/** Done once the kernel has the bytes, and all before them. */
const write = (response: ServerResponse, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.callback((resume) => { response.write(bytes, () => resume(Effect.void)) })

const close = (response: ServerResponse, reset: boolean): void => {
  if (reset) response.socket?.resetAndDestroy()
  else response.socket?.destroy()
}

/** Sends an answer with its delays and cuts. Interrupt it when the client leaves. */
export const send = Effect.fnUntraced(function*(response: ServerResponse, delivery: Delivery, bare: boolean, progress: Progress) {
  const stalls = delivery.stalls.toSorted((a, b) => a.at - b.at)
  for (let next = stalls[0]; next !== undefined && next.at < 0; next = stalls[0]) {
    stalls.shift()
    yield* wait(next.forMs)
  }
  if (delivery.drop) return close(response, false)
  progress.status = delivery.status
  response.writeHead(delivery.status, Object.fromEntries(
    Object.entries(delivery.headers).map(([name, value]) => [name, typeof value === "string" ? value : [...value]])))
  response.flushHeaders()
  const end = bare ? 0 : Math.min(delivery.cut?.at ?? Infinity, delivery.body.size)
  const step = delivery.rate === Infinity ? Infinity : Math.max(1, Math.round(delivery.rate / 20))
  for (const piece of delivery.body.read(0, end)) {
    for (let at = 0; at < piece.byteLength;) {
      for (let next = stalls[0]; next !== undefined && next.at <= progress.bytesSent; next = stalls[0]) {
        stalls.shift()
        yield* wait(next.forMs)
      }
      const count = Math.min(piece.byteLength - at, step, (stalls[0]?.at ?? Infinity) - progress.bytesSent)
      progress.bytesSent += count
      yield* write(response, piece.subarray(at, at + count))
      if (step !== Infinity) yield* wait(1000 * count / delivery.rate)
      at += count
    }
  }
  for (const { at, forMs } of stalls) if (at === progress.bytesSent && !bare) yield* wait(forMs)
  if (delivery.cut !== undefined) return close(response, delivery.cut.reset)
  if (!delivery.ends && !bare) return close(response, false)
  yield* Effect.callback<void>((resume) => { response.end(() => resume(Effect.void)) })
  progress.finished = response.writableFinished
})
