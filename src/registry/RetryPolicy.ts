import { Context, Duration, Effect, Random, Schedule } from "effect"
import type { NetworkError, RegistryFailure } from "./Errors.ts"

/** How long to wait for what. */
export interface Limits {
  /** Until a connection stands, name look-up and TLS included. */
  readonly connect: Duration.Input
  /** From the request to the end of the answer's headers, connecting included. */
  readonly headers: Duration.Input
  /** Between two pieces of a body. */
  readonly idle: Duration.Input
  /** Bytes per second a body must reach on average over `rateWindow` of waiting for it. */
  readonly minimumRate: number
  readonly rateWindow: Duration.Input
  /** For the end of a body after its last expected byte. */
  readonly settle: Duration.Input
  /** The longest Retry-After that is honoured; more fails at once. */
  readonly pause: Duration.Input
  /** What the waits of `transient` are multiplied by. */
  readonly pace: number
  /** Tries in a row without a new byte before a request is given up. Default: 5. */
  readonly tries?: number
}

const defaultTries = 5

/** The limits in force: connect 10 s, headers 30 s, idle body 30 s, 1 KiB/s over 60 s, 2 s for a body's end, Retry-After up to 60 s. */
export const Limits = Context.Reference<Limits>("registry/Limits", {
  defaultValue: () => ({
    connect: "10 seconds", headers: "30 seconds", idle: "30 seconds", minimumRate: 1024, rateWindow: "60 seconds",
    settle: "2 seconds", pause: "60 seconds", pace: 1
  })
})

/** Five tries (`Limits.tries`) in a row without a new byte (it counts a whole run: begin it afresh when bytes came). Waits 250 ms doubling
 *  to 10 s, times a uniform 0 to 1 (full jitter), and at least Retry-After (what exceeds `Limits.pause` is no longer transient). */
export const transient = Schedule.min([Schedule.exponential("250 millis"), Schedule.spaced("10 seconds")]).pipe(
  Schedule.setInputType<RegistryFailure>(),
  Schedule.while(({ attempt, input }) => Effect.map(Limits, ({ tries = defaultTries }) => attempt < tries && input._tag === "NetworkError" && input.transient)),
  Schedule.modifyDelay(({ duration, input }) =>
    Effect.gen(function*() {
      const share = yield* Random.next
      const { pace } = yield* Limits
      const asked = input._tag === "NetworkError" ? input.retryAfter ?? Duration.zero : Duration.zero
      return Duration.max(Duration.times(duration, share * pace), asked)
    })
  )
)

/**
 * Whether a try that took so long and ended in `error` got on, so that the count of tries begins afresh: it brought `gained` new bytes.
 * One that ended in silence must have reached the minimum rate over all its time too, or a byte a try would keep us for ever.
 */
export const gotOn = (error: NetworkError, gained: number, took: Duration.Duration, limits: Limits): boolean =>
  gained > 0 && (error.reason !== "timeout" || gained >= limits.minimumRate * Duration.toSeconds(took))

/** What was damaged is fetched once more: bytes that are not those of their digest, and a document without one that cannot be read (`unread`). */
export const damaged = Schedule.recurs(1)

/** The policy for documents that no digest is over: a body that was cut where nobody said its length looks as if it were refused. */
export const unread = { schedule: damaged, while: (error: RegistryFailure) => error._tag === "AnswerRefused" }

const stepped = (step: Duration.Input) => Schedule.spaced(0).pipe(
  Schedule.setInputType<RegistryFailure>(),
  Schedule.while(({ attempt, input }) => Effect.map(Limits, ({ tries = defaultTries }) => attempt < tries && input._tag === "NetworkError" && input.transient)),
  Schedule.modifyDelay(({ attempt, input }) => Effect.map(Limits, ({ pace }) => {
    const asked = input._tag === "NetworkError" ? input.retryAfter ?? Duration.zero : Duration.zero
    return Duration.max(Duration.times(Duration.fromInputUnsafe(step), attempt * pace), asked)
  }))
)

/** Documents of a v1 registry: five tries (`Limits.tries`), the waits between them growing by 500 ms each (and at least Retry-After). */
export const legacyMetadata = stepped("500 millis")

/** Layers of a v1 registry: five tries (`Limits.tries`) in a row without a new byte, the waits between them growing by 5 s each (and at least Retry-After). */
export const legacyLayer = stepped("5 seconds")
