import { generateKeyPairSync, sign } from "node:crypto"
import { isIPv4 } from "node:net"

/** A key and its certificate, both PEM. */
export interface Certificate {
  readonly key: string
  readonly cert: string
}

/** Who a certificate is for, and until when. */
export interface CertificateOptions {
  /** DNS names and IPv4 addresses. Default: localhost and 127.0.0.1. */
  readonly names?: ReadonlyArray<string>
  /** The end of its life, `YYMMDDhhmmssZ` of this century (UTCTime, years up to 49). Default: 491231235959Z. */
  readonly notAfter?: string
}

/** DER: a tag, the length, the contents (X.690, 8.1). */
const der = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const contents = Buffer.concat(parts)
  const { length } = contents
  const head = length < 128 ? [tag, length] : length < 256 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Uint8Array.from(head), contents])
}

const sequence = (...parts: ReadonlyArray<Uint8Array>): Buffer => der(0x30, ...parts)
const hex = (tag: number, contents: string): Buffer => der(tag, Buffer.from(contents, "hex"))

const ecdsaWithSha256 = sequence(hex(0x06, "2a8648ce3d040302"))
const commonName = hex(0x06, "550403")
const subjectAltName = hex(0x06, "551d11")
const basicConstraints = hex(0x06, "551d13")
const yes = hex(0x01, "ff")

/** A self-signed certificate (ECDSA, P-256; RFC 5280) with a new key, made without any tool: a client that trusts it trusts its names. */
export const selfSigned = (options: CertificateOptions = {}): Certificate => {
  const { names = ["localhost", "127.0.0.1"], notAfter = "491231235959Z" } = options
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const name = sequence(der(0x31, sequence(commonName, der(0x0c, Buffer.from("towline test registry")))))
  const alternatives = names.map((one) => isIPv4(one)
    ? der(0x87, Uint8Array.from(one.split("."), Number))
    : der(0x82, Buffer.from(one, "latin1")))
  const body = sequence(
    der(0xa0, hex(0x02, "02")), // version 3
    der(0x02, Buffer.from("01", "hex"), publicKey.export({ type: "spki", format: "der" }).subarray(-15)), // serial: positive, its own
    ecdsaWithSha256,
    name,
    sequence(der(0x17, Buffer.from("200101000000Z")), der(0x17, Buffer.from(notAfter))),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(
      sequence(subjectAltName, der(0x04, sequence(...alternatives))),
      sequence(basicConstraints, yes, der(0x04, sequence(yes)))
    ))
  )
  const whole = sequence(body, ecdsaWithSha256, der(0x03, Uint8Array.of(0), sign("sha256", body, privateKey)))
  const lines = whole.toString("base64").replace(/.{1,64}/g, "$&\n")
  return {
    key: String(privateKey.export({ type: "pkcs8", format: "pem" })),
    cert: `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`
  }
}
