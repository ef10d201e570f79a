import { Effect, Schema } from "effect"
import { readdirSync } from "node:fs"
import { Digest } from "../../image/Digest.ts"
import { call } from "../disk/Disk.ts"
import { absolute, type Home, look } from "../disk/Home.ts"
import * as Quarantine from "./Quarantine.ts"
import { compressed } from "./Compressed.ts"
import type { Garbage } from "./Mark.ts"

type Shape = Home["Service"]

/** So many things of one kind and their bytes. */
export const Amount = Schema.Struct({ count: Schema.Int, size: Schema.Int })

/** What one image takes: its blobs and its unpacked layers, and of both what no other image needs, and what others need too. */
export const ImageUsage = Schema.Struct({
  id: Schema.String, names: Schema.Array(Schema.String), blobs: Schema.Int, layers: Schema.Int, unique: Schema.Int, shared: Schema.Int
})

/** What a store takes. Bytes of layers are the sums of their tars' header sizes. */
export const Usage = Schema.Struct({
  blobs: Amount,
  layers: Amount,
  /** Blobs that came in part. */
  partials: Amount,
  /** Blobs whose layer is unpacked too and that can be fetched again: what giving them up would free. */
  compressed: Amount,
  /** Layers that are here unpacked alone, by the bytes of the blob that is not. */
  unpackedAlone: Amount,
  /** What a repair put away. */
  quarantine: Amount,
  /** Of the blobs and layers: what the collector would take now. */
  reclaimable: Amount,
  /** graph.db and its log. */
  database: Schema.Int,
  images: Schema.Array(ImageUsage)
})

/** What a store takes. */
export type Usage = typeof Usage.Type

const ImageRow = Schema.Struct({
  id: Schema.String, names: Schema.NullOr(Schema.String), blobs: Schema.Int, layers: Schema.Int, unique_blobs: Schema.Int, unique_layers: Schema.Int
})
const PartialRow = Schema.Struct({ path: Schema.String })
const SizeRow = Schema.Struct({ digest: Digest, size: Schema.Int })

const amount = (rows: ReadonlyArray<{ readonly size: number }>) => ({ count: rows.length, size: rows.reduce((sum, { size }) => sum + size, 0) })

const distinct = (rows: ReadonlyArray<typeof SizeRow.Type>) => [...new Map(rows.map((row) => [row.digest, row])).values()]

/** What every image takes, by name. A few statements, linear in what the store holds. */
export const imageUsage = Effect.fnUntraced(function*({ db }: Shape) {
  const { sql } = db
  const rows = yield* db.rows(ImageRow, sql`WITH RECURSIVE
    blob_uses(image, digest, size) AS MATERIALIZED (SELECT DISTINCT m.image, b.digest, b.size FROM manifests m
      JOIN manifest_blobs p ON p.manifest = m.digest JOIN blobs b ON b.digest = p.digest AND b.state = 'ready'),
    blob_counts(digest, uses) AS MATERIALIZED (SELECT digest, count(*) FROM blob_uses GROUP BY digest),
    up(image, chain) AS (SELECT id, chain FROM images WHERE chain IS NOT NULL
      UNION SELECT up.image, c.parent FROM up JOIN chains c ON c.chain_id = up.chain WHERE c.parent IS NOT NULL),
    layer_uses(image, digest, size) AS MATERIALIZED (SELECT DISTINCT up.image, l.diff_id, l.size FROM up
      JOIN chains c ON c.chain_id = up.chain JOIN layers l ON l.diff_id = c.diff_id AND l.state <> 'deleting'),
    layer_counts(digest, uses) AS MATERIALIZED (SELECT digest, count(*) FROM layer_uses GROUP BY digest),
    blob_sums AS (SELECT u.image, sum(u.size) AS size, sum(CASE n.uses WHEN 1 THEN u.size ELSE 0 END) AS own
      FROM blob_uses u JOIN blob_counts n ON n.digest = u.digest GROUP BY u.image),
    layer_sums AS (SELECT u.image, sum(u.size) AS size, sum(CASE n.uses WHEN 1 THEN u.size ELSE 0 END) AS own
      FROM layer_uses u JOIN layer_counts n ON n.digest = u.digest GROUP BY u.image),
    names AS (SELECT image, group_concat(name || CASE WHEN instr(reference, ':') > 0 THEN '@' ELSE ':' END || reference, ' ') AS names
      FROM tags GROUP BY image)
    SELECT i.id, names.names, coalesce(b.size, 0) AS blobs, coalesce(l.size, 0) AS layers,
      coalesce(b.own, 0) AS unique_blobs, coalesce(l.own, 0) AS unique_layers
    FROM images i LEFT JOIN blob_sums b ON b.image = i.id LEFT JOIN layer_sums l ON l.image = i.id LEFT JOIN names ON names.image = i.id
    ORDER BY names.names IS NULL, names.names, i.id`)
  return rows.map(({ id, names, ...row }): typeof ImageUsage.Type => {
    const unique = row.unique_blobs + row.unique_layers
    return { id, names: names?.split(" ").sort() ?? [], blobs: row.blobs, layers: row.layers, unique, shared: row.blobs + row.layers - unique }
  })
})

/** What the store takes; `garbage` is what nothing keeps. */
export const usage = Effect.fn("Usage.usage")(function*(home: Shape, garbage: Garbage) {
  const { db, root } = home
  const { sql } = db
  const [blobs] = yield* db.rows(Amount, sql`SELECT count(*) AS count, CAST(total(size) AS INTEGER) AS size FROM blobs`)
  const [layers] = yield* db.rows(Amount, sql`SELECT count(*) AS count, CAST(total(size) AS INTEGER) AS size FROM layers`)
  const waiting = yield* db.rows(PartialRow, sql`SELECT path FROM ingests WHERE kind = 'blob'`)
  const [partials, database] = yield* call("read", root, () => [
    amount(waiting.map(({ path }) => ({ size: look(absolute(root, path))?.size ?? 0 }))),
    readdirSync(root).filter((name) => name.startsWith("graph.db")).reduce((sum, name) => sum + (look(`${root}/${name}`)?.size ?? 0), 0)
  ] as const)
  const images = yield* imageUsage(home)
  const unused = amount(distinct([...garbage.blobs, ...garbage.layers, ...garbage.orphanBlobs, ...garbage.orphanLayers]))
  const none = { count: 0, size: 0 }
  const both = (yield* compressed(home)).filter(({ reason }) => reason === undefined).map(({ blob, size }) => ({ digest: blob, size }))
  const [alone] = yield* db.rows(Amount, sql`SELECT count(*) AS count, CAST(total(size) AS INTEGER) AS size FROM (
    SELECT DISTINCT p.digest, p.size FROM manifest_blobs p JOIN layers l ON l.diff_id = p.diff_id AND l.state <> 'deleting'
      WHERE p.role = 'layer' AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = p.digest AND b.state = 'ready'))`)
  const whole: Usage = {
    blobs: blobs ?? none, layers: layers ?? none, partials, compressed: amount(distinct(both)), unpackedAlone: alone ?? none,
    quarantine: amount(yield* Quarantine.list(home)), reclaimable: unused, database,
    images
  }
  return whole
})
