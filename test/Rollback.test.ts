import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Pull from "../src/Pull.ts"
import * as Rollback from "../src/Rollback.ts"
import { Graph } from "../src/store/Graph.ts"
import { History } from "../src/store/names/History.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import { ImageBuilder, LegacyImage, TestRegistry } from "../src/testing/index.ts"
import { command } from "./command.ts"
import { assertSound, temporary, towline } from "./harness.ts"
import { assertFailed } from "./main/setting.ts"

const platform = "linux/amd64"
const images = ["first", "second", "third"].map((name) => ImageBuilder.image({ layers: [[{ path: name, contents: name }]] }))
const digests = images.map(({ manifest }) => manifest.descriptor.digest)

/** A tag that was three images, one after the other. */
const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Effect.forEach(images, (image) => {
    registry.put("app", "1", image)
    return Pull.pull(reference, { platform })
  }).pipe(Effect.provide(towline(folder)))
  registry.forget()
  return { registry, folder, reference, tag: { name: `${registry.host}/app`, reference: "1" } }
})

describe("Rollback", () => {
  it.live("goes one value back, again one further, and forth by a pull", () => Effect.gen(function*() {
    const { folder, reference, registry, tag } = yield* setting
    yield* Effect.gen(function*() {
      const graph = yield* Graph
      assert.strictEqual((yield* Rollback.rollback(reference)).manifest, digests[1])
      assert.strictEqual((yield* graph.resolve(reference)).manifest.digest, digests[1])
      assert.strictEqual((yield* Rollback.rollback(reference)).manifest, digests[0])
      assert.strictEqual((yield* Effect.flip(Rollback.rollback(reference)))._tag, "NoEarlierValue")
      assert.strictEqual(registry.requests.length, 0)
      yield* Pull.pull(reference, { platform })
      assert.strictEqual((yield* graph.resolve(reference)).manifest.digest, digests[2])
      assert.strictEqual((yield* Rollback.rollback(reference)).manifest, digests[0], "what it was before the pull")
      const changes = yield* (yield* History).log(tag)
      assert.deepStrictEqual(changes.map(({ manifest, rollback }) => [digests.findIndex((digest) => digest === manifest), rollback]),
        [[0, true], [2, false], [0, true], [1, true], [2, false], [1, false], [0, false]])
      assert.deepStrictEqual(changes.map(({ endpoint }) => endpoint === `http://${registry.host}`), [false, true, false, false, true, true, true])
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("fetches again what was collected meanwhile; gc keeps the last values if it is told to", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    yield* Effect.gen(function*() {
      const collector = yield* Collector
      assert.strictEqual((yield* collector.collect({ keepLast: 2 })).images.length, 1)
      assert.strictEqual((yield* Rollback.rollback(reference)).manifest, digests[1])
      assert.strictEqual(registry.requests.length, 0)
      assert.strictEqual((yield* Rollback.rollback(reference, { platform })).manifest, digests[0])
      assert.isAbove(registry.requests.length, 0)
      assert.strictEqual((yield* (yield* Graph).resolve(reference)).manifest.digest, digests[0])
      const names = Effect.map(Effect.flatMap(Graph, (graph) => graph.list), (listed) => listed.flatMap(({ name, reference }) => name === undefined ? [] : [`${name}:${reference ?? ""}`]))
      assert.deepStrictEqual(yield* names, [reference], "the digest it was pulled by is no name that anybody gave")
      // One that somebody pulled by its digest keeps that name.
      yield* Pull.pull(`${registry.host}/app@${digests[2] ?? ""}`, { platform })
      yield* Pull.pull(reference, { platform })
      yield* Rollback.rollback(reference, { platform })
      assert.deepStrictEqual(yield* names, [reference, `${registry.host}/app:${digests[2] ?? ""}`])
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("fetches again from where it came, whatever it is called here, and images of before schema2 by what the tag led to", () => Effect.gen(function*() {
    const registry = yield* TestRegistry.make()
    const folder = yield* temporary
    const old = ["a", "b"].map((name) => LegacyImage.legacy({ seed: name, steps: [{ tar: [{ path: name, contents: name }] }] }).schema1({ repository: "old", tag: "1" }))
    yield* Effect.gen(function*() {
      const [graph, collector] = [yield* Graph, yield* Collector]
      for (const [at, image] of old.entries()) {
        registry.put("old", "1", image).put("new", "1", images[at] ?? ImageBuilder.demo())
        for (const name of ["old", "new"]) yield* Pull.pull(`${registry.host}/${name}:1`, { platform })
        yield* graph.tag(yield* graph.resolve(`${registry.host}/new:1`), { name: "localhost/mine", reference: "1" }, { force: true })
      }
      const first = (yield* (yield* History).earlier({ name: `${registry.host}/old`, reference: "1" })).manifest
      assert.strictEqual((yield* collector.collect()).images.length, 2)
      assert.strictEqual((yield* Rollback.rollback("localhost/mine:1", { platform })).manifest, digests[0])
      const back = yield* Rollback.rollback(`${registry.host}/old:1`, { platform })
      assert.deepStrictEqual([back.manifest, back.digest], [first, old[0]?.manifest.descriptor.digest])
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("by the command", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting
    const store = ["--store", join(folder, "store")]
    const back = yield* command("pull", ["--rollback", ...store, reference])
    assert.deepStrictEqual([back.stdout, back.stderr, back.code], [`${reference} ${digests[1] ?? ""}\n`, "", 0])
    const log = yield* command("graph", ["log", ...store, reference])
    assert.match(log.stdout, /^TAG +WHEN +IMAGE +MANIFEST +FROM\n\S+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +[0-9a-f]{12} +[0-9a-f]{12} +rollback\n/)
    assert.strictEqual(JSON.parse((yield* command("graph", ["log", ...store, "--json"])).stdout).length, 4)
    assertFailed(yield* command("pull", ["--rollback", ...store, "never:seen"]), 3, /remembers no earlier value/)
  }).pipe(Effect.scoped), 120_000)
})
