import type { Digest } from "../src/image/Digest.ts"
import { type BuiltImage, image, index, layer, layerOf, mediaTypes, type Built, type Fields } from "../src/testing/ImageBuilder.ts"
import type { Outcome } from "./outcome.ts"

/** What takes images and documents: a registry, or an archive in the making. */
export interface Shelf {
  put(repository: string, tag: string | undefined, built: Built): unknown
  addManifest(repository: string, tag: string | undefined, raw: Uint8Array, mediaType: string): unknown
  addBlob(repository: string, body: Uint8Array): Digest
}

const { oci, docker } = mediaTypes
export const entries = [{ path: "a", contents: "a" }]
const good = image({ layers: [entries, layer([{ path: "b", contents: "b" }])] })
const own = { os: "linux", architecture: "amd64" }
const json = (value: unknown) => Buffer.from(JSON.stringify(value))
const textOf = (built: Built) => Buffer.from(built.manifest.raw).toString()
const described = (built: Built) => ({ ...built.manifest.descriptor, platform: own })

/** `good` with other fields in its manifest, or with its manifest's text or its config's changed. */
const withFields = (manifestFields: Fields) => image({ layers: [entries], manifestFields })
const withConfig = (configFields: Fields) => image({ layers: [entries], configFields })
const withText = (change: (text: string) => string | Buffer, type: string = oci.manifest) => (shelf: Shelf) => {
  shelf.put("app", undefined, good)
  shelf.addManifest("app", "1", Buffer.from(change(textOf(good))), type)
}
const withConfigText = (change: (text: string) => string | Buffer) => (shelf: Shelf) => {
  const raw = Buffer.from(change(Buffer.from(good.config.raw).toString()))
  shelf.put("app", undefined, good)
  const digest = shelf.addBlob("app", raw)
  const config = { mediaType: oci.config, digest, size: raw.byteLength }
  shelf.addManifest("app", "1", json({ ...JSON.parse(textOf(good)), config }), oci.manifest)
}
const put = (built: Built) => (shelf: Shelf) => { shelf.put("app", "1", built) }
export const first = (built: BuiltImage) => {
  const [one] = built.layers
  return { mediaType: one?.mediaType, digest: one?.digest, size: one?.size ?? 0 }
}
export const sized = (size: unknown) => withFields({ layers: [{ ...first(image({ layers: [entries] })), size }] })
/** The same, with a size that JSON.stringify would not write. */
const sizedText = (size: string) => withText((text) => text.replace(`"size":${first(good).size}`, `"size":${size}`))
export const configSized = (by: number) => {
  const { config } = image({ layers: [entries] })
  return withFields({ config: { ...config.descriptor, size: config.descriptor.size + by } })
}
const nest = (built: Built, depth: number): Built => depth === 0 ? built : index([nest(built, depth - 1)])
/** Two ways down at each level. */
const diamond = (levels: number): Built => {
  let at: Built = image({ layers: [entries], platform: { os: "linux", architecture: "s390x" } })
  for (let level = 0; level < levels; level++) at = index([{ built: at, annotations: { way: "left" } }, { built: at, annotations: { way: "right" } }, ...Array(50).fill(at)])
  return at
}
const wide = (count: number) => index([good], { fields: {
  manifests: [...Array.from({ length: count }, () => ({ ...described(good), platform: { os: "linux", architecture: "s390x" } })), described(good)]
} })
const artifact = (manifestFields: Fields) => image({ layers: [layerOf(Buffer.from("text"), { compression: "none", mediaType: "text/plain" })], manifestFields })

const refused: Outcome = ["ManifestRefused"]
const damaged: Outcome = ["VerifyError"]
const zero = `sha256:${"0".repeat(64)}`

