import { Clock, Context, Duration, Effect, Layer, Schema, Semaphore } from "effect"
import type { Digest } from "../../image/Digest.ts"
import type { StoreError } from "../disk/Disk.ts"
import { Home, record } from "../disk/Home.ts"
import { dissolve } from "../Removal.ts"
import * as Quarantine from "./Quarantine.ts"
import { dropPartial, ending, finishRemoval, mark as markRemoval, partialsKept, type Removal, removing } from "./Sweep.ts"
import * as V1Layers from "../names/V1Layers.ts"
import { type Garbage, grace, mark, type Partial, partials, stored } from "./Mark.ts"
import * as Usage from "./Usage.ts"

type Shape = Home["Service"]

/** Bytes of partial blobs that are kept for pulls that go on: 8 GiB, the latest. */
export const partialsBudget = 8 * 1024 ** 3

/** What `Collector.collect` takes away. */
export interface CollectOptions {
  /** Say what would go; change nothing. */
  readonly dryRun?: boolean
  /** Stop once blobs, layers and partials have no more bytes than this together: what has been unused longest goes first. */
  readonly keepStorage?: number
  /**
   * Only what has had no name for so long. By default images that lost their last tag go at once, what never had a name
   * after `grace`, partial blobs after `partialsKept`, and what a repair put away after `Quarantine.kept`.
   */
  readonly olderThan?: Duration.Duration
  /** Bytes of partial blobs to keep, the latest; `partialsBudget` by default. */
  readonly keepPartials?: number
  /** Keep the images that the last so many values of each tag were (its present one is the first). */
  readonly keepLast?: number
}

/** Something that went, or would go: an image by its id, a blob or partial blob by its digest, a layer by its diff ID. */
export const Taken = Schema.Struct({ subject: Schema.String, size: Schema.Int })

/** What the collector took, in bytes of blobs and (by their tars' headers) layers, and what is left. */
export const Collected = Schema.Struct({
  dryRun: Schema.Boolean,
  images: Schema.Array(Schema.String),
  blobs: Schema.Array(Taken),
  layers: Schema.Array(Taken),
  partials: Schema.Array(Taken),
  /** What a repair had put away, by its path in the store. */
  quarantined: Schema.Array(Taken),
  freed: Schema.Int,
  left: Schema.Int
})

/** What the collector took. */
export type Collected = typeof Collected.Type

type Candidate =
  | { readonly is: "image"; readonly id: string; readonly used: number }
  | { readonly is: "blob" | "layer"; readonly digest: Digest; readonly size: number; readonly used: number }
  | { readonly is: "partial"; readonly partial: Partial; readonly used: number }

/** What goes, in order: images by id (children before parents), then what no image names. */
interface Plan {
  readonly images: Array<string>
  readonly blobs: Array<typeof Taken.Type>
  readonly layers: Array<typeof Taken.Type>
  readonly orphans: Array<{ readonly kind: "removal-blob" | "removal-layer"; readonly digest: Digest; readonly size: number }>
  readonly partials: Array<Partial>
}

/** How many of the images that are going need a blob or layer: it goes with the last. */
class Uses {
  private readonly parts = new Map<string, Array<Garbage["blobs"][number]>>()
  private readonly counts = new Map<Digest, number>()

  constructor(rows: Garbage["blobs"]) {
    for (const row of rows) {
      const list = this.parts.get(row.image)
      if (list === undefined) this.parts.set(row.image, [row])
      else list.push(row)
      this.counts.set(row.digest, (this.counts.get(row.digest) ?? 0) + 1)
    }
  }

  /** The image goes: what goes with it. */
  drop(image: string): ReadonlyArray<typeof Taken.Type> {
    return (this.parts.get(image) ?? []).flatMap(({ digest, size }) => {
      const left = (this.counts.get(digest) ?? 1) - 1
      this.counts.set(digest, left)
      return left === 0 ? [{ subject: digest, size }] : []
    })
  }
}

const sum = (taken: Iterable<{ readonly size: number }>) => {
  let bytes = 0
  for (const { size } of taken) bytes += size
  return bytes
}

