import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { Descriptor } from "../../src/image/Descriptor.ts"
import { Digest } from "../../src/image/Digest.ts"
import * as ImageConfig from "../../src/image/ImageConfig.ts"
import * as Manifest from "../../src/image/Manifest.ts"
import * as MediaType from "../../src/image/MediaType.ts"
import * as Platform from "../../src/image/Platform.ts"

const digest = (digit: string) => `sha256:${digit.repeat(64)}`
const descriptor = (mediaType: string, more: object = {}) => ({ mediaType, digest: digest("a"), size: 7, ...more })
const layer = "application/vnd.oci.image.layer.v1.tar+gzip"
const image = (more: object = {}) => ({
  schemaVersion: 2, mediaType: MediaType.ociManifest, config: descriptor(MediaType.ociConfig), layers: [descriptor(layer)], ...more
})
const index = (more: object = {}) => ({ schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: [descriptor(MediaType.ociManifest)], ...more })
const bytes = (body: unknown) => new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body))
const decode = (body: unknown, context: Manifest.Context = {}) => Manifest.decode(bytes(body), context)
const at = (mediaType: string) => Schema.decodeSync(Descriptor)({ mediaType, digest: digest("b"), size: 9 })

/** The field that is refused, or the type it was taken for. */
const outcome = (answer: Result.Result<Manifest.Document, Manifest.ManifestRefused>) =>
  Result.match(answer, { onFailure: ({ field }) => `refused: ${field}`, onSuccess: ({ mediaType }) => mediaType })
const rule = (answer: Result.Result<unknown, Manifest.ManifestRefused>) => Result.getOrThrow(Result.flip(answer)).rule
const getImage = (body: unknown) => {
  const document = Result.getOrThrow(decode(body))
  if (document._tag !== "Image") throw new Error("an index")
  return document
}

