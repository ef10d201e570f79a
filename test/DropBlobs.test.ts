import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Check from "../src/Check.ts"
import { dropBlobs } from "../src/DropBlobs.ts"
import * as Pull from "../src/Pull.ts"
import * as Repair from "../src/Repair.ts"
import { Leases } from "../src/store/Leases.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import { ImageBuilder, TestRegistry, Tree } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const demo = ImageBuilder.demo()

/** A store with the demo image, unpacked. */
const pulled = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", demo)
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Pull.pull(reference, { platform }).pipe(Effect.provide(towline(folder)))
  registry.forget()
  return { registry, folder, reference, store: join(folder, "store"), fetched: () => registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length }
})
const blobFile = (store: string, digest: string) => join(store, "blobs/sha256", digest.slice(7))
const layerFolder = (store: string, digest: string | undefined) => join(store, "layers/sha256", (digest ?? "").slice(7))
const kinds = Effect.map(Check.check(), (findings) => findings.map(({ kind }) => kind).sort())
const flip = (path: string, bit: number) => {
  const bytes = readFileSync(path)
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  writeFileSync(path, bytes)
}
const alter = (store: string, statement: string) => {
  const db = new DatabaseSync(join(store, "graph.db"))
  db.exec(statement)
  db.close()
}

describe("DropBlobs", () => {
  it.live("gives up what is unpacked and can be fetched again; check goes by recorded digests, and a pull fetches only what it needs", () => Effect.gen(function*() {
    const { fetched, folder, reference, registry, store } = yield* pulled
    yield* Effect.gen(function*() {
      const planned = yield* dropBlobs({ dryRun: true })
      assert.deepStrictEqual(demo.layers.map(({ digest }) => existsSync(blobFile(store, digest))), [true, true, true])
      const { compressed } = yield* (yield* Collector).usage
      const { dropped, kept } = yield* dropBlobs()
      const total = demo.layers.reduce((sum, { size }) => sum + size, 0)
      assert.deepStrictEqual([planned.dropped, kept, compressed], [dropped, [], { count: 3, size: total }])
      assert.sameMembers(dropped.map(({ subject }): string => subject), demo.layers.map(({ digest }) => digest))
      assert.deepStrictEqual(demo.layers.map(({ digest }) => existsSync(blobFile(store, digest))), [false, false, false])
      const usage = yield* (yield* Collector).usage
      assert.deepStrictEqual([usage.compressed.count, usage.unpackedAlone], [0, { count: 3, size: total }])
      yield* assertSound(folder)
      assert.deepStrictEqual(yield* dropBlobs(), { dropped: [], kept: [] })
      yield* (yield* Collector).collect()
      assert.isFalse((yield* Pull.pull(reference, { platform })).changed)
      yield* Pull.pull(reference, { platform, rootfs: join(folder, "root") })
      assert.strictEqual(fetched(), 0)
      yield* Pull.pull(reference, { platform, blobs: true })
      assert.strictEqual(fetched(), 3)
      yield* assertSound(folder)
      // By the digests that are there already, nothing is unpacked once more.
      assert.strictEqual((yield* dropBlobs()).dropped.length, 3)
      registry.forget()
    }).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(yield* kinds.pipe(Effect.provide(towline(folder))), [], "by a later process")
  }).pipe(Effect.scoped), 60_000)

  it.live("finds every flip and deletion afterwards, and repair fetches what it needs", () => Effect.gen(function*() {
    const { fetched, folder, store } = yield* pulled
    const trees = demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs")))
    yield* Effect.gen(function*() {
      yield* dropBlobs()
      const [first = "", second = "", third = ""] = demo.diffIds.map((diffId) => layerFolder(store, diffId))
      for (let bit = 0; bit < readFileSync(join(first, "sums")).byteLength * 8; bit += 997) {
        flip(join(first, "sums"), bit)
        assert.deepStrictEqual(yield* kinds, ["layer-sums-wrong", "layer-unverified"], `bit ${bit}`)
        flip(join(first, "sums"), bit)
      }
      assert.deepStrictEqual(yield* kinds, [])
      rmSync(join(first, "sums"))
      writeFileSync(join(second, "fs/extra"), "")
      flip(join(third, "meta"), 9)
      assert.deepStrictEqual(yield* kinds, ["layer-damaged", "layer-damaged", "layer-sums-wrong", "layer-unverified"])
      const { actions, left } = yield* Repair.repair()
      assert.deepStrictEqual([left, actions.every(({ outcome }) => outcome === "mended")], [[], true], JSON.stringify(actions))
      assert.strictEqual(fetched(), 3)
      assert.deepStrictEqual(demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs"))), trees)
      assert.deepStrictEqual(readdirSync(join(store, "quarantine")), [])
      alter(store, "UPDATE layers SET entries = entries + 1")
      assert.deepStrictEqual(yield* kinds, ["layer-row-wrong", "layer-row-wrong", "layer-row-wrong"])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("keeps what is leased, what nobody knows the origin of, and what is damaged, and says why", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const [first, second, third] = demo.layers
    yield* Effect.gen(function*() {
      const reasons = Effect.map(dropBlobs(), ({ kept }) => kept.map(({ reason }) => reason).sort())
      yield* Effect.scoped(Effect.gen(function*() {
        yield* (yield* Leases).hold([...demo.layers.map(({ digest }) => digest).slice(0, 2), ...demo.diffIds.slice(2)])
        assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "a running command holds it"))
      }))
      alter(store, "CREATE TABLE spare AS SELECT * FROM origins; DELETE FROM origins")
      assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "nobody knows where it could be fetched again"))
      alter(store, "INSERT INTO origins SELECT * FROM spare; DROP TABLE spare; UPDATE images SET kind = 'v1'")
      assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "nobody knows where it could be fetched again"))
      alter(store, "UPDATE images SET kind = 'oci'")
      writeFileSync(join(layerFolder(store, demo.diffIds[0]), "fs/extra"), "")
      flip(blobFile(store, second?.digest ?? ""), 800)
      const { dropped, kept } = yield* dropBlobs()
      assert.deepStrictEqual(dropped.map(({ subject }): string => subject), [third?.digest ?? ""])
      assert.sameMembers(kept.map(({ subject }): string => subject), [first?.digest ?? "", second?.digest ?? ""])
      for (const { reason } of kept) assert.match(reason, /run `graph check --repair` first/)
      assert.isFalse(existsSync(join(layerFolder(store, demo.diffIds[0]), "sums")))
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)
})
