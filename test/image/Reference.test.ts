import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import * as Grammar from "../../src/image/ReferenceGrammar.ts"
import * as Reference from "../../src/image/Reference.ts"

const Json = Schema.fromJsonString(Schema.Struct({
  case: Schema.String,
  input: Schema.String,
  expect: Schema.Record(Schema.String, Schema.Unknown)
}))
const vectors = readFileSync(new URL("../fixtures/references-modern.jsonl", import.meta.url), "utf8").trim().split("\n")
  .map((line) => Schema.decodeSync(Json)(line))

/** What the vectors say of one answer. */
const facts = (answer: Result.Result<Reference.Named | Reference.DigestReference, Reference.InvalidReference>) => {
  if (Result.isFailure(answer)) return { ok: false, error: answer.failure.reason }
  const reference = answer.success
  const string = Reference.print(reference)
  if (!("path" in reference)) return { ok: true, type: reference.type, string, digest: reference.digest }
  const { domain, path, tag, digest, type } = reference
  return {
    ok: true, type, string, domain, path, name: Reference.name(reference), nameOnly: type === "repository",
    familiarName: Reference.familiarName(reference), familiarString: Reference.familiar(reference),
    ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest })
  }
}

describe("the vectors of distribution/reference v0.6.0", () => {
  for (const { case: name, input, expect } of vectors) {
    it(name, () => {
      const normalized = Reference.parseNormalized(input)
      assert.deepStrictEqual({
        parse: facts(Reference.parseStrict(input)),
        normalized: facts(normalized),
        dockerRef: facts(Reference.parseDockerRef(input)),
        any: facts(Reference.parseAny(input)),
        ...(Result.isSuccess(normalized) ? {
          tagNameOnly: Reference.print(Reference.tagNameOnly(normalized.success)),
          trimNamed: Reference.print(Reference.trimNamed(normalized.success))
        } : {})
      } as Record<string, unknown>, expect)
    })
  }
})

// The grammar as v0.6.0 writes it (regexp.go), as a second opinion on short texts; backtracking, so never on hostile ones.
const label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
const domain = String.raw`(?:${label}(?:\.${label})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?`
const component = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
const remote = `${component}(?:/${component})*`
const tag = String.raw`[\w][\w.-]{0,127}`
const digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*[:][0-9A-Fa-f]{32,}"
const whole = new RegExp(`^(?:(${domain})/)?(${remote})(?::(${tag}))?(?:@(${digest}))?$`)

const piece = Schema.Literals([
  "a", "b0", "Z", "library", "localhost", "docker.io", "index.docker.io", "x.y", "5000", ".", "..", "_", "__", "___", "-", "--",
  "/", "/", "/", ":", ":", "@", "[", "]", "::1", "sha256:", "sha512:", "sha384:", "md5:", "+", "é", "K", "\u0130", " ", "\n",
  "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "A".repeat(32), "t".repeat(128)
])
const pieces = Schema.Array(piece).check(Schema.isMaxLength(9))

