import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Schema, Stream } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Pools from "../src/Pools.ts"
import { Hub } from "../src/progress/Hub.ts"
import type { PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import { Fault, ImageBuilder, LegacyImage, TestRegistry, V1Server } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, layer, noise } = ImageBuilder
const platform = "linux/amd64"
const key = { text: "key" }

/** A hub that keeps every event, and what it was told. */
const recorder = <Event>() => {
  const hub = new Hub<Event>(() => undefined)
  const told: Array<Event> = []
  return { hub, told, record: hub.observe((event) => { told.push(event) }) }
}

/** Work that publishes, one after the other, as many numbers as the gate lets through. */
const counting = Effect.gen(function*() {
  const gate = yield* Deferred.make<void>()
  const begun = yield* Deferred.make<void>()
  let runs = 0, stops = 0
  const work = (hub: Hub<number>) => Effect.gen(function*() {
    runs++
    for (let n = 0; n < 5; n++) hub.publish(n)
    yield* Deferred.succeed(begun, undefined)
    yield* Deferred.await(gate)
    for (let n = 5; n < 10; n++) hub.publish(n)
    return runs
  }).pipe(Effect.onInterrupt(() => Effect.sync(() => { stops++ })))
  return { gate, begun, work, counts: () => ({ runs, stops }) }
})

describe("A pool", () => {
  it.effect("joiners see the whole history as it was published, then follow, and get the same result", () => Effect.gen(function*() {
    const pool = yield* Pools.make<number, number, never>()
    const { begun, counts, gate, work } = yield* counting
    const [first, second, other] = [recorder<number>(), recorder<number>(), recorder<number>()]
    yield* Effect.all([first.record, second.record, other.record])
    const one = yield* Effect.forkChild(pool.join(key, first.hub, work))
    yield* Deferred.await(begun)
    const two = yield* Effect.forkChild(pool.join({ text: "key" }, second.hub, work), { startImmediately: true })
    const twice = yield* Effect.forkChild(pool.join(key, second.hub, work), { startImmediately: true })
    const apart = yield* Effect.forkChild(pool.join({ text: "key", settings: { platform } }, other.hub, work), { startImmediately: true })
    const with1 = yield* Effect.forkChild(pool.join({ text: "key", settings: { platform } }, other.hub, work), { startImmediately: true })
    yield* Effect.yieldNow
    assert.deepStrictEqual([second.told, counts()], [[0, 1, 2, 3, 4], { runs: 2, stops: 0 }])
    yield* Deferred.succeed(gate, undefined)
    assert.deepStrictEqual(yield* Effect.forEach([one, two, twice, apart, with1], Fiber.join), [2, 2, 2, 2, 2])
    for (const { told } of [first, second, other]) assert.deepStrictEqual(told, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    yield* pool.join(key, first.hub, work)
    assert.deepStrictEqual(counts(), { runs: 3, stops: 0 }, "what has ended is begun anew")
  }).pipe(Effect.scoped))

  it.effect.prop("stops when the last leaves, whoever that is, and then begins anew",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 }))).check(Schema.isMaxLength(8))], Effect.fnUntraced(function*([order]) {
      const pool = yield* Pools.make<number, number, never>()
      const { begun, counts, gate, work } = yield* counting
      const reader = recorder<number>()
      const fibers: Array<Fiber.Fiber<number>> = []
      for (let n = 0; n < 8; n++) fibers.push(yield* Effect.forkChild(pool.join(key, n % 2 === 0 ? reader.hub : new Hub<number>(() => undefined), work), { startImmediately: true }))
      yield* Deferred.await(begun)
      const leavers = new Set([...order, 0, 1, 2, 3, 4, 5, 6, 7])
      for (const [at, leaver] of [...leavers].entries()) {
        assert.deepStrictEqual(counts(), { runs: 1, stops: 0 }, `${at} have left`)
        const fiber = fibers[leaver]
        if (fiber !== undefined) yield* Fiber.interrupt(fiber)
      }
      assert.deepStrictEqual(counts(), { runs: 1, stops: 1 })
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* pool.join(key, reader.hub, work), 2)
    }, Effect.scoped))

  it.effect("all get the same failure; who hears of it begins anew at once; a bug is told as one", () => Effect.gen(function*() {
    const pool = yield* Pools.make<number, string, "lost">()
    let runs = 0
    const work = () => Effect.suspend(() => ++runs === 1 ? Effect.andThen(Effect.yieldNow, Effect.fail("lost" as const)) : Effect.succeed(`run ${runs}`))
    const hub = new Hub<number>(() => undefined)
    const retried = Effect.forEach(Array(100).keys(), () => pool.join(key, hub, work).pipe(Effect.catch(() => pool.join(key, hub, work))), { concurrency: "unbounded" })
    assert.deepStrictEqual(new Set(yield* retried).size, 1)
    assert.strictEqual(runs, 2)
    const exit = yield* Effect.exit(pool.join({ text: "bug" }, hub, () => Effect.die("bug")))
    assert.deepStrictEqual(exit, Exit.die("bug"))
  }).pipe(Effect.scoped))

  it.effect("what is held is there until the last lets go; a failure is not", () => Effect.gen(function*() {
    const pool = yield* Pools.make<number, number, "lost">()
    const hub = new Hub<number>(() => undefined)
    let runs = 0, open = 0
    const work = () => Effect.gen(function*() {
      yield* Effect.acquireRelease(Effect.sync(() => { open++ }), () => Effect.sync(() => { open-- }))
      return ++runs === 1 ? yield* Effect.fail("lost" as const) : runs
    })
    yield* Effect.scoped(Effect.gen(function*() {
      assert.strictEqual(yield* Effect.flip(pool.hold(key, hub, work)), "lost")
      assert.strictEqual(yield* pool.hold(key, hub, work), 2)
      yield* Effect.scoped(Effect.map(pool.hold(key, hub, work), (run) => assert.deepStrictEqual([run, runs], [2, 2])))
      assert.isAbove(open, 0)
    }))
    assert.strictEqual(open, 0)
    assert.strictEqual(yield* pool.hold(key, hub, work), 3)
  }).pipe(Effect.scoped))

  it.effect("work that is slow to stop does not take the next run's place", () => Effect.gen(function*() {
    const pool = yield* Pools.make<number, string, "late">()
    const hub = new Hub<number>(() => undefined)
    const [begun, stop, gate] = [yield* Deferred.make<void>(), yield* Deferred.make<void>(), yield* Deferred.make<void>()]
    let runs = 0
    // Its commit is under way when its last caller leaves, and it ends in its own way.
    const slow = () => Deferred.succeed(begun, undefined).pipe(Effect.andThen(Deferred.await(stop)), Effect.andThen(Effect.fail("late" as const)), Effect.uninterruptible)
    const next = () => Effect.andThen(Effect.sync(() => { runs++ }), Effect.as(Deferred.await(gate), "next"))
    const first = yield* Effect.forkChild(pool.join(key, hub, slow))
    yield* Deferred.await(begun)
    const leaving = yield* Effect.forkChild(Fiber.interrupt(first), { startImmediately: true })
    const second = yield* Effect.forkChild(pool.join(key, hub, next), { startImmediately: true })
    yield* Effect.yieldNow
    yield* Deferred.succeed(stop, undefined)
    yield* Fiber.join(leaving)
    const third = yield* Effect.forkChild(pool.join(key, hub, next), { startImmediately: true })
    yield* Effect.yieldNow
    yield* Deferred.succeed(gate, undefined)
    assert.deepStrictEqual([yield* Fiber.join(second), yield* Fiber.join(third), runs], ["next", "next", 1])
  }).pipe(Effect.scoped))

  it.effect("a reader that never reads slows nobody", () => Effect.gen(function*() {
    const pool = yield* Pools.make<number, string, never>()
    const stuck = new Hub<number>(() => undefined)
    const seen = yield* Deferred.make<void>()
    yield* Stream.runForEach(stuck.stream, () => Effect.andThen(Deferred.succeed(seen, undefined), Effect.never)).pipe(Effect.forkScoped)
    const work = (hub: Hub<number>) => Effect.sync(() => {
      for (let n = 0; n < 100_000; n++) hub.publish(n)
      return "done"
    })
    assert.strictEqual(yield* pool.join(key, stuck, work), "done")
    yield* Deferred.await(seen)
  }).pipe(Effect.scoped))
})

