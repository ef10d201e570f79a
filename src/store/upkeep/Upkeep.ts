import { Clock, Context, Effect, Layer, Schema } from "effect"
import { createHash } from "node:crypto"
import { chmodSync, constants, readFileSync } from "node:fs"
import { Digest, is, parts } from "../../image/Digest.ts"
import { Hasher } from "./Check.ts"
import * as Disk from "../disk/Disk.ts"
import type { StoreError } from "../disk/Disk.ts"
import { chainIds } from "../Graph.ts"
import { blobPath, Home, layerPath, look } from "../disk/Home.ts"
import * as Compressed from "./Compressed.ts"
import * as Rows from "./Rows.ts"
import { list, putAway, type PutAway, quarantine } from "./Quarantine.ts"

type Shape = Home["Service"]

/** An unpacked layer, what its row says of its tar, and the blobs in the store that hold it. */
export interface KeptLayer {
  readonly diffId: Digest
  readonly folder: string
  readonly size: number
  readonly entries: number
  /** The SHA-256 of the digests of its files that are recorded beside it (`sums`), if they are. */
  readonly sums: string | undefined
  readonly blobs: ReadonlyArray<{ readonly digest: Digest; readonly size: number }>
}

const SourceRow = Schema.Struct({
  role: Schema.Literals(["manifest", "config", "layer", "index"]), media_type: Schema.String, size: Schema.Int, diff_id: Schema.NullOr(Digest),
  repository: Schema.NullOr(Schema.String)
})

/** What is known of a blob that is gone or damaged: what it is to an image, and a repository (`docker.io/library/x`) that had it. */
export type Source = typeof SourceRow.Type

const LayerRow = Schema.Struct({ diff_id: Digest, size: Schema.Int, entries: Schema.Int, sums: Schema.NullOr(Schema.String) })
const BlobRow = Schema.Struct({ diff_id: Digest, digest: Digest, size: Schema.Int })
const ConfigRow = Schema.Struct({ config: Schema.Uint8Array })
const WantedRow = Schema.Struct({
  digest: Digest, media_type: Schema.String, size: Schema.Int, repository: Schema.NullOr(Schema.String), there: Schema.Int
})
const ImageRow = Schema.Struct({ id: Schema.String, config_digest: Digest })

/** A blob that holds a layer: whether the store has it, and a repository that had it. */
export interface Wanted {
  readonly digest: Digest
  readonly media_type: string
  readonly size: number
  readonly repository: string | null
  readonly stored: boolean
}

const layers = Effect.fn("Upkeep.layers")(function*({ db, root }: Shape) {
  const { sql } = db
  const rows = yield* db.rows(LayerRow, sql`SELECT diff_id, size, entries, sums FROM layers WHERE state <> 'deleting' ORDER BY size DESC, diff_id`)
  const holders = new Map<Digest, Array<{ readonly digest: Digest; readonly size: number }>>()
  const found = yield* db.rows(BlobRow, sql`SELECT w.diff_id, b.digest, b.size FROM (
      SELECT blob, diff_id FROM layer_blobs UNION SELECT digest AS blob, diff_id FROM manifest_blobs WHERE diff_id IS NOT NULL
    ) w JOIN blobs b ON b.digest = w.blob AND b.state = 'ready' ORDER BY b.size, b.digest`)
  for (const { diff_id, digest, size } of found) holders.set(diff_id, [...holders.get(diff_id) ?? [], { digest, size }])
  return rows.map(({ diff_id, entries, size, sums }): KeptLayer =>
    ({ diffId: diff_id, folder: layerPath(root, diff_id), size, entries, sums: sums ?? undefined, blobs: holders.get(diff_id) ?? [] }))
})

const sources = Effect.fn("Upkeep.sources")(function*({ db }: Shape, digest: Digest) {
  return yield* db.rows(SourceRow, db.sql`SELECT DISTINCT p.role, p.media_type, p.size, p.diff_id, o.repository
    FROM manifest_blobs p LEFT JOIN origins o ON o.digest = p.manifest WHERE p.digest = ${digest} ORDER BY o.at DESC, o.repository`)
})

