import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, lstatSync, lutimesSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Check from "../src/Check.ts"
import * as Pull from "../src/Pull.ts"
import * as Repair from "../src/Repair.ts"
import { Graph } from "../src/store/Graph.ts"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { temporary, towline } from "./harness.ts"

const platform = "linux/amd64"

/** A store with the demo image. */
const pulled = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.demo())
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Pull.pull(reference, { platform }).pipe(Effect.provide(towline(folder)))
  return { registry, folder, reference, store: join(folder, "store") }
})

const checked = (folder: string) => Check.check().pipe(Effect.provide(towline(folder)), Effect.map((findings) => findings.map(({ detail, kind }) => `${kind}: ${detail}`)))

/** Files of a folder that have bytes. */
const files = (folder: string): ReadonlyArray<string> => readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
  const path = join(folder, entry.name)
  return entry.isDirectory() ? files(path) : entry.isFile() && lstatSync(path).size > 0 ? [path] : []
})

/** Every n-th. */
const every = <A>(all: ReadonlyArray<A>, n: number) => [...all.entries()].filter(([index]) => index % n === 0)

/** Changes a bit, and nothing else of the file. */
const flip = (path: string, bit: number) => {
  const { atime, mode, mtime } = lstatSync(path)
  const mtimeNs = lstatSync(path, { bigint: true }).mtimeNs
  const bytes = readFileSync(path)
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  chmodSync(path, 0o600)
  writeFileSync(path, bytes)
  chmodSync(path, mode & 0o7777)
  if (mtimeNs % 1_000_000_000n === 0n) utimesSync(path, atime, mtime)
}

const layersOf = (store: string) => readdirSync(join(store, "layers/sha256")).map((name) => join(store, "layers/sha256", name))
const alter = (store: string, statement: string) => {
  const db = new DatabaseSync(join(store, "graph.db"))
  db.exec(`PRAGMA foreign_keys=OFF; ${statement}`)
  db.close()
}

describe("Check", () => {
  it.live("finds nothing wrong with what a pull made, and says how far it is", () => Effect.gen(function*() {
    const { folder } = yield* pulled
    const heard: Array<string> = []
    assert.deepStrictEqual(yield* Check.check({ progress: ({ done, total, what }) => Effect.sync(() => { heard.push(`${what} ${done}/${total}`) }) }).pipe(
      Effect.provide(towline(folder))), [])
    assert.includeMembers(heard, ["blobs 1/5", "blobs 5/5", "layers 1/3", "layers 3/3"])
    assert.deepStrictEqual(yield* Check.check().pipe(Effect.provide(towline(folder, { native: false })), Effect.map((findings) => findings.filter(({ kind }) => kind !== "layer-unverified"))), [])
  }).pipe(Effect.scoped))

  it.live("finds a flipped bit in any file of the store", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const all = [...files(join(store, "blobs")), ...files(join(store, "layers"))]
    assert.isAbove(all.length, 8)
    yield* Effect.gen(function*() {
      for (const [index, path] of every(all, 2)) {
        const bit = (index * 7919) % (lstatSync(path).size * 8)
        flip(path, bit)
        assert.isNotEmpty(yield* Check.check(), `${path}, bit ${bit}`)
        flip(path, bit)
      }
      assert.deepStrictEqual(yield* Check.check(), [])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("finds any file deleted", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const all = [...files(join(store, "blobs")), ...files(join(store, "layers"))]
    yield* Effect.gen(function*() {
      for (const [, path] of every(all, 3)) {
        const aside = join(folder, "aside")
        renameSync(path, aside)
        assert.isNotEmpty(yield* Check.check(), path)
        renameSync(aside, path)
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("says what is wrong with a layer", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const first = layersOf(store).find((path) => readdirSync(join(path, "fs")).includes("etc")) ?? ""
    const name = readdirSync(join(first, "fs/etc")).find((entry) => lstatSync(join(first, "fs/etc", entry)).isFile()) ?? ""
    const file = join(first, "fs/etc", name)
    const mode = lstatSync(file).mode & 0o7777
    chmodSync(file, mode ^ 0o1)
    assert.deepStrictEqual(yield* checked(folder), [`layer-damaged: /etc/${name} has another mode`])
    chmodSync(file, mode)
    const { atime, mtime } = lstatSync(join(first, "fs/etc"))
    writeFileSync(join(first, "fs/etc/more"), "")
    lutimesSync(join(first, "fs/etc"), atime, mtime)
    assert.deepStrictEqual(yield* checked(folder), ["layer-damaged: /etc/more is not in its tar"])
    unlinkSync(join(first, "fs/etc/more"))
    unlinkSync(file)
    symlinkSync("x", file)
    lutimesSync(join(first, "fs/etc"), atime, mtime)
    assert.deepStrictEqual(yield* checked(folder), [`layer-damaged: /etc/${name} is of another type`])
    rmSync(join(first, "meta"))
    writeFileSync(join(first, "meta"), "towline-layer 1\n{}\n", { mode: 0o600 })
    assert.match((yield* checked(folder)).join(), /layer-damaged: line 2 \(its journal\)/)
  }).pipe(Effect.scoped), 60_000)

  it.live("never calls good what it cannot compare", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const [largest = ""] = files(join(store, "blobs")).toSorted((a, b) => lstatSync(b).size - lstatSync(a).size)
    flip(largest, 99)
    const findings = yield* Check.check().pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(findings.map(({ kind }) => kind).sort(), ["blob-digest", "layer-unverified"])
    rmSync(largest)
    alter(store, `DELETE FROM blobs WHERE digest = 'sha256:${largest.slice(-64)}'`)
    const without = yield* Check.check().pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(without.map(({ kind }) => kind), ["layer-unverified"])
  }).pipe(Effect.scoped))

  it.live("finds what a layer's row says wrong", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    alter(store, "UPDATE layers SET size = size + 1 WHERE rowid = 1")
    assert.match((yield* checked(folder)).join(), /^layer-row-wrong: its tar has/)
    alter(store, "UPDATE layers SET size = size - 1 WHERE rowid = 1")
    const changes = [
      "UPDATE manifest_blobs SET size = size + 1 WHERE role = 'layer' AND position = 1", "UPDATE manifest_blobs SET media_type = media_type || 'x' WHERE role = 'config'",
      "DELETE FROM manifest_blobs WHERE role = 'layer' AND position = 0", "UPDATE manifest_blobs SET position = 7 WHERE role = 'layer' AND position = 2",
      "UPDATE manifests SET size = size - 1", "UPDATE images SET platform = 'linux/amd65'", "UPDATE images SET created = NULL", "UPDATE tags SET name = name || 'x'",
      "UPDATE tags SET target = 'sha256:' || target", "DELETE FROM tags"
    ]
    yield* Effect.gen(function*() {
      for (const change of changes) {
        alter(store, `${change}`)
        assert.include((yield* (yield* Graph).check()).map(({ kind }) => kind), "row-wrong", change)
        assert.deepStrictEqual((yield* Repair.repair()).left, [], change)
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 240_000)
})

