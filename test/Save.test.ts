import { assert, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import * as Load from "../src/Load.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as Save from "../src/Save.ts"
import * as SaveOld from "../src/SaveOld.ts"
import { Graph } from "../src/store/Graph.ts"
import * as Archive from "../src/testing/Archive.ts"
import * as ImageBuilder from "../src/testing/ImageBuilder.ts"
import * as SavedArchive from "../src/testing/old/SavedArchive.ts"
import { TestRegistry } from "../src/testing/server/TestRegistry.ts"
import { opened, text } from "./archive/Opened.ts"
import { temporary, towline } from "./harness.ts"

const platform = { os: "linux", architecture: "amd64" }
const bytesOf = (names: ReadonlyArray<string>, format: Save.Format) => Effect.gen(function*() {
  const chunks = yield* Stream.runCollect(Save.stream(yield* Save.find(names), format))
  return Buffer.concat([...chunks])
})
const load = (file: string) => Load.load(new Hub<PullEvent>(keyOf), file, { platform: "linux/amd64" })

it.live("an image goes through an archive with its digest, and through OCI's media types with its layers", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  const image = ImageBuilder.image({ format: "docker", platform, layers: [[{ path: "one", contents: "1" }], ImageBuilder.layer([{ path: "two", contents: "2" }], { compression: "zstd" })] })
  registry.put("app", "1", image)
  const name = `${registry.host}/app:1`
  for (const format of ["docker-archive", "oci-archive"] as const) {
    const file = join(folder, format)
    const [first, second] = yield* Effect.gen(function*() {
      yield* Pull.pull(name)
      return [yield* bytesOf([name], format), yield* bytesOf([name, name], format)] as const
    }).pipe(Effect.provide(towline(join(folder, `from-${format}`))))
    assert.deepStrictEqual(first, second)
    writeFileSync(file, first)
    const [loaded, shown, again] = yield* Effect.gen(function*() {
      return [yield* load(file), yield* (yield* Graph).show(name), yield* bytesOf([name], format)] as const
    }).pipe(Effect.provide(towline(join(folder, `to-${format}`))))
    assert.deepStrictEqual(again, first)
    assert.strictEqual(shown.id, image.config.descriptor.digest.slice(7))
    assert.deepStrictEqual(shown.layers.map(({ blob }) => blob.digest), image.layers.map(({ digest }) => digest))
    assert.strictEqual(loaded.images[0]?.digest === image.manifest.descriptor.digest, format === "docker-archive")
  }
  // One image in two manifests: it takes its own name from nobody.
  const both = yield* Effect.forEach(["docker-archive", "oci-archive"], (file) => load(join(folder, file))).pipe(Effect.provide(towline(join(folder, "both"))))
  assert.deepStrictEqual(both.map(({ renamed }) => renamed), [[], []])
})), 60_000)

it.live("a layer that was never fetched in this image's form is written in the one that is there, or not at all", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  const items = [{ path: "shared", contents: "the same in both" }]
  registry.put("app", "gzip", ImageBuilder.image({ platform, layers: [ImageBuilder.layer(items)] }))
  registry.put("app", "zstd", ImageBuilder.image({ platform, layers: [ImageBuilder.layer(items, { compression: "zstd" })], configFields: { author: "other" } }))
  const [one, two] = [`${registry.host}/app:gzip`, `${registry.host}/app:zstd`]
  yield* Effect.gen(function*() {
    yield* Pull.pull(one)
    yield* Pull.pull(two)
    const file = join(folder, "two.tar")
    writeFileSync(file, yield* bytesOf([two], "docker-archive"))
    const { id } = yield* (yield* Graph).resolve(two)
    const loaded = yield* load(file).pipe(Effect.provide(towline(join(folder, "other"))))
    assert.deepStrictEqual(loaded.images.map((image) => image.id), [id])
    const blobs = join(folder, "store", "blobs", "sha256")
    const { digest } = ImageBuilder.layer(items)
    assert.include(readdirSync(blobs), digest.slice(7))
    yield* (yield* Graph).remove(one)
    assert.strictEqual((yield* Effect.flip(bytesOf([two], "docker-archive")))._tag, "NotSavable")
  }).pipe(Effect.provide(towline(folder)))
})), 60_000)