describe("Manifest.decode", () => {
  it("reads the four kinds", () => {
    for (const mediaType of [MediaType.ociManifest, MediaType.dockerManifest]) {
      const document = Result.getOrThrow(decode(image({ mediaType, unknown: { deep: [1.5] } })))
      assert.deepStrictEqual([document._tag, document.mediaType], ["Image", mediaType])
    }
    for (const mediaType of [MediaType.ociIndex, MediaType.dockerList]) {
      const document = Result.getOrThrow(decode(index({ mediaType })))
      assert.deepStrictEqual([document._tag, document.mediaType], ["Index", mediaType])
    }
  })

  it("keeps what is needed of every descriptor", () => {
    const found = getImage(image({ layers: [descriptor(layer, { urls: ["https://example.com/x"], annotations: { a: "b" }, data: "eA==", odd: 1 })], annotations: { c: "d" } }))
    assert.deepStrictEqual(found.layers[0], new Manifest.LayerDescriptor({
      mediaType: layer, digest: Schema.decodeSync(Digest)(digest("a")), size: 7, urls: ["https://example.com/x"], annotations: { a: "b" }
    }))
    assert.deepStrictEqual(found.annotations, { c: "d" })
    const document = Result.getOrThrow(decode(index({
      manifests: [descriptor(MediaType.ociManifest, { platform: { os: "windows", architecture: "amd64", "os.version": "10.0.1", "os.features": ["win32k"], variant: "", features: ["x"] } }),
        descriptor(MediaType.ociIndex, { platform: null, annotations: null }), descriptor(MediaType.ociManifest, { artifactType: "a/b", annotations: { "vnd.docker.reference.type": "attestation-manifest" } })]
    })))
    if (document._tag !== "Index") throw new Error("an image")
    const [windows, nested, attestation] = document.manifests
    assert.deepStrictEqual(windows?.platform, new Platform.Platform({ os: "windows", architecture: "amd64", osVersion: "10.0.1", osFeatures: ["win32k"] }))
    assert.deepStrictEqual([nested?.platform, nested?.annotations], [undefined, undefined])
    assert.deepStrictEqual([attestation?.artifactType, attestation?.annotations?.["vnd.docker.reference.type"]], ["a/b", "attestation-manifest"])
  })

  it("takes null for an empty list", () => {
    assert.deepStrictEqual(getImage(image({ layers: null })).layers, [])
    assert.deepStrictEqual(outcome(decode(index({ manifests: null }))), MediaType.ociIndex)
  })

  it("takes only so many layers", () => {
    const of = (count: number) => decode(image({ layers: Array.from({ length: count }, () => descriptor(layer)) }))
    assert.deepStrictEqual([outcome(of(Manifest.maxLayers)), outcome(of(Manifest.maxLayers + 1))], [MediaType.ociManifest, "refused: layers"])
    assert.include(rule(of(5000)), "it has 5000 entries, and at most 4096 are taken")
  })

  it("has header, descriptor and document agree", () => {
    const { mediaType: _, ...untyped } = image()
    const { mediaType: __, ...untypedIndex } = index()
    const [oci, docker] = [MediaType.ociManifest, MediaType.dockerManifest]
    for (const [body, context, expected] of [
      [image(), { contentType: `${oci}; charset=utf-8` }, oci], [image(), { contentType: oci.toUpperCase() }, oci],
      [image(), { contentType: "application/json" }, oci], [image(), { contentType: "text/plain; charset=utf-8" }, oci],
      [image(), { contentType: "application/octet-stream" }, oci], [image(), { contentType: "" }, oci],
      [image(), { contentType: oci, descriptor: at(oci) }, oci],
      [untyped, { contentType: oci }, oci], [untyped, { descriptor: at(oci) }, oci], [untyped, {}, oci], [untypedIndex, {}, MediaType.ociIndex],
      [image({ mediaType: "" }), {}, oci], [image({ mediaType: null }), {}, oci],
      [image(), { contentType: docker }, "refused: mediaType"], [image(), { descriptor: at(docker) }, "refused: mediaType"],
      [image(), { contentType: oci, descriptor: at(MediaType.ociIndex) }, "refused: mediaType"], [image(), { contentType: "text/html" }, "refused: mediaType"],
      [untyped, { contentType: docker, descriptor: at(oci) }, "refused: mediaType"], [untyped, { contentType: MediaType.ociIndex }, "refused: config"],
      [untypedIndex, { contentType: oci }, "refused: manifests"], [image({ mediaType: 7 }), {}, "refused: mediaType"],
      [image({ mediaType: "application/vnd.oci.artifact.manifest.v1+json" }), {}, "refused: mediaType"],
      [image({ mediaType: "application/vnd.oci.image.manifest.v1+json; charset=utf-8" }), {}, "refused: mediaType"]
    ] as const) assert.strictEqual(outcome(decode(body, context)), expected, JSON.stringify([body, context]))
  })

  it("refuses documents of two kinds", () => {
    for (const more of [{ manifests: [] }, { manifests: null }, { fsLayers: [] }, { signatures: [] }, { history: [] }, { blobs: [] }]) {
      assert.strictEqual(outcome(decode(image(more))), `refused: ${Object.keys(more)[0]}`)
    }
    for (const more of [{ layers: [] }, { layers: null }, { config: null }, { fsLayers: [] }]) {
      assert.strictEqual(outcome(decode(index(more))), `refused: ${Object.keys(more)[0]}`)
    }
  })

  it("refuses schema1 with a sentence", () => {
    for (const [body, context] of [
      [{ schemaVersion: 1, name: "a", tag: "b", fsLayers: [], history: [] }, {}], [{ schemaVersion: 1, fsLayers: [] }, { contentType: MediaType.schema1Signed }],
      [image(), { contentType: MediaType.schema1 }]
    ] as const) {
      assert.strictEqual(rule(decode(body, context)), "it is a Docker schema1 manifest, and schema1 is not supported yet")
    }
  })

  it("refuses sizes that are none", () => {
    const sized = (size: string) => JSON.stringify(image()).replaceAll(`"size":7`, `"size":${size}`)
    for (const size of ["-1", "1.5", "7.0", "7e0", "9007199254740992", "9007199254740993", "9007199254740990.9", "1e400", `"7"`, "null", "true", "[7]", "-0"]) {
      assert.strictEqual(outcome(decode(sized(size))), "refused: config.size", size)
      assert.include(rule(decode(sized(size))), "integer from 0 to 9007199254740991")
    }
    for (const size of ["0", "9007199254740991"]) assert.strictEqual(outcome(decode(sized(size))), MediaType.ociManifest)
  })

  it("refuses digests that are none", () => {
    for (const wrong of ["", "sha256:", "sha256:zz", `SHA256:${"a".repeat(64)}`, `sha256:${"A".repeat(64)}`, `sha512:${"a".repeat(64)}`, `md5:${"a".repeat(32)}`,
      `sha256:${"a".repeat(64)}\n`, `sha256:../../${"a".repeat(58)}`, `sha256:${"a".repeat(63)}`, 7, null]) {
      assert.strictEqual(outcome(decode(image({ layers: [descriptor(layer), descriptor(layer, { digest: wrong })] }))), "refused: layers[1].digest")
      assert.strictEqual(outcome(decode(index({ manifests: [descriptor(layer, { digest: wrong })] }))), "refused: manifests[0].digest")
    }
  })

  it("refuses tricks of JSON", () => {
    const text = JSON.stringify(image())
    for (const trick of [`\ufeff${text}`, `${text}{}`, `${text}\u0000`, text.replace(`"layers"`, `"layers":[],"layers"`), text.replace(`"layers"`, `"__proto__":{},"layers"`),
      text.replace(`"size"`, `"size":1,"size"`), "", "null", "[]", `"x"`, "7", "[".repeat(100_000), "{\"a\":".repeat(100_000), "<!doctype html>"]) {
      assert.strictEqual(outcome(decode(trick)), "refused: ", trick.slice(0, 40))
    }
    assert.strictEqual(outcome(Manifest.decode(Uint8Array.from([...bytes("{\"a\":\""), 0xff, ...bytes("\"}")]))), "refused: ")
    for (const [from, to, field] of [[`"layers"`, `"Layers":[],"layers"`, "Layers"], [`"layers"`, `"LAYERS"`, "LAYERS"], [`"config"`, `"Config":{},"config"`, "Config"],
      [`"digest"`, `"Digest":"x","digest"`, "config.Digest"], [`"schemaVersion"`, `"\u017fchemaVersion":1,"schemaVersion"`, "\u017fchemaVersion"]] as const) {
      assert.strictEqual(outcome(decode(text.replace(from, to))), `refused: ${field}`)
    }
    assert.strictEqual(outcome(decode(index({ manifests: [descriptor(layer, { platform: { os: "linux", OS: "x" } })] }))), "refused: manifests[0].platform.OS")
    assert.strictEqual(outcome(decode(image({ annotations: { a: "1", A: "2" } }))), MediaType.ociManifest)
  })

  it("refuses what is missing or of another type", () => {
    for (const [body, field] of [
      [image({ schemaVersion: undefined }), "schemaVersion"], [image({ schemaVersion: 3 }), "schemaVersion"], [image({ schemaVersion: "2" }), "schemaVersion"],
      [image({ config: undefined }), "config"], [image({ config: null }), "config"], [image({ layers: undefined }), "layers"], [image({ layers: {} }), "layers"],
      [image({ layers: [null] }), "layers[0]"], [image({ layers: [descriptor("")] }), "layers[0].mediaType"], [image({ layers: [descriptor("a\u001b[2J")] }), "layers[0].mediaType"],
      [image({ annotations: { a: 1 } }), "annotations.a"], [image({ annotations: [] }), "annotations"], [index({ manifests: undefined }), "manifests"],
      [index({ manifests: [descriptor("a", { platform: { os: "li\u0007nux", architecture: "a" } })] }), "manifests[0].platform.os"], [index({ manifests: "x" }), "manifests"]
    ] as const) assert.strictEqual(outcome(decode(body)), `refused: ${field}`)
  })

  it.prop("answers for whatever bytes and values come, in one printable sentence", [Schema.Union([Schema.Uint8Array, Schema.Json])], ([input]) => {
    const raw = input instanceof Uint8Array ? input : bytes(input)
    const sentence = <A>(answer: Result.Result<A, Manifest.ManifestRefused>) => Result.match(answer, { onFailure: ({ message }) => message, onSuccess: () => "" })
    for (const answer of [sentence(Manifest.decode(raw)), sentence(ImageConfig.decode(raw)),
      sentence(decode(image({ config: input, layers: [input] }))), sentence(decode(index({ manifests: [input] })))]) {
      if (answer === "") continue
      // oxlint-disable-next-line no-control-regex -- that none gets through is the point
      assert.notMatch(answer, /[\u0000-\u001f\u007f]/)
      assert.isBelow(answer.length, 4000)
    }
  })

  it("tells artifacts from images", () => {
    const check = (more: object) => Result.match(Manifest.checkImage(getImage(image(more))), { onFailure: ({ rule }) => rule, onSuccess: () => "an image" })
    assert.strictEqual(check({}), "an image")
    assert.strictEqual(check({ config: descriptor(MediaType.dockerConfig), artifactType: "a/b" }), "an image")
    assert.strictEqual(check({ mediaType: MediaType.dockerManifest, config: descriptor("application/octet-stream") }), "an image")
    assert.include(check({ config: descriptor("application/octet-stream") }), "an artifact of type application/octet-stream")
    assert.include(check({ config: descriptor("application/vnd.oci.empty.v1+json"), artifactType: "application/vnd.example" }), "an artifact of type application/vnd.example")
    assert.include(check({ layers: [descriptor(layer), descriptor("application/vnd.in-toto+json")] }), "application/vnd.in-toto+json is no file-system layer")
  })

  it("takes the largest documents in time", () => {
    const layers = Array.from({ length: 25_000 }, () => descriptor(layer))
    for (const body of [image({ layers }), index({ manifests: layers }), image({ annotations: Object.fromEntries(layers.map((_, i) => [`k${i}`, "v"])) })]) {
      const raw = bytes(body), start = performance.now()
      Manifest.decode(raw)
      assert.isBelow(performance.now() - start, 3000)
    }
  })
})

