import { Result, Schema } from "effect"
import * as GoJson from "./go/GoJson.ts"
import * as GoText from "./go/GoText.ts"
import * as LegacyDigest from "./LegacyDigest.ts"
import type { LegacyManifest } from "./LegacyManifest.ts"
import * as V1Image from "./V1Image.ts"

/** One layer's image as Docker 1.9 put it into its graph. */
export interface AddressedImage {
  /** The image's JSON, byte for byte (UTF-8): what the strong ID is the hash of. */
  readonly config: string
  /** `sha256:` and 64 hexadecimal digits; the graph ID is these digits. */
  readonly strongId: LegacyDigest.LegacyDigest
  /** That of the image below, "" at the base. */
  readonly parentStrongId: LegacyDigest.LegacyDigest | ""
  /** The `id` of the old JSON, as found. */
  readonly compatibilityId: string
  /** The old JSON, verbatim. */
  readonly v1Compatibility: string
  /** Whether the text was written anew first, as for images of Docker before 1.8.3. */
  readonly fallback: boolean
}

/**
 * No ID can be computed. `rule` is the class of error, `index` the entry's place in its manifest (0 is the top), `field`
 * the place in the entry's JSON, or "" if the error is not in a field.
 */
export class NoStrongId extends Schema.TaggedError<NoStrongId>()("NoStrongId", {
  rule: Schema.Literals(["json", "created", "layer-digest", "parent-digest"]),
  index: Schema.Natural,
  field: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return this.field === "" ? this.reason : `${this.field}: ${this.reason}`
  }
}

/** Whether a `docker_version` is before 1.8.3: part by part as numbers; what is no number, or missing, is 0. */
export const isBefore183 = (version: string): boolean => {
  const parts = version.split("."), least = [1, 8, 3]
  for (let at = 0; at < Math.max(parts.length, least.length); at++) {
    const part = parts[at] ?? "", number = /^[+-]?[0-9]+$/.test(part) ? Number(part) : 0
    if (number !== (least[at] ?? 0)) return number < (least[at] ?? 0)
  }
  return false
}

const encoder = new TextEncoder()

/** The strong ID of a config: `sha256:` and the SHA-256 of its UTF-8 bytes (docker: image.StrongID). */
export const ofConfig = (config: string, hash: LegacyDigest.Hash): string => `sha256:${hash("sha256", encoder.encode(config))}`

/**
 * The config and IDs of one image from its old JSON, its layer's digest and the strong ID of the image below ("" for
 * none): Docker 1.9.1's image.MakeImageConfig and image.StrongID, byte for byte (graph: newContentAddressableImage).
 */
export const address = (
  v1Compatibility: string,
  layerId: string,
  parentId: string,
  hash: LegacyDigest.Hash,
  index = 0
): Result.Result<AddressedImage, NoStrongId> => Result.gen(function*() {
  const text = v1Compatibility.toWellFormed()
  const image = yield* Result.mapError(V1Image.decode(text), ({ rule, field, reason }) => new NoStrongId({ rule, index, field, reason }))
  const fallback = isBefore183(image.string("docker_version"))
  const fields = fallback ? image.print() : yield* rawFields(text, index)
  const checked = (rule: "layer-digest" | "parent-digest", name: string, digest: string) =>
    Result.mapError(LegacyDigest.parse(digest), ({ reason }) => new NoStrongId({ rule, index, field: "", reason: `${name} ${reason}` }))
  fields.set("layer_id", GoJson.quote(yield* checked("layer-digest", "invalid layerID:", layerId)))
  const parent = parentId === "" ? "" : yield* checked("parent-digest", "invalid parentID", parentId)
  if (parent !== "") fields.set("parent_id", GoJson.quote(parent))
  for (const key of ["id", "parent", "Size"]) fields.delete(key)
  const config = `{${[...fields].sort(([one], [other]) => GoText.compare(one, other)).map(([key, value]) => `${GoJson.quote(key)}:${value}`).join(",")}}`
  const strongId = yield* checked("layer-digest", "invalid strong ID:", ofConfig(config, hash))
  return { config, strongId, parentStrongId: parent, compatibilityId: image.id, v1Compatibility, fallback }
})

/** The top level of a text as Go keeps raw values: the last of several equal keys. */
const rawFields = (text: string, index: number): Result.Result<Map<string, string>, NoStrongId> =>
  Result.mapBoth(GoJson.parse(text), {
    onFailure: ({ reason }) => new NoStrongId({ rule: "json", index, field: "", reason }),
    onSuccess: (document) => {
      const last = new Map(document.kind === "object" ? document.members() : [])
      return new Map(Array.from(last, ([key, value]): [string, string] => [key, value.compact()]))
    }
  })

/**
 * The images of a whole manifest, top first as in it; each strong ID is the parent of the next one up. `index` in an error
 * is the entry's place in this manifest. Takes lists of equal length (see `SignedManifest.verify`).
 */
export const chain = (
  manifest: Pick<LegacyManifest, "fsLayers" | "history">,
  hash: LegacyDigest.Hash
): Result.Result<ReadonlyArray<AddressedImage>, NoStrongId> => Result.gen(function*() {
  const images: Array<AddressedImage> = []
  for (let index = manifest.history.length - 1; index >= 0; index--) {
    const { v1Compatibility } = manifest.history[index] ?? { v1Compatibility: "" }, { blobSum } = manifest.fsLayers[index] ?? { blobSum: "" }
    images.push(yield* address(v1Compatibility, blobSum, images.at(-1)?.strongId ?? "", hash, index))
  }
  return images.reverse()
})