const blobsOf = Effect.fn("Upkeep.blobsOf")(function*({ db }: Shape, diffId: Digest) {
  const rows = yield* db.rows(WantedRow, db.sql`SELECT DISTINCT w.digest, w.media_type, w.size, w.repository,
      EXISTS (SELECT 1 FROM blobs b WHERE b.digest = w.digest AND b.state = 'ready') AS there
    FROM (
      SELECT p.digest, p.media_type, p.size, o.repository FROM manifest_blobs p LEFT JOIN origins o ON o.digest = p.manifest WHERE p.diff_id = ${diffId}
      UNION SELECT blob, media_type, size, NULL FROM layer_blobs WHERE diff_id = ${diffId}
    ) w ORDER BY w.repository IS NULL, w.size`)
  return rows.map(({ there, ...row }): Wanted => ({ ...row, stored: there === 1 }))
})

const ChainRow = Schema.Struct({ manifest: Digest, image: Schema.String, diff_ids: Schema.String })
const TagRow = Schema.Struct({ name: Schema.String, reference: Schema.String, image: Schema.String })
const IdRow = Schema.Struct({ id: Schema.String })

const mendRows = Effect.fn("Upkeep.mendRows")(function*({ db }: Shape) {
  const { sql } = db
  return yield* db.transaction(Effect.gen(function*() {
    yield* db.run(sql`PRAGMA defer_foreign_keys = ON`)
    const stacks = yield* db.rows(ChainRow, sql`SELECT p.manifest, m.image, group_concat(p.diff_id, ' ') AS diff_ids FROM (
        SELECT manifest, diff_id FROM manifest_blobs WHERE role = 'layer' AND diff_id IS NOT NULL ORDER BY manifest, position
      ) p JOIN manifests m ON m.digest = p.manifest GROUP BY p.manifest`)
    for (const { image, diff_ids, manifest } of stacks) {
      const diffIds = diff_ids.split(" ").filter(is)
      const chains = chainIds(diffIds)
      for (const [index, diff_id] of diffIds.entries()) {
        const row = { chain_id: chains[index] ?? diff_id, parent: chains[index - 1] ?? null, diff_id }
        yield* db.run(sql`INSERT INTO chains ${sql.insert(row)} ON CONFLICT (chain_id) DO UPDATE SET parent = excluded.parent, diff_id = excluded.diff_id`)
      }
      yield* db.run(sql`UPDATE images SET chain = ${chains.at(-1) ?? null} WHERE id = ${image} AND manifest = ${manifest}`)
    }
    const tags = yield* db.rows(TagRow, sql`DELETE FROM tags WHERE NOT EXISTS (SELECT 1 FROM images i WHERE i.id = tags.image)
      OR NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = tags.manifest) RETURNING name, reference, image`)
    const at = yield* Clock.currentTimeMillis
    for (const { image, name, reference } of tags) {
      yield* db.run(sql`INSERT INTO tag_log ${sql.insert({ at, name, reference, old_image: image, new_image: null })}`)
    }
    yield* db.run(sql`DELETE FROM manifests WHERE NOT EXISTS (SELECT 1 FROM images i WHERE i.id = manifests.image)`)
    for (const table of ["manifest_blobs", "resolutions"]) {
      yield* db.run(sql`DELETE FROM ${sql(table)} WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = ${sql(table)}.manifest)`)
    }
    const images = yield* db.rows(IdRow, sql`UPDATE images SET parent = NULL
      WHERE parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM images p WHERE p.id = images.parent) RETURNING id`)
    // A chain that something damaged stands on, and no image: it, and those above it.
    for (;;) {
      const gone = yield* db.rows(IdRow, sql`DELETE FROM chains WHERE parent IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM chains c WHERE c.chain_id = chains.parent) AND NOT EXISTS (SELECT 1 FROM images i WHERE i.chain = chains.chain_id)
        RETURNING chain_id AS id`)
      if (gone.length === 0) break
    }
    return [
      ...tags.map(({ image, name, reference }) => `the tag ${name} ${reference}, which named ${image}`),
      ...images.map(({ id }) => `the parent of the image ${id}`)
    ]
  }))
})