/** Chooses what goes, longest unused first, until no more than `keep` of `total` bytes are left. */
const choose = (garbage: Garbage, old: ReadonlyArray<Partial>, total: number, keep: number): Plan => {
  const plan: Plan = { images: [], blobs: [], layers: [], orphans: [], partials: [] }
  const [blobs, layers] = [new Uses(garbage.blobs), new Uses(garbage.layers)]
  const children = new Map<string, Array<string>>()
  for (const { id, parent } of garbage.images) {
    if (parent !== null) children.set(parent, [...children.get(parent) ?? [], id])
  }
  const candidates: Array<Candidate> = [
    ...garbage.images.map(({ id, used }) => ({ is: "image", id, used }) as const),
    ...garbage.orphanBlobs.map((row) => ({ is: "blob", ...row }) as const),
    ...garbage.orphanLayers.map((row) => ({ is: "layer", ...row }) as const),
    ...old.map((partial) => ({ is: "partial", partial, used: partial.used }) as const)
  ]
  candidates.sort((a, b) => a.used - b.used)
  const gone = new Set<string>()
  let left = total
  const dropImage = (id: string) => {
    const order: Array<string> = []
    for (const stack = [id]; stack.length > 0;) {
      const next = stack.pop()
      if (next === undefined || gone.has(next)) continue
      gone.add(next)
      order.push(next)
      stack.push(...children.get(next) ?? [])
    }
    for (const image of order.reverse()) {
      plan.images.push(image)
      const [freed, unpacked] = [blobs.drop(image), layers.drop(image)]
      plan.blobs.push(...freed)
      plan.layers.push(...unpacked)
      left -= sum(freed) + sum(unpacked)
    }
  }
  for (const candidate of candidates) {
    if (left <= keep) break
    if (candidate.is === "image") dropImage(candidate.id)
    else if (candidate.is === "partial") {
      plan.partials.push(candidate.partial)
      left -= candidate.partial.size
    } else {
      plan.orphans.push({ kind: candidate.is === "blob" ? "removal-blob" : "removal-layer", digest: candidate.digest, size: candidate.size })
      left -= candidate.size
    }
  }
  return plan
}

const planned = (plan: Plan): Pick<Collected, "images" | "blobs" | "layers" | "partials"> => {
  const orphans = (kind: string) => plan.orphans.filter((one) => one.kind === kind).map(({ digest, size }) => ({ subject: digest, size }))
  return {
    images: plan.images,
    blobs: [...plan.blobs, ...orphans("removal-blob")],
    layers: [...plan.layers, ...orphans("removal-layer")],
    partials: plan.partials.map(({ digest, size }) => ({ subject: digest, size }))
  }
}

const Here = Schema.Struct({ here: Schema.Int })

/** Whether the image is still nobody's: it may have been named, or taken up by a pull, since it was looked at. */
const isFree = Effect.fnUntraced(function*({ db }: Shape, id: string) {
  const [row] = yield* db.rows(Here, db.sql`SELECT EXISTS (SELECT 1 FROM images WHERE id = ${id})
    AND NOT EXISTS (SELECT 1 FROM tags WHERE image = ${id}) AND NOT EXISTS (SELECT 1 FROM images WHERE parent = ${id})
    AND NOT EXISTS (SELECT 1 FROM manifests m JOIN members x ON x.manifest = m.digest JOIN tags t ON t.target = x.target WHERE m.image = ${id})
    AND NOT EXISTS (SELECT 1 FROM leases l JOIN manifests m ON m.digest = l.digest WHERE m.image = ${id}) AS here`)
  return row?.here === 1
})

const isOrphan = Effect.fnUntraced(function*({ db }: Shape, kind: "removal-blob" | "removal-layer", digest: Digest) {
  const { sql } = db
  const free = sql`NOT EXISTS (SELECT 1 FROM leases WHERE digest = ${digest})`
  const [row] = yield* db.rows(Here, kind === "removal-blob"
    ? sql`SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ${digest} AND state = 'ready') AND ${free}
        AND NOT EXISTS (SELECT 1 FROM manifest_blobs WHERE digest = ${digest})
        AND NOT EXISTS (SELECT 1 FROM ingests WHERE digest = ${digest} AND kind = 'blob') AS here`
    : sql`SELECT EXISTS (SELECT 1 FROM layers WHERE diff_id = ${digest} AND state <> 'deleting') AND ${free}
        AND NOT EXISTS (SELECT 1 FROM chains WHERE diff_id = ${digest}) AS here`)
  return row?.here === 1
})

/** How many images or orphans go in one transaction. */
const batch = 32

const batches = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / batch) }, (_, index) => all.slice(index * batch, (index + 1) * batch))

/** Files of blobs go with their rows, a batch at a time; those of layers in the background. */
export const finish = Effect.fnUntraced(function*(home: Shape, removals: ReadonlyArray<Removal>) {
  if (removals.length === 0) return
  const { db, owner } = home
  yield* ending(home, removals, db.transaction(Effect.forEach(removals, Effect.fnUntraced(function*(removal) {
    yield* finishRemoval(home, removal)
    if (removal.kind === "removal-blob") yield* db.run(db.sql`DELETE FROM ingests WHERE path = ${removal.path} AND owner = ${owner.self.token}`)
  }), { discard: true })))
  for (const { kind, path } of removals) if (kind === "removal-layer") yield* home.discard(path)
})

