import { Result } from "effect"
import { Descriptor } from "../Descriptor.ts"
import { Digest } from "../Digest.ts"
import * as ImageConfig from "../ImageConfig.ts"
import * as MediaType from "../MediaType.ts"
import * as GoJson from "./go/GoJson.ts"
import * as GoText from "./go/GoText.ts"
import type * as LegacyDigest from "./LegacyDigest.ts"
import * as StrongId from "./StrongId.ts"
import * as V1Image from "./V1Image.ts"

/** One image of the old graph on the way to its modern form: its old JSON, and its own layer (undefined: it has none). */
export interface Step {
  /** Its ID in the old graph. It becomes an annotation of the manifest, so that two images never have one manifest. */
  readonly id: string
  /** A `v1Compatibility` text, or a v1 registry's or archive's `json`. */
  readonly json: string
  readonly layer: { readonly blob: Descriptor; readonly diffId: Digest } | undefined
}

/** A generated document: its bytes and what points at them. */
export interface Generated {
  readonly descriptor: Descriptor
  readonly raw: Uint8Array
}

/** An image of the old graph in OCI's form: config and manifest, and the layers that are in it, bottom first. */
export interface OciForm {
  readonly config: Generated
  readonly manifest: Generated
  readonly layers: ReadonlyArray<{ readonly blob: Descriptor; readonly diffId: Digest }>
}

/** The diff ID of a tar without entries: 1024 zero bytes. */
const emptyTar = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

const encoder = new TextEncoder()

const generated = (mediaType: string, text: string, hash: LegacyDigest.Hash): Generated => {
  const raw = encoder.encode(text)
  return { descriptor: new Descriptor({ mediaType, digest: Digest.make(`sha256:${hash("sha256", raw)}`), size: raw.byteLength }), raw }
}

/** Whether a build step left no layer: it says so itself (`throwaway`, as Docker 1.10 wrote it), and its layer is indeed empty. */
const isThrownAway = (document: GoJson.GoValue | undefined, layer: Step["layer"]): boolean =>
  layer === undefined || (layer.diffId === emptyTar && document?.kind === "object"
    && new Map(document.members()).get("throwaway")?.source === "true")

/** One entry of a config's history (docker 1.10: image/v1.HistoryFromConfig), as JSON text. */
const historyOf = (image: V1Image.V1Image, empty: boolean): string => {
  const texts = [
    ["author", image.string("author")], ["created_by", (image.containerConfig.list("Cmd") ?? []).join(" ")], ["comment", image.string("comment")]
  ] as const
  const members = [`"created":${GoJson.quote(image.created)}`,
    ...texts.flatMap(([name, text]) => text === "" ? [] : [`${GoJson.quote(name)}:${GoJson.quote(text)}`]), ...empty ? [`"empty_layer":true`] : []]
  return `{${members.join(",")}}`
}

const without = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"]

const print = (fields: ReadonlyMap<string, string>): string =>
  `{${[...fields].sort(([one], [other]) => GoText.compare(one, other)).map(([key, value]) => `${GoJson.quote(key)}:${value}`).join(",")}}`

/**
 * The top image's JSON as an image config (docker 1.10: image/v1.MakeConfigFromV1Config, whose IDs come out here too), with
 * `history` and `rootfs`. Where such a text would not be a config to everyone (a platform is missing, a known field is
 * written in another case), it is written anew from what Docker 1.9.1 understood of it.
 */
const configOf = (image: V1Image.V1Image, document: GoJson.GoValue, history: string, rootfs: string): string => {
  const finish = (fields: Map<string, string>): string => {
    for (const key of without) fields.delete(key)
    return print(fields.set("history", history).set("rootfs", rootfs))
  }
  const typed = () => {
    const fields = image.print()
    if (image.string("architecture") === "") fields.set("architecture", `"amd64"`)
    if (image.string("os") === "") fields.set("os", `"linux"`)
    return finish(fields)
  }
  if (image.string("architecture") === "" || image.string("os") === "" || document.kind !== "object") return typed()
  const verbatim = finish(StrongId.isBefore183(image.string("docker_version")) ? image.print()
    : new Map([...document.members()].map(([key, value]): [string, string] => [key, value.compact()])))
  return Result.isSuccess(ImageConfig.decode(encoder.encode(verbatim))) ? verbatim : typed()
}

/** The annotation of a generated manifest that holds the image's ID in Docker's old graph. */
export const idAnnotation = "towline.image.old-id"

/** The deepest chain of images that is taken. Docker's own graph ended at 127. */
export const maxDepth = 256

/**
 * Bytes that the documents of a chain may have in all: 32 MiB. Each image's config tells the history of all below it: 4 MiB of texts could
 * become 500. Docker's deepest chains, with commands of a kilobyte, take 10.
 */
export const maxBytes = 32 * 1024 * 1024

/**
 * The OCI form of every image of a chain, bottom first: each with the images below it. A pure function of the images: the
 * same bytes on every host, in every time zone and language. Layers keep the blobs they came in.
 */
export const chain = (steps: ReadonlyArray<Step>, hash: LegacyDigest.Hash): Result.Result<ReadonlyArray<OciForm>, V1Image.InvalidV1Image> =>
  Result.gen(function*() {
    const refuse = (reason: string) => Result.fail(new V1Image.InvalidV1Image({ rule: "json", field: "", reason }))
    if (steps.length > maxDepth) return yield* refuse(`it stands on ${steps.length - 1} others, at most ${maxDepth - 1} are taken`)
    const layers: Array<NonNullable<Step["layer"]>> = []
    const history: Array<string> = []
    const forms: Array<OciForm> = []
    let written = 0
    for (const { id, json, layer } of steps) {
      const text = json.toWellFormed()
      const image = yield* V1Image.decode(text)
      const document = yield* Result.mapError(GoJson.parse(text), ({ reason }) => new V1Image.InvalidV1Image({ rule: "json", field: "", reason }))
      const empty = isThrownAway(document, layer)
      if (!empty && layer !== undefined) layers.push(layer)
      history.push(historyOf(image, empty))
      const rootfs = `{"type":"layers","diff_ids":[${layers.map(({ diffId }) => GoJson.quote(diffId)).join(",")}]}`
      const config = generated(MediaType.ociConfig, configOf(image, document, `[${history.join(",")}]`, rootfs), hash)
      const manifest = generated(MediaType.ociManifest, JSON.stringify({
        schemaVersion: 2, mediaType: MediaType.ociManifest, config: pointer(config.descriptor), layers: layers.map(({ blob }) => pointer(blob)),
        annotations: { [idAnnotation]: id }
      }), hash)
      written += config.raw.byteLength + manifest.raw.byteLength
      if (written > maxBytes) return yield* refuse(`the configs of its ${steps.length} images would have more than ${maxBytes} bytes in all, each with the history of those below it`)
      forms.push({ config, manifest, layers: [...layers] })
    }
    return forms
  })

const pointer = ({ digest, mediaType, size }: Descriptor) => ({ mediaType: MediaType.asOci(mediaType), digest, size })
