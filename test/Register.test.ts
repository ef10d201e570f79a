import { assert, layer as suite } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import * as Config from "../src/image/ImageConfig.ts"
import * as MediaType from "../src/image/MediaType.ts"
import * as Load from "../src/Load.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Register from "../src/Register.ts"
import { BlobStore } from "../src/store/BlobStore.ts"
import { Graph } from "../src/store/Graph.ts"
import { LayerStore } from "../src/store/LayerStore.ts"
import * as Archive from "../src/testing/Archive.ts"
import * as ImageBuilder from "../src/testing/ImageBuilder.ts"
import * as SavedArchive from "../src/testing/old/SavedArchive.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const id = (digit: string) => digit.repeat(64)
const bytes = (text: string) => new TextEncoder().encode(text)
const json = (of: string, fields: Record<string, unknown> = {}) =>
  JSON.stringify({ id: of, created: "2015-09-08T21:30:30.307853054Z", docker_version: "1.9.0", architecture: "amd64", os: "linux", ...fields })
const v1 = (of: string, parent?: string, fields: Record<string, unknown> = {}): Register.OldImage => ({
  id: of, kind: "v1", parent, json: bytes(json(of, { ...(parent === undefined ? {} : { parent }), ...fields }))
})
const tar = Archive.archive([{ path: "etc/" }, { path: "etc/name", contents: "knot" }, { path: "empty" }, { path: "long", contents: "x".repeat(1000) }])
const fill = (...pieces: ReadonlyArray<Uint8Array>) => Register.from(Stream.fromIterable(pieces))
/** A layer that nobody may read. */
const poison = Register.from(Stream.suspend(() => Stream.die(new Error("the layer was read"))))

const visible = (folder: string) => Object.fromEntries(["blobs/sha256", "layers/sha256"].map((name) => [name, readdirSync(join(folder, "store", name))]))
const nothing = { "blobs/sha256": [], "layers/sha256": [] }
const register = <E = never, R = never>(image: Register.OldImage, layer?: Register.Fill<E, R>) => Effect.scoped(Register.register(image, layer))

const inStore = <A, E>(run: (folder: string) => Effect.Effect<A, E, Layer.Success<ReturnType<typeof towline>>>) => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  return yield* run(folder).pipe(Effect.tap(() => assertSound(folder)), Effect.provide(towline(folder)))
}))

