import { Result, Schema, SchemaIssue } from "effect"
import { Descriptor } from "./Descriptor.ts"
import { Digest } from "./Digest.ts"
import * as Json from "./Json.ts"
import * as MediaType from "./MediaType.ts"
import { Platform } from "./Platform.ts"
import { printable } from "./Printable.ts"

/** A manifest, index or config is refused. `subject` says which, `field` where in it ("" = the whole), `rule` what is wrong there. */
export class ManifestRefused extends Schema.TaggedError<ManifestRefused>()("ManifestRefused", {
  subject: Schema.String,
  field: Schema.String,
  rule: Schema.String
}) {
  override get message() {
    const place = this.field === "" ? "" : `${printable(this.field, 100)}: `
    return `${printable(this.subject, 200)} is refused: ${place}${printable(this.rule)}; nothing of it was kept, and it must be pushed again as a valid OCI or schema2 image`
  }
}

const Annotations = Schema.Record(Schema.String, Schema.String)

/** A layer of an image, with the addresses a foreign layer may be had from. */
export class LayerDescriptor extends Descriptor.extend<LayerDescriptor>("image/LayerDescriptor")({
  urls: Schema.optionalKey(Schema.Array(Schema.String)),
  annotations: Schema.optionalKey(Annotations)
}) {}

/** An entry of an index: a manifest, or another index. */
export class ManifestDescriptor extends Descriptor.extend<ManifestDescriptor>("image/ManifestDescriptor")({
  platform: Schema.optionalKey(Platform),
  annotations: Schema.optionalKey(Annotations),
  artifactType: Schema.optionalKey(Schema.String)
}) {}

/** One image, or an artifact in an image's clothes (`checkImage` tells). Layers are bottom first. */
export class ImageManifest extends Schema.TaggedClass<ImageManifest>("image/ImageManifest")("Image", {
  mediaType: Schema.String,
  config: Descriptor,
  layers: Schema.Array(LayerDescriptor),
  annotations: Schema.optionalKey(Annotations),
  artifactType: Schema.optionalKey(Schema.String)
}) {}

/** Images for several platforms, in the order of preference. */
export class IndexManifest extends Schema.TaggedClass<IndexManifest>("image/IndexManifest")("Index", {
  mediaType: Schema.String,
  manifests: Schema.Array(ManifestDescriptor)
}) {}

/** So many layers (4,096) an image may have, and steps its history: each costs some kilobytes on its way. Docker takes 127. */
export const maxLayers = 4096

/** Refuses a list of layers, or of what there is one of for each, that is too long; what is no list is refused where it is decoded. */
export const refuseCrowd = (list: Json.Value | undefined, field: string, subject: string): Result.Result<void, ManifestRefused> =>
  Array.isArray(list) && list.length > maxLayers
    ? Result.fail(new ManifestRefused({ subject, field, rule: `it has ${list.length} entries, and at most ${maxLayers} are taken` })) : Result.void

/** What a manifest request can lead to. */
export type Document = ImageManifest | IndexManifest

// The shapes on the wire; where Go writes null for what is empty, null is read as absent.
const MediaTypeText = Schema.String.check(Schema.isPattern(/^[\x20-\x7e]{1,255}$/, { message: "expected a media type" }))
const aSize = { message: "expected an integer from 0 to 9007199254740991" }
const Size = Schema.Number.annotate(aSize).check(Schema.isInt(aSize), Schema.isGreaterThanOrEqualTo(0, aSize))
const nullable = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const Word = Platform.fields.os
const WirePlatform = Schema.Struct({
  os: nullable(Word), architecture: nullable(Word), variant: nullable(Word),
  "os.version": nullable(Word), "os.features": nullable(Schema.Array(Word))
})
const common = { mediaType: MediaTypeText, digest: Digest, size: Size }
const extras = { annotations: nullable(Annotations), artifactType: nullable(Schema.String) }
const WireDescriptor = Schema.Struct(common)
const WireLayer = Schema.Struct({ ...common, urls: nullable(Schema.Array(Schema.String)), annotations: nullable(Annotations) })
const WireEntry = Schema.Struct({ ...common, ...extras, platform: nullable(WirePlatform) })
const WireImage = Schema.Struct({ config: WireDescriptor, layers: Schema.NullOr(Schema.Array(WireLayer)), ...extras })
const WireIndex = Schema.Struct({ manifests: Schema.NullOr(Schema.Array(WireEntry)) })

/** `value` without the keys whose value is undefined, null or empty text: Go leaves such fields out, or writes them so. */
export const present = <T extends object>(value: T): { [K in keyof T]?: NonNullable<T[K]> } => {
  const out: { [K in keyof T]?: NonNullable<T[K]> } = {}
  for (const key in value) {
    const item = value[key]
    if (item !== undefined && item !== null && item !== "") out[key] = item
  }
  return out
}

