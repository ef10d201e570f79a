import { Cause, type Clock, Duration, Effect, Stream } from "effect"
import { NetworkError } from "../Errors.ts"
import type { Limits } from "../RetryPolicy.ts"

/** Keeps the time of one body: how long it is being waited for, and what came in that time. Time spent by the reader does not count. */
class Watch {
  private readonly host; private readonly idle; private readonly window; private readonly rate
  private since: number | undefined
  private waited = 0
  private bytes = 0
  /** What ended the body, once something did. */
  expired: NetworkError | undefined
  constructor(host: string, limits: Limits) {
    this.host = host; this.rate = limits.minimumRate
    this.idle = Duration.toMillis(limits.idle); this.window = Duration.toMillis(limits.rateWindow)
  }
  /** Someone waits for the next bytes from `now` on (milliseconds). */
  wait(now: number) { this.since = now }
  /** They came. Gives the error if they come too slowly. */
  took(now: number, chunks: ReadonlyArray<Uint8Array>): NetworkError | undefined {
    this.waited += now - (this.since ?? now)
    this.since = undefined
    for (const chunk of chunks) this.bytes += chunk.byteLength
    if (this.waited < this.window) return undefined
    const rate = this.bytes / this.waited * 1000
    this.waited = 0
    this.bytes = 0
    return rate < this.rate ? this.fail(`only ${Math.round(rate)} bytes a second came, less than ${this.rate}`) : undefined
  }
  /** Milliseconds until the body has been silent for too long; 0 or less: it has, and `expired` says so. */
  left(now: number): number {
    const left = this.since === undefined ? this.idle : this.since + this.idle - now
    if (left <= 0) this.fail(`nothing came for ${Duration.format(Duration.millis(this.idle))} in the middle of the body`)
    return left
  }
  private fail(detail: string) {
    return this.expired = new NetworkError({ host: this.host, reason: "timeout", detail, transient: true, phase: "body" })
  }
}

const milliseconds = (clock: Clock.Clock) => Number(clock.monotonicTimeNanosUnsafe() / 1000n) / 1000

/**
 * Holds a body to `limits.idle` and `limits.minimumRate`. One fiber and one sleeping timer a body, plain arithmetic an array:
 * a silent body is ended by `abort`, which must make `source` fail.
 */
export const guarded = <E>(
  source: Stream.Stream<Uint8Array, E>,
  options: { readonly host: string; readonly limits: Limits; readonly abort: Effect.Effect<void>; readonly fault: (error: E) => NetworkError }
): Stream.Stream<Uint8Array, NetworkError> =>
  Stream.unwrap(Effect.clockWith((clock) => Effect.sync(() => {
    const watch = new Watch(options.host, options.limits)
    const watchdog = Effect.gen(function*() {
      for (;;) {
        const left = watch.left(milliseconds(clock))
        if (left <= 0) return yield* options.abort
        yield* Effect.sleep(left)
      }
    })
    const held = Stream.transformPull(
      Stream.mapError(source, (error) => watch.expired ?? options.fault(error)),
      (pull, scope) => Effect.as(
        Effect.forkIn(watchdog, scope),
        Effect.flatMap(
          Effect.suspend(() => { watch.wait(milliseconds(clock)); return pull }),
          (chunks) => {
            const slow = watch.took(milliseconds(clock), chunks)
            return slow === undefined ? Effect.succeed(chunks) : Effect.fail(slow)
          }
        )
      )
    )
    return Stream.ensuring(held, options.abort)
  })))

/**
 * At most `size` + 1 bytes of a body, so that its reader sees one byte too many and no more. Once `size` bytes are there, its end
 * is awaited for `settle` only, and how it fails from then on does not matter.
 */
export const bounded = (source: Stream.Stream<Uint8Array, NetworkError>, size: number, settle: Duration.Input): Stream.Stream<Uint8Array, NetworkError> =>
  Stream.transformPull(source, (pull) => Effect.sync(() => {
    let left = size + 1
    const take = Effect.map(pull, (chunks) => {
      let total = 0
      for (const chunk of chunks) total += chunk.byteLength
      if (total <= left) {
        left -= total
        return chunks
      }
      const kept = Buffer.concat(chunks).subarray(0, left)
      left = 0
      return [kept] as const
    })
    const end = Effect.timeoutOrElse(take, { duration: settle, orElse: () => Cause.done() }).pipe(Effect.catchTag("NetworkError", () => Cause.done()))
    return Effect.suspend(() => left === 0 ? Cause.done() : left === 1 ? end : take)
  }))

/** The whole of a body, or undefined as soon as it is longer than `cap` bytes. */
export const collect = (source: Stream.Stream<Uint8Array, NetworkError>, cap: number): Effect.Effect<Uint8Array | undefined, NetworkError> =>
  Effect.suspend(() => {
    const kept: Array<Uint8Array> = []
    let length = 0
    return Stream.runForEachArray(Stream.takeUntil(source, () => length > cap), (chunks) => Effect.sync(() => {
      for (const chunk of chunks) if ((length += chunk.byteLength) <= cap) kept.push(chunk)
    })).pipe(Effect.map(() => length > cap ? undefined : Buffer.concat(kept)))
  })
