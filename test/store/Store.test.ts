import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option } from "effect"
import { spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { fileURLToPath } from "node:url"
import { BlobStore } from "../../src/store/BlobStore.ts"
import { Graph } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import { Leases } from "../../src/store/Leases.ts"
import * as Store from "../../src/store/Store.ts"
import { blobOf, digestOf, fill, imageOf, layUp, litter, take, temp, visible, withStore } from "./Fixtures.ts"

const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
const opened = (path: string) => Effect.scoped(Effect.asVoid(Layer.build(Store.layer({ path }))))
const checked = (path: string) => Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path))

/** Writes into the store's database as a dead process might have left it. */
const alter = (path: string, ...statements: ReadonlyArray<string>) => {
  const db = new DatabaseSync(`${path}/graph.db`)
  for (const statement of statements) db.exec(statement)
  db.close()
}

it.live("makes its folders 0700 and files 0600 whatever the umask, and leaves the umask alone", () => Effect.gen(function*() {
  const path = yield* temp
  const program = fileURLToPath(new URL("child.ts", import.meta.url))
  for (const umask of ["0000", "0277"]) {
    rmSync(path, { recursive: true, force: true })
    const { status, stderr } = spawnSync("sh", ["-c", 'umask "$1"; exec "$2" --disable-warning=ExperimentalWarning "$3" open "$4"', "sh", umask, process.execPath, program, path])
    assert.strictEqual(status, 0, String(stderr))
    const folders = ["", "/blobs", "/blobs/sha256", "/layers", "/layers/sha256", "/ingest"].map((name) => modeOf(`${path}${name}`))
    assert.deepStrictEqual([new Set(folders), modeOf(`${path}/graph.db`)], [new Set(["700"]), "600"])
  }
  const umask = process.umask()
  yield* Effect.gen(function*() {
    yield* take(blobOf(Buffer.from("x")), [Buffer.from("x")], { commit: true })
    assert.deepStrictEqual([modeOf(`${path}/blobs/sha256/${digestOf(Buffer.from("x")).slice(7)}`), modeOf(`${path}/graph.db-wal`)], ["600", "600"])
    const staging = yield* (yield* LayerStore).staging({ kind: "layer" })
    assert.strictEqual(modeOf(staging.path), "700")
  }).pipe(Effect.scoped, withStore(path))
  assert.strictEqual(process.umask(), umask)
}).pipe(Effect.scoped))

