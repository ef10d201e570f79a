import { Result, Schema } from "effect"
import * as FixManifest from "../../src/image/v1/FixManifest.ts"
import * as SignedManifest from "../../src/image/v1/SignedManifest.ts"
import * as StrongId from "../../src/image/v1/StrongId.ts"
import { hash } from "../../src/registry/Jws.ts"
import { error, kind } from "./Kind.ts"

/** Classes of errors the files know; all others are `other` there. */
const classes: ReadonlySet<string> = new Set(["json", "created", "image-id", "layer-digest", "parent-digest"])
const errorClass = (rule: string) => classes.has(rule) ? rule : rule === "document" ? "json" : "other"

const Images = Schema.Array(Schema.Struct({
  index: Schema.Natural,
  strongID: Schema.String,
  parentStrongID: Schema.String,
  compatibilityID: Schema.String
}))

/** Whole manifests. Docker's messages count where it checks the shape and the chain; elsewhere only stage and class. */
export const fixManifest = kind("fix-manifest", Schema.Struct({
  manifest: Schema.String,
  ref: Schema.String,
  mode: Schema.Literals(["pipe", "chain"]),
  expect: Schema.Struct({
    ok: Schema.Boolean,
    survivors: Schema.optionalKey(Schema.Array(Schema.Natural)),
    images: Schema.optionalKey(Images),
    stage: Schema.optionalKey(Schema.String),
    error: Schema.optionalKey(Schema.String),
    errorClass: Schema.optionalKey(Schema.String)
  })
}), ({ manifest, ref, mode, expect }) => ({
  expected: expect,
  actual: Result.merge(Result.gen(function*() {
    const failed = (stage: string) => ({ rule, message }: { readonly rule: string; readonly message: string }) => ({
      ok: false, stage, errorClass: errorClass(rule),
      error: stage === "verify" || stage === "fix" && errorClass(rule) !== "json" && rule !== "created" ? error(expect.error, message) : expect.error
    })
    const signed = yield* Result.mapError(SignedManifest.decode(new TextEncoder().encode(manifest), hash), failed("parse"))
    const verified = yield* Result.mapError(SignedManifest.verify(signed, ref, hash), failed("verify"))
    const fixed = mode === "chain" ? { manifest: verified, survivors: [...verified.history.keys()] }
      : yield* Result.mapError(FixManifest.fix(verified), failed("fix"))
    const survivors = mode === "chain" ? {} : { survivors: fixed.survivors }
    const images = yield* Result.mapError(StrongId.chain(fixed.manifest, hash), (fault) => {
      // The file's index may be the place before or after repeats were dropped.
      const stages = [fixed.survivors[fault.index] ?? 0, fault.index].map((index) => `ids:${index}`)
      return { ...failed(stages.find((stage) => stage === expect.stage) ?? stages[0] ?? "")(fault), ...survivors }
    })
    return {
      ok: true,
      ...survivors,
      images: images.map(({ strongId, parentStrongId, compatibilityId }, index) =>
        ({ index: fixed.survivors[index], strongID: strongId, parentStrongID: parentStrongId, compatibilityID: compatibilityId }))
    }
  }))
}))
