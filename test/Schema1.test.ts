import { assert, layer as suite } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Descriptor } from "../src/image/Descriptor.ts"
import * as OciForm from "../src/image/v1/OciForm.ts"
import * as StrongId from "../src/image/v1/StrongId.ts"
import * as Load from "../src/Load.ts"
import * as Policy from "../src/Policy.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as SaveOld from "../src/SaveOld.ts"
import { hash } from "../src/registry/Jws.ts"
import { Graph } from "../src/store/Graph.ts"
import * as Archive from "../src/testing/Archive.ts"
import type { Built, Fields } from "../src/testing/ImageBuilder.ts"
import { ImageBuilder, LegacyImage, SavedArchive, Signature, TestRegistry } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const tars = [0, 1].map((at) => Archive.archive([{ path: `f${at}`, contents: `file ${at}` }]))
const image = LegacyImage.legacy({ steps: [{ tar: tars[0] ?? [] }, {}, { tar: tars[1] ?? [] }] })
const ec = Signature.signer("ES256")
const rsa = Signature.signer("RS256")
const options = { repository: "app", tag: "1" }
const signed = image.schema1({ ...options, signers: [ec, rsa] })

/** A manifest whose bytes are changed after signing; asked for by tag. */
const changed = (built: Built, change: (text: string) => string | Uint8Array, mediaType = built.manifest.descriptor.mediaType): Built => {
  const raw = Buffer.from(change(Buffer.from(built.manifest.raw).toString()))
  const manifest = { raw, descriptor: new Descriptor({ ...built.manifest.descriptor, mediaType }) }
  return { ...built, manifest, manifests: new Map([[manifest.descriptor.digest, manifest]]) }
}
const withFields = (fields: Fields, signers: ReadonlyArray<Signature.Signer> = []) => image.schema1({ ...options, signers, fields })

const setting = <A, E>(run: (registry: TestRegistry, folder: string) => Effect.Effect<A, E, Layer.Success<ReturnType<typeof towline>>>) => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  return yield* run(registry, folder).pipe(Effect.tap(() => assertSound(folder)), Effect.provide(towline(folder)))
}))
const pulled = (registry: TestRegistry, reference = "app:1") => Pull.pull(`${registry.host}/${reference}`, { platform })
const failure = (registry: TestRegistry, reference?: string) => Effect.map(Effect.flip(pulled(registry, reference)), (error) =>
  [error._tag, "rule" in error ? String(error.rule) : "", "reason" in error ? String(error.reason) : error.message] as const)
const empty = (folder: string) => Effect.gen(function*() {
  assert.deepStrictEqual(yield* (yield* Graph).list, [])
  assert.deepStrictEqual(["blobs/sha256", "layers/sha256"].map((name) => readdirSync(join(folder, "store", name)).length), [0, 0])
})
const v1Ids = image.images.map(({ id }) => id)
/** The IDs a pull gives the images, bottom first. */
const strongIds = (() => {
  const blobs = [...signed.blobs.keys()], sums = [blobs[0], blobs[1], blobs[2]]
  const ids: Array<string> = []
  let parent = ""
  for (const [at, { json }] of image.images.entries()) {
    parent = Result.getOrThrow(StrongId.address(Buffer.from(json).toString(), sums[at] ?? "", parent, hash)).strongId
    ids.push(parent.slice(7))
  }
  return ids
})()

