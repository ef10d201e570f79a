import { Effect, Schema } from "effect"
import * as Digest from "../image/Digest.ts"
import type { StoreError } from "./disk/Disk.ts"
import type { Home } from "./disk/Home.ts"
import { type AmbiguousName, type ImageNotFound, locate, type TagName, tagsOf } from "./Images.ts"
import * as Nodes from "./names/Nodes.ts"
import * as Tags from "./names/Tags.ts"
import { ending, finishRemoval, mark, type Removal, removing } from "./upkeep/Sweep.ts"

type Shape = Home["Service"]

/** The image has no name that could be taken away, and others stand on it. */
export class ImageInUse extends Schema.TaggedError<ImageInUse>()("ImageInUse", { image: Schema.String, children: Schema.Array(Schema.String) }) {
  override get message() {
    const few = this.children.slice(0, 5).map((id) => id.slice(0, 12)).join(", ")
    return `the image ${this.image.slice(0, 12)} is what ${few}${this.children.length > 5 ? ` and ${this.children.length - 5} more` : ""} stand${this.children.length === 1 ? "s" : ""} on: remove ${this.children.length === 1 ? "that one" : "those"} first`
  }
}

/** What `Graph.remove` took away. */
export interface Removed {
  readonly untagged: ReadonlyArray<TagName>
  /** The image's id, if it went with its last tag. */
  readonly image: string | undefined
  /** Images that stand on it: it stays for them, and goes with the last. */
  readonly children: ReadonlyArray<string>
  readonly blobs: ReadonlyArray<Digest.Digest>
  readonly layers: ReadonlyArray<Digest.Digest>
  /** Bytes of the removed blobs and (by their tars' headers) layers. */
  readonly freed: number
}

const Sized = Schema.Struct({ digest: Digest.Digest, size: Schema.Int })
const Free = Schema.Struct({ parent: Schema.NullOr(Schema.String) })
const Id = Schema.Struct({ id: Schema.String })
const Chain = Schema.Struct({ chain: Schema.NullOr(Schema.String) })
const Link = Schema.Struct({ parent: Schema.NullOr(Schema.String), diff_id: Digest.Digest })

/** Deletes the chain and those below it, up to the first that something else stands on; gives the diff IDs they named. */
const unchain = Effect.fnUntraced(function*({ db }: Shape, top: string | null) {
  const { sql } = db
  const diffIds: Array<Digest.Digest> = []
  for (let chain = top; chain !== null;) {
    const id = chain
    const [row] = yield* db.rows(Link, sql`SELECT parent, diff_id FROM chains WHERE chain_id = ${id}
      AND NOT EXISTS (SELECT 1 FROM images WHERE images.chain = chain_id)
      AND NOT EXISTS (SELECT 1 FROM chains above WHERE above.parent = chains.chain_id)`)
    if (row === undefined) break
    yield* db.run(sql`DELETE FROM chains WHERE chain_id = ${id}`)
    diffIds.push(row.diff_id)
    chain = row.parent
  }
  return diffIds
})

interface Plan {
  readonly children: ReadonlyArray<string>
  readonly untagged: ReadonlyArray<TagName>
  readonly image: string | undefined
  readonly blobs: ReadonlyArray<typeof Sized.Type>
  readonly layers: ReadonlyArray<typeof Sized.Type>
  readonly removals: ReadonlyArray<Removal>
}

/** Takes the image's rows away, and marks what nobody else needs; in a transaction. The image has no tag and no child. */
export const dissolve = Effect.fnUntraced(function*(home: Shape, id: string) {
  const { db } = home
  const { sql } = db
  const needed = yield* db.rows(Schema.Struct({ digest: Digest.Digest }), sql`SELECT DISTINCT p.digest FROM manifest_blobs p
    JOIN manifests m ON m.digest = p.manifest WHERE m.image = ${id}`)
  const [row] = yield* db.rows(Chain, sql`SELECT chain FROM images WHERE id = ${id}`)
  yield* db.run(sql`DELETE FROM origins WHERE digest IN (SELECT digest FROM manifests WHERE image = ${id})`)
  yield* db.run(sql`DELETE FROM images WHERE id = ${id}`)
  const diffIds = yield* unchain(home, row?.chain ?? null)
  const blobs = (yield* Effect.forEach(needed, ({ digest }) => db.rows(Sized, sql`SELECT digest, size FROM blobs
    WHERE digest = ${digest} AND state = 'ready'
      AND NOT EXISTS (SELECT 1 FROM manifest_blobs p WHERE p.digest = blobs.digest)
      AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.digest = blobs.digest)
      AND NOT EXISTS (SELECT 1 FROM ingests g WHERE g.digest = blobs.digest AND g.kind = 'blob')`))).flat()
  const layers = (yield* Effect.forEach(new Set(diffIds), (diffId) => db.rows(Sized, sql`SELECT diff_id AS digest, size FROM layers
    WHERE diff_id = ${diffId} AND state <> 'deleting'
      AND NOT EXISTS (SELECT 1 FROM chains c WHERE c.diff_id = layers.diff_id)
      AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.digest = layers.diff_id)`))).flat()
  for (const { digest } of layers) yield* db.run(sql`DELETE FROM layer_blobs WHERE diff_id = ${digest}`)
  const removals = [
    ...yield* Effect.forEach(blobs, ({ digest }) => mark(home, "removal-blob", digest)),
    ...yield* Effect.forEach(layers, ({ digest }) => mark(home, "removal-layer", digest))
  ]
  return { blobs, layers, removals }
})

