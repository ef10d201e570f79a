/** Before every test file: no registry of any test may ever see a secret that is not for it. */
import { Effect } from "effect"
import { afterEach, expect } from "vitest"
import { TestRegistry, type TestRegistryOptions } from "../src/testing/index.ts"

const made = new Set<TestRegistry>()
const { make } = TestRegistry
Object.defineProperty(TestRegistry, "make", {
  value: (options?: TestRegistryOptions) => Effect.tap(make(options), (registry) => Effect.sync(() => made.add(registry)))
})

afterEach(({ task }) => {
  // The kit's own tests ask with secrets of all kinds.
  if (!task.file.filepath.includes("/test/testing/")) for (const registry of made) {
    const told = registry.strangers.map(({ headers: { authorization = "", cookie = "" }, method, url }) => `${method} ${url}: ${authorization} ${cookie}`)
    expect(told, `secrets that are not for ${registry.url}`).toEqual([])
  }
  made.clear()
})