const execute = Effect.fnUntraced(function*(home: Shape, plan: Plan) {
  const { db } = home
  const done = { images: new Array<string>(), blobs: new Array<typeof Taken.Type>(), layers: new Array<typeof Taken.Type>(), partials: new Array<typeof Taken.Type>() }
  const taken = ({ digest, size }: { readonly digest: Digest; readonly size: number }) => ({ subject: digest, size })
  for (const ids of batches(plan.images)) {
    const gone = yield* db.transaction(Effect.gen(function*() {
      const dissolved = []
      for (const id of ids) if (yield* isFree(home, id)) dissolved.push({ id, ...yield* dissolve(home, id) })
      return dissolved
    }))
    yield* finish(home, gone.flatMap(({ removals }) => removals))
    for (const { blobs, id, layers } of gone) {
      done.images.push(id)
      done.blobs.push(...blobs.map(taken))
      done.layers.push(...layers.map(taken))
    }
  }
  for (const orphans of batches(plan.orphans)) {
    const gone = yield* db.transaction(Effect.gen(function*() {
      const marked = []
      for (const orphan of orphans) {
        if (yield* isOrphan(home, orphan.kind, orphan.digest)) marked.push({ orphan, removal: yield* markRemoval(home, orphan.kind, orphan.digest) })
      }
      return marked
    }))
    yield* finish(home, gone.map(({ removal }) => removal))
    for (const { orphan } of gone) (orphan.kind === "removal-blob" ? done.blobs : done.layers).push(taken(orphan))
  }
  for (const partial of plan.partials) {
    if (yield* dropPartial(home, partial.path)) done.partials.push(taken(partial))
  }
  // What a blob was found to hold is worth knowing while one of the two is here.
  yield* db.run(db.sql`DELETE FROM layer_blobs WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE digest = blob)
    AND NOT EXISTS (SELECT 1 FROM layers l WHERE l.diff_id = layer_blobs.diff_id)`)
  return done
})

/** The partials that are too old, or too many. */
const excess = (all: ReadonlyArray<Partial>, before: number, budget: number): ReadonlyArray<Partial> => {
  let kept = 0
  return all.filter(({ size, used }) => {
    if (used <= before || kept + size > budget) return true
    kept += size
    return false
  })
}

/** Removes what was put away, in the background, under a row that outlives this process. */
const empty = Effect.fnUntraced(function*(home: Shape, old: ReadonlyArray<Quarantine.PutAway>) {
  for (const { path } of old) {
    const mine = yield* home.db.transaction(Effect.gen(function*() {
      const [other] = yield* home.db.rows(Here, home.db.sql`SELECT count(*) AS here FROM ingests WHERE path = ${path}`)
      if (other?.here !== 0) return false
      yield* record(home, { path, kind: "layer", digest: null })
      return true
    }))
    if (mine) yield* home.discard(path)
  }
})

const collect = Effect.fn("Collector.collect")(function*(home: Shape, options: CollectOptions) {
  yield* home.owner.bury
  const now = yield* Clock.currentTimeMillis
  const before = (fallback: Duration.Duration) => now - Duration.toMillis(options.olderThan ?? fallback)
  const garbage = yield* mark(home, { keepLast: options.keepLast ?? 1, untagged: before(Duration.zero), unnamed: before(grace) })
  const waiting = yield* partials(home)
  const old = excess(waiting, before(partialsKept), options.keepPartials ?? partialsBudget)
  const away = (yield* Quarantine.list(home)).filter(({ at }) => at <= before(Quarantine.kept))
  const quarantined = away.map(({ path, size }) => ({ subject: path, size }))
  const total = (yield* stored(home)) + sum(waiting)
  const plan = choose(garbage, old, total, options.keepStorage ?? -1)
  const dryRun = options.dryRun === true
  const gone = dryRun ? planned(plan) : yield* removing(home, execute(home, plan))
  if (!dryRun) {
    yield* V1Layers.tidy(home, before(grace))
    yield* empty(home, away)
  }
  const freed = sum(gone.blobs) + sum(gone.layers) + sum(gone.partials)
  const collected: Collected = { dryRun, ...gone, quarantined, freed: freed + sum(quarantined), left: total - freed }
  return collected
})

const make = Effect.gen(function*() {
  const home = yield* Home
  const turn = yield* Semaphore.make(1) // the marks are one table of the connection
  return {
    collect: (options: CollectOptions = {}) => turn.withPermits(1)(collect(home, options)),
    usage: turn.withPermits(1)(Effect.gen(function*() {
      const before = (yield* Clock.currentTimeMillis) - Duration.toMillis(grace)
      return yield* Usage.usage(home, yield* mark(home, { keepLast: 1, untagged: Number.MAX_SAFE_INTEGER, unnamed: before }))
    }))
  }
})

/** Mark and sweep: what no tag, lease or grace period holds goes; and what everything takes. */
export class Collector extends Context.Service<Collector, {
  /**
   * Removes images without a tag, what only they needed, blobs and layers of no image, and partial blobs that are too old or
   * too many, and what a repair put away long ago; never what a tag, a child, or a living owner's lease holds. It looks again before each removal, so
   * pulls may run beside it. Linear in what the store holds.
   */
  readonly collect: (options?: CollectOptions) => Effect.Effect<Collected, StoreError>
  /** What the store takes, by kind and by image. Linear in what it holds; no folder is walked. */
  readonly usage: Effect.Effect<Usage.Usage, StoreError>
}>()("store/Collector") {
  static readonly layer: Layer.Layer<Collector, never, Home> = Layer.effect(Collector, make)
}
