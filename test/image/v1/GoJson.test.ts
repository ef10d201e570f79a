import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { maxValues } from "../../../src/image/Json.ts"
import * as GoJson from "../../../src/image/v1/go/GoJson.ts"
import * as GoText from "../../../src/image/v1/go/GoText.ts"

const value = (text: string) => Result.getOrThrow(GoJson.parse(text))
const reason = (text: string) => Result.match(GoJson.parse(text), { onFailure: (error) => error.reason, onSuccess: () => "accepted" })

/** Our value as JSON.parse would have it, by way of every method. */
const plain = (item: GoJson.GoValue): unknown => {
  switch (item.kind) {
    case "object":
      return Object.fromEntries(Array.from(item.members(), ([key, member]) => [key, plain(member)]))
    case "array":
      return Array.from(item.items(), plain)
    case "string":
      return item.string
    default:
      return JSON.parse(item.source)
  }
}

interface Tree {
  readonly leaf: string | number | boolean | null
  readonly items: ReadonlyArray<Tree>
  readonly fields: { readonly [key: string]: Tree }
}
const Leaf = Schema.Union([Schema.String, Schema.Finite, Schema.Boolean, Schema.Null])
const Tree: Schema.Codec<Tree> = Schema.Struct({
  leaf: Leaf,
  items: Schema.Array(Schema.suspend(() => Tree)),
  fields: Schema.Record(Schema.String, Schema.suspend(() => Tree))
})
const token = Schema.Literals([
  "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"", "\\", "\\n", "\\u0041", "\\uD83D\\uDE00", "\\ud83d", "0", "-", "1", "9", ".", "e", "+",
  "true", "false", "null", " ", "\n", "\u0000", "x", "é", "\u00a0", "\ufeff", "<", "\u2028"
])
const usual = (tree: Tree) => !JSON.stringify(tree).includes("__proto__")