describe("Pulls that share their work", () => {
  const setting = Effect.gen(function*() {
    const registry = yield* TestRegistry.make()
    const layers = ["a", "b", "c"].map((name) => layer([{ path: name, contents: noise(name, 300_000) }], { compression: "none" }))
    const built = image({ layers })
    registry.put("app", "1", built)
    return { registry, built, folder: yield* temporary, reference: `${registry.host}/app:1` }
  })
  const counts = (registry: TestRegistry) => {
    const seen = new Map<string, number>()
    for (const { digest, kind, status } of registry.requests) if (kind === "blob" && status < 300) seen.set(digest ?? "", (seen.get(digest ?? "") ?? 0) + 1)
    return [...seen.values()]
  }
  const begun = (registry: TestRegistry) => Effect.gen(function*() {
    while (registry.requests.filter(({ kind }) => kind === "blob").length < 3) yield* Effect.sleep("5 millis")
  })

  it.live("100 callers: each blob once, one result, and one story, however late they come", () => Effect.gen(function*() {
    const { built, folder, registry } = yield* setting
    registry.put("app", "latest", built)
    registry.script([{ match: { kind: "blob", digest: built.layers[2]?.digest ?? "" }, do: Fault.stall(200_000, 600) }])
    yield* Effect.gen(function*() {
      const callers = Array.from({ length: 100 }, () => recorder<PullEvent>())
      const pulled = yield* Effect.forEach(callers, ({ hub, record }, n) => Effect.gen(function*() {
        yield* record
        if (n >= 50) yield* Effect.sleep(`${n * 4} millis`)
        return yield* Pull.pullWith(hub, n % 3 === 0 ? `${registry.host}/app` : `${registry.host}/app:latest`, { platform })
      }), { concurrency: "unbounded" })
      assert.deepStrictEqual(counts(registry), built.layers.map(() => 1).concat(1))
      assert.strictEqual(registry.requests.filter(({ kind }) => kind === "manifest").length, 1)
      assert.strictEqual(new Set(pulled).size, 1)
      const [first] = callers
      assert.isAbove(first?.told.length ?? 0, 30)
      for (const { told } of callers) assert.deepStrictEqual(told, first?.told ?? [])
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 30_000)

  it.live("all but one leave: the pull goes on; the last leaves: it stops", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([{ match: { kind: "blob" }, do: Fault.stall(100_000, 400) }])
    yield* Effect.gen(function*() {
      const fibers = yield* Effect.forEach(Array(20).keys(), () => Effect.forkChild(Pull.pull(reference, { platform })))
      yield* begun(registry)
      yield* Effect.forEach(fibers.slice(0, -1), Fiber.interrupt, { concurrency: "unbounded" })
      yield* Effect.forEach(fibers.slice(-1), Fiber.join)
      assert.deepStrictEqual(counts(registry), [1, 1, 1, 1])

      registry.put("app", "2", image({ layers: ["d", "e", "f"].map((name) => layer([{ path: name, contents: noise(name, 300_000) }], { compression: "none" })) }))
      registry.forget()
      registry.script([{ match: { kind: "blob" }, do: Fault.stall(100_000, Infinity) }])
      const stuck = yield* Effect.forEach(Array(20).keys(), () => Effect.forkChild(Pull.pull(`${registry.host}/app:2`, { platform, unpack: false })))
      yield* begun(registry)
      yield* Effect.forEach(stuck, Fiber.interrupt, { concurrency: "unbounded" })
      registry.script([])
      registry.forget()
      assert.isTrue((yield* Pull.pull(`${registry.host}/app:2`, { platform })).changed)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 30_000)

  it.live("all hear of a failure; a pull right after it works", () => Effect.gen(function*() {
    const { built, folder, reference, registry } = yield* setting
    const digest = built.layers[0]?.digest ?? ""
    yield* Effect.gen(function*() {
      registry.script([{ match: { kind: "blob", digest, nth: [1, 2] }, do: Fault.flip(1000) }])
      const once = Effect.flatMap(Effect.flip(Pull.pull(reference, { platform })), (error) => Effect.map(Pull.pull(reference, { platform }), (image) => ({ error, image })))
      const outcomes = yield* Effect.forEach(Array(30).keys(), () => once, { concurrency: "unbounded" })
      assert.strictEqual(new Set(outcomes.map(({ error }) => error)).size, 1)
      assert.strictEqual(new Set(outcomes.map(({ image }) => image)).size, 1)
      assert.strictEqual(outcomes[0]?.error._tag, "VerifyError")
      assert.strictEqual(registry.find({ digest }).length, 3)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 30_000)

  it.live("root file systems are each their own, over layers that are fetched once; other settings are other pulls", () => Effect.gen(function*() {
    const { built, folder, reference, registry } = yield* setting
    yield* Effect.gen(function*() {
      const roots = [0, 1, 2].map((n) => join(folder, `root-${n}`))
      yield* Effect.all([
        ...roots.map((rootfs) => Pull.pull(reference, { platform, rootfs })), Pull.pull(reference, { platform }), Pull.pull(reference, { platform, unpack: false })
      ], { concurrency: "unbounded" })
      for (const digest of built.layers.map(({ digest }) => digest)) assert.strictEqual(registry.find({ digest }).length, 1)
      for (const root of roots) assert.deepStrictEqual(readFileSync(join(root, "b")), Buffer.from(noise("b", 300_000)))
      const refused = yield* Effect.flip(Pull.pull(reference, { platform, rootfs: roots[0] ?? "" }))
      assert.strictEqual(refused._tag, "TargetNotEmpty")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 30_000)

  it.live("tags of a v1 repository share its layers, which have no digest to go by", () => Effect.gen(function*() {
    const folder = yield* temporary
    const { images } = LegacyImage.legacy({ steps: [0, 1, 2].map((n) => ({ tar: [{ path: `f${n}`, contents: noise(`f${n}`, 100_000) }] })) })
    const server = (yield* V1Server.make({ script: [{ match: { kind: "layer" }, do: Fault.stall(50_000, 300) }] }))
      .put("team/app", "1", images).put("team/app", "2", images.slice(0, 2)).put("team/app", "3", images)
    yield* Effect.gen(function*() {
      const stories = yield* Effect.forEach(["1", "2", "3"], (tag) => Effect.gen(function*() {
        const { hub, record, told } = recorder<PullEvent>()
        yield* record
        yield* Pull.pullWith(hub, `${server.host}/team/app:${tag}`, { platform })
        return told
      }), { concurrency: "unbounded" })
      assert.strictEqual(server.find({ kind: "layer" }).length, 3)
      for (const [n, told] of stories.entries()) {
        const layers = told.flatMap((event) => event._tag === "committed" || event._tag === "exists" ? [event.layer] : [])
        assert.sameMembers(layers, images.slice(0, n === 1 ? 2 : 3).map(({ id }) => id))
      }
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 30_000)
})
