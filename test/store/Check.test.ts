import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { StoreError } from "../../src/store/disk/Disk.ts"
import { type Finding, Graph, type Image } from "../../src/store/Graph.ts"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Store from "../../src/store/Store.ts"
import { digestOf, imageOf, temp, withStore } from "./Fixtures.ts"

interface Case {
  readonly name: string
  readonly kinds: ReadonlyArray<Finding["kind"]>
  readonly damage: (root: string, image: Image) => void
}

const fileOf = (root: string, { manifest }: Image) => `${root}/blobs/sha256/${manifest.digest.slice(7)}`
const folderOf = (root: string, { layers: [first] }: Image) => `${root}/layers/sha256/${first?.diffId.slice(7) ?? ""}`
const alter = (root: string, statement: string) => {
  const db = new DatabaseSync(`${root}/graph.db`)
  db.exec(`PRAGMA foreign_keys=OFF; ${statement}`)
  db.close()
}
const flipBit = (path: string, at: number) => {
  const bytes = readFileSync(path)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(path, bytes)
}

const cases: ReadonlyArray<Case> = [
  { name: "nothing", kinds: [], damage: () => {} },
  { name: "a flipped bit", kinds: ["blob-digest"], damage: (root, image) => flipBit(fileOf(root, image), 3) },
  { name: "a cut file", kinds: ["blob-size"], damage: (root, image) => truncateSync(fileOf(root, image), 3) },
  { name: "a deleted file", kinds: ["blob-file-missing"], damage: (root, image) => rmSync(fileOf(root, image)) },
  { name: "a file of nobody's", kinds: ["blob-row-missing"], damage: (root) => writeFileSync(`${root}/blobs/sha256/${digestOf(Buffer.from("?")).slice(7)}`, "?", { mode: 0o600 }) },
  { name: "a file that is no digest", kinds: ["blob-row-missing"], damage: (root) => writeFileSync(`${root}/blobs/sha256/junk`, "", { mode: 0o600 }) },
  { name: "a deleted blob row", kinds: ["image-incomplete", "blob-row-missing"], damage: (root, { manifest }) => alter(root, `DELETE FROM blobs WHERE digest = '${manifest.digest}'`) },
  { name: "a moved layer folder", kinds: ["layer-row-missing", "layer-folder-missing"], damage: (root, image) => renameSync(folderOf(root, image), `${root}/layers/sha256/${"0".repeat(64)}`) },
  { name: "a layer without its journal", kinds: ["layer-folder-missing"], damage: (root, image) => rmSync(`${folderOf(root, image)}/meta`) },
  { name: "an ingest nobody lists", kinds: ["ingest-row-missing"], damage: (root) => mkdirSync(`${root}/ingest/x`, { mode: 0o700 }) },
  { name: "nothing in a row that lost its owner since, and its entry: it is swept", kinds: [], damage: (root) => alter(root, "INSERT INTO ingests (path, kind, touched) VALUES ('ingest/y', 'layer', 0)") },
  { name: "nothing in a folder that lost its owner since: it is removed", kinds: [], damage: (root) => { mkdirSync(`${root}/ingest/z`, { mode: 0o700 }); alter(root, "INSERT INTO ingests (path, kind, touched) VALUES ('ingest/z', 'layer', 0)") } },
  { name: "a chain that is another", kinds: ["chain-wrong"], damage: (root, { layers: [, top] }) => alter(root, `UPDATE chains SET diff_id = 'sha256:${"1".repeat(64)}' WHERE diff_id = '${top?.diffId ?? ""}'`) },
  { name: "a changed config", kinds: ["image-wrong"], damage: (root) => alter(root, "UPDATE images SET config = x'7b7d'") },
  { name: "a tag to nowhere", kinds: ["dangling"], damage: (root) => alter(root, "UPDATE tags SET image = 'gone'") },
  { name: "an image without its chain", kinds: ["dangling"], damage: (root) => alter(root, "DELETE FROM chains WHERE parent IS NOT NULL") },
  { name: "a file others may read", kinds: ["mode"], damage: (root, image) => chmodSync(fileOf(root, image), 0o644) },
  { name: "a layer others may enter", kinds: ["mode"], damage: (root, image) => chmodSync(folderOf(root, image), 0o755) }
]

it.live("has blobs hashed by whom the store was opened with, several at a time", () => Effect.gen(function*() {
  const path = yield* temp
  let [now, most, all] = [0, 0, 0]
  const hash = (_: number, size: number, algorithm: "sha256" | "sha512", file: string) => Effect.gen(function*() {
    most = Math.max(most, ++now)
    all++
    yield* Effect.sleep("20 millis")
    const bytes = readFileSync(file)
    now--
    return createHash(algorithm).update(bytes.subarray(0, size)).digest("hex")
  })
  yield* Effect.gen(function*() {
    const [graph, blobs] = [yield* Graph, yield* BlobStore]
    const image = yield* graph.register(yield* imageOf("sound", ["base", "top"]))
    assert.deepStrictEqual(yield* graph.check(), [])
    assert.isTrue(yield* blobs.verify(image.manifest.digest))
    assert.deepStrictEqual([most, all], [3, 5])
  }).pipe(Effect.provide(Store.layer({ path }).pipe(Layer.provide(Layer.succeed(Store.Hasher, { concurrency: 3, hash }))), { local: true }))
}).pipe(Effect.scoped))

for (const { name, kinds, damage } of cases) {
  it.live(`finds ${name}`, () => Effect.gen(function*() {
    const path = yield* temp
    yield* Effect.gen(function*() {
      const graph = yield* Graph
      const image = yield* graph.register(yield* imageOf("sound", ["base", "top"]))
      const heard: Array<readonly [number, number]> = []
      assert.deepStrictEqual(yield* graph.check({ progress: (done, total) => Effect.sync(() => { heard.push([done, total]) }) }), [])
      assert.deepStrictEqual(heard, [[1, 4], [2, 4], [3, 4], [4, 4]])
      damage(path, image)
      assert.deepStrictEqual((yield* graph.check()).map(({ kind }) => kind), kinds)
    }).pipe(withStore(path))
  }).pipe(Effect.scoped))
}

it.live("finds a void folder that stays, because it cannot be removed", () => Effect.gen(function*() {
  const path = yield* temp
  const stuck = Layer.succeed(Store.Remover, (path: string) => Effect.fail(new StoreError({ operation: "remove", path, code: "EIO" })))
  yield* Effect.gen(function*() {
    mkdirSync(`${path}/ingest/z`, { mode: 0o700 })
    alter(path, "INSERT INTO ingests (path, kind, touched) VALUES ('ingest/z', 'layer', 0)")
    assert.deepStrictEqual((yield* (yield* Graph).check()).map(({ kind }) => kind), ["ingest-left"])
  }).pipe(Effect.provide(Store.layer({ path }).pipe(Layer.provide(stuck)), { local: true }))
}).pipe(Effect.scoped))
