import { Effect, Option, Result, Schema } from "effect"
import { Descriptor } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import * as Reference from "../image/Reference.ts"
import { call, type StoreError } from "./disk/Disk.ts"
import { blobPath, type Home, layerPath, look } from "./disk/Home.ts"

type Shape = Home["Service"]

/** No tag, image id or digest is called so. */
export class ImageNotFound extends Schema.TaggedError<ImageNotFound>()("ImageNotFound", { name: Schema.String }) {
  override get message() {
    return `the store has no image called "${this.name}": \`graph ls\` lists what there is`
  }
}

/** A prefix that fits more than one image; `matches` are their ids. */
export class AmbiguousName extends Schema.TaggedError<AmbiguousName>()("AmbiguousName", {
  name: Schema.String, matches: Schema.Array(Schema.String)
}) {
  override get message() {
    return `"${this.name}" fits more than one image (${this.matches.map((id) => id.slice(0, 19)).join(", ")}): give more of the id`
  }
}

/** A name an image is known by: normalised repository (`docker.io/library/x`) and a tag or a digest. */
export interface TagName {
  readonly name: string
  readonly reference: string
}

/** One layer of an image: the blob it came in and its diff ID. */
export interface ImageLayer {
  readonly blob: Descriptor
  readonly diffId: Digest.Digest
}

const Kind = Schema.Literals(["oci", "schema2", "schema1", "v1"])

/** An image as one of its manifests describes it. */
export interface Image {
  /** Hex digits of the config's digest; of kinds schema1 and v1 the ID in Docker's old graph. */
  readonly id: string
  readonly kind: typeof Kind.Type
  readonly config: Descriptor
  readonly platform: string
  readonly created: string | undefined
  readonly manifest: Descriptor
  /** The chain ID of the whole root file system; undefined for an image without layers. */
  readonly chain: Digest.Digest | undefined
  /** Bottom first. */
  readonly layers: ReadonlyArray<ImageLayer>
  /** Of an artifact, which has no layers: what it is, and its blobs after the config. */
  readonly artifact: { readonly type: string; readonly blobs: ReadonlyArray<Descriptor> } | undefined
  /** Names it has now. */
  readonly tags: ReadonlyArray<TagName>
  /** Blobs it needs that are gone (a layer's counts only if the layer is not unpacked either): empty for a complete image. */
  readonly missing: ReadonlyArray<Digest.Digest>
}

const ImageRow = Schema.Struct({
  id: Schema.String, kind: Kind, platform: Schema.String, created: Schema.NullOr(Schema.String), chain: Schema.NullOr(Digest.Digest),
  media_type: Schema.String, size: Schema.Int, artifact: Schema.NullOr(Schema.String)
})
const PartRow = Schema.Struct({
  role: Schema.Literals(["manifest", "config", "layer", "index"]), digest: Digest.Digest, media_type: Schema.String, size: Schema.Int,
  diff_id: Schema.NullOr(Digest.Digest), stored: Schema.NullOr(Schema.Int), unpacked: Schema.Int
})
const TagRow = Schema.Struct({ name: Schema.String, reference: Schema.String })
const Bytes = Schema.Struct({ config: Schema.Uint8Array })
const Found = Schema.Struct({ id: Schema.String, manifest: Digest.Digest })
const Target = Schema.Struct({ target: Digest.Digest })
const Chosen = Schema.Struct({ manifest: Digest.Digest })

type Part = typeof PartRow.Type

const descriptorOf = ({ media_type, digest, size }: Part) => new Descriptor({ mediaType: media_type, digest, size })

/** Names of an image. */
export const tagsOf = ({ db }: Shape, id: string) =>
  db.rows(TagRow, db.sql`SELECT name, reference FROM tags WHERE image = ${id} ORDER BY name, reference`)

const isGone = (root: string, part: Part) =>
  (part.stored === null || look(blobPath(root, part.digest))?.size !== part.stored)
  && !(part.diff_id !== null && part.unpacked === 1 && look(layerPath(root, part.diff_id)) !== undefined)

