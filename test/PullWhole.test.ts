import { assert, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Load from "../src/Load.ts"
import * as OciLayout from "../src/OciLayout.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import * as Save from "../src/Save.ts"
import { Graph } from "../src/store/Graph.ts"
import { Listing } from "../src/store/names/Listing.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import { attestation, image, index, layer, layerOf } from "../src/testing/ImageBuilder.ts"
import { TestRegistry } from "../src/testing/server/TestRegistry.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const shared = layer([{ path: "shared", contents: "in both" }])
const of = (architecture: string, format: "oci" | "docker" = "oci") =>
  image({ format, layers: [shared, [{ path: architecture, contents: architecture }]], platform: { os: "linux", architecture } })
const blob = (text: string, mediaType: string) => layerOf(Buffer.from(text), { compression: "none", mediaType })
const emptyConfig = { mediaType: "application/vnd.oci.empty.v1+json", digest: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", size: 2 }
/** An artifact with the empty config that OCI 1.1 has for those without one. */
const bare = (text: string) => {
  const built = image({ layers: [blob(text, "text/plain")], manifestFields: { config: emptyConfig, artifactType: "application/vnd.example" } })
  return { ...built, blobs: new Map([...built.blobs, [emptyConfig.digest as never, Buffer.from("{}")]]) }
}
const artifacts = {
  chart: image({ layers: [blob("chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")], manifestFields: {
    config: { mediaType: "application/vnd.cncf.helm.config.v1+json", digest: shared.digest, size: shared.size } } }),
  signature: image({ layers: [blob("{}", "application/vnd.dev.cosign.simplesigning.v1+json")] }),
  wasm: image({ layers: [blob("\0asm", "application/wasm")], platform: { os: "wasi", architecture: "wasm" } }),
  first: bare("first"), second: bare("second")
}
const typeOf = {
  chart: "application/vnd.cncf.helm.config.v1+json", signature: "application/vnd.dev.cosign.simplesigning.v1+json", wasm: "application/wasm",
  first: "application/vnd.example", second: "application/vnd.example"
}
const saved = (name: string, format: Save.Format) => Effect.gen(function*() {
  return Buffer.concat([...yield* Stream.runCollect(Save.stream(yield* Save.find([name]), format))])
})
const platform = "all"
const load = (file: string, options: Load.LoadOptions = {}) => Load.load(new Hub<PullEvent>(keyOf), file, options)
const read = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"))
const hex = (digest: string) => digest.slice(digest.indexOf(":") + 1)

it.live("every image of an index is stored, shown, kept, written out with the index, and goes with its tag", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  for (const format of ["oci", "docker"] as const) {
    const [amd, arm, s390] = [of("amd64", format), of("arm64", format), of("s390x", format)]
    const whole = index([arm, amd, index([s390, amd], { format }), ...format === "oci" ? [attestation(amd)] : []], { format })
    const count = format === "oci" ? 4 : 3
    registry.put("app", format, whole)
    const name = `${registry.host}/app:${format}`
    const [layout, archive] = [join(folder, `layout-${format}`), join(folder, `${format}.tar`)]
    yield* Effect.gen(function*() {
      const plan = yield* Pull.plan(name, { platform })
      assert.isTrue(plan.kind === "index" && plan.images.length === count && plan.images[plan.chosen]?.manifest.digest === amd.manifest.descriptor.digest)
      const pulled = yield* Pull.pull(name, { platform, blobs: true })
      assert.deepStrictEqual([pulled.target.digest, pulled.manifest.digest, pulled.whole?.members.length, pulled.changed],
        [whole.manifest.descriptor.digest, amd.manifest.descriptor.digest, count, true])
      assert.isFalse((yield* Pull.pull(name, { platform, blobs: true })).changed)
      const graph = yield* Graph
      for (const one of [amd, arm, s390]) {
        const found = yield* graph.resolve(one.manifest.descriptor.digest)
        assert.deepStrictEqual([found.missing, found.layers.length], [[], 2])
        // Its layers are held as long as the root file system is there.
        yield* Effect.scoped(Effect.map(RootFs.make({ reference: name, layers: found.layers.map((layer) => ({ ...layer, repository: { domain: "", path: "" } })) }, { place: folder }), (root) =>
          assert.isTrue(existsSync(join(root, one.platform?.architecture ?? "")) && existsSync(join(root, "shared")))))
      }
      assert.deepStrictEqual((yield* graph.members(whole.manifest.descriptor.digest)).map(({ platform }) => platform).slice(0, 3), ["linux/arm64", "linux/amd64", "linux/s390x"])
      // For one platform nothing is asked for again.
      registry.forget()
      assert.strictEqual((yield* Pull.pull(`${registry.host}/app@${whole.manifest.descriptor.digest}`, { platform: "linux/s390x" })).manifest.digest, s390.manifest.descriptor.digest)
      assert.deepStrictEqual(registry.requests.map(({ kind }) => kind), [])
      yield* graph.remove(`${registry.host}/app@${whole.manifest.descriptor.digest}`)
      const listed = yield* (yield* Listing).list()
      assert.deepStrictEqual(listed.map(({ members, platform, reference }) => [reference, platform, members]), [[format, "linux/amd64", count]])
      yield* (yield* Collector).collect()
      assert.strictEqual((yield* graph.members(whole.manifest.descriptor.digest)).length, count)
      yield* assertSound(folder)
      const top = yield* OciLayout.write(pulled, layout, "1")
      assert.strictEqual(top.digest === whole.manifest.descriptor.digest, format === "oci")
      writeFileSync(archive, yield* saved(name, "docker-archive"))
      writeFileSync(`${archive}.oci`, yield* saved(name, "oci-archive"))
      const removed = yield* graph.remove(name)
      assert.deepStrictEqual([removed.blobs.length > 10, removed.layers.length], [true, 4])
      assert.deepStrictEqual(yield* (yield* Listing).list({ all: true }), [])
      yield* assertSound(folder)
    }).pipe(Effect.scoped, Effect.provide(towline(folder)))
    const again = yield* load(archive, { platform }).pipe(Effect.provide(towline(join(folder, `again-${format}`))))
    assert.deepStrictEqual(again.images.map(({ names }) => names.length).sort(), [...Array.from({ length: count - 1 }, () => 0), 1])
    assert.deepStrictEqual(new Set(again.images.map(({ digest }) => digest)), new Set([whole.manifest.descriptor.digest]))
    const one = yield* load(`${archive}.oci`, { platform: "linux/arm64" }).pipe(Effect.provide(towline(join(folder, `one-${format}`))))
    assert.deepStrictEqual(one.images.map(({ platform }) => platform), ["linux/arm64"])
    assert.strictEqual((yield* load(layout, { platform }).pipe(Effect.provide(towline(join(folder, `layout-again-${format}`))))).images.length, count)
  }
})), 60_000)

