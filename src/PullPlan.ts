import { Context, Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import * as Download from "./Download.ts"
import { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { Digest, parts } from "./image/Digest.ts"
import * as ImageConfig from "./image/ImageConfig.ts"
import * as Manifest from "./image/Manifest.ts"
import * as Platform from "./image/Platform.ts"
import * as Reference from "./image/Reference.ts"
import * as Origin from "./Origin.ts"
import { LayerState } from "./progress/PullEvent.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import * as Schema1Plan from "./Schema1Plan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/Disk.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** Manifests, indexes and configs are held whole, up to 4 MiB. */
const documentCap = 4 * 1024 * 1024
/** Indexes in indexes are followed 8 deep, over at most 4096 entries in all. */
const depthCap = 8
const entryCap = 4096

/**
 * A layer of the plan: its blob, its diff ID, what the store has of it, how many bytes of the blob those are, and whether
 * the blob is verified and in the store: all its bytes may be there before it is.
 */
export class PlannedLayer extends Schema.Class<PlannedLayer>("PlannedLayer")({
  blob: Descriptor, diffId: Digest, state: LayerState, have: Schema.Natural, stored: Schema.Boolean
}) {}

/** A document on the way from the reference to the image, byte for byte as it was sent. */
export class PlannedDocument extends Schema.Class<PlannedDocument>("PlannedDocument")({ descriptor: Descriptor, raw: Schema.Uint8Array }) {}

/** An entry of an index, and why it was not chosen. */
export const PlannedCandidate = Schema.Struct({ digest: Digest, platform: Schema.String, lost: Schema.optionalKey(Schema.String) })

/** What a pull will do, as plain data: where the reference led, which image was chosen and why, and what is still missing. */
export class PullPlan extends Schema.Class<PullPlan>("PullPlan")({
  /** The normalised reference. */
  reference: Schema.String,
  repository: Schema.Struct({
    domain: Schema.String, path: Schema.String, pinned: Schema.optionalKey(Schema.Boolean),
    foreign: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
  }),
  /** The tag or digest to record; a digest wins over a tag beside it. */
  name: Schema.String,
  /** Who answered (`https://host:port`), or `store` when a digest was there already. */
  endpoint: Schema.String,
  ...Origin.fields,
  /** What the reference points at: an index or a manifest. */
  target: Descriptor,
  /** The platform that was asked for, or the host's, and the image's own. */
  wanted: Schema.String,
  platform: Schema.String,
  /** Whether the image runs on the platform that was wanted. It need not where nobody asked and there is no other. */
  fits: Schema.Boolean,
  candidates: Schema.Array(PlannedCandidate),
  kind: Schema.Literals(["oci", "schema2"]),
  manifest: Descriptor,
  config: Descriptor,
  created: Schema.optionalKey(Schema.String),
  /** Bottom first. */
  layers: Schema.Array(PlannedLayer),
  /** Target, nested indexes, manifest, and last the config. */
  documents: Schema.Array(PlannedDocument)
}) {}

/** The platform of this host, unless something else is asked for. */
export const DefaultPlatform = Context.Reference<string>("PullPlan/DefaultPlatform", {
  defaultValue: () => Platform.print(Platform.host(process.platform, process.arch))
})

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
const document = Effect.fnUntraced(function*(repository: Repository, descriptor: Descriptor) {
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
export const Keep = Context.Reference<boolean>("PullPlan/Keep", { defaultValue: () => false })

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
const target = Effect.fnUntraced(function*(repository: Repository, reference: Reference.Reference) {
  const blobs = yield* BlobStore
  const { digest } = reference
  if (digest !== undefined && Option.isSome(yield* blobs.find(digest))) {
    const raw = yield* blobs.read(digest, documentCap).pipe(Effect.catchTag("NotInStore", () => Effect.undefined))
    if (raw !== undefined) return { raw, contentType: undefined, digest, endpoint: "store" }
  }
  return yield* (yield* Registry).manifest(repository, digest ?? reference.tag ?? "latest")
})

/** What the store has of each layer now. */
export const states = Effect.fnUntraced(function*(layers: ReadonlyArray<{ readonly blob: Descriptor; readonly diffId: Digest }>) {
  const blobs = yield* BlobStore
  const store = yield* LayerStore
  return yield* Effect.forEach(layers, Effect.fnUntraced(function*({ blob, diffId }) {
    const there = Option.getOrUndefined(yield* blobs.find(blob.digest))
    if (there !== undefined && there.size !== blob.size) return yield* new VerifyError({ expected: blob, size: there.size })
    const stored = there !== undefined
    const have = stored ? blob.size : Math.min(blob.size, yield* blobs.partial(blob.digest))
    const state = Option.isSome(yield* store.find(diffId)) ? "unpacked" : stored ? "stored" : have > 0 ? "partial" : "missing"
    return new PlannedLayer({ blob, diffId, state, have, stored })
  }))
})

/** Resolves `reference` to one image and says what a pull of it would do. It writes nothing. */
export const make = Effect.fn("PullPlan.make")(function*(text: string, options: { readonly platform?: string } = {}) {
  const reference = yield* Effect.fromResult(Reference.parse(text))
  const wanted = yield* Effect.fromResult(Platform.parse(options.platform ?? (yield* DefaultPlatform)))
  const repository: Repository = { domain: reference.domain, path: reference.path, ...(reference.digest === undefined ? {} : { pinned: true }) }
  const printed = Reference.print(reference)
  const answer = yield* target(repository, reference)
  const origin = yield* Origin.of(repository, answer)
  const documents: Array<PlannedDocument> = []
  const candidates: Array<Judged> = []
  const seen = new Set<Digest>()
  let entries = 0

  const decode = (raw: Uint8Array, context: { readonly contentType?: string | undefined; readonly descriptor?: Descriptor }) =>
    Effect.fromResult(Manifest.decode(raw, {
      ...(context.contentType === undefined ? {} : { contentType: context.contentType }),
      ...(context.descriptor === undefined ? {} : { descriptor: context.descriptor })
    }))
  if (Schema1Plan.isSchema1(answer.raw, answer.contentType)) {
    return yield* Schema1Plan.make(answer, { reference, printed, origin, wanted, strict: options.platform !== undefined })
  }
  const first = yield* decode(answer.raw, answer)
  const targetDescriptor = new Descriptor({ mediaType: first.mediaType, digest: answer.digest, size: answer.raw.byteLength })

  const descend = Effect.fnUntraced(function*(
    doc: Manifest.Document, raw: Uint8Array, descriptor: Descriptor, depth: number
  ): Effect.fn.Return<Option.Option<Found>, PlanFailure, PlanServices> {
    documents.push(new PlannedDocument({ descriptor, raw }))
    if (doc._tag === "Image") {
      const manifest = yield* Effect.fromResult(Manifest.checkImage(doc))
      const configRaw = yield* configOf(repository, manifest.config, (raw) => Result.match(
        Result.flatMap(ImageConfig.decode(raw), (config) => ImageConfig.fits(config, manifest)),
        { onFailure: () => false, onSuccess: ({ platform }) => Platform.distance(wanted, platform) !== undefined }))
      const config = yield* Effect.fromResult(Result.flatMap(ImageConfig.decode(configRaw), (config) => ImageConfig.fits(config, manifest)))
      return Option.some({ manifest, descriptor, config, configRaw })
    }
    entries += doc.manifests.length
    if (depth >= depthCap || entries > entryCap) {
      return yield* new Manifest.ManifestRefused({
        subject: descriptor.digest, field: "manifests",
        rule: depth >= depthCap ? `indexes are nested deeper than ${depthCap}` : `the indexes have more than ${entryCap} entries in all`
      })
    }
    const choice = Platform.choose(wanted, doc.manifests)
    const judged = new Map(choice.candidates.map(({ descriptor, lost, platform }) => {
      const candidate: Judged = { digest: descriptor.digest, platform: platform === undefined ? unnamed : Platform.print(platform), lost }
      return [descriptor, candidate]
    }))
    candidates.push(...judged.values())
    for (const next of choice.ranked) {
      const candidate = judged.get(next)
      if (candidate === undefined || seen.has(next.digest)) continue
      seen.add(next.digest)
      const child = new Descriptor({ mediaType: next.mediaType, digest: next.digest, size: next.size })
      const fetched = yield* document(repository, child)
      const kept = documents.length
      const inner = yield* decode(fetched.raw, { ...fetched, descriptor: child })
      // Where the index names no platform, the manifest tells what it is, and the config what it is for.
      const bare = next.platform === undefined && inner._tag === "Image" ? Manifest.checkImage(inner) : undefined
      if (bare !== undefined && Result.isFailure(bare)) {
        candidate.lost = bare.failure.rule
        continue
      }
      const found = yield* descend(inner, fetched.raw, child, depth + 1)
      if (Option.isSome(found) && (bare === undefined || Platform.distance(wanted, found.value.config.platform) !== undefined)) {
        candidate.lost = undefined
        return found
      }
      if (Option.isSome(found)) candidate.platform = Platform.print(found.value.config.platform)
      candidate.lost = Option.isSome(found) ? `for another platform: ${candidate.platform}` : "none of its entries fits"
      documents.length = kept
    }
    return Option.none()
  })

  const found = yield* descend(first, answer.raw, targetDescriptor, 0)
  const noPlatform = (platforms: ReadonlyArray<string>) => new Platform.NoPlatform({
    reference: printed, wanted: Platform.print(wanted),
    available: [...new Set(platforms.filter((platform) => platform !== unnamed && platform !== "unknown/unknown"))]
  })
  if (Option.isNone(found)) return yield* noPlatform(candidates.map(({ platform }) => platform))
  const { config, configRaw, descriptor, manifest } = found.value
  // An index's word on its entry was taken above, whatever the config leaves out.
  const fits = first._tag === "Index" || Platform.distance(wanted, config.platform) !== undefined
  if (!fits && options.platform !== undefined) return yield* noPlatform([Platform.print(config.platform)])
  documents.push(new PlannedDocument({ descriptor: manifest.config, raw: configRaw }))
  const diffIds = config.rootfs.diffIds
  const layers = yield* states(manifest.layers.flatMap((blob, index) => {
    const diffId = diffIds[index]
    return diffId === undefined ? [] : [{ blob: new Descriptor({ mediaType: blob.mediaType, digest: blob.digest, size: blob.size }), diffId }]
  }))
  const foreign = Object.fromEntries(manifest.layers.flatMap(({ digest, urls }) => urls === undefined || urls.length === 0 ? [] : [[digest, urls]]))
  return new PullPlan({
    reference: printed, repository: Object.keys(foreign).length === 0 ? repository : { ...repository, foreign }, name: reference.digest ?? reference.tag ?? "latest", endpoint: answer.endpoint, ...origin,
    target: targetDescriptor, wanted: Platform.print(wanted), platform: Platform.print(config.platform), fits,
    candidates: candidates.map(({ lost, ...candidate }) => lost === undefined ? candidate : { ...candidate, lost }),
    kind: manifest.mediaType.startsWith("application/vnd.oci.") ? "oci" : "schema2",
    manifest: descriptor, config: manifest.config, ...(config.created === undefined ? {} : { created: config.created }), layers, documents
  })
})

/** What the platform of an entry is called that names none. */
const unnamed = "unknown"

/** A candidate, as far as it is judged. */
interface Judged {
  readonly digest: Digest
  platform: string
  lost: string | undefined
}
interface Found {
  readonly manifest: Manifest.ImageManifest
  readonly descriptor: Descriptor
  readonly config: ImageConfig.ImageConfig
  readonly configRaw: Uint8Array
}
type PlanServices = BlobStore | LayerStore | Registry
type PlanFailure = Effect.Error<ReturnType<typeof document>> | Effect.Error<ReturnType<typeof configOf>> | Manifest.ManifestRefused
