import { Result, Schema } from "effect"
import * as Base64 from "./Base64.ts"
import { elements, fields, GoDecode, type List } from "./go/GoDecode.ts"
import * as GoJson from "./go/GoJson.ts"
import * as GoText from "./go/GoText.ts"
import type { Hash } from "./LegacyDigest.ts"
import * as PublicKey from "./PublicKey.ts"

/** One signature as the envelope gives it; nothing of it is verified yet. */
export interface Signature {
  /** The protected header as written: part of what is signed. */
  readonly protected: string
  /** In base64url. */
  readonly signature: string
  /** A JOSE name such as ES256. */
  readonly algorithm: string
  /** The key given beside it, if any. */
  readonly key: PublicKey.PublicKey | undefined
  /** X.509 certificates in base64 (RFC 7515, section 4.1.6): the first one's key signed. */
  readonly chain: ReadonlyArray<string>
}

/** What a signed document carries: the exact bytes that were signed, and by whom it is said. */
export interface Envelope {
  readonly payload: Uint8Array
  readonly signatures: ReadonlyArray<Signature>
}

/**
 * A document's signature block is missing or broken; `reason` in libtrust's words. `kind` is `missing` without a block, and
 * `crash` where Docker 1.9 would have ended instead of giving an error: then its bytes are not used in any way.
 */
export class InvalidEnvelope extends Schema.TaggedError<InvalidEnvelope>()("InvalidEnvelope", {
  kind: Schema.Literals(["missing", "broken", "crash"]),
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

const broken = (reason: string) => Result.fail(new InvalidEnvelope({ kind: "broken", reason }))
const crash = (reason: string) => Result.fail(new InvalidEnvelope({ kind: "crash", reason }))

/** A signature while it is read. */
class Block {
  jwk: GoJson.GoValue | undefined
  algorithm = ""
  chain: List<string> | undefined
  signature = ""
  protected = ""
}
const header = fields<Block>([
  ["jwk", (block, value) => { block.jwk = value }],
  ["alg", (block, value, field, decode) => { block.algorithm = decode.string(value, field, block.algorithm) }],
  ["x5c", (block, value, field, decode) => { block.chain = decode.strings(value, field, block.chain) }]
])
const block = fields<Block>([
  ["header", (block, value, field, decode) => { decode.struct(value, field, header, block) }],
  ["signature", (block, value, field, decode) => { block.signature = decode.string(value, field, block.signature) }],
  ["protected", (block, value, field, decode) => { block.protected = decode.string(value, field, block.protected) }]
])

const blocks = (document: GoJson.GoValue): Result.Result<ReadonlyArray<Block>, InvalidEnvelope> => {
  if (document.kind !== "object" && document.kind !== "null") return broken(`error unmarshalling content: expected object, found ${document.kind}`)
  // A key in another case is not this one; of several the last counts.
  const last = new Map(document.kind === "object" ? document.members() : []).get("signatures")
  if (last === undefined) return Result.fail(new InvalidEnvelope({ kind: "missing", reason: "missing signature key" }))
  const decode = new GoDecode()
  const list = decode.list<Block>(last, "signatures", undefined, (item, field) => decode.struct(item, field, block, new Block()))
  return decode.mismatch === undefined ? Result.succeed(elements(list))
    : broken(`error unmarshalling signatures: ${decode.mismatch.field}: ${decode.mismatch.reason}`)
}

const base64 = (text: string, subject: string) =>
  Result.mapError(Base64.decodeJose(text), (reason) => new InvalidEnvelope({ kind: "broken", reason: `${subject}: ${reason}` }))

/** How many of the document's bytes, and what after them, are the payload: as Go makes an integer of a float. */
const format = (encoded: string): Result.Result<{ readonly length: number; readonly tail: Uint8Array }, InvalidEnvelope> => Result.gen(function*() {
  const bytes = yield* base64(encoded, "base64 decode error")
  const document = yield* Result.mapError(GoJson.parse(GoText.decode(bytes)), ({ reason }) =>
    new InvalidEnvelope({ kind: "broken", reason: `error unmarshalling protected header: ${reason}` }))
  const overflow = document.overflow()
  if (document.kind !== "object" && document.kind !== "null" || overflow !== undefined) {
    return yield* broken(`error unmarshalling protected header: ${overflow === undefined ? `expected object, found ${document.kind}` : `json: the number ${overflow} is too large`}`)
  }
  const members = new Map(document.kind === "object" ? document.members() : [])
  const length = members.get("formatLength"), tail = members.get("formatTail")
  if (length?.kind !== "number") return yield* broken("missing formatted length")
  if (tail?.kind !== "string") return yield* broken("missing formatted tail")
  const tailBytes = yield* base64(tail.string, "base64 decode error on tail")
  const number = Math.trunc(Number(length.source))
  return { length: Math.abs(number) < 2 ** 63 ? number + 0 : -(2 ** 63), tail: tailBytes }
})

const equal = (one: Uint8Array, other: Uint8Array) => one.length === other.length && one.every((byte, at) => byte === other[at])

/**
 * Takes a signed JSON document apart (libtrust: ParsePrettySignature): the payload is its first `formatLength` bytes and
 * the `formatTail`, which the protected headers of all signatures must agree on. `raw` is the document without white space
 * around it, `document` its parsed form. An empty list of signatures gives an empty payload.
 */
export const open = (raw: Uint8Array, document: GoJson.GoValue, hash: Hash): Result.Result<Envelope, InvalidEnvelope> => Result.gen(function*() {
  let length = 0, tail = new Uint8Array()
  const signatures: Array<Signature> = []
  for (const { jwk, algorithm, chain, signature, protected: encoded } of yield* blocks(document)) {
    const said = yield* format(encoded)
    if (length !== 0 && said.length !== length) return yield* broken("conflicting format length")
    if (tail.length > 0 && !equal(said.tail, tail)) return yield* broken("conflicting format tail")
    length = said.length
    tail = Uint8Array.from(said.tail)
    const key = jwk && (yield* Result.mapError(PublicKey.fromJwk(jwk, hash), ({ reason, crash }) =>
      new InvalidEnvelope({ kind: crash ? "crash" : "broken", reason: `error unmarshalling public key: ${reason}` })))
    signatures.push({ protected: encoded, signature, algorithm, key, chain: elements(chain) })
  }
  if (length > raw.length) return yield* broken("invalid format length")
  if (length < 0) return yield* crash(`invalid format length ${length}`)
  const payload = new Uint8Array(length + tail.length)
  payload.set(raw.subarray(0, length))
  payload.set(tail, length)
  return { payload, signatures }
})
