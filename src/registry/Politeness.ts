import { Clock, Context, Duration, Effect, Random, Stream } from "effect"
import type { NetworkError } from "./Errors.ts"
import { retryAfter } from "./answer/Refusal.ts"
import { Limits } from "./RetryPolicy.ts"

/** How hosts are spared. */
export interface Manners {
  /** Requests a second to one host, on average and at once. */
  readonly perSecond: number
  readonly burst: number
  /** Bytes a second that come in all, from all hosts together. undefined: no limit. */
  readonly bandwidth: number | undefined
}

/** The manners in force, for all pulls of a process together: 50 requests a second a host, 100 at once, no limit of bytes. */
export const Manners = Context.Reference<Manners>("registry/Manners", { defaultValue: () => ({ perSecond: 50, burst: 100, bandwidth: undefined }) })

/** Larger pieces cost less: each array of a body is one turn of its reader. */
const largest = 1 << 20
const smallest = 1 << 14

/** What keeps to the manners. */
export interface Politeness {
  /** Waits for the next turn to ask `host`: its rate, and a pause it asked anyone for. */
  readonly turn: (host: string) => Effect.Effect<void>
  /** Takes note of an answer: a pause that it asks for is for all requests to that host. */
  readonly heard: (host: string, status: number, headers: Readonly<Record<string, string | undefined>>) => Effect.Effect<void>
  /** A body, held to the bandwidth. Its idle time does not count what is waited here. */
  readonly slowed: (body: Stream.Stream<Uint8Array, NetworkError>) => Stream.Stream<Uint8Array, NetworkError>
  /** How many bytes of a body are taken at a time. */
  readonly piece: number
}

interface Host {
  /** When its next request is due if they come evenly (milliseconds of the monotonic clock), and until when nobody asks. */
  due: number
  until: number
}

const limitOf = (text: string | undefined) => {
  const [, count, window] = /^\s*(\d{1,9})(?:\s*;\s*w=(\d{1,9}))?/.exec(text ?? "") ?? []
  return count === undefined ? undefined : { count: Number(count), window: window === undefined ? undefined : Number(window) }
}

/**
 * What Docker Hub's `ratelimit-limit` and `ratelimit-remaining` say (docs.docker.com, "Pull usage and limits"), where 10 or a tenth or
 * fewer remain: `7 of 100 pulls in 6h`. undefined: more remain, or nothing is said.
 */
export const lowLimit = (headers: Readonly<Record<string, string | undefined>>): string | undefined => {
  const [limit, left] = [limitOf(headers["ratelimit-limit"]), limitOf(headers["ratelimit-remaining"])]
  if (left === undefined || left.count > Math.max(10, (limit?.count ?? 0) / 10)) return undefined
  const window = limit?.window ?? left.window
  return `${left.count} more${limit === undefined ? "" : ` of ${limit.count}`} pulls${window === undefined ? "" : ` in ${Duration.format(Duration.seconds(window))}`}`
}

const milliseconds = Effect.map(Clock.monotonicTimeNanos, (now) => Number(now / 1000n) / 1000)

/** With nothing heard yet. */
export const make = Effect.gen(function*() {
  const { bandwidth, burst, perSecond } = yield* Manners
  const limits = yield* Limits
  const hosts = new Map<string, Host>()
  let free = 0

  const hostOf = (name: string): Host => {
    const host = hosts.get(name) ?? { due: -Infinity, until: 0 }
    hosts.set(name, host)
    return host
  }

  const turn = Effect.fnUntraced(function*(name: string) {
    const host = hostOf(name)
    const now = yield* milliseconds
    const step = 1000 / perSecond
    const due = Math.max(host.due, now - burst * step) + step
    host.due = due
    if (due > now) yield* Effect.sleep(Duration.millis(due - now))
    for (;;) {
      const left = host.until - (yield* milliseconds)
      if (left <= 0) return
      // Those who waited do not all come at once.
      yield* Effect.sleep(Duration.millis(left + (yield* Random.next) * 250 * limits.pace))
    }
  })

  const heard = Effect.fnUntraced(function*(name: string, status: number, headers: Readonly<Record<string, string | undefined>>) {
    if (status !== 429 && status !== 503) return
    const pause = retryAfter(headers["retry-after"], headers["date"], yield* Clock.currentTimeMillis)
    if (pause === undefined || Duration.isGreaterThan(pause, Duration.fromInputUnsafe(limits.pause))) return
    const host = hostOf(name)
    host.until = Math.max(host.until, (yield* milliseconds) + Duration.toMillis(pause))
  })

  const slowed = (body: Stream.Stream<Uint8Array, NetworkError>): Stream.Stream<Uint8Array, NetworkError> => bandwidth === undefined ? body :
    Stream.mapArrayEffect(body, Effect.fnUntraced(function*(chunks) {
      const now = yield* milliseconds
      free = Math.max(free, now) + chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0) / bandwidth * 1000
      yield* Effect.sleep(Duration.millis(free - now))
      return chunks
    }))

  const piece = bandwidth === undefined ? largest : Math.max(smallest, Math.min(largest, Math.floor(bandwidth / 8)))
  return { turn, heard, slowed, piece } satisfies Politeness
})