suite(Layer.empty, { excludeTestServices: true })("Register", (it) => {
  it.effect("registers an image with its layer: json verbatim, size the sum of the headers' sizes, files unpacked", () => inStore(Effect.fnUntraced(function*(folder) {
    const text = `{ "id":"${id("a")}",\t"size": 1.50e1, "comment":"\\u003c\\ud800", "created":"2015-09-08T21:30:30Z", "x":{"b":1,"a":2,"a":3} }\n`
    const { added, node } = yield* register({ id: id("a"), kind: "v1", parent: undefined, json: bytes(text.replace(`"size": 1.50e1, `, "")) }, fill(tar.subarray(0, 700), tar.subarray(700)))
    assert.deepStrictEqual([added, node.size, node.parent, node.parentRef, node.checksum], [true, 1004, undefined, undefined, undefined])
    assert.strictEqual(Buffer.from(node.json).toString(), text.replace(`"size": 1.50e1, `, ""))
    const [layer] = node.layers
    if (layer === undefined) return assert.fail("no layer")
    assert.strictEqual(readFileSync(join(folder, "store/layers/sha256", layer.diffId.slice(7), "fs/etc/name"), "utf8"), "knot")
    assert.deepStrictEqual(yield* (yield* BlobStore).read(layer.blob.digest, 1 << 20), new Uint8Array(tar))
    const { kind, tags } = yield* (yield* Graph).resolve(id("a").slice(0, 12))
    assert.deepStrictEqual([kind, tags], ["v1", []])
  })))

  it.effect("does not read the layer of an image that is there", () => inStore(Effect.fnUntraced(function*() {
    yield* register(v1(id("a")), fill(tar))
    const again = yield* register(v1(id("a"), undefined, { comment: "another" }), poison)
    assert.deepStrictEqual([again.added, again.node.size], [false, 1004])
    assert.notMatch(Buffer.from(again.node.json).toString(), /another/)
  })))

  it.effect("takes an image without a layer, or with an empty one", () => inStore(Effect.fnUntraced(function*() {
    const graph = yield* Graph
    const sizes = [
      yield* register(v1(id("a"))), yield* register(v1(id("b"), id("a")), fill()), yield* register(v1(id("c"), id("b")), fill(new Uint8Array(0))),
      yield* register(v1(id("d"), id("c")), fill(new Uint8Array(1024)))
    ].map(({ node }) => node.size)
    assert.deepStrictEqual(sizes, [0, 0, 0, 0])
    assert.deepStrictEqual((yield* graph.list).map(({ id }) => id), [id("d")])
    assert.strictEqual((yield* graph.resolve(id("b"))).layers.length, 0)
  })))

  it.effect("records a parent apart where parent_id is valid and names another one", () => inStore(Effect.fnUntraced(function*() {
    yield* register(v1(id("a")))
    const refs: Array<string | undefined> = []
    for (const [at, fields] of [
      {}, { parent_id: `sha256:${id("a")}` }, { parent_id: `sha256:${id("f")}` }, { parent_id: id("f") }, { parent_id: "sha256:xyz" }
    ].entries()) {
      const { node } = yield* register({ ...v1(id(String(at)), undefined, fields), parent: id("a") })
      refs.push(node.parentRef)
    }
    assert.deepStrictEqual(refs, [undefined, undefined, id("a"), undefined, undefined])
    assert.strictEqual((yield* register(v1(id("b"), undefined, { parent_id: `sha256:${id("f")}` }))).node.parentRef, "")
  })))

  it.effect("leaves nothing when it fails", () => inStore(Effect.fnUntraced(function*(folder) {
    const gzipped = gzipSync(tar)
    const damaged = Buffer.from(tar)
    damaged[520] = 0xff
    const cases: ReadonlyArray<readonly [string, Register.OldImage, Register.Fill<unknown, never>, string]> = [
      ["an ID in capitals", v1("A".repeat(64)), poison, "ImageRefused id"],
      ["a short ID", v1("abc"), poison, "ImageRefused id"],
      ["an ID that is a path", v1("../".repeat(22).slice(0, 64)), poison, "ImageRefused id"],
      ["a parent that is not there", v1(id("a"), id("b")), poison, "ImageRefused parent"],
      ["its own parent", v1(id("a"), id("a")), poison, "ImageRefused parent"],
      ["no json", { ...v1(id("a")), json: bytes("{") }, poison, "ImageRefused json"],
      ["json of a wrong type", { ...v1(id("a")), json: bytes(`{"created":5}`) }, poison, "ImageRefused json"],
      ["a damaged header", v1(id("a")), fill(damaged), "LayerRefused"],
      ["a cut tar", v1(id("a")), fill(tar.subarray(0, 1700)), "LayerRefused"],
      ["a cut gzip", v1(id("a")), fill(gzipped.subarray(0, -20)), "LayerRefused"],
      ["a gzip with a wrong sum", v1(id("a")), fill(gzipped.subarray(0, -8), Buffer.alloc(8)), "LayerRefused"],
      ["no tar at all", v1(id("a")), fill(Buffer.from("<html>".repeat(300))), "LayerRefused"],
      ["a name that leads out", v1(id("a")), fill(Archive.archive([{ path: "../../escape", contents: "x" }])), "LayerRefused"],
      ["a symlink that leads out", v1(id("a")), fill(Archive.archive([{ path: "a/b", type: "symlink", linkpath: "../../etc" }])), "LayerRefused"],
      ["a hard link that leads out", v1(id("a")), fill(Archive.archive([{ path: "a", type: "link", linkpath: "../etc/passwd" }])), "LayerRefused"],
      ["a stream that fails in the middle", v1(id("a")), Register.from(Stream.concat(Stream.make(new Uint8Array(tar.subarray(0, 600))), Stream.fail({ _tag: "Lost" }))), "Lost"]
    ]
    for (const [title, image, layer, expected] of cases) {
      const exit = yield* Effect.exit(register(image, layer))
      const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
      const tag = typeof error === "object" && error !== null && "_tag" in error ? `${String(error._tag)}${"rule" in error && error._tag === "ImageRefused" ? ` ${String(error.rule)}` : ""}` : JSON.stringify(exit)
      assert.strictEqual(tag, expected, title)
      assert.deepStrictEqual(visible(folder), nothing, title)
      assert.deepStrictEqual(yield* (yield* Graph).list, [], title)
    }
  })))

  it.effect("leaves nothing when it is interrupted", () => inStore(Effect.fnUntraced(function*(folder) {
    const began = yield* Deferred.make<void>()
    const endless = Register.from(Stream.concat(Stream.make(new Uint8Array(tar)), Stream.unwrap(Effect.as(Deferred.succeed(began, undefined), Stream.never))))
    const fiber = yield* Effect.forkChild(register(v1(id("a")), endless))
    yield* Deferred.await(began)
    yield* Fiber.interrupt(fiber)
    assert.deepStrictEqual([visible(folder), yield* (yield* Graph).list], [nothing, []])
    assert.isTrue((yield* register(v1(id("a")), fill(tar))).added)
  })))

  it.effect("makes layers of every compression usable, once each, and their modern form valid", () => inStore(Effect.fnUntraced(function*(folder) {
    const graph = yield* Graph
    const blobs = yield* BlobStore
    const packed = (program: string) => {
      const { status, stdout } = spawnSync(program, ["-c"], { input: tar })
      return status === 0 ? stdout : undefined
    }
    const forms = [tar, gzipSync(tar), zstdCompressSync(tar), packed("bzip2"), packed("xz")]
    let parent: string | undefined
    for (const [at, form] of forms.entries()) {
      if (form === undefined) continue
      const { node } = yield* register(v1(id(String(at)), parent), fill(form))
      assert.strictEqual(node.size, 1004)
      const own = node.layers.at(-1)
      if (own === undefined) return assert.fail("no layer")
      const kept = MediaType.compressionOf(yield* blobs.read(own.blob.digest, 1 << 20))
      assert.isTrue(kept !== "bzip2" && kept !== "xz" && own.blob.mediaType === MediaType.layerOf(kept), `${own.blob.mediaType} is ${kept}`)
      parent = node.id
    }
    if (parent === undefined) return assert.fail("no image")
    const image = yield* graph.resolve(parent)
    const config = yield* Effect.fromResult(Config.decode(yield* blobs.read(image.config.digest, 1 << 20)))
    assert.deepStrictEqual(config.rootfs.diffIds, image.layers.map(({ diffId }) => diffId))
    assert.strictEqual(new Set(config.rootfs.diffIds).size, 1)
    assert.deepStrictEqual(image.missing, [])
    assert.strictEqual(readdirSync(join(folder, "store/layers/sha256")).length, 1)
  })))

  it.effect("holds what it uses until the scope closes, whoever removes the image meanwhile", () => inStore(Effect.fnUntraced(function*(folder) {
    const graph = yield* Graph
    const layers = yield* LayerStore
    const diffId = yield* Effect.scoped(Effect.gen(function*() {
      const { node } = yield* Register.register(v1(id("a")), fill(tar))
      const { diffId } = node.layers[0] ?? assert.fail("no layer")
      const removed = yield* graph.remove(id("a"))
      assert.deepStrictEqual([removed.image, removed.layers], [id("a"), []])
      assert.isTrue(Option.isSome(yield* layers.find(diffId)))
      const { added } = yield* Register.register(v1(id("a")), fill(tar))
      assert.isTrue(added)
      return diffId
    }))
    assert.deepStrictEqual((yield* graph.remove(id("a"))).layers, [diffId])
    for (let n = 0; n < 60 && visible(folder)["layers/sha256"]?.length !== 0; n++) yield* Effect.sleep("50 millis")
    assert.deepStrictEqual(visible(folder), nothing)
  })))

  it.effect("gives all who register one ID at a time the same image", () => inStore(Effect.fnUntraced(function*() {
    const other = Archive.archive([{ path: "other", contents: "other" }])
    const results = yield* Effect.forEach([tar, other, tar, gzipSync(tar)], (layer) => register(v1(id("a")), fill(layer)), { concurrency: 4 })
    const manifests = new Set(results.map(({ node }) => node.manifest))
    assert.strictEqual(manifests.size, 1)
    const now = yield* (yield* Graph).node(id("a"))
    assert.deepStrictEqual(Option.map(now, ({ manifest }) => [manifest]), Option.some([...manifests]))
  })))

  it.effect("refuses an ID that an image of today has", () => inStore(Effect.fnUntraced(function*(folder) {
    const modern = ImageBuilder.demo()
    const file = join(folder, "demo.tar")
    writeFileSync(file, Archive.archive(SavedArchive.oci([{ image: modern, names: ["app:1"] }])))
    yield* Load.load(new Hub<PullEvent>(keyOf), file, { platform: "linux/amd64" })
    const before = visible(folder)
    const theirs = modern.config.descriptor.digest.slice(7)
    const error = yield* Effect.flip(register(v1(theirs), fill(tar)))
    assert.deepStrictEqual([error._tag, "rule" in error && error.rule, visible(folder)], ["ImageRefused", "taken", before])
  })))
})
