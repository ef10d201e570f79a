import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result, Schema } from "effect"
import { Jar } from "../../src/registry/auth/Cookies.ts"
import { tokenOf } from "../../src/registry/v1/Access.ts"
import * as Documents from "../../src/registry/v1/Documents.ts"
import * as Endpoints from "../../src/registry/v1/Endpoints.ts"
import * as LayerRange from "../../src/registry/v1/LayerRange.ts"

const a = "a".repeat(64), b = "ab".repeat(32), c = "c".repeat(64)
const bytes = (value: unknown) => Buffer.from(typeof value === "string" && /^[[{"n]/.test(value) ? value : JSON.stringify(value))
const said = <A>(result: Result.Result<A, string>) => Result.match(result, { onSuccess: (value): unknown => value, onFailure: (rule) => `refused: ${rule}` })

describe("documents", () => {
  const images: ReadonlyArray<readonly [unknown, unknown]> = [
    [[], []], ["null", []],
    [[{ id: a, checksum: "tarsum+sha256:0", Tag: "v1", extra: [1] }, { id: b }, { checksum: "" }, { id: c, Tag: null, checksum: null }],
      [{ id: a, tag: "v1", checksum: "tarsum+sha256:0" }, { id: b, tag: undefined, checksum: undefined }, { id: c, tag: undefined, checksum: undefined }]],
    [{}, "refused: expected a list, found an object"], [[1], "refused: [0]: expected an object, found a number"],
    [[{ id: a }, { id: a.toUpperCase() }], `refused: [1].id: expected 64 lower-case hexadecimal digits, found "${a.toUpperCase()}"`],
    [[{ id: 5 }], "refused: [0].id: expected 64 lower-case hexadecimal digits, found a number"],
    [[{ id: a, Tag: "../x" }], "refused: [0].Tag: expected a tag, found \"../x\""], [[{ id: a, Tag: true }], "refused: [0].Tag: expected a text, found a boolean"],
    [`[{"id":"${a}","id":"${b}"}]`, /^refused: it is no acceptable JSON at character \d+: the key "id" a second time/],
    ["[".repeat(100_000), /nested deeper/]
  ]
  for (const [index, [value, expected]] of images.entries()) {
    it(`images ${index}`, () => {
      const actual = said(Documents.images(bytes(value)))
      if (expected instanceof RegExp) assert.match(String(actual), expected)
      else assert.deepStrictEqual(actual, expected)
    })
  }
  const tags: ReadonlyArray<readonly [unknown, unknown]> = [
    [{}, []], ["null", []], [{ latest: a, v1: b }, [["latest", a], ["v1", b]]],
    [[{ layer: "abababab", name: "x" }, { layer: c, name: "y" }], [["x", b], ["y", c]]],
    [[{ layer: "aaaaaaaaaa", name: "x" }], [["x", a]]],
    [[{ layer: "dddddddd", name: "x" }], "refused: [0].layer: \"dddddddd\" is the beginning of 0 images of the repository's list"],
    [[{ layer: "aa", name: "x" }], "refused: [0].layer: expected an image ID or its first 8 digits or more, found \"aa\""],
    [[{ layer: a, name: "x" }, { layer: b, name: "x" }], "refused: [1].name: the tag x a second time"],
    [[{ layer: a }], "refused: [0].name: expected a tag, found nothing"],
    [{ "a/b": a }, "refused: expected a tag, found \"a/b\""], [{ x: "abc" }, "refused: x: expected 64 lower-case hexadecimal digits, found \"abc\""],
    [`"x"`, "refused: expected an object or a list, found \"x\""], [`{"__proto__":"${a}"}`, "refused: it is no acceptable JSON at character 2: the key \"__proto__\", which no document needs"]
  ]
  for (const [index, [value, expected]] of tags.entries()) {
    it(`tags ${index}`, () => {
      const actual = said(Documents.tags(bytes(value), [a, b, c, a]))
      assert.deepStrictEqual(actual instanceof Map ? [...actual] : actual, expected)
    })
  }
  it("a beginning that two images have", () => {
    const result = Documents.tags(bytes([{ layer: "aaaaaaaa", name: "x" }]), [a, `${"a".repeat(63)}b`])
    assert.include(String(said(result)), "the beginning of 2 images")
  })
  it("one tag", () => {
    assert.deepStrictEqual(said(Documents.tag(bytes(`"${a}"`))), a)
    for (const text of ["null", a, `"${a}" x`, `["${a}"]`, `"${a}0"`]) assert.isTrue(Result.isFailure(Documents.tag(Buffer.from(text))), text)
  })
  it("ancestry", () => {
    assert.deepStrictEqual(said(Documents.ancestry(bytes([a, b]), a)), [a, b])
    assert.deepStrictEqual([[], [b, a], [a, b, a], [a, "x"], {}, Array.from({ length: 1025 }, () => a)].map((value) => said(Documents.ancestry(bytes(value), a))), [
      "refused: it is empty", `refused: [0]: expected ${a} itself, found ${b}`, `refused: [2]: the image ${a} a second time`,
      "refused: [1]: expected 64 lower-case hexadecimal digits, found \"x\"", "refused: expected a list, found an object",
      "refused: it has 1025 images, at most 1024 are taken"
    ])
  })
  it.prop("no bytes make any of them fail in another way", [Schema.Uint8Array], ([raw]) => {
    for (const read of [Documents.images, Documents.tag, (raw: Uint8Array) => Documents.tags(raw, [a]), (raw: Uint8Array) => Documents.ancestry(raw, a)]) assert.isTrue(Result.isResult(read(raw)))
    Documents.standalone(raw)
  })
  it("sizes and checksums", () => {
    const sizes = [undefined, "-1", "0", " 12 ", "9007199254740991", "9007199254740992", "1e3", "", "+1", "-2", "0x1"].map((text) => said(Documents.size(text)))
    assert.deepStrictEqual(sizes.slice(0, 5), [undefined, undefined, 0, 12, 9_007_199_254_740_991])
    for (const size of sizes.slice(5)) assert.match(String(size), /^refused: X-Docker-Size/)
    assert.deepStrictEqual(said(Documents.payloadChecksums(`sha256:${a}, md5:1 ,sha256:${b}`)), [`sha256:${a}`, `sha256:${b}`])
    assert.deepStrictEqual(said(Documents.payloadChecksums(undefined)), [])
    assert.match(String(said(Documents.payloadChecksums(`sha256:${a}0`))), /^refused: X-Docker-Checksum-Payload/)
  })
})

describe("endpoints", () => {
  const parse = (header: string | undefined, index = "https://index.example", insecure: ReadonlyArray<string> = []) => said(Endpoints.parse(header, index, insecure))
  it("have the index's scheme, in order, once each", () => {
    assert.deepStrictEqual(parse("R1.example, r2.example:5000,r1.example"), ["https://r1.example", "https://r2.example:5000"])
    assert.deepStrictEqual(parse(undefined), ["https://index.example"])
    assert.deepStrictEqual(parse(" , "), ["https://index.example"])
    assert.deepStrictEqual(parse("127.0.0.1:2, localhost, [::1]:5", "http://127.0.0.1:1"), ["http://127.0.0.1:2", "http://localhost", "http://[::1]:5"])
    assert.deepStrictEqual(parse("r.example", "http://i.example", ["r.example"]), ["http://r.example"])
    assert.deepStrictEqual(parse("10.0.0.1", "https://index.example", ["10.0.0.1"]), ["https://10.0.0.1"])
  })
  it("refuse what is no host, plain HTTP and private addresses", () => {
    for (const header of ["a/b", "http://a", "a@b", "a:", "a:b", "a..b", "-a", "a_b", "a b", "\u00e9", "a:99999", "[::1", "a\nb", "%41", "a?b", "a#b"]) assert.match(String(parse(header)), /no host with an optional port/, header)
    assert.match(String(parse("r.example", "http://127.0.0.1:1")), /plain HTTP/)
    for (const header of ["169.254.169.254", "10.1.2.3:80", "localhost", "[::1]", "0x7f.1", "2130706433", "127.1"]) assert.match(String(parse(header)), /private network/, header)
    assert.match(String(parse(Array.from({ length: 17 }, (_, at) => `r${at}.example`).join())), /names 17 hosts/)
  })
})

describe("tokens and cookies", () => {
  const value = (header: string | undefined) => { const token = tokenOf(header); return token && Redacted.value(token) }
  it("tokens lose the word before them, and are joined by commas", () => {
    const one = `signature=1,repository="a/b",access=read`
    assert.deepStrictEqual([one, `Token ${one}`, `token  ${one}`, `${one}, ${one}`, `Token ${one}, Token ${one}`].map(value), [one, one, one, `${one},${one}`, `${one},${one}`])
    assert.deepStrictEqual(["opaque", "x, y", "Token x", "", "Token", undefined, "\u00e9"].map(value), ["opaque", "x,y", "x", undefined, undefined, undefined, undefined])
  })
  it("cookies go back verbatim, to their origin and path, until they expire", () => {
    const jar = new Jar(), url = new URL("https://r.example/v1/images/x/json")
    const set = (at: string, cookie: Partial<Parameters<Jar["take"]>[1]>, now = 0) => jar.take(new URL(at), { name: "s", value: "1", secure: false, ...cookie }, now)
    set(url.href, { value: `"a=b&c?"`, path: "/v1/" })
    set(url.href, { name: "deep", path: "/v1/images/x" })
    set(url.href, { name: "secure", secure: true, path: "/" })
    set(url.href, { name: "brief", expires: 100, path: "/" })
    const header = (at: string, now = 0) => jar.header(new URL(at), now)
    assert.strictEqual(header(url.href), `deep=1; s="a=b&c?"; secure=1; brief=1`)
    assert.strictEqual(header("https://r.example/v1/other", 100), `s="a=b&c?"; secure=1`)
    assert.strictEqual(header("https://r.example/v11", 100), "secure=1")
    for (const other of ["http://r.example/v1/", "https://r.example:444/v1/", "https://x.r.example/v1/", "https://example/v1/"]) assert.isUndefined(header(other))
    set(url.href, { path: "/v1/", expires: 0 }, 50)
    assert.strictEqual(header("https://r.example/v1/other", 100), "secure=1")
    for (let at = 0; at < 200; at++) set("http://many.example/", { name: `n${at}`, value: "x".repeat(at === 0 ? 9000 : 1) })
    assert.strictEqual(header("http://many.example/")?.split("; ").length, 50)
  })
})

describe("ranges", () => {
  const continues = (headers: Record<string, string>, part: Partial<LayerRange.Part> = {}) => LayerRange.continues(headers, { from: 10, size: 100, ...part })
  const right = { "content-range": "bytes 10-99/100", "content-length": "90" }
  it("must be just what is missing", () => {
    assert.isTrue(continues(right))
    assert.isTrue(continues({ "content-range": "bytes 10-99/*" }))
    assert.isTrue(continues({ "content-range": "bytes 10-50/100", "content-length": "41" }))
    assert.isTrue(continues({ "content-range": "bytes 10-100/100", "content-length": "90" }))
    assert.isTrue(continues({ ...right, etag: `"x"` }, { etag: `"x"` }))
    assert.isTrue(continues({ ...right, "content-encoding": "gzip" }))
    for (const range of ["", "bytes 11-99/100", "bytes 0-99/100", "bytes 10-99/101", "bytes 10-101/100", "bytes 10-9/100", "bytes 10-100/100", "bytes -99/100", "10-99/100", "bytes */100", "bytes 10-99/100, bytes 0-1/100"])
      assert.isFalse(continues({ "content-range": range, "content-length": "91" }), range)
    assert.isFalse(continues({ ...right, etag: `"y"` }, { etag: `"x"` }))
    assert.isFalse(continues({ ...right, "content-encoding": "gzip", "content-length": "50" }))
    assert.isFalse(continues(right, { size: undefined }))
  })
})
