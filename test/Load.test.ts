import { assert, layer as suite } from "@effect/vitest"
import { Effect, Layer, Option, Stream } from "effect"
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { ArchiveRefused } from "../src/archive/Fault.ts"
import type { Source } from "../src/ArchiveInput.ts"
import * as Load from "../src/Load.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import { Graph } from "../src/store/Graph.ts"
import { LayerStore } from "../src/store/LayerStore.ts"
import * as Archive from "../src/testing/Archive.ts"
import * as ImageBuilder from "../src/testing/ImageBuilder.ts"
import * as SavedArchive from "../src/testing/old/SavedArchive.ts"
import { assertSound, openDescriptors, temporary, towline } from "./harness.ts"

const base = ImageBuilder.layer([{ path: "etc/" }, { path: "etc/base", contents: "base" }], { compression: "none" })
const image = (name: string, platform?: ImageBuilder.PlatformSpec) => ImageBuilder.image({
  format: "docker", ...(platform === undefined ? {} : { platform }),
  layers: [base, ImageBuilder.layer([{ path: name, contents: name }], { compression: "none" })]
})
const linux = process.arch === "arm64" ? "arm64" : "amd64"
const here = { os: "linux", architecture: linux }
const other = { os: "linux", architecture: linux === "arm64" ? "amd64" : "arm64" }

const load = (source: Source, options: Load.LoadOptions = {}) => Load.load(new Hub<PullEvent>(keyOf), source, options)

const refused = (source: Source) => Effect.map(Effect.flip(load(source)), (error) => error instanceof ArchiveRefused ? [error.entry, error.rule] : [error._tag, String(error.message)])

const names = Effect.map(Effect.flatMap(Graph, (graph) => graph.list), (rows) =>
  rows.map(({ id, name, reference }) => [name === undefined ? "" : `${name}:${reference}`, id]))

/** A store of its own, and a folder for archives. */
const inStore = <A, E>(run: (put: (items: ReadonlyArray<Archive.Item>, change?: (tar: Buffer) => Uint8Array) => string, folder: string) => Effect.Effect<A, E, Graph | LayerStore | Layer.Success<ReturnType<typeof towline>>>) =>
  Effect.scoped(Effect.gen(function*() {
    const folder = yield* temporary
    let count = 0
    const put = (items: ReadonlyArray<Archive.Item>, change: (tar: Buffer) => Uint8Array = (tar) => tar) => {
      const file = join(folder, `archive-${count++}.tar`)
      writeFileSync(file, change(Archive.archive(items)))
      return file
    }
    const before = openDescriptors()
    const result = yield* run(put, folder).pipe(Effect.tap(() => assertSound(folder)), Effect.provide(towline(folder)))
    assert.isAtMost(openDescriptors(), before + 2)
    return result
  }))

const idOf = (image: ImageBuilder.BuiltImage) => image.config.descriptor.digest.slice(7)

