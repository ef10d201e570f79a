import { createHash } from "node:crypto"
import { gzipSync } from "node:zlib"
import { Descriptor } from "../../image/Descriptor.ts"
import type { Digest } from "../../image/Digest.ts"
import { schema1, schema1Signed } from "../../image/MediaType.ts"
import { archive, type Item } from "../Archive.ts"
import { image, type Body, type Built, type BuiltImage, type Fields } from "../ImageBuilder.ts"
import { digestOf, layerOf } from "../ImageLayer.ts"
import { payloadOf, sign, type Signer } from "./Signature.ts"

/** One step of an image's history. */
export interface LegacyStep {
  /** What it adds: entries, or a tar's bytes. Left out: nothing but config changed, and its layer is Docker's empty one. */
  readonly tar?: ReadonlyArray<Item> | Uint8Array
  /** How a v1 registry stores the layer: as it is, gzipped (default), or as these bytes, which are the tar in bzip2, xz or what a test wants. */
  readonly stored?: "none" | "gzip" | Uint8Array
  /** Fields of its v1 json that replace or join the computed ones; undefined removes one. */
  readonly json?: Fields
}

/** What an image of the old world is made of. */
export interface LegacyOptions {
  /** Bottom-up. */
  readonly steps: ReadonlyArray<LegacyStep>
  /** The config's `config` object. Default: Cmd /bin/sh. */
  readonly config?: Fields
  /** Goes into the v1 ids, which are no hashes of anything. Default: demo. */
  readonly seed?: string
  /** Default: 1.9.1. Before 1.8.3 its strong IDs are computed from a text written anew. */
  readonly dockerVersion?: string
}

/** One image of a chain as a v1 registry has it. */
export interface V1Image {
  readonly id: string
  /** undefined: the base. */
  readonly parent: string | undefined
  /** Its json, byte for byte. */
  readonly json: Uint8Array
  /** Its layer as stored. */
  readonly layer: Uint8Array
  /** The digest of its uncompressed tar. */
  readonly diffId: Digest
}

/** How a schema1 manifest is made. */
export interface Schema1Options {
  readonly repository: string
  readonly tag: string
  /** Default: none, which makes an unsigned manifest. */
  readonly signers?: ReadonlyArray<Signer>
  /** Steps (0 is the base) that stand twice, one above the other, as some versions of Docker pushed them. */
  readonly twice?: ReadonlyArray<number>
  /** Fields of the manifest, put in before it is signed. */
  readonly fields?: Fields
  /** What the registry says it is. Default: schema1's own type, signed or not; old registries said application/json. */
  readonly mediaType?: string
}

/** One image in every form it can be pulled in. The layers of all forms hold the same tars. */
export interface LegacyImage {
  /** For a v1 registry: base first, top last. */
  readonly images: ReadonlyArray<V1Image>
  /** For a v2 registry, as a signed manifest of old. Its digest is that of the payload. */
  readonly schema1: (options: Schema1Options) => Built
  /** The same image as it would be made today, without layers for steps that only change config. */
  readonly schema2: BuiltImage
  readonly oci: BuiltImage
}

/** The tar of a layer without entries, and that tar as Docker gzipped it: its digest is in every registry. */
export const emptyTar: Uint8Array = new Uint8Array(1024)
export const emptyLayer: Uint8Array = Buffer.from("H4sIAAAJbogA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=", "base64")

/** An image of the old world and its modern forms, made up to its last byte from the options (signatures apart). */
export const legacy = (options: LegacyOptions): LegacyImage => {
  const { config = { Cmd: ["/bin/sh"] }, dockerVersion = "1.9.1", seed = "demo", steps } = options
  const images: Array<V1Image> = []
  for (const [index, { json, stored = "gzip", tar }] of steps.entries()) {
    const id = createHash("sha256").update(`${seed} ${index}`).digest("hex")
    const parent = images.at(-1)?.id
    const bytes = tar === undefined ? emptyTar : tar instanceof Uint8Array ? tar : archive(tar)
    const command = ["/bin/sh", "-c", `#(nop) step ${index}`]
    const document = {
      id, parent,
      created: `2015-11-20T22:${String(13 + index % 40).padStart(2, "0")}:20.123456789Z`,
      container: createHash("sha256").update(`${seed} container ${index}`).digest("hex"),
      container_config: { Hostname: "tow", Cmd: command, Image: parent ?? "" },
      docker_version: dockerVersion,
      config: { Hostname: "tow", ...config },
      architecture: "amd64", os: "linux",
      Size: tar === undefined ? 0 : bytes.byteLength,
      ...json
    }
    const layer = stored instanceof Uint8Array ? stored : stored === "none" ? bytes : tar === undefined ? emptyLayer : gzipSync(bytes)
    images.push({ id, parent, json: Buffer.from(JSON.stringify(document)), layer, diffId: digestOf(bytes) })
  }
  const blobs = images.map(({ diffId }, index) => {
    const { tar } = steps[index] ?? {}
    const body = tar === undefined ? emptyLayer : gzipSync(tar instanceof Uint8Array ? tar : archive(tar))
    return { digest: digestOf(body), body, diffId }
  })
  const manifest = ({ fields, mediaType, repository, signers = [], tag, twice = [] }: Schema1Options): Built => {
    const entries = images.flatMap((_, index) => twice.includes(index) ? [index, index] : [index]).reverse()
    const payload = payloadOf({
      schemaVersion: 1, name: repository, tag, architecture: "amd64",
      fsLayers: entries.map((index) => ({ blobSum: blobs[index]?.digest })),
      history: entries.map((index) => ({ v1Compatibility: Buffer.from(images[index]?.json ?? "").toString() })),
      ...fields
    })
    const raw = signers.length === 0 ? payload : sign(payload, signers)
    const type = mediaType ?? (signers.length === 0 ? schema1 : schema1Signed)
    const built = { raw, descriptor: new Descriptor({ mediaType: type, digest: digestOf(payload), size: payload.byteLength }) }
    return {
      manifest: built, platform: { os: "linux", architecture: "amd64" },
      manifests: new Map([[built.descriptor.digest, built]]),
      blobs: new Map<Digest, Body>(blobs.map(({ body, digest }) => [digest, body]))
    }
  }
  const modern = (format: "oci" | "docker") => image({
    format, config,
    layers: steps.flatMap(({ tar }) => tar === undefined ? [] : [layerOf(tar instanceof Uint8Array ? tar : archive(tar))]),
    configFields: {
      history: steps.map(({ tar }, index) => ({
        created: "2015-11-20T22:13:20Z", created_by: `/bin/sh -c #(nop) step ${index}`, ...tar === undefined && { empty_layer: true }
      }))
    }
  })
  return { images, schema1: manifest, schema2: modern("docker"), oci: modern("oci") }
}
