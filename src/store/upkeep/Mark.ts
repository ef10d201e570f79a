import { Duration, Effect, Schema } from "effect"
import { Digest } from "../../image/Digest.ts"
import { call } from "../disk/Disk.ts"
import { absolute, type Home, look } from "../disk/Home.ts"

type Shape = Home["Service"]

/** How long a blob or layer that no image names yet, and an image that never had a tag, is left alone: 1 hour. */
export const grace = Duration.hours(1)

/** Which images without a tag are kept all the same, and since when what nobody names may go (milliseconds since 1970). */
export interface Roots {
  /** Images that the last so many values of a tag were, the present one included. */
  readonly keepLast: number
  /** An image that had a tag goes if it lost it before this. */
  readonly untagged: number
  /** An image that never had a tag, a blob or a layer without an image goes if it came before this. */
  readonly unnamed: number
}

/** An image nothing keeps: when it was last named (or came), and its parent, which can only go after it. */
const ImageRow = Schema.Struct({ id: Schema.String, parent: Schema.NullOr(Schema.String), used: Schema.Int })
const PartRow = Schema.Struct({ image: Schema.String, digest: Digest, size: Schema.Int })
const OrphanRow = Schema.Struct({ digest: Digest, size: Schema.Int, used: Schema.Int })
const PartialRow = Schema.Struct({ path: Schema.String, digest: Digest, used: Schema.Int })
const Total = Schema.Struct({ total: Schema.Int })

/** What nothing keeps. Parts of an image are listed only if no kept image needs them and nobody leases them. */
export interface Garbage {
  readonly images: ReadonlyArray<typeof ImageRow.Type>
  readonly blobs: ReadonlyArray<typeof PartRow.Type>
  readonly layers: ReadonlyArray<typeof PartRow.Type>
  readonly orphanBlobs: ReadonlyArray<typeof OrphanRow.Type>
  readonly orphanLayers: ReadonlyArray<typeof OrphanRow.Type>
}

/** A blob that came in part, and nobody is fetching now. */
export interface Partial {
  readonly path: string
  readonly digest: Digest
  readonly size: number
  /** Milliseconds since 1970 when the last bytes came. */
  readonly used: number
}

/**
 * Marks from the roots (tags and their last values, leases, what is too young) and gives the rest. A few statements, each
 * linear in what the store holds, on tables of this connection alone: nothing is locked meanwhile, so whoever removes
 * looks again.
 */
