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

/** What a fault may fall on: any object, or those for which it is survivable. */
type Kind = "blob" | "manifest" | "token"
type Act = (size: number, share: number, other: string) => Fault.Action | ReadonlyArray<Fault.Action>
const any: ReadonlyArray<Kind> = ["blob", "manifest", "token"]
const content: ReadonlyArray<Kind> = ["blob", "manifest"]
const blob: ReadonlyArray<Kind> = ["blob"]

/** Faults that a client survives any number of times in five: transport faults, pauses, and answers that differ in form alone. */
const passing: ReadonlyArray<readonly [ReadonlyArray<Kind>, Act]> = [
  [any, () => Fault.drop], [any, (size, share) => Fault.cutAt(Math.floor(size * share))], [any, (size, share) => Fault.cutAt(Math.floor(size * share), { reset: true })],
  [any, (size) => Fault.cutEach(Math.ceil(size / 3))], [any, () => Fault.stall("headers", 120)], [any, (size, share) => Fault.stall(Math.floor(size * share), 120)],
  [any, () => Fault.stall("headers", Infinity)], [any, (size, share) => Fault.stall(Math.floor(size * share), Infinity)], [any, () => Fault.drip(200_000)], [content, () => Fault.drip(200)],
  ...[408, 425, 429, 500, 502, 503, 504].map((code): readonly [ReadonlyArray<Kind>, Act] => [any, () => Fault.status(code)]), [content, () => Fault.status(204, {}, "")], [content, () => Fault.status(206, {}, "part")],
  ...["0", "junk", "-1", new Date(0).toUTCString()].map((text): readonly [ReadonlyArray<Kind>, Act] => [any, () => Fault.status(503, { "retry-after": text })]),
  [content, (_, __, other) => Fault.redirect(`${other}{url}`)], [content, (_, __, other) => Fault.redirect(`${other}{url}`, 302)],
  [any, () => Fault.chunked()], [any, () => Fault.chunked(false)], [any, (size) => Fault.claimLength(size + 9)], [blob, (size) => Fault.claimLength(size - 9)], [blob, (size) => Fault.truncateLength(size - 1)],
  [any, () => Fault.setHeaders({ etag: `"other"` })], [any, () => Fault.setHeaders({ etag: null, "content-type": null, "docker-content-digest": null })], [blob, () => Fault.setHeaders({ "content-type": "text/html", "content-encoding": "lzw" })],
  ...(["ignore", "lie-start", "lie-total", "lie-end", "no-header", "416", "multipart", "short"] as const).map((how): readonly [ReadonlyArray<Kind>, Act] => [blob, () => Fault.wrongRange(how)]),
  ...(["gzip", "deflate", "br"] as const).flatMap((coding): ReadonlyArray<readonly [ReadonlyArray<Kind>, Act]> => [[any, () => Fault.contentEncoding(coding)], [["blob", "token"], () => Fault.contentEncoding(coding, false)]])
]

/** Faults that damage what comes, or look like it: survived once an object. */
const damaging: ReadonlyArray<readonly [ReadonlyArray<Kind>, Act]> = [
  [content, (size, share) => Fault.flip(Math.floor(size * share), 3)], [any, (size, share) => Fault.truncateLength(Math.max(1, Math.floor(size * share)))], [any, () => Fault.extraBytes(1)],
  [["blob", "token"], () => Fault.html], [["blob", "token"], () => Fault.truncateLength(0)], [["blob", "token"], () => Fault.extraBytes(Infinity)], [blob, () => Fault.wrongRange("lie-bytes")],
  [any, (size) => Fault.claimLength(size >> 1)]
]
const faults = [...passing, ...damaging]

const Share = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 99 }))
const Step = Schema.Struct({
  object: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: objects.length - 1 })), fault: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: faults.length - 1 })),
  nth: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })), share: Share
})

/** The rules; of an object's requests at most three are met, so that five tries without progress never come together, and one damages. */
const scriptOf = (steps: ReadonlyArray<typeof Step.Type>, other: string): ReadonlyArray<Fault.Rule> => {
  const damaged = new Set<number>()
  return steps.flatMap(({ fault, nth, object, share }) => {
    const target = objects[object]
    const [on, act] = faults[fault] ?? []
    if (target === undefined || act === undefined || on?.includes(target.match.kind) !== true) return []
    if (fault >= passing.length) {
      if (damaged.has(object)) return []
      damaged.add(object)
    }
    return [{ match: { ...target.match, nth }, do: act(target.size, share / 100, other) }]
  })
}

describe("a pull", () => {
  it.live.prop("ends with the store of an undisturbed one, whatever survivable faults it meets", { steps: Schema.Array(Step).check(Schema.isMaxLength(12)) },
    ({ steps }) => Effect.gen(function*() {
      const registry = yield* TestRegistry.make({ auth: { kind: "bearer", users: { sailor: "knot" } } })
      const other = yield* TestRegistry.make()
      for (const one of [registry, other]) one.put("app", "1", many)
      const expected = yield* reference(registry, "app:1")
      registry.script(scriptOf(steps, other.url))
      yield* pulls(registry, "app:1", "ok", { expected })
      assert.isBelow(registry.requests.length, 100)
    }).pipe(Effect.scoped), { arbitrary: { runs: 15 }, timeout: 120_000 })
})