const make = Effect.gen(function*() {
  const home = yield* Home
  const { db, root } = home
  const { sql } = db
  const { hash } = yield* Hasher
  return {
    root,
    layers: layers(home),
    compressed: Compressed.compressed(home),
    keepSums: (diffId: Digest, file: string) => Compressed.keepSums(home, diffId, file),
    giveUp: (diffId: Digest, sums: string, blobs: ReadonlyArray<Digest>, lease: string) => Compressed.giveUp(home, diffId, sums, blobs, lease),
    forgetSums: (diffId: Digest) => Compressed.forgetSums(home, diffId),
    sources: (digest: Digest) => sources(home, digest),
    blobsOf: (diffId: Digest) => blobsOf(home, diffId),
    quarantine: (kind: "blob" | "layer", digest: Digest) => quarantine(home, kind, digest),
    configOf: Effect.fn("Upkeep.configOf")(function*(digest: Digest) {
      const [row] = yield* db.rows(ConfigRow, sql`SELECT config FROM images WHERE config_digest = ${digest}`)
      return row?.config
    }),
    adopt: Effect.fn("Upkeep.adopt")(function*(digest: Digest) {
      const path = blobPath(root, digest)
      const since = yield* Clock.currentTimeMillis
      const size = (yield* Disk.call("read", path, () => look(path)))?.size
      if (size !== undefined) yield* db.run(sql`INSERT INTO blobs ${sql.insert({ digest, size, state: "ready", since })} ON CONFLICT (digest) DO NOTHING`)
    }),
    correct: (diffId: Digest, facts: { readonly size: number; readonly entries: number }) =>
      db.run(sql`UPDATE layers SET size = ${facts.size}, entries = ${facts.entries} WHERE diff_id = ${diffId}`),
    disown: (blob: Digest, diffId: Digest) => db.run(sql`DELETE FROM layer_blobs WHERE blob = ${blob} AND diff_id = ${diffId}`),
    settled: (diffId: Digest) => db.run(sql`UPDATE layers SET state = 'durable' WHERE diff_id = ${diffId} AND state = 'unsynced'`),
    holds: Effect.fn("Upkeep.holds")(function*(path: string, digest: Digest) {
      const { algorithm, hex } = parts(digest)
      const stat = yield* Disk.call("read", path, () => look(path))
      if (stat?.isFile() !== true) return false
      return (yield* Effect.scoped(Effect.flatMap(Disk.open(path, constants.O_RDONLY), (fd) => hash(fd, stat.size, algorithm, path)))) === hex
    }),
    mendConfig: Effect.fn("Upkeep.mendConfig")(function*(id: string) {
      const [row] = yield* db.rows(ImageRow, sql`SELECT id, config_digest FROM images WHERE id = ${id}`)
      if (row === undefined) return false
      const path = blobPath(root, row.config_digest)
      const { algorithm, hex } = parts(row.config_digest)
      const bytes = yield* Disk.call("read", path, () => Disk.unlessAbsent(() => readFileSync(path)))
      if (bytes === undefined || createHash(algorithm).update(bytes).digest("hex") !== hex) return false
      yield* db.run(sql`UPDATE images SET config = ${bytes} WHERE id = ${id}`)
      return true
    }),
    putAway: (path: string) => putAway(home, path),
    quarantined: list(home),
    mendRows: mendRows(home),
    rewrite: Effect.flatMap(Rows.wrong(home), Effect.forEach(({ mend = Effect.void }) => mend, { discard: true })),
    close: (path: string) => Disk.call("change the mode of", path, () => {
      const stat = look(path)
      if (stat !== undefined) chmodSync(path, stat.mode & 0o700)
    })
  }
})

