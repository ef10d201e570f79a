import { Result, Schema } from "effect"
import { elements, fields, GoDecode, type List } from "./go/GoDecode.ts"
import * as GoJson from "./go/GoJson.ts"

/** A schema1 manifest as Docker 1.9.1 read one: lists are top first, and their lengths need not agree yet. */
export interface LegacyManifest {
  /** An integer of 64 bits. */
  readonly schemaVersion: bigint
  readonly name: string
  readonly tag: string
  readonly architecture: string
  /** `blobSum` is a `LegacyDigest` if it is valid; not checked here. */
  readonly fsLayers: ReadonlyArray<{ readonly blobSum: string }>
  /** `v1Compatibility` is one image's old JSON, as text. */
  readonly history: ReadonlyArray<{ readonly v1Compatibility: string }>
}

/** A text is no schema1 manifest. `field` is "" when it is no JSON at all. */
export class InvalidLegacyManifest extends Schema.TaggedError<InvalidLegacyManifest>()("InvalidLegacyManifest", {
  field: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return this.field === "" ? this.reason : `${this.field}: ${this.reason}`
  }
}

interface Layer { blobSum: string }
interface Entry { v1Compatibility: string }

/** A manifest while it is read. */
class Draft {
  schemaVersion = 0n
  name = ""
  tag = ""
  architecture = ""
  fsLayers: List<Layer> | undefined
  history: List<Entry> | undefined
}

const layer = fields<Layer>([["blobSum", (layer, value, field, decode) => { layer.blobSum = decode.string(value, field, layer.blobSum) }]])
const entry = fields<Entry>([["v1Compatibility", (entry, value, field, decode) => { entry.v1Compatibility = decode.string(value, field, entry.v1Compatibility) }]])
const manifest = fields<Draft>([
  ["schemaVersion", (draft, value, field, decode) => { draft.schemaVersion = decode.int64(value, field, draft.schemaVersion) }],
  ["name", (draft, value, field, decode) => { draft.name = decode.string(value, field, draft.name) }],
  ["tag", (draft, value, field, decode) => { draft.tag = decode.string(value, field, draft.tag) }],
  ["architecture", (draft, value, field, decode) => { draft.architecture = decode.string(value, field, draft.architecture) }],
  ["fsLayers", (draft, value, field, decode) => {
    draft.fsLayers = decode.list(value, field, draft.fsLayers, (item, field, target = { blobSum: "" }) =>
      decode.struct(item, field, layer, target))
  }],
  ["history", (draft, value, field, decode) => {
    draft.history = decode.list(value, field, draft.history, (item, field, target = { v1Compatibility: "" }) =>
      decode.struct(item, field, entry, target))
  }]
])

/**
 * Reads a schema1 manifest (docker/distribution of 2015: manifest.Manifest) by Go's rules: missing fields are empty,
 * unknown ones dropped, `null` is an empty manifest. `text` must be well-formed UTF-16.
 */
export const decode = (text: string): Result.Result<LegacyManifest, InvalidLegacyManifest> =>
  Result.flatMap(
    Result.mapError(GoJson.parse(text), ({ reason }) => new InvalidLegacyManifest({ field: "", reason })),
    (document) => {
      const read = new GoDecode(), draft = new Draft()
      read.struct(document, "", manifest, draft)
      return read.mismatch === undefined
        ? Result.succeed({ ...draft, fsLayers: elements(draft.fsLayers), history: elements(draft.history) })
        : Result.fail(new InvalidLegacyManifest(read.mismatch))
    }
  )
