import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, type Layer, Option, Schema } from "effect"
import { existsSync } from "node:fs"
import * as Digest from "../../src/image/Digest.ts"
import { BlobStore } from "../../src/store/BlobStore.ts"
import { chainIds, Graph } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import type * as Store from "../../src/store/Store.ts"
import { MemoryStore } from "../../src/testing/index.ts"
import { Leases } from "../../src/store/Leases.ts"
import { blobOf, digestOf, imageOf, litter, storeInTemp, temp, withStore } from "./Fixtures.ts"

const hub = "docker.io/library"
const names = Effect.fnUntraced(function*() {
  return (yield* (yield* Graph).list).map(({ name, reference, id }) => [name, reference, id])
})

describe("chainIds", () => {
  it("are the image-spec's", () => {
    const diff = (letter: string) => Digest.Digest.make(`sha256:${letter.repeat(64)}`)
    const [a, b, c] = [diff("a"), diff("b"), diff("c")]
    const ab = digestOf(Buffer.from(`${a} ${b}`))
    assert.deepStrictEqual(chainIds([a, b, c]), [a, ab, digestOf(Buffer.from(`${ab} ${c}`))])
    assert.deepStrictEqual(chainIds([]), [])
  })
})

/** What every store must do with images and tags. */
const contract = <E>(name: string, store: Layer.Layer<Store.Services, E>) => layer(store, { excludeTestServices: true })(name, (it) => {
  it.effect("registers an image whole, again without a change, and finds it by every name", Effect.fnUntraced(function*() {
    const graph = yield* Graph
    const wanted = yield* imageOf("alpine", ["alpine base", "alpine top", "alpine base"])
    const image = yield* graph.register(wanted)
    assert.deepStrictEqual(yield* graph.register(wanted), image)
    assert.deepStrictEqual([image.layers, image.missing, image.tags], [wanted.layers, [], wanted.tags])
    assert.strictEqual(image.chain, chainIds(wanted.layers.map(({ diffId }) => diffId)).at(-1))
    const [id, manifest] = [image.id, wanted.manifest.digest]
    for (const name of ["alpine", "alpine:latest", `${hub}/alpine`, `alpine@${manifest}`, `alpine:latest@${manifest}`, id, `sha256:${id}`, id.slice(0, 12), manifest]) {
      assert.deepStrictEqual([name, yield* graph.resolve(name)], [name, image])
    }
    assert.deepStrictEqual(Buffer.from((yield* graph.show("alpine")).configBytes), wanted.configBytes)
    assert.deepStrictEqual(yield* graph.find(manifest, "linux/amd64"), Option.some(image))
    assert.deepStrictEqual(yield* graph.find(manifest, "linux/arm64"), Option.none())
    assert.deepStrictEqual(yield* graph.byManifest(manifest), Option.some(image))
    assert.strictEqual(Option.getOrThrow(yield* (yield* LayerStore).find(wanted.layers[0]?.diffId ?? manifest)).state, "durable")
    for (const name of ["alpine:3", "alpin", "no/such", "Not A Name", `${id}0`, `sha256:${"0".repeat(64)}`]) {
      assert.deepStrictEqual([name, (yield* Effect.flip(graph.resolve(name)))._tag], [name, "ImageNotFound"])
    }
    assert.strictEqual((yield* Effect.flip(graph.resolve("")))._tag, "ImageNotFound")
  }))

  it.effect("asks for more of an id that fits several images", Effect.fnUntraced(function*() {
    const graph = yield* Graph
    for (let n = 0; n < 20; n++) yield* graph.register({ ...yield* imageOf(`n${n}`, []), tags: [] })
    const ids = (yield* graph.list).map(({ id }) => id)
    const shared = ids.find((id) => ids.filter((other) => other[0] === id[0]).length > 1)?.slice(0, 1) ?? ""
    const error = yield* Effect.flip(graph.resolve(shared))
    assert.strictEqual(error._tag, "AmbiguousName")
    assert.include(error.message, "give more of the id")
  }))

  it.effect("refuses to register what is not there", Effect.fnUntraced(function*() {
    const graph = yield* Graph
    const image = yield* imageOf("holes", ["here"])
    const absent = blobOf(Buffer.from("never came"))
    const error = yield* Effect.flip(graph.register({ ...image, layers: [...image.layers, { blob: absent, diffId: absent.digest }] }))
    assert.include(error.message, absent.digest)
    assert.strictEqual((yield* Effect.flip(graph.resolve("holes")))._tag, "ImageNotFound")
  }))

  it.effect("leaves layers unsynced when they were not synced", Effect.fnUntraced(function*() {
    const image = yield* (yield* Graph).register({ ...yield* imageOf("fast", ["unsynced"]), synced: false })
    assert.strictEqual(Option.getOrThrow(yield* (yield* LayerStore).find(image.layers[0]?.diffId ?? image.manifest.digest)).state, "unsynced")
  }))

  it.effect("moves a tag, and the image it left has no name", Effect.fnUntraced(function*() {
    const graph = yield* Graph
    const old = yield* graph.register(yield* imageOf("moving", ["old"]))
    const next = yield* graph.register({ ...yield* imageOf("moving2", ["new"], []), tags: old.tags })
    yield* graph.tag(next, { name: `${hub}/moving`, reference: "v2" })
    assert.deepStrictEqual((yield* names()).filter(([, , id]) => id === old.id || id === next.id), [
      [`${hub}/moving`, "latest", next.id], [`${hub}/moving`, "v2", next.id], [undefined, undefined, old.id]
    ])
  }))
})

