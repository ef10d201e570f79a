import { Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { Descriptor } from "../../image/Descriptor.ts"
import * as Digest from "../../image/Digest.ts"
import { layerOf } from "../../image/MediaType.ts"
import * as GoText from "../../image/v1/go/GoText.ts"
import * as LegacyDigest from "../../image/v1/LegacyDigest.ts"
import * as V1Image from "../../image/v1/V1Image.ts"
import type { StoreError } from "../disk/Disk.ts"
import type { Home } from "../disk/Home.ts"
import { byManifest, type ImageLayer } from "../Images.ts"

type Shape = Home["Service"]

/** What an image is in Docker's old graph, where each is one layer on its parent. */
export interface OldFacts {
  /** 64 hexadecimal digits: the strong ID's, or the v1 ID it came with. */
  readonly id: string
  /** The image below in the graph. */
  readonly parent: string | undefined
  /** Its JSON, verbatim. */
  readonly json: Uint8Array
  /** The v1Compatibility text it came as, or was given. */
  readonly compatibility?: string
  /** What its manifest gave as its layer's digest, as text. */
  readonly checksum?: string
  /** The parent's ID, where its JSON's `parent_id` is valid and names another one (docker 1.9: the file `parent`). */
  readonly parentRef?: string
  /** Its own layer and the sum of that tar's header sizes; undefined if it has none. */
  readonly layer: { readonly diffId: Digest.Digest; readonly size: number } | undefined
}

/** An image of the old graph, in the store. */
export interface Node extends OldFacts {
  readonly kind: "schema1" | "v1"
  /** The manifest that was generated for it. */
  readonly manifest: Digest.Digest
  /** Its layers and those below, bottom first; those of steps that its form leaves out, since they are empty, are not among them. */
  readonly layers: ReadonlyArray<ImageLayer>
  /** Its own layer: the last of these, or where its form leaves it out, the tar without entries. Undefined if it has none. */
  readonly own: ImageLayer | undefined
  /** Bytes: the size of its own layer, 0 without one. */
  readonly size: number
}

/** Its row in `images`, as far as it differs from other kinds'. */
export const columns = ({ id, parent, json, compatibility, checksum, parentRef, layer }: OldFacts) => ({
  id, config: json, config_digest: `sha256:${createHash("sha256").update(json).digest("hex")}`, config_type: "application/json",
  parent: parent ?? null, compatibility: compatibility === undefined ? null : Buffer.from(compatibility), checksum: checksum ?? null,
  parent_ref: parentRef ?? null, layer_diff: layer?.diffId ?? null, layer_size: layer?.size ?? 0
})

const Row = Schema.Struct({
  id: Schema.String, kind: Schema.Literals(["schema1", "v1"]), parent: Schema.NullOr(Schema.String), config: Schema.Uint8Array,
  compatibility: Schema.NullOr(Schema.Uint8Array), checksum: Schema.NullOr(Schema.String), parent_ref: Schema.NullOr(Schema.String),
  layer_diff: Schema.NullOr(Digest.Digest), layer_size: Schema.NullOr(Schema.Int), manifest: Digest.Digest
})

/** A layer that is not in its image's form has no entries: two blocks of zeros, whose digest is the diff ID. */
const ownOf = (diffId: Digest.Digest, last: ImageLayer | undefined): ImageLayer =>
  last?.diffId === diffId ? last : { diffId, blob: new Descriptor({ mediaType: layerOf("none"), digest: diffId, size: 1024 }) }

/** The image of the old graph with this ID. */
export const find = Effect.fn("Graph.node")(function*(home: Shape, id: string): Effect.fn.Return<Option.Option<Node>, StoreError> {
  const { db } = home
  const [row] = yield* db.rows(Row, db.sql`SELECT id, kind, parent, config, compatibility, checksum, parent_ref, layer_diff, layer_size, manifest
    FROM images WHERE id = ${id} AND kind IN ('schema1', 'v1')`)
  if (row === undefined) return Option.none()
  const image = yield* byManifest(home, row.manifest)
  const size = row.layer_size ?? 0
  const layers = Option.isSome(image) ? image.value.layers : []
  return Option.some<Node>({
    id: row.id, kind: row.kind, parent: row.parent ?? undefined, json: row.config, manifest: row.manifest, size,
    ...(row.compatibility === null ? {} : { compatibility: Buffer.from(row.compatibility).toString() }),
    ...(row.checksum === null ? {} : { checksum: row.checksum }), ...(row.parent_ref === null ? {} : { parentRef: row.parent_ref }),
    layer: row.layer_diff === null ? undefined : { diffId: row.layer_diff, size },
    layers, own: row.layer_diff === null ? undefined : ownOf(row.layer_diff, layers.at(-1))
  })
})

/**
 * The parent an image has by what Docker 1.9 kept of it (graph.loadImage): that of the file `parent`, else the one its JSON
 * names, else that of a valid `parent_id`. "" for none. It may be none of the graph's.
 */
export const statedParent = ({ json, parentRef = "" }: Node): string => {
  if (parentRef !== "") return parentRef
  const read = Result.getOrUndefined(V1Image.decode(GoText.decode(json).toWellFormed()))
  if (read === undefined || read.parent !== "") return read?.parent ?? ""
  const named = read.string("parent_id")
  return LegacyDigest.is(named) ? named.slice(named.indexOf(":") + 1) : ""
}

const Id = Schema.Struct({ id: Schema.String })

/** Whether any image has this ID. */
export const exists = ({ db }: Shape, id: string) =>
  Effect.map(db.rows(Id, db.sql`SELECT id FROM images WHERE id = ${id}`), (rows) => rows.length > 0)

/** IDs of the images of the old graph whose parent this is. */
export const children = ({ db }: Shape, id: string) =>
  Effect.map(db.rows(Id, db.sql`SELECT id FROM images WHERE parent = ${id} ORDER BY id`), (rows) => rows.map(({ id }) => id))

/** Keeps a v1Compatibility text. */
export const setCompatibility = ({ db }: Shape, id: string, text: string) =>
  db.run(db.sql`UPDATE images SET compatibility = ${Buffer.from(text)} WHERE id = ${id} AND kind IN ('schema1', 'v1')`)
