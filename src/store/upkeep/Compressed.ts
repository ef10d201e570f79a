import { Effect, Schema } from "effect"
import { renameSync } from "node:fs"
import { Digest } from "../../image/Digest.ts"
import * as Disk from "../disk/Disk.ts"
import { type Home, layerPath } from "../disk/Home.ts"
import { mark as markRemoval, removing } from "./Sweep.ts"
import { finish } from "./Collector.ts"

type Shape = Home["Service"]

/** A blob whose layer is unpacked too, so that it could be given up; `reason` says why it must not. */
export interface Compressed {
  readonly blob: Digest
  readonly size: number
  readonly diffId: Digest
  /** The layer's folder, and the SHA-256 of the digests of its files that are recorded there (`sums`), if they are. */
  readonly folder: string
  readonly sums: string | undefined
  /** The layer's files are known to survive a power loss. */
  readonly durable: boolean
  readonly reason: string | undefined
}

const Row = Schema.Struct({
  blob: Digest, size: Schema.Int, diff_id: Digest, sums: Schema.NullOr(Schema.String), state: Schema.String,
  known: Schema.Int, elsewhere: Schema.Int, held: Schema.Int
})

/** Whether a registry is remembered that has the blob `b`. A v1 registry knows no digests to fetch by. */
const known = `EXISTS (SELECT 1 FROM manifest_blobs q JOIN manifests m ON m.digest = q.manifest JOIN images i ON i.id = m.image
  JOIN origins o ON o.digest = q.manifest WHERE q.digest = b.digest AND i.kind <> 'v1')`

/** Every layer's blob whose layer is unpacked, the largest first. */
export const compressed = Effect.fn("Compressed.compressed")(function*({ db, root }: Shape) {
  const { sql } = db
  const rows = yield* db.rows(Row, sql`SELECT DISTINCT b.digest AS blob, b.size, l.diff_id, l.sums, l.state, ${sql.literal(known)} AS known,
      EXISTS (SELECT 1 FROM manifest_blobs q WHERE q.digest = b.digest AND (q.media_type LIKE '%foreign%' OR q.media_type LIKE '%nondistributable%')) AS elsewhere,
      EXISTS (SELECT 1 FROM leases WHERE digest = b.digest OR digest = l.diff_id) AS held
    FROM manifest_blobs p JOIN blobs b ON b.digest = p.digest AND b.state = 'ready' JOIN layers l ON l.diff_id = p.diff_id AND l.state <> 'deleting'
    WHERE p.role = 'layer' ORDER BY b.size DESC, b.digest`)
  return rows.map(({ blob, diff_id, elsewhere, held, known, size, state, sums }): Compressed => ({
    blob, size, diffId: diff_id, folder: layerPath(root, diff_id), sums: sums ?? undefined, durable: state === "durable",
    reason: known === 0 ? "nobody knows where it could be fetched again"
      : elsewhere === 1 ? "it came from another address than its registry, which is not remembered"
      : held === 1 ? "a running command holds it" : undefined
  }))
})

/** Puts the recorded digests of a layer's files, which are durable, beside the layer. Nothing counts on them before `giveUp`. */
export const keepSums = Effect.fn("Compressed.keepSums")(function*({ root }: Shape, diffId: Digest, file: string) {
  const folder = layerPath(root, diffId)
  yield* Disk.call("rename into place", `${folder}/sums`, () => renameSync(file, `${folder}/sums`))
  yield* Disk.syncFolder(folder)
})

/**
 * Gives up blobs of a layer whose files' digests are recorded: in one transaction the row says so and the blobs go, unless by now
 * someone else than `lease` holds them or the layer. Gives those that went.
 */
export const giveUp = Effect.fn("Compressed.giveUp")(function*(home: Shape, diffId: Digest, sums: string, blobs: ReadonlyArray<Digest>, lease: string) {
  const { db } = home
  const { sql } = db
  const Free = Schema.Struct({ digest: Digest })
  const gone = yield* db.transaction(Effect.gen(function*() {
    const removals = []
    for (const blob of blobs) {
      const [free] = yield* db.rows(Free, sql`SELECT digest FROM blobs b WHERE digest = ${blob} AND state = 'ready'
        AND EXISTS (SELECT 1 FROM layers WHERE diff_id = ${diffId} AND state = 'durable')
        AND ${sql.literal(known)}
        AND NOT EXISTS (SELECT 1 FROM leases WHERE digest IN (${blob}, ${diffId}) AND id <> ${lease})
        AND NOT EXISTS (SELECT 1 FROM ingests WHERE digest = ${blob} AND kind = 'blob')`)
      if (free !== undefined) removals.push(yield* markRemoval(home, "removal-blob", blob))
    }
    if (removals.length > 0) yield* db.run(sql`UPDATE layers SET sums = ${sums} WHERE diff_id = ${diffId}`)
    return removals
  }))
  yield* finish(home, gone)
  return gone.flatMap(({ digest }) => digest === null ? [] : [digest])
}, (self, home) => removing(home, self))

/** Forgets the recorded digests of a layer's files, which are not what they were. */
export const forgetSums = ({ db }: Shape, diffId: Digest) => db.run(db.sql`UPDATE layers SET sums = NULL WHERE diff_id = ${diffId}`)
