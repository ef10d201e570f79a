import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Check from "../src/Check.ts"
import * as Pull from "../src/Pull.ts"
import * as Repair from "../src/Repair.ts"
import { Fault, ImageBuilder, TestRegistry, Tree } from "../src/testing/index.ts"
import { temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const demo = ImageBuilder.demo()

const pulled = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.index([demo]))
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Pull.pull(reference, { platform }).pipe(Effect.provide(towline(folder)))
  registry.forget()
  return { registry, folder, reference, store: join(folder, "store") }
})

const repaired = (folder: string) => Repair.repair().pipe(Effect.provide(towline(folder)))
const blobFile = (store: string, digest: string) => join(store, "blobs/sha256", digest.slice(7))
const layerFolder = (store: string, digest: string | undefined) => join(store, "layers/sha256", (digest ?? "").slice(7))
const damage = (path: string) => {
  const bytes = readFileSync(path)
  bytes[0] = (bytes[0] ?? 0) ^ 1
  writeFileSync(path, bytes)
}
const alter = (store: string, statement: string) => {
  const db = new DatabaseSync(join(store, "graph.db"))
  db.exec(`PRAGMA foreign_keys=OFF; ${statement}`)
  db.close()
}
const outcomes = ({ actions, left }: Repair.Repaired) => [actions.map(({ finding, outcome }) => `${outcome} ${finding.kind}`).sort(), left]

