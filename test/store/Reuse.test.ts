import { assert, layer as suite } from "@effect/vitest"
import { Effect, Layer, Result, type Scope } from "effect"
import { createHash } from "node:crypto"
import * as StrongId from "../../src/image/v1/StrongId.ts"
import * as Register from "../../src/Register.ts"
import { hash } from "../../src/registry/Jws.ts"
import { Graph } from "../../src/store/Graph.ts"
import { temporary, towline } from "../harness.ts"

const [a, b, c] = ["a".repeat(64), "b".repeat(64), "c".repeat(64)] as const
const text = (fields: Record<string, unknown>) => JSON.stringify({ created: "2015-09-08T21:30:30Z", docker_version: "1.9.0", ...fields })
const sum = `sha256:${createHash("sha256").digest("hex")}`
const addressed = (v1: string, parent = "") => Result.getOrThrow(StrongId.address(v1, sum, parent, hash))
const hex = ({ strongId }: StrongId.AddressedImage) => strongId.slice(7)

/** Registers what a pull of this image would have left under `id`. */
const put = (image: StrongId.AddressedImage, id: string, parent?: string) => Register.register({
  id, kind: "schema1", parent, json: new TextEncoder().encode(image.config), compatibility: image.v1Compatibility, checksum: sum
})
const old = (fields: Record<string, unknown> & { readonly id: string }, parent?: string) =>
  Register.register({ id: fields.id, kind: "v1", parent, json: new TextEncoder().encode(text(fields)) })
const inStore = <A, E>(run: Effect.Effect<A, E, Layer.Success<ReturnType<typeof towline>> | Scope.Scope>) =>
  Effect.scoped(Effect.flatMap(temporary, (folder) => Effect.provide(Effect.scoped(run), towline(folder))))

suite(Layer.empty, { excludeTestServices: true })("Reuse of IDs", (it) => {
  const base = addressed(text({ id: a })), top = addressed(text({ id: b, parent: a }), base.strongId)

  it.effect("takes an old ID whose image verifies, and stops at the first that does not", () => inStore(Effect.gen(function*() {
    const graph = yield* Graph
    assert.deepStrictEqual(yield* graph.chooseIds([base, top], hash), [hex(base), hex(top)])
    yield* put(base, a)
    assert.deepStrictEqual(yield* graph.chooseIds([base, top], hash), [a, hex(top)])
    yield* put(top, b, a)
    assert.deepStrictEqual(yield* graph.chooseIds([base, top], hash), [a, b])
    yield* graph.setCompatibility(a, text({ id: a, author: "x" }))
    assert.deepStrictEqual(yield* graph.chooseIds([base, top], hash), [hex(base), hex(top)])
  })))

  it.effect("probes where another image has the strong ID", () => inStore(Effect.gen(function*() {
    const graph = yield* Graph
    const next = (id: string) => createHash("sha256").update(id).digest("hex")
    yield* put(top, hex(base))
    assert.deepStrictEqual(yield* graph.chooseIds([base, top], hash), [next(hex(base)), hex(top)])
    yield* put(top, next(hex(base)))
    assert.deepStrictEqual(yield* graph.chooseIds([base], hash), [next(next(hex(base)))])
    yield* put(base, next(next(hex(base))))
    assert.deepStrictEqual(yield* graph.chooseIds([base], hash), [next(next(hex(base)))])
  })))

  it.effect("counts a parent that only the JSON of a base names, as docker read it", () => inStore(Effect.gen(function*() {
    const graph = yield* Graph
    const odd = addressed(text({ id: a, parent_id: `sha256:${c}` }))
    yield* put(odd, hex(odd))
    assert.deepStrictEqual(yield* graph.chooseIds([odd], hash), [createHash("sha256").update(hex(odd)).digest("hex")])
  })))

  it.effect("writes missing texts on what the parents' say their v1 IDs are, whatever else is in them", () => inStore(Effect.gen(function*() {
    const graph = yield* Graph
    yield* old({ id: a })
    yield* graph.setCompatibility(a, `{"ID":"other","created":5}`)
    yield* old({ id: b, parent: a, Size: 3 }, a)
    assert.match((yield* graph.compatibility(b)) ?? "", new RegExp(`^\\{"id":"${b}","parent":"other","created":"2015-09-08T21:30:30Z","container_config":`))
    yield* old({ id: c, parent_id: `sha256:${"d".repeat(64)}` })
    assert.strictEqual(yield* graph.compatibility(c), undefined, "its parent is not there")
    assert.deepStrictEqual(yield* graph.chooseIds([addressed(text({ id: c }))], hash), [hex(addressed(text({ id: c })))])
  })))
})