/** The image that this manifest describes. */
export const byManifest = Effect.fn("Graph.byManifest")(function*(home: Shape, manifest: Digest.Digest): Effect.fn.Return<Option.Option<Image>, StoreError> {
  const { root, db } = home
  const { sql } = db
  const [row] = yield* db.rows(ImageRow, sql`SELECT i.id, i.kind, i.platform, i.created, i.chain, i.artifact, m.media_type, m.size
    FROM manifests m JOIN images i ON i.id = m.image WHERE m.digest = ${manifest}`)
  if (row === undefined) return Option.none()
  const parts = yield* db.rows(PartRow, sql`SELECT p.role, p.digest, p.media_type, p.size, p.diff_id, b.size AS stored, l.diff_id IS NOT NULL AS unpacked
    FROM manifest_blobs p
    LEFT JOIN blobs b ON b.digest = p.digest AND b.state = 'ready'
    LEFT JOIN layers l ON l.diff_id = p.diff_id AND l.state <> 'deleting'
    WHERE p.manifest = ${manifest} ORDER BY p.role, p.position`)
  const config = parts.find(({ role }) => role === "config")
  if (config === undefined) return Option.none()
  const missing = yield* call("read", `${root}/blobs`, () => parts.filter((part) => isGone(root, part)))
  return Option.some<Image>({
    id: row.id, kind: row.kind, config: descriptorOf(config), platform: row.platform, created: row.created ?? undefined,
    manifest: new Descriptor({ mediaType: row.media_type, digest: manifest, size: row.size }), chain: row.chain ?? undefined,
    layers: parts.flatMap((part) => part.diff_id === null ? [] : [{ blob: descriptorOf(part), diffId: part.diff_id }]),
    artifact: row.artifact === null ? undefined : { type: row.artifact, blobs: parts.filter(({ role }) => role === "layer").map(descriptorOf) },
    tags: yield* tagsOf(home, row.id),
    missing: missing.map(({ digest }) => digest)
  })
})

/** The images of an index that was stored whole. */
export const members = Effect.fn("Graph.members")(function*(home: Shape, target: Digest.Digest) {
  const rows = yield* home.db.rows(Chosen, home.db.sql`SELECT manifest FROM members WHERE target = ${target} ORDER BY position`)
  return (yield* Effect.forEach(rows, ({ manifest }) => byManifest(home, manifest))).flatMap((image) => Option.isSome(image) ? [image.value] : [])
})

/** What a tag led to. */
export const targetOf = Effect.fnUntraced(function*({ db }: Shape, { name, reference }: TagName) {
  const [row] = yield* db.rows(Target, db.sql`SELECT target FROM tags WHERE name = ${name} AND reference = ${reference}`)
  return row?.target
})

/** The image that was chosen for the platform `wanted` out of `target`. */
export const find = Effect.fn("Graph.find")(function*(home: Shape, target: Digest.Digest, wanted: string) {
  const { db } = home
  const [row] = yield* db.rows(Chosen, db.sql`SELECT manifest FROM resolutions WHERE target = ${target} AND wanted = ${wanted}`)
  return row === undefined ? Option.none<Image>() : yield* byManifest(home, row.manifest)
})

/** What a name stands for: an image's id, the manifest to see it by, and the tag if it is one. */
export interface Located {
  readonly id: string
  readonly manifest: Digest.Digest
  readonly tag: TagName | undefined
}

/**
 * The image that a name stands for: a tag or digest of the repository, else an image of the repository whose id begins with
 * `reference`, if that has 12 digits or more (docker 1.9: TagStore.GetImage).
 */
export const named = Effect.fn("Graph.named")(function*({ db }: Shape, { name, reference }: TagName): Effect.fn.Return<Located | undefined, StoreError> {
  const { sql } = db
  const [row] = yield* db.rows(Found, sql`SELECT image AS id, manifest FROM tags WHERE name = ${name} AND reference = ${reference}`)
  if (row !== undefined) return { ...row, tag: { name, reference } }
  if (!/^[0-9a-f]{12,64}$/.test(reference)) return undefined
  const [found] = yield* db.rows(Found, sql`SELECT image AS id, manifest FROM tags
    WHERE name = ${name} AND image >= ${reference} AND image < ${`${reference}g`} ORDER BY image LIMIT 1`)
  return found === undefined ? undefined : { ...found, tag: undefined }
})

const byTag = Effect.fnUntraced(function*(home: Shape, text: string): Effect.fn.Return<Located | undefined, StoreError> {
  const { db } = home
  const { sql } = db
  const parsed = Reference.parse(text)
  if (Result.isFailure(parsed)) return undefined
  const { digest, tag } = parsed.success
  const name = Reference.name(parsed.success)
  for (const reference of [digest, tag]) {
    const found = reference === undefined ? undefined : yield* named(home, { name, reference })
    if (found !== undefined) return found
  }
  if (digest === undefined) return undefined
  const [row] = yield* db.rows(Found, sql`SELECT image AS id, manifest FROM tags WHERE name = ${name} AND (target = ${digest} OR manifest = ${digest})`)
  return row === undefined ? undefined : { ...row, tag: undefined }
})

