import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { DatabaseSync } from "node:sqlite"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Disk from "../../src/store/disk/Disk.ts"
import { Graph } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import * as Store from "../../src/store/Store.ts"
import { blobOf, imageOf, litter, take, temp, withStore } from "./Fixtures.ts"

const mount = (path: string) => spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", path]).status === 0
const unmount = (path: string) => spawnSync("umount", ["-l", path])

/** Whether this user may mount a file system here. */
const mountable = (() => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false
  const path = mkdtempSync(`${tmpdir()}/towline-mount-`)
  const mounted = mount(path)
  if (mounted) unmount(path)
  rmSync(path, { recursive: true })
  return mounted
})()

/** A file system of 4 MiB. */
const small = Effect.gen(function*() {
  const path = `${yield* temp}-small`
  mkdirSync(path)
  return yield* Effect.acquireRelease(Effect.sync(() => { mount(path); return path }), () => Effect.sync(() => unmount(path)))
})

const checked = (path: string) => Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path))

it.live.skipIf(!mountable)("a full disk is said, and the store is as good as before once there is room", () => Effect.gen(function*() {
  const mounted = yield* small
  const path = `${mounted}/store`
  const [large, wide] = [Buffer.alloc(8 << 20, 1), Buffer.alloc(64 << 10, 2)]
  const error = yield* Effect.flip(take(blobOf(large), [large], { commit: true }).pipe(withStore(path)))
  assert.include(error.message, "the disk is full")
  assert.deepStrictEqual(yield* checked(path), [])
  yield* Effect.gen(function*() {
    const ingest = yield* (yield* BlobStore).ingest(blobOf(wide))
    yield* Disk.attempt(() => ingest.append(wide))
    const { bavail, bsize } = statfsSync(mounted)
    for (let room = bavail * bsize; room >= 4096; room = Math.floor(room / 2)) {
      yield* Effect.ignore(Effect.try(() => writeFileSync(`${mounted}/ballast${room}`, Buffer.alloc(room))))
    }
    const full = yield* Effect.flip(imageOf("full", ["a", "b"]))
    assert.include(full.message, "the disk is full")
    assert.include((yield* Effect.flip(Effect.scoped((yield* LayerStore).staging({ kind: "layer" })))).message, "full")
  }).pipe(Effect.scoped, withStore(path), Effect.ignore)
  for (const name of readdirSync(mounted).filter((name) => name.startsWith("ballast"))) rmSync(`${mounted}/${name}`)
  // That opening could not even take its owner's row away: as if its process had ended, or 15 s had passed.
  const db = new DatabaseSync(`${path}/graph.db`)
  db.exec("UPDATE owners SET beat = 0")
  db.close()
  assert.deepStrictEqual(yield* checked(path), [])
  yield* Effect.gen(function*() {
    yield* (yield* Graph).register(yield* imageOf("room", ["a", "b"]))
    yield* take(blobOf(wide), [wide.subarray(yield* (yield* BlobStore).partial(blobOf(wide).digest))], { commit: true })
  }).pipe(withStore(path))
  assert.deepStrictEqual([yield* checked(path), litter(path).length <= 1], [[], true])
}).pipe(Effect.scoped))

it.live.skipIf(!mountable)("a read-only store is said", () => Effect.gen(function*() {
  const mounted = yield* small
  const path = `${mounted}/store`
  const open = Effect.scoped(Effect.asVoid(Layer.build(Store.layer({ path }))))
  const readOnly = Effect.sync(() => spawnSync("mount", ["-o", "remount,ro", mounted]))
  yield* open
  yield* readOnly
  const [there, absent] = [yield* Effect.flip(open), yield* Effect.flip(Effect.scoped(Layer.build(Store.layer({ path: `${mounted}/other` }))))]
  assert.match(there.message, /read-only|writable/)
  assert.include(absent.message, "read-only")
  spawnSync("mount", ["-o", "remount,rw", mounted])
  rmSync(path, { recursive: true })
}).pipe(Effect.scoped))
