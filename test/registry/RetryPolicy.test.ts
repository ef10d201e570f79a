import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Random, type Schedule } from "effect"
import { TestClock } from "effect/testing"
import { NetworkError, NotFound, type RegistryFailure } from "../../src/registry/Errors.ts"
import * as RetryPolicy from "../../src/registry/RetryPolicy.ts"

const lost = (retryAfter?: Duration.Duration, transient = true) => new NetworkError({
  host: "r.example", reason: "reset", detail: "lost", transient, ...retryAfter !== undefined && { retryAfter }
})

/** How often `error` is tried, and how long that takes, in milliseconds of the test's clock. */
const run = (error: RegistryFailure, policy: Schedule.Schedule<unknown, RegistryFailure> = RetryPolicy.transient) => Effect.gen(function*() {
  let tries = 0
  const times: Array<number> = []
  const fiber = yield* Effect.clockWith((clock) => Effect.suspend(() => {
    tries++
    times.push(clock.currentTimeMillisUnsafe())
    return Effect.fail(error)
  })).pipe(Effect.retry(policy), Effect.forkChild)
  yield* TestClock.adjust("1 hour")
  const exit = yield* Fiber.await(fiber)
  assert.isTrue(Exit.isFailure(exit))
  return { tries, waits: times.slice(1).map((time, at) => time - (times[at] ?? 0)) }
})

describe("transient", () => {
  it.effect("tries five times, with full jitter", () => Effect.gen(function*() {
    const { tries, waits } = yield* run(lost())
    assert.strictEqual(tries, 5)
    waits.forEach((wait, at) => { assert.isBelow(wait, 250 * 2 ** at + 1) })
  }))
  it.effect("uses the whole of each delay", () => Effect.gen(function*() {
    const all = yield* Effect.forEach(Array.from({ length: 60 }), () => run(lost()))
    const last = all.map(({ waits }) => waits[3] ?? 0)
    assert.isBelow(Math.min(...last), 400)
    assert.isAbove(Math.max(...last), 1600)
  }).pipe(Random.withSeed("jitter")))
  it.effect("waits at least as long as the registry asks", () => Effect.gen(function*() {
    const { tries, waits } = yield* run(lost(Duration.seconds(30)))
    assert.deepStrictEqual([tries, ...waits], [5, 30_000, 30_000, 30_000, 30_000])
  }))
  it.effect("gives up at once what no try can help", () => Effect.gen(function*() {
    assert.strictEqual((yield* run(lost(undefined, false))).tries, 1)
    assert.strictEqual((yield* run(new NotFound({ host: "r.example", what: "blob", repository: "a", name: "b" }))).tries, 1)
  }))
})

describe("v1", () => {
  it.effect("documents wait 500 ms more each time, layers 5 s, five tries in all", () => Effect.gen(function*() {
    assert.deepStrictEqual((yield* run(lost(), RetryPolicy.legacyMetadata)).waits, [500, 1000, 1500, 2000])
    assert.deepStrictEqual((yield* run(lost(), RetryPolicy.legacyLayer)).waits, [5000, 10_000, 15_000, 20_000])
  }))
  it.effect("both wait as long as they are asked to, and not for what no try can help", () => Effect.gen(function*() {
    for (const policy of [RetryPolicy.legacyMetadata, RetryPolicy.legacyLayer]) {
      assert.deepStrictEqual((yield* run(lost(Duration.seconds(30)), policy)).waits, [30_000, 30_000, 30_000, 30_000])
      assert.strictEqual((yield* run(lost(undefined, false), policy)).tries, 1)
      assert.strictEqual((yield* run(new NotFound({ host: "r.example", what: "tag", repository: "a", name: "b" }), policy)).tries, 1)
    }
  }))
})