suite(Layer.empty, { excludeTestServices: true })("Load", (it) => {
  it.effect("loads what docker save writes, its linked layers too, and a second time changes nothing", () => inStore(Effect.fnUntraced(function*(put) {
    const [one, two] = [image("one", here), image("two", here)]
    const file = put(SavedArchive.docker([{ image: one, names: ["team/app:1", "docker.io/library/app:latest"] }, { image: two, names: ["localhost:5000/app:2"] }]))
    const loaded = yield* load(file)
    assert.deepStrictEqual(loaded.images.map(({ id, changed }) => [id, changed]), [[idOf(one), true], [idOf(two), true]])
    const after = yield* names
    assert.deepStrictEqual(after, [
      ["docker.io/library/app:latest", idOf(one)], ["docker.io/team/app:1", idOf(one)], ["localhost:5000/app:2", idOf(two)]
    ])
    const { layers } = yield* (yield* Graph).show("localhost:5000/app:2")
    assert.deepStrictEqual(layers.map(({ diffId }) => diffId), two.diffIds)
    const store = yield* LayerStore
    assert.strictEqual(readFileSync(join(store.folder(two.diffIds[1] ?? base.diffId), "fs", "two"), "utf8"), "two")
    const again = yield* load(file)
    assert.deepStrictEqual([again.images.map(({ changed }) => changed), again.renamed], [[false, false], []])
    assert.deepStrictEqual(yield* names, after)
  })))

  it.effect("loads OCI layouts from archives and folders, keeping their digests", () => inStore(Effect.fnUntraced(function*(put, folder) {
    const one = ImageBuilder.demo()
    const items = SavedArchive.oci([{ image: one, names: ["example.com/demo:1"] }])
    const loaded = yield* load(put(items), { platform: "linux/amd64" })
    assert.deepStrictEqual(loaded.images.map(({ digest }) => digest), [one.manifest.descriptor.digest])
    const layout = join(folder, "layout")
    for (const item of items) {
      if (!("path" in item) || String(item.path).endsWith("/")) continue
      mkdirSync(dirname(join(layout, String(item.path))), { recursive: true })
      writeFileSync(join(layout, String(item.path)), item.contents ?? "")
    }
    assert.deepStrictEqual((yield* load(layout, { platform: "linux/amd64" })).images.map(({ changed }) => changed), [false])
    assert.deepStrictEqual(yield* names, [["example.com/demo:1", idOf(one)]])
  })))

  it.effect("takes the platform that is wanted out of an index, also where the others are not in the archive", () => inStore(Effect.fnUntraced(function*(put) {
    const [mine, theirs] = [image("mine", here), image("theirs", other)]
    const index = ImageBuilder.index([mine, theirs])
    const partial = { ...index, blobs: mine.blobs, manifests: new Map([...index.manifests].filter(([digest]) => digest !== theirs.manifest.descriptor.digest)) }
    const loaded = yield* load(put(SavedArchive.oci([{ image: partial, names: ["docker.io/library/many:1"] }], "io.containerd.image.name")))
    assert.deepStrictEqual(loaded.images.map(({ id, digest }) => [id, digest]), [[idOf(mine), index.manifest.descriptor.digest]])
    const lost = image("lost", here)
    const bare = ImageBuilder.index([lost])
    const lacking = yield* refused(put(SavedArchive.oci([{ image: { ...bare, blobs: lost.blobs, manifests: new Map([[bare.manifest.descriptor.digest, bare.manifest]]) } }])))
    assert.deepStrictEqual(lacking, [lost.manifest.descriptor.digest, "an image in it needs this manifest, and it is not there"])
  })))

  it.effect("of an archive of both kinds keeps the layout's digests and manifest.json's names", () => inStore(Effect.fnUntraced(function*(put) {
    const one = image("both", here)
    const loaded = yield* load(put([...SavedArchive.oci([{ image: one }]), ...SavedArchive.docker([{ image: one, names: ["both:1"] }])]))
    assert.deepStrictEqual(loaded, {
      kind: "oci", renamed: [],
      images: [{ id: idOf(one), digest: one.manifest.descriptor.digest, platform: `linux/${linux}`, names: [{ name: "docker.io/library/both", reference: "1" }], changed: true }]
    })
  })))

  it.effect("a layer that is there already must be what the archive has under its name, too", () => inStore(Effect.fnUntraced(function*(put) {
    yield* load(put(SavedArchive.docker([{ image: image("there", here), names: ["there:1"] }])))
    const wrong = ImageBuilder.layer([{ path: "etc/", mode: 0o777 }])
    const lie = ImageBuilder.image({ platform: here, layers: [wrong], configFields: { rootfs: { type: "layers", diff_ids: [base.diffId] } } })
    const [tag, message] = yield* refused(put(SavedArchive.oci([{ image: lie, names: ["lie.example/x:1"] }])))
    assert.deepStrictEqual([tag, message?.includes(`has the digest ${wrong.diffId}`)], ["LayerRefused", true])
    assert.deepStrictEqual((yield* names).length, 1)
  })))

  it.effect("forces tags, and says what they were taken from", () => inStore(Effect.fnUntraced(function*(put) {
    const [one, two] = [image("old", here), image("new", here)]
    yield* load(put(SavedArchive.docker([{ image: one, names: ["app:1"] }])))
    const { renamed } = yield* load(put(SavedArchive.docker([{ image: two, names: ["app:1"] }])))
    assert.deepStrictEqual(renamed.map(Load.renamedSentence), [`The image app:1 already exists, renaming the old one with ID ${idOf(one).slice(0, 12)} to empty string`])
    assert.deepStrictEqual(yield* names, [["docker.io/library/app:1", idOf(two)], ["", idOf(one)]])
  })))

  it.effect("takes archives as they come, and compressed ones", () => inStore(Effect.fnUntraced(function*(put) {
    const items = SavedArchive.docker([{ image: image("piped", here), names: ["piped:1"] }])
    const tar = Archive.archive(items)
    const piped = (bytes: Uint8Array) => ({ name: "standard input", bytes: Stream.fromIterable(Array.from({ length: Math.ceil(bytes.byteLength / 1000) }, (_, n) => bytes.subarray(n * 1000, n * 1000 + 1000))) })
    const changes: Array<boolean | undefined> = []
    for (const source of [piped(tar), piped(gzipSync(tar)), put(items, gzipSync), put(items, zstdCompressSync)]) changes.push((yield* load(source)).images[0]?.changed)
    assert.deepStrictEqual(changes, [true, false, false, false])
    assert.deepStrictEqual(yield* refused(put(items, (tar) => gzipSync(tar).subarray(0, -10))), ["", "the gzip stream is truncated"])
  })))

  it.effect("takes compressed layers", () => inStore(Effect.fnUntraced(function*(put) {
    const one = ImageBuilder.image({ format: "docker", platform: here, layers: [base, ImageBuilder.layer([{ path: "gz", contents: "gz" }])] })
    const items = SavedArchive.docker([{ image: one, names: ["gz:1"] }]).map((item) =>
      "path" in item && String(item.path).endsWith("01/layer.tar") ? { ...item, contents: gzipSync(Buffer.from(item.contents ?? "")) } : item)
    yield* load(put(items))
    const shown = yield* (yield* Graph).show("gz:1")
    assert.deepStrictEqual(shown.layers.map(({ blob, diffId }) => [blob.mediaType, diffId]), [
      ["application/vnd.docker.image.rootfs.diff.tar", one.diffIds[0]], ["application/vnd.docker.image.rootfs.diff.tar.gzip", one.diffIds[1]]
    ])
  })))

  it.effect("shows nothing of an archive of which one image is damaged", () => inStore(Effect.fnUntraced(function*(put) {
    const [good, bad] = [image("good", here), image("bad", here)]
    const items = SavedArchive.docker([{ image: good, names: ["good:1"] }, { image: bad, names: ["bad:1"] }])
    const damaged = (change: (item: Archive.EntrySpec) => Archive.EntrySpec | undefined) => items.flatMap((item): ReadonlyArray<Archive.Item> => {
      const changed = "path" in item ? change(item) : item
      return changed === undefined ? [] : [changed]
    })
    const last = items.findLast((item) => "path" in item && String(item.path).endsWith("01/layer.tar"))
    const path = last !== undefined && "path" in last ? String(last.path) : ""
    const other = Archive.archive([{ path: "bad", contents: "evl" }])
    const [tag] = yield* refused(put(damaged((item) => item.path === path ? { ...item, contents: other } : item)))
    assert.strictEqual(tag, "VerifyError")
    assert.deepStrictEqual(yield* refused(put(damaged((item) => item.path === path ? undefined : item))), ["manifest.json", `the layer "${path}" is not in the archive`])
    const config = `${idOf(bad)}.json`
    const [entry, rule] = yield* refused(put(damaged((item) => item.path === config ? { ...item, contents: `${Buffer.from(bad.config.raw).toString()} ` } : item)))
    assert.deepStrictEqual([entry, rule?.includes("not the one it is named by")], [config, true])
    assert.deepStrictEqual(yield* names, [])
  })))

  it.effect("registers the images of old archives, parents first, and tags them", () => inStore(Effect.fnUntraced(function*(put) {
    const graph = yield* Graph
    const [child, parent, lone] = ["c".repeat(64), "d".repeat(64), "e".repeat(64)]
    const json = `{"id":"${child}", "parent":"${parent}","created":"2015-09-08T21:30:30Z","os":"linux","architecture":"amd64"}`
    const items = SavedArchive.legacy([
      { id: child, json, layer: gzipSync(Archive.archive([{ path: "child", contents: "c" }])) },
      { id: parent, json: JSON.stringify({ id: parent }), layer: Archive.archive([{ path: "parent", contents: "p" }]) }
    ], { busybox: { latest: child, "1": parent } })
    const loaded = yield* load(put(items))
    assert.deepStrictEqual(loaded.images.map(({ id, names, changed }) => [id, names.map(({ reference }) => reference), changed]), [[parent, ["1"], true], [child, ["latest"], true]])
    assert.deepStrictEqual(yield* names, [["docker.io/library/busybox:1", parent], ["docker.io/library/busybox:latest", child]])
    const node = yield* Effect.flatMap(graph.node(child), Effect.fromOption)
    assert.deepStrictEqual([Buffer.from(node.json).toString(), node.parent, node.size, node.layers.length], [json, parent, 1, 2])
    assert.strictEqual(readFileSync(join((yield* LayerStore).folder(node.layers[1]?.diffId ?? base.diffId), "fs", "child"), "utf8"), "c")
    const again = yield* load(put(items))
    assert.deepStrictEqual([again.images.map(({ changed }) => changed), again.renamed], [[false, false], []])
    yield* graph.remove("busybox:1")
    assert.isTrue(Option.isSome(yield* graph.node(parent)), "its child needs it")
    yield* graph.remove("busybox")
    assert.deepStrictEqual([yield* graph.exists(child), yield* graph.exists(parent)], [false, false])
    yield* load(put(items))
    const other = yield* load(put(SavedArchive.legacy([{ id: lone, json: JSON.stringify({ id: lone }), layer: Archive.archive([]) }], { busybox: { latest: lone } })))
    assert.deepStrictEqual(other.renamed.map(Load.renamedSentence), [`The image busybox:latest already exists, renaming the old one with ID ${child.slice(0, 12)} to empty string`])
  })))

  it.effect("registers old images as far as they are good, and says what ends it", () => inStore(Effect.fnUntraced(function*(put) {
    const [good, bad, orphan] = ["a".repeat(64), "b".repeat(64), "c".repeat(64)]
    const layer = Archive.archive([{ path: "x" }])
    const image = (id: string, more: object = {}) => ({ id, json: JSON.stringify({ id, ...more }), layer })
    assert.deepStrictEqual(yield* refused(put(SavedArchive.legacy([image(good), { ...image(bad), layer: "../../outside" }], { good: { latest: good } }))),
      [`${bad}/layer.tar`, "a symbolic link of it leads outside"])
    assert.deepStrictEqual(yield* names, [["", good]])
    assert.deepStrictEqual(yield* refused(put(SavedArchive.legacy([image(orphan, { parent: bad })]))), [`${bad}/json`, "it is missing"])
    const [tag] = yield* refused(put(SavedArchive.legacy([image(bad), { ...image(orphan), layer: Buffer.alloc(700, 7) }])))
    assert.strictEqual(tag, "LayerRefused")
    assert.strictEqual((yield* refused(put(SavedArchive.legacy([], { busybox: { latest: orphan } }))))[0], "ImageNotFound")
    assert.deepStrictEqual((yield* names).map(([, id]) => id).sort(), [good, bad].sort())
  })))

  it.effect("refuses what is no archive of images", () => inStore(Effect.fnUntraced(function*(put, folder) {
    assert.deepStrictEqual(yield* refused(put([{ path: "notes", contents: "none" }])), ["", "it holds no images: there is neither an OCI layout nor anything docker save makes"])
    assert.deepStrictEqual(yield* refused(put([], () => new Uint8Array())), ["", "it has no bytes"])
    assert.deepStrictEqual((yield* load(put([]))).images, [])
    const [, rule] = yield* refused(put([], () => Buffer.from("this is no archive, but it is long enough. ".repeat(30))))
    assert.strictEqual(rule, "it does not begin with a tar header: the checksum is wrong")
    assert.strictEqual((yield* refused(join(folder, "nothing")))[0], "ArchiveUnreadable")
    const dir = join(folder, "dir")
    mkdirSync(dir)
    writeFileSync(join(dir, "version"), "Directory Transport Version: 1.1\n")
    writeFileSync(join(dir, "manifest.json"), image("dir").manifest.raw)
    assert.strictEqual((yield* Effect.flip(load(dir))).message,
      `${dir} is refused: it is a folder of skopeo's dir: format, which is not read; copy it into an OCI layout, and load that: skopeo copy dir:${dir} oci:${dir}-oci:latest`)
    symlinkSync("/dev/zero", join(folder, "zero"))
    assert.include((yield* refused(join(folder, "zero")))[1], "neither a file nor a folder")
  })))
})