it.live("artifacts are stored whole, not unpacked, and it is said", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  for (const [tag, built] of Object.entries(artifacts)) registry.put("stuff", tag, built)
  registry.put("stuff", "any", index([artifacts.wasm, of("amd64")]))
  const from = towline(folder)
  mkdirSync(join(folder, "out"))
  const name = (tag: string) => `${registry.host}/stuff:${tag}`
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    for (const tag of ["chart", "signature", "wasm", "first", "second"] as const) {
      const { descriptor } = artifacts[tag].manifest
      const events = yield* Stream.runCollect(Pull.events(name(tag)))
      assert.isTrue([...events].some((event) => event._tag === "warning" && event.message.includes(typeOf[tag]) && event.message.includes("not unpacked")), tag)
      const pulled = yield* Pull.pull(name(tag))
      assert.deepStrictEqual([pulled.artifact?.type, pulled.changed, pulled.id, pulled.layers.length], [typeOf[tag], false, hex(descriptor.digest), 0])
      const shown = yield* graph.show(name(tag))
      assert.deepStrictEqual([shown.artifact?.type, shown.artifact?.blobs.length, shown.missing, shown.layers], [typeOf[tag], 1, [], []])
      const refused = yield* Effect.result(Pull.pull(name(tag), { rootfs: join(folder, "root") }))
      assert.isTrue(Result.isFailure(refused) && refused.failure._tag === "NoFileSystem")
      assert.isFalse(existsSync(join(folder, "root")))
      yield* OciLayout.write(pulled, join(folder, "layout"), tag)
      assert.strictEqual((yield* Effect.flip(saved(name(tag), "docker-archive")))._tag, "NoFileSystem")
      writeFileSync(join(folder, "out", tag), yield* saved(name(tag), "oci-archive"))
    }
    assert.strictEqual((yield* Pull.pull(name("any"), { platform: "wasi/wasm" })).artifact?.type, "application/wasm")
    assert.strictEqual((yield* Pull.pull(name("any"), { platform: "linux/amd64" })).artifact, undefined)
    yield* assertSound(folder)
    assert.deepStrictEqual((yield* (yield* Listing).list()).map(({ artifact, reference }) => [reference, artifact]),
      [["any", undefined], ["chart", typeOf.chart], ["first", typeOf.first], ["second", typeOf.second], ["signature", typeOf.signature], ["wasm", typeOf.wasm]])
    // The config that two have is kept for the other.
    yield* graph.remove(name("first"))
    assert.deepStrictEqual((yield* graph.show(name("second"))).missing, [])
    yield* (yield* Collector).collect()
    yield* assertSound(folder)
  }).pipe(Effect.provide(from))
  const entries = read(join(folder, "layout", "index.json"))
  assert.deepInclude(entries, { mediaType: "application/vnd.oci.image.index.v1+json" })
  yield* Effect.gen(function*() {
    for (const tag of ["chart", "signature", "wasm", "first", "second"] as const) {
      const { images } = yield* load(join(folder, "out", tag))
      assert.deepStrictEqual(images.map(({ artifact, id }) => [artifact, id]), [[typeOf[tag], hex(artifacts[tag].manifest.descriptor.digest)]])
      assert.strictEqual((yield* (yield* Graph).resolve(name(tag))).artifact?.type, typeOf[tag])
    }
    assert.strictEqual((yield* load(join(folder, "layout"))).images.length, 5)
    yield* assertSound(join(folder, "other"))
  }).pipe(Effect.provide(towline(join(folder, "other"))))
})), 60_000)

