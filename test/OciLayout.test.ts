import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Stream } from "effect"
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as OciLayout from "../src/OciLayout.ts"
import * as Pull from "../src/Pull.ts"
import * as Save from "../src/Save.ts"
import { BlobStore } from "../src/store/BlobStore.ts"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, layer, noise } = ImageBuilder
const platform = "linux/amd64"

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  return { registry, folder: yield* temporary }
})

const base = [{ path: "a", contents: noise("a", 50_000) }]

describe("OciLayout", () => {
  it.live("a blob that is damaged in the store gets into no layout and no archive", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("app", "1", image({ layers: [layer(base), layer([{ path: "b", contents: noise("b", 3_000_000) }])] }))
    yield* Effect.gen(function*() {
      const one = yield* Pull.pull(`${registry.host}/app:1`, { platform })
      const [saved] = yield* Save.find([`${registry.host}/app:1`])
      for (const digest of [one.config.descriptor.digest, ...one.layers.map(({ blob }) => blob.digest)]) {
        const file = join(folder, "store/blobs/sha256", digest.slice(7))
        const bytes = readFileSync(file)
        bytes[bytes.byteLength - 1] = (bytes.at(-1) ?? 0) ^ 1
        writeFileSync(file, bytes)
        const path = join(folder, digest.slice(7, 19))
        const refused = yield* Effect.flip(OciLayout.write(one, path, "1"))
        assert.match(refused.message, new RegExp(`${digest} is damaged in the store.*graph check --repair`))
        assert.isFalse(existsSync(join(path, "index.json")) || existsSync(join(path, "blobs/sha256", digest.slice(7))))
        assert.isTrue(readdirSync(join(path, "blobs/sha256")).every((name) => name.length === 64))
        const archive = yield* Effect.flip(Save.write(saved === undefined ? [] : [saved], "oci-archive", `${path}.tar`))
        assert.deepStrictEqual([archive._tag, existsSync(`${path}.tar`)], ["BlobDamaged", false])
        bytes[bytes.byteLength - 1] = (bytes.at(-1) ?? 0) ^ 1
        writeFileSync(file, bytes)
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a layout takes images from several pulls at once, and again after one that was stopped", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const tags = ["a", "b", "c", "d"]
    for (const tag of tags) registry.put("app", tag, image({ layers: [layer([{ path: tag, contents: noise(tag, 200_000) }])], format: tag < "c" ? "oci" : "docker" }))
    const path = join(folder, "layout")
    const names = () => {
      const { manifests } = JSON.parse(readFileSync(join(path, "index.json"), "utf8"))
      return manifests.map(({ annotations }: { annotations: Record<string, string> }) => annotations["org.opencontainers.image.ref.name"]).sort()
    }
    yield* Effect.gen(function*() {
      const images = yield* Effect.forEach(tags, (tag) => Pull.pull(`${registry.host}/app:${tag}`, { platform, unpack: false }))
      const write = (at: number) => {
        const one = images[at]
        return one === undefined ? Effect.void : Effect.asVoid(OciLayout.write(one, path, tags[at] ?? ""))
      }
      yield* Effect.forEach(tags.keys(), write, { concurrency: 4 })
      assert.deepStrictEqual(names(), tags)
      assert.deepStrictEqual(readdirSync(path).sort(), ["blobs", "index.json", "oci-layout"])
      const files = readdirSync(path, { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
      writeFileSync(join(folder, "plain"), "")
      const { mode } = lstatSync(join(folder, "plain"))
      for (const { name, parentPath } of files) assert.strictEqual(lstatSync(join(parentPath, name)).mode, mode, name)
      rmSync(path, { recursive: true })
      for (let wait = 0; wait < 6; wait += 0.5) {
        const fiber = yield* Effect.forkChild(write(0))
        yield* Effect.sleep(wait)
        yield* Fiber.interrupt(fiber)
        yield* write(1)
        assert.include(names(), "b")
        yield* Effect.sleep("20 millis")
        assert.isTrue(readdirSync(join(path, "blobs/sha256")).every((name) => name.length === 64))
        rmSync(path, { recursive: true })
      }
    }).pipe(Effect.provide(towline(folder)))
    const stores = yield* Effect.forEach(["s1", "s2", "s3"], (name) => Effect.sync(() => { mkdirSync(join(folder, name)); return join(folder, name) }))
    yield* Effect.forEach(stores, (store, at) =>
      Effect.gen(function*() {
        const one = yield* Pull.pull(`${registry.host}/app:${tags[at] ?? ""}`, { platform, unpack: false })
        yield* OciLayout.write(one, path, tags[at] ?? "")
      }).pipe(Effect.provide(towline(store))), { concurrency: 3 })
    assert.deepStrictEqual(names(), tags.slice(0, 3))
  }).pipe(Effect.scoped))

  it.live("an image layout gets blobs of layers that are unpacked, and whose blobs are gone", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const [gzip, zstd] = [image({ layers: [layer(base)] }), image({ layers: [layer(base, { compression: "zstd" })] })]
    registry.put("app", "1", gzip).put("app", "2", zstd)
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/app:1`, { platform })
      const without = yield* Pull.pull(`${registry.host}/app:2`, { platform })
      assert.isTrue(Option.isNone(yield* (yield* BlobStore).find(zstd.layers[0]?.digest ?? without.target.digest)))
      const events = yield* Stream.runCollect(Pull.events(`${registry.host}/app:2`, { platform, blobs: true }))
      assert.deepStrictEqual(events.filter(({ _tag }) => _tag === "committed" || _tag === "exists").length, 1)
      yield* OciLayout.write(without, join(folder, "layout"), "2")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})