const config = (more: object = {}) => ({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [digest("c")] }, ...more })
const decodeConfig = (body: unknown) => ImageConfig.decode(bytes(body))

describe("ImageConfig", () => {
  it("reads what Docker and OCI write", () => {
    const read = Result.getOrThrow(decodeConfig(config({
      variant: "v8", "os.version": "1", created: "2024-01-02T03:04:05.123456789Z", author: "", container_config: { Cmd: 7 },
      config: { Env: ["A=b"], Entrypoint: null, Cmd: "run", User: "", WorkingDir: "/w", Labels: { a: "b", A: "c" }, Volumes: { "/v": {} }, ExposedPorts: { "80/tcp": {} }, OnBuild: null },
      history: [{ created: "2024-01-02T03:04:05+01:00", created_by: "x" }, { empty_layer: true }]
    })))
    assert.deepStrictEqual(read.platform, new Platform.Platform({ os: "linux", architecture: "amd64", variant: "v8", osVersion: "1" }))
    assert.deepStrictEqual(read.config, new ImageConfig.RunConfig({
      Env: ["A=b"], Cmd: ["run"], WorkingDir: "/w", Labels: { a: "b", A: "c" }, Volumes: ["/v"], ExposedPorts: ["80/tcp"]
    }))
    assert.strictEqual(read.created, "2024-01-02T03:04:05.123456789Z")
    assert.strictEqual(read.author, undefined)
    assert.deepStrictEqual(read.history.map(({ createdBy, emptyLayer }) => [createdBy, emptyLayer]), [["x", false], [undefined, true]])
    assert.strictEqual(Platform.print(Result.getOrThrow(decodeConfig({ rootfs: { type: "layers", diff_ids: null } })).platform), "linux/unknown")
  })

  it("refuses what is none", () => {
    const field = (body: unknown) => Result.match(decodeConfig(body), { onFailure: ({ field }) => field, onSuccess: () => "accepted" })
    for (const [body, place] of [
      [{}, "rootfs"], [config({ rootfs: { type: "layers+base", diff_ids: [] } }), "rootfs.type"], [config({ rootfs: { diff_ids: [] } }), "rootfs.type"],
      [config({ rootfs: { type: "layers" } }), "rootfs.diff_ids"], [config({ rootfs: { type: "layers", diff_ids: ["sha256:x"] } }), "rootfs.diff_ids[0]"],
      [config({ rootfs: { type: "layers", diff_ids: [`sha384:${"a".repeat(96)}`] } }), "rootfs.diff_ids[0]"], [config({ OS: "x" }), "OS"],
      [config({ rootfs: { type: "layers", diff_ids: [], Diff_IDs: [] } }), "rootfs.Diff_IDs"], [config({ config: { env: [] } }), "config.env"],
      [config({ created: "yesterday" }), "created"], [config({ config: { Env: [1] } }), "config.Env[0]"], ["{}{}", ""], ["[]", ""]
    ] as const) assert.strictEqual(field(body), place, JSON.stringify(body))
  })

  it("fits its manifest, or not", () => {
    const fits = (diffIds: number, more: object) => Result.flatMap(
      decodeConfig(config({ rootfs: { type: "layers", diff_ids: Array.from({ length: diffIds }, () => digest("c")) } })),
      (read) => ImageConfig.fits(read, getImage(image(more))))
    assert.isTrue(Result.isSuccess(fits(1, {})))
    assert.isTrue(Result.isSuccess(fits(0, { layers: null })))
    assert.include(rule(fits(2, {})), "2 diff IDs for the 1 layers")
    assert.include(rule(fits(0, {})), "0 diff IDs for the 1 layers")
    assert.include(rule(fits(1, { layers: [descriptor("text/plain")] })), "no file-system layer")
  })
})
