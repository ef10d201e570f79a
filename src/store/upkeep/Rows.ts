import { Clock, Effect, Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import { Digest } from "../../image/Digest.ts"
import * as ImageConfig from "../../image/ImageConfig.ts"
import * as Manifest from "../../image/Manifest.ts"
import * as Platform from "../../image/Platform.ts"
import { call, type StoreError, unlessAbsent } from "../Disk.ts"
import { blobPath, type Home } from "../Home.ts"

type Shape = Home["Service"]

const ManifestRow = Schema.Struct({
  digest: Digest, media_type: Schema.String, size: Schema.Int, image: Schema.String, latest: Schema.String,
  config_type: Schema.String, config_digest: Schema.String, platform: Schema.String, created: Schema.NullOr(Schema.String), artifact: Schema.NullOr(Schema.String)
})
const PartRow = Schema.Struct({
  role: Schema.String, position: Schema.Int, digest: Schema.String, media_type: Schema.String, size: Schema.Int, diff_id: Schema.NullOr(Schema.String)
})
const TagRow = Schema.Struct({
  name: Schema.String, reference: Schema.String, image: Schema.NullOr(Schema.String), manifest: Schema.NullOr(Schema.String), target: Schema.NullOr(Schema.String),
  logged_image: Schema.NullOr(Schema.String), logged_manifest: Schema.NullOr(Digest), logged_target: Schema.NullOr(Schema.String)
})
const Since = Schema.Struct({ at: Schema.Int, name: Schema.String, reference: Schema.String })

/** Rows of one manifest, or one tag, that are not what documents and the log say; `mend` writes them so, in a transaction. */
export interface Wrong {
  readonly subject: string
  readonly detail: string
  readonly mend: Effect.Effect<void, StoreError>
}

const documentCap = 4 * 1024 * 1024

/** A blob's bytes, if they are there; whether they are right is said elsewhere. */
const bytesOf = (root: string, digest: Digest) => {
  const path = blobPath(root, digest)
  return call("read", path, () => unlessAbsent(() => readFileSync(path)))
}

const text = (value: unknown) => JSON.stringify(value)

/** The rows of one manifest against the manifest and its config, as far as both are there and are what they should be. */
const manifestRows = Effect.fnUntraced(function*({ db, root }: Shape, row: typeof ManifestRow.Type) {
  const { sql } = db
  const raw = yield* bytesOf(root, row.digest)
  if (raw === undefined || raw.byteLength > documentCap) return undefined
  const manifest = Manifest.decode(raw)
  if (Result.isFailure(manifest) || manifest.success._tag !== "Image") return undefined
  const { config, layers, mediaType } = manifest.success
  const artifact = Manifest.artifactOf(manifest.success)
  const configRaw = artifact === undefined ? yield* bytesOf(root, config.digest) : undefined
  const decoded = configRaw === undefined ? undefined : ImageConfig.decode(configRaw)
  if (artifact === undefined && (decoded === undefined || Result.isFailure(decoded))) return undefined
  const image = decoded === undefined ? undefined : Result.getOrUndefined(decoded)
  const should = [
    { role: "config", position: 0, digest: config.digest, media_type: config.mediaType, size: config.size, diff_id: null },
    ...layers.map(({ digest, mediaType, size }, position) => ({ role: "layer", position, digest, media_type: mediaType, size, diff_id: image?.rootfs.diffIds[position] ?? null })),
    { role: "manifest", position: 0, digest: row.digest, media_type: mediaType, size: raw.byteLength, diff_id: null }
  ]
  const is = yield* db.rows(PartRow, sql`SELECT role, position, digest, media_type, size, diff_id FROM manifest_blobs
    WHERE manifest = ${row.digest} AND role <> 'index' ORDER BY role, position`)
  const own = row.latest === row.digest
  // Only the index that an artifact came in says what it is for.
  const facts = image === undefined
    ? { config_type: mediaType, config_digest: row.digest, platform: row.platform, created: null, artifact: artifact ?? null }
    : { config_type: config.mediaType, config_digest: config.digest, platform: Platform.print(image.platform), created: image.created ?? null, artifact: null }
  const right = text(is) === text(should) && row.size === raw.byteLength && row.media_type === mediaType
    && (!own || text([row.config_type, row.config_digest, row.platform, row.created, row.artifact]) === text(Object.values(facts)))
  if (right) return undefined
  const mend = db.transaction(Effect.gen(function*() {
    yield* db.run(sql`DELETE FROM manifest_blobs WHERE manifest = ${row.digest} AND role <> 'index'`)
    for (const part of should) yield* db.run(sql`INSERT INTO manifest_blobs ${sql.insert({ manifest: row.digest, ...part })}`)
    yield* db.run(sql`UPDATE manifests SET size = ${raw.byteLength}, media_type = ${mediaType} WHERE digest = ${row.digest}`)
    if (own) yield* db.run(sql`UPDATE images SET ${sql.update(facts)} WHERE id = ${row.image}`)
  }))
  const wrong: Wrong = { subject: row.digest, detail: "what the store lists of it and its image is not what the manifest and its config say", mend }
  return wrong
})

/** Tags against the last change that the log has of each. */
const tagRows = Effect.fnUntraced(function*({ db }: Shape) {
  const { sql } = db
  const rows = yield* db.rows(TagRow, sql`WITH last AS (SELECT max(id) AS id FROM tag_log GROUP BY name, reference),
      logged AS (SELECT l.name, l.reference, l.new_image AS image, l.manifest, l.target FROM last JOIN tag_log l ON l.id = last.id)
    SELECT t.name, t.reference, t.image, t.manifest, t.target, l.image AS logged_image, l.manifest AS logged_manifest, l.target AS logged_target
      FROM tags t LEFT JOIN logged l ON l.name = t.name AND l.reference = t.reference JOIN images i ON i.id = t.image
      WHERE l.image IS NOT t.image OR l.manifest IS NOT t.manifest OR (l.target IS NOT NULL AND l.target <> t.target)
    UNION ALL SELECT l.name, l.reference, NULL, NULL, NULL, l.image, l.manifest, l.target FROM logged l
      JOIN images i ON i.id = l.image JOIN manifests m ON m.digest = l.manifest
      WHERE NOT EXISTS (SELECT 1 FROM tags t WHERE t.name = l.name AND t.reference = l.reference)`)
  return rows.map(({ image, logged_image, logged_manifest, logged_target, manifest, name, reference, target }): Wrong => {
    const now = { image: logged_image, manifest: logged_manifest, target: logged_target ?? logged_manifest }
    const mend = Effect.gen(function*() {
      const at = yield* Clock.currentTimeMillis
      // What the log does not know stays as it is, and is logged.
      if (logged_image === null) {
        return yield* db.run(sql`INSERT INTO tag_log ${sql.insert({ at, name, reference, new_image: image, manifest, target })}`)
      }
      const [since] = yield* db.rows(Since, sql`SELECT at, name, reference FROM tag_log WHERE name = ${name} AND reference = ${reference} ORDER BY id DESC LIMIT 1`)
      yield* db.run(sql`INSERT INTO tags ${sql.insert({ name, reference, ...now, since: since?.at ?? at })}
        ON CONFLICT (name, reference) DO UPDATE SET image = excluded.image, manifest = excluded.manifest, target = excluded.target`)
    })
    return { subject: `${name}:${reference}`, detail: image === null ? "the log knows this tag, and it is gone" : "it does not name what the log says", mend: db.transaction(mend) }
  })
})

/**
 * Every row that documents or the log contradict. Manifests that were generated for images of the old graph are not looked at:
 * their rows say what their layers came as. Linear: each manifest and config is read once.
 */
export const wrong = Effect.fn("Rows.wrong")(function*(home: Shape) {
  const { db } = home
  const rows = yield* db.rows(ManifestRow, db.sql`SELECT m.digest, m.media_type, m.size, m.image, i.manifest AS latest, i.config_type, i.config_digest,
    i.platform, i.created, i.artifact FROM manifests m JOIN images i ON i.id = m.image WHERE i.kind IN ('oci', 'schema2') ORDER BY m.digest`)
  const found: Array<Wrong> = []
  for (const row of rows) {
    const one = yield* manifestRows(home, row)
    if (one !== undefined) found.push(one)
  }
  return [...found, ...yield* tagRows(home)]
})
