import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Result, Stream } from "effect"
import { existsSync, ftruncateSync, lstatSync, mkdirSync, openSync, closeSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { Downloads } from "../src/Download.ts"
import { Feed } from "../src/Feed.ts"
import { Descriptor } from "../src/image/Descriptor.ts"
import { stage } from "../src/Layers.ts"
import * as OciLayout from "../src/OciLayout.ts"
import { Control } from "../src/layer/Control.ts"
import { Workers } from "../src/layer/Workers.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type LayerEvent, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import { BlobStore } from "../src/store/BlobStore.ts"
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
      Effect.provideService(Downloads, Downloads.of({ get: () => Effect.die(new Error("a bug")) })),
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

  it.live("a worker that finds its file emptied under it waits for what becomes of the bytes", () => Effect.gen(function*() {
    const { folder } = yield* setting
    const tar = layer([{ path: "noise", contents: noise("n", 600_000) }], { compression: "none" })
    if (!(tar.body instanceof Uint8Array)) return
    const body = tar.body
    const path = join(folder, "blob")
    const fd = openSync(path, "w+")
    const feed = new Feed()
    const blob = new Descriptor({ mediaType: ImageBuilder.mediaTypes.oci.layer.none, digest: tar.digest, size: tar.size })
    const download = { blob, feed, opened: Effect.succeed(fd), done: Effect.never, events: new Hub<LayerEvent>(keyOf) }
    yield* Effect.gen(function*() {
      const store = yield* LayerStore
      const staging = yield* store.staging({ kind: "layer", diffId: tar.diffId })
      feed.advance(300_000) // and there is nothing in the file
      const fiber = yield* stage({ blob, diffId: tar.diffId, repository: { domain: "d", path: "p" } }, staging).pipe(
        Effect.provideService(Downloads, Downloads.of({ get: () => Effect.succeed({ ...download, done: Effect.sleep("600 millis") }) })),
        Effect.forkChild)
      yield* Effect.sleep("300 millis")
      feed.restart()
      ftruncateSync(fd)
      writeSync(fd, body)
      feed.verified(body.byteLength)
      const made = yield* Fiber.join(fiber)
      assert.strictEqual(made.unpacked.diffId, tar.diffId)
      assert.strictEqual(readFileSync(join(made.folder, "fs", "noise")).byteLength, 600_000)
    }).pipe(Effect.scoped, Effect.provide(towline(folder)), Effect.ensuring(Effect.sync(() => closeSync(fd))))
  }).pipe(Effect.scoped))

  it.live("a caller that comes while an interrupted download closes shares its download with the next", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const built = image({ layers: [layer([{ path: "n", contents: noise("n", 400_000) }], { compression: "none" })] })
    registry.put("app", "1", built)
    const [descriptor] = built.layers
    if (descriptor === undefined) return
    const { host } = registry
    const repository = { domain: host, path: "app" }
    registry.script([{ match: { kind: "blob", digest: descriptor.digest }, do: Fault.stall(100_000, 300) }])
    yield* Effect.gen(function*() {
      const downloads = yield* Downloads
      const first = yield* Effect.forkChild(Effect.scoped(Effect.flatMap(downloads.get(descriptor, repository), ({ done }) => done)))
      yield* registry.seen({ digest: descriptor.digest })
      yield* Effect.sleep("50 millis")
      const stopping = yield* Effect.forkChild(Fiber.interrupt(first))
      yield* Effect.yieldNow
      const one = yield* downloads.get(descriptor, repository)
      yield* Fiber.join(stopping)
      yield* Effect.sleep("100 millis")
      const other = yield* downloads.get(descriptor, repository)
      assert.strictEqual(one, other)
      yield* one.done
    }).pipe(Effect.scoped, Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("an interrupted download lets go of its file only when it has ended", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const built = image({ layers: [layer(base)] })
    registry.put("app", "1", built)
    const [descriptor] = built.layers
    if (descriptor === undefined) return
    const told: Array<string> = []
    const tell = (what: string) => Effect.sync(() => { told.push(what) })
    yield* Effect.gen(function*() {
      const blobs = yield* BlobStore
      const begun = yield* Deferred.make<void>()
      const watched = BlobStore.of({
        ...blobs,
        ingest: (blob, options) => Effect.tap(blobs.ingest(blob, options), (ingest) => {
          const { commit } = ingest
          ingest.commit = Effect.uninterruptible(Effect.andThen(Deferred.succeed(begun, undefined),
            Effect.andThen(Effect.sleep("100 millis"), Effect.andThen(commit, tell("committed")))))
          return Effect.addFinalizer(() => tell("closed"))
        })
      })
      const fiber = yield* Effect.forkChild(Effect.scoped(Effect.flatMap(
        (yield* Downloads).get(descriptor, { domain: registry.host, path: "app" }), ({ done }) => done)).pipe(Effect.provideService(BlobStore, watched)))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(told, ["committed", "closed"])
      assert.deepStrictEqual(yield* (yield* Graph).check(), [])
    }).pipe(Effect.provide(towline(folder)))
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

  it.live("a layout takes images from several pulls at once, and again after one that was stopped", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const tags = ["a", "b", "c", "d"]
    for (const tag of tags) registry.put("app", tag, image({ layers: [layer([{ path: tag, contents: noise(tag, 200_000) }])], format: tag < "c" ? "oci" : "docker" }))
    const path = join(folder, "layout")
    const names = () => {
      const { manifests } = JSON.parse(readFileSync(join(path, "index.json"), "utf8"))
      return manifests.map(({ annotations }: { annotations: Record<string, string> }) => annotations["org.opencontainers.image.ref.name"]).sort()
    }
    yield* Effect.gen(function*() {
      const images = yield* Effect.forEach(tags, (tag) => Pull.pull(`${registry.host}/app:${tag}`, { platform, unpack: false }))
      const write = (at: number) => {
        const one = images[at]
        return one === undefined ? Effect.void : Effect.asVoid(OciLayout.write(one, path, tags[at] ?? ""))
      }
      yield* Effect.forEach(tags.keys(), write, { concurrency: 4 })
      assert.deepStrictEqual(names(), tags)
      assert.deepStrictEqual(readdirSync(path).sort(), ["blobs", "index.json", "oci-layout"])
      const files = readdirSync(path, { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
      writeFileSync(join(folder, "plain"), "")
      const { mode } = lstatSync(join(folder, "plain"))
      for (const { name, parentPath } of files) assert.strictEqual(lstatSync(join(parentPath, name)).mode, mode, name)
      rmSync(path, { recursive: true })
      for (let wait = 0; wait < 6; wait += 0.5) {
        const fiber = yield* Effect.forkChild(write(0))
        yield* Effect.sleep(wait)
        yield* Fiber.interrupt(fiber)
        yield* write(1)
        assert.include(names(), "b")
        yield* Effect.sleep("20 millis")
        assert.isTrue(readdirSync(join(path, "blobs/sha256")).every((name) => name.length === 64))
        rmSync(path, { recursive: true })
      }
    }).pipe(Effect.provide(towline(folder)))
    const stores = yield* Effect.forEach(["s1", "s2", "s3"], (name) => Effect.sync(() => { mkdirSync(join(folder, name)); return join(folder, name) }))
    yield* Effect.forEach(stores, (store, at) =>
      Effect.gen(function*() {
        const one = yield* Pull.pull(`${registry.host}/app:${tags[at] ?? ""}`, { platform, unpack: false })
        yield* OciLayout.write(one, path, tags[at] ?? "")
      }).pipe(Effect.provide(towline(store))), { concurrency: 3 })
    assert.deepStrictEqual(names(), tags.slice(0, 3))
  }).pipe(Effect.scoped))

  it.live("an image layout gets blobs of layers that are unpacked, and whose blobs are gone", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const [gzip, zstd] = [image({ layers: [layer(base)] }), image({ layers: [layer(base, { compression: "zstd" })] })]
    registry.put("app", "1", gzip).put("app", "2", zstd)
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/app:1`, { platform })
      const without = yield* Pull.pull(`${registry.host}/app:2`, { platform })
      assert.isTrue(Option.isNone(yield* (yield* BlobStore).find(zstd.layers[0]?.digest ?? without.target.digest)))
      const events = yield* Stream.runCollect(Pull.events(`${registry.host}/app:2`, { platform, blobs: true }))
      assert.deepStrictEqual([...endings(events).values()], [1])
      yield* OciLayout.write(without, join(folder, "layout"), "2")
      yield* assertSound(folder)
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

  it.live("threads are never lost, whenever their jobs are interrupted, deaf ones included", () => Effect.gen(function*() {
    const { folder } = yield* setting
    const tar = layer([{ path: "noise", contents: noise("n", 600_000) }], { compression: "none" })
    if (!(tar.body instanceof Uint8Array)) return
    writeFileSync(join(folder, "blob"), tar.body)
    const fd = openSync(join(folder, "blob"), "r")
    let made = 0
    yield* Effect.gen(function*() {
      const workers = yield* Workers
      const start = (control: Control) => Effect.suspend(() => {
        const path = join(folder, String(made++))
        mkdirSync(path)
        return workers.run<"unpack">({ kind: "unpack", fd, size: tar.size, folder: path, diffId: tar.diffId, native: true }, "l", control)
      })
      for (let n = 0; n < 150; n++) {
        const controls = Array.from({ length: 3 }, () => n % 50 === 7 ? new Deaf() : new Control())
        const fibers = yield* Effect.forEach(controls, (control) => Effect.forkChild(start(control), { startImmediately: n % 2 === 0 }))
        if (n % 3 > 0) yield* Effect.sleep(`${n % 7} millis`)
        for (const control of controls) if (n % 5 === 0) control.advance(n % 2 === 0 ? tar.size : 1000)
        yield* Effect.forEach(fibers, Fiber.interrupt, { concurrency: "unbounded" })
      }
      const controls = Array.from({ length: workers.size }, () => new Control())
      const fibers = yield* Effect.forEach(controls, (control) => Effect.forkChild(start(control)))
      for (const control of controls) control.advance(1000)
      while (controls.some(({ consumed }) => consumed < 1000)) yield* Effect.sleep("5 millis")
      for (const control of controls) control.advance(tar.size)
      yield* Effect.forEach(fibers, Fiber.join)
    }).pipe(Effect.provide(Workers.layer), Effect.ensuring(Effect.sync(() => closeSync(fd))))
  }).pipe(Effect.scoped), 60_000)
})

/** A control that its worker does not hear. */
class Deaf extends Control {
  override stop(): void {}
}

describe("PullPlan at the edges", () => {
  const arm = image({ layers: [layer([{ path: "arm" }])], platform: { os: "linux", architecture: "arm64" } })
  const amd = image({ layers: [layer([{ path: "amd" }])] })

  it.live("an index whose entries name no platform: artifacts are passed over, configs decide, and the error lists them", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const artifact = image({ layers: [layerOf(Buffer.from("{}"), { compression: "none", mediaType: "application/json" })], manifestFields: { artifactType: "application/x" } })
    const bare = [artifact, arm, amd].map((built) => ({ built, platform: null }))
    registry.put("bare", "1", index(bare)).put("bare", "arm", index(bare.slice(0, 2)))
    yield* Effect.gen(function*() {
      const plan = yield* Pull.plan(`${registry.host}/bare:1`, { platform })
      assert.strictEqual(plan.manifest.digest, amd.manifest.descriptor.digest)
      assert.deepStrictEqual(plan.candidates.filter(({ lost }) => lost === undefined).map(({ digest }) => digest), [amd.manifest.descriptor.digest])
      const error = yield* Effect.flip(Pull.plan(`${registry.host}/bare:arm`, { platform }))
      assert.isTrue(error._tag === "NoPlatform" && error.available.join() === "linux/arm64", error.message)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("what a nested index's entry says of its platform holds, whatever the config leaves out", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const six = image({ layers: [layer([{ path: "six" }])], platform: { os: "linux", architecture: "arm" } })
    const entry = { built: six, platform: { os: "linux", architecture: "arm", variant: "v6" } }
    registry.put("six", "1", index([entry])).put("six", "nested", index([index([entry])]))
    yield* Effect.gen(function*() {
      for (const tag of ["1", "nested"]) {
        const plan = yield* Pull.plan(`${registry.host}/six:${tag}`, { platform: "linux/arm/v6" })
        assert.strictEqual(plan.manifest.digest, six.manifest.descriptor.digest)
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("an image without an index that is for another platform than was asked for", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("arm", "1", arm)
    yield* Effect.gen(function*() {
      const error = yield* Effect.flip(Pull.pull(`${registry.host}/arm:1`, { platform }))
      assert.isTrue(error._tag === "NoPlatform" && error.available.join() === "linux/arm64", error.message)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("indexes nested too deep, and with too many entries", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    let deep = index([amd])
    for (let n = 0; n < 7; n++) deep = index([deep])
    registry.put("deep", "8", deep).put("deep", "9", index([deep]))
    const many = (n: number) => index([amd], { fields: { manifests: Array.from({ length: n }, () => ({ mediaType: amd.manifest.descriptor.mediaType, digest: amd.manifest.descriptor.digest, size: amd.manifest.descriptor.size, platform: { os: "linux", architecture: "amd64" } })) } })
    registry.put("many", "4096", many(4096)).put("many", "4097", many(4097))
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* Pull.plan(`${registry.host}/deep:8`, { platform })).documents.length, 10)
      assert.strictEqual((yield* Effect.flip(Pull.plan(`${registry.host}/deep:9`, { platform })))._tag, "ManifestRefused")
      yield* Pull.plan(`${registry.host}/many:4096`, { platform })
      assert.strictEqual((yield* Effect.flip(Pull.plan(`${registry.host}/many:4097`, { platform })))._tag, "ManifestRefused")
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})
