import { Clock, Context, Effect, Layer, Option, Schema } from "effect"
import { createHash } from "node:crypto"
import { type Descriptor } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import type { Hash } from "../image/v1/LegacyDigest.ts"
import type { AddressedImage } from "../image/v1/StrongId.ts"
import type { InvalidV1Image } from "../image/v1/V1Image.ts"
import { check, type CheckOptions, type Finding, Hasher } from "./upkeep/Check.ts"
import { StoreError } from "./disk/Disk.ts"
import { Home } from "./disk/Home.ts"
import * as Images from "./Images.ts"
import type { AmbiguousName, Image, ImageLayer, ImageNotFound, Listed, TagName } from "./Images.ts"
import * as Nodes from "./names/Nodes.ts"
import { type ImageInUse, remove, type Removed } from "./Removal.ts"
import * as Reuse from "./names/Reuse.ts"
import * as Tags from "./names/Tags.ts"
import * as V1Layers from "./names/V1Layers.ts"

export { AmbiguousName, type Image, type ImageLayer, ImageNotFound, type Listed, type TagName } from "./Images.ts"
export type { Finding } from "./upkeep/Check.ts"
export type { Node } from "./names/Nodes.ts"
export { DigestTaken, TagTaken } from "./names/Tags.ts"
export { ImageInUse, type Removed } from "./Removal.ts"

type Shape = Home["Service"]

/** Everything `Graph.register` writes in its one transaction. All blobs named must be committed (of a layer: it, or the layer). */
export interface Registration {
  readonly kind: "oci" | "schema2" | "schema1" | "v1"
  /** The config's descriptor and verbatim bytes; the image's id is the hex of its digest, unless it has an old one. */
  readonly config: Descriptor
  readonly configBytes: Uint8Array
  /** For an image of Docker's old graph, whose config and manifest were generated: what it is there. */
  readonly old?: Nodes.OldFacts
  /** The image's platform as printed (`linux/arm64/v8`), and when it was created (RFC 3339), for people. */
  readonly platform: string
  readonly created?: string
  readonly manifest: Descriptor
  /** Bottom first. */
  readonly layers: ReadonlyArray<ImageLayer>
  /** Of an artifact: what it is, and its blobs, config first. Its `config` is its manifest, `layers` are empty. */
  readonly artifact?: { readonly type: string; readonly blobs: ReadonlyArray<Descriptor> }
  /** Its place in the index `target`, all of whose images are stored. */
  readonly member?: number
  /** Further blobs to keep with it: the index documents it was found through. */
  readonly also?: ReadonlyArray<Descriptor>
  /** What the reference led to (an index's digest, else the manifest's), and the platform that was asked for, as text. */
  readonly target: Digest.Digest
  readonly wanted: string
  /** Names to give it. */
  readonly tags: ReadonlyArray<TagName>
  /** Where it came from: repository (`docker.io/library/x`) and the endpoint that answered. */
  readonly origin?: { readonly repository: string; readonly endpoint: string }
  /** `LayerStore.sync` has run since the layers were committed: they become durable. Else they stay `unsynced`, and last until the next boot. */
  readonly synced: boolean
}

/** The chain IDs of a stack of layers, bottom first (image-spec, config.md#layer-chainid). */
export const chainIds = (diffIds: ReadonlyArray<Digest.Digest>): ReadonlyArray<Digest.Digest> => {
  const ids: Array<Digest.Digest> = []
  for (const diffId of diffIds) {
    const below = ids.at(-1)
    ids.push(below === undefined ? diffId : Digest.Digest.make(`sha256:${createHash("sha256").update(`${below} ${diffId}`).digest("hex")}`))
  }
  return ids
}

const Known = Schema.Struct({ id: Schema.String })
const Here = Schema.Struct({ here: Schema.Int })
const requireStored = Effect.fnUntraced(function*({ root, db }: Shape, digest: Digest.Digest, diffId: Digest.Digest | null) {
  const [row] = yield* db.rows(Here, db.sql`SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ${digest} AND state = 'ready')
    OR EXISTS (SELECT 1 FROM layers WHERE diff_id = ${diffId} AND state <> 'deleting') AS here`)
  if (row?.here === 1) return
  return yield* new StoreError({
    operation: "register an image in", path: root, detail: `its blob ${digest} is not in the store; pull the image again`
  })
})