describe("Reference", () => {
  it.prop("the scanner accepts and cuts exactly what the grammar's expression does", [pieces], ([parts]) => {
    const text = parts.join("")
    const match = whole.exec(text)
    const scanned = Grammar.scan(text)
    if (match === null) {
      assert.property(scanned, "expected")
      if ("expected" in scanned) assert.isAtMost(scanned.at, text.length)
    } else {
      assert.deepEqual({ ...scanned } as Record<string, unknown>, { domain: match[1] ?? "", path: match[2], tag: match[3], digest: match[4] })
    }
  }, { arbitrary: { runs: 4000 } })

  const name = Schema.String.check(Schema.isPattern(/^[a-z0-9]{1,8}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,4}){0,2}$/))
  const parts = Schema.Struct({
    domain: Schema.Union([
      Schema.Literals(["docker.io", "localhost", "Host", "[::1]", "[2001:db8::1]:5000", "a.b-c.example", "r:443"]),
      Schema.String.check(Schema.isPattern(/^[a-z0-9]{1,8}(?:\.[a-zA-Z0-9]{1,8}){1,3}$/)),
      Schema.String.check(Schema.isPattern(/^[a-z0-9]{1,8}:[0-9]{1,5}$/))
    ]),
    path: Schema.NonEmptyArray(name).check(Schema.isMaxLength(4)),
    tag: Schema.UndefinedOr(Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/))),
    digest: Schema.UndefinedOr(Schema.String.check(Schema.isPattern(/^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/)))
  })

  it.prop("prints what it parsed, in full and familiarly", [parts], ([{ domain, path, tag, digest }]) => {
    const text = `${domain}/${path.join("/")}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`
    const reference = Result.getOrThrow(Reference.parse(text))
    const library = domain === "docker.io" && path.length === 1 ? "library/" : ""
    const latest = tag === undefined && digest === undefined ? ":latest" : ""
    assert.strictEqual(Reference.print(reference), `${domain}/${library}${text.slice(domain.length + 1)}${latest}`)
    assert.deepStrictEqual(Result.getOrThrow(Reference.parse(Reference.print(reference))), reference)
    // Docker's short form of a Hub name whose first part looks like a host reads as that host: Go's has the same gap.
    const ambiguous = domain === "docker.io" && path.length > 1 && (path[0].includes(".") || path[0] === "localhost")
    if (!ambiguous) assert.deepStrictEqual(Result.getOrThrow(Reference.parse(Reference.familiar(reference))), reference)
  })

  it.prop("parses, or says where and why, whatever comes", [Schema.Union([Schema.String, pieces])], ([input]) => {
    const text = typeof input === "string" ? input : input.join("")
    const answer = Reference.parse(text)
    if (Result.isSuccess(answer)) {
      assert.deepStrictEqual(Result.getOrThrow(Reference.parse(Reference.print(answer.success))), answer.success)
    } else {
      assert.isAtMost(answer.failure.at, text.length)
      // oxlint-disable-next-line no-control-regex -- that none gets through is the point
      assert.notMatch(answer.failure.message, /[\u0000-\u001f\u007f]/)
    }
  }, { arbitrary: { runs: 2000 } })

  const hex = "0123456789abcdef".repeat(4)
  it("makes references for pulling", () => {
    const print = (text: string) => Reference.print(Result.getOrThrow(Reference.parse(text)))
    assert.strictEqual(print("debian"), "docker.io/library/debian:latest")
    assert.strictEqual(print("index.docker.io/me/app:1"), "docker.io/me/app:1")
    assert.strictEqual(print(`127.0.0.1:5000/a@sha256:${hex}`), `127.0.0.1:5000/a@sha256:${hex}`)
    assert.strictEqual(print(`a:1@sha256:${hex}`), `docker.io/library/a:1@sha256:${hex}`)
  })

  it("says where and why", () => {
    const place = (text: string) => {
      const { at, reason } = Result.getOrThrow(Result.flip(Reference.parse(text)))
      return [at, reason]
    }
    const format = "invalid reference format"
    assert.deepStrictEqual(place(""), [0, format])
    assert.deepStrictEqual(place("debian:"), [7, format])
    assert.deepStrictEqual(place("debian:12 "), [9, format])
    assert.deepStrictEqual(place("docker.io/deBian"), [12, `${format}: repository name (library/deBian) must be lowercase`])
    assert.deepStrictEqual(place("r.example/team//app"), [15, format])
    assert.deepStrictEqual(place("r.example:x/app"), [11, format])
    assert.deepStrictEqual(place("[::1/app"), [4, format])
    assert.deepStrictEqual(place("[::g]/app"), [3, format])
    assert.deepStrictEqual(place("under_score.example/app"), [5, format])
    assert.deepStrictEqual(place(`app:${"t".repeat(129)}`), [132, format])
    assert.deepStrictEqual(place(`app@md5:${hex}`), [4, "unsupported digest algorithm"])
    assert.deepStrictEqual(place(`app@sha384:${hex}${hex.slice(32)}`), [4, "unsupported digest algorithm"])
    assert.deepStrictEqual(place(`app@sha256:${hex}0`), [4, "invalid checksum digest length"])
    assert.deepStrictEqual(place(`app@sha256:${hex.toUpperCase()}`), [4, "invalid checksum digest format"])
    assert.deepStrictEqual(place(`r.example/${"a/".repeat(127)}ab`), [265, "repository name must not be more than 255 characters"])
    assert.deepStrictEqual(place(hex), [0, `invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`])
    assert.strictEqual(Result.getOrThrow(Result.flip(Reference.parse("a\u001b[2b"))).message,
      String.raw`"a\u001b[2b" is not an image reference: invalid reference format; at character 2, "\u001b", expected a lower-case letter, a digit, a separator (${"`.`, `_`, `__`"}, dashes), ${"`/`, `:tag`, `@digest`"} or the end`)
  })

  it("takes no reference that could not be read back", () => {
    for (const fields of [{ domain: "host", path: "x", tag: "a" }, { domain: "docker.io", path: "x", tag: "a" }, { domain: "a.b", path: "x" },
      { domain: "index.docker.io", path: "a/b", tag: "a" }, { domain: "a.b", path: "../x", tag: "a" }, { domain: "a.b", path: "x", tag: "" }]) {
      assert.throws(() => new Reference.Reference(fields))
    }
  })

  it("reads hostile megabytes in linear time", () => {
    const n = 1 << 18
    for (const text of ["a".repeat(n), "a.".repeat(n), "a-".repeat(n), "-".repeat(n), "a--".repeat(n) + "/", "a_".repeat(n), "[".repeat(n),
      `[${":".repeat(n)}`, "/".repeat(n), `x@${"a+".repeat(n)}`, `x@a:${"f".repeat(n)}`, "A".repeat(n), "\u0130".repeat(n), `x:${"t".repeat(n)}`]) {
      const start = performance.now()
      Reference.parse(text)
      Reference.parseAny(text)
      assert.isBelow(performance.now() - start, 2000)
    }
  })
})