it.live("a blob whose row cannot be written when its file has its name is known all the same, and the next command lists it", () => Effect.gen(function*() {
  for (const unnamed of [false, true]) {
    const path = yield* temp
    const bytes = Buffer.from("all of it")
    const blob = blobOf(bytes)
    yield* Effect.gen(function*() {
      alter(path, "CREATE TRIGGER full BEFORE INSERT ON blobs BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
      const commit = unnamed
        ? Effect.scoped(Effect.gen(function*() {
          const receipt = yield* (yield* BlobStore).receive
          receipt.append(bytes)
          yield* receipt.commit(blob.mediaType)
        }))
        : take(blob, [bytes], { commit: true })
      assert.strictEqual((yield* Effect.flip(commit))._tag, "StoreError")
      alter(path, "DROP TRIGGER full")
    }).pipe(withStore(path))
    assert.deepStrictEqual(yield* checked(path), [])
    assert.deepStrictEqual([visible(path, blob)?.toString(), litter(path)], [bytes.toString(), []], unnamed ? "received" : "fetched")
  }
}).pipe(Effect.scoped))

it.live("refuses a store that others may look into, and names the command", () => Effect.gen(function*() {
  const path = yield* temp
  yield* opened(path)
  for (const [name, loose, right] of [["", 0o755, "700"], ["/layers", 0o710, "700"], ["/ingest", 0o701, "700"], ["/graph.db", 0o644, "600"]] as const) {
    chmodSync(`${path}${name}`, loose)
    const error = yield* Effect.flip(opened(path))
    assert.strictEqual(error._tag, "StoreError")
    assert.include(error.message, `chmod ${right} '${path}${name}'`)
    chmodSync(`${path}${name}`, Number.parseInt(right, 8))
  }
  yield* opened(path)
}).pipe(Effect.scoped))

it.live("refuses a newer version's store, a file that is no database, and a path that is no folder", () => Effect.gen(function*() {
  const path = yield* temp
  yield* opened(path)
  alter(path, "INSERT INTO migrations (migration_id, name) VALUES (99, 'later')")
  assert.include((yield* Effect.flip(opened(path))).message, "newer towline")
  writeFileSync(`${path}/graph.db`, "this is not a database, whatever its name says, and long enough to be looked at. ".repeat(20), { mode: 0o600 })
  for (const name of ["graph.db-wal", "graph.db-shm"]) rmSync(`${path}/${name}`, { force: true })
  assert.include((yield* Effect.flip(opened(path))).message, "not a towline database")
  assert.include((yield* Effect.flip(opened(`${path}/graph.db/store`))).message, "ENOTDIR")
  if (process.platform === "linux") assert.include((yield* Effect.flip(opened("/proc/nowhere/store"))).message, "ENOENT") // where nothing can be made
}).pipe(Effect.scoped))

it.live("sweeps what nobody owns: litter, void staging folders, also outside the store", () => Effect.gen(function*() {
  const path = yield* temp
  yield* opened(path)
  const outside = `${path}-target`
  for (const folder of [`${path}/ingest/stray`, `${path}/ingest/void`, `${outside}/.towline-x`]) {
    mkdirSync(folder, { recursive: true })
    fill(folder)
    chmodSync(`${folder}/fs`, 0)
  }
  alter(path, `INSERT INTO ingests (path, kind, touched) VALUES ('ingest/void', 'layer', 0), ('${outside}/.towline-x', 'rootfs', 0), ('${outside}/gone', 'rootfs', 0)`)
  assert.deepStrictEqual(yield* checked(path), [])
  assert.deepStrictEqual([litter(path), readdirSync(outside)], [[], []])
}).pipe(Effect.scoped))

it.live("keeps a partial blob for a week", () => Effect.gen(function*() {
  const path = yield* temp
  const blob = blobOf(Buffer.from("whole"))
  yield* take(blob, [Buffer.from("who")]).pipe(withStore(path))
  yield* opened(path)
  assert.strictEqual(litter(path).length, 1)
  alter(path, "UPDATE ingests SET touched = touched - 8 * 86400000")
  yield* opened(path)
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped))

it.live("copies the partial of an owner that may still be alive elsewhere", () => Effect.gen(function*() {
  const path = yield* temp
  const bytes = Buffer.from("begun on another machine")
  const blob = blobOf(bytes)
  yield* take(blob, [bytes.subarray(0, 5)]).pipe(withStore(path))
  alter(path, "INSERT INTO owners VALUES ('other', 1, '1', 'another boot', 'pid:[1]', 0)", "UPDATE ingests SET owner = 'other'")
  const [before] = litter(path)
  yield* Effect.gen(function*() {
    const ingest = yield* (yield* BlobStore).ingest(blob)
    assert.strictEqual(ingest.offset, 5)
    assert.notDeepEqual(litter(path), [before])
    assert.strictEqual(litter(path).length, 1)
  }).pipe(Effect.scoped, withStore(path))
  yield* take(blob, [bytes.subarray(5)], { commit: true }).pipe(withStore(path))
  assert.deepStrictEqual(visible(path, blob), bytes)
}).pipe(Effect.scoped))

it.live("waits for an owner that beats, though it cannot be looked at", () => Effect.gen(function*() {
  const path = yield* temp
  const blob = blobOf(Buffer.from("busy"))
  yield* take(blob, [Buffer.from("b")]).pipe(withStore(path))
  alter(path, `INSERT INTO owners VALUES ('other', 1, '1', 'another boot', 'pid:[1]', ${Date.now()})`, "UPDATE ingests SET owner = 'other'")
  const waited = yield* take(blob, []).pipe(Effect.timeoutOption("400 millis"), withStore(path))
  assert.isTrue(Option.isNone(waited))
}).pipe(Effect.scoped))

it.live("an owner that was taken over does not commit", () => Effect.gen(function*() {
  const path = yield* temp
  const bytes = Buffer.from("taken")
  yield* Effect.gen(function*() {
    const ingest = yield* (yield* BlobStore).ingest(blobOf(bytes))
    ingest.append(bytes)
    alter(path, "DELETE FROM owners")
    const error = yield* Effect.flip(ingest.commit)
    assert.deepStrictEqual([error._tag, error._tag === "StoreError" && error.code], ["StoreError", "ESTALE"])
    assert.isTrue(Option.isNone(yield* (yield* BlobStore).find(ingest.blob.digest)))
  }).pipe(Effect.scoped, withStore(path))
  assert.deepStrictEqual(yield* checked(path), [])
}).pipe(Effect.scoped))

it.live("adopts a blob that was renamed but not recorded, and discards such a layer", () => Effect.gen(function*() {
  const path = yield* temp
  const bytes = Buffer.from("verified and synced")
  const blob = blobOf(bytes)
  const diffId = digestOf(Buffer.from("a tar"))
  yield* take(blob, [bytes]).pipe(withStore(path))
  const [name = ""] = litter(path)
  renameSync(`${path}/ingest/${name}`, `${path}/blobs/sha256/${blob.digest.slice(7)}`)
  mkdirSync(`${path}/layers/sha256/${diffId.slice(7)}`, { mode: 0o700 })
  fill(`${path}/layers/sha256/${diffId.slice(7)}`)
  alter(path, `INSERT INTO ingests (path, kind, digest, touched) VALUES ('ingest/was', 'layer', '${diffId}', 0)`)
  assert.deepStrictEqual(yield* checked(path), [])
  yield* Effect.gen(function*() {
    assert.isTrue(Option.isSome(yield* (yield* BlobStore).find(blob.digest)))
    assert.isTrue(Option.isNone(yield* (yield* LayerStore).find(diffId)))
  }).pipe(withStore(path))
  assert.deepStrictEqual([litter(path), readdirSync(`${path}/layers/sha256`)], [[], []])
}).pipe(Effect.scoped))

it.live("discards layers that another boot left unsynced, and keeps durable ones", () => Effect.gen(function*() {
  const path = yield* temp
  const registered = yield* Effect.gen(function*() {
    const image = yield* imageOf("kept", ["durable"])
    yield* (yield* Graph).register(image)
    yield* layUp(digestOf(Buffer.from("loose")), blobOf(Buffer.from("loose")))
    return image
  }).pipe(withStore(path))
  alter(path, "UPDATE layers SET boot = 'another'")
  yield* Effect.gen(function*() {
    const layers = yield* LayerStore
    assert.isTrue(Option.isNone(yield* layers.find(digestOf(Buffer.from("loose")))))
    for (const { diffId } of registered.layers) assert.isTrue(Option.isSome(yield* layers.find(diffId)))
  }).pipe(withStore(path))
  assert.strictEqual(readdirSync(`${path}/layers/sha256`).length, 1)
  assert.deepStrictEqual(yield* checked(path), [])
}).pipe(Effect.scoped))

it.live("finishes removals that were begun", () => Effect.gen(function*() {
  const path = yield* temp
  yield* Effect.gen(function*() { yield* (yield* Graph).register(yield* imageOf("going", ["a"])) }).pipe(withStore(path))
  alter(path, "PRAGMA foreign_keys=OFF; DELETE FROM tags; DELETE FROM manifest_blobs; DELETE FROM manifests; DELETE FROM resolutions; DELETE FROM images; DELETE FROM chains; DELETE FROM origins",
    "INSERT INTO ingests (path, kind, digest, touched) SELECT 'ingest/' || substr(digest, 8), 'removal-blob', digest, 0 FROM blobs",
    "INSERT INTO ingests (path, kind, digest, touched) SELECT 'ingest/' || substr(diff_id, 8), 'removal-layer', diff_id, 0 FROM layers",
    "UPDATE blobs SET state = 'deleting'", "UPDATE layers SET state = 'deleting'")
  assert.deepStrictEqual(yield* checked(path), [])
  assert.deepStrictEqual([litter(path), readdirSync(`${path}/layers/sha256`), readdirSync(`${path}/blobs/sha256`)], [[], [], []])
}).pipe(Effect.scoped))

it.live("what this opening began to remove and left, its failure told or its fiber stopped, nobody waits for", () => Effect.gen(function*() {
  const path = yield* temp
  const bytes = Buffer.from("blob a")
  yield* Effect.gen(function*() {
    // Its owner lives on, as that of a program that uses the library.
    yield* imageOf("going", ["a"])
    yield* (yield* Leases).hold([blobOf(bytes).digest])
    alter(path, "INSERT INTO ingests (path, kind, digest, touched, owner) SELECT 'ingest/' || substr(digest, 8), 'removal-blob', digest, 0, (SELECT token FROM owners) FROM blobs",
      "INSERT INTO ingests (path, kind, digest, touched, owner) SELECT 'ingest/' || substr(diff_id, 8), 'removal-layer', diff_id, 0, (SELECT token FROM owners) FROM layers",
      "UPDATE blobs SET state = 'deleting'", "UPDATE layers SET state = 'deleting'")
    yield* Effect.gen(function*() {
      yield* imageOf("going", ["a"])
      assert.deepStrictEqual(visible(path, blobOf(bytes)), bytes)
    }).pipe(Effect.timeout("5 seconds"))
  }).pipe(Effect.scoped, withStore(path))
  assert.deepStrictEqual(yield* checked(path), [])
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped))

it.live("a removal that fails is given up: another opening ends it, while this one lives", () => Effect.gen(function*() {
  const path = yield* temp
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    yield* graph.register(yield* imageOf("stuck", ["a"]))
    const file = `${path}/blobs/sha256/${digestOf(Buffer.from("blob a")).slice(7)}`
    rmSync(file)
    mkdirSync(file) // which cannot be unlinked
    assert.include((yield* Effect.flip(graph.remove("stuck"))).message, file)
    rmdirSync(file)
    yield* Effect.gen(function*() { yield* (yield* Graph).register(yield* imageOf("stuck", ["a"])) }).pipe(Effect.timeout("5 seconds"), withStore(path))
    assert.strictEqual((yield* graph.resolve("stuck")).layers.length, 1)
  }).pipe(withStore(path))
  assert.deepStrictEqual(yield* checked(path), [])
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped))

it.live("an interrupted command does not wait for its removals; the next one does them before it returns", () => Effect.gen(function*() {
  const path = yield* temp
  const began = yield* Deferred.make<void>()
  const endless = Layer.succeed(Store.Remover, () => Effect.andThen(Deferred.succeed(began, undefined), Effect.never))
  const staged = Effect.scoped(Effect.gen(function*() {
    fill((yield* (yield* LayerStore).staging({ kind: "layer" })).path)
  }))
  const command = yield* Effect.andThen(staged, Effect.never).pipe(
    Effect.provide(Store.layer({ path }).pipe(Layer.provide(endless)), { local: true }), Effect.forkChild({ startImmediately: true }))
  yield* Deferred.await(began)
  const before = performance.now()
  yield* Fiber.interrupt(command)
  assert.isBelow(performance.now() - before, 900)
  assert.strictEqual(litter(path).length, 1)
  yield* opened(path)
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped))

it.live("a command that fails leaves nothing behind, and a new opening in one process is an owner of its own", () => Effect.gen(function*() {
  const path = yield* temp
  const failing = Effect.scoped(Effect.gen(function*() {
    const staging = yield* (yield* LayerStore).staging({ kind: "layer" })
    fill(staging.path)
    yield* opened(path)
    assert.isTrue(existsSync(`${staging.path}/meta`))
    utimesSync(staging.path, 0, 0)
    return yield* Effect.fail("no")
  }))
  assert.strictEqual(yield* Effect.flip(failing.pipe(withStore(path))), "no")
  assert.deepStrictEqual(litter(path), [])
  assert.deepStrictEqual(yield* checked(path), [])
}).pipe(Effect.scoped))

it.live("two stores in one program are two", () => Effect.gen(function*() {
  const [one, two] = [yield* temp, yield* temp]
  const bytes = Buffer.from("in one only")
  const has = Effect.flatMap(BlobStore, (blobs) => Effect.map(blobs.find(digestOf(bytes)), Option.isSome))
  const both = Effect.gen(function*() {
    yield* take(blobOf(bytes), [bytes], { commit: true })
    const other = yield* Effect.provide(has, Store.layer({ path: two }))
    return [yield* has, other]
  })
  assert.deepStrictEqual(yield* Effect.provide(both, Store.layer({ path: one })), [true, false])
}).pipe(Effect.scoped))
