import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as FixManifest from "../../../src/image/v1/FixManifest.ts"
import * as LegacyManifest from "../../../src/image/v1/LegacyManifest.ts"
import * as SignedManifest from "../../../src/image/v1/SignedManifest.ts"
import * as StrongId from "../../../src/image/v1/StrongId.ts"
import * as V1Image from "../../../src/image/v1/V1Image.ts"
import { hash } from "../../../src/registry/Jws.ts"

type Manifest = LegacyManifest.LegacyManifest
const at = <A>(list: ReadonlyArray<A>, index: number): A => {
  const item = list[index]
  if (item === undefined) throw new Error(`no item ${index}`)
  return item
}
const id = (seed: unknown) => hash("sha256", new TextEncoder().encode(String(seed)))
const manifest = (entries: ReadonlyArray<string>): Manifest => ({
  schemaVersion: 1n, name: "library/x", tag: "latest", architecture: "amd64",
  fsLayers: entries.map((entry) => ({ blobSum: `sha256:${id(entry)}` })),
  history: entries.map((v1Compatibility) => ({ v1Compatibility }))
})
const image = (manifest: Manifest, index: number) => Result.getOrThrow(V1Image.decode(at(manifest.history, index).v1Compatibility))
const rule = (entries: ReadonlyArray<string>) => Result.match(FixManifest.fix(manifest(entries)), { onFailure: (error) => error.rule, onSuccess: () => "ok" })

/** One layer of a valid chain; its ID comes from its place. */
const Layer = Schema.Struct({ comment: Schema.String, old: Schema.Boolean, count: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })) })
const Chain = Schema.Array(Layer).check(Schema.isMinLength(1), Schema.isMaxLength(8))
type Chain = typeof Chain.Type

const fields = (chain: Chain, index: number): Record<string, string> => ({
  id: id(index),
  ...(index + 1 < chain.length ? { parent: id(index + 1) } : {}),
  comment: at(chain, index).comment,
  docker_version: at(chain, index).old ? "1.7.1" : "1.9.0"
})
const entries = (chain: Chain) => chain.map((_, index) => JSON.stringify(fields(chain, index)))
const repeated = (chain: Chain) => entries(chain).flatMap((entry, index) => Array.from({ length: at(chain, index).count }, () => entry))

/** Any manifest, mostly wrong: IDs and parents from a small pool. */
const pool = [id(0), id(1), id(2), id(3)]
const Wild = Schema.Array(Schema.Struct({
  id: Schema.Literals([...pool, "short"]), parent: Schema.Literals([...pool, ""]), form: Schema.Literals(["json", "json", "json", "cut"])
})).check(Schema.isMinLength(1), Schema.isMaxLength(5))
/** Mostly right: each parent is the ID below, unless `stray`. */
const Tame = Schema.Array(Schema.Struct({ id: Schema.Literals(pool), stray: Schema.Literals([false, false, false, false, true]) })).check(Schema.isMinLength(1), Schema.isMaxLength(6))
const Any = Schema.Union([Wild, Tame])
const anyEntries = (any: typeof Any.Type): ReadonlyArray<string> => any.map((entry: typeof Any.Type[number], index) => {
  if ("form" in entry) return JSON.stringify({ id: entry.id, parent: entry.parent }).slice(0, entry.form === "cut" ? -1 : undefined)
  const below = any.slice(index + 1).find((other) => other.id !== entry.id)
  return JSON.stringify({ id: entry.id, parent: entry.stray ? pool[0] : below?.id ?? "" })
})

