import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import * as Base64 from "../../../src/image/v1/Base64.ts"
import * as SignedManifest from "../../../src/image/v1/SignedManifest.ts"
import * as Jws from "../../../src/registry/Jws.ts"

const payload = (name = "library/x") => JSON.stringify({
  schemaVersion: 1, name, tag: "latest", architecture: "amd64",
  fsLayers: [{ blobSum: `sha256:${"a3".repeat(32)}` }], history: [{ v1Compatibility: JSON.stringify({ id: "ab".repeat(32) }) }]
}, null, 3)
const digest = (bytes: string | Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`
const base64 = (bytes: string | Uint8Array) => Buffer.from(bytes).toString("base64url")

/** What a signer may write otherwise. */
interface Forgery {
  readonly format?: string
  readonly header?: object
  readonly outer?: string
  readonly signature?: string
}

/** A manifest signed by the book: payload without its tail, the signatures, the tail. */
const block = (text: string, key: KeyObject, jwk: object, alg: string, { format, header, signature }: Forgery = {}) => {
  const length = Buffer.byteLength(text.trimEnd()) - 2
  const written = base64(format ?? JSON.stringify({ formatLength: length, formatTail: base64("\n}"), time: "2015-11-20T12:00:00Z" }))
  const made = sign(alg.replace(/^..(?=...$)/, "sha"), Buffer.from(`${written}.${base64(text)}`), { key, dsaEncoding: "ieee-p1363" })
  return { header: { jwk, alg, ...header }, signature: signature ?? base64(made), protected: written }
}
const assemble = (text: string, blocks: ReadonlyArray<object>) => `${text.slice(0, -2)},\n   "signatures": ${JSON.stringify(blocks)}\n}`

const keys = {
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }), ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  ES512: generateKeyPairSync("ec", { namedCurve: "P-521" }), RS256: generateKeyPairSync("rsa", { modulusLength: 2048 })
}
type Algorithm = keyof typeof keys
const Algorithm = Schema.Literals(["ES256", "ES384", "ES512", "RS256"])
const jwk = (algorithm: Algorithm) => keys[algorithm].publicKey.export({ format: "jwk" })
const blockBy = (text: string, algorithm: Algorithm, forgery?: Forgery) => block(text, keys[algorithm].privateKey, jwk(algorithm), algorithm, forgery)
const signedBy = (text: string, algorithms: ReadonlyArray<Algorithm>, forgery: Forgery = {}) =>
  assemble(forgery.outer ?? text, algorithms.map((algorithm) => blockBy(text, algorithm, forgery)))

/** libtrust's key ID, from node's own export of the key. */
const keyId = (algorithm: Algorithm) => {
  const spki = keys[algorithm].publicKey.export({ type: "spki", format: "der" })
  return (Base64.encode32(createHash("sha256").update(spki).digest().subarray(0, 30)).match(/.{4}/g) ?? []).join(":")
}

const decode = (text: string) => SignedManifest.decode(new TextEncoder().encode(text), Jws.hash)
const read = (text: string) => Result.getOrThrow(decode(text))
const verify = (text: string) => Result.flatMap(read(text).envelope, Jws.verify)
const reason = (result: Result.Result<unknown, { readonly message: string }>) => Result.match(result, { onFailure: ({ message }) => message, onSuccess: () => "ok" })

describe("SignedManifest", () => {
  it.prop("finds what was signed, and who signed it", [Schema.String, Schema.Array(Algorithm).check(Schema.isMinLength(1), Schema.isMaxLength(4))], ([name, by]) => {
    const inner = payload(name.toWellFormed()), text = ` \n${signedBy(inner, by)}\r\n`, manifest = read(text)
    assert.strictEqual(Buffer.from(Result.getOrThrow(manifest.envelope).payload).toString(), inner)
    assert.deepStrictEqual(Result.getOrThrow(verify(text)), by.map(keyId))
    assert.strictEqual(Result.getOrThrow(SignedManifest.digest(manifest, Jws.hash)), digest(inner))
    assert.strictEqual(Result.getOrThrow(SignedManifest.verify(manifest, digest(inner), Jws.hash)).name, name.toWellFormed())
    assert.strictEqual(Result.getOrThrow(SignedManifest.signed(manifest)).name, name.toWellFormed())
  }, { arbitrary: { runs: 40 } })

  it.prop("refuses every change of a signed byte", [Schema.Natural, Schema.Literals(["0", "a", " ", "\"", "}"]), Algorithm], ([n, char, algorithm]) => {
    const inner = payload(), text = signedBy(inner, [algorithm]), at = n % (inner.length - 2)
    const changed = text.slice(0, at) + char + text.slice(at + 1)
    const manifest = decode(changed)
    if (changed === text || Result.isFailure(manifest)) return
    assert.notStrictEqual(reason(Result.flatMap(manifest.success.envelope, Jws.verify)), "ok")
    assert.include(reason(SignedManifest.verify(manifest.success, digest(inner), Jws.hash)), "image verification failed for digest")
  }, { arbitrary: { runs: 200 } })

  it("refuses a signature by another key, of another payload, or with another algorithm", () => {
    const text = payload()
    assert.strictEqual(reason(verify(signedBy(text, ["ES256"], { signature: base64(new Uint8Array(64)) }))), "invalid signature")
    assert.strictEqual(reason(verify(signedBy(text, ["ES256"], { signature: "" }))), "signature length is 0 octets long, should be 64")
    assert.strictEqual(reason(verify(signedBy(text, ["RS256"], { signature: "AAAA" }))), "invalid RS256 signature: crypto/rsa: verification error")
    assert.include(reason(verify(signedBy(text, ["RS256"], { header: { alg: "none" } }))), `"none" not supported`)
    assert.include(reason(verify(signedBy(text, ["ES384"], { header: { alg: "ES256" } }))), `does not support signature algorithm "ES256"`)
    assert.strictEqual(reason(verify(signedBy(text, ["ES384"], { header: { jwk: jwk("ES256"), alg: "ES256" } }))), "signature length is 96 octets long, should be 64")
    assert.strictEqual(reason(verify(signedBy(text, ["ES256"], { header: { jwk: undefined } }))), "missing public key")
    assert.include(reason(verify(signedBy(text, ["ES256"], { header: { jwk: { ...jwk("ES256"), kid: "AAAA" } } }))), "Key ID does not match: AAAA")
  })

  it("sees that the document says something else than its signed payload", () => {
    const outer = payload("library/evil"), inner = payload("library/good")
    const text = `${inner.slice(0, -2)},\n   "signatures": ${JSON.stringify([blockBy(inner, "ES256")])},\n   "name": "library/evil"\n}`
    assert.strictEqual(Result.getOrThrow(SignedManifest.verify(read(text), "latest", Jws.hash)).name, "library/evil")
    assert.match(reason(SignedManifest.signed(read(text))), /^name: the document says something else/)
    assert.strictEqual(reason(verify(text)), "ok")
    assert.strictEqual(reason(verify(signedBy(inner, ["ES256"], { outer }))), "invalid signature")
  })

  it("falls back to the whole document as Docker did, but never where it crashed", () => {
    const text = payload(), unsigned = read(text)
    assert.strictEqual(reason(unsigned.envelope), "missing signature key")
    assert.strictEqual(Result.getOrThrow(SignedManifest.digest(unsigned, Jws.hash)), digest(text))
    const negative = signedBy(text, ["ES256"], { format: JSON.stringify({ formatLength: -1, formatTail: "Cn0" }) })
    assert.strictEqual(reason(SignedManifest.verify(read(negative), digest(negative), Jws.hash)), "invalid format length -1")
    assert.strictEqual(reason(SignedManifest.verify(read(negative), "latest", Jws.hash)), "ok")
  })

  it("gives plain errors for lengths, tails, exponents and base64 out of all measure", () => {
    const format = (length: string, tail = "\"Cn0\"") => reason(verify(signedBy(payload(), ["ES256"], { format: `{"formatLength":${length},"formatTail":${tail}}` })))
    assert.strictEqual(format("1e300"), "invalid format length -9223372036854776000")
    assert.include(format("1e400"), "too large")
    assert.strictEqual(format("99999999999"), "invalid format length")
    assert.strictEqual(format("-5"), "invalid format length -5")
    assert.strictEqual(format("\"5\""), "missing formatted length")
    assert.strictEqual(format("5", "5"), "missing formatted tail")
    assert.include(format("5", "\"!\""), "base64 decode error on tail")
    const key = (change: object) => reason(verify(signedBy(payload(), ["RS256"], { header: { jwk: { ...jwk("RS256"), ...change } } })))
    assert.include(key({ e: base64(new Uint8Array(1e6).fill(255)) }), "exponent")
    assert.include(key({ n: base64(new Uint8Array(1e6).fill(255)) }), "verification error")
    assert.include(key({ e: "AQ" }), "verification error")
    assert.include(key({ e: "" }), "verification error")
    assert.include(key({ n: "" }), "verification error")
    assert.include(key({ d: "AQAB" }), "cannot contain private exponent")
    assert.include(key({ kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) }), "does not support")
    const off = { header: { jwk: { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) } } }
    assert.strictEqual(reason(verify(signedBy(payload(), ["ES256"], off))), "invalid signature")
    assert.include(reason(verify(assemble(payload(), Array.from({ length: 65 }, () => blockBy(payload(), "ES256"))))), "at most 64")
    assert.include(reason(verify(signedBy(payload(), ["ES256"], { header: { x5c: ["AAAA"] } }))), "x509")
    for (const bad of [`${payload()}x`, "[".repeat(2e5), "\"x\"", "", "\ufeff{}"]) assert.isTrue(Result.isFailure(decode(bad)))
  })

  it("reads a trusted key from PEM or JSON", () => {
    for (const algorithm of ["ES256", "ES384", "ES512", "RS256"] as const) {
      assert.strictEqual(Result.getOrThrow(Jws.trustKeyId(String(keys[algorithm].publicKey.export({ type: "spki", format: "pem" })))), keyId(algorithm))
      assert.strictEqual(Result.getOrThrow(Jws.trustKeyId(JSON.stringify(jwk(algorithm)))), keyId(algorithm))
    }
    const { publicKey } = generateKeyPairSync("ed25519")
    for (const text of ["", "{}", "-----BEGIN PUBLIC KEY-----", String(publicKey.export({ type: "spki", format: "pem" }))]) {
      assert.match(reason(Jws.trustKeyId(text)), /^not a key to trust: /)
    }
  })
})

describe("Base64", () => {
  it.prop("is Buffer's", [Schema.Uint8Array], ([bytes]) => {
    const buffer = Buffer.from(bytes)
    assert.strictEqual(Base64.encodeJose(bytes), buffer.toString("base64url"))
    assert.deepStrictEqual(Buffer.from(Result.getOrThrow(Base64.decodeJose(buffer.toString("base64url")))), buffer)
    assert.deepStrictEqual(Buffer.from(Base64.decode(buffer.toString("base64").replace(/.{5}/g, "$&\r\n"), "standard") ?? []), buffer)
  })

  it("refuses what is none", () => {
    for (const bad of ["A", "A===", "AA=A", "====", "AA=", "AAA", "A A=", "Aé==", "AA==AAAA"]) assert.isUndefined(Base64.decode(bad, "standard"), bad)
    assert.deepStrictEqual(Base64.decodeJose("+/+/"), Result.fail("illegal base64 data"))
    assert.deepStrictEqual(Base64.decodeJose("AAAAA"), Result.fail("illegal base64url string"))
  })
})