/** A platform as written in an entry or config; what is missing is "". */
export const platformOf = (wire: typeof WirePlatform.Type): Platform =>
  new Platform({
    os: wire.os ?? "", architecture: wire.architecture ?? "",
    ...present({ variant: wire.variant, osVersion: wire["os.version"], osFeatures: wire["os.features"] })
  })

const imageOf = (mediaType: string, wire: typeof WireImage.Type) =>
  new ImageManifest({
    mediaType,
    config: new Descriptor(wire.config),
    layers: (wire.layers ?? []).map(({ mediaType, digest, size, urls, annotations }) =>
      new LayerDescriptor({ mediaType, digest, size, ...present({ urls, annotations }) })),
    ...present({ annotations: wire.annotations, artifactType: wire.artifactType })
  })

const indexOf = (mediaType: string, wire: typeof WireIndex.Type) =>
  new IndexManifest({
    mediaType,
    manifests: (wire.manifests ?? []).map(({ mediaType, digest, size, platform, annotations, artifactType }) =>
      new ManifestDescriptor({
        mediaType, digest, size,
        ...(platform === undefined || platform === null ? {} : { platform: platformOf(platform) }),
        ...present({ annotations, artifactType })
      }))
  })

const documentKeys = new Set([
  "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers", "history", "signatures", "blobs"
])
const descriptorKeys = new Set(["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"])
const platformKeys = new Set(["architecture", "os", "os.version", "os.features", "variant", "features"])

