import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Result, Stream } from "effect"
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Downloads } from "../src/Download.ts"
import { type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import { Graph } from "../src/store/Graph.ts"
import { LayerStore } from "../src/store/LayerStore.ts"
import { Fault, ImageBuilder, TestRegistry, Tree } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, index, layer, layerOf, noise } = ImageBuilder
const platform = "linux/amd64"

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  return { registry, folder: yield* temporary }
})

const modes = [
  ["default", {}], ["--no-unpack", { unpack: false }], ["--rootfs", { rootfs: "root" }], ["--unpack --rootfs", { unpack: true, rootfs: "root" }]
] as const

/** How often each layer is said to be complete. */
const endings = (events: Iterable<PullEvent>) => {
  const counts = new Map<string, number>()
  for (const event of events) {
    if (event._tag === "committed" || event._tag === "exists") counts.set(event.layer, (counts.get(event.layer) ?? 0) + 1)
  }
  return counts
}

describe("Pull at the edges", () => {
  const base = [{ path: "a", contents: noise("a", 50_000) }]
  const twice = layer(base)
  const odd = {
    "the same layer twice": image({ layers: [twice, layer([{ path: ".wh.a" }, { path: "b", contents: "b" }]), twice] }),
    "one diff ID in two blobs": image({ layers: [layer(base), layer(base, { compression: "zstd" })] }),
    "no layers": image({ layers: [] }),
    "an empty layer, and one of no bytes": image({ layers: [layer([]), layerOf(new Uint8Array(), { compression: "none" }), twice] })
  }
  for (const [what, built] of Object.entries(odd)) {
    for (const [mode, { rootfs, ...options }] of modes as ReadonlyArray<readonly [string, Pull.PullOptions]>) {
      it.live(`${what}: ${mode}`, () => Effect.gen(function*() {
        const { folder, registry } = yield* setting
        registry.put("odd", "1", built)
        const expected = [...new Set(built.layers.map(({ digest }) => digest))].sort()
        yield* Effect.gen(function*() {
          for (const round of ["first", "second"]) {
            const target = rootfs === undefined ? {} : { rootfs: join(folder, `${rootfs}-${round}`) }
            const events = yield* Stream.runCollect(Pull.events(`${registry.host}/odd:1`, { platform, ...options, ...target }))
            const counts = endings(events)
            assert.deepStrictEqual([...counts.keys()].sort(), expected)
            assert.deepStrictEqual([...counts.values()], expected.map(() => 1), round)
            const done = events.at(-1)
            assert.isTrue(done?._tag === "done" && done.changed === (round === "first"), round)
            if (target.rootfs !== undefined) {
              const names = readdirSync(target.rootfs).sort()
              assert.deepStrictEqual(names, what === "no layers" ? [] : what === "the same layer twice" ? ["a", "b"] : ["a"])
              assert.strictEqual(lstatSync(target.rootfs).mode & 0o777, 0o755)
            }
          }
          yield* assertSound(folder)
        }).pipe(Effect.provide(towline(folder)))
      }).pipe(Effect.scoped))
    }
  }

  it.live("layers that are in the store already are told of once, when a root file system is made", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", ImageBuilder.demo())
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/app:1`, { platform })
      const events = yield* Stream.runCollect(Pull.events(`${registry.host}/app:1`, { platform, rootfs: join(folder, "root") }))
      assert.deepStrictEqual([...endings(events).values()], [1, 1, 1])
      const done = events.at(-1)
      assert.isTrue(done?._tag === "done" && !done.changed)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("a reader of events hears of a bug too", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", ImageBuilder.demo())
    const exit = yield* Stream.runDrain(Pull.events(`${registry.host}/app:1`, { platform })).pipe(
      Effect.provideService(Downloads, Downloads.of({ get: () => Effect.die(new Error("a bug")), forget: () => Effect.void })),
      Effect.provide(towline(folder)), Effect.exit, Effect.timeoutOption("5 seconds"))
    assert.isTrue(Option.isSome(exit) && exit.value._tag === "Failure")
  }).pipe(Effect.scoped))

  it.live("a root file system in a scope may be made where something called rootfs is, twice at a time", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", ImageBuilder.demo())
    const place = join(folder, "place")
    mkdirSync(join(place, "rootfs", "full"), { recursive: true })
    yield* Effect.gen(function*() {
      const pulled = yield* Pull.pull(`${registry.host}/app:1`, { platform, unpack: false })
      yield* Effect.scoped(Effect.gen(function*() {
        const [one, other] = yield* Effect.all([RootFs.make(pulled, { place }), RootFs.make(pulled, { place })], { concurrency: 2 })
        assert.deepStrictEqual(Tree.diff(Tree.walk(one), Tree.walk(other)), [])
      }))
    }).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(readdirSync(place), ["rootfs"])
  }).pipe(Effect.scoped))

  it.live("two pulls to one target: one is there, the other says why not", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", ImageBuilder.demo())
    const target = join(folder, "deep", "target")
    yield* Effect.gen(function*() {
      for (let n = 0; n < 5; n++) {
        const one = Effect.result(Pull.pull(`${registry.host}/app:1`, { platform, rootfs: target }))
        const results = yield* Effect.all([one, one, one], { concurrency: 3 })
        const tags = results.map((result) => Result.isFailure(result) ? result.failure._tag : "pulled").sort()
        assert.deepStrictEqual(tags, ["TargetNotEmpty", "TargetNotEmpty", "pulled"])
        assert.isAbove(Tree.walk(target).length, 10)
        rmSync(target, { recursive: true })
      }
    }).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(readdirSync(join(folder, "deep")), [])
    yield* assertSound(folder).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("a target where no folder can be is refused with its path", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", ImageBuilder.demo())
    writeFileSync(join(folder, "file"), "")
    yield* Effect.gen(function*() {
      for (const place of [join(folder, "file"), "/proc/self/no"]) {
        for (const target of [join(place, "root"), join(place, "deep", "root")]) {
          const error = yield* Effect.flip(Pull.pull(`${registry.host}/app:1`, { platform, rootfs: target }))
          assert.strictEqual(error._tag, "StoreError")
          assert.include(error.message, place)
        }
      }
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("a tag that moved between two manifests of one config is moved", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const [gzip, zstd] = [image({ layers: [layer(base)] }), image({ layers: [layer(base, { compression: "zstd" })] })]
    assert.strictEqual(gzip.config.descriptor.digest, zstd.config.descriptor.digest)
    registry.put("app", "1", gzip).put("app", "2", zstd)
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/app:1`, { platform })
      yield* Pull.pull(`${registry.host}/app:2`, { platform })
      registry.put("app", "1", zstd)
      const events = yield* Stream.runCollect(Pull.events(`${registry.host}/app:1`, { platform }))
      assert.isTrue(events.some(({ _tag }) => _tag === "tagged"))
      assert.strictEqual((yield* (yield* Graph).resolve(`${registry.host}/app:1`)).manifest.digest, zstd.manifest.descriptor.digest)
      registry.forget()
      assert.isFalse((yield* Pull.pull(`${registry.host}/app:1`, { platform })).changed)
      assert.isFalse((yield* Pull.pull(`${registry.host}/app:2`, { platform })).changed)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("layers that an ended pull left unsynced are synced before they are called durable", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const demo = ImageBuilder.demo()
    registry.put("app", "1", demo)
    const diffId = demo.diffIds[0]
    if (diffId === undefined) return
    yield* Pull.pull(`${registry.host}/app:1`, { platform }).pipe(Effect.provide(towline(folder, { durability: "fast" })))
    const safely = Effect.fnUntraced(function*(options: Pull.PullOptions) {
      let synced = 0
      const store = yield* LayerStore
      yield* Pull.pull(`${registry.host}/app:1`, { platform, ...options }).pipe(Effect.provideService(LayerStore, LayerStore.of({
        ...store, sync: (path) => Effect.andThen(Effect.sync(() => { if (path === undefined) synced++ }), store.sync(path))
      })))
      const state = Option.map(yield* store.find(diffId), ({ state }) => state)
      return [synced > 0, Option.getOrUndefined(state)]
    })
    yield* Effect.gen(function*() {
      registry.put("app", "1", index([demo])) // so that there is something to register
      assert.deepStrictEqual(yield* safely({ rootfs: join(folder, "root") }), [false, "unsynced"])
      assert.deepStrictEqual(yield* safely({}), [true, "durable"])
      assert.deepStrictEqual(yield* safely({}), [false, "durable"])
    }).pipe(Effect.provide(towline(folder, { durability: "safe" })))
  }).pipe(Effect.scoped))

  it.live("progress of unpacking is heard until a root file system is there", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const entries = [...Array(6_000).keys()].map((n) => ({ path: `d${n % 100}/f${n}`, contents: "x" }))
    registry.put("files", "1", image({ layers: [layer(entries)] }))
    yield* Effect.gen(function*() {
      const events = yield* Stream.runCollect(Pull.events(`${registry.host}/files:1`, { platform, rootfs: join(folder, "root") }))
      const tags = events.map(({ _tag }) => _tag)
      assert.isAbove(tags.lastIndexOf("extracting"), tags.indexOf("verified"))
      assert.isBelow(tags.lastIndexOf("extracting"), tags.indexOf("committed"))
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  for (const [mode, options] of [["--no-unpack", { unpack: false }], ["default", {}]] as const) {
    it.live(`all bytes of a layer came and were not committed: ${mode}`, () => Effect.gen(function*() {
      const { folder, registry } = yield* setting
      const built = image({ layers: [layer(base)] })
      registry.put("app", "1", built)
      const [descriptor] = built.layers
      if (descriptor === undefined) return
      registry.script([{ match: { kind: "blob", digest: descriptor.digest, nth: 1 }, do: [Fault.chunked(), Fault.stall(descriptor.size, Infinity)] }])
      yield* Effect.gen(function*() {
        const all = yield* Deferred.make<void>()
        const fiber = yield* Stream.runForEach(Pull.events(`${registry.host}/app:1`, { platform, ...options }), (event) =>
          event._tag === "downloading" && event.bytes === descriptor.size ? Deferred.succeed(all, undefined) : Effect.void).pipe(Effect.forkChild)
        yield* Deferred.await(all)
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.provide(towline(folder)))
      registry.forget()
      yield* Effect.gen(function*() {
        const events = yield* Stream.runCollect(Pull.events(`${registry.host}/app:1`, { platform, ...options }))
        assert.deepStrictEqual(events.filter((event) => "layer" in event).map(({ _tag }) => _tag).filter((tag) => tag !== "downloading" && tag !== "extracting"),
          ["waiting", "resumed", "verified", "committed"])
        assert.deepStrictEqual(registry.find({ digest: descriptor.digest }), [])
        yield* assertSound(folder)
      }).pipe(Effect.provide(towline(folder)))
    }).pipe(Effect.scoped))
  }

  it.live("several references, several modes, shared layers, one call", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const demo = ImageBuilder.demo()
    registry.put("app", "1", demo).put("other/app", "2", index([demo]))
    yield* Effect.gen(function*() {
      const all = ([["app:1", {}], ["other/app:2", { rootfs: join(folder, "r1") }], ["app:1", { unpack: false }],
        [`app@${demo.manifest.descriptor.digest}`, { unpack: true, rootfs: join(folder, "r2"), blobs: true }]] as const)
      yield* Effect.forEach(all, ([name, options]) => Pull.pull(`${registry.host}/${name}`, { platform, ...options }), { concurrency: 4 })
      assert.deepStrictEqual(Tree.diff(Tree.walk(join(folder, "r1")), Tree.walk(join(folder, "r2"))), [])
      const layers = demo.layers.map(({ digest }) => digest)
      for (const digest of layers) assert.strictEqual(registry.find({ kind: "blob", digest }).filter(({ status }) => status < 300).length, 1)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
    assert.isTrue(existsSync(join(folder, "r1")))
  }).pipe(Effect.scoped))
})
