import { Context, Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import * as Download from "./Download.ts"
import { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { type Digest, parts } from "./image/Digest.ts"
import * as ImageConfig from "./image/ImageConfig.ts"
import * as Manifest from "./image/Manifest.ts"
import type * as Platform from "./image/Platform.ts"
import type * as Reference from "./image/Reference.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"

/** Manifests, indexes and configs are held whole, up to 4 MiB. */
const documentCap = 4 * 1024 * 1024
/** Manifests and configs of one index's images, or of one archive's, which are held until they are stored: 12 MiB, with 16,384 layers. Each of their bytes costs several on its way. */
const documentsCap = 12 * 1024 * 1024
const layersCap = 16_384

/** How deep indexes in indexes are followed, and over how many entries in all: 8 and 4096. */
export const IndexLimits = Context.Reference<{ readonly depth: number; readonly entries: number }>("Documents/IndexLimits", {
  defaultValue: () => ({ depth: 8, entries: 4096 })
})

/** A document on the way from the reference to the image, byte for byte as it was sent. */
export class PlannedDocument extends Schema.Class<PlannedDocument>("PlannedDocument")({ descriptor: Descriptor, raw: Schema.Uint8Array }) {}

const digestAs = (digest: Digest) => (bytes: Uint8Array): string => {
  const { algorithm } = parts(digest)
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`
}

/** What the store has of a descriptor's bytes, if anything; of another size they are not what the descriptor says. */
const stored = Effect.fnUntraced(function*(descriptor: Descriptor) {
  const blobs = yield* BlobStore
  if (Option.isNone(yield* blobs.find(descriptor.digest))) return undefined
  // A damaged one is out of the way now, and is fetched again.
  const raw = yield* blobs.read(descriptor.digest, documentCap).pipe(Effect.catchTag("NotInStore", () => Effect.undefined))
  if (raw === undefined) return undefined
  return raw.byteLength === descriptor.size ? raw : yield* new VerifyError({ expected: descriptor, size: raw.byteLength })
})

/** A document by its descriptor: from the store, else from the registry; its size and digest are checked. */
export const document = Effect.fnUntraced(function*(repository: Repository, descriptor: Descriptor) {
  const there = yield* stored(descriptor)
  if (there !== undefined) return { raw: there, contentType: undefined }
  const answer = yield* (yield* Registry).manifest(repository, descriptor.digest)
  if (answer.raw.byteLength !== descriptor.size) {
    return yield* new VerifyError({ expected: descriptor, size: answer.raw.byteLength })
  }
  return { raw: answer.raw, contentType: answer.contentType }
})

/**
 * Whether a config that is fetched goes into the store at once, so that of several processes one fetches it and the others
 * wait: a pull's way. A plan alone writes nothing.
 */
export const Keep = Context.Reference<boolean>("Documents/Keep", { defaultValue: () => false })

/** The config's bytes: from the store, else from the registry. They are kept (see `Keep`) if `isGood`. */
const configOf = Effect.fnUntraced(function*(repository: Repository, config: Descriptor, isGood: (raw: Uint8Array) => boolean) {
  const there = yield* stored(config)
  if (there !== undefined) return there
  const fetched = Download.small(repository, config, documentCap, digestAs(config.digest))
  if (!(yield* Keep) || config.size > documentCap) return yield* fetched
  const blobs = yield* BlobStore
  const raw = yield* Effect.scoped(Effect.gen(function*() {
    const coming = yield* blobs.ingest(config)
    if (coming.present) return undefined
    const raw = yield* fetched
    if (!isGood(raw)) return raw
    yield* Disk.attempt(() => {
      if (coming.offset > 0) coming.restart()
      coming.append(raw)
    })
    yield* coming.commit
    return raw
  }))
  return raw ?? (yield* stored(config)) ?? (yield* fetched)
})

/** What the reference itself leads to: a digest that is in the store needs no request. */
export const target = Effect.fnUntraced(function*(repository: Repository, reference: Reference.Reference) {
  const blobs = yield* BlobStore
  const { digest } = reference
  if (digest !== undefined && Option.isSome(yield* blobs.find(digest))) {
    const raw = yield* blobs.read(digest, documentCap).pipe(Effect.catchTag("NotInStore", () => Effect.undefined))
    if (raw !== undefined) return { raw, contentType: undefined, digest, endpoint: "store" }
  }
  return yield* (yield* Registry).manifest(repository, digest ?? reference.tag ?? "latest")
})

/** A manifest that was found, with its config if it is an image's. */
export interface Found {
  readonly manifest: Manifest.ImageManifest
  readonly descriptor: Descriptor
  /** What the index says it is for. */
  readonly entry: Platform.Platform | undefined
  /** Indexes on the way, and the manifest. */
  readonly documents: ReadonlyArray<PlannedDocument>
  readonly config: { readonly raw: Uint8Array; readonly image: ImageConfig.ImageConfig } | undefined
}

/** A document's content, checked against what was said of it. */
export const decode = (raw: Uint8Array, context: { readonly contentType?: string | undefined; readonly descriptor?: Descriptor }) =>
  Effect.fromResult(Manifest.decode(raw, {
    ...(context.contentType === undefined ? {} : { contentType: context.contentType }),
    ...(context.descriptor === undefined ? {} : { descriptor: context.descriptor })
  }))

/** The manifest with its config, if it is an image's. */
export const complete = Effect.fnUntraced(function*(
  repository: Repository, manifest: Manifest.ImageManifest, place: Pick<Found, "descriptor" | "documents" | "entry">, isWanted: (platform: Platform.Platform) => boolean
) {
  const found: Found = { ...place, manifest, config: undefined }
  if (Manifest.artifactOf(manifest) !== undefined) return found
  const raw = yield* configOf(repository, manifest.config, (raw) => Result.match(
    Result.flatMap(ImageConfig.decode(raw), (config) => ImageConfig.fits(config, manifest)),
    { onFailure: () => false, onSuccess: ({ platform }) => isWanted(platform) }))
  const image = yield* Effect.fromResult(Result.flatMap(ImageConfig.decode(raw), (config) => ImageConfig.fits(config, manifest)))
  return { ...found, config: { raw, image } }
})

/** Counts the entries of indexes, and refuses too many of them, or too deep. */
export const counter = Effect.map(IndexLimits, ({ depth: depthCap, entries: entryCap }) => {
  let entries = 0
  return (doc: Manifest.IndexManifest, { digest }: Descriptor, depth: number) => {
    entries += doc.manifests.length
    return depth < depthCap && entries <= entryCap ? Effect.void : Effect.fail(new Manifest.ManifestRefused({
      subject: digest, field: "manifests",
      rule: depth >= depthCap ? `indexes are nested deeper than ${depthCap} (--limit index-depth)` : `the indexes have more than ${entryCap} entries in all (--limit index-entries)`
    }))
  }
})

/** Counts the bytes of documents that are held until they are stored, and their images' layers; what is too much is refused with its rule. */
export const holder = <E>(refusal: (rule: string) => E) => {
  let [held, layers] = [0, 0]
  return (bytes: number, more: number): Effect.Effect<void, E> => {
    held += bytes
    layers += more
    if (held > documentsCap) return Effect.fail(refusal(`the manifests and configs of its images have more than ${documentsCap} bytes`))
    return layers > layersCap ? Effect.fail(refusal(`its images have more than ${layersCap} layers in all`)) : Effect.void
  }
}
