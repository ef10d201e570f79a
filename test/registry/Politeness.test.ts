import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Politeness from "../../src/registry/Politeness.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { Limits } from "../../src/registry/RetryPolicy.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import { bytesOf, client, descriptorOf } from "./Client.ts"

const polite = (manners: Partial<Politeness.Manners> = {}) => Politeness.make.pipe(
  Effect.provide(Layer.mergeAll(
    Layer.effect(Politeness.Manners, Effect.map(Politeness.Manners, (usual) => ({ ...usual, ...manners }))),
    Layer.effect(Limits, Effect.map(Limits, (limits) => ({ ...limits, pace: 0 }))))))

/** How many of these are done after so long. */
const done = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) => fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length

describe("turns", () => {
  it.effect("come at a rate after a burst, for each host apart", () => Effect.gen(function*() {
    const { turn } = yield* polite({ perSecond: 10, burst: 5 })
    const fibers = yield* Effect.forEach(Array.from({ length: 25 }), () => Effect.forkChild(turn("a"), { startImmediately: true }))
    assert.strictEqual(done(fibers), 5)
    yield* turn("b")
    yield* TestClock.adjust("1 second")
    assert.strictEqual(done(fibers), 15)
    yield* TestClock.adjust("1 second")
    assert.strictEqual(done(fibers), 25)
  }))
  it.effect("wait for a pause that the host asked anyone for, in either form; not for junk, or for longer than is honoured", () => Effect.gen(function*() {
    const { heard, turn } = yield* polite()
    const waits = Effect.fnUntraced(function*(status: number, headers: Record<string, string>, host: string) {
      yield* heard(host, status, headers)
      const fiber = yield* Effect.forkChild(turn(host), { startImmediately: true })
      for (let second = 0; second < 100; second++) {
        if (done([fiber]) === 1) return second
        yield* TestClock.adjust("1 second")
      }
      return Infinity
    })
    assert.strictEqual(yield* waits(429, { "retry-after": "7" }, "a"), 7)
    assert.strictEqual(yield* waits(503, { "retry-after": "Thu, 01 Jan 2026 00:00:05 GMT", date: "Thu, 01 Jan 2026 00:00:00 GMT" }, "b"), 5)
    assert.strictEqual(yield* waits(429, { "retry-after": "soon" }, "c"), 0)
    assert.strictEqual(yield* waits(429, { "retry-after": "3600" }, "d"), 0)
    assert.strictEqual(yield* waits(200, { "retry-after": "7" }, "e"), 0)
  }))
})

describe("bandwidth", () => {
  it.effect("is shared by all bodies", () => Effect.gen(function*() {
    const { piece, slowed } = yield* polite({ bandwidth: 1000 })
    assert.strictEqual(piece, 1 << 14)
    const body = (count: number) => Stream.runDrain(slowed(Stream.fromIterable(Array.from({ length: count }, () => new Uint8Array(500))).pipe(Stream.rechunk(1))))
    const fibers = yield* Effect.forEach([4, 4], (count) => Effect.forkChild(body(count), { startImmediately: true }))
    yield* TestClock.adjust("3900 millis")
    assert.isBelow(done(fibers), 2)
    yield* TestClock.adjust("200 millis")
    assert.strictEqual(done(fibers), 2)
  }))
})

describe("Docker Hub's limits", () => {
  it.each<readonly [limit: string | undefined, remaining: string | undefined, said: string | undefined]>([
    ["100;w=21600", "76;w=21600", undefined], ["100;w=21600", "10;w=21600", "10 more of 100 pulls in 6h"], ["1000;w=21600", "100;w=21600", "100 more of 1000 pulls in 6h"],
    ["1000;w=21600", "101;w=21600", undefined], [undefined, "3", "3 more pulls"], ["100;w=21600", undefined, undefined], ["x", "y", undefined], ["100", "0", "0 more of 100 pulls"]
  ])("%s, %s: %s", (limit, remaining, said) => {
    assert.strictEqual(Politeness.lowLimit({ "ratelimit-limit": limit, "ratelimit-remaining": remaining }), said)
  })
})

describe("over real HTTP", () => {
  it.live("a Retry-After holds back the other requests to that host too, and a low limit is told once", () => Effect.gen(function*() {
    const made = yield* TestRegistry.make({ script: [
      { match: { kind: "manifest", nth: 1 }, do: Fault.status(429, { "retry-after": "1" }) },
      { match: { kind: "manifest" }, do: Fault.setHeaders({ "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "3;w=21600" }) }
    ] })
    const bytes = Buffer.from("blob")
    made.addBlob("a", bytes)
    made.addManifest("a", "1", Buffer.from("{}"), "application/vnd.oci.image.manifest.v1+json")
    const repository = { domain: made.host, path: "a" }
    yield* Effect.gen(function*() {
      const registry = yield* Registry
      const told: Array<string> = []
      yield* registry.listen(({ message }) => told.push(message))
      const manifest = yield* Effect.forkChild(registry.manifest(repository, "1"))
      yield* made.seen({ kind: "manifest" })
      yield* Effect.sleep("100 millis")
      const [took] = yield* Effect.timed(Effect.scoped(Effect.flatMap(registry.blob(repository, descriptorOf(bytes), 0), ({ body }) => bytesOf(body))))
      assert.isAbove(Duration.toMillis(took), 600)
      yield* Fiber.join(manifest)
      yield* registry.manifest(repository, "1")
      assert.deepStrictEqual(told, [`${made.host} allows 3 more of 100 pulls in 6h before it refuses; log in for a higher limit`])
    }).pipe(Effect.scoped, Effect.provide(client()))
  }).pipe(Effect.scoped))

  it.live("foreign layers: only where allowed, from https, without credentials, and resumed", () => Effect.gen(function*() {
    const bytes = Buffer.from("a foreign layer")
    const blob = descriptorOf(bytes)
    const far = yield* TestRegistry.make({ tls: true })
    far.addBlob("x", bytes)
    const made = yield* TestRegistry.make({ auth: { kind: "basic", users: { ada: "hush" } } })
    const foreign = (...urls: ReadonlyArray<string>) => ({ domain: made.host, path: "a", foreign: { [blob.digest]: urls } })
    const get = (urls: ReadonlyArray<string>, allowed = true, from = 0) => Effect.scoped(Registry.use((registry) => registry.blob(foreign(...urls), blob, from)).pipe(
      Effect.flatMap((answer) => Effect.map(bytesOf(answer.body), (body) => [answer.from, String(body)])))).pipe(
      Effect.provide(client({ credentials: { [made.host]: { username: "ada", password: "hush" } }, options: { foreign: allowed, authorities: [far.certificate ?? ""] } })))
    const url = `${far.url}/v2/x/blobs/${blob.digest}`
    const off = yield* Effect.flip(get([url], false))
    assert.include(off.message, "--allow-foreign fetches it from there")
    assert.deepStrictEqual(far.requests, [])
    assert.deepStrictEqual(yield* get(["ftp://x/", url.replace("https:", "http:"), `${far.url}/none`, url]), [0, "a foreign layer"])
    assert.deepStrictEqual(yield* get([url], true, 10), [10, "layer"])
    const none = yield* Effect.flip(get([url.replace("https:", "http:"), `${far.url}/none?sig=hush`]))
    assert.strictEqual(none._tag, "NotFound")
    assert.match(none.message, /1\. http:\/\/127.*\(urls of the layer\): refused: it is not https\n {2}2\. https:\/\/127\.0\.0\.1:\d+\/none \(urls of the layer\): it answered 404$/)
  }).pipe(Effect.scoped))
})
