import { Result, Schema } from "effect"
import * as Reference from "../../src/image/Reference.ts"
import * as LegacyDigest from "../../src/image/v1/LegacyDigest.ts"
import * as LegacyReference from "../../src/image/v1/LegacyReference.ts"
import { kind } from "./Kind.ts"

const fault = <E extends { readonly message: string }>(name: string, result: Result.Result<unknown, E>) =>
  Result.isFailure(result) ? { [name]: result.failure.message } : {}

/** Names as Docker 1.9.1 read them. */
export const references19 = kind("references-1.9", Schema.Struct({
  input: Schema.String,
  expect: Schema.StructWithRest(Schema.Struct({ normalizeLocalName: Schema.String }), [Schema.Record(Schema.String, Schema.Unknown)])
}), ({ input, expect }) => {
  const { repository, tag } = LegacyReference.split(input)
  const info = LegacyReference.repositoryInfo(repository)
  return {
    expected: expect,
    actual: {
      repo: repository,
      tag,
      ...(Result.isSuccess(info) ? { info: { ...info.success } } : fault("infoError", info)),
      normalizeLocalName: LegacyReference.normalizeLocalName(input),
      ...fault("tagError", LegacyReference.checkTag(tag)),
      ...fault("digestError", LegacyDigest.parse(tag)),
      hasDigest: LegacyReference.hasDigest(tag),
      digestReference: LegacyReference.isDigestReference(tag),
      imageReference: LegacyReference.imageReference(repository, tag)
    }
  }
})

const facts = (answer: Result.Result<Reference.Named | Reference.DigestReference, Reference.InvalidReference>) => {
  if (Result.isFailure(answer)) return { ok: false, error: answer.failure.reason }
  const reference = answer.success, string = Reference.print(reference)
  if (!("path" in reference)) return { ok: true, type: reference.type, string, digest: reference.digest }
  const { domain, path, tag, digest, type } = reference
  return {
    ok: true, type, string, domain, path, name: Reference.name(reference), nameOnly: type === "repository",
    familiarName: Reference.familiarName(reference), familiarString: Reference.familiar(reference),
    ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest })
  }
}

/** Names as distribution/reference v0.6.0 reads them. */
export const referencesModern = kind("references-modern", Schema.Struct({
  input: Schema.String,
  expect: Schema.StructWithRest(Schema.Struct({ dockerRef: Schema.Unknown, any: Schema.Unknown }), [Schema.Record(Schema.String, Schema.Unknown)])
}), ({ input, expect }) => {
  const normalized = Reference.parseNormalized(input)
  return {
    expected: expect,
    actual: {
      parse: facts(Reference.parseStrict(input)),
      normalized: facts(normalized),
      dockerRef: facts(Reference.parseDockerRef(input)),
      any: facts(Reference.parseAny(input)),
      ...(Result.isSuccess(normalized) ? {
        tagNameOnly: Reference.print(Reference.tagNameOnly(normalized.success)),
        trimNamed: Reference.print(Reference.trimNamed(normalized.success))
      } : {})
    }
  }
})