export const mark = Effect.fn("Mark.mark")(function*({ db }: Shape, { keepLast, unnamed, untagged }: Roots) {
  const { sql } = db
  for (const name of ["kept_images", "kept_blobs", "kept_layers"]) {
    yield* db.run(sql.unsafe(`DROP TABLE IF EXISTS temp.${name}`))
    yield* db.run(sql.unsafe(`CREATE TEMP TABLE ${name} (id TEXT PRIMARY KEY) WITHOUT ROWID`))
  }
  yield* db.run(sql`INSERT INTO temp.kept_images
    WITH RECURSIVE
    lost(image, at) AS (SELECT old_image, max(at) FROM tag_log WHERE old_image IS NOT NULL GROUP BY old_image),
    latest(image, place) AS (
      SELECT l.image, row_number() OVER (PARTITION BY l.name, l.reference ORDER BY l.last DESC) FROM (
        SELECT name, reference, new_image AS image, max(id) AS last FROM tag_log WHERE new_image IS NOT NULL GROUP BY name, reference, new_image
      ) l JOIN tags t ON t.name = l.name AND t.reference = l.reference
    ),
    kept(id) AS (
      SELECT image FROM tags
      UNION SELECT m.image FROM tags t JOIN members x ON x.target = t.target JOIN manifests m ON m.digest = x.manifest
      UNION SELECT m.image FROM leases l JOIN manifests m ON m.digest = l.digest
      UNION SELECT i.id FROM latest l JOIN images i ON i.id = l.image WHERE l.place <= ${keepLast}
      UNION SELECT i.id FROM images i LEFT JOIN lost ON lost.image = i.id
        WHERE CASE WHEN lost.at IS NULL THEN i.since > ${unnamed} ELSE max(i.since, lost.at) > ${untagged} END
      UNION SELECT i.parent FROM kept JOIN images i ON i.id = kept.id WHERE i.parent IS NOT NULL
    )
    SELECT id FROM kept`)
  yield* db.run(sql`INSERT INTO temp.kept_blobs
    SELECT p.digest FROM temp.kept_images k JOIN manifests m ON m.image = k.id JOIN manifest_blobs p ON p.manifest = m.digest
    UNION SELECT digest FROM leases UNION SELECT digest FROM ingests WHERE kind = 'blob' AND digest IS NOT NULL`)
  yield* db.run(sql`INSERT INTO temp.kept_layers
    WITH RECURSIVE up(chain) AS (
      SELECT i.chain FROM temp.kept_images k JOIN images i ON i.id = k.id WHERE i.chain IS NOT NULL
      UNION SELECT c.parent FROM up JOIN chains c ON c.chain_id = up.chain WHERE c.parent IS NOT NULL
    )
    SELECT c.diff_id FROM up JOIN chains c ON c.chain_id = up.chain UNION SELECT digest FROM leases`)
  const images = yield* db.rows(ImageRow, sql`SELECT i.id, i.parent, max(i.since, coalesce(lost.at, 0)) AS used FROM images i
    LEFT JOIN (SELECT old_image AS image, max(at) AS at FROM tag_log WHERE old_image IS NOT NULL GROUP BY old_image) lost ON lost.image = i.id
    WHERE i.id NOT IN temp.kept_images`)
  const blobs = yield* db.rows(PartRow, sql`SELECT DISTINCT m.image, b.digest, b.size FROM manifests m
    JOIN manifest_blobs p ON p.manifest = m.digest JOIN blobs b ON b.digest = p.digest AND b.state = 'ready'
    WHERE m.image NOT IN temp.kept_images AND b.digest NOT IN temp.kept_blobs`)
  const layers = yield* db.rows(PartRow, sql`WITH RECURSIVE up(image, chain) AS (
      SELECT id, chain FROM images WHERE chain IS NOT NULL AND id NOT IN temp.kept_images
      UNION SELECT up.image, c.parent FROM up JOIN chains c ON c.chain_id = up.chain WHERE c.parent IS NOT NULL
    )
    SELECT DISTINCT up.image, l.diff_id AS digest, l.size FROM up JOIN chains c ON c.chain_id = up.chain
    JOIN layers l ON l.diff_id = c.diff_id AND l.state <> 'deleting' WHERE l.diff_id NOT IN temp.kept_layers`)
  const orphanBlobs = yield* db.rows(OrphanRow, sql`SELECT digest, size, since AS used FROM blobs b
    WHERE state = 'ready' AND since <= ${unnamed} AND digest NOT IN temp.kept_blobs
      AND NOT EXISTS (SELECT 1 FROM manifest_blobs p WHERE p.digest = b.digest)`)
  const orphanLayers = yield* db.rows(OrphanRow, sql`SELECT diff_id AS digest, size, since AS used FROM layers l
    WHERE state <> 'deleting' AND since <= ${unnamed} AND diff_id NOT IN temp.kept_layers
      AND NOT EXISTS (SELECT 1 FROM chains c WHERE c.diff_id = l.diff_id)`)
  const garbage: Garbage = { images, blobs, layers, orphanBlobs, orphanLayers }
  return garbage
})

/** Partial blobs that nobody fetches or leases, the latest first. */
export const partials = Effect.fn("Mark.partials")(function*({ db, root }: Shape) {
  const rows = yield* db.rows(PartialRow, db.sql`SELECT path, digest, touched AS used FROM ingests g
    WHERE kind = 'blob' AND owner IS NULL AND digest IS NOT NULL AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.digest = g.digest)
    ORDER BY touched DESC`)
  return yield* call("read", `${root}/ingest`, () => rows.map((row): Partial => ({ ...row, size: look(absolute(root, row.path))?.size ?? 0 })))
})

/** Bytes of all blobs and (by their tars' headers) unpacked layers. */
export const stored = Effect.fnUntraced(function*({ db }: Shape) {
  const [row] = yield* db.rows(Total, db.sql`SELECT CAST((SELECT total(size) FROM blobs) + (SELECT total(size) FROM layers) AS INTEGER) AS total`)
  return row?.total ?? 0
})