suite(Layer.empty, { excludeTestServices: true })("Pull of schema1", (it) => {
  it.effect("makes the same of an image whether those it stands on were there or not, also where a step left no layer", () => setting(Effect.fnUntraced(function*(registry) {
    const steps = [{ tar: tars[0] ?? [] }, { json: { throwaway: true } }, { tar: tars[1] ?? [] }]
    const [below, whole] = [LegacyImage.legacy({ steps: steps.slice(0, 2) }), LegacyImage.legacy({ steps })]
    registry.put("below", "1", below.schema1({ repository: "below", tag: "1" })).put("app", "1", whole.schema1(options))
    const alone = yield* Effect.scoped(Effect.flatMap(temporary, (folder) => pulled(registry).pipe(Effect.provide(towline(folder), { local: true }))))
    yield* pulled(registry, "below:1")
    const got = yield* pulled(registry)
    assert.deepStrictEqual([got.id, got.layers.length, got.manifest, got.config.descriptor], [alone.id, 2, alone.manifest, alone.config.descriptor])
    const members = yield* Effect.scoped(SaveOld.members([`${registry.host}/app:1`]))
    const sizes = [...members].flatMap(({ contents, name }) => !name.endsWith("/layer.tar") ? [] : [contents instanceof Uint8Array ? contents.byteLength : contents?.size])
    assert.strictEqual(sizes.filter((size) => size === 1024).length, 1, "the step without a layer has an empty one")
  })))

  it.effect("takes good signatures, and says whose", () => setting(Effect.fnUntraced(function*(registry) {
    registry.put("app", "1", signed).put("app", "plain", image.schema1({ ...options, tag: "plain" }))
    const plan = yield* Pull.plan(`${registry.host}/app:1`, { platform })
    if (plan.kind !== "schema1") return assert.fail(plan.kind)
    assert.deepStrictEqual([plan.keys, plan.images.map(({ id }) => String(id)), plan.images.map(({ known }) => known)], [[ec.keyId, rsa.keyId], strongIds, [false, false, false]])
    const got = yield* pulled(registry)
    assert.deepStrictEqual([got.id, got.target.digest, got.changed], [strongIds[2], signed.manifest.descriptor.digest, true])
    const graph = yield* Graph
    const node = yield* graph.node(strongIds[2] ?? "")
    assert.strictEqual(node._tag === "Some" ? node.value.compatibility : "", Buffer.from(image.images[2]?.json ?? "").toString())
    registry.forget()
    assert.isFalse((yield* pulled(registry)).changed)
    assert.deepStrictEqual(registry.requests.map(({ kind, method }) => `${method} ${kind}`).filter((one) => !one.includes("ping")), ["GET manifest"])
    for (const reference of [`app@${signed.manifest.descriptor.digest}`, `app:1@${signed.manifest.descriptor.digest}`]) {
      assert.strictEqual((yield* pulled(registry, reference)).id, strongIds[2], reference)
    }
    assert.strictEqual(yield* graph.compatibility(strongIds[1] ?? ""), Buffer.from(image.images[1]?.json ?? "").toString())
  })))

  it.effect("refuses what is not signed so, and stores nothing; docker 1.9 did not look", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const flipped = changed(signed, (text) => text.replace(/"signature": "(.)/, (_, first: string) => `"signature": "${first === "A" ? "B" : "A"}`))
    const outer = changed(signed, (text) => text.replace(`,\n   "signatures"`, `,\n   "architecture": "arm64",\n   "signatures"`))
    registry.put("app", "1", flipped).put("other", "1", outer)
    const [tag, rule, reason] = yield* failure(registry)
    assert.deepStrictEqual([tag, rule], ["Schema1Refused", "signature"])
    assert.match(reason, /signature 1 of 2 does not verify/)
    assert.deepStrictEqual((yield* failure(registry, "other:1")).slice(0, 2), ["Schema1Refused", "outer-differs"])
    yield* empty(folder)
    for (const name of ["app:1", "other:1"]) {
      const historical = yield* pulled(registry, name).pipe(Effect.provideService(Policy.Protocol, "docker-1.9"))
      assert.strictEqual(historical.id, strongIds[2])
    }
  })))

  it.effect("with a trusted key takes only what that key signed", () => setting(Effect.fnUntraced(function*(registry, folder) {
    registry.put("app", "1", signed).put("app", "plain", image.schema1({ ...options, tag: "plain" }))
    const trusting = (...keys: ReadonlyArray<string>) => Effect.provideService(Policy.TrustedKeys, keys)
    assert.deepStrictEqual((yield* failure(registry).pipe(trusting(Signature.signer().keyId))).slice(0, 2), ["Schema1Refused", "trust"])
    assert.deepStrictEqual((yield* failure(registry, "app:plain").pipe(trusting(ec.keyId))).slice(0, 2), ["Schema1Refused", "trust"])
    yield* empty(folder)
    assert.strictEqual((yield* pulled(registry).pipe(trusting("other", rsa.keyId))).id, strongIds[2])
  })))

  it.effect("fixes manifests as docker did, in its words", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const entry = (at: number, fields: Fields = {}) => ({ v1Compatibility: JSON.stringify({ ...JSON.parse(Buffer.from(image.images[at]?.json ?? "").toString()), ...fields }) })
    const sums = [...signed.blobs.keys()].map((blobSum) => ({ blobSum }))
    const [a = { blobSum: "" }, b = { blobSum: "" }, c = { blobSum: "" }] = sums
    const cases: ReadonlyArray<readonly [string, Fields, RegExp]> = [
      ["version", { schemaVersion: 7 }, /unsupported schema version 7 for tag "1"/],
      ["lengths", { fsLayers: [a] }, /length of history not equal to number of layers for tag "1"/],
      ["none", { fsLayers: [], history: [] }, /no FSLayers in manifest for tag "1"/],
      ["id", { fsLayers: [a], history: [entry(0, { id: "x" })] }, /^invalidimageid: image ID 'x' is invalid $/],
      ["base", { fsLayers: [b], history: [entry(1)] }, /^Invalid parent ID in the base layer of the image\.$/],
      ["parent", { fsLayers: [c, a], history: [entry(2), entry(0)] }, new RegExp(`^Invalid parent ID\\. Expected ${v1Ids[0]}, got ${v1Ids[1]}\\.$`)],
      ["again", { fsLayers: [a, b, a], history: [entry(0), entry(1), entry(0)] }, new RegExp(`^ID ${v1Ids[0]} appears multiple times in manifest$`)],
      ["tarsum", { fsLayers: [{ blobSum: `tarsum.v1+sha256:${"a".repeat(64)}` }], history: [entry(0)] }, /its layer's digest "tarsum\.v1\+sha256:a+" is none that can be fetched/],
      ["digest", { fsLayers: [{ blobSum: "nonsense" }], history: [entry(0)] }, /^invalid layerID: invalid checksum digest format$/],
      ["json", { fsLayers: [a], history: [{ v1Compatibility: "{" }] }, /./]
    ]
    for (const [title, fields, expected] of cases) {
      registry.put("app", "1", withFields(fields))
      const [tag, , reason] = yield* failure(registry)
      assert.isTrue(tag === "Schema1Refused", `${title}: ${tag} ${reason}`)
      assert.match(reason, expected, title)
    }
    yield* empty(folder)
    registry.put("app", "1", image.schema1({ ...options, signers: [ec], twice: [0, 2] }))
    assert.strictEqual((yield* pulled(registry)).id, strongIds[2])
  })))

  it.effect("of more images than are taken is refused before anything is asked of its layers", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const of = (count: number) => LegacyImage.legacy({ steps: Array.from({ length: count }, () => ({})) }).schema1({ ...options, signers: [ec] })
    registry.put("app", "1", of(OciForm.maxDepth + 1))
    assert.deepStrictEqual(yield* failure(registry), ["Schema1Refused", "depth", "it has 257 images, at most 256 are taken"])
    assert.isBelow(registry.requests.length, 5)
    const blobSum = signed.manifest.descriptor.digest
    registry.put("app", "1", withFields({ fsLayers: Array.from({ length: 4097 }, () => ({ blobSum })), history: Array.from({ length: 4097 }, () => ({ v1Compatibility: "{}" })) }))
    assert.deepStrictEqual((yield* failure(registry)).slice(0, 2), ["Schema1Refused", "too-many-layers"])
    yield* empty(folder)
  })))

  it.effect("ends in bounded time with hostile documents, none of which leaves anything", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const type = signed.manifest.descriptor.mediaType
    const hostile: ReadonlyArray<readonly [string, (text: string) => string]> = [
      ["deep", () => `{"schemaVersion":1,"x":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
      ["entries", () => JSON.stringify({ schemaVersion: 1, name: "app", tag: "1", architecture: "amd64", fsLayers: Array.from({ length: 30_000 }, () => ({ blobSum: "sha256:" + "a".repeat(64) })), history: Array.from({ length: 30_000 }, () => ({ v1Compatibility: "{}" })) })],
      ["twice", (text) => text.replace("{", `{"schemaVersion":2,"fsLayers":null,`)],
      ["protected", (text) => text.replaceAll(/"protected": "[^"]*"/g, `"protected": "${Buffer.from(`{"formatLength":-1,"formatTail":"fQ"}`).toString("base64url")}"`)],
      ["long", (text) => text.replaceAll(/"protected": "[^"]*"/g, `"protected": "${Buffer.from(`{"formatLength":9007199254740993,"formatTail":"fQ"}`).toString("base64url")}"`)],
      ["base64", (text) => text.replaceAll(/"protected": "[^"]*"/g, `"protected": "${"=".repeat(1_000_000)}"`)],
      ["large", (text) => `${text.slice(0, -2)}${" ".repeat(4 << 20)}}`]
    ]
    for (const [title, change] of hostile) {
      registry.put("app", "1", changed(signed, change, type))
      const began = performance.now()
      const [tag] = yield* failure(registry)
      assert.include(["Schema1Refused", "AnswerRefused", "ManifestRefused", "VerifyError"], tag, title)
      assert.isBelow(performance.now() - began, 10_000, title)
    }
    yield* empty(folder)
  })), 60_000)

  it.effect("loaded before under its old ID, a layer's image comes anew under its strong one: nobody wrote what its blob was", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const file = join(folder, "old.tar")
    writeFileSync(file, Archive.archive(SavedArchive.legacy(image.images.slice(0, 1).map(({ id, json }) => ({ id, json: Buffer.from(json).toString(), layer: tars[0] ?? "" })))))
    yield* Load.load(new Hub<PullEvent>(keyOf), file)
    registry.put("app", "1", signed)
    assert.strictEqual((yield* pulled(registry)).id, strongIds[2])
    const graph = yield* Graph
    assert.isTrue(yield* graph.exists(v1Ids[0] ?? ""))
    assert.isTrue(yield* graph.exists(strongIds[0] ?? ""))
    assert.strictEqual(readdirSync(join(folder, "store/layers/sha256")).length, 3, "each tar is unpacked once")
  })))

  it.effect("in an index is refused", () => setting(Effect.fnUntraced(function*(registry, folder) {
    const index = ImageBuilder.index([{ ...ImageBuilder.demo(), manifest: signed.manifest, manifests: signed.manifests, blobs: signed.blobs }])
    registry.put("app", "1", index)
    const [tag] = yield* failure(registry)
    assert.include(["ManifestRefused", "Schema1Refused", "AnswerRefused", "NoPlatform"], tag)
    yield* empty(folder)
  })))
})
