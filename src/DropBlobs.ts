import { Effect, Option, Schema, type Scope } from "effect"
import { beside, type CheckProgress, obstacle, recorded, unreadable } from "./Check.ts"
import { Digest } from "./image/Digest.ts"
import { Workers } from "./layer/Workers.ts"
import type { BlobStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import type { Compressed } from "./store/upkeep/Compressed.ts"
import { Upkeep } from "./store/upkeep/Upkeep.ts"

/** A blob that went (or would go), and its bytes. */
const Given = Schema.Struct({ subject: Digest, size: Schema.Int })

/** What was given up, and what was not and why. */
export const Dropped = Schema.Struct({
  dropped: Schema.Array(Given),
  kept: Schema.Array(Schema.Struct({ ...Given.fields, reason: Schema.String }))
})

/** What was given up, and what was not and why. */
export type Dropped = typeof Dropped.Type

/** `dryRun`: say what would go, without looking at the layers; `progress` hears of every layer. */
export interface DropOptions {
  readonly dryRun?: boolean
  readonly progress?: (progress: CheckProgress) => Effect.Effect<void>
}

const damaged = "its unpacked layer is not what it holds: run `graph check --repair` first"

type Same = { readonly sums: string } | { readonly reason: string }
type Comparing = Effect.Effect<Same, StoreError, BlobStore | LayerStore | Upkeep | Workers | Scope.Scope>

/** The digests of the layer's files, recorded and durable, if the layer is what its blob holds now: by older digests, else by unpacking the blob beside it. */
const same = (layer: Compressed): Comparing => Effect.gen(function*() {
  const before = layer.sums === undefined ? undefined : yield* recorded(layer, layer.sums)
  if (layer.sums !== undefined && before?.count === 0 && before.unread === 0) return { sums: layer.sums }
  const compared = yield* beside(layer, layer.blob, { recording: true })
  if (compared === undefined) return { reason: "it was removed meanwhile" }
  if (typeof compared === "string") return { reason: damaged }
  const { found: { count, recorded: sums, unread }, record } = compared
  if (unread > 0) return { reason: unreadable(unread) }
  if (count > 0 || sums === undefined) return { reason: damaged }
  yield* (yield* Upkeep).keepSums(layer.diffId, record)
  return { sums }
})

/** One layer: compared and its digests recorded while it is held, then its blobs go. */
const one = Effect.fnUntraced(function*(layer: Compressed, blobs: ReadonlyArray<Compressed>): Effect.fn.Return<
  Dropped, StoreError, BlobStore | LayerStore | Leases | Upkeep | Workers
> {
  return yield* Effect.scoped(Effect.gen(function*(): Effect.fn.Return<Dropped, StoreError, BlobStore | LayerStore | Leases | Upkeep | Workers | Scope.Scope> {
    const lease = yield* (yield* Leases).hold([layer.diffId, ...blobs.map(({ blob }) => blob)])
    const keep = (all: ReadonlyArray<Compressed>, reason: string) => all.map(({ blob, size }) => ({ subject: blob, size, reason }))
    if (Option.isNone(yield* (yield* LayerStore).find(layer.diffId))) return { dropped: [], kept: keep(blobs, "its layer was removed meanwhile") }
    const looked = yield* Effect.catchTag(same(layer), "StoreError", (error) => Effect.map(obstacle(error), (reason): Same => ({ reason })))
    if ("reason" in looked) return { dropped: [], kept: keep(blobs, looked.reason) }
    const gone = new Set(yield* (yield* Upkeep).giveUp(layer.diffId, looked.sums, blobs.map(({ blob }) => blob), lease))
    return {
      dropped: blobs.filter(({ blob }) => gone.has(blob)).map(({ blob, size }) => ({ subject: blob, size })),
      kept: keep(blobs.filter(({ blob }) => !gone.has(blob)), "a running command holds it")
    }
  }))
})

/**
 * Gives up the compressed form of layers that are unpacked and whose blobs can be fetched again from where they came. Each layer is
 * compared with its blob first, and the digests of its files are recorded beside it and durable before the blob goes: by them
 * `Check.check` verifies it from then on. What a lease holds stays.
 */
export const dropBlobs = Effect.fn("DropBlobs.dropBlobs")(function*({ dryRun = false, progress }: DropOptions = {}) {
  const upkeep = yield* Upkeep
  const all = yield* upkeep.compressed
  const kept = all.flatMap(({ blob, reason, size }) => reason === undefined ? [] : [{ subject: blob, size, reason }])
  const free = all.filter(({ reason }) => reason === undefined)
  if (dryRun) return { dropped: free.map(({ blob, size }) => ({ subject: blob, size })), kept } satisfies Dropped as Dropped
  const unsynced = new Set(free.filter(({ durable }) => !durable).map(({ diffId }) => diffId))
  if (unsynced.size > 0) {
    yield* (yield* LayerStore).sync()
    yield* Effect.forEach(unsynced, upkeep.settled, { discard: true })
  }
  const layers = Map.groupBy(free, ({ diffId }) => diffId)
  let done = 0
  const results = yield* Effect.forEach(layers.values(), Effect.fnUntraced(function*(blobs) {
    const [first] = blobs
    const result: Dropped = first === undefined ? { dropped: [], kept: [] } : yield* one(first, blobs)
    if (progress !== undefined) yield* progress({ what: "layers", done: ++done, total: layers.size })
    return result
  }), { concurrency: (yield* Workers).size })
  return { dropped: results.flatMap(({ dropped }) => dropped), kept: [...kept, ...results.flatMap(({ kept }) => kept)] } satisfies Dropped as Dropped
})
