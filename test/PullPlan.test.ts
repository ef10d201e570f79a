import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Pull from "../src/Pull.ts"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { temporary, towline, planned } from "./harness.ts"

const { image, index, layer, layerOf } = ImageBuilder
const platform = "linux/amd64"

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  return { registry, folder: yield* temporary }
})

describe("PullPlan", () => {
  const arm = image({ layers: [layer([{ path: "arm" }])], platform: { os: "linux", architecture: "arm64" } })
  const amd = image({ layers: [layer([{ path: "amd" }])] })

  it.live("an index whose entries name no platform: artifacts are passed over, configs decide, and the error lists them", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const artifact = image({ layers: [layerOf(Buffer.from("{}"), { compression: "none", mediaType: "application/json" })], manifestFields: { artifactType: "application/x" } })
    const bare = [artifact, arm, amd].map((built) => ({ built, platform: null }))
    registry.put("bare", "1", index(bare)).put("bare", "arm", index(bare.slice(0, 2)))
    yield* Effect.gen(function*() {
      const plan = yield* planned(`${registry.host}/bare:1`, platform)
      assert.strictEqual(plan.manifest.digest, amd.manifest.descriptor.digest)
      assert.deepStrictEqual(plan.candidates.filter(({ lost }) => lost === undefined).map(({ digest }) => digest), [amd.manifest.descriptor.digest])
      const error = yield* Effect.flip(Pull.plan(`${registry.host}/bare:arm`, { platform }))
      assert.isTrue(error._tag === "NoPlatform" && error.available.join() === "linux/arm64", error.message)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("what a nested index's entry says of its platform holds, whatever the config leaves out", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const six = image({ layers: [layer([{ path: "six" }])], platform: { os: "linux", architecture: "arm" } })
    const entry = { built: six, platform: { os: "linux", architecture: "arm", variant: "v6" } }
    registry.put("six", "1", index([entry])).put("six", "nested", index([index([entry])]))
    yield* Effect.gen(function*() {
      for (const tag of ["1", "nested"]) {
        const plan = yield* planned(`${registry.host}/six:${tag}`, "linux/arm/v6")
        assert.strictEqual(plan.manifest.digest, six.manifest.descriptor.digest)
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("an image without an index that is for another platform than was asked for", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    registry.put("arm", "1", arm)
    yield* Effect.gen(function*() {
      const error = yield* Effect.flip(Pull.pull(`${registry.host}/arm:1`, { platform }))
      assert.isTrue(error._tag === "NoPlatform" && error.available.join() === "linux/arm64", error.message)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("indexes nested too deep, and with too many entries", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    let deep = index([amd])
    for (let n = 0; n < 7; n++) deep = index([deep])
    registry.put("deep", "8", deep).put("deep", "9", index([deep]))
    const many = (n: number) => index([amd], { fields: { manifests: Array.from({ length: n }, () => ({ mediaType: amd.manifest.descriptor.mediaType, digest: amd.manifest.descriptor.digest, size: amd.manifest.descriptor.size, platform: { os: "linux", architecture: "amd64" } })) } })
    registry.put("many", "4096", many(4096)).put("many", "4097", many(4097))
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* planned(`${registry.host}/deep:8`, platform)).documents.length, 10)
      assert.strictEqual((yield* Effect.flip(Pull.plan(`${registry.host}/deep:9`, { platform })))._tag, "ManifestRefused")
      yield* Pull.plan(`${registry.host}/many:4096`, { platform })
      assert.strictEqual((yield* Effect.flip(Pull.plan(`${registry.host}/many:4097`, { platform })))._tag, "ManifestRefused")
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})
