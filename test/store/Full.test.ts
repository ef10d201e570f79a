import { assert, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { spawnSync } from "node:child_process"
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Disk from "../../src/store/Disk.ts"
import { Graph } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import * as Store from "../../src/store/Store.ts"
import { blobOf, imageOf, litter, take, temp, withStore } from "./Fixtures.ts"

/** A file system of 4 MiB, where this user may mount one. */
const small = Effect.gen(function*() {
  const path = `${yield* temp}-small`
  mkdirSync(path)
  const mounted = yield* Effect.acquireRelease(
    Effect.sync(() => process.platform === "linux" && process.getuid?.() === 0 && spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", path]).status === 0),
    (mounted) => Effect.sync(() => { if (mounted) spawnSync("umount", ["-l", path]) })
  )
  return mounted ? Option.some(path) : Option.none()
})

const checked = (path: string) => Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path))

it.live("a full disk is said, and the store is as good as before once there is room", (context) => Effect.gen(function*() {
  const mounted = yield* small
  if (Option.isNone(mounted)) return context.skip("no file system can be mounted here")
  const path = `${mounted.value}/store`
  const [large, wide] = [Buffer.alloc(8 << 20, 1), Buffer.alloc(64 << 10, 2)]
  const error = yield* Effect.flip(take(blobOf(large), [large], { commit: true }).pipe(withStore(path)))
  assert.include(error.message, "the disk is full")
  assert.deepStrictEqual(yield* checked(path), [])
  yield* Effect.gen(function*() {
    const ingest = yield* (yield* BlobStore).ingest(blobOf(wide))
    yield* Disk.attempt(() => ingest.append(wide))
    const { bavail, bsize } = statfsSync(mounted.value)
    for (let room = bavail * bsize; room >= 4096; room = Math.floor(room / 2)) {
      yield* Effect.ignore(Effect.try(() => writeFileSync(`${mounted.value}/ballast${room}`, Buffer.alloc(room))))
    }
    const full = yield* Effect.flip(imageOf("full", ["a", "b"]))
    assert.include(full.message, "the disk is full")
    assert.include((yield* Effect.flip(Effect.scoped((yield* LayerStore).staging({ kind: "layer" })))).message, "full")
  }).pipe(Effect.scoped, withStore(path), Effect.ignore)
  spawnSync("sh", ["-c", 'rm -f "$1"/ballast*', "sh", mounted.value])
  assert.deepStrictEqual(yield* checked(path), [])
  yield* Effect.gen(function*() {
    yield* (yield* Graph).register(yield* imageOf("room", ["a", "b"]))
    yield* take(blobOf(wide), [wide.subarray(yield* (yield* BlobStore).partial(blobOf(wide).digest))], { commit: true })
  }).pipe(withStore(path))
  assert.deepStrictEqual([yield* checked(path), litter(path).length <= 1], [[], true])
}).pipe(Effect.scoped))

it.live("a read-only store is said", (context) => Effect.gen(function*() {
  const mounted = yield* small
  if (Option.isNone(mounted)) return context.skip("no file system can be mounted here")
  const path = `${mounted.value}/store`
  const open = Effect.scoped(Effect.asVoid(Layer.build(Store.layer({ path }))))
  const readOnly = Effect.sync(() => spawnSync("mount", ["-o", "remount,ro", mounted.value]))
  yield* open
  yield* readOnly
  const [there, absent] = [yield* Effect.flip(open), yield* Effect.flip(Effect.scoped(Layer.build(Store.layer({ path: `${mounted.value}/other` }))))]
  assert.match(there.message, /read-only|writable/)
  assert.include(absent.message, "read-only")
  spawnSync("mount", ["-o", "remount,rw", mounted.value])
  rmSync(path, { recursive: true })
}).pipe(Effect.scoped))
