import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { gunzipSync } from "node:zlib"
import { archive } from "../../src/testing/Archive.ts"
import { Fault, ImageBuilder, LegacyImage, payloadChecksum, Signature, TestRegistry, V1Server } from "../../src/testing/index.ts"
import { ask } from "./Client.ts"

const items = [{ path: "etc/" }, { path: "etc/hosts", contents: "127.0.0.1 localhost\n" }]
const image = LegacyImage.legacy({
  steps: [{ tar: items }, { json: { comment: "only config" } }, { tar: archive(items), stored: "none" }, { tar: items, stored: Buffer.from("as if bzip2") }]
})
const top = image.images.at(-1) ?? assert.fail("no image")
const text = (body: Uint8Array) => Buffer.from(body).toString()

describe("LegacyImage", () => {
  it("is one image in four forms, of the same tars", () => {
    const tar = ImageBuilder.digestOf(archive(items)), empty = ImageBuilder.digestOf(LegacyImage.emptyTar)
    assert.deepStrictEqual(image.images.map(({ diffId }) => diffId), [tar, empty, tar, tar])
    assert.deepStrictEqual([image.oci.diffIds, image.schema2.diffIds], [[tar, tar, tar], [tar, tar, tar]])
    assert.strictEqual(ImageBuilder.digestOf(LegacyImage.emptyLayer), "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")
    assert.deepStrictEqual(gunzipSync(LegacyImage.emptyLayer), Buffer.from(LegacyImage.emptyTar))
    assert.deepStrictEqual(gunzipSync(image.images[0]?.layer ?? ""), archive(items))
    assert.deepStrictEqual(image.images.map(({ parent }) => parent), [undefined, ...image.images.slice(0, -1).map(({ id }) => id)])
    for (const { id, json, parent } of image.images) assert.deepInclude(JSON.parse(text(json)), { id, ...parent !== undefined && { parent }, docker_version: "1.9.1" })
    assert.deepInclude(JSON.parse(text(image.images[1]?.json ?? new Uint8Array())), { comment: "only config", Size: 0 })
    assert.deepStrictEqual(LegacyImage.legacy({ steps: [{ tar: items }] }).images, LegacyImage.legacy({ steps: [{ tar: items }] }).images)
  })
  it("as schema1: top first, steps twice where asked, all blobs there", () => {
    const built = image.schema1({ repository: "a/b", tag: "t", twice: [1], signers: [Signature.signer()] })
    const document = JSON.parse(text(built.manifest.raw))
    const ids = document.history.map((entry: { readonly v1Compatibility: string }) => JSON.parse(entry.v1Compatibility).id)
    const all = image.images.map(({ id }) => id)
    assert.deepStrictEqual(ids, [all[3], all[2], all[1], all[1], all[0]])
    assert.deepStrictEqual([document.schemaVersion, document.name, document.tag, document.signatures.length], [1, "a/b", "t", 1])
    for (const { blobSum } of document.fsLayers) assert.isTrue(built.blobs.has(blobSum))
    assert.match(document.signatures[0].header.jwk.kid, /^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$/)
    const { formatLength, formatTail } = JSON.parse(Buffer.from(document.signatures[0].protected, "base64url").toString())
    const payload = Buffer.concat([built.manifest.raw.subarray(0, formatLength), Buffer.from(formatTail, "base64url")])
    assert.strictEqual(ImageBuilder.digestOf(payload), built.manifest.descriptor.digest)
  })
  it.live("as schema1 from the v2 registry, by tag and digest", () => Effect.gen(function*() {
    const built = image.schema1({ repository: "a/b", tag: "t", mediaType: "application/json" })
    const registry = (yield* TestRegistry.make()).put("a/b", "t", built)
    for (const ref of ["t", built.manifest.descriptor.digest]) {
      const seen = yield* ask(`${registry.url}/v2/a/b/manifests/${ref}`)
      assert.deepStrictEqual([seen.status, seen.headers["content-type"], seen.headers["docker-content-digest"]], [200, "application/json", built.manifest.descriptor.digest])
    }
  }))
})