const writeImage = Effect.fnUntraced(function*({ db }: Shape, image: Registration) {
  const { sql } = db
  const since = yield* Clock.currentTimeMillis
  const { config, manifest, layers } = image
  const diffIds = layers.map(({ diffId }) => diffId)
  const chains = chainIds(diffIds)
  for (const [index, diff_id] of diffIds.entries()) {
    const row = { chain_id: chains[index] ?? diff_id, parent: chains[index - 1] ?? null, diff_id }
    yield* db.run(sql`INSERT INTO chains ${sql.insert(row)} ON CONFLICT (chain_id) DO NOTHING`)
  }
  const { old } = image
  const own = old === undefined
    ? { id: Digest.parts(config.digest).hex, config_digest: config.digest, config_type: config.mediaType, config: image.configBytes }
    : Nodes.columns(old)
  // A manifest that was generated for an image of the old graph, and came back from outside, is that image.
  const [known] = yield* db.rows(Known, sql`SELECT image AS id FROM manifests WHERE digest = ${manifest.digest}`)
  if (known !== undefined && known.id !== own.id) return known.id
  const { id } = own
  const row = {
    kind: image.kind, ...own, chain: chains.at(-1) ?? null,
    manifest: manifest.digest, platform: image.platform, created: image.created ?? null, since, artifact: image.artifact?.type ?? null
  }
  // An old ID is a name that anyone can claim. A config's digest is not: its image takes the name over.
  yield* db.run(old === undefined
    ? sql`INSERT INTO images ${sql.insert(row)} ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, kind = excluded.kind,
        config_digest = excluded.config_digest, config_type = excluded.config_type, config = excluded.config, chain = excluded.chain,
        platform = excluded.platform, created = excluded.created, parent = NULL, compatibility = NULL, checksum = NULL, parent_ref = NULL,
        layer_diff = NULL, layer_size = NULL`
    : sql`INSERT INTO images ${sql.insert(row)} ON CONFLICT (id) DO NOTHING`)
  yield* db.run(sql`INSERT INTO manifests ${sql.insert({ digest: manifest.digest, media_type: manifest.mediaType, size: manifest.size, image: id })}
    ON CONFLICT (digest) DO NOTHING`)
  const parts = [
    { role: "manifest", position: 0, blob: manifest, diffId: null },
    ...(image.artifact?.blobs ?? [config]).map((blob, position) => ({ role: position === 0 ? "config" : "layer", position: Math.max(0, position - 1), blob, diffId: null })),
    ...layers.map(({ blob, diffId }, position) => ({ role: "layer", position, blob, diffId })),
    ...(image.also ?? []).map((blob, position) => ({ role: "index", position, blob, diffId: null }))
  ]
  for (const { role, position, blob: { digest, mediaType, size }, diffId } of parts) {
    const part = { manifest: manifest.digest, role, position, digest, media_type: mediaType, size, diff_id: diffId }
    yield* db.run(sql`INSERT INTO manifest_blobs ${sql.insert(part)} ON CONFLICT DO NOTHING`)
  }
  return id
})