describe("Repair", () => {
  it.live("goes on as long as what it mends shows more: a manifest, its rows, a blob, and the layer that this shows damaged", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const [blob = "", diffId = ""] = [demo.layers[1]?.digest, demo.diffIds[1]]
    const tree = Tree.walk(join(layerFolder(store, diffId), "fs"))
    rmSync(blobFile(store, demo.manifest.descriptor.digest))
    rmSync(blobFile(store, blob))
    writeFileSync(join(layerFolder(store, diffId), "fs/more"), "")
    alter(store, `DELETE FROM manifest_blobs WHERE diff_id = '${diffId}'; DELETE FROM blobs WHERE digest = '${blob}'; DELETE FROM layer_blobs WHERE blob = '${blob}'`)
    const { actions, left } = yield* repaired(folder)
    assert.deepStrictEqual(left, [])
    assert.includeMembers(actions.map(({ finding, outcome }) => `${outcome} ${finding.kind}`),
      ["mended blob-file-missing", "mended row-wrong", "mended layer-unverified", "mended layer-damaged"])
    assert.deepStrictEqual(Tree.walk(join(layerFolder(store, diffId), "fs")), tree)
  }).pipe(Effect.scoped), 60_000)

  it.live("fetches manifests, indexes and layers again, writes configs again, and leaves what was sound", () => Effect.gen(function*() {
    const { folder, registry, store } = yield* pulled
    const blobs = readdirSync(join(store, "blobs/sha256"))
    const before = blobs.map((name) => readFileSync(join(store, "blobs/sha256", name)))
    const trees = demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs")))
    const [first, second, third] = demo.layers.map(({ digest }) => blobFile(store, digest))
    damage(first ?? "")
    rmSync(second ?? "")
    truncateSync(third ?? "", 3)
    damage(blobFile(store, demo.manifest.descriptor.digest))
    damage(blobFile(store, demo.config.descriptor.digest))
    const report = yield* repaired(folder)
    assert.deepStrictEqual(report.left, [])
    assert.isTrue(report.actions.every(({ outcome }) => outcome === "mended"), JSON.stringify(report.actions))
    assert.strictEqual(report.actions.length, 5)
    assert.deepStrictEqual(blobs.map((name) => readFileSync(join(store, "blobs/sha256", name))), before)
    assert.deepStrictEqual(demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs"))), trees)
    assert.strictEqual(registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length, 3)
    assert.deepStrictEqual(readdirSync(join(store, "quarantine")), [])
    registry.forget()
    assert.deepStrictEqual([yield* repaired(folder), registry.requests.length], [{ actions: [], left: [] }, 0])
  }).pipe(Effect.scoped), 60_000)

  it.live("unpacks damaged layers again, without a request where the blob is sound", () => Effect.gen(function*() {
    const { folder, registry, store } = yield* pulled
    const [first, second, third] = demo.diffIds.map((diffId) => layerFolder(store, diffId))
    const trees = demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs")))
    writeFileSync(join(first ?? "", "fs/extra"), "")
    rmSync(join(second ?? "", "fs"), { recursive: true })
    damage(join(third ?? "", "meta"))
    assert.deepStrictEqual(outcomes(yield* repaired(folder)), [["mended layer-damaged", "mended layer-damaged", "mended layer-folder-missing"], []])
    assert.deepStrictEqual(demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs"))), trees)
    assert.strictEqual(registry.requests.length, 0)
  }).pipe(Effect.scoped), 60_000)

  it.live("mends a layer whose blob is damaged too", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    damage(blobFile(store, demo.layers[0]?.digest ?? ""))
    writeFileSync(join(layerFolder(store, demo.diffIds[0]), "fs/extra"), "")
    assert.deepStrictEqual(outcomes(yield* repaired(folder)), [["mended blob-digest", "mended layer-damaged"], []])
    // As a repair that was killed between the two leaves it.
    rmSync(blobFile(store, demo.layers[0]?.digest ?? ""))
    alter(store, `DELETE FROM blobs WHERE digest = '${demo.layers[0]?.digest ?? ""}'`)
    assert.deepStrictEqual(outcomes(yield* repaired(folder)), [["mended layer-unverified"], []])
    assert.isFalse(existsSync(join(layerFolder(store, demo.diffIds[0]), "fs/extra")))
  }).pipe(Effect.scoped), 60_000)

  it.live("puts away and names what cannot be had again; the next pull has it again when it can be", () => Effect.gen(function*() {
    const { folder, reference, registry, store } = yield* pulled
    const digest = demo.layers[1]?.digest ?? ""
    damage(blobFile(store, digest))
    registry.script([{ match: { kind: "blob" }, do: Fault.status(404) }])
    const report = yield* repaired(folder)
    const [action] = report.actions
    assert.deepStrictEqual([action?.outcome, action?.finding.subject], ["quarantined", digest])
    assert.match(action?.detail ?? "", /quarantine\/blob-sha256-.* could not be had again: /)
    assert.deepStrictEqual(readdirSync(join(store, "quarantine")).length, 1)
    assert.include(report.left.map(({ kind }) => kind), "layer-unverified")
    registry.script([])
    yield* Effect.gen(function*() {
      yield* Pull.pull(reference, { platform, blobs: true })
      assert.deepStrictEqual(yield* Check.check(), [])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a pull fetches again what it finds damaged in the store", () => Effect.gen(function*() {
    const { folder, reference, registry, store } = yield* pulled
    const digests = [demo.layers[0]?.digest ?? "", demo.manifest.descriptor.digest, demo.config.descriptor.digest]
    for (const digest of digests) damage(blobFile(store, digest))
    yield* Effect.gen(function*() {
      const root = join(folder, "root")
      rmSync(layerFolder(store, demo.diffIds[0]), { recursive: true })
      yield* Pull.pull(reference, { platform, rootfs: root, unpack: true })
      assert.isTrue(existsSync(root))
      yield* Pull.pull(`${registry.host}/app@${demo.manifest.descriptor.digest}`, { platform })
      assert.deepStrictEqual(yield* Check.check(), [])
      assert.strictEqual(registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length, 2)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("lists or puts away files of nobody, and closes what others could read", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const digest = demo.layers[2]?.digest ?? ""
    alter(store, `DELETE FROM blobs WHERE digest = '${digest}'`)
    writeFileSync(join(store, "blobs/sha256", "junk"), "x", { mode: 0o600 })
    mkdirSync(join(store, "layers/sha256", "0".repeat(64)), { mode: 0o700 })
    chmodSync(blobFile(store, demo.config.descriptor.digest), 0o644)
    const report = yield* repaired(folder)
    assert.deepStrictEqual(report.left, [])
    assert.deepStrictEqual(report.actions.filter(({ outcome }) => outcome === "quarantined").map(({ finding }) => finding.kind).sort(), ["blob-row-missing", "layer-row-missing"])
    assert.strictEqual(lstatSync(blobFile(store, demo.config.descriptor.digest)).mode & 0o777, 0o600)
  }).pipe(Effect.scoped), 60_000)

  it.live("writes rows again from the manifests", () => Effect.gen(function*() {
    const { folder, reference, store } = yield* pulled
    alter(store, "DELETE FROM chains; UPDATE images SET config = x'7b7d'; INSERT INTO tags VALUES ('localhost/x', 'gone', 'none', 'none', 'none', 0)")
    const report = yield* repaired(folder)
    assert.deepStrictEqual(report.left, [])
    assert.include(JSON.stringify(report.actions), "localhost/x gone")
    yield* Effect.gen(function*() {
      assert.isFalse((yield* Pull.pull(reference, { platform })).changed)
      assert.deepStrictEqual(yield* Check.check(), [])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)
})