const byId = Effect.fnUntraced(function*({ db }: Shape, text: string): Effect.fn.Return<ReadonlyArray<Located>, StoreError> {
  const { sql } = db
  const hex = /^(?:sha256:|sha512:)?([0-9a-f]+)$/.exec(text)?.[1]
  if (hex === undefined) return []
  const images = yield* db.rows(Found, sql`SELECT id, manifest FROM images WHERE id >= ${hex} AND id < ${`${hex}g`} ORDER BY id LIMIT 10`)
  const manifests = Digest.is(text)
    ? yield* db.rows(Found, sql`SELECT image AS id, digest AS manifest FROM manifests WHERE digest = ${text}
      UNION SELECT t.image AS id, t.manifest FROM tags t WHERE t.manifest IN (SELECT manifest FROM resolutions WHERE target = ${text})`)
    : []
  const found = new Map([...images, ...manifests].map((row) => [row.id, { ...row, tag: undefined }]))
  return [...found.values()]
})

/** What `text` stands for: `name:tag`, `name@digest`, an image id, a manifest's digest, or a unique prefix of an id, in this order. */
export const locate = Effect.fnUntraced(function*(
  home: Shape, text: string
): Effect.fn.Return<Located, StoreError | ImageNotFound | AmbiguousName> {
  const tagged = yield* byTag(home, text)
  if (tagged !== undefined) return tagged
  const found = yield* byId(home, text)
  const [first] = found
  if (first === undefined) return yield* new ImageNotFound({ name: text })
  if (found.length > 1) return yield* new AmbiguousName({ name: text, matches: found.map(({ id }) => id) })
  return first
})

/** The image that `text` stands for. */
export const resolve = Effect.fn("Graph.resolve")(function*(home: Shape, text: string) {
  const { manifest } = yield* locate(home, text)
  const image = yield* byManifest(home, manifest)
  return Option.isSome(image) ? image.value : yield* new ImageNotFound({ name: text })
})

/** The image that `text` stands for, and its config as it came. */
export const show = Effect.fn("Graph.show")(function*(home: Shape, text: string) {
  const image = yield* resolve(home, text)
  const [row] = yield* home.db.rows(Bytes, home.db.sql`SELECT config FROM images WHERE id = ${image.id}`)
  return row === undefined ? yield* new ImageNotFound({ name: text }) : { ...image, configBytes: row.config }
})

const ListRow = Schema.Struct({
  name: Schema.NullOr(Schema.String), reference: Schema.NullOr(Schema.String), id: Schema.String, manifest: Digest.Digest,
  platform: Schema.String, created: Schema.NullOr(Schema.String), since: Schema.Int, size: Schema.Int
})

/** A line of `graph ls`: a tag and its image, or an image without a tag (`name` and `reference` undefined). */
export interface Listed {
  readonly name: string | undefined
  readonly reference: string | undefined
  readonly id: string
  readonly manifest: Digest.Digest
  readonly platform: string
  readonly created: string | undefined
  /** Milliseconds since 1970 when it was tagged or registered here. */
  readonly since: number
  /** Sum of the bytes of its manifest, config and layers' blobs. */
  readonly size: number
}

/** All tags, and images without one that no other stands on, by name. */
export const list = Effect.fn("Graph.list")(function*({ db }: Shape) {
  const rows = yield* db.rows(ListRow, db.sql`
    WITH shown AS (
      SELECT name, reference, image AS id, manifest, since FROM tags
      UNION ALL SELECT NULL, NULL, id, manifest, since FROM images WHERE NOT EXISTS (SELECT 1 FROM tags WHERE image = images.id)
        AND NOT EXISTS (SELECT 1 FROM images above WHERE above.parent = images.id)
    )
    SELECT s.name, s.reference, s.id, s.manifest, i.platform, i.created, s.since,
      (SELECT total(size) FROM (SELECT DISTINCT digest, size FROM manifest_blobs WHERE manifest = s.manifest AND role <> 'index')) AS size
    FROM shown s JOIN images i ON i.id = s.id ORDER BY s.name IS NULL, s.name, s.reference, s.id`)
  return rows.map(({ name, reference, id, manifest, platform, created, since, size }): Listed =>
    ({ name: name ?? undefined, reference: reference ?? undefined, id, manifest, platform, created: created ?? undefined, since, size }))
})
