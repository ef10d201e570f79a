import { Context, Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { ArtifactPlan, blobsOf, PlannedCandidate } from "./ArtifactPlan.ts"
import * as Download from "./Download.ts"
import { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { Digest, parts } from "./image/Digest.ts"
import * as ImageConfig from "./image/ImageConfig.ts"
import * as Manifest from "./image/Manifest.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Platform from "./image/Platform.ts"
import * as Reference from "./image/Reference.ts"
import * as Origin from "./Origin.ts"
import { LayerState } from "./progress/PullEvent.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import * as Schema1Plan from "./Schema1Plan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** Manifests, indexes and configs are held whole, up to 4 MiB. */
const documentCap = 4 * 1024 * 1024
/** Manifests and configs of one index's images, which are held until they are stored: 64 MiB. */
export const documentsCap = 64 * 1024 * 1024

/** How deep indexes in indexes are followed, and over how many entries in all: 8 and 4096. */
export const IndexLimits = Context.Reference<{ readonly depth: number; readonly entries: number }>("PullPlan/IndexLimits", {
  defaultValue: () => ({ depth: 8, entries: 4096 })
})

/**
 * A layer of the plan: its blob, its diff ID, what the store has of it, how many bytes of the blob those are, and whether
 * the blob is verified and in the store: all its bytes may be there before it is.
 */
export class PlannedLayer extends Schema.Class<PlannedLayer>("PlannedLayer")({
  blob: Descriptor, diffId: Digest, state: LayerState, have: Schema.Natural, stored: Schema.Boolean
}) {}

/** A document on the way from the reference to the image, byte for byte as it was sent. */
export class PlannedDocument extends Schema.Class<PlannedDocument>("PlannedDocument")({ descriptor: Descriptor, raw: Schema.Uint8Array }) {}

/** What a pull will do, as plain data: where the reference led, which image was chosen and why, and what is still missing. */
export class PullPlan extends Schema.Class<PullPlan>("PullPlan")({
  repository: Schema.Struct({
    domain: Schema.String, path: Schema.String, pinned: Schema.optionalKey(Schema.Boolean),
    foreign: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
  }),
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

/** What a pull of every image of an index will do, as plain data. */
export class IndexPlan extends Schema.Class<IndexPlan>("IndexPlan")({
  kind: Schema.Literal("index"),
  repository: Schema.Struct({ domain: Schema.String, path: Schema.String, pinned: Schema.optionalKey(Schema.Boolean) }),
  ...Origin.fields,
  /** The index. */
  target: Descriptor,
  wanted: Schema.Literal(Platform.all),
  platform: Schema.Literal(Platform.all),
  fits: Schema.Literal(true),
  candidates: Schema.Array(PlannedCandidate),
  /** The index, and those in it. */
  documents: Schema.Array(PlannedDocument),
  /** In the order of the index, each once. */
  images: Schema.Array(Schema.Union([PullPlan, ArtifactPlan])),
  /** Which of them the tag stands for where one is needed: the one for this host, else the first. */
  chosen: Schema.Natural
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

/** What plans of one reference have in common. */
interface Base {
  readonly reference: string
  readonly repository: Repository
  readonly name: string
  readonly endpoint: string
  readonly target: Descriptor
  readonly origin: Effect.Success<ReturnType<typeof Origin.of>>
}

/** A manifest that was found, with its config if it is an image's. */
interface Found {
  readonly manifest: Manifest.ImageManifest
  readonly descriptor: Descriptor
  /** What the index says it is for. */
  readonly entry: Platform.Platform | undefined
  /** Indexes on the way, and the manifest. */
  readonly documents: ReadonlyArray<PlannedDocument>
  readonly config: { readonly raw: Uint8Array; readonly image: ImageConfig.ImageConfig } | undefined
}

/** A plan's facts that depend on how it was asked for. */
interface Asked {
  readonly wanted: string
  readonly fits: boolean
  readonly candidates: ReadonlyArray<typeof PlannedCandidate.Type>
}

const decode = (raw: Uint8Array, context: { readonly contentType?: string | undefined; readonly descriptor?: Descriptor }) =>
  Effect.fromResult(Manifest.decode(raw, {
    ...(context.contentType === undefined ? {} : { contentType: context.contentType }),
    ...(context.descriptor === undefined ? {} : { descriptor: context.descriptor })
  }))

/** The manifest with its config, if it is an image's. */
const complete = Effect.fnUntraced(function*(
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

const planOf = Effect.fnUntraced(function*({ origin, repository, ...base }: Base, { config, descriptor, documents, entry, manifest }: Found, asked: Asked) {
  const foreign = Object.fromEntries(manifest.layers.flatMap(({ digest, urls }) => urls === undefined || urls.length === 0 ? [] : [[digest, urls]]))
  const common = { ...base, ...origin, ...asked, repository: Object.keys(foreign).length === 0 ? repository : { ...repository, foreign }, manifest: descriptor }
  if (config === undefined) {
    return new ArtifactPlan({
      ...common, kind: "artifact", type: Manifest.artifactOf(manifest) ?? manifest.config.mediaType,
      platform: entry === undefined ? Platform.none : Platform.print(entry), blobs: yield* blobsOf(manifest), documents
    })
  }
  const { created, platform, rootfs: { diffIds } } = config.image
  const layers = yield* states(manifest.layers.flatMap((blob, index) => {
    const diffId = diffIds[index]
    return diffId === undefined ? [] : [{ blob: new Descriptor({ mediaType: blob.mediaType, digest: blob.digest, size: blob.size }), diffId }]
  }))
  return new PullPlan({
    ...common, kind: manifest.mediaType.startsWith("application/vnd.oci.") ? "oci" : "schema2", platform: Platform.print(platform),
    config: manifest.config, ...(created === undefined ? {} : { created }), layers,
    documents: [...documents, new PlannedDocument({ descriptor: manifest.config, raw: config.raw })]
  })
})

/** Counts the entries of indexes, and refuses too many of them, or too deep. */
const counter = Effect.map(IndexLimits, ({ depth: depthCap, entries: entryCap }) => {
  let entries = 0
  return (doc: Manifest.IndexManifest, { digest }: Descriptor, depth: number) => {
    entries += doc.manifests.length
    return depth < depthCap && entries <= entryCap ? Effect.void : Effect.fail(new Manifest.ManifestRefused({
      subject: digest, field: "manifests",
      rule: depth >= depthCap ? `indexes are nested deeper than ${depthCap} (--limit index-depth)` : `the indexes have more than ${entryCap} entries in all (--limit index-entries)`
    }))
  }
})

/** Every image and artifact of an index, each once. */
const every = Effect.fnUntraced(function*(base: Base, first: Manifest.IndexManifest, raw: Uint8Array, wanted: Platform.Platform) {
  const { repository, target } = base
  const count = yield* counter
  const seen = new Set<Digest>()
  const leaves: Array<{ readonly child: Descriptor; readonly entry: Platform.Platform | undefined; readonly documents: ReadonlyArray<PlannedDocument> }> = []
  const candidates: Array<typeof PlannedCandidate.Type> = []
  const indexes: Array<PlannedDocument> = []
  const walk = Effect.fnUntraced(function*(
    doc: Manifest.IndexManifest, raw: Uint8Array, descriptor: Descriptor, above: ReadonlyArray<PlannedDocument>
  ): Effect.fn.Return<void, PlanFailure, PlanServices> {
    yield* count(doc, descriptor, above.length)
    const own = new PlannedDocument({ descriptor, raw })
    const documents = [...above, own]
    indexes.push(own)
    for (const { digest, mediaType, platform, size } of doc.manifests) {
      if (seen.has(digest)) continue
      seen.add(digest)
      const child = new Descriptor({ mediaType, digest, size })
      if (MediaType.isManifest(mediaType)) leaves.push({ child, entry: platform, documents })
      else if (!MediaType.isIndex(mediaType)) candidates.push({ digest, platform: unnamed, lost: `neither a manifest nor an index: ${mediaType}` })
      else {
        const fetched = yield* document(repository, child)
        const inner = yield* decode(fetched.raw, { ...fetched, descriptor: child })
        if (inner._tag === "Index") yield* walk(inner, fetched.raw, child, documents)
      }
    }
  })
  yield* walk(first, raw, target, [])
  let held = 0
  const found = yield* Effect.forEach(leaves, Effect.fnUntraced(function*({ child, documents, entry }) {
    const fetched = yield* document(repository, child)
    const manifest = yield* decode(fetched.raw, { ...fetched, descriptor: child })
    if (manifest._tag !== "Image") return yield* Effect.die(new Error("an index of an image's type"))
    const one = yield* complete(repository, manifest, {
      descriptor: child, entry, documents: [...documents, new PlannedDocument({ descriptor: child, raw: fetched.raw })]
    }, () => true)
    held += fetched.raw.byteLength + (one.config?.raw.byteLength ?? 0)
    if (held > documentsCap) {
      return yield* new Manifest.ManifestRefused({ subject: target.digest, field: "manifests", rule: `the manifests and configs of its images have more than ${documentsCap} bytes` })
    }
    return one
  }), { concurrency: 4 })
  if (found.length === 0) return yield* new Platform.NoPlatform({ reference: base.reference, wanted: Platform.all, available: [] })
  const images = yield* Effect.forEach(found, (one) => {
    const own = one.entry ?? one.config?.image.platform
    return planOf(base, one, { wanted: own === undefined ? Platform.none : Platform.print(Platform.normalize(own)), fits: true, candidates: [] })
  })
  const far = found.map(({ config, entry }) => config === undefined ? Infinity : Platform.distance(wanted, entry ?? config.image.platform) ?? 2 ** 40)
  const { origin, ...common } = base
  return new IndexPlan({
    ...common, ...origin, kind: "index", wanted: Platform.all, platform: Platform.all, fits: true, documents: indexes, images, chosen: far.indexOf(Math.min(...far)),
    candidates: [...images.map((plan) => ({ digest: plan.manifest.digest, platform: plan.kind === "artifact" ? plan.type : plan.platform })), ...candidates]
  })
})

/**
 * Resolves `reference` to one image, or with the platform `all` to every image of an index, and says what a pull of it would
 * do. It writes nothing.
 */
export const make = Effect.fn("PullPlan.make")(function*(text: string, options: { readonly platform?: string } = {}) {
  const reference = yield* Effect.fromResult(Reference.parse(text))
  const isAll = options.platform === Platform.all
  const asked = isAll ? undefined : options.platform
  const wanted = yield* Effect.fromResult(Platform.parse(asked ?? (yield* DefaultPlatform)))
  const repository: Repository = { domain: reference.domain, path: reference.path, ...(reference.digest === undefined ? {} : { pinned: true }) }
  const printed = Reference.print(reference)
  const answer = yield* target(repository, reference)
  const origin = yield* Origin.of(repository, answer)
  const candidates: Array<Judged> = []
  const seen = new Set<Digest>()
  const count = yield* counter

  if (Schema1Plan.isSchema1(answer.raw, answer.contentType)) {
    return yield* Schema1Plan.make(answer, { reference, printed, origin, wanted, strict: asked !== undefined })
  }
  const first = yield* decode(answer.raw, answer)
  const base: Base = {
    reference: printed, repository, name: reference.digest ?? reference.tag ?? "latest", endpoint: answer.endpoint, origin,
    target: new Descriptor({ mediaType: first.mediaType, digest: answer.digest, size: answer.raw.byteLength })
  }
  if (isAll && first._tag === "Index") return yield* every(base, first, answer.raw, wanted)

  const descend = Effect.fnUntraced(function*(
    doc: Manifest.Document, raw: Uint8Array, descriptor: Descriptor, entry: Platform.Platform | undefined, above: ReadonlyArray<PlannedDocument>
  ): Effect.fn.Return<Option.Option<Found>, PlanFailure, PlanServices> {
    const documents = [...above, new PlannedDocument({ descriptor, raw })]
    if (doc._tag === "Image") {
      return Option.some(yield* complete(repository, doc, { descriptor, entry, documents }, (platform) => Platform.distance(wanted, platform) !== undefined))
    }
    yield* count(doc, descriptor, above.length)
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
      const inner = yield* decode(fetched.raw, { ...fetched, descriptor: child })
      // Where the index names no platform, the manifest tells what it is, and the config what it is for.
      const bare = next.platform === undefined && inner._tag === "Image" ? Manifest.checkImage(inner) : undefined
      if (bare !== undefined && Result.isFailure(bare)) {
        candidate.lost = bare.failure.rule
        continue
      }
      const found = yield* descend(inner, fetched.raw, child, next.platform, documents)
      const own = Option.getOrUndefined(found)?.config?.image.platform
      if (Option.isSome(found) && (bare === undefined || (own !== undefined && Platform.distance(wanted, own) !== undefined))) {
        candidate.lost = undefined
        return found
      }
      if (own !== undefined) candidate.platform = Platform.print(own)
      candidate.lost = Option.isSome(found) ? `for another platform: ${candidate.platform}` : "none of its entries fits"
    }
    return Option.none()
  })

  const found = yield* descend(first, answer.raw, base.target, undefined, [])
  const noPlatform = (platforms: ReadonlyArray<string>) => new Platform.NoPlatform({
    reference: printed, wanted: Platform.print(wanted),
    available: [...new Set(platforms.filter((platform) => platform !== unnamed && platform !== Platform.none))]
  })
  if (Option.isNone(found)) return yield* noPlatform(candidates.map(({ platform }) => platform))
  const { config } = found.value
  // An index's word on its entry was taken above, whatever the config leaves out. An artifact runs nowhere.
  const fits = config === undefined || first._tag === "Index" || Platform.distance(wanted, config.image.platform) !== undefined
  if (!fits && config !== undefined && asked !== undefined) return yield* noPlatform([Platform.print(config.image.platform)])
  return yield* planOf(base, found.value, {
    wanted: Platform.print(wanted), fits, candidates: candidates.map(({ lost, ...candidate }) => lost === undefined ? candidate : { ...candidate, lost })
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
type PlanServices = BlobStore | LayerStore | Registry
type PlanFailure = Effect.Error<ReturnType<typeof document>> | Effect.Error<ReturnType<typeof complete>> | Manifest.ManifestRefused
