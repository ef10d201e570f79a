import { Result, Schema } from "effect"
import { Digest } from "./Digest.ts"
import * as Json from "./Json.ts"
import { checkImage, decodeObject, decodeWith, type ImageManifest, ManifestRefused, platformOf, present, refuseCrowd } from "./Manifest.ts"
import { Platform } from "./Platform.ts"

const Texts = Schema.Array(Schema.String)

/** How to run what is in the image (image-spec, config.md, `config`), in the spec's own words. Sets are lists of their keys. */
export class RunConfig extends Schema.Class<RunConfig>("image/RunConfig")({
  User: Schema.optionalKey(Schema.String),
  ExposedPorts: Schema.optionalKey(Texts),
  Env: Schema.optionalKey(Texts),
  Entrypoint: Schema.optionalKey(Texts),
  Cmd: Schema.optionalKey(Texts),
  Volumes: Schema.optionalKey(Texts),
  WorkingDir: Schema.optionalKey(Schema.String),
  Labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  StopSignal: Schema.optionalKey(Schema.String)
}) {}

/** One step of the build (image-spec, config.md, `history`); `emptyLayer`: it made no layer. */
export class HistoryEntry extends Schema.Class<HistoryEntry>("image/HistoryEntry")({
  created: Schema.optionalKey(Schema.String),
  createdBy: Schema.optionalKey(Schema.String),
  author: Schema.optionalKey(Schema.String),
  comment: Schema.optionalKey(Schema.String),
  emptyLayer: Schema.Boolean
}) {}

/** What an image is and how to run it. Times are RFC 3339 text; `rootfs.diffIds` are bottom first. */
export class ImageConfig extends Schema.Class<ImageConfig>("image/ImageConfig")({
  platform: Platform,
  created: Schema.optionalKey(Schema.String),
  author: Schema.optionalKey(Schema.String),
  config: Schema.optionalKey(RunConfig),
  rootfs: Schema.Struct({ diffIds: Schema.Array(Digest) }),
  history: Schema.Array(HistoryEntry)
}) {}

const nullable = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const Text = nullable(Schema.String)
const Time = nullable(Schema.String.check(Schema.isPattern(
  /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:[.,]\d{1,20})?(?:[Zz]|[+-]\d{2}:\d{2})$/, { message: "expected an RFC 3339 time" }
)))
const KeySet = nullable(Schema.Record(Schema.String, Schema.Unknown))
// Docker reads a single string as a list of one.
const Command = nullable(Schema.Union([Texts, Schema.String]))
const Word = nullable(Platform.fields.os)
const WireRun = Schema.Struct({
  User: Text, ExposedPorts: KeySet, Env: nullable(Texts), Entrypoint: Command, Cmd: Command, Volumes: KeySet,
  WorkingDir: Text, Labels: nullable(Schema.Record(Schema.String, Schema.String)), StopSignal: Text
})
const WireHistory = Schema.Struct({ created: Time, created_by: Text, author: Text, comment: Text, empty_layer: nullable(Schema.Boolean) })
const WireConfig = Schema.Struct({
  os: Word, architecture: Word, variant: Word, "os.version": Word, "os.features": nullable(Schema.Array(Platform.fields.os)),
  created: Time, author: Text, config: nullable(WireRun), history: nullable(Schema.Array(WireHistory)),
  rootfs: Schema.Struct({
    type: Schema.Literal("layers").annotate({ message: `expected "layers"` }),
    diff_ids: Schema.NullOr(Schema.Array(Digest))
  })
})

const keysOf = (schema: { readonly fields: object }) => new Set(Object.keys(schema.fields))
const places = [
  [undefined, keysOf(WireConfig)], ["config", keysOf(WireRun)], ["rootfs", keysOf(WireConfig.fields.rootfs)]
] as const

/** The first key, with its place, that is a known one but for its case. */
const miscased = (body: Json.JsonObject): string | undefined => {
  for (const [field, names] of places) {
    const object = field === undefined ? body : body[field]
    const key = Json.isObject(object) ? Json.miscased(object, names) : undefined
    if (key !== undefined) return field === undefined ? key : `${field}.${key}`
  }
  return undefined
}

const command = (value: ReadonlyArray<string> | string | null | undefined) => typeof value === "string" ? [value] : value
const keys = (value: object | null | undefined) => value === undefined || value === null ? undefined : Object.keys(value)

/**
 * Decodes an image config (image-spec, config.md; Docker's is the same) of at most the size the caller caps. Its rootfs must be
 * of type layers with strict diff IDs. A missing os is linux, as Docker has it, and a missing architecture `unknown`.
 */
export const decode = (raw: Uint8Array): Result.Result<ImageConfig, ManifestRefused> =>
  Result.gen(function*() {
    const subject = "the image's config"
    const body = yield* decodeObject(raw, subject)
    const odd = miscased(body)
    if (odd !== undefined) {
      return yield* Result.fail(new ManifestRefused({ subject, field: odd, rule: "a known field but for upper and lower case: readers differ in what it means" }))
    }
    const rootfs = body["rootfs"]
    yield* refuseCrowd(Json.isObject(rootfs) ? rootfs["diff_ids"] : undefined, "rootfs.diff_ids", subject)
    yield* refuseCrowd(body["history"], "history", subject)
    const wire = yield* decodeWith(WireConfig, body, subject)
    const { config, history } = wire
    return new ImageConfig({
      platform: platformOf({ ...wire, os: wire.os || "linux", architecture: wire.architecture || "unknown" }),
      ...present({ created: wire.created, author: wire.author }),
      ...(config === undefined || config === null ? {} : {
        config: new RunConfig(present({
          ...config, Entrypoint: command(config.Entrypoint), Cmd: command(config.Cmd),
          ExposedPorts: keys(config.ExposedPorts), Volumes: keys(config.Volumes)
        }))
      }),
      rootfs: { diffIds: wire.rootfs.diff_ids ?? [] },
      history: (history ?? []).map(({ created, created_by, author, comment, empty_layer }) =>
        new HistoryEntry({ ...present({ created, createdBy: created_by, author, comment }), emptyLayer: empty_layer ?? false }))
    })
  })

/** The config, if it fits the manifest that names it: an image (`checkImage`) with as many diff IDs as layers. */
export const fits = (config: ImageConfig, manifest: ImageManifest): Result.Result<ImageConfig, ManifestRefused> =>
  Result.flatMap(checkImage(manifest), () => {
    const ids = config.rootfs.diffIds.length, layers = manifest.layers.length
    return ids === layers ? Result.succeed(config) : Result.fail(new ManifestRefused({
      subject: "the image's config", field: "rootfs.diff_ids", rule: `${ids} diff IDs for the ${layers} layers of the manifest`
    }))
  })