/** The first key, with its place, that is a known one but for its case. */
const miscased = (body: Json.JsonObject): string | undefined => {
  const top = Json.miscased(body, documentKeys)
  if (top !== undefined) return top
  const listed = (field: string) => {
    const items = body[field]
    return Array.isArray(items) ? items.map((item, index): readonly [string, Json.Value] => [`${field}[${index}]`, item]) : []
  }
  for (const [place, item] of [["config", body["config"]] as const, ...listed("layers"), ...listed("manifests")]) {
    if (!Json.isObject(item)) continue
    const key = Json.miscased(item, descriptorKeys)
    if (key !== undefined) return `${place}.${key}`
    const platform = item["platform"]
    const inner = Json.isObject(platform) ? Json.miscased(platform, platformKeys) : undefined
    if (inner !== undefined) return `${place}.platform.${inner}`
  }
  return undefined
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** Decodes a value with a schema; the first thing wrong becomes the refusal. */
export const decodeWith = <A>(schema: Schema.Codec<A, unknown>, value: unknown, subject: string): Result.Result<A, ManifestRefused> =>
  Result.mapError(Schema.decodeUnknownResult(schema)(value), (error) => {
    const issue = format(error.issue).issues[0]
    const field = (issue?.path ?? []).map((segment) => typeof segment === "object" ? segment.key : segment)
      .map((key, index) => typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`).join("")
    return new ManifestRefused({ subject, field, rule: issue === undefined ? "not as specified" : issue.message === "Missing key" ? "it is missing" : issue.message })
  })

/** Reads a JSON object of hostile origin (`Json.decode`); what is wrong with it becomes the refusal. */
export const decodeObject = (raw: Uint8Array, subject: string): Result.Result<Json.JsonObject, ManifestRefused> =>
  Result.match(Json.decode(raw), {
    onFailure: ({ at, reason }) => Result.fail(new ManifestRefused({ subject, field: "", rule: `no acceptable JSON at character ${at + 1}: ${reason}` })),
    onSuccess: (value) => Json.isObject(value) ? Result.succeed(value)
      : Result.fail(new ManifestRefused({ subject, field: "", rule: "it is no JSON object" }))
  })

const generic = new Set(["", "application/json", "text/plain", "text/json", "application/octet-stream", "binary/octet-stream"])

/** A Content-Type without parameters; undefined if it says nothing about the kind of document. */
const declared = (contentType: string | undefined): string | undefined => {
  const bare = (contentType ?? "").split(";", 1).join("").trim().toLowerCase()
  return generic.has(bare) ? undefined : bare
}

/** Where a manifest came from: what the answer's header and the descriptor that led to it say, as far as there are any. */
export interface Context {
  readonly contentType?: string
  readonly descriptor?: Descriptor
}

const schema1Fields = ["fsLayers", "history", "signatures"]

/** The one type that header, descriptor and document agree on, else what the document's fields show. */
const mediaTypeOf = (body: Json.JsonObject, { contentType, descriptor }: Context): Result.Result<string, readonly [field: string, rule: string]> => {
  const own = body["mediaType"] ?? undefined
  if (own !== undefined && typeof own !== "string") return Result.fail(["mediaType", "expected a string"])
  const witnesses = [["the document", own === "" ? undefined : own], ["its descriptor", descriptor?.mediaType], ["the answer's Content-Type", declared(contentType)]]
    .flatMap(([who, says]) => says === undefined ? [] : [{ who, says }])
  const [first] = witnesses
  const other = witnesses.find(({ says }) => says !== first?.says)
  if (witnesses.some(({ says }) => says === MediaType.schema1 || says === MediaType.schema1Signed) || body["schemaVersion"] === 1) {
    return Result.fail(["schemaVersion", "it is a Docker schema1 manifest, and schema1 is not supported yet"])
  }
  if (first !== undefined && other !== undefined) {
    return Result.fail(["mediaType", `${first.who} says ${first.says}, ${other.who} says ${other.says}`])
  }
  return Result.succeed(first?.says ?? ("manifests" in body ? MediaType.ociIndex : MediaType.ociManifest))
}

/**
 * Decodes an OCI manifest or index, or a Docker schema2 manifest or manifest list (image-spec, manifest.md and
 * image-index.md; distribution, manifest-v2-2.md), of at most the size the caller caps. Content-Type, descriptor and the
 * document's own mediaType must agree, and it must have the fields of one kind only. Unknown fields are left out: digests
 * are over `raw`, which the caller keeps.
 */
export const decode = (raw: Uint8Array, context: Context = {}): Result.Result<Document, ManifestRefused> =>
  Result.gen(function*() {
    const subject = context.descriptor === undefined ? "the manifest" : `the manifest ${context.descriptor.digest}`
    const refuse = (field: string, rule: string) => Result.fail(new ManifestRefused({ subject, field, rule }))
    const body = yield* decodeObject(raw, subject)
    const mediaType = yield* Result.mapError(mediaTypeOf(body, context), ([field, rule]) => new ManifestRefused({ subject, field, rule }))
    if (!MediaType.isIndex(mediaType) && !MediaType.isManifest(mediaType)) {
      return yield* refuse("mediaType", `${mediaType} is no manifest or index of images`)
    }
    const odd = miscased(body)
    if (odd !== undefined) return yield* refuse(odd, "a known field but for upper and lower case: readers differ in what it means")
    if (body["schemaVersion"] !== 2) return yield* refuse("schemaVersion", "expected 2")
    const isIndex = MediaType.isIndex(mediaType)
    const alien = [...schema1Fields, "blobs", ...(isIndex ? ["config", "layers"] : ["manifests"])].find((field) => field in body)
    if (alien !== undefined) return yield* refuse(alien, `a field of another kind of document in one of type ${mediaType}`)
    if (!isIndex) yield* refuseCrowd(body["layers"], "layers", subject)
    return isIndex ? indexOf(mediaType, yield* decodeWith(WireIndex, body, subject)) : imageOf(mediaType, yield* decodeWith(WireImage, body, subject))
  })

/**
 * What kind of artifact a manifest describes: its `artifactType`, else the media type of its config, else that of the first
 * layer that is no file system. Undefined: it is an image. To be asked before fetching its config.
 */
export const artifactOf = (manifest: ImageManifest): string | undefined => {
  if (Result.isSuccess(checkImage(manifest))) return undefined
  const { artifactType, config, layers } = manifest
  if (artifactType !== undefined) return artifactType
  if (!MediaType.isConfig(config.mediaType)) return config.mediaType
  return layers.find(({ mediaType }) => MediaType.layerCompression(mediaType) === undefined)?.mediaType ?? config.mediaType
}

/** Refuses an artifact: its config is no image config, or it has layers that are no file systems. */
export const checkImage = (manifest: ImageManifest, subject = "the manifest"): Result.Result<ImageManifest, ManifestRefused> => {
  const { config, layers, mediaType } = manifest
  // Docker before 1.11 sent the config of an image as an octet stream.
  const isImage = MediaType.isConfig(config.mediaType) || (mediaType === MediaType.dockerManifest && config.mediaType === "application/octet-stream")
  if (!isImage) {
    return Result.fail(new ManifestRefused({ subject, field: "config.mediaType", rule: `it is an artifact of type ${manifest.artifactType ?? config.mediaType}, not an image` }))
  }
  const alien = layers.findIndex((layer) => MediaType.layerCompression(layer.mediaType) === undefined)
  const found = layers[alien]
  return found === undefined ? Result.succeed(manifest)
    : Result.fail(new ManifestRefused({ subject, field: `layers[${alien}].mediaType`, rule: `${found.mediaType} is no file-system layer that can be unpacked` }))
}
