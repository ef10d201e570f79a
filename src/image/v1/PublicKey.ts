import { Result } from "effect"
import * as Base64 from "./Base64.ts"
import * as GoText from "./go/GoText.ts"
import type * as GoJson from "./go/GoJson.ts"
import type { Hash } from "./LegacyDigest.ts"

/** A key of the elliptic curves P-256, P-384 or P-521. */
export interface EcKey {
  readonly type: "EC"
  readonly curve: CurveName
  /** The one signature algorithm it is good for, by its JOSE name. */
  readonly algorithm: "ES256" | "ES384" | "ES512"
  /** How many bytes each half of a signature has. */
  readonly octets: number
  /** Its SubjectPublicKeyInfo in DER; undefined if the point is not on the curve: then no signature can be by it. */
  readonly spki: Uint8Array | undefined
  /** libtrust's key ID: twelve groups of four letters and digits. "" without `spki`. */
  readonly id: string
}

/** An RSA key. */
export interface RsaKey {
  readonly type: "RSA"
  /** The modulus without leading zeros. */
  readonly modulus: Uint8Array
  /** Of at most 32 bits. */
  readonly exponent: number
  readonly spki: Uint8Array
  readonly id: string
}

/** A key that signs manifests. */
export type PublicKey = EcKey | RsaKey

/** What keeps a JSON Web Key from being a key; `crash`: libtrust ended its program here. */
export interface KeyFault {
  readonly reason: string
  readonly crash: boolean
}

