import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createGunzip, gunzipSync, zstdDecompressSync } from "node:zlib"
import { createReadStream } from "node:fs"
import { archive } from "../../src/testing/Archive.ts"
import * as ImageBuilder from "../../src/testing/ImageBuilder.ts"

const bytes = (body: ImageBuilder.Body | undefined): Buffer =>
  body === undefined ? Buffer.alloc(0) : body instanceof Uint8Array ? Buffer.from(body) : readFileSync(body.file)
const parsed = (manifest: ImageBuilder.BuiltManifest): unknown => JSON.parse(Buffer.from(manifest.raw).toString())
const items = [{ path: "etc/" }, { path: "etc/hosts", contents: "127.0.0.1 localhost\n" }]

/** A folder that is gone after the test. */
const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-kit-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true })))

describe("ImageBuilder", () => {
  it("names every blob by its digest, and every layer by the digest of its tar", () => {
    for (const format of ["oci", "docker"] as const) {
      const types = ImageBuilder.mediaTypes[format]
      const image = ImageBuilder.image({
        format,
        platform: { os: "linux", architecture: "arm64", variant: "v8" },
        layers: [items, ImageBuilder.layer(items, { compression: "none" }), ImageBuilder.layer(items, { compression: "zstd" })]
      })
      for (const [digest, body] of image.blobs) assert.strictEqual(ImageBuilder.digestOf(bytes(body)), digest)
      assert.deepStrictEqual(image.layers.map((layer) => layer.mediaType), [types.layer.gzip, types.layer.none, types.layer.zstd])
      for (const layer of image.layers) assert.strictEqual(bytes(image.blobs.get(layer.digest)).byteLength, layer.size)
      assert.deepStrictEqual(new Set(image.diffIds), new Set([ImageBuilder.digestOf(archive(items))]))
      assert.deepStrictEqual(image.manifest.descriptor, image.manifests.get(image.manifest.descriptor.digest)?.descriptor)
      assert.strictEqual(ImageBuilder.digestOf(image.manifest.raw), image.manifest.descriptor.digest)
      assert.deepInclude(parsed(image.config), { os: "linux", architecture: "arm64", variant: "v8", rootfs: { type: "layers", diff_ids: image.diffIds } })
      const { mediaType, digest, size } = image.config.descriptor
      assert.deepInclude(parsed(image.manifest), { schemaVersion: 2, mediaType: types.manifest, config: { mediaType, digest, size } })
    }
  })

  it("gives the same bytes again, and replaces or removes what it is told to", () => {
    assert.deepStrictEqual(ImageBuilder.demo().manifest, ImageBuilder.demo().manifest)
    const odd = ImageBuilder.image({ layers: [items], manifestFields: { mediaType: undefined, extra: 1 }, configFields: { rootfs: null } })
    assert.notProperty(parsed(odd.manifest), "mediaType")
    assert.propertyVal(parsed(odd.manifest), "extra", 1)
    assert.propertyVal(parsed(odd.config), "rootfs", null)
  })

  it("cuts a tar into members, frames and skippable frames, and appends junk", () => {
    const tar = archive(items)
    const gzip = bytes(ImageBuilder.layer(items, { members: 3 }).body)
    assert.deepStrictEqual(gunzipSync(gzip), tar)
    assert.strictEqual(gzip.toString("latin1").split("\x1f\x8b\x08").length, 4)
    const layer = ImageBuilder.layer(items, { compression: "zstd", members: 2, skippable: ["first", "middle", "last"], junk: Buffer.from("junk") })
    const zstd = bytes(layer.body).toString("latin1")
    const pieces = zstd.split(Buffer.from(ImageBuilder.skippableFrame).toString("latin1"))
    assert.deepStrictEqual([pieces.length, pieces[0], pieces[3]], [4, "", "junk"])
    assert.deepStrictEqual(Buffer.concat(pieces.slice(1, 3).map((piece) => zstdDecompressSync(Buffer.from(piece, "latin1")))), tar)
    assert.strictEqual(layer.diffId, ImageBuilder.digestOf(tar))
    assert.deepStrictEqual(bytes(ImageBuilder.layer(items, { compression: "none" }).body), tar)
  })

  it("nests indexes, with platforms and attestations", () => {
    const amd = ImageBuilder.image({ layers: [items] })
    const arm = ImageBuilder.image({ layers: [items], platform: { os: "linux", architecture: "arm", variant: "v7" } })
    const inner = ImageBuilder.index([arm], { format: "docker" })
    const outer = ImageBuilder.index([amd, inner, ImageBuilder.attestation(amd), { built: arm, platform: null, fields: { size: 1 } }])
    assert.strictEqual(outer.manifests.size, 5)
    const { manifests } = parsed(outer.manifest) as { manifests: ReadonlyArray<Record<string, unknown>> }
    assert.deepStrictEqual(manifests.map(({ platform, mediaType }) => [platform, mediaType]), [
      [{ os: "linux", architecture: "amd64" }, ImageBuilder.mediaTypes.oci.manifest],
      [undefined, ImageBuilder.mediaTypes.docker.index],
      [{ os: "unknown", architecture: "unknown" }, ImageBuilder.mediaTypes.oci.manifest],
      [undefined, ImageBuilder.mediaTypes.oci.manifest]
    ])
    assert.deepInclude(manifests[2], { annotations: { "vnd.docker.reference.digest": amd.manifest.descriptor.digest, "vnd.docker.reference.type": "attestation-manifest" } })
    assert.propertyVal(manifests[3], "size", 1)
    for (const { raw, descriptor } of outer.manifests.values()) assert.strictEqual(ImageBuilder.digestOf(raw), descriptor.digest)
  })

  it.effect("writes a huge layer whose stream is what its digests say", Effect.fnUntraced(function*() {
    const path = yield* folder
    const size = 40 * 2 ** 20 + 13
    const expected = archive([...items, { path: "big", contents: Buffer.alloc(size) }, { path: "after", contents: "!" }])
    for (const compression of ["gzip", "zstd"] as const) {
      const file = join(path, compression)
      const layer = yield* ImageBuilder.hugeLayer({ file, size, compression, before: items, after: [{ path: "after", contents: "!" }] })
      assert.strictEqual(layer.diffId, ImageBuilder.digestOf(expected))
      assert.deepStrictEqual([layer.digest, layer.size], [ImageBuilder.digestOf(readFileSync(file)), readFileSync(file).byteLength])
      if (compression === "gzip") assert.isTrue(gunzipSync(readFileSync(file)).equals(expected))
    }
  }))

  it.effect("passes 4 GiB", Effect.fnUntraced(function*() {
    const file = join(yield* folder, "layer")
    const size = 2 ** 32 + 1
    const layer = yield* ImageBuilder.hugeLayer({ file, size })
    assert.isBelow(layer.size, 8 * 2 ** 20)
    assert.strictEqual(layer.digest, ImageBuilder.digestOf(readFileSync(file)))
    assert.strictEqual(readFileSync(file).readUInt32LE(layer.size - 4), 1024 + 512 + 512) // the whole tar's length modulo 2^32
    const hash = createHash("sha256")
    const head = yield* Effect.promise(async () => {
      for await (const piece of createReadStream(file).pipe(createGunzip({ chunkSize: 1 << 20 }))) {
        hash.update(piece)
        return Buffer.from(piece).subarray(0, 512)
      }
    })
    assert.strictEqual(Number.parseInt(head?.subarray(124, 135).toString() ?? "", 8), size)
  }), 60_000)
})