/** One image and its names, within a transaction. */
const enter = Effect.fnUntraced(function*(home: Shape, image: Registration) {
  const { db, owner } = home
  const { sql } = db
  const { manifest, target, wanted, origin } = image
  for (const { digest } of [manifest, image.config, ...image.also ?? []]) yield* requireStored(home, digest, null)
  for (const { blob, diffId } of image.layers) yield* requireStored(home, blob.digest, diffId)
  for (const { digest } of image.artifact?.blobs ?? []) yield* requireStored(home, digest, null)
  if (image.synced) {
    for (const { diffId } of image.layers) {
      yield* db.run(sql`UPDATE layers SET state = 'durable' WHERE diff_id = ${diffId} AND state = 'unsynced' AND boot = ${owner.self.boot}`)
    }
  }
  const id = yield* writeImage(home, image)
  if (image.old !== undefined) yield* V1Layers.settle(home, image.old.id)
  yield* db.run(sql`INSERT INTO resolutions ${sql.insert({ target, wanted, manifest: manifest.digest })}
    ON CONFLICT (target, wanted) DO UPDATE SET manifest = excluded.manifest`)
  if (image.member !== undefined) {
    yield* db.run(sql`INSERT INTO members ${sql.insert({ target, position: image.member, manifest: manifest.digest })} ON CONFLICT DO NOTHING`)
  }
  if (origin !== undefined) {
    const at = yield* Clock.currentTimeMillis
    yield* db.run(sql`INSERT INTO origins ${sql.insert({ digest: manifest.digest, ...origin, at })}
      ON CONFLICT (digest, repository) DO UPDATE SET endpoint = excluded.endpoint, at = excluded.at`)
  }
  for (const name of image.tags) yield* Tags.write(home, name, { image: id, manifest: manifest.digest, target }, { endpoint: origin?.endpoint })
  return yield* Images.byManifest(home, manifest.digest)
})

const register = Effect.fn("Graph.register")(function*(home: Shape, image: Registration) {
  const found = yield* home.db.transaction(enter(home, image))
  return yield* Option.match(found, { onNone: () => Effect.die(new Error("an image was registered and is not there")), onSome: Effect.succeed })
})

const make = Effect.gen(function*() {
  const home = yield* Home
  const hasher = yield* Hasher
  return {
    register: (registration: Registration) => register(home, registration),
    find: (target: Digest.Digest, wanted: string) => Images.find(home, target, wanted),
    byManifest: (manifest: Digest.Digest) => Images.byManifest(home, manifest),
    members: (target: Digest.Digest) => Images.members(home, target),
    targetOf: (tag: TagName) => Images.targetOf(home, tag),
    resolve: (text: string) => Images.resolve(home, text),
    registerAll: (registrations: ReadonlyArray<Registration>) =>
      home.db.transaction(Effect.forEach(registrations, (registration) => enter(home, registration), { discard: true })),
    tag: (image: Image, name: TagName, options?: Tags.TagOptions) => home.db.transaction(Tags.tag(home, image, name, options)),
    named: (tag: TagName) => Effect.flatMap(Images.named(home, tag), (found) =>
      found === undefined ? Effect.succeed(Option.none<Image>()) : Images.byManifest(home, found.manifest)),
    exists: (id: string) => Nodes.exists(home, id),
    node: (id: string) => Nodes.find(home, id),
    children: (id: string) => Nodes.children(home, id),
    compatibility: (id: string) => home.db.transaction(Reuse.compatibility(home, id)),
    chooseIds: (images: ReadonlyArray<AddressedImage>, hash: Hash) => home.db.transaction(Reuse.choose(home, images, hash)),
    note: (name: V1Layers.V1Name, layer: V1Layers.V1Layer) => V1Layers.note(home, name, layer),
    noted: (name: V1Layers.V1Name) => V1Layers.noted(home, name),
    setCompatibility: (id: string, text: string) => Nodes.setCompatibility(home, id, text),
    list: Images.list(home),
    show: (text: string) => Images.show(home, text),
    remove: (text: string) => remove(home, text),
    check: (options?: CheckOptions) => Effect.provideService(check(home, options), Hasher, hasher)
  }
})

