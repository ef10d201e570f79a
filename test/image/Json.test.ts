import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Json from "../../src/image/Json.ts"

const encoder = new TextEncoder()
const decode = (text: string) => Json.decode(encoder.encode(text))
const reason = (text: string) => Result.match(decode(text), { onFailure: (error) => error.reason, onSuccess: () => "accepted" })

/** Our value as JSON.parse would have it. */
const plain = (value: Json.Value): unknown => {
  if (value instanceof Json.Decimal) return Number(value.text)
  if (Array.isArray(value)) return value.map(plain)
  return Json.isObject(value) ? Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)])) : value
}

interface Tree {
  readonly leaf: string | number | boolean | null
  readonly items: ReadonlyArray<Tree>
  readonly fields: { readonly [key: string]: Tree }
}
const Leaf = Schema.Union([Schema.String, Schema.Finite, Schema.Int, Schema.Boolean, Schema.Null])
const Tree: Schema.Codec<Tree> = Schema.Struct({
  leaf: Leaf,
  items: Schema.Array(Schema.suspend(() => Tree)),
  fields: Schema.Record(Schema.String, Schema.suspend(() => Tree))
})
const usual = (text: string) => text.isWellFormed() && !text.includes("__proto__") && !/\\ud[89a-f]/i.test(text)

const token = Schema.Literals([
  "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"", "\\", "\\n", "\\u0041", "\\uD83D\\uDE00", "0", "-", "1", "9", ".", "e", "+", "true",
  "false", "null", " ", "\n", "\u0000", "x", "é", "\u00a0"
])

describe("Json", () => {
  it.prop("decodes what JSON.parse decodes, to the same value", [Tree], ([tree]) => {
    for (const text of [JSON.stringify(tree), JSON.stringify(tree, null, "\t")]) {
      if (usual(text)) assert.deepStrictEqual(plain(Result.getOrThrow(decode(text))), JSON.parse(text))
    }
  }, { arbitrary: { runs: 500 } })

  it.prop("refuses what JSON.parse refuses", [Schema.Array(token).check(Schema.isMaxLength(12))], ([tokens]) => {
    const text = tokens.join("")
    const answer = decode(text)
    const parsed = Result.try((): unknown => JSON.parse(text))
    if (Result.isFailure(answer)) {
      assert.isTrue(Result.isFailure(parsed) || answer.failure.reason.includes("a second time"), text)
    } else {
      assert.deepStrictEqual(plain(answer.success), Result.getOrThrow(parsed))
    }
  }, { arbitrary: { runs: 4000 } })

  it.prop("never throws, whatever the bytes", [Schema.Uint8Array], ([bytes]) => {
    const answer = Json.decode(bytes)
    if (Result.isFailure(answer)) assert.isAtMost(answer.failure.at, bytes.length)
  })

  it("refuses the tricks", () => {
    assert.include(reason(`{"a":1,"a":1}`), `the key "a" a second time`)
    assert.include(reason(String.raw`{"x":{"a":1,"\u0061":2}}`), `the key "a" a second time`)
    assert.include(reason(`{"__proto__":{}}`), "__proto__")
    assert.include(reason(String.raw`[{"__pr\u006fto__":{}}]`), "__proto__")
    assert.include(reason("\ufeff{}"), "byte order mark")
    assert.include(reason("{}{}"), "more bytes follow")
    assert.include(reason("{}\u0000"), "more bytes follow")
    assert.include(reason(String.raw`"\ud800"`), "surrogate")
    assert.include(reason(""), "ends too early")
    assert.include(reason(`{"a":`), "ends too early")
    for (const bad of ["NaN", "Infinity", "01", "+1", ".5", "1.", "1e", "0x1", "'a'", "[1,]", "{\"a\":1,}", "{a:1}", "// x\n1", "[,1]", "\"\t\"", "tru", "\u00a01"]) {
      assert.notStrictEqual(reason(bad), "accepted", bad)
    }
    for (const bytes of [[0x22, 0xff, 0x22], [0x22, 0xc0, 0xaf, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0xff, 0xfe, 0x7b, 0], [0x22, 0xe2, 0x82]]) {
      assert.isTrue(Result.isFailure(Json.decode(Uint8Array.from(bytes))))
    }
  })

  it("keeps numbers apart that are no plain integers", () => {
    const numbers = Result.getOrThrow(decode("[9007199254740991,-9007199254740991,9007199254740992,9007199254740990.9,1.0,1e3,-0,0]"))
    assert.deepStrictEqual(numbers, [9007199254740991, -9007199254740991, new Json.Decimal("9007199254740992"),
      new Json.Decimal("9007199254740990.9"), new Json.Decimal("1.0"), new Json.Decimal("1e3"), new Json.Decimal("-0"), 0])
  })

  it("stands names of Object.prototype", () => {
    const object = Result.getOrThrow(decode(`{"constructor":1,"toString":2,"hasOwnProperty":3}`))
    assert.strictEqual(Object.getPrototypeOf(object), null)
    assert.deepStrictEqual(Object.keys(Json.isObject(object) ? object : {}), ["constructor", "toString", "hasOwnProperty"])
  })

  it("finds keys that differ only in case", () => {
    const names = new Set(["layers", "mediaType", "os.version"])
    assert.strictEqual(Json.miscased({ layers: 1, Layer: 2 }, names), undefined)
    assert.strictEqual(Json.miscased({ layers: 1, LAYERS: 2 }, names), "LAYERS")
    assert.strictEqual(Json.miscased({ layer\u017f: 2 }, names), "layer\u017f")
    assert.strictEqual(Json.miscased({ "OS.version": 2 }, names), "OS.version")
  })

  it("takes only so many values, whatever they are", () => {
    assert.strictEqual(reason(`[${"{},".repeat(Json.maxValues - 2)}0]`), "accepted")
    for (const value of ["{}", "[]", "0", "null", "\"\"", "{\"a\":1}"]) assert.include(reason(`[${`${value},`.repeat(Json.maxValues - 1)}0]`), `more than ${Json.maxValues} values`)
  })

  it("takes hostile megabytes in linear time and without a deep stack", () => {
    const n = 100_000
    for (const text of ["[".repeat(n), "{\"a\":".repeat(n), "[".repeat(n) + "]".repeat(n), "[{\"a\":".repeat(n)]) {
      const start = performance.now()
      assert.include(reason(text), "nested deeper than 128 levels")
      assert.isBelow(performance.now() - start, 2000)
    }
    assert.strictEqual(reason("[".repeat(128) + "]".repeat(128)), "accepted")
    const many = `{${Array.from({ length: n }, (_, i) => `"k${i}":0`).join()}}`
    for (const text of [many, `"${String.raw`\u0041`.repeat(600_000)}"`, "1".repeat(4 << 20), `[${"0,".repeat(2 << 20)}0]`, `"${"a".repeat(4 << 20)}`, " ".repeat(4 << 20)]) {
      const start = performance.now()
      reason(text)
      assert.isBelow(performance.now() - start, 5000)
    }
  })
})
