import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as LegacyReference from "../../../src/image/v1/LegacyReference.ts"

const info = (name: string) => Result.getOrThrow(LegacyReference.repositoryInfo(name))
const reason = (result: Result.Result<unknown, LegacyReference.InvalidLegacyReference>) => Result.match(result, { onFailure: (error) => error.message, onSuccess: () => "ok" })
const piece = Schema.Literals(["a", "b0", "Z", "library", "localhost", "docker.io", "index.docker.io", "x.y", "5000", ".", "_", "-", "/", "/", ":", "@", "sha256:ab", "é"])
const Text = Schema.Array(piece).check(Schema.isMaxLength(8))

describe("LegacyReference", () => {
  it.prop("puts together again what it cut", [Text], ([pieces]) => {
    const text = pieces.join(""), { repository, tag } = LegacyReference.split(text)
    assert.isTrue(text === repository || text.startsWith(`${repository}${text.includes("@") ? "@" : ":"}${tag}`))
    if (!text.includes("@") && tag !== "") assert.strictEqual(LegacyReference.imageReference(repository, tag), text)
  })

  it.prop("gives the tag store one name for a repository", [Text], ([pieces]) => {
    const name = pieces.join(""), local = LegacyReference.normalizeLocalName(name)
    Result.map(LegacyReference.repositoryInfo(name), (found) => {
      assert.strictEqual(found.localName, local)
      assert.isTrue(found.canonicalName.endsWith(found.remoteName))
      // Docker's own rule takes one `library/` away each time.
      if (!found.officialIndex) assert.strictEqual(info(local).localName, local)
    })
  }, { arbitrary: { runs: 500 } })

  it("knows which registries are on this host", () => {
    for (const name of ["localhost/x", "localhost:5000/x", "LOCALHOST:5000/x", "127.0.0.1/x", "127.9.8.7:80/x", "[::ffff:127.0.0.1]:5000/x", "[::ffff:7f01:203]:1/x"]) assert.isFalse(info(name).secure, name)
    for (const name of ["x", "a.b/x", "128.0.0.1/x", "127.0.0.01/x", "127.0.0.256/x", "127.0.0.1.b/x", "[::1]:5000/x", "::ffff:7f00:1]:80#/x", "localhost.b/x", "127.0.0.1:1:1/x"]) assert.isTrue(info(name).secure, name)
  })

  it("says what Docker said", () => {
    assert.strictEqual(reason(LegacyReference.repositoryInfo("https://x/y")), "Invalid repository name (ex: \"registry.domain.tld/myrepos\")")
    assert.strictEqual(reason(LegacyReference.repositoryInfo("x.y-/z")), "Invalid index name (x.y-). Cannot begin or end with a hyphen.")
    assert.strictEqual(reason(LegacyReference.repositoryInfo(`docker.io/${"ab".repeat(32)}`)), `Invalid repository name (${"ab".repeat(32)}), cannot specify 64-byte hexadecimal strings`)
    assert.strictEqual(reason(LegacyReference.checkRepository("scratch")), "'scratch' is a reserved name")
    assert.strictEqual(reason(LegacyReference.checkRepository("")), "Repository name can't be empty")
    assert.strictEqual(reason(LegacyReference.checkTag("a".repeat(128))), "ok")
    assert.match(reason(LegacyReference.checkTag("a".repeat(129))), /^Illegal tag name/)
  })
})
