import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as LegacyDigest from "../../../src/image/v1/LegacyDigest.ts"
import * as StrongId from "../../../src/image/v1/StrongId.ts"
import * as V1Image from "../../../src/image/v1/V1Image.ts"
import { hash } from "../../../src/registry/Jws.ts"

const layer = `sha256:${"a3".repeat(32)}`
const config = (v1: string) => Result.getOrThrow(StrongId.address(v1, layer, "", hash)).config
const rule = (v1: string, layerId = layer, parentId = "") =>
  Result.match(StrongId.address(v1, layerId, parentId, hash), { onFailure: (error) => error.rule, onSuccess: () => "ok" })

describe("StrongId", () => {
  it.prop("is the same whatever the white space and the order of fields", [Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Int, Schema.Null])), Schema.Boolean],
    ([extra, old]) => {
      const fields = Object.entries({ ...extra, docker_version: old ? "1.7.1" : "1.9.0", created: "2015-09-08T21:30:30.5Z" })
        .filter(([key, value]) => key.isWellFormed() && (typeof value === "string" || !/^(id|parent|os)$/i.test(key)))
      const text = (list: typeof fields, space: string) => `{${list.map(([key, value]) => `${space}${JSON.stringify(key)}${space}:${space}${JSON.stringify(value)}${space}`).join(",")}}`
      assert.strictEqual(config(text(fields, "")), config(text(fields.toReversed(), " \n\t\r")))
    }, { arbitrary: { runs: 300 } })

  it("tells the versions before 1.8.3", () => {
    for (const before of ["", "1.8.2", "1.8.3-rc1", "1.8.3-cs1", "1", "1.8.", "-5", "v1.9", "1.8.3e0", "1.8.-9999999999999999999999"]) assert.isTrue(StrongId.isBefore183(before), before)
    for (const later of ["1.8.3", "1.8.3.rc1", "1.9.0-dev", "1.10", "1.8.99999999999999999999", "1.8.+3", "1.08.003", "2"]) assert.isFalse(StrongId.isBefore183(later), later)
  })

  it("names the class of each error, the document's before the digests'", () => {
    assert.strictEqual(rule("{", "bad", "bad"), "json")
    assert.strictEqual(rule("{\"Size\":1.0}"), "json")
    assert.strictEqual(rule("{\"os\":1,\"created\":\"x\"}"), "created")
    assert.strictEqual(rule("{\"created\":\"x\",\"config\":{\"Cmd\":1}}"), "created")
    assert.strictEqual(rule("{\"config\":{\"Cmd\":1},\"created\":\"x\"}"), "json")
    assert.strictEqual(rule("{}", "sha256:", "bad"), "layer-digest")
    assert.strictEqual(rule("{}", layer, "bad"), "parent-digest")
    assert.strictEqual(rule("null"), "ok")
  })

  it("names the field at fault", () => {
    const error = Result.getOrThrow(Result.flip(V1Image.decode("{\"config\":{\"Env\":[\"a\",1]}}")))
    assert.strictEqual(error.message, "config.Env[1]: expected string, found number")
  })

  it("merges repeated objects and keeps old slots of lists, as Go does", () => {
    const text = String.raw`{"docker_version":"1","config":{"Env":["a","b","c"],"Labels":{"x":"1"}},"config":{"env":["d"],"labels":{"y":null}},"CONFIG":{"ENV":[null,null]}}`
    assert.include(config(text), String.raw`"Env":["d","b"]`)
    assert.include(config(text), String.raw`"Labels":{"x":"1","y":""}`)
  })

  it("stays linear where a document repeats itself", () => {
    for (const text of [
      `{${"\"config\":{},".repeat(3e5)}"os":""}`, `{"config":{"Labels":{${Array.from({ length: 5e4 }, (_, at) => `"k${at}":""`).join()}},${"\"Labels\":{},".repeat(1e5)}"Tty":true}}`,
      `{"config":{"Env":[${"\"\",".repeat(5e4)}""],${"\"Env\":[null],".repeat(1e5)}"Tty":true}}`, `{"x":${"[".repeat(1e5)}${"]".repeat(1e5)}}`
    ]) {
      const start = performance.now()
      StrongId.address(text, layer, "", hash)
      assert.isBelow(performance.now() - start, 5000)
    }
  })
})

describe("LegacyDigest", () => {
  it("takes what 1.9 took", () => {
    for (const good of ["sha256:A", "sha384:0", "sha512:fF", "tarsum+x:0", "xtarsum\u{1f600}a1+Md5:ffzz", "tarsumtarsumab+a:0", "sha1:tarsum+a:b", "tarsum.v1+sha256:ab"]) {
      assert.isTrue(LegacyDigest.is(good), good)
    }
    for (const [bad, reason] of [
      ["", "invalid checksum digest format"], ["sha256:", "invalid checksum digest format"], ["sha256:ag", "invalid checksum digest format"],
      ["md5:ab", "unsupported digest algorithm"], ["SHA256:ab", "unsupported digest algorithm"], ["tarsum.+sha256:ab", "unsupported digest algorithm"],
      ["tarsum\na+b:c", "invalid checksum digest format"], ["sha256:ab\n", "invalid checksum digest format"]
    ] as const) {
      assert.strictEqual(LegacyDigest.fault(bad), reason, bad)
    }
  })

  it("is linear", () => {
    for (const text of ["tarsum".repeat(5e5), "+a".repeat(1e6), "tarsum+".repeat(4e5), `${"a".repeat(2e6)}+b:`]) {
      const start = performance.now()
      LegacyDigest.is(text)
      assert.isBelow(performance.now() - start, 2000)
    }
  })
})