describe("FixManifest", () => {
  it.prop("is idempotent, and its output a linked chain without repeats", [Any], ([any]) => {
    Result.match(FixManifest.fix(manifest(anyEntries(any))), {
      onFailure: (error) => assert.isNotEmpty(error.message),
      onSuccess: ({ manifest: fixed }) => {
        const images = fixed.history.map((_, index) => image(fixed, index))
        assert.strictEqual(new Set(images.map(({ id }) => id)).size, images.length)
        for (const [index, { parent }] of images.entries()) assert.strictEqual(parent, images[index + 1]?.id ?? "")
        assert.deepStrictEqual(Result.getOrThrow(FixManifest.fix(fixed)), { manifest: fixed, survivors: [...images.keys()] })
      }
    })
  }, { arbitrary: { runs: 2000 } })

  it.prop("keeps a subsequence of the entries, of repeats the lowest", [Any], ([any]) => {
    const before = manifest(anyEntries(any))
    Result.map(FixManifest.fix(before), ({ manifest: fixed, survivors }) => {
      assert.deepStrictEqual(survivors, survivors.toSorted((one, other) => one - other))
      assert.deepStrictEqual(fixed.history, survivors.map((index) => at(before.history, index)))
      assert.deepStrictEqual(fixed.fsLayers, survivors.map((index) => at(before.fsLayers, index)))
      const ids = any.map(({ id }) => id)
      for (const index of survivors) assert.notStrictEqual(ids[index], ids[index + 1])
    })
  }, { arbitrary: { runs: 2000 } })

  it.prop("accepts every valid chain as it is", [Chain], ([chain]) => {
    assert.deepStrictEqual(Result.getOrThrow(FixManifest.fix(manifest(entries(chain)))), { manifest: manifest(entries(chain)), survivors: [...chain.keys()] })
  })

  it.prop("is not changed by repeated entries, nor are the IDs", [Chain], ([chain]) => {
    const once = manifest(entries(chain))
    const fixed = Result.getOrThrow(FixManifest.fix(manifest(repeated(chain)))).manifest
    assert.deepStrictEqual(fixed, once)
    assert.deepStrictEqual(Result.getOrThrow(StrongId.chain(fixed, hash)), Result.getOrThrow(StrongId.chain(once, hash)))
  })

  const Break = Schema.Literals(["parent", "no-parent", "base-parent", "image-id", "repeated-id", "json", "created", "left-out"])
  it.prop("rejects any single break of a valid chain, with its own error", [Chain, Break, Schema.Natural, Schema.Natural], ([chain, kind, n, m]) => {
    const list = repeated(chain), index = n % chain.length, base = chain.length - 1
    const place = chain.slice(0, index).reduce((sum, { count }) => sum + count, 0), count = at(chain, index).count
    // The whole run of an entry's repeats is replaced: a single one of them would itself be an ID out of place.
    const replaced = (entry: string) => rule(list.toSpliced(place, count, ...Array.from({ length: count }, () => entry)))
    const changed = (change: Record<string, unknown>) => replaced(JSON.stringify({ ...fields(chain, index), ...change }))
    switch (kind) {
      case "parent":
        return assert.strictEqual(changed({ parent: id("stranger") }), index === base ? "base-parent" : "parent")
      case "no-parent":
        return index === base ? undefined : assert.strictEqual(changed({ parent: undefined }), "parent")
      case "base-parent":
        return assert.strictEqual(rule(list.toSpliced(-1, 1, JSON.stringify({ ...fields(chain, base), parent: id(0) }))), "base-parent")
      case "image-id":
        return assert.strictEqual(changed({ id: [id(index).toUpperCase().replace(/^[0-9]*/, "A"), "", id(index).slice(1), `${id(index)}0`][m % 4] }), "image-id")
      case "repeated-id": {
        const other = m % chain.length
        return Math.abs(other - index) < 2 ? undefined : assert.strictEqual(changed({ id: id(other) }), "repeated-id")
      }
      case "json":
        return assert.strictEqual(replaced(JSON.stringify(fields(chain, index)).slice(0, -1 - m % 10)), "json")
      case "created":
        return assert.strictEqual(changed({ created: "yesterday" }), "created")
      case "left-out":
        return chain.length < 2 ? undefined
          : assert.strictEqual(rule(list.toSpliced(place, count)), index === 0 ? "ok" : index === base ? "base-parent" : "parent")
    }
  }, { arbitrary: { runs: 3000 } })

  const Shape = Schema.Struct({ space: Schema.Literals(["", " ", "\n\t", "\r\n"]), reverse: Schema.Boolean, extra: Schema.Record(Schema.String, Schema.String) })
  it.prop("does not mind white space, nor the order of fields, nor unknown ones", [Chain, Shape], ([chain, { space, reverse, extra }]) => {
    const unknown = Object.entries(extra).map(([key, value]) => [`x-${key}`, JSON.stringify(value)] as const)
    const write = (members: ReadonlyArray<readonly [key: string, json: string]>) => {
      const all = [...members, ...unknown]
      return `${space}{${(reverse ? all.toReversed() : all).map(([key, json]) => `${space}${JSON.stringify(key)}${space}:${space}${json}${space}`).join(",")}}${space}`
    }
    const plain = manifest(repeated(chain))
    const odd = repeated(chain).map((entry) => write(Object.entries(Schema.decodeSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.String)))(entry))
      .map(([key, value]) => [key, JSON.stringify(value)])))
    const outer = write([["schemaVersion", "1"], ["name", "\"library/x\""], ["fsLayers", JSON.stringify(plain.fsLayers)], ["history", JSON.stringify(odd.map((v1Compatibility) => ({ v1Compatibility })))]])
    const read = Result.getOrThrow(LegacyManifest.decode(outer.toWellFormed()))
    assert.deepStrictEqual(Result.getOrThrow(FixManifest.fix(read)).survivors, Result.getOrThrow(FixManifest.fix(plain)).survivors)
  }, { arbitrary: { runs: 300 } })

  it("says what Docker said", () => {
    const message = (list: ReadonlyArray<string>) => Result.match(FixManifest.fix(manifest(list)), { onFailure: (error) => error.message, onSuccess: () => "" })
    const one = JSON.stringify({ id: id(1) })
    assert.strictEqual(message([JSON.stringify({ id: "x" })]), "invalidimageid: image ID 'x' is invalid ")
    assert.strictEqual(message([JSON.stringify({ id: id(1), parent: id(2) })]), "Invalid parent ID in the base layer of the image.")
    assert.strictEqual(message([one, JSON.stringify({ id: id(2) }), one]), `ID ${id(1)} appears multiple times in manifest`)
    assert.strictEqual(message([JSON.stringify({ id: id(2), parent: id(3) }), one]), `Invalid parent ID. Expected ${id(1)}, got ${id(3)}.`)
  })

  it("leaves the shape to the check before it", () => {
    const shape = (change: Partial<Manifest>) => Result.match(SignedManifest.checkShape({ ...manifest([JSON.stringify({ id: id(1) })]), ...change }, "a\"\u2028b"), {
      onFailure: (error) => error.message, onSuccess: () => "ok"
    })
    assert.strictEqual(shape({}), "ok")
    assert.strictEqual(shape({ schemaVersion: 2n }), String.raw`unsupported schema version 2 for tag "a\"\u2028b"`)
    assert.strictEqual(shape({ history: [] }), String.raw`length of history not equal to number of layers for tag "a\"\u2028b"`)
    assert.strictEqual(shape({ history: [], fsLayers: [] }), String.raw`no FSLayers in manifest for tag "a\"\u2028b"`)
  })
})