/** Images, their chains of layers, and tags. */
export class Graph extends Context.Service<Graph, {
  /** Adds an image and its names in one transaction: layers durable, chains, image, last the tags (design.md 3, commit order). */
  readonly register: (registration: Registration) => Effect.Effect<Image, StoreError>
  /** The image that an earlier pull chose for `wanted` out of `target` (the digest a tag led to): no index needs to be read again. */
  readonly find: (target: Digest.Digest, wanted: string) => Effect.Effect<Option.Option<Image>, StoreError>
  /** The image registered with this manifest. */
  readonly byManifest: (manifest: Digest.Digest) => Effect.Effect<Option.Option<Image>, StoreError>
  /** The images of an index that was stored whole, as far as they are still there, in its order; else none. */
  readonly members: (target: Digest.Digest) => Effect.Effect<ReadonlyArray<Image>, StoreError>
  /** What a tag led to when it was set: an index, or its image's manifest. */
  readonly targetOf: (tag: TagName) => Effect.Effect<Digest.Digest | undefined, StoreError>
  /** Finds by `name:tag`, `name@digest`, image id, manifest or index digest, or a unique prefix of an id. */
  readonly resolve: (text: string) => Effect.Effect<Image, StoreError | ImageNotFound | AmbiguousName>
  /** Adds several in one transaction, in this order. */
  readonly registerAll: (registrations: ReadonlyArray<Registration>) => Effect.Effect<void, StoreError>
  /**
   * Gives an image one more name. A tag that is set moves only with `force`, a digest never: Docker 1.9's rules. Gives the
   * id of the image that lost the tag to another one.
   */
  readonly tag: (image: Image, tag: TagName, options?: Tags.TagOptions) => Effect.Effect<string | undefined, StoreError | Tags.TagTaken | Tags.DigestTaken>
  /** The image a name stands for: a tag or digest, or a prefix of 12 digits or more of an id in the repository. */
  readonly named: (tag: TagName) => Effect.Effect<Option.Option<Image>, StoreError>
  /** Whether any image, old or new, has this whole ID. */
  readonly exists: (id: string) => Effect.Effect<boolean, StoreError>
  /** An image of Docker's old graph by its whole ID. */
  readonly node: (id: string) => Effect.Effect<Option.Option<Nodes.Node>, StoreError>
  /** IDs of the images of the old graph whose parent this is. */
  readonly children: (id: string) => Effect.Effect<ReadonlyArray<string>, StoreError>
  /** The v1Compatibility text of an image of the old graph, made and kept if it has none; undefined if there is no such image. */
  readonly compatibility: (id: string) => Effect.Effect<string | undefined, StoreError | InvalidV1Image>
  /** The graph IDs for the images of a schema1 manifest, both bottom first: IDs they have here already, else strong IDs. */
  readonly chooseIds: (images: ReadonlyArray<AddressedImage>, hash: Hash) => Effect.Effect<ReadonlyArray<string>, StoreError>
  /** Notes what a v1 registry gave under a name of its own, for a pull that is stopped before its images are registered. */
  readonly note: (name: V1Layers.V1Name, layer: V1Layers.V1Layer) => Effect.Effect<void, StoreError>
  /** What came under that name within the last hour, unless its image was registered since; the blob may be gone. */
  readonly noted: (name: V1Layers.V1Name) => Effect.Effect<V1Layers.V1Layer | undefined, StoreError>
  /** Keeps the v1Compatibility text of an image of the old graph. */
  readonly setCompatibility: (id: string, text: string) => Effect.Effect<void, StoreError>
  /** All tags, and images without one that no other stands on, by name. */
  readonly list: Effect.Effect<ReadonlyArray<Listed>, StoreError>
  /** The image and its verbatim config. */
  readonly show: (text: string) => Effect.Effect<Image & { readonly configBytes: Uint8Array }, StoreError | ImageNotFound | AmbiguousName>
  /** Takes a name away, or (called by id) all names; with the last name goes the image and all that nobody else needs or leases. An image without a name that others stand on is refused. */
  readonly remove: (text: string) => Effect.Effect<Removed, StoreError | ImageNotFound | AmbiguousName | ImageInUse>
  /** Re-hashes every blob and looks for rows, folders and ingests without a partner. */
  readonly check: (options?: CheckOptions) => Effect.Effect<ReadonlyArray<Finding>, StoreError>
}>()("store/Graph") {
  static readonly layer: Layer.Layer<Graph, never, Home> = Layer.effect(Graph, make)
}
