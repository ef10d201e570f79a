import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import { Hub } from "../../src/progress/Hub.ts"

interface Step { readonly kind: string; readonly n: number }
const key = ({ kind }: Step) => kind === "" ? undefined : kind
const hubOf = () => new Hub<Step>(key)

describe("Hub", () => {
  it.effect("gives a late reader the history, in which only the newest of a key is kept, and then follows", () => Effect.gen(function*() {
    const hub = hubOf()
    hub.publish({ kind: "", n: 1 })
    for (let n = 2; n < 1000; n++) hub.publish({ kind: "progress", n })
    hub.publish({ kind: "", n: 1000 })
    const reader = yield* Stream.runCollect(hub.stream).pipe(Effect.forkChild({ startImmediately: true }))
    yield* Effect.yieldNow
    hub.publish({ kind: "", n: 1001 })
    hub.end()
    assert.deepStrictEqual((yield* Fiber.join(reader)).map(({ n }) => n), [1, 999, 1000, 1001])
  }))
  it.effect("ends streams that begin after the end", () => Effect.gen(function*() {
    const hub = hubOf()
    hub.publish({ kind: "", n: 1 })
    hub.end()
    assert.strictEqual((yield* Stream.runCollect(hub.stream)).length, 1)
  }))
  it.effect.prop("every reader sees all that has no key, in order, however readers and events interleave",
    [Schema.Array(Schema.Literals(["", "a", "b", "read"]))], Effect.fnUntraced(function*([moves]) {
      const hub = hubOf()
      const readers: Array<Fiber.Fiber<Array<Step>>> = []
      for (const [n, kind] of moves.entries()) {
        if (kind === "read") readers.push(yield* Stream.runCollect(hub.stream).pipe(Effect.forkChild({ startImmediately: true })))
        else hub.publish({ kind, n })
        if (n % 3 === 0) yield* Effect.yieldNow
      }
      hub.end()
      const plain = [...moves.entries()].filter(([, kind]) => kind === "").map(([n]) => n)
      for (const reader of readers) {
        assert.deepStrictEqual((yield* Fiber.join(reader)).filter(({ kind }) => kind === "").map(({ n }) => n), plain)
      }
    }))
})
