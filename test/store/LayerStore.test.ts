import { assert, it, layer } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { Graph } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import { blobOf, digestOf, fill, layUp, litter, Root, storeInTemp } from "./Fixtures.ts"

const named = (name: string) => {
  const [blob, diffId] = [blobOf(Buffer.from(`blob of ${name}`)), digestOf(Buffer.from(name))]
  return { diffId, blob, facts: { diffId, blob: blob.digest, mediaType: blob.mediaType, blobSize: blob.size, size: 7, entries: 2 } }
}

layer(storeInTemp, { excludeTestServices: true })("LayerStore", (it) => {
  it.effect("commits a staging folder as the layer's, and remembers what its blob holds", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const { diffId, blob, facts } = named("plain")
    assert.isTrue(Option.isNone(yield* layers.find(diffId)))
    yield* Effect.scoped(Effect.gen(function*() {
      const staging = yield* layers.staging({ kind: "layer" })
      fill(staging.path)
      assert.isFalse(existsSync(layers.folder(diffId)))
      yield* layers.commit(staging, facts)
    }))
    const folder = layers.folder(diffId)
    assert.deepStrictEqual(yield* layers.find(diffId), Option.some({ diffId, folder, size: 7, entries: 2, state: "unsynced" as const }))
    assert.strictEqual(readFileSync(`${folder}/fs/file`, "utf8"), "a file\n")
    assert.deepStrictEqual(yield* layers.diffIdOf(blob.digest), Option.some(diffId))
    yield* layers.sync()
  }))

  it.effect("commits a folder inside the staging folder; the rest goes with the scope", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const { diffId, facts } = named("inside")
    yield* Effect.scoped(Effect.gen(function*() {
      const staging = yield* layers.staging({ kind: "layer", diffId })
      for (const round of ["1", "2"]) {
        mkdirSync(`${staging.path}/${round}`, { mode: 0o700 })
        fill(`${staging.path}/${round}`, round)
      }
      yield* layers.commit({ ...staging, path: `${staging.path}/2` }, facts)
    }))
    assert.strictEqual(readFileSync(`${layers.folder(diffId)}/fs/file`, "utf8"), "2")
    for (let n = 0; n < 100 && litter(yield* Root).length > 0; n++) yield* Effect.sleep("50 millis")
    assert.deepStrictEqual(litter(yield* Root), [])
  }))

  it.effect("keeps the first of two that were unpacked at once", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const { diffId, facts } = named("twice")
    yield* Effect.scoped(Effect.gen(function*() {
      const [one, two] = [yield* layers.staging({ kind: "layer", diffId }), yield* layers.staging({ kind: "layer", diffId })]
      fill(one.path, "one")
      fill(two.path, "two")
      yield* Effect.all([layers.commit(one, facts), layers.commit(two, facts)], { concurrency: 2 })
    }))
    assert.include(["one", "two"], readFileSync(`${layers.folder(diffId)}/fs/file`, "utf8"))
    for (let n = 0; n < 100 && litter(yield* Root).length > 0; n++) yield* Effect.sleep("50 millis")
    assert.deepStrictEqual(litter(yield* Root), [])
  }))

  it.effect("moves away a folder that a crash left without a row", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const { diffId, blob } = named("orphan")
    mkdirSync(`${layers.folder(diffId)}/fs`, { recursive: true, mode: 0o700 })
    writeFileSync(`${layers.folder(diffId)}/fs/half`, "")
    yield* layUp(diffId, blob)
    assert.isFalse(existsSync(`${layers.folder(diffId)}/fs/half`))
    assert.isTrue(Option.isSome(yield* layers.find(diffId)))
  }))

  it.effect("has its staging folder back when the database refuses, and can commit it then", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const db = yield* Effect.acquireRelease(Effect.map(Root, (root) => new DatabaseSync(`${root}/graph.db`)), (db) => Effect.sync(() => db.close()))
    const { diffId, facts } = named("refused")
    const staging = yield* layers.staging({ kind: "layer", diffId })
    fill(staging.path)
    db.exec("CREATE TRIGGER refuse BEFORE INSERT ON layers BEGIN SELECT RAISE(ABORT, 'not now'); END")
    assert.include((yield* Effect.flip(layers.commit(staging, facts))).message, "not now")
    assert.deepStrictEqual([existsSync(layers.folder(diffId)), existsSync(`${staging.path}/meta`)], [false, true])
    db.exec("DROP TRIGGER refuse")
    yield* layers.commit(staging, facts)
    assert.isTrue(Option.isSome(yield* layers.find(diffId)))
  }, Effect.scoped))

  it.effect("publishes a root file system beside its staging folder, and leaves nothing else there", Effect.fnUntraced(function*() {
    const layers = yield* LayerStore
    const place = `${yield* Root}-roots`
    mkdirSync(`${place}/target`, { recursive: true })
    yield* Effect.scoped(Effect.gen(function*() {
      const staging = yield* layers.staging({ kind: "rootfs", place, name: "target" })
      mkdirSync(`${staging.path}/rootfs/etc`, { recursive: true })
      mkdirSync(`${staging.path}/hold`)
      yield* staging.publish(`${place}/target`, `${staging.path}/rootfs`)
    }))
    assert.isTrue(existsSync(`${place}/target/etc`))
    const failing = Effect.scoped(Effect.gen(function*() {
      const staging = yield* layers.staging({ kind: "rootfs", place, name: "target" })
      fill(staging.path)
      yield* staging.publish(`${place}/target`)
    }))
    assert.strictEqual((yield* Effect.flip(failing)).code, "ENOTEMPTY")
    yield* Effect.sleep("200 millis")
    assert.deepStrictEqual(yield* Effect.sync(() => existsSync(`${place}/target/fs`)), false)
  }))

  it.effect("says where it could not make a folder", Effect.fnUntraced(function*() {
    const error = yield* Effect.flip(Effect.scoped((yield* LayerStore).staging({ kind: "rootfs", place: "/proc/nowhere", name: "x" })))
    assert.include(error.message, "/proc/nowhere/.towline-x")
  }))
})

it.live("a sync can be interrupted", () => Effect.gen(function*() {
  const layers = yield* LayerStore
  const fiber = yield* layers.sync().pipe(Effect.forkChild({ startImmediately: true }))
  yield* Fiber.interrupt(fiber)
  assert.deepStrictEqual(yield* (yield* Graph).check(), [])
}).pipe(Effect.provide(storeInTemp)))
