import { assert } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { exitCode, exitCodes, sentence } from "../src/main/Run.ts"
import * as Pull from "../src/Pull.ts"
import { RegistryOptions } from "../src/registry/route/Endpoint.ts"
import { Graph } from "../src/store/Graph.ts"
import { type TestRegistry, Tree } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

/** How a pull may end: in success, or with an error of one of these tags. */
export type Outcome = "ok" | ReadonlyArray<keyof typeof classes>

const classes = {
  NetworkError: exitCodes.network, NotFound: exitCodes.notFound, NoPlatform: exitCodes.notFound, Unauthorized: exitCodes.unauthorized,
  AnswerRefused: exitCodes.refused, ManifestRefused: exitCodes.refused, VerifyError: exitCodes.refused, LayerRefused: exitCodes.refused
} as const

/** Waits a hundredth of the real ones, or so; a loaded machine must still keep to them where nothing is wrong. */
export const limits = {
  connect: "2 seconds", headers: "700 millis", idle: "700 millis", minimumRate: 20_000, rateWindow: "300 millis", settle: "150 millis", pause: "1 second"
} as const

const platform = "linux/amd64"
const listing = (store: string) => Object.fromEntries(["blobs/sha256", "layers/sha256"].map((name) => [name, readdirSync(join(store, name)).sort()]))

/** What a store holds for people: its blobs by name (the check hashes them), its layers with all that is in them. */
const contents = (folder: string) => {
  const store = join(folder, "store")
  const listed = listing(store)
  return { ...listed, trees: (listed["layers/sha256"] ?? []).map((hex) => [hex, Tree.walk(join(store, "layers/sha256", hex, "fs"))] as const) }
}

/** A folder for a store, with credentials for these hosts. */
const prepared = (hosts: ReadonlyArray<string>) => Effect.gen(function*() {
  const folder = yield* temporary
  const auth = Buffer.from("sailor:knot").toString("base64")
  mkdirSync(join(folder, "no-config"))
  writeFileSync(join(folder, "no-config", "config.json"), JSON.stringify({ auths: Object.fromEntries(hosts.map((host) => [host, { auth }])) }))
  return folder
})

const services = (folder: string, registry: TestRegistry) => towline(folder, { limits }).pipe(Layer.provide(Layer.effect(RegistryOptions, Effect.map(
  RegistryOptions, (options) => registry.certificate === undefined ? options : { ...options, authorities: [registry.certificate] }))))

/** What a store holds after an undisturbed pull. */
export const reference = (registry: TestRegistry, name: string) => Effect.gen(function*() {
  const folder = yield* prepared([registry.host])
  yield* Pull.pull(`${registry.host}/${name}`, { platform }).pipe(Effect.provide(services(folder, registry)))
  return contents(folder)
}).pipe(Effect.scoped)

/** How long a pull under test may take, in milliseconds. */
const patience = 9000

/**
 * Pulls `name` into a new store and judges the end. Success: the store is `expected`, sound, and holds nothing half-made. A typed
 * error in bounded time: no image is visible, the store is sound; once `calm` has run, the same store comes to `expected`.
 */
export const pulls = (
  registry: TestRegistry, name: string, outcome: Outcome,
  options: { readonly expected?: ReturnType<typeof contents>; readonly calm?: () => void } = {}
) => Effect.gen(function*() {
  const folder = yield* prepared([registry.host])
  const began = performance.now()
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    const result = yield* Effect.result(Pull.pull(`${registry.host}/${name}`, { platform }))
    const took = performance.now() - began
    assert.isBelow(took, patience, "in bounded time")
    if (outcome === "ok") {
      assert.isTrue(Result.isSuccess(result), Result.isFailure(result) ? result.failure.message : "")
    } else {
      if (Result.isSuccess(result)) return assert.fail(`it succeeded instead of ${outcome.join(" or ")}`)
      const { failure } = result
      const tag = outcome.find((tag) => tag === failure._tag)
      if (tag === undefined) return assert.fail(`${failure._tag}: ${failure.message}`)
      assert.strictEqual(exitCode(failure), classes[tag])
      assert.notMatch(sentence(failure), /\n|undefined|\[object/)
      assert.deepStrictEqual(yield* graph.list, [])
      assert.strictEqual(JSON.stringify(yield* graph.check()), "[]")
      if (options.calm === undefined) return yield* assertSound(folder)
      options.calm()
      yield* Pull.pull(`${registry.host}/${name}`, { platform })
    }
    yield* assertSound(folder)
    if (options.expected !== undefined) {
      const { trees, ...listed } = contents(folder)
      const { trees: wanted, ...wantedListed } = options.expected
      assert.deepStrictEqual(listed, wantedListed)
      for (const [at, [, tree]] of trees.entries()) assert.deepStrictEqual(Tree.diff(tree, wanted[at]?.[1] ?? []), [])
    }
  }).pipe(Effect.provide(services(folder, registry)))
}).pipe(Effect.scoped)

/** No request in the log tells a secret. */
export const assertAnonymous = (registry: TestRegistry) => {
  for (const { headers, url } of registry.requests) {
    assert.notProperty(headers, "authorization", url)
    assert.notProperty(headers, "cookie", url)
  }
}
