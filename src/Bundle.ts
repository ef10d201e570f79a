import { Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { Descriptor } from "./image/Descriptor.ts"
import { Digest } from "./image/Digest.ts"
import * as Manifest from "./image/Manifest.ts"
import * as MediaType from "./image/MediaType.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** An image or artifact of the store that is to be written out. */
export interface Bundled {
  readonly manifest: Descriptor
  readonly config: Descriptor
  /** Bottom first. */
  readonly layers: ReadonlyArray<{ readonly blob: Descriptor; readonly diffId: Digest }>
  /** Of an artifact: its blobs after the config. */
  readonly artifact?: { readonly blobs: ReadonlyArray<Descriptor> } | undefined
  /** Of an index that was stored whole: it, and all its images and artifacts; this one is among them. */
  readonly whole?: { readonly index: Descriptor; readonly members: ReadonlyArray<Bundled> } | undefined
}

/** A layer of an image is in the store unpacked alone: no blob that holds it is there to be written. */
export class NotSavable extends Schema.TaggedError<NotSavable>()("NotSavable", { layer: Digest }) {
  override get message() {
    return `the store has the layer ${this.layer} unpacked, and not as a blob to be saved: \`graph save\` and \`pull --output\` fetch it again`
  }
}

/** The layer's blob; where that was never fetched, since the layer was there already, another one that was found to hold it. */
export const blobOf = Effect.fnUntraced(function*({ blob, diffId }: Bundled["layers"][number]) {
  if (Option.isSome(yield* (yield* BlobStore).find(blob.digest))) return blob
  const [other] = yield* (yield* LayerStore).blobsOf(diffId)
  return other ?? (yield* new NotSavable({ layer: diffId }))
})

/** What must stay in the store while it is written. */
export const digestsOf = (item: Bundled): ReadonlyArray<Digest> => [
  ...item.whole === undefined ? [] : [item.whole.index.digest],
  ...[item, ...item.whole?.members ?? []].flatMap(({ artifact, config, layers, manifest }) => [
    manifest.digest, config.digest, ...artifact?.blobs.map(({ digest }) => digest) ?? [], ...layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])
  ])
]

/** Manifests are read whole, up to 4 MiB. */
const manifestCap = 4 * 1024 * 1024

const described = (mediaType: string, raw: Buffer) =>
  new Descriptor({ mediaType, digest: Schema.decodeSync(Digest)(`sha256:${createHash("sha256").update(raw).digest("hex")}`), size: raw.byteLength })

/** A schema2 manifest in OCI's words: the same config and layers, other media types. The bytes depend on nothing else. */
export const asOci = ({ config, layers }: {
  readonly config: { readonly descriptor: Pick<Descriptor, "digest" | "size"> }
  readonly layers: ReadonlyArray<{ readonly blob: Descriptor }>
}): { readonly manifest: Descriptor; readonly raw: Buffer } => {
  const raw = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: MediaType.ociManifest,
    config: { mediaType: MediaType.ociConfig, digest: config.descriptor.digest, size: config.descriptor.size },
    layers: layers.map(({ blob: { digest, mediaType, size } }) => ({ mediaType: MediaType.asOci(mediaType), digest, size }))
  }))
  return { manifest: described(MediaType.ociManifest, raw), raw }
}

/** A document as it is written. */
export interface Written {
  readonly manifest: Descriptor
  readonly raw: Uint8Array
}

/** A manifest as it is written, and its blobs: config, and layers bottom first. */
export interface Part extends Written {
  readonly config: Descriptor
  readonly layers: ReadonlyArray<Descriptor>
}

/** One image or artifact. Unless `verbatim`, a schema2 manifest is written in OCI's words. */
export const part = Effect.fnUntraced(function*({ artifact, config, layers, manifest }: Bundled, verbatim: boolean) {
  const read = Effect.flatMap(BlobStore, (blobs) => blobs.read(manifest.digest, manifestCap))
  if (artifact !== undefined) return { manifest, raw: yield* read, config, layers: artifact.blobs } satisfies Part
  const blobs = yield* Effect.forEach(layers, blobOf)
  const same = blobs.every(({ digest }, index) => digest === layers[index]?.blob.digest)
  const written: Written = same && (verbatim || manifest.mediaType === MediaType.ociManifest)
    ? { manifest, raw: yield* read }
    : asOci({ config: { descriptor: config }, layers: blobs.map((blob) => ({ blob })) })
  const made: Part = { ...written, config, layers: blobs }
  return made
})

const Fields = Schema.Record(Schema.String, Schema.Unknown)
const decodeIndex = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.StructWithRest(Schema.Struct({ manifests: Schema.Array(Fields) }), [Fields])))

/** An index and those in it, as they are written: word for word unless a document below has another digest now. The last is the top. */
const indexes = Effect.fnUntraced(function*(top: Descriptor, parts: ReadonlyMap<Digest, Descriptor>, verbatim: boolean) {
  const blobs = yield* BlobStore
  const made: Array<Written> = []
  const one = Effect.fnUntraced(function*(index: Descriptor): Effect.fn.Return<Descriptor, Effect.Error<ReturnType<typeof blobs.read>>> {
    const raw = yield* blobs.read(index.digest, manifestCap)
    const read = Result.getOrUndefined(Manifest.decode(raw, { descriptor: index }))
    if (read?._tag !== "Index") return index
    const entries = yield* Effect.forEach(read.manifests, (entry) => MediaType.isIndex(entry.mediaType)
      ? one(new Descriptor({ mediaType: entry.mediaType, digest: entry.digest, size: entry.size }))
      : Effect.succeed(parts.get(entry.digest) ?? entry))
    const mediaType = verbatim ? index.mediaType : MediaType.asOci(index.mediaType)
    if (mediaType === index.mediaType && entries.every(({ digest }, at) => digest === read.manifests[at]?.digest)) {
      made.push({ manifest: index, raw })
      return index
    }
    const body = decodeIndex(Buffer.from(raw).toString())
    const manifests = body.manifests.map((fields, at) => {
      const { digest, mediaType, size } = entries[at] ?? index
      return { ...fields, mediaType, digest, size }
    })
    const bytes = Buffer.from(JSON.stringify({ ...body, mediaType, manifests }))
    const manifest = described(mediaType, bytes)
    made.push({ manifest, raw: bytes })
    return manifest
  })
  yield* one(top)
  return made
})

/** What is written for one name: the image or artifact alone, or with the whole index it is of; `top` is what the name gets. */
export const bundle = Effect.fnUntraced(function*(item: Bundled, verbatim: boolean) {
  const own = yield* part(item, verbatim)
  const { whole } = item
  if (whole === undefined) return { top: own.manifest, own, others: new Array<Part>(), indexes: new Array<Written>() }
  const others = yield* Effect.forEach(whole.members.filter(({ manifest }) => manifest.digest !== item.manifest.digest), (member) =>
    Effect.map(part(member, verbatim), (part) => ({ part, digest: member.manifest.digest })))
  const parts = new Map([[item.manifest.digest, own.manifest], ...others.map(({ digest, part }) => [digest, part.manifest] as const)])
  const documents = yield* indexes(whole.index, parts, verbatim)
  return { top: documents.at(-1)?.manifest ?? whole.index, own, others: others.map(({ part }) => part), indexes: documents }
})