it.live("one bad image of an index keeps all of it out, and an artifact with a wrong blob too", () => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const registry = yield* TestRegistry.make()
  const wrong = image({ layers: [[{ path: "../../x", type: "link", linkpath: ".." }]], platform: { os: "linux", architecture: "arm64" } })
  const lying = image({ layers: [blob("right", "text/plain")] })
  registry.put("bad", "index", index([of("amd64"), wrong]))
  registry.put("bad", "artifact", { ...lying, blobs: new Map([...lying.blobs].map(([digest, body], at) => [digest, at === 1 ? Buffer.from("wrong") : body])) })
  yield* Effect.gen(function*() {
    for (const [tag, error] of [["index", "LayerRefused"], ["artifact", "VerifyError"]] as const) {
      assert.strictEqual((yield* Effect.flip(Pull.pull(`${registry.host}/bad:${tag}`, { platform })))._tag, error)
      assert.deepStrictEqual(yield* (yield* Listing).list({ all: true }), [])
    }
  }).pipe(Effect.provide(towline(folder)))
})), 60_000)

it.live("an index whose images have too many layers in all is refused", () => Effect.scoped(Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  const layers = Array.from({ length: 4000 }, () => ({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: shared.digest, size: shared.size }))
  const crowd = (at: number) => image({
    layers: [shared], platform: { os: "linux", architecture: "amd64", variant: `v${at}` },
    manifestFields: { layers }, configFields: { rootfs: { type: "layers", diff_ids: layers.map(() => shared.diffId) } }
  })
  const folder = yield* temporary
  registry.put("app", "4", index([0, 1, 2, 3].map(crowd)))
  registry.put("app", "5", index([0, 1, 2, 3, 4].map(crowd)))
  yield* Effect.gen(function*() {
    const failed = yield* Effect.flip(Pull.pull(`${registry.host}/app:5`, { platform }))
    assert.include(failed.message, "its images have more than 16384 layers in all")
    assert.strictEqual((yield* Pull.plan(`${registry.host}/app:4`, { platform })).kind, "index")
  }).pipe(Effect.provide(towline(folder)))
})), 60_000)
