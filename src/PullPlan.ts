import { Context, Effect, Option, Result, Schema } from "effect"
import { ArtifactPlan, blobsOf, chosen, PlannedCandidate } from "./ArtifactPlan.ts"
import * as Documents from "./Documents.ts"
import { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { Digest } from "./image/Digest.ts"
import * as Manifest from "./image/Manifest.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Platform from "./image/Platform.ts"
import * as Reference from "./image/Reference.ts"
import * as Origin from "./Origin.ts"
import { LayerState } from "./progress/PullEvent.ts"
import type { Registry, Repository } from "./registry/Registry.ts"
import * as Schema1Plan from "./Schema1Plan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { LayerStore } from "./store/LayerStore.ts"

/**
 * A layer of the plan: its blob, its diff ID, what the store has of it, how many bytes of the blob those are, and whether
 * the blob is verified and in the store: all its bytes may be there before it is.
 */
export class PlannedLayer extends Schema.Class<PlannedLayer>("PlannedLayer")({
  blob: Descriptor, diffId: Digest, state: LayerState, have: Schema.Natural, stored: Schema.Boolean
}) {}

/** What a pull will do, as plain data: where the reference led, which image was chosen and why, and what is still missing. */
export class PullPlan extends Schema.Class<PullPlan>("PullPlan")({
  ...chosen,
  kind: Schema.Literals(["oci", "schema2"]),
  config: Descriptor,
  created: Schema.optionalKey(Schema.String),
  /** Bottom first. */
  layers: Schema.Array(PlannedLayer),
  /** Target, nested indexes, manifest, and last the config. */
  documents: Schema.Array(Documents.PlannedDocument)
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
  documents: Schema.Array(Documents.PlannedDocument),
  /** In the order of the index, each once. */
  images: Schema.Array(Schema.Union([PullPlan, ArtifactPlan])),
  /** Which of them the tag stands for where one is needed: the one for this host, else the first. */
  chosen: Schema.Natural
}) {}

/** The platform of this host, unless something else is asked for. */
export const DefaultPlatform = Context.Reference<string>("PullPlan/DefaultPlatform", {
  defaultValue: () => Platform.print(Platform.host(process.platform, process.arch))
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

/** A plan's facts that depend on how it was asked for. */
interface Asked {
  readonly wanted: string
  readonly fits: boolean
  readonly candidates: ReadonlyArray<typeof PlannedCandidate.Type>
}

const planOf = Effect.fnUntraced(function*({ origin, repository, ...base }: Base, { config, descriptor, documents, entry, manifest }: Documents.Found, asked: Asked) {
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
    documents: [...documents, new Documents.PlannedDocument({ descriptor: manifest.config, raw: config.raw })]
  })
})

/** Every image and artifact of an index, each once. */
const every = Effect.fnUntraced(function*(base: Base, first: Manifest.IndexManifest, raw: Uint8Array, wanted: Platform.Platform) {
  const { repository, target } = base
  const count = yield* Documents.counter
  const seen = new Set<Digest>()
  const leaves: Array<{ readonly child: Descriptor; readonly entry: Platform.Platform | undefined; readonly documents: ReadonlyArray<Documents.PlannedDocument> }> = []
  const candidates: Array<typeof PlannedCandidate.Type> = []
  const indexes: Array<Documents.PlannedDocument> = []
  const walk = Effect.fnUntraced(function*(
    doc: Manifest.IndexManifest, raw: Uint8Array, descriptor: Descriptor, above: ReadonlyArray<Documents.PlannedDocument>
  ): Effect.fn.Return<void, PlanFailure, PlanServices> {
    yield* count(doc, descriptor, above.length)
    const own = new Documents.PlannedDocument({ descriptor, raw })
    const documents = [...above, own]
    indexes.push(own)
    for (const { digest, mediaType, platform, size } of doc.manifests) {
      if (seen.has(digest)) continue
      seen.add(digest)
      const child = new Descriptor({ mediaType, digest, size })
      if (MediaType.isManifest(mediaType)) leaves.push({ child, entry: platform, documents })
      else if (!MediaType.isIndex(mediaType)) candidates.push({ digest, platform: unnamed, lost: `neither a manifest nor an index: ${mediaType}` })
      else {
        const fetched = yield* Documents.document(repository, child)
        const inner = yield* Documents.decode(fetched.raw, { ...fetched, descriptor: child })
        if (inner._tag === "Index") yield* walk(inner, fetched.raw, child, documents)
      }
    }
  })
  yield* walk(first, raw, target, [])
  const hold = Documents.holder((rule) => new Manifest.ManifestRefused({ subject: target.digest, field: "manifests", rule }))
  // A config takes many times its bytes once it is decoded: of each only its plan is kept.
  const found = yield* Effect.forEach(leaves, Effect.fnUntraced(function*({ child, documents, entry }) {
    const fetched = yield* Documents.document(repository, child)
    const manifest = yield* Documents.decode(fetched.raw, { ...fetched, descriptor: child })
    if (manifest._tag !== "Image") return yield* Effect.die(new Error("an index of an image's type"))
    const one = yield* Documents.complete(repository, manifest, {
      descriptor: child, entry, documents: [...documents, new Documents.PlannedDocument({ descriptor: child, raw: fetched.raw })]
    }, () => true)
    yield* hold(fetched.raw.byteLength + (one.config?.raw.byteLength ?? 0), manifest.layers.length)
    const own = entry ?? one.config?.image.platform
    const plan = yield* planOf(base, one, { wanted: own === undefined ? Platform.none : Platform.print(Platform.normalize(own)), fits: true, candidates: [] })
    return { plan, far: one.config === undefined ? Infinity : Platform.distance(wanted, entry ?? one.config.image.platform) ?? 2 ** 40 }
  }), { concurrency: 4 })
  if (found.length === 0) return yield* new Platform.NoPlatform({ reference: base.reference, wanted: Platform.all, available: [] })
  const images = found.map(({ plan }) => plan)
  const far = found.map(({ far }) => far)
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
  const answer = yield* Documents.target(repository, reference)
  const origin = yield* Origin.of(repository, answer)
  const candidates: Array<Judged> = []
  const seen = new Set<Digest>()
  const count = yield* Documents.counter

  if (Schema1Plan.isSchema1(answer.raw, answer.contentType)) {
    return yield* Schema1Plan.make(answer, { reference, printed, origin, wanted, strict: asked !== undefined })
  }
  const first = yield* Documents.decode(answer.raw, answer)
  const base: Base = {
    reference: printed, repository, name: reference.digest ?? reference.tag ?? "latest", endpoint: answer.endpoint, origin,
    target: new Descriptor({ mediaType: first.mediaType, digest: answer.digest, size: answer.raw.byteLength })
  }
  if (isAll && first._tag === "Index") return yield* every(base, first, answer.raw, wanted)

  const descend = Effect.fnUntraced(function*(
    doc: Manifest.Document, raw: Uint8Array, descriptor: Descriptor, entry: Platform.Platform | undefined, above: ReadonlyArray<Documents.PlannedDocument>
  ): Effect.fn.Return<Option.Option<Documents.Found>, PlanFailure, PlanServices> {
    const documents = [...above, new Documents.PlannedDocument({ descriptor, raw })]
    if (doc._tag === "Image") {
      return Option.some(yield* Documents.complete(repository, doc, { descriptor, entry, documents }, (platform) => Platform.distance(wanted, platform) !== undefined))
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
      const fetched = yield* Documents.document(repository, child)
      const inner = yield* Documents.decode(fetched.raw, { ...fetched, descriptor: child })
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
type PlanFailure = Effect.Error<ReturnType<typeof Documents.document>> | Effect.Error<ReturnType<typeof Documents.complete>> | Manifest.ManifestRefused
