import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import * as FixManifest from "../../../src/image/v1/FixManifest.ts"
import * as GoJson from "../../../src/image/v1/go/GoJson.ts"
import * as SignedManifest from "../../../src/image/v1/SignedManifest.ts"
import * as StrongId from "../../../src/image/v1/StrongId.ts"
import * as Jws from "../../../src/registry/Jws.ts"

// FUZZ_RUNS=100000 npx vitest run test/image/v1/Fuzz.test.ts for a long run; a failure prints how to replay it.
const runs = Number(process.env["FUZZ_RUNS"] ?? 500)

const Sample = Schema.fromJsonString(Schema.StructWithRest(Schema.Struct({}), [Schema.Record(Schema.String, Schema.Unknown)]))
const samples = (field: string, ...files: ReadonlyArray<string>) => files.flatMap((file) =>
  readFileSync(new URL(`../../fixtures/${file}.jsonl`, import.meta.url), "utf8").trim().split("\n").map((line) => String(Schema.decodeSync(Sample)(line)[field])))

const put = Schema.Literals([
  "", "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\ud800", "0", "-1", "1e400", "99999999999999999999", "null", "true", " ", "\u0000", "é",
  "\ufeff", "\ud800", "\"signatures\":", "\"x5c\":[\"AAAA\"],", "\"formatLength\"", "eyJmb3JtYXRMZW5ndGgiOi0xLCJmb3JtYXRUYWlsIjoiQ24wIn0", "AQAB", "=",
  "[".repeat(20_000), "A".repeat(50_000)
])
const Edit = Schema.Struct({ at: Schema.Natural, cut: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 6 })), put })
const Edits = Schema.Array(Edit).check(Schema.isMaxLength(4))
const edited = (texts: ReadonlyArray<string>, which: number, edits: typeof Edits.Type) =>
  edits.reduce((text, { at, cut, put }) => {
    const from = at % (text.length + 1)
    return text.slice(0, from) + put + text.slice(from + cut)
  }, texts[which % texts.length] ?? "")

/** No input throws or takes long; errors have a message. */
const check = (run: () => ReadonlyArray<Result.Result<unknown, { readonly message: string }>>) => {
  const start = performance.now()
  for (const result of run()) if (Result.isFailure(result)) assert.isNotEmpty(result.failure.message)
  assert.isBelow(performance.now() - start, 2000)
}

describe("fuzz", () => {
  const documents = samples("v1Compatibility", "image-ids"), manifests = samples("manifest", "fix-manifest", "schema1", "schema1-keys")

  it.prop("GoJson and the IDs", [Schema.Natural, Edits], ([which, edits]) => {
    const text = edited(documents, which, edits)
    check(() => [
      Result.map(GoJson.parse(text), (document) => [document.compact(), document.overflow(), ...(document.kind === "object" ? document.members() : [])]),
      StrongId.address(text, `sha256:${"0".repeat(64)}`, "", Jws.hash)
    ])
  }, { arbitrary: { runs } })

  it.prop("SignedManifest and FixManifest", [Schema.Natural, Edits], ([which, edits]) => {
    const bytes = new TextEncoder().encode(edited(manifests, which, edits))
    check(() => {
      const manifest = SignedManifest.decode(bytes, Jws.hash)
      const verified = Result.flatMap(manifest, (manifest) => SignedManifest.verify(manifest, "latest", Jws.hash))
      const fixed = Result.flatMap(verified, FixManifest.fix)
      const onManifest = <A, E>(run: (manifest: SignedManifest.SignedManifest) => Result.Result<A, E>) => Result.flatMap(manifest, run)
      return [
        manifest, verified, fixed, Result.flatMap(fixed, ({ manifest }) => StrongId.chain(manifest, Jws.hash)), onManifest(SignedManifest.signed),
        onManifest((manifest) => SignedManifest.digest(manifest, Jws.hash)), onManifest(({ envelope }) => Result.flatMap(envelope, Jws.verify))
      ]
    })
  }, { arbitrary: { runs } })
})