describe("GoJson", () => {
  it.prop("finds the values JSON.parse finds", [Tree], ([tree]) => {
    // Half a surrogate pair is a replacement character to Go; an escaped backslash before such letters is no escape of one.
    const goes = (text: string) => text.replace(/\\(?:u(d[89a-f]..)|.)/gis, (whole, half?: string) => half === undefined ? whole : "\ufffd")
    for (const text of [JSON.stringify(tree), JSON.stringify(tree, null, "\t")]) {
      if (usual(tree)) assert.deepStrictEqual(plain(value(text)), JSON.parse(goes(text)))
    }
  }, { arbitrary: { runs: 300 } })

  it.prop("accepts exactly what JSON.parse accepts", [Schema.Array(token).check(Schema.isMaxLength(12))], ([tokens]) => {
    const text = tokens.join("")
    assert.strictEqual(Result.isSuccess(GoJson.parse(text)), Result.isSuccess(Result.try((): unknown => JSON.parse(text))), text)
  }, { arbitrary: { runs: 4000 } })

  it.prop("compacts whatever the white space, and changes no meaning", [Tree], ([tree]) => {
    const tight = value(JSON.stringify(tree)).compact()
    assert.strictEqual(value(JSON.stringify(tree, null, " \r\n\t")).compact(), tight)
    assert.deepStrictEqual(JSON.parse(tight), JSON.parse(JSON.stringify(tree)))
    assert.notMatch(tight, /[<>&\u2028\u2029]/)
  }, { arbitrary: { runs: 300 } })

  it.prop("quotes what it reads back", [Schema.String], ([text]) => {
    assert.strictEqual(value(GoJson.quote(text)).string, text.toWellFormed())
    assert.strictEqual(JSON.parse(GoJson.quote(text)), text.toWellFormed())
  })

  it("keeps what was typed", () => {
    const source = String.raw`{ "n" : [1.10, 1E400, 12345678901234567890, -0] , "e":"\/\u0041\u003C\ud800", "b":1,"b":2 }`
    assert.strictEqual(value(source).compact(), String.raw`{"n":[1.10,1E400,12345678901234567890,-0],"e":"\/\u0041\u003C\ud800","b":1,"b":2}`)
    assert.deepStrictEqual(Array.from(value(source).members(), ([key, member]) => `${key}=${member.source}`).slice(2), ["b=1", "b=2"])
    assert.strictEqual(value(String.raw`"\udc00\ud800x\ud83d\ude00"`).string, "\ufffd\ufffdx\u{1f600}")
  })

  it("takes only so many values, whatever they are: our own limit", () => {
    assert.strictEqual(reason(`[${"{},".repeat(maxValues - 2)}0]`), "accepted")
    for (const value of ["{}", "[]", "0", "null", "\"\"", "{\"a\":1}"]) assert.include(reason(`[${`${value},`.repeat(maxValues - 1)}0]`), `more than ${maxValues} values`)
  })

  it("says what is wrong as Go does", () => {
    const table: ReadonlyArray<readonly [text: string, reason: string]> = [
      ["", "unexpected end of JSON input"], ["{", "unexpected end of JSON input"], ["\"a", "unexpected end of JSON input"],
      ["{\"a\"}", "invalid character '}' after object key"], ["{\"a\":\"\"\u00a0}", "invalid character 'Â' after object key:value pair"],
      ["not", "invalid character 'o' in literal null (expecting 'u')"], ["[1,]", "invalid character ']' looking for beginning of value"],
      ["{,}", "invalid character ',' looking for beginning of object key string"], ["01", "invalid character '1' after top-level value"],
      ["[\"\n\"]", String.raw`invalid character '\n' in string literal`], [`"\\'"`, String.raw`invalid character '\'' in string escape code`],
      ["1.x", "invalid character 'x' after decimal point in numeric literal"], ["-", "unexpected end of JSON input"]
    ]
    for (const [text, expected] of table) assert.strictEqual(reason(text), expected)
  })

  it("takes any nesting, and any length, in linear time", () => {
    assert.strictEqual(reason("[".repeat(10_000) + "]".repeat(10_000)), "accepted")
    assert.strictEqual(reason("[".repeat(10_001) + "]".repeat(10_001)), "exceeded max depth")
    for (const text of ["[".repeat(4e6), "{\"a\":".repeat(1e6), "[" + "{},".repeat(1e6), "\"" + "\\u0041".repeat(5e5), "1".repeat(4e6), " ".repeat(4e6)]) {
      const start = performance.now()
      void Result.map(GoJson.parse(text), (document) => [document.kind, document.compact().length])
      assert.isBelow(performance.now() - start, 3000)
    }
  })
})

describe("GoText", () => {
  it.prop("orders by UTF-8 bytes", [Schema.String, Schema.String], ([one, other]) => {
    const [a, b] = [one.toWellFormed(), other.toWellFormed()]
    assert.strictEqual(Math.sign(GoText.compare(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)))
  })

  it("orders the end of the basic plane before the others", () => {
    const texts = ["\u{10ffff}", "\uffff", "\ud7ff", "\ue000", "\u{10000}", "a", ""]
    assert.deepStrictEqual(texts.toSorted(GoText.compare), ["", "a", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{10ffff}"])
  })

  it.prop("reads text as TextDecoder does, but for the number of replacement characters", [Schema.Uint8Array], ([bytes]) => {
    const squeeze = (text: string) => text.replace(/\ufffd+/g, "\ufffd")
    assert.strictEqual(squeeze(GoText.decode(bytes)), squeeze(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)))
  })

  it("replaces each wrong byte by one character", () => {
    assert.strictEqual(GoText.decode(Uint8Array.of(0x61, 0xe2, 0x80, 0x62, 0xed, 0xa0, 0x80, 0xf0, 0x9f, 0x98, 0x80)), "a\ufffd\ufffdb\ufffd\ufffd\ufffd\u{1f600}")
  })
})