/** p, b (of y² = x³ - 3x + b), and the curve's name in DER (FIPS 186-4, D.1.2; RFC 5480). */
const curves = {
  "P-256": {
    algorithm: "ES256", octets: 32, oid: [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn
  },
  "P-384": {
    algorithm: "ES384", octets: 48, oid: [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn
  },
  "P-521": {
    algorithm: "ES512", octets: 66, oid: [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
    p: 2n ** 521n - 1n,
    b: 0x0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n
  }
} as const
type CurveName = keyof typeof curves
const isCurve = (name: string): name is CurveName => Object.hasOwn(curves, name)

const integer = (bytes: Uint8Array) => BigInt(`0x0${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`)
const join = (...parts: ReadonlyArray<Uint8Array | ReadonlyArray<number>>) => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** One DER value (X.690): its tag, the length of its content in the fewest bytes, and the content. */
const der = (tag: number, ...parts: ReadonlyArray<Uint8Array | ReadonlyArray<number>>) => {
  const body = join(...parts), length: Array<number> = []
  for (let left = body.length; left > 0; left >>>= 8) length.unshift(left & 0xff)
  return join([tag], body.length < 128 ? [body.length] : [0x80 | length.length, ...length], body)
}
const derInteger = (bytes: Uint8Array) => {
  const digits = bytes.length === 0 ? [0] : bytes
  return der(0x02, (digits[0] ?? 0) >= 0x80 ? [0] : [], digits)
}
const sequence = 0x30, bitString = 0x03

/** libtrust's key ID: the first 30 bytes of the SHA-256 of the key's DER, in base32, in groups of four. */
export const idOf = (spki: Uint8Array, hash: Hash): string => {
  const digest = hash("sha256", spki).slice(0, 60)
  return (Base64.encode32(Uint8Array.from({ length: 30 }, (_, at) => Number.parseInt(digest.slice(at * 2, at * 2 + 2), 16))).match(/.{4}/g) ?? []).join(":")
}

/** A key of a curve from its point's coordinates, `octets` bytes each. */
export const ec = (curve: CurveName, x: Uint8Array, y: Uint8Array, hash: Hash): EcKey => {
  const { algorithm, octets, oid, p, b } = curves[curve]
  const [px, py] = [integer(x), integer(y)]
  const onCurve = x.length === octets && y.length === octets && px < p && py < p && (py * py - (px * px * px - 3n * px + b)) % p === 0n
  const spki = onCurve
    ? der(sequence, der(sequence, [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], oid), der(bitString, [0, 4], x, y)) : undefined
  return { type: "EC", curve, algorithm, octets, spki, id: spki === undefined ? "" : idOf(spki, hash) }
}

/** An RSA key from its modulus (leading zeros do not matter) and exponent. */
export const rsa = (modulus: Uint8Array, exponent: number, hash: Hash): RsaKey => {
  const first = modulus.findIndex((byte) => byte !== 0)
  const n = first < 0 ? new Uint8Array() : modulus.subarray(first), e: Array<number> = []
  for (let left = exponent; left > 0; left = Math.floor(left / 256)) e.unshift(left % 256)
  const spki = der(sequence,
    der(sequence, [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]),
    der(bitString, [0], der(sequence, derInteger(n), derInteger(Uint8Array.from(e)))))
  return { type: "RSA", modulus: n, exponent, spki, id: idOf(spki, hash) }
}

const fail = (reason: string, crash = false) => Result.fail<KeyFault>({ reason, crash })

/** A text member, as libtrust asks for it. */
const text = (jwk: ReadonlyMap<string, GoJson.GoValue>, name: string, subject: string): Result.Result<string, KeyFault> => {
  const value = jwk.get(name)
  if (value === undefined) return fail(`${subject}: "${name}" value not specified`)
  return value.kind === "string" ? Result.succeed(value.string) : fail(`${subject}: "${name}" value must be a string`)
}

const bytes = (jwk: ReadonlyMap<string, GoJson.GoValue>, name: string, subject: string): Result.Result<Uint8Array, KeyFault> =>
  Result.flatMap(text(jwk, name, subject), (encoded) =>
    Result.mapError(Base64.decodeJose(encoded), (reason) => ({ reason: `${subject}: invalid base64 URL encoding: ${reason}`, crash: false })))

/** A key may say its own ID; then it must be right. */
const withId = <K extends PublicKey>(jwk: ReadonlyMap<string, GoJson.GoValue>, key: K): Result.Result<K, KeyFault> =>
  jwk.has("kid")
    ? Result.flatMap(text(jwk, "kid", `JWK ${key.type} Public Key ID`), (id) =>
      id === key.id ? Result.succeed(key) : fail(`JWK ${key.type} Public Key ID does not match: ${id}`))
    : Result.succeed(key)

/** Reads a JSON Web Key (RFC 7517) as libtrust does: `document` is the key's JSON. */
export const fromJwk = (document: GoJson.GoValue, hash: Hash): Result.Result<PublicKey, KeyFault> => Result.gen(function*() {
  if (document.kind !== "object" && document.kind !== "null") {
    return yield* fail(`decoding JWK Public Key JSON data: expected object, found ${document.kind}\n`)
  }
  const number = document.overflow()
  if (number !== undefined) return yield* fail(`decoding JWK Public Key JSON data: json: the number ${number} is too large\n`)
  const jwk = new Map(document.kind === "object" ? document.members() : [])
  const type = yield* text(jwk, "kty", "JWK Public Key type")
  if (type === "EC") {
    const curve = yield* text(jwk, "crv", "JWK EC Public Key curve identifier")
    if (!isCurve(curve)) return yield* fail(`JWK EC Public Key curve identifier not supported: ${GoText.quote(curve)}\n`)
    const { octets } = curves[curve]
    const coordinate = (name: "x" | "y") => Result.flatMap(bytes(jwk, name, `JWK EC Public Key ${name}-coordinate`), (value) =>
      value.length === octets ? Result.succeed(value)
        : fail(`JWK EC Public Key ${name}-coordinate: invalid number of octets: got ${value.length}, should be ${octets}`))
    return yield* withId(jwk, ec(curve, yield* coordinate("x"), yield* coordinate("y"), hash))
  }
  if (type === "RSA") {
    const modulus = yield* bytes(jwk, "n", "JWK RSA Public Key modulus")
    const exponent = yield* bytes(jwk, "e", "JWK RSA Public Key exponent")
    if (exponent.length > 4) return yield* fail(`JWK RSA Public Key exponent: ${exponent.length} bytes, at most 4 are possible`, true)
    const key = yield* withId(jwk, rsa(modulus, Number(integer(exponent)), hash))
    return jwk.has("d") ? yield* fail("JWK RSA Public Key cannot contain private exponent") : key
  }
  return yield* fail(`JWK Public Key type not supported: ${GoText.quote(type)}\n`)
})