contract("Graph", storeInTemp)
contract("Graph in memory", MemoryStore.layer)

it.live("removes the tag, with the last tag the image, and with it what nobody else needs or leases", () => Effect.gen(function*() {
  const path = yield* temp
  const fileOf = (digest: Digest.Digest) => existsSync(`${path}/blobs/sha256/${digest.slice(7)}`)
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    const first = yield* graph.register(yield* imageOf("first", ["base", "first", "leased"], ["latest", "1"]))
    const second = yield* graph.register(yield* imageOf("second", ["base", "second"]))
    const [base, own, leased] = first.layers
    if (base === undefined || own === undefined || leased === undefined) return assert.fail("three layers")
    assert.deepStrictEqual((yield* graph.remove("first:1")).image, undefined)
    assert.strictEqual((yield* graph.resolve("first")).id, first.id)
    const removed = yield* Effect.scoped(Effect.gen(function*() {
      yield* (yield* Leases).hold([leased.blob.digest, leased.diffId, leased.diffId])
      return yield* graph.remove("first")
    }))
    assert.deepStrictEqual([removed.image, removed.untagged], [first.id, [{ name: `${hub}/first`, reference: "latest" }]])
    assert.sameMembers([...removed.blobs], [own.blob.digest, first.config.digest, first.manifest.digest])
    assert.deepStrictEqual(removed.layers, [own.diffId])
    const layers = yield* LayerStore
    const there = yield* Effect.forEach([base, own, leased], ({ diffId }) => Effect.map(layers.find(diffId), Option.isSome))
    assert.deepStrictEqual([there, [base, own, leased].map(({ blob }) => fileOf(blob.digest))], [[true, false, true], [true, false, true]])
    assert.deepStrictEqual((yield* graph.resolve("second")).missing, [])
    assert.deepStrictEqual((yield* graph.remove(second.id.slice(0, 12))).image, second.id)
    assert.strictEqual((yield* Effect.flip(graph.remove("second")))._tag, "ImageNotFound")
  }).pipe(withStore(path))
  assert.deepStrictEqual(yield* Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path)), [])
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped))

it.live("a removed blob can be stored again at once, and a removed layer laid up again", () => Effect.gen(function*() {
  const path = yield* temp
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    for (let turn = 0; turn < 5; turn++) {
      const again = Effect.flatMap(imageOf("again", ["one", "two"]), graph.register)
      yield* again
      const [, image] = yield* Effect.all([graph.remove("again"), Effect.retry(again, { times: 3 })], { concurrency: 2 })
      const left = yield* Effect.option(graph.resolve("again"))
      if (Option.isSome(left)) assert.deepStrictEqual(left.value.missing, [])
      assert.isDefined(image)
    }
    assert.deepStrictEqual(yield* graph.check(), [])
  }).pipe(withStore(path))
}).pipe(Effect.scoped))

layer(storeInTemp, { excludeTestServices: true })("Graph, any images", (it) => {
  const small = Schema.Literals(["a", "b", "c"])
  it.effect.prop("removing any of them leaves the others whole, and nothing that nobody needs", [Schema.Array(Schema.Array(small)), Schema.Natural],
    Effect.fnUntraced(function*([stacks, seed]) {
      const graph = yield* Graph
      const images = stacks.slice(0, 5).map((stack, index) => ({ name: `i${index}`, stack: stack.slice(0, 4) }))
      for (const { name, stack } of images) yield* graph.register(yield* imageOf(name, stack))
      const order = images.toSorted((a, b) => (a.name.charCodeAt(1) * 7 + seed) % 5 - (b.name.charCodeAt(1) * 7 + seed) % 5)
      for (const [index, { name }] of order.entries()) {
        yield* graph.remove(name)
        for (const other of order.slice(index + 1)) assert.deepStrictEqual((yield* graph.resolve(other.name)).missing, [])
      }
      assert.deepStrictEqual([yield* graph.list, yield* graph.check()], [[], []])
      const blobs = yield* BlobStore
      for (const text of ["a", "b", "c"]) assert.isTrue(Option.isNone(yield* blobs.find(digestOf(Buffer.from(`blob ${text}`)))))
    }), { arbitrary: { runs: 25 } })
})
