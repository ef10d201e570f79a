import { assert, describe, it } from "@effect/vitest"
import { type Cause, Effect, Exit, Fiber, Queue, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { bounded, collect, guarded } from "../../src/registry/answer/Body.ts"
import { NetworkError } from "../../src/registry/Errors.ts"
import { Limits } from "../../src/registry/RetryPolicy.ts"

const lost = new NetworkError({ host: "r.example", reason: "reset", detail: "lost", transient: true })

/** A guarded body fed by hand, under the real limits and the test's clock. */
const fed = Effect.gen(function*() {
  const queue = yield* Queue.make<Uint8Array, Error | Cause.Done>()
  const limits = yield* Limits
  const body = guarded(Stream.fromQueue(queue), {
    host: "r.example", limits, fault: () => lost, abort: Queue.fail(queue, new Error("aborted")).pipe(Effect.asVoid)
  })
  return { body, send: (bytes: number) => Queue.offer(queue, new Uint8Array(bytes)), end: Queue.end(queue) }
})

describe("guarded", () => {
  it.effect("ends a body that is silent for 30 seconds", () => Effect.gen(function*() {
    const { body, send } = yield* fed
    let received = 0
    const fiber = yield* Effect.forkChild(Stream.runForEach(body, (chunk) => Effect.sync(() => { received += chunk.byteLength })))
    for (let turn = 0; turn < 5; turn++) {
      yield* TestClock.adjust("29 seconds")
      yield* send(1 << 16)
    }
    yield* TestClock.adjust("29 seconds")
    assert.strictEqual(received, 5 << 16)
    assert.isUndefined(fiber.pollUnsafe())
    yield* TestClock.adjust("1 second")
    const error = yield* Effect.flip(Fiber.join(fiber))
    assert.deepInclude({ ...error }, { reason: "timeout", phase: "body", transient: true })
    assert.include(error.message, "30s")
  }))
  it.effect("ends a body that trickles", () => Effect.gen(function*() {
    const { body, send } = yield* fed
    const fiber = yield* Effect.forkChild(Stream.runDrain(body))
    for (let turn = 0; turn < 59; turn++) {
      yield* send(1000)
      yield* TestClock.adjust("1 second")
    }
    assert.isUndefined(fiber.pollUnsafe())
    yield* send(1000)
    yield* TestClock.adjust("1 second")
    yield* send(1000)
    yield* TestClock.adjust(0)
    const error = yield* Effect.flip(Fiber.join(fiber))
    assert.include(error.message, "less than 1024")
  }))
  it.effect("has patience with its reader", () => Effect.gen(function*() {
    const { body, send, end } = yield* fed
    yield* send(10)
    const fiber = yield* Effect.forkChild(Stream.runForEach(body, () => Effect.sleep("1 hour")))
    for (let turn = 0; turn < 3; turn++) {
      yield* TestClock.adjust("1 hour")
      yield* send(10)
    }
    yield* end
    yield* TestClock.adjust("9 hours")
    yield* Fiber.join(fiber)
  }))
})

const Cuts = Schema.Array(Schema.Uint8Array)
const joined = (chunks: ReadonlyArray<Uint8Array>) => Buffer.concat(chunks)

describe("bounded", () => {
  it.effect.prop("gives what comes up to one byte too many, however it is cut", { chunks: Cuts, size: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 })) }, Effect.fnUntraced(function*({ chunks, size }) {
    const got = joined(yield* Stream.runCollect(bounded(Stream.fromIterable(chunks), size, "1 second")))
    assert.deepStrictEqual(got, joined(chunks).subarray(0, size + 1))
  }))
  it.effect("does not mind how a body ends that is all there", () => Effect.gen(function*() {
    const whole = Stream.make(new Uint8Array(10))
    assert.strictEqual(joined(yield* Stream.runCollect(bounded(Stream.concat(whole, Stream.fail(lost)), 10, "1 second"))).byteLength, 10)
    const fiber = yield* Effect.forkChild(Stream.runCollect(bounded(Stream.concat(whole, Stream.never), 10, "1 second")))
    yield* TestClock.adjust("1 second")
    assert.strictEqual(joined(yield* Fiber.join(fiber)).byteLength, 10)
    assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(bounded(Stream.concat(whole, Stream.fail(lost)), 11, "1 second")))))
  }))
  it.effect("reads no further", () => Effect.gen(function*() {
    let pulled = 0
    const endless = Stream.fromIterable((function*() { for (;;) { pulled++; yield new Uint8Array(7) } })(), { chunkSize: 1 })
    assert.strictEqual(joined(yield* Stream.runCollect(bounded(endless, 20, "1 second"))).byteLength, 21)
    assert.isBelow(pulled, 10)
  }))
})

describe("collect", () => {
  it.effect.prop("gives all of a body, or undefined if it is too long", { chunks: Cuts, cap: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 })) }, Effect.fnUntraced(function*({ chunks, cap }) {
    const whole = joined(chunks)
    const got = yield* collect(Stream.fromIterable(chunks), cap)
    assert.deepStrictEqual(got && Buffer.from(got), whole.byteLength > cap ? undefined : whole)
  }))
  it.effect("stops an endless body at its cap", () => Effect.gen(function*() {
    assert.isUndefined(yield* collect(Stream.forever(Stream.make(new Uint8Array(1000))), 100_000))
  }))
})
