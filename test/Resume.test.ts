import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Pull from "../src/Pull.ts"
import { Fault, ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, layer, noise } = ImageBuilder
const built = image({ layers: [layer([{ path: "noise", contents: noise("resume", 2_000_000) }], { compression: "none" })] })
const { digest = "", size = 0 } = built.layers[0] ?? {}
const match = { kind: "blob", name: digest } as const

const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", built)
  return { registry, folder: yield* temporary, reference: `${registry.host}/app:1` }
})
const options = { platform: "linux/amd64" }

/** What the server sent of the layer is its size and less than 5 % more. */
const assertFrugal = (registry: TestRegistry, title: string) => {
  const sent = registry.find(match).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
  assert.isAtLeast(sent, size, title)
  assert.isBelow(sent - size, size * 0.05, title)
}

describe("a blob that was cut", () => {
  for (const share of [1, 50, 99]) {
    const at = Math.floor(size * share / 100)
    it.live(`at ${share} % goes on there, within a pull`, () => Effect.gen(function*() {
      const { folder, reference, registry } = yield* setting
      registry.script([{ match: { ...match, nth: 1 }, do: Fault.cutAt(at) }])
      yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder)).pipe(Effect.provide(towline(folder)))
      assert.deepStrictEqual(registry.find(match).map(({ headers, range }) => [range, headers["if-range"]]), [[undefined, undefined], [`bytes=${at}-`, `"${digest}"`]])
      assertFrugal(registry, "within a pull")
    }).pipe(Effect.scoped))

    it.live(`at ${share} % goes on there in the next pull, by another process's store`, () => Effect.gen(function*() {
      const { folder, reference, registry } = yield* setting
      registry.script([{ match: { ...match, nth: 1 }, do: Fault.cutAt(at) }, { match: { ...match, nth: [2, 3] }, do: Fault.drop }])
      const limits = { tries: 2 }
      const first = yield* Effect.result(Pull.pull(reference, options)).pipe(Effect.provide(towline(folder, { limits })))
      assert.isTrue(Result.isFailure(first) && first.failure._tag === "NetworkError")
      registry.script([])
      yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder)).pipe(Effect.provide(towline(folder)))
      const { headers, range } = registry.find(match).at(-1) ?? assert.fail("it was not asked for")
      assert.deepStrictEqual([range, headers["if-range"]], [`bytes=${at}-`, `"${digest}"`])
      assertFrugal(registry, "across pulls")
    }).pipe(Effect.scoped))
  }

  it.live("of which every answer is cut a little further, costs little more than itself", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([{ match, do: Fault.cutEach(Math.ceil(size / 12)) }])
    yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder)).pipe(Effect.provide(towline(folder)))
    assert.strictEqual(registry.find(match).length, 12)
    assertFrugal(registry, "again and again")
  }).pipe(Effect.scoped))

  it.live("by an interrupt goes on in the next pull", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([{ match: { ...match, nth: 1 }, do: Fault.stall(size >> 1, Infinity) }])
    yield* Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Pull.pull(reference, options))
      yield* registry.seen(match)
      while ((registry.find(match)[0]?.bytesSent ?? 0) < size >> 1) yield* Effect.sleep("20 millis")
      yield* Effect.sleep("200 millis")
      // Another process sees by now what the bytes are called, should this one be killed.
      const db = new DatabaseSync(join(folder, "store", "graph.db"), { readOnly: true })
      assert.deepStrictEqual(db.prepare("SELECT etag, etag_from FROM ingests WHERE kind = 'blob'").all().map((row) => ({ ...row })), [{ etag: `"${digest}"`, etag_from: `https://${registry.host}/v2/app` }])
      db.close()
      yield* Fiber.interrupt(fiber)
      yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder))
    }).pipe(Effect.provide(towline(folder)))
    assertFrugal(registry, "after an interrupt")
  }).pipe(Effect.scoped))

  it.live("and is called otherwise by then begins again, and is verified", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([
      { match: { ...match, nth: 1 }, do: [Fault.setHeaders({ etag: `"old"` }), Fault.cutAt(size >> 1)] },
      { match: { ...match, nth: 2 }, do: [Fault.setHeaders({ etag: `"new"` }), Fault.wrongRange("ignore")] }
    ])
    yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder)).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(registry.find(match).map(({ headers }) => headers["if-range"]), [undefined, `"old"`])
  }).pipe(Effect.scoped))

  it.live("of which another endpoint has the rest goes on there without the first one's name for it; a new name begins again", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([{ match: { ...match, nth: 1 }, do: [Fault.setHeaders({ etag: `"old"` }), Fault.cutAt(size >> 1)] }, { match: { ...match, nth: [2, 3] }, do: Fault.drop }])
    yield* Effect.flip(Pull.pull(reference, options)).pipe(Effect.provide(towline(folder, { limits: { tries: 2 } })))
    const db = new DatabaseSync(join(folder, "store", "graph.db"))
    db.exec(`UPDATE ingests SET etag_from = 'https://elsewhere.example/v2/app'`)
    db.close()
    registry.script([])
    yield* Effect.andThen(Pull.pull(reference, options), assertSound(folder)).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(registry.find(match).slice(-1).map(({ headers, range }) => [range, headers["if-range"]]), [[`bytes=${size >> 1}-`, undefined]])
    assertFrugal(registry, "from another endpoint")
  }).pipe(Effect.scoped))
})
