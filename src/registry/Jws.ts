import { Result, Schema } from "effect"
import { createHash, createPublicKey, type KeyObject, verify as verifySignature, X509Certificate } from "node:crypto"
import * as Base64 from "../image/v1/Base64.ts"
import type { Envelope, Signature } from "../image/v1/Envelope.ts"
import * as GoText from "../image/v1/go/GoText.ts"
import * as GoJson from "../image/v1/go/GoJson.ts"
import type { Hash } from "../image/v1/LegacyDigest.ts"
import * as PublicKey from "../image/v1/PublicKey.ts"

/** A signature of a manifest does not verify, or its key cannot be used. `index` is its place in the list; `reason` in libtrust's words. */
export class SignatureRefused extends Schema.TaggedError<SignatureRefused>()("SignatureRefused", {
  index: Schema.Natural,
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** A file given as a trusted key holds none we can use. */
export class InvalidTrustKey extends Schema.TaggedError<InvalidTrustKey>()("InvalidTrustKey", { reason: Schema.String }) {
  override get message() {
    return `not a key to trust: ${this.reason}; give a public key or certificate in PEM, or a JSON Web Key, of type EC or RSA`
  }
}

/** Hashes with node:crypto, for the functions of image/v1. */
export const hash: Hash = (algorithm, bytes) => createHash(algorithm).update(bytes).digest("hex")

/** Larger moduli are not worth the time a verification takes; node:crypto refuses them too. */
export const maxModulusBytes = 2048

/** More signatures than anyone makes: each is computed over the whole payload. */
export const maxSignatures = 64

/** DigestInfo (RFC 8017, section 9.2) has 19 bytes before each of these hashes. */
const rsaHashes: Partial<Record<string, { readonly name: string; readonly bytes: number }>> = {
  RS256: { name: "sha256", bytes: 32 }, RS384: { name: "sha384", bytes: 48 }, RS512: { name: "sha512", bytes: 64 }
}
const ecHashes = { ES256: "sha256", ES384: "sha384", ES512: "sha512" }

const holds = (algorithm: string, data: string, spki: Uint8Array, signature: Uint8Array): boolean => {
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" })
    return verifySignature(algorithm, Buffer.from(data), { key, dsaEncoding: "ieee-p1363" }, signature)
  } catch {
    return false
  }
}

/** Why `signature` is not by `key`; undefined if it is. */
const fault = (key: PublicKey.PublicKey, algorithm: string, data: string, signature: Uint8Array): string | undefined => {
  if (key.type === "EC") {
    if (algorithm !== key.algorithm) {
      return `unable to verify signature: EC Public Key with curve "${key.curve}" does not support signature algorithm ${GoText.quote(algorithm)}`
    }
    if (signature.length !== 2 * key.octets) return `signature length is ${signature.length} octets long, should be ${2 * key.octets}`
    return key.spki !== undefined && holds(ecHashes[key.algorithm], data, key.spki, signature) ? undefined : "invalid signature"
  }
  const { name, bytes } = rsaHashes[algorithm] ?? {}
  if (name === undefined || bytes === undefined) {
    return `unable to verify Signature: RSA Digital Signature Algorithm ${GoText.quote(algorithm)} not supported`
  }
  const { length } = key.modulus
  const usable = key.exponent >= 2 && key.exponent < 2 ** 31 && length >= 19 + bytes + 11 && length <= maxModulusBytes && signature.length === length
  return usable && holds(name, data, key.spki, signature) ? undefined : `invalid ${algorithm} signature: crypto/rsa: verification error`
}

const fail = (reason: string) => Result.fail(reason)
const jwkBytes = (text: string | undefined) => Result.getOrElse(Base64.decodeJose(text ?? ""), () => new Uint8Array())

/** What libtrust calls key types it does not take. */
const otherTypes: Partial<Record<string, string>> = { ed25519: "ed25519.PublicKey", dsa: "*dsa.PublicKey" }

/** Our form of a key of node:crypto's. */
const fromKeyObject = (key: KeyObject): Result.Result<PublicKey.PublicKey, string> => Result.gen(function*() {
  const type = key.asymmetricKeyType ?? ""
  if (type !== "ec" && type !== "rsa") return yield* fail(`public key type ${otherTypes[type] ?? "<nil>"} is not supported`)
  const { crv, x, y, n, e } = yield* Result.try({ try: () => key.export({ format: "jwk" }), catch: () => "unsupported elliptic curve" })
  if (type === "rsa") {
    const exponent = jwkBytes(e)
    return exponent.length > 4 ? yield* fail("the RSA exponent is too large") : PublicKey.rsa(jwkBytes(n), exponent.reduce((sum, byte) => sum * 256 + byte, 0), hash)
  }
  return crv === "P-256" || crv === "P-384" || crv === "P-521" ? PublicKey.ec(crv, jwkBytes(x), jwkBytes(y), hash) : yield* fail("unsupported elliptic curve")
})

/** The key of a certificate in DER; nothing may follow it. */
const fromCertificate = (der: Uint8Array): Result.Result<PublicKey.PublicKey, string> => Result.gen(function*() {
  const certificate = yield* Result.try({ try: () => new X509Certificate(der), catch: () => "x509: malformed certificate" })
  // PEM would be taken too.
  if (!certificate.raw.equals(der)) return yield* fail("x509: trailing data")
  return yield* fromKeyObject(yield* Result.try({ try: () => certificate.publicKey, catch: () => "x509: unusable key" }))
})

const keyOf = ({ chain: [first], key }: Signature): Result.Result<PublicKey.PublicKey, string> => {
  if (first === undefined) return key === undefined ? fail("missing public key") : Result.succeed(key)
  const der = Base64.decode(first, "standard")
  return der === undefined ? fail("illegal base64 data in x5c") : fromCertificate(der)
}

/**
 * Verifies every signature of a manifest over its payload (JWS, RFC 7515; libtrust: JSONSignature.Verify) with ES256,
 * ES384, ES512, RS256, RS384 or RS512, and gives the IDs of their keys in libtrust's form, in the order of the signatures.
 * A certificate beside a signature is used for its key; who issued it is not checked. No signatures verify to no keys.
 */
export const verify = ({ payload, signatures }: Envelope): Result.Result<ReadonlyArray<string>, SignatureRefused> => Result.gen(function*() {
  if (signatures.length > maxSignatures) {
    return yield* Result.fail(new SignatureRefused({ index: maxSignatures, reason: `${signatures.length} signatures, at most ${maxSignatures} are verified` }))
  }
  const encoded = Base64.encodeJose(payload), keyIds: Array<string> = []
  for (const [index, signature] of signatures.entries()) {
    const refuse = (reason: string) => new SignatureRefused({ index, reason })
    const key = yield* Result.mapError(keyOf(signature), refuse)
    const bytes = yield* Result.mapError(Base64.decodeJose(signature.signature), refuse)
    const reason = fault(key, signature.algorithm, `${signature.protected}.${encoded}`, bytes)
    if (reason !== undefined) return yield* Result.fail(refuse(reason))
    keyIds.push(key.id)
  }
  return keyIds
})

/** The ID of a key a user trusts, from a file's text: a public key or certificate in PEM, or a JSON Web Key. */
export const trustKeyId = (text: string): Result.Result<string, InvalidTrustKey> => {
  const read = text.trimStart().startsWith("{")
    ? Result.flatMap(Result.mapError(GoJson.parse(text.toWellFormed()), ({ reason }) => reason), (document) =>
      Result.mapError(PublicKey.fromJwk(document, hash), ({ reason }) => reason.trim()))
    : Result.flatMap(Result.try({ try: () => createPublicKey(text), catch: () => "neither PEM nor JSON" }), fromKeyObject)
  return Result.match(read, {
    onFailure: (reason) => Result.fail(new InvalidTrustKey({ reason })),
    onSuccess: ({ id }) => id === "" ? Result.fail(new InvalidTrustKey({ reason: "its point is not on its curve" })) : Result.succeed(id)
  })
}
