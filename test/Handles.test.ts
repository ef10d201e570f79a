import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as Blob from "../src/Blob.ts"
import * as Check from "../src/Check.ts"
import { dropBlobs } from "../src/DropBlobs.ts"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import * as Store from "../src/Store.ts"
import { Graph } from "../src/store/Graph.ts"
import { LayerStore } from "../src/store/LayerStore.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import { ImageBuilder, MemoryStore, TestRegistry } from "../src/testing/index.ts"
import * as Towline from "../src/Towline.ts"
import { assertSound, settings, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const demo = ImageBuilder.demo()

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", demo)
  const folder = yield* temporary
  return { registry, folder, reference: `${registry.host}/app:1`, blobFile: (digest: string) => join(folder, "store/blobs/sha256", digest.slice(7)) }
})

/** Everything goes that nobody holds: the image's names, and what lies around. */
const emptied = Effect.fnUntraced(function*(reference: string) {
  yield* (yield* Graph).remove(reference)
  yield* dropBlobs()
  yield* (yield* Collector).collect({ olderThan: Duration.zero })
})

describe("Handles", () => {
  it.live("an open layer and an open blob stay until their scope closes", () => Effect.gen(function*() {
    const { blobFile, folder, reference } = yield* setting
    yield* Effect.gen(function*() {
      yield* Pull.pull(reference, { platform })
      const [first, second, third] = demo.layers.map(({ digest }) => digest)
      const held = yield* Effect.scoped(Effect.gen(function*() {
        const layers = yield* Store.layers(reference)
        assert.deepStrictEqual(layers.map(({ diffId }) => diffId), demo.diffIds)
        for (const ref of [demo.diffIds[0] ?? "", first ?? ""]) assert.strictEqual((yield* Store.layer(ref)).files, layers[0]?.files)
        assert.strictEqual((yield* Store.layer(reference)).diffId, demo.diffIds[2])
        const blob = yield* Blob.open(second ?? demo.config.descriptor.digest)
        yield* emptied(reference)
        assert.strictEqual((yield* Effect.flip(Store.layer(reference)))._tag, "ImageNotFound")
        for (const { files, journal } of layers) assert.isTrue(readdirSync(files).length > 0 && existsSync(journal))
        assert.deepStrictEqual([first, second, third].map((digest) => existsSync(blobFile(digest ?? ""))), [true, true, true])
        const bytes = Buffer.concat(yield* Stream.runCollect(blob.bytes))
        assert.isTrue(bytes.equals(readFileSync(blobFile(blob.digest))) && bytes.byteLength === blob.size)
        return layers
      }))
      yield* (yield* Collector).collect({ olderThan: Duration.zero })
      assert.deepStrictEqual([first, second, third].map((digest) => existsSync(blobFile(digest ?? ""))), [false, false, false])
      assert.deepStrictEqual(held.map(({ files }) => existsSync(files)), [false, false, false])
      assert.strictEqual((yield* Effect.flip(Effect.scoped(Blob.open(demo.layers[0]?.digest ?? demo.config.descriptor.digest))))._tag, "NotInStore")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a layer of which only the blob is here is unpacked, and nobody is asked for it", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    yield* Effect.gen(function*() {
      const image = yield* Pull.pull(reference, { platform, unpack: false })
      registry.forget()
      assert.deepStrictEqual(yield* Effect.forEach(demo.diffIds, (diffId) => Effect.flatMap(LayerStore, (store) => Effect.map(store.find(diffId), ({ _tag }) => _tag))), ["None", "None", "None"])
      const { files } = yield* Store.layer(demo.layers[0]?.digest ?? "")
      assert.include(readdirSync(files), "etc")
      const root = yield* RootFs.make(image, { place: folder })
      assert.include(readdirSync(root), "etc")
      assert.strictEqual(registry.requests.length, 0)
      assert.strictEqual((yield* Effect.flip(Store.layer("sha256:" + "0".repeat(64))))._tag, "ImageNotFound")
    }).pipe(Effect.scoped, Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)
})

describe("MemoryStore", () => {
  it.live("is a whole store: pulls, tags, unpacks, checks; the next one is empty, and nothing is left", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    const roots: Array<string> = []
    const inMemory = Towline.layerOn(MemoryStore.layer)
    const once = Effect.gen(function*() {
      const graph = yield* Graph
      assert.deepStrictEqual(yield* graph.list, [])
      assert.isTrue((yield* Pull.pull(reference, { platform, unpack: false })).changed)
      assert.deepStrictEqual((yield* graph.list).map(({ name, reference }) => `${name}:${reference}`), [reference])
      assert.isFalse((yield* Pull.pull(reference, { platform, unpack: false })).changed)
      const { files } = yield* Store.layer(reference)
      roots.push(files)
      assert.isNotEmpty(readdirSync(files))
      yield* Pull.pull(reference, { platform })
      assert.deepStrictEqual(yield* Check.check(), [])
      assert.strictEqual(registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length, roots.length * 4)
    }).pipe(Effect.scoped)
    for (let n = 0; n < 2; n++) yield* Effect.provide(once, settings(folder, inMemory), { local: true })
    assert.deepStrictEqual(roots.map((path) => existsSync(path)), [false, false])
    assert.notStrictEqual(roots[0], roots[1])
  }).pipe(Effect.scoped), 60_000)
})
