/** Before every test file: no registry of any test, of either protocol, may ever see a secret that is not for it. */
import { Effect } from "effect"
import { afterEach, expect } from "vitest"
import { TestRegistry, type TestRegistryOptions, V1Server, type V1ServerOptions } from "../src/testing/index.ts"

const made = new Set<TestRegistry | V1Server>()
const { make } = TestRegistry
Object.defineProperty(TestRegistry, "make", {
  value: (options?: TestRegistryOptions) => Effect.tap(make(options), (registry) => Effect.sync(() => made.add(registry)))
})
const { make: makeOld } = V1Server
Object.defineProperty(V1Server, "make", {
  value: (options?: V1ServerOptions) => Effect.tap(makeOld(options), (server) => Effect.sync(() => made.add(server)))
})

afterEach(({ task }) => {
  // The kit's own tests ask with secrets of all kinds.
  const all = task.file.filepath.includes("/test/testing/") ? [] : [...made]
  made.clear()
  for (const registry of all) {
    const told = registry.strangers.map(({ headers: { authorization = "", cookie = "" }, method, url }) => `${method} ${url}: ${authorization} ${cookie}`)
    expect(told, `secrets that are not for ${registry.url}`).toEqual([])
  }
})
