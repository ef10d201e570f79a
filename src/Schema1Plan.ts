import { Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { Descriptor } from "./image/Descriptor.ts"
import * as Digest from "./image/Digest.ts"
import { ImageId } from "./image/ImageId.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Platform from "./image/Platform.ts"
import type * as Reference from "./image/Reference.ts"
import * as FixManifest from "./image/v1/FixManifest.ts"
import type { LegacyManifest } from "./image/v1/LegacyManifest.ts"
import * as OciForm from "./image/v1/OciForm.ts"
import * as SignedManifest from "./image/v1/SignedManifest.ts"
import * as StrongId from "./image/v1/StrongId.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import { LayerState } from "./progress/PullEvent.ts"
import * as Policy from "./Policy.ts"
import * as Jws from "./registry/Jws.ts"
import * as Origin from "./Origin.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph, type Node } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"

/**
 * A schema1 manifest is refused, or one of its images. `rule` says which check, `index` the entry (0 is the top) where it is
 * about one; `reason` is Docker's own wording where Docker had one.
 */
export class Schema1Refused extends Schema.TaggedError<Schema1Refused>()("Schema1Refused", {
  reference: Schema.String, rule: Schema.String, index: Schema.optionalKey(Schema.Natural), reason: Schema.String
}) {
  override get message() {
    return `the schema1 manifest of ${this.reference} is refused: ${this.reason}`
  }
}

/** An image of the manifest: its graph ID, the one it stands on, its JSON and v1Compatibility text, and its layer as the store has it. */
export class Schema1Image extends Schema.Class<Schema1Image>("Schema1Image")({
  id: ImageId,
  /** Whether the graph has it. */
  known: Schema.Boolean,
  parent: Schema.optionalKey(ImageId),
  config: Schema.String,
  v1Compatibility: Schema.String,
  blob: Descriptor,
  /** Known where the blob was unpacked before. */
  diffId: Schema.optionalKey(Digest.Digest),
  state: LayerState,
  have: Schema.Natural,
  stored: Schema.Boolean
}) {}

/** A document of the plan, byte for byte. */
export const Schema1Document = Schema.Struct({ descriptor: Descriptor, raw: Schema.Uint8Array })

/** What a pull of a schema1 manifest will do, as plain data. */
export class Schema1Plan extends Schema.Class<Schema1Plan>("Schema1Plan")({
  kind: Schema.Literal("schema1"),
  repository: Schema.Struct({ domain: Schema.String, path: Schema.String, pinned: Schema.optionalKey(Schema.Boolean) }),
  ...Origin.fields,
  /** What the signatures cover: its digest is the manifest's. */
  target: Descriptor,
  wanted: Schema.String,
  platform: Schema.String,
  fits: Schema.Boolean,
  /** IDs of the keys whose signatures were verified, in libtrust's form; empty: it is not signed, or nobody looked. */
  keys: Schema.Array(Schema.String),
  /** Bottom first. */
  images: Schema.Array(Schema1Image),
  /** What the signatures cover, and the document as it came, where that is more. */
  documents: Schema.Array(Schema1Document)
}) {}

/** Whether an answer is a schema1 manifest: its Content-Type says so, or only the document itself tells. */
export const isSchema1 = (raw: Uint8Array, contentType: string | undefined): boolean => {
  if (contentType === MediaType.schema1 || contentType === MediaType.schema1Signed) return true
  if (contentType !== undefined && (MediaType.isIndex(contentType) || MediaType.isManifest(contentType))) return false
  const decoded = SignedManifest.decode(raw, Jws.hash)
  return Result.isSuccess(decoded) && decoded.success.outer.schemaVersion === 1n
}

/** What the manifest says, as far as policy trusts it, and who signed that. */
const trusted = Effect.fnUntraced(function*(signed: SignedManifest.SignedManifest, reference: string, ref: string) {
  const refuse = ({ message, rule }: { readonly message: string; readonly rule?: string }, own = "signature") =>
    new Schema1Refused({ reference, rule: rule ?? own, reason: message })
  if ((yield* Policy.Protocol) === "docker-1.9") {
    return { manifest: yield* Effect.mapError(Effect.fromResult(SignedManifest.verify(signed, ref, Jws.hash)), refuse), keys: [] }
  }
  const wanted = yield* Policy.TrustedKeys
  const { envelope } = signed
  if (Result.isFailure(envelope)) {
    if (envelope.failure.kind !== "missing") return yield* refuse({ message: `its signatures cannot be read: ${envelope.failure.reason}` })
    if (wanted !== undefined) return yield* refuse({ message: "it is not signed, and --trust-key asks for a signature" }, "trust")
    return { manifest: yield* Effect.mapError(Effect.fromResult(SignedManifest.verify(signed, ref, Jws.hash)), refuse), keys: [] }
  }
  const manifest = yield* Effect.mapError(Effect.fromResult(SignedManifest.signed(signed)), (error) =>
    refuse(error._tag === "InvalidEnvelope" ? { message: error.reason } : error))
  const keys = yield* Effect.mapError(Effect.fromResult(Jws.verify(envelope.success)), ({ index, reason }) =>
    refuse({ message: `signature ${index + 1} of ${envelope.success.signatures.length} does not verify: ${reason}` }))
  if (wanted !== undefined && !keys.some((key) => wanted.includes(key))) {
    return yield* refuse({ message: `it is signed by ${keys.join(", ") || "nobody"}, and --trust-key asks for ${wanted.join(" or ")}` }, "trust")
  }
  return { manifest: yield* Effect.mapError(Effect.fromResult(SignedManifest.checkShape(manifest, ref)), refuse), keys }
})

/** The images a manifest describes, bottom first: fixed as Docker did, with strong IDs (docker 1.9.1: fixManifestLayers, getImageInfos). */
const imagesOf = (manifest: LegacyManifest, reference: string): Result.Result<ReadonlyArray<StrongId.AddressedImage & { readonly blobSum: string }>, Schema1Refused> =>
  Result.gen(function*() {
    const refuse = ({ index, message, rule }: { readonly rule: string; readonly index: number; readonly message: string }) =>
      new Schema1Refused({ reference, rule, index, reason: message })
    const fixed = yield* Result.mapError(FixManifest.fix(manifest), refuse)
    const count = fixed.survivors.length
    if (count > OciForm.maxDepth) return yield* Result.fail(refuse({ rule: "depth", index: 0, message: `it has ${count} images, at most ${OciForm.maxDepth} are taken` }))
    const images = yield* Result.mapError(StrongId.chain(fixed.manifest, Jws.hash), (error) => refuse({ rule: error.rule, message: error.message, index: fixed.survivors[error.index] ?? error.index }))
    return images.map((image, at) => ({ ...image, blobSum: fixed.manifest.fsLayers[at]?.blobSum ?? "" })).reverse()
  })

/** One image as the store has it. A blob's size is asked of the registry where it is not at hand. */
const located = Effect.fnUntraced(function*(image: StrongId.AddressedImage, id: ImageId, parent: ImageId | undefined, digest: Digest.Digest, repository: Repository) {
  const blobs = yield* BlobStore
  const layers = yield* LayerStore
  const node = Option.getOrUndefined<Node>(yield* (yield* Graph).node(id))
  const there = Option.getOrUndefined(yield* blobs.find(digest))
  const own = node?.layer === undefined ? undefined : node.layers.at(-1)
  const known = own?.blob.digest === digest ? own : undefined
  const diffId = known?.diffId ?? Option.getOrUndefined(yield* layers.diffIdOf(digest))
  const unpacked = diffId !== undefined && Option.isSome(yield* layers.find(diffId))
  const size = there?.size ?? known?.blob.size ?? (yield* (yield* Registry).size(repository, digest))
  const stored = there !== undefined
  const have = stored ? size : Math.min(size, yield* blobs.partial(digest))
  return new Schema1Image({
    id, known: node !== undefined, ...(parent === undefined ? {} : { parent }), config: image.config, v1Compatibility: image.v1Compatibility,
    blob: new Descriptor({ mediaType: known?.blob.mediaType ?? MediaType.layerOf("gzip"), digest, size }), ...(diffId === undefined ? {} : { diffId }),
    state: unpacked ? "unpacked" : stored ? "stored" : have > 0 ? "partial" : "missing", have, stored
  })
})

/** What the top image is for. Schema1 says no variant, and images of before it said so are amd64. */
const platformOf = (manifest: LegacyManifest, top: StrongId.AddressedImage | undefined) => {
  const image = Result.getOrUndefined(V1Image.decode(top?.v1Compatibility.toWellFormed() ?? "null"))
  const word = (text: string | undefined, other: string) => text !== undefined && /^[a-z0-9_.-]+$/i.test(text) ? text : other
  return Platform.parse(`${word(image?.string("os"), "linux")}/${word(image?.string("architecture"), word(manifest.architecture, "amd64"))}`)
}

/** The answer that a reference led to. */
export interface Schema1Answer {
  readonly raw: Uint8Array
  readonly contentType: string | undefined
  readonly digest: Digest.Digest
  readonly endpoint: string
}

/** Says what a pull of the schema1 manifest in `answer` would do. It writes nothing but the IDs' texts of images it may reuse. */
export const make = Effect.fn("Schema1Plan.make")(function*(
  answer: Schema1Answer,
  { origin, printed, reference, wanted, strict }: { readonly reference: Reference.Reference; readonly origin: Effect.Success<ReturnType<typeof Origin.of>>; readonly printed: string; readonly wanted: Platform.Platform; readonly strict: boolean }
) {
  const repository: Repository = { domain: reference.domain, path: reference.path, ...(reference.digest === undefined ? {} : { pinned: true }) }
  const asked = reference.digest ?? reference.tag ?? "latest"
  const signed = yield* Effect.mapError(Effect.fromResult(SignedManifest.decode(answer.raw, Jws.hash)), ({ message, rule }) =>
    new Schema1Refused({ reference: printed, rule, reason: message }))
  const { keys, manifest } = yield* trusted(signed, printed, asked)
  const images = yield* Effect.fromResult(imagesOf(manifest, printed))
  const ids = yield* (yield* Graph).chooseIds(images, Jws.hash)
  const platform = yield* Effect.fromResult(platformOf(manifest, images.at(-1)))
  const fits = Platform.distance(wanted, platform) !== undefined
  if (!fits && strict) {
    return yield* new Platform.NoPlatform({ reference: printed, wanted: Platform.print(wanted), available: [Platform.print(platform)] })
  }
  const found = yield* Effect.forEach(images, Effect.fnUntraced(function*(image, at) {
    const { blobSum } = image, below = ids[at - 1]
    if (!Digest.is(blobSum)) {
      return yield* new Schema1Refused({
        reference: printed, rule: "layer-digest", index: images.length - 1 - at,
        reason: `its layer's digest ${JSON.stringify(blobSum.slice(0, 160))} is none that can be fetched and verified: expected sha256: and 64 lower-case hex digits`
      })
    }
    return yield* located(image, ImageId.make(ids[at] ?? ""), below === undefined ? undefined : ImageId.make(below), blobSum, repository)
  }), { concurrency: 4 })
  const content = yield* Effect.mapError(Effect.fromResult(SignedManifest.content(signed)), ({ message, rule }) => new Schema1Refused({ reference: printed, rule, reason: message }))
  const mediaType = answer.contentType === MediaType.schema1 ? MediaType.schema1 : MediaType.schema1Signed
  const target = new Descriptor({ mediaType, digest: answer.digest, size: content.byteLength })
  const whole = new Descriptor({ mediaType, digest: Digest.Digest.make(`sha256:${createHash("sha256").update(answer.raw).digest("hex")}`), size: answer.raw.byteLength })
  return new Schema1Plan({
    kind: "schema1", reference: printed, repository, name: asked, endpoint: answer.endpoint, ...origin, target, wanted: Platform.print(wanted),
    platform: Platform.print(platform), fits, keys, images: found,
    documents: [{ descriptor: target, raw: content }, ...(whole.digest === target.digest ? [] : [{ descriptor: whole, raw: answer.raw }])]
  })
})
