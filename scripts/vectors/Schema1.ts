import { Result, Schema } from "effect"
import * as SignedManifest from "../../src/image/v1/SignedManifest.ts"
import * as Jws from "../../src/registry/Jws.ts"
import { error, kind } from "./Kind.ts"

const { hash } = Jws
const Part = Schema.Record(Schema.String, Schema.Unknown)

/** One part of a case: facts if it worked; else the error as the file has it, if the wording agrees, or ours. */
const part = <A>(expected: unknown, key: string, result: Result.Result<A, { readonly message: string }>, facts: (value: A) => object): object =>
  Result.match(result, {
    onSuccess: facts,
    onFailure: ({ message }) => {
      const fields = Schema.is(Part)(expected) ? expected : {}
      // Where the original crashed, any error of ours is right.
      const crash = Object.entries(fields).filter(([name]) => name.toLowerCase().endsWith(key === "" ? "panic" : `${key}panic`.toLowerCase()))
      const name = key === "" ? "error" : `${key}Error`, text = fields[name]
      return { ...(key === "" ? { ok: fields["ok"] ?? false } : {}), ...(crash.length > 0 ? Object.fromEntries(crash) : { [name]: error(typeof text === "string" ? text : undefined, message) }) }
    }
  })

/** Signed manifests: what is their payload, what Docker took from them, and whose signatures verify. */
export const schema1 = kind("schema1", Schema.Struct({
  manifest: Schema.String,
  ref: Schema.String,
  mode: Schema.optionalKey(Schema.Never),
  expect: Part
}), ({ manifest, ref, expect }) => {
  const decoded = SignedManifest.decode(new TextEncoder().encode(manifest), hash)
  if (Result.isFailure(decoded)) return { expected: expect, actual: "rawLen" in expect ? { error: decoded.failure.message } : expect }
  const signed = decoded.success
  const digested = SignedManifest.digest(signed, hash)
  const { signatures = {}, verifyManifest = {} } = expect
  return {
    expected: { ...expect, signatures: noneIsEmpty(signatures, "keyIDs"), verifyManifest: noneIsEmpty(verifyManifest, "blobSums") },
    actual: {
      rawLen: signed.raw.length,
      rawSha256: hash("sha256", signed.raw),
      ...part(expect, "payload", signed.envelope, ({ payload }) => ({ payloadLen: payload.length, payloadSha256: hash("sha256", payload) })),
      ...(Result.isSuccess(digested) || "manifestDigest" in expect ? part(expect, "manifestDigest", digested, (manifestDigest) => ({ manifestDigest })) : {}),
      verifyManifest: part(verifyManifest, "", SignedManifest.verify(signed, ref, hash), ({ name, tag, fsLayers }) =>
        ({ ok: true, name, tag, blobSums: fsLayers.map(({ blobSum }) => blobSum) })),
      signatures: part(signatures, "", Result.flatMap(signed.envelope, Jws.verify), (keyIDs) => ({ ok: true, keyIDs }))
    }
  }
})

/** Go writes a list that was never made as null. */
const noneIsEmpty = (fields: unknown, name: string): unknown =>
  Schema.is(Part)(fields) && fields[name] === null ? { ...fields, [name]: [] } : fields