/** Images called `app:1` whose documents play tricks, and how a pull of them ends. */
export const documents: ReadonlyArray<readonly [name: string, make: (shelf: Shelf) => void, outcome: Outcome]> = [
  // JSON.
  ["a byte order mark", withText((text) => `\ufeff${text}`), refused],
  ["a key twice", withText((text) => text.replace("{", `{"schemaVersion":2,`)), refused],
  ["a key in other letters", withText((text) => text.replace("{", `{"Layers":[],`)), refused],
  ["__proto__", withText((text) => text.replace("{", `{"__proto__":{"manifests":[]},`)), ["ManifestRefused"]],
  ["bytes after it", withText((text) => `${text}{}`), refused],
  ["100,000 levels", withText((text) => text.replace("{", `{"x":${"[".repeat(100_000)}${"]".repeat(100_000)},`)), refused],
  ["no UTF-8", withText((text) => Buffer.concat([Buffer.from(text.slice(0, -1)), Buffer.from(`,"x":"\u0000"}`), Buffer.from([0xff])])), refused],
  ["cut short", withText((text) => text.slice(0, -1)), refused],
  ["a list", withText((text) => `[${text}]`), refused],
  ["null", withText(() => "null"), refused],
  ["5 MiB", withText((text) => text.replace("{", `{"x":"${"y".repeat(5 << 20)}",`)), ["AnswerRefused"]],
  // Which kind of document.
  ["layers and manifests", put(withFields({ manifests: [] })), refused],
  ["an index with layers", put(index([good], { fields: { layers: [], config: {} } })), refused],
  ["schema1 fields", put(withFields({ fsLayers: [], history: [] })), refused],
  ["schemaVersion 1", put(withFields({ schemaVersion: 1 })), refused],
  ["schemaVersion \"2\"", put(withFields({ schemaVersion: "2" })), refused],
  ["no schemaVersion", put(withFields({ schemaVersion: undefined })), refused],
  ["the other family's mediaType within", put(withFields({ mediaType: docker.manifest })), refused],
  ["an index's mediaType within", put(withFields({ mediaType: oci.index })), refused],
  ["an index's Content-Type", withText((text) => text, oci.index), refused],
  ["another Content-Type", withText((text) => text, "application/vnd.example+json"), refused],
  ["no mediaType at all", withText((text) => text.replace(`"mediaType":"${oci.manifest}",`, ""), "application/json"), "ok"],
  ["an entry of another mediaType", put(index([{ built: good, fields: { mediaType: docker.manifest } }])), refused],
  ["an entry that calls an image an index", put(index([{ built: good, fields: { mediaType: oci.index } }])), refused],
  // Descriptors.
  ...[-1, 1.5, "7", null].map((size) => [`a layer's size ${String(size)}`, put(sized(size)), refused] as const),
  ...["9007199254740993", "1e3", "1e400", "-0.0", "00"].map((size) => [`a layer's size ${size}`, sizedText(size), refused] as const),
  ["a layer's size one less", put(sized(first(image({ layers: [entries] })).size - 1)), damaged],
  ["a layer's size one more", put(sized(first(image({ layers: [entries] })).size + 1)), damaged],
  ["a layer's size 0", put(sized(0)), damaged],
  ["a layer's size 2^53-1", put(sized(Number.MAX_SAFE_INTEGER)), damaged],
  ["a config's size one less", put(configSized(-1)), damaged],
  ["a config's size one more", put(configSized(1)), damaged],
  ["a config's size 1 TB", put(configSized(1e12)), damaged],
  ["an entry's size one less", put(index([{ built: good, fields: { size: good.manifest.raw.byteLength - 1 } }])), damaged],
  ["an entry's size one more", put(index([{ built: good, fields: { size: good.manifest.raw.byteLength + 1 } }])), damaged],
  ...["sha256:../../../../etc/passwd", `sha256:${"A".repeat(64)}`, "md5:d41d8cd98f00b204e9800998ecf8427e", `sha512:${"0".repeat(64)}`, `${zero}\n`].map((digest) =>
    [`a layer's digest ${JSON.stringify(digest.slice(0, 20))}`, put(withFields({ layers: [{ ...first(good), digest }] })), refused] as const),
  ["a layer that is not there", put(withFields({ layers: [{ ...first(good), digest: zero }] })), ["NotFound"]],
  ["a config that is not there", put(withFields({ config: { mediaType: oci.config, digest: zero, size: 3 } })), ["NotFound"]],
  ["an entry that is not there", put(index([{ built: good, fields: { digest: zero } }])), ["NotFound"]],
  ["layers null", put(withFields({ layers: null })), refused],
  ["no layers", put(withFields({ layers: undefined })), refused],
  // Indexes.
  ["an index 8 deep", put(nest(good, 8)), "ok"],
  ["an index 9 deep", put(nest(good, 9)), refused],
  ["a diamond, 7 levels of 52 ways", put(diamond(7)), ["NoPlatform"]],
  ["4097 entries", put(wide(4096)), refused],
  ["5000 entries", put(wide(5000)), refused],
  ["4096 entries", put(wide(4095)), "ok"],
  ["an index of nothing", put(index([])), ["NoPlatform"]],
  ["an index of null", put(index([], { fields: { manifests: null } })), ["NoPlatform"]],
  ["4097 layers", put(withFields({ layers: Array.from({ length: 4097 }, () => first(good)) })), refused],
  // Configs.
  ["4097 diff IDs", put(withConfig({ rootfs: { type: "layers", diff_ids: Array.from({ length: 4097 }, () => zero) } })), refused],
  ["a history of 4097 steps", put(withConfig({ history: Array.from({ length: 4097 }, () => ({ created_by: "a", empty_layer: true })) })), refused],
  ["a history of 4096 steps", put(withConfig({ history: Array.from({ length: 4096 }, () => ({ created_by: "a", empty_layer: true })) })), "ok"],
  ["a diff ID too few", put(withConfig({ rootfs: { type: "layers", diff_ids: [] } })), refused],
  ["a diff ID too many", put(withConfig({ rootfs: { type: "layers", diff_ids: [zero, zero] } })), refused],
  ["a wrong diff ID", put(withConfig({ rootfs: { type: "layers", diff_ids: [zero] } })), ["LayerRefused"]],
  ["a diff ID that is a path", put(withConfig({ rootfs: { type: "layers", diff_ids: ["../../x"] } })), refused],
  ["a rootfs of another type", put(withConfig({ rootfs: { type: "tree", diff_ids: [zero] } })), refused],
  ["no rootfs", put(withConfig({ rootfs: undefined })), refused],
  // Docker, containerd and podman pull these too: what counts is the manifest.
  ["a history of another length", put(withConfig({ history: [{ created_by: "a" }, { created_by: "b" }, { created_by: "c", empty_layer: true }] })), "ok"],
  ["a history of empty layers alone", put(withConfig({ history: [{ created_by: "a", empty_layer: true }] })), "ok"],
  ["an empty_layer that is text", put(withConfig({ history: [{ created_by: "a", empty_layer: "true" }] })), refused],
  ["a config with a key twice", withConfigText((text) => text.replace("{", `{"rootfs":{"type":"layers","diff_ids":[]},`)), refused],
  ["a config with bytes after it", withConfigText((text) => `${text} x`), refused],
  ["a config of 100,000 levels", withConfigText(() => "[".repeat(100_000)), refused],
  ["an empty config", withConfigText(() => ""), refused],
  ["a config of 5 MiB", withConfigText((text) => text.replace("{", `{"x":"${"y".repeat(5 << 20)}",`)), damaged],
  ["a config for another system than the entry says", put(index([{ built: withConfig({ architecture: "s390x" }), platform: own }])), "ok"],
  // Artifacts.
  ["an artifact by its config", put(artifact({ config: { ...artifact({}).config.descriptor, mediaType: "application/vnd.oci.empty.v1+json" } })), "ok"],
  ["an artifact by its layers", put(artifact({})), "ok"],
  ["an artifact by its artifactType", put(artifact({ artifactType: "application/vnd.example.sbom" })), "ok"],
  ["an artifact whose blob is not there", put(withFields({ config: { mediaType: "application/vnd.example+json", digest: zero, size: 3 }, layers: [] })), ["NotFound"]],
  ["an artifact whose blob has another size", put(withFields({ config: { ...image({ layers: [entries] }).config.descriptor, mediaType: "application/vnd.example+json", size: 3 }, layers: [] })), damaged],
  ["an artifact in an index for this platform", put(index([{ built: artifact({}), platform: own }])), "ok"],
  ["an index of artifacts alone", put(index([{ built: artifact({}), platform: null }])), ["NoPlatform"]]
]