/**
 * Takes a name away, or (called by id) all names; with the last name goes the image, unless it is another's parent, what it
 * stands on as far as nothing else does, and all that no other image needs and no living owner leases. The files of layers go in the background: see `Home.discard`.
 */
export const remove = Effect.fn("Graph.remove")(function*(
  home: Shape, text: string
): Effect.fn.Return<Removed, StoreError | ImageNotFound | AmbiguousName | ImageInUse> {
  const { db, owner } = home
  const { sql } = db
  yield* owner.bury
  const plan = yield* db.transaction(Effect.gen(function*(): Effect.fn.Return<Plan, StoreError | ImageNotFound | AmbiguousName | ImageInUse> {
    const { id, tag } = yield* locate(home, text)
    const tags = yield* tagsOf(home, id)
    const untagged = tag === undefined ? tags : [tag]
    const children = untagged.length < tags.length ? [] : yield* Nodes.children(home, id)
    if (untagged.length === 0 && children.length > 0) return yield* new ImageInUse({ image: id, children })
    const together = (yield* Effect.forEach(untagged, ({ name, reference }) => db.rows(Id, sql`SELECT DISTINCT m.image AS id FROM tags t
      JOIN members x ON x.target = t.target JOIN manifests m ON m.digest = x.manifest WHERE t.name = ${name} AND t.reference = ${reference}`))).flat()
    for (const name of untagged) yield* Tags.remove(home, name)
    const gone: Array<Effect.Success<ReturnType<typeof dissolve>>> = []
    // Images of an index that was stored whole go with its last tag, as far as they have none of their own.
    const members = new Set(together.map(({ id }) => id))
    if (tag === undefined) members.delete(id)
    let removed = false
    for (const member of members) {
      const [row] = yield* db.rows(Free, sql`SELECT parent FROM images i WHERE id = ${member} AND NOT EXISTS (SELECT 1 FROM tags WHERE image = i.id)
        AND NOT EXISTS (SELECT 1 FROM images child WHERE child.parent = i.id)
        AND NOT EXISTS (SELECT 1 FROM manifests m JOIN members x ON x.manifest = m.digest JOIN tags t ON t.target = x.target WHERE m.image = i.id)`)
      if (row === undefined) continue
      gone.push(yield* dissolve(home, member))
      removed ||= member === id
    }
    let next: string | null = untagged.length < tags.length || members.has(id) ? null : id
    // What an image of the old graph stood on goes with it, as far as it has neither a tag nor another child.
    while (next !== null) {
      const [row]: ReadonlyArray<typeof Free.Type> = yield* db.rows(Free, sql`SELECT parent FROM images i WHERE id = ${next}
        AND NOT EXISTS (SELECT 1 FROM tags WHERE image = i.id) AND NOT EXISTS (SELECT 1 FROM images child WHERE child.parent = i.id)`)
      if (row === undefined) break
      gone.push(yield* dissolve(home, next))
      removed = true
      next = row.parent
    }
    return {
      untagged, children, image: removed ? id : undefined, blobs: gone.flatMap(({ blobs }) => blobs), layers: gone.flatMap(({ layers }) => layers),
      removals: gone.flatMap(({ removals }) => removals)
    }
  }))
  yield* ending(home, plan.removals, Effect.forEach(plan.removals, (removal) => Effect.andThen(finishRemoval(home, removal), home.discard(removal.path)), { discard: true }))
  const { children, untagged, image, blobs, layers } = plan
  const freed = [...blobs, ...layers].reduce((sum, { size }) => sum + size, 0)
  return { untagged, image, children, blobs: blobs.map(({ digest }) => digest), layers: layers.map(({ digest }) => digest), freed }
}, (self, home) => removing(home, self))
