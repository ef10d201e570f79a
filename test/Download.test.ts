import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { Downloads } from "../src/Download.ts"
import { Feed } from "../src/Feed.ts"
import { Descriptor } from "../src/image/Descriptor.ts"
import { stage } from "../src/Layers.ts"
import { Control } from "../src/layer/Control.ts"
import { Workers } from "../src/layer/Workers.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type LayerEvent } from "../src/progress/PullEvent.ts"
import { BlobStore } from "../src/store/BlobStore.ts"
import { LayerStore } from "../src/store/LayerStore.ts"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, layer, noise } = ImageBuilder

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  return { registry, folder: yield* temporary }
})

const base = [{ path: "a", contents: noise("a", 50_000) }]

describe("Downloads and the workers that follow them", () => {
  it.live("of many blobs at most 64 are begun at once, and all come", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const built = image({ layers: [...Array(80).keys()].map((n) => layer([{ path: `f${n}`, contents: noise(`f${n}`, 100) }])) })
    registry.put("app", "1", built)
    yield* Effect.gen(function*() {
      const blobs = yield* BlobStore
      const downloads = yield* Downloads
      const open = new Set<string>()
      let most = 0
      const counting = BlobStore.of({ ...blobs, ingest: (blob, options) => Effect.tap(blobs.ingest(blob, options), (ingest) => {
        most = Math.max(most, open.add(blob.digest).size)
        const { commit } = ingest
        ingest.commit = Effect.andThen(Effect.sleep("50 millis"), Effect.ensuring(commit, Effect.sync(() => open.delete(blob.digest))))
        return Effect.void
      }) })
      yield* Effect.forEach(built.layers, (blob) => Effect.scoped(Effect.flatMap(downloads.get(blob, { domain: registry.host, path: "app" }), ({ done }) => done)), {
        concurrency: "unbounded"
      }).pipe(Effect.provideService(BlobStore, counting))
      assert.deepStrictEqual([most, open.size], [64, 0])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  /** A download whose commit takes 100 ms and cannot be interrupted, as one that waits for the disk. */
  const committing = Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const built = image({ layers: [layer(base)] })
    registry.put("app", "1", built)
    const blobs = (store: BlobStore["Service"], begun: Deferred.Deferred<void>, tell: (what: string) => Effect.Effect<void>) => BlobStore.of({
      ...store,
      ingest: (blob, options) => Effect.tap(store.ingest(blob, options), (ingest) => {
        const { commit } = ingest
        if (!ingest.present) ingest.commit = Effect.uninterruptible(Effect.gen(function*() {
          yield* Deferred.succeed(begun, undefined)
          yield* Effect.sleep("100 millis")
          yield* commit
          yield* tell("committed")
        }))
        return Effect.addFinalizer(() => tell("closed"))
      })
    })
    return { folder, blobs, descriptor: built.layers[0] ?? built.config.descriptor, repository: { domain: registry.host, path: "app" } }
  })

  it.live("an interrupted download lets go of its file only when it has ended", () => Effect.gen(function*() {
    const { blobs, descriptor, folder, repository } = yield* committing
    const told: Array<string> = []
    yield* Effect.gen(function*() {
      const begun = yield* Deferred.make<void>()
      const slow = blobs(yield* BlobStore, begun, (what) => Effect.sync(() => { told.push(what) }))
      const downloads = yield* Downloads
      const fiber = yield* Effect.scoped(Effect.flatMap(downloads.get(descriptor, repository), ({ done }) => done)).pipe(
        Effect.provideService(BlobStore, slow), Effect.forkChild)
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(told, ["committed", "closed"])
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("a caller that comes while an interrupted download ends shares its own with the next caller", () => Effect.gen(function*() {
    const { blobs, descriptor, folder, repository } = yield* committing
    yield* Effect.gen(function*() {
      const begun = yield* Deferred.make<void>()
      const slow = blobs(yield* BlobStore, begun, () => Effect.void)
      const downloads = yield* Downloads
      const first = yield* Effect.scoped(Effect.flatMap(downloads.get(descriptor, repository), ({ done }) => done)).pipe(
        Effect.provideService(BlobStore, slow), Effect.forkChild)
      yield* Deferred.await(begun)
      const stopping = yield* Effect.forkChild(Fiber.interrupt(first), { startImmediately: true })
      const one = yield* downloads.get(descriptor, repository)
      yield* Fiber.join(stopping)
      assert.strictEqual(yield* downloads.get(descriptor, repository), one)
      yield* one.done
    }).pipe(Effect.scoped, Effect.provide(towline(folder)))
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
        Effect.provideService(Downloads, Downloads.of({ get: () => Effect.succeed({ ...download, done: Effect.sleep("600 millis") }), forget: () => Effect.void })),
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
  }).pipe(Effect.scoped), 120_000)
})

/** A control that its worker does not hear. */
class Deaf extends Control {
  override stop(): void {}
}