describe("V1Server", () => {
  const make = (options: Parameters<typeof V1Server.make>[0] = {}) => Effect.map(V1Server.make(options), (made) => made.put("a/b", "t", image.images))
  it.live("answers as the v1 API says", () => Effect.gen(function*() {
    const made = yield* make()
    const get = (path: string, headers = {}) => ask(`${made.url}${path}`, { headers })
    const read = (path: string) => Effect.map(get(path), ({ body }): unknown => JSON.parse(body.toString()))
    const ping = yield* get("/v1/_ping")
    assert.deepStrictEqual([ping.status, ping.body.toString(), ping.headers["x-docker-registry-standalone"]], [200, "true", "true"])
    assert.strictEqual((yield* get("/v2/")).status, 404)
    assert.deepStrictEqual(yield* read("/v1/repositories/a/b/tags"), { t: top.id })
    assert.strictEqual(yield* read("/v1/repositories/a/b/tags/t"), top.id)
    assert.deepStrictEqual(yield* read(`/v1/images/${top.id}/ancestry`), image.images.map(({ id }) => id).reverse())
    assert.deepInclude(yield* read("/v1/repositories/a/b/images"), { id: top.id, checksum: "", Tag: "t" })
    const json = yield* get(`/v1/images/${top.id}/json`)
    assert.deepStrictEqual([json.body, json.headers["x-docker-size"], json.headers["x-docker-checksum-payload"]], [Buffer.from(top.json), "11", payloadChecksum(top)])
    assert.strictEqual(payloadChecksum(top), `sha256:${createHash("sha256").update(Buffer.concat([top.json, Buffer.from("\n"), top.layer])).digest("hex")}`)
    const part = yield* get(`/v1/images/${top.id}/layer`, { range: "bytes=3-11" })
    assert.deepStrictEqual([part.status, part.body.toString(), part.headers["content-range"], part.headers["accept-ranges"]], [206, "if bzip2", "bytes 3-10/11", "bytes"])
    assert.strictEqual((yield* get(`/v1/images/${top.id}/layer`, { range: "bytes=11-11" })).status, 416)
    made.script([{ match: { kind: "layer" }, do: Fault.wrongRange("lie-end") }])
    assert.strictEqual((yield* get(`/v1/images/${top.id}/layer`, { range: "bytes=3-11" })).headers["content-range"], "bytes 3-11/11")
    for (const path of ["/v1/repositories/x/images", "/v1/repositories/a/b/tags/x", "/v1/images/x/json", "/v1/images/x/layer", "/v1/x"]) {
      const seen = yield* get(path)
      assert.strictEqual(seen.status, 404)
      assert.property(JSON.parse(seen.body.toString()), "error")
    }
  }))
  it.live("puts things as it is told to", () => Effect.gen(function*() {
    const made = yield* make({ tags: "list", sizes: false, checksums: "list", ranges: false, errors: "string", v2: 501 })
    const get = (path: string) => ask(`${made.url}${path}`)
    assert.strictEqual((yield* get("/v1/repositories/a/b/tags")).body.toString(), JSON.stringify([{ layer: top.id.slice(0, 8), name: "t" }]))
    const json = yield* get(`/v1/images/${top.id}/json`)
    assert.deepStrictEqual([json.headers["x-docker-size"], json.headers["x-docker-checksum-payload"]], [undefined, `sha256:${"0".repeat(64)},${payloadChecksum(top)}`])
    assert.isUndefined((yield* get(`/v1/images/${top.id}/layer`)).headers["accept-ranges"])
    assert.strictEqual((yield* get("/v1/images/x/json")).body.toString(), `"Image not found"`)
    assert.strictEqual((yield* get("/v2/a/b/manifests/t")).status, 501)
  }))
  it.live("an index asks for Basic, hands out tokens and names registries, which want them", () => Effect.gen(function*() {
    const storage = yield* V1Server.make({ role: "storage" })
    const registry = yield* V1Server.make({ role: "registry", tokens: "single", storage })
    const index = yield* make({ role: "index", registries: ["gone.example:1", registry], tokens: "single", users: { ann: "x" } })
    const path = "/v1/repositories/a/b/images"
    const refused = yield* ask(`${index.url}${path}`)
    assert.deepStrictEqual([refused.status, refused.headers["www-authenticate"]], [401, `Basic realm="Registry",Token`])
    const entered = yield* ask(`${index.url}${path}`, { headers: { authorization: `Basic ${btoa("ann:x")}`, "x-docker-token": "true" } })
    assert.strictEqual(entered.headers["x-docker-endpoints"], `gone.example:1, ${registry.host}`)
    const authorization = `Token ${String(entered.headers["x-docker-token"])}`
    const layer = `${registry.url}/v1/images/${top.id}/layer`
    assert.strictEqual((yield* ask(layer)).headers["www-authenticate"], "Token")
    const moved = yield* ask(layer, { headers: { authorization } })
    assert.deepStrictEqual([moved.status, moved.headers.location?.startsWith(`${storage.url}/storage/${top.id}?`)], [302, true])
    assert.strictEqual((yield* ask(layer, { headers: { authorization } })).status, 401)
    const [cookie = ""] = moved.headers["set-cookie"]?.[0]?.split(";") ?? []
    assert.strictEqual((yield* ask(layer, { headers: { cookie } })).status, 302)
    assert.strictEqual((yield* ask(moved.headers.location ?? "")).body.toString(), "as if bzip2")
    for (const headers of [{ authorization }, { cookie }]) assert.strictEqual((yield* ask(moved.headers.location ?? "", { headers })).status, 400)
    assert.strictEqual((yield* ask(`${index.url}/v1/images/${top.id}/json`)).status, 401)
    registry.revoke()
    assert.strictEqual((yield* ask(layer, { headers: { cookie } })).status, 401)
    // Its own secrets, also old ones, are no stranger's; to the storage all are.
    assert.deepStrictEqual([index, registry, storage].map(({ strangers }) => strangers.length), [0, 0, 2])
    for (const headers of [{ authorization: `Basic ${btoa("ann:x")}` }, { authorization: "Token signature=1" }, { cookie: "a=b" }, { "proxy-authorization": "Basic YTpi" }]) yield* ask(layer, { headers })
    assert.strictEqual(registry.strangers.length, 4)
  }))
})
