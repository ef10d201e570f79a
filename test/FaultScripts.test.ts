import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Fault, ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { pulls, reference } from "./outcome.ts"

const { image, index, layer, noise } = ImageBuilder
const built = image({ layers: [
  layer([{ path: "noise", contents: noise("scripts", 20_000) }], { compression: "none" }), layer([{ path: "gzip/file", contents: noise("g", 3000) }])
] })
const many = index([built])
const objects = [
  { match: { kind: "manifest", name: "1" }, size: many.manifest.raw.byteLength }, { match: { kind: "manifest", name: built.manifest.descriptor.digest }, size: built.manifest.raw.byteLength },
  { match: { kind: "blob", name: built.config.descriptor.digest }, size: built.config.raw.byteLength },
  ...built.layers.map(({ digest, size }) => ({ match: { kind: "blob", name: digest }, size }) as const), { match: { kind: "token" }, size: 300 }
] as const

/** Faults that a client survives: transport faults, pauses, and answers that differ in form alone. What damages bytes is apart: one a blob. */
const faults: ReadonlyArray<(size: number, share: number) => Fault.Action> = [
  () => Fault.drop, (size, share) => Fault.cutAt(Math.floor(size * share)), (size, share) => Fault.cutAt(Math.floor(size * share), { reset: true }),
  () => Fault.status(500), () => Fault.status(502), () => Fault.status(429), () => Fault.status(503, { "retry-after": "0" }), () => Fault.status(408),
  () => Fault.stall("headers", 120), (size, share) => Fault.stall(Math.floor(size * share), 120), () => Fault.chunked(), () => Fault.setHeaders({ etag: `"other"` }),
  () => Fault.wrongRange("ignore"), () => Fault.wrongRange("lie-start"), () => Fault.wrongRange("416"), () => Fault.wrongRange("short"), () => Fault.wrongRange("multipart"),
  () => Fault.contentEncoding("gzip")
]

const Share = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 99 }))
const Step = Schema.Struct({
  object: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: objects.length - 1 })), fault: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: faults.length - 1 })),
  nth: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })), share: Share
})

/** The rules; of an object's requests at most three are met, so that five tries without progress never come together. */
const scriptOf = (steps: ReadonlyArray<typeof Step.Type>): ReadonlyArray<Fault.Rule> => steps.flatMap(({ fault, nth, object, share }) => {
  const target = objects[object]
  const act = faults[fault]
  return target === undefined || act === undefined ? [] : [{ match: { ...target.match, nth }, do: act(target.size, share / 100) }]
})

describe("a pull", () => {
  it.live.prop("ends with the store of an undisturbed one, whatever survivable faults it meets", { steps: Schema.Array(Step).check(Schema.isMaxLength(10)) },
    ({ steps }) => Effect.gen(function*() {
      const registry = yield* TestRegistry.make({ auth: { kind: "bearer", users: { sailor: "knot" } } })
      registry.put("app", "1", many)
      const expected = yield* reference(registry, "app:1")
      registry.script(scriptOf(steps))
      yield* pulls(registry, "app:1", "ok", { expected })
      assert.isBelow(registry.requests.length, 80)
    }).pipe(Effect.scoped), { arbitrary: { runs: 15 }, timeout: 120_000 })
})
