import { Clock, Effect, Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import { Digest } from "../../image/Digest.ts"
import * as ImageConfig from "../../image/ImageConfig.ts"
import * as Manifest from "../../image/Manifest.ts"
import * as MediaType from "../../image/MediaType.ts"
import * as Platform from "../../image/Platform.ts"
import { call, type StoreError, unlessAbsent } from "../disk/Disk.ts"
import { blobPath, type Home } from "../disk/Home.ts"
import * as OldRows from "./OldRows.ts"

type Shape = Home["Service"]

const ManifestRow = Schema.Struct({
  digest: Digest, media_type: Schema.String, size: Schema.Int, image: Schema.String, latest: Schema.String, kind: Schema.String,
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

/** Rows that are not what documents and the log say; `mend` writes them so, in a transaction, if these tell how they should be. */
export interface Wrong {
  readonly subject: string
  readonly detail: string
  readonly mend: Effect.Effect<void, StoreError> | undefined
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
  const old = row.kind === "schema1" || row.kind === "v1"
  const rows = yield* db.rows(PartRow, sql`SELECT role, position, digest, media_type, size, diff_id FROM manifest_blobs
    WHERE manifest = ${row.digest} AND role <> 'index' ORDER BY role, position`)
  // The manifest of an old image was generated, in OCI's words; the rows keep what the layers came as. Its config is its JSON.
  const is = old ? rows.map((part) => ({ ...part, media_type: MediaType.asOci(part.media_type) })) : rows
  const own = row.latest === row.digest
  // Only the index that an artifact came in says what it is for.
  const named = image === undefined ? { platform: row.platform, created: null, artifact: artifact ?? null }
    : { platform: Platform.print(image.platform), created: image.created ?? null, artifact: null }
  const facts = old ? { config_type: "application/json", ...named }
    : image === undefined ? { config_type: mediaType, config_digest: row.digest, ...named }
    : { config_type: config.mediaType, config_digest: config.digest, ...named }
  const has = [row.config_type, ...old ? [] : [row.config_digest], row.platform, row.created, row.artifact]
  const right = text(is) === text(should) && row.size === raw.byteLength && row.media_type === mediaType
    && (!own || text(has) === text(Object.values(facts)))
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

const IndexRow = Schema.Struct({ manifest: Digest, kind: Schema.String, digest: Digest, media_type: Schema.String, size: Schema.Int })

/** The documents that led to a manifest: each an index that names it, or another of them; of a schema1 image what was signed, and the whole. */
const indexRows = Effect.fnUntraced(function*({ db, root }: Shape) {
  const { sql } = db
  const rows = yield* db.rows(IndexRow, sql`SELECT p.manifest, i.kind, p.digest, p.media_type, p.size FROM manifest_blobs p
    JOIN manifests m ON m.digest = p.manifest JOIN images i ON i.id = m.image WHERE p.role = 'index' ORDER BY p.manifest, p.position`)
  const found: Array<Wrong> = []
  const documents = new Map<Digest, { readonly mediaType: string; readonly size: number; readonly names: ReadonlySet<string> } | undefined>()
  for (const digest of new Set(rows.map(({ digest }) => digest))) {
    const raw = yield* bytesOf(root, digest)
    const decoded = raw === undefined || raw.byteLength > documentCap ? undefined : Result.getOrUndefined(Manifest.decode(raw))
    documents.set(digest, raw === undefined || decoded?._tag !== "Index" ? undefined
      : { mediaType: decoded.mediaType, size: raw.byteLength, names: new Set(decoded.manifests.map(({ digest }) => digest)) })
  }
  const others = new Map<Digest, Array<Digest>>()
  for (const { digest, manifest } of rows) others.set(manifest, [...others.get(manifest) ?? [], digest])
  for (const row of rows) {
    const mine = sql`manifest = ${row.manifest} AND role = 'index' AND digest = ${row.digest}`
    if (row.kind === "schema1" || row.kind === "v1") {
      const size = (yield* bytesOf(root, row.digest))?.byteLength ?? row.size
      if (size === row.size && (row.media_type === MediaType.schema1 || row.media_type === MediaType.schema1Signed)) continue
      const should = { media_type: row.media_type === MediaType.schema1 ? row.media_type : MediaType.schema1Signed, size }
      found.push({ subject: row.manifest, detail: `what the store lists of its document ${row.digest} is not what that is`, mend: db.run(sql`UPDATE manifest_blobs SET ${sql.update(should)} WHERE ${mine}`) })
      continue
    }
    const document = documents.get(row.digest)
    if (document === undefined) continue // that it is gone or damaged is said elsewhere
    const leads = [row.manifest, ...others.get(row.manifest) ?? []].some((digest) => document.names.has(digest))
    if (leads && document.size === row.size && document.mediaType === row.media_type) continue
    const { mediaType, size } = document
    found.push({
      subject: row.manifest, detail: leads ? `what the store lists of the index ${row.digest} is not what that is` : `the index ${row.digest} does not name it`,
      mend: db.run(leads ? sql`UPDATE manifest_blobs SET ${sql.update({ media_type: mediaType, size })} WHERE ${mine}` : sql`DELETE FROM manifest_blobs WHERE ${mine}`)
    })
  }
  return found
})

const StrayRow = Schema.Struct({ id: Schema.String, manifest: Schema.NullOr(Digest) })
const ResolutionRow = Schema.Struct({ target: Schema.String, wanted: Schema.String, manifest: Digest })
const OriginRow = Schema.Struct({ digest: Schema.String, repository: Schema.String, endpoint: Schema.String, reason: Schema.String })
const LostRow = Schema.Struct({ digest: Digest, repository: Schema.String, endpoint: Schema.String, at: Schema.Int })
const HolderRow = Schema.Struct({ blob: Digest, diff_id: Schema.String, media_type: Schema.String, size: Schema.Int, blob_size: Schema.NullOr(Schema.Int), listed: Schema.NullOr(Schema.String) })

/** Which image was chosen out of what, where images came from, and what blobs were found to hold: each says something that other rows say too. */
const otherRows = Effect.fnUntraced(function*({ db }: Shape) {
  const { sql } = db
  const found: Array<Wrong> = []
  for (const { manifest, target, wanted } of yield* db.rows(ResolutionRow, sql`SELECT target, wanted, manifest FROM resolutions r
    WHERE target <> manifest AND NOT EXISTS (SELECT 1 FROM manifest_blobs p WHERE p.manifest = r.manifest AND p.role = 'index' AND p.digest = r.target)`)) {
    found.push({
      subject: manifest, detail: `it is said to be chosen for ${wanted} out of ${target}, which does not lead to it`,
      mend: db.run(sql`DELETE FROM resolutions WHERE target = ${target} AND wanted = ${wanted}`)
    })
  }
  for (const { wanted, target, manifest } of yield* db.rows(ResolutionRow, sql`SELECT target, wanted, manifest FROM resolutions`)) {
    const platform = Platform.parse(wanted)
    if (Result.isSuccess(platform) && Platform.print(platform.success) === wanted) continue
    found.push({ subject: manifest, detail: `it is said to be chosen for ${wanted}, which is no platform`, mend: db.run(sql`DELETE FROM resolutions WHERE target = ${target} AND wanted = ${wanted}`) })
  }
  for (const { id, manifest } of yield* db.rows(StrayRow, sql`SELECT i.id, (SELECT digest FROM manifests m WHERE m.image = i.id ORDER BY digest LIMIT 1) AS manifest FROM images i
    WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = i.manifest AND m.image = i.id)`)) {
    found.push({
      subject: id, detail: "the manifest that it is said to have is another's, or none",
      mend: manifest === null ? undefined : db.run(sql`UPDATE images SET manifest = ${manifest} WHERE id = ${id}`)
    })
  }
  const origins = yield* db.rows(OriginRow, sql`SELECT digest, repository, endpoint, CASE
      WHEN NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = o.digest) THEN 'the manifest is not in the store'
      WHEN EXISTS (SELECT 1 FROM tag_log l WHERE l.manifest = o.digest AND l.endpoint IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM tag_log l WHERE l.name = o.repository)
        THEN 'the log knows it by other names alone'
      WHEN endpoint NOT GLOB 'http*://*' THEN 'it was asked at no address' ELSE '' END AS reason FROM origins o`)
  for (const { digest, reason, repository } of origins.filter(({ reason }) => reason !== "")) {
    found.push({ subject: digest, detail: `it is said to come from ${repository}: ${reason}`, mend: db.run(sql`DELETE FROM origins WHERE digest = ${digest} AND repository = ${repository}`) })
  }
  // What the log has of before an image came is of an earlier time that it was here.
  for (const row of yield* db.rows(LostRow, sql`SELECT m.digest, l.name AS repository, l.endpoint, max(l.at) AS at FROM tag_log l
    JOIN manifests m ON m.digest = l.manifest JOIN images i ON i.id = m.image
    WHERE l.endpoint IS NOT NULL AND l.new_image = m.image AND l.at >= i.since AND NOT EXISTS (SELECT 1 FROM origins o WHERE o.digest = m.digest AND o.repository = l.name)
    GROUP BY m.digest, l.name`)) {
    found.push({ subject: row.digest, detail: `the log knows that it came from ${row.repository}, and it is not listed so`, mend: db.run(sql`INSERT INTO origins ${sql.insert(row)}`) })
  }
  const holders = yield* db.rows(HolderRow, sql`SELECT w.blob, w.diff_id, w.media_type, w.size, b.size AS blob_size,
      (SELECT p.diff_id FROM manifest_blobs p WHERE p.digest = w.blob AND p.diff_id IS NOT NULL LIMIT 1) AS listed
    FROM layer_blobs w LEFT JOIN blobs b ON b.digest = w.blob AND b.state = 'ready'`)
  for (const { blob, blob_size, diff_id, listed, size } of holders) {
    const [right, length] = [listed ?? diff_id, blob_size ?? size]
    if (right === diff_id && length === size) continue
    found.push({
      subject: blob, detail: `it is said to hold the layer ${diff_id} in ${size} bytes; it has ${length}, and images list it as ${right}`,
      mend: db.run(sql`UPDATE layer_blobs SET ${sql.update({ diff_id: right, size: length })} WHERE blob = ${blob}`)
    })
  }
  return found
})

/** Every row that documents, other rows or the log contradict. Linear: each manifest and config is read once. */
export const wrong = Effect.fn("Rows.wrong")(function*(home: Shape) {
  const { db } = home
  const rows = yield* db.rows(ManifestRow, db.sql`SELECT m.digest, m.media_type, m.size, m.image, i.manifest AS latest, i.config_type, i.config_digest,
    i.platform, i.created, i.artifact, i.kind FROM manifests m JOIN images i ON i.id = m.image ORDER BY m.digest`)
  const found: Array<Wrong> = []
  for (const row of rows) {
    const one = yield* manifestRows(home, row)
    if (one !== undefined) found.push(one)
  }
  const nodes = (yield* OldRows.wrong(home)).map(({ detail, id, mend }): Wrong => ({ subject: id, detail, mend }))
  return [...found, ...yield* indexRows(home), ...nodes, ...yield* otherRows(home), ...yield* tagRows(home)]
})