it.live("old images go through an archive as they are", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const [child, parent] = ["c".repeat(64), "d".repeat(64)]
  const file = join(folder, "old.tar")
  writeFileSync(file, Archive.archive(SavedArchive.legacy([
    { id: child, json: JSON.stringify({ id: child, parent, os: "linux", architecture: "amd64" }), layer: Archive.archive([{ path: "child" }]) },
    { id: parent, json: JSON.stringify({ id: parent }), layer: Archive.archive([{ path: "parent" }]) }
  ], { busybox: { latest: child } })))
  const [digest, bytes] = yield* Effect.gen(function*() {
    yield* load(file)
    return [(yield* (yield* Graph).resolve("busybox")).manifest.digest, yield* bytesOf(["busybox"], "docker-archive")] as const
  }).pipe(Effect.provide(towline(folder)))
  const saved = join(folder, "saved.tar")
  writeFileSync(saved, bytes)
  const there = yield* load(saved).pipe(Effect.provide(towline(join(folder, "other"))))
  assert.deepStrictEqual(there.images.map((image) => [image.digest, image.names]), [[digest, [{ name: "docker.io/library/busybox", reference: "latest" }]]])
  const back = yield* load(saved).pipe(Effect.provide(towline(folder)))
  assert.deepStrictEqual(back.images.map(({ changed, id }) => [id, changed]), [[child, false]])
})), 60_000)

it.live("old images are written as Docker 1.9 did, with plain layers, and come back the same", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const [child, parent] = ["c".repeat(64), "d".repeat(64)]
  const tars = { [child]: Archive.archive([{ path: "child", contents: "four" }]), [parent]: Archive.archive([{ path: "parent" }]) }
  const created = "2015-09-08T21:30:30.307853054Z"
  const items = SavedArchive.legacy([
    { id: child, json: JSON.stringify({ id: child, parent, created, unknown: 1 }), layer: gzipSync(tars[child] ?? "") },
    { id: parent, json: JSON.stringify({ id: parent, created }), layer: tars[parent] ?? "" }
  ], { busybox: { latest: child } })
  const file = join(folder, "old.tar")
  writeFileSync(file, Archive.archive(items))
  const bytes = yield* Effect.gen(function*() {
    yield* load(file)
    const twice = yield* Effect.forEach([1, 2], () => Stream.runCollect(SaveOld.stream(["busybox"])))
    const [first = Buffer.alloc(0), second] = twice.map((chunks) => Buffer.concat([...chunks]))
    assert.deepStrictEqual(first, second)
    return first
  }).pipe(Effect.provide(towline(folder)))
  const saved = yield* opened(bytes)
  assert.deepStrictEqual(saved.folders, [child, parent])
  for (const id of [child, parent]) assert.deepStrictEqual(Buffer.from(saved.find(`${id}/layer.tar`)?.bytes(1 << 20) ?? ""), tars[id])
  const json = JSON.parse(text(saved, `${child}/json`) ?? "") as { readonly Size: number; readonly parent: string; readonly created: string; readonly unknown?: number }
  assert.deepStrictEqual([json.parent, json.Size, json.created, json.unknown], [parent, 4, created, undefined])
  assert.strictEqual(text(saved, "repositories"), `{"busybox":{"latest":"${child}"}}\n`)
  writeFileSync(file, bytes)
  const back = yield* load(file).pipe(Effect.provide(towline(join(folder, "other"))))
  assert.deepStrictEqual(back.images.map(({ id }) => id), [parent, child])
})), 60_000)
