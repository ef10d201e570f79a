import { createHash, generateKeyPairSync, type KeyObject, sign as signBytes } from "node:crypto"
import * as Base64 from "../../image/v1/Base64.ts"

/** Who signs a manifest. */
export interface Signer {
  readonly algorithm: "ES256" | "RS256"
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  /** The key's ID in libtrust's form: `ABCD:…`, twelve groups. */
  readonly keyId: string
}

/** libtrust's key ID: base32 of the first 240 bits of the SHA-256 of the key in DER, in groups of four (libtrust: util.go, keyIDFromCryptoKey). */
export const keyIdOf = (publicKey: KeyObject): string => {
  const hash = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest()
  return Base64.encode32(hash.subarray(0, 30)).match(/.{4}/g)?.join(":") ?? ""
}

/** A signer with a new key: P-256, or RSA of 2048 bits. */
export const signer = (algorithm: Signer["algorithm"] = "ES256"): Signer => {
  const pair = algorithm === "ES256" ? generateKeyPairSync("ec", { namedCurve: "P-256" }) : generateKeyPairSync("rsa", { modulusLength: 2048 })
  return { algorithm, ...pair, keyId: keyIdOf(pair.publicKey) }
}

/** A JSON document as Docker wrote it before signing: indented by three spaces. */
export const payloadOf = (document: unknown): Buffer => Buffer.from(JSON.stringify(document, null, 3))

const url64 = (bytes: Uint8Array | string): string => Buffer.from(bytes).toString("base64url")

/**
 * A signed document in libtrust's "pretty" form (libtrust: jsonsign.go): the payload with the signatures as its last member. `payload`
 * must end in a line with `}` alone, as `payloadOf` makes it.
 */
export const sign = (payload: Uint8Array, signers: ReadonlyArray<Signer>): Buffer => {
  const text = Buffer.from(payload)
  const length = text.lastIndexOf("\n}")
  const tail = text.subarray(length)
  const signatures = signers.map(({ algorithm, keyId, privateKey, publicKey }) => {
    const { crv, e, kty, n, x, y } = publicKey.export({ format: "jwk" })
    const header = url64(JSON.stringify({ formatLength: length, formatTail: url64(tail), time: "2015-11-20T22:13:20Z" }))
    const data = Buffer.from(`${header}.${url64(text)}`)
    const key = kty === "EC" ? { crv, kid: keyId, kty, x, y } : { e, kid: keyId, kty, n }
    return {
      header: { jwk: key, alg: algorithm },
      signature: url64(signBytes("sha256", data, { key: privateKey, dsaEncoding: "ieee-p1363" })),
      protected: header
    }
  })
  const block = JSON.stringify(signatures, null, 3).replaceAll("\n", "\n   ")
  return Buffer.concat([text.subarray(0, length), Buffer.from(`,\n   "signatures": ${block}`), tail])
}
