import { Clock, Duration, Effect, Schema } from "effect"
import { Descriptor } from "../../image/Descriptor.ts"
import { Digest } from "../../image/Digest.ts"
import type { Home } from "../disk/Home.ts"
import { grace } from "../upkeep/Mark.ts"

type Shape = Home["Service"]

/**
 * What a v1 registry called a layer: its own URL, the repository it was asked for, the image's ID, and a digest of all it told of the
 * layer (the image's JSON, the layer's length and checksums). None of it is made from the layer's bytes.
 */
export interface V1Name {
  readonly endpoint: string
  readonly repository: string
  readonly image: string
  readonly told: string
}

/** The layer that was received under such a name: the blob it is kept as, and its diff ID. */
export interface V1Layer {
  readonly blob: Descriptor
  readonly diffId: Digest
}

const Row = Schema.Struct({ blob: Digest, media_type: Schema.String, size: Schema.Int, diff_id: Digest })

/** Notes what came under a name, in place of what came before: until its image is registered, a pull that begins again knows it by that. */
export const note = Effect.fn("V1Layers.note")(function*({ db }: Shape, name: V1Name, { blob, diffId }: V1Layer) {
  const at = yield* Clock.currentTimeMillis
  const row = { ...name, blob: blob.digest, media_type: blob.mediaType, size: blob.size, diff_id: diffId, at }
  yield* db.run(db.sql`INSERT INTO v1_layers ${db.sql.insert(row)} ON CONFLICT (endpoint, repository, image) DO UPDATE SET
    told = excluded.told, blob = excluded.blob, media_type = excluded.media_type, size = excluded.size, diff_id = excluded.diff_id, at = excluded.at`)
})

/** What came under a name, if that is no longer ago than what no image names is kept; the blob may be gone. */
export const noted = Effect.fn("V1Layers.noted")(function*({ db }: Shape, { endpoint, image, repository, told }: V1Name) {
  const since = (yield* Clock.currentTimeMillis) - Duration.toMillis(grace)
  const [row] = yield* db.rows(Row, db.sql`SELECT blob, media_type, size, diff_id FROM v1_layers
    WHERE endpoint = ${endpoint} AND repository = ${repository} AND image = ${image} AND told = ${told} AND at > ${since}`)
  if (row === undefined) return undefined
  const layer: V1Layer = { blob: new Descriptor({ mediaType: row.media_type, digest: row.blob, size: row.size }), diffId: row.diff_id }
  return layer
})

/** The image is registered: its own row says what its layer is. */
export const settle = ({ db }: Shape, image: string) => db.run(db.sql`DELETE FROM v1_layers WHERE image = ${image}`)

/** Forgets what came before `at`, and what is no longer there; not what a pull has just noted and is about to store. */
export const tidy = ({ db }: Shape, at: number) => db.run(db.sql`DELETE FROM v1_layers
  WHERE (at <= ${at} OR NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = blob AND b.state = 'ready')) AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.digest = blob)`)
