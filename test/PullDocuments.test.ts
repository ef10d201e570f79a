import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Pull from "../src/Pull.ts"
import { type Built, image, index } from "../src/testing/ImageBuilder.ts"
import { TestRegistry } from "../src/testing/index.ts"
import { configSized, documents, entries, first, sized } from "./documents.ts"
import { assertSound, temporary, towline } from "./harness.ts"
import { pulls } from "./outcome.ts"

describe("a pull of a document that", () => {
  const parts = 4
  for (let part = 0; part < parts; part++) {
    it.live(`plays tricks ends with a typed error and leaves nothing (${part + 1} of ${parts})`, () => Effect.gen(function*() {
      const failures: Array<string> = []
      yield* Effect.forEach(documents.filter((_, at) => at % parts === part), Effect.fnUntraced(function*([name, make, outcome]) {
        const registry = yield* TestRegistry.make()
        make(registry)
        yield* pulls(registry, "app:1", outcome).pipe(
          Effect.andThen(Effect.sync(() => assert.isBelow(registry.requests.length, 40, "requests"))),
          Effect.catchCause((cause) => Effect.sync(() => { failures.push(`${name}: ${String(cause).slice(0, 400)}`) })))
      }, Effect.scoped), { concurrency: 4, discard: true })
      assert.deepStrictEqual(failures, [])
    }).pipe(Effect.scoped), 60_000)
  }

  it.live("lies about the size of what the store has already is refused as it would be without", () => Effect.gen(function*() {
    const registry = yield* TestRegistry.make()
    const folder = yield* temporary
    const honest = image({ layers: [entries] })
    registry.put("app", "good", index([honest]))
    const { size } = first(honest)
    const lies: Readonly<Record<string, Built>> = {
      entry: index([{ built: honest, fields: { size: honest.manifest.raw.byteLength + 1 } }]), config: configSized(1), smaller: sized(size - 1), larger: sized(size + 1)
    }
    for (const [name, built] of Object.entries(lies)) registry.put("app", name, built)
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/app:good`, { platform: "linux/amd64" })
      for (const name of Object.keys(lies)) {
        const result = yield* Effect.result(Pull.pull(`${registry.host}/app:${name}`, { platform: "linux/amd64" }))
        assert.strictEqual(Result.isFailure(result) ? result.failure._tag : "success", "VerifyError", name)
      }
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})