/** What checks and mends the store from outside: it knows where things came from, and puts damaged ones away. */
export class Upkeep extends Context.Service<Upkeep, {
  /** The store's absolute path. */
  readonly root: string
  /** Every unpacked layer, the largest first. */
  readonly layers: Effect.Effect<ReadonlyArray<KeptLayer>, StoreError>
  /** Every layer's blob whose layer is unpacked too, the largest first. */
  readonly compressed: Effect.Effect<ReadonlyArray<Compressed.Compressed>, StoreError>
  /** Puts a durable file with the digests of a layer's files beside the layer. */
  readonly keepSums: (diffId: Digest, file: string) => Effect.Effect<void, StoreError>
  /** Removes blobs of a layer whose files' digests are recorded, unless someone else than `lease` holds them. Gives those that went. */
  readonly giveUp: (diffId: Digest, sums: string, blobs: ReadonlyArray<Digest>, lease: string) => Effect.Effect<ReadonlyArray<Digest>, StoreError>
  /** Forgets the recorded digests of a layer's files, which are not what they were. */
  readonly forgetSums: (diffId: Digest) => Effect.Effect<void, StoreError>
  /** What a blob is to the images that need it, and where they came from, the latest first. */
  readonly sources: (digest: Digest) => Effect.Effect<ReadonlyArray<Source>, StoreError>
  /** The blobs a layer came in, stored or not, and where from. */
  readonly blobsOf: (diffId: Digest) => Effect.Effect<ReadonlyArray<Wanted>, StoreError>
  /** Puts a damaged blob or layer away: the store has it no more. Gives where it is now, if anything was there. */
  readonly quarantine: (kind: "blob" | "layer", digest: Digest) => Effect.Effect<string | undefined, StoreError>
  /** The bytes of an image's config as its row keeps them; not verified. */
  readonly configOf: (digest: Digest) => Effect.Effect<Uint8Array | undefined, StoreError>
  /** Lists a file in blobs/ whose bytes were found to have its digest. */
  readonly adopt: (digest: Digest) => Effect.Effect<void, StoreError>
  /** Writes what a layer's tar was found to be into its row. */
  readonly correct: (diffId: Digest, facts: { readonly size: number; readonly entries: number }) => Effect.Effect<void, StoreError>
  /** Forgets that a blob holds a layer, as it does not. */
  readonly disown: (blob: Digest, diffId: Digest) => Effect.Effect<void, StoreError>
  /** A layer's files are known to be durable. */
  readonly settled: (diffId: Digest) => Effect.Effect<void, StoreError>
  /** Whether a file's bytes have this digest. */
  readonly holds: (path: string, digest: Digest) => Effect.Effect<boolean, StoreError>
  /** Writes an image's config into its row again, from its blob; false if that is not there, or damaged too. */
  readonly mendConfig: (id: string) => Effect.Effect<boolean, StoreError>
  /** Puts something in the store's folders away that the store does not list. Gives where it is now. */
  readonly putAway: (path: string) => Effect.Effect<string, StoreError>
  /** What was put away and not removed yet, the latest first. */
  readonly quarantined: Effect.Effect<ReadonlyArray<PutAway>, StoreError>
  /**
   * Writes chains again from the layers of manifests, and removes rows that name what is not there: tags, manifests, images.
   * Gives what was removed, in words.
   */
  readonly mendRows: Effect.Effect<ReadonlyArray<string>, StoreError>
  /** Writes rows that manifests, configs or the tag log contradict again as these say. */
  readonly rewrite: Effect.Effect<void, StoreError>
  /** Takes everyone else's permissions on a file or folder of the store away. */
  readonly close: (path: string) => Effect.Effect<void, StoreError>
}>()("store/Upkeep") {
  static readonly layer: Layer.Layer<Upkeep, never, Home> = Layer.effect(Upkeep, make)
}
