import { Result, Schema } from "effect"

/** Hashes bytes: lower-case hexadecimal digits. The caller brings it, so that this folder stays portable. */
export type Hash = (algorithm: "sha256" | "sha384" | "sha512", bytes: Uint8Array) => string

/** A text Docker 1.9 took for a digest. It is wider than `Digest` and never becomes a path or an address. */
export const LegacyDigest = Schema.String.check(Schema.makeFilter((text) => fault(text) ?? true)).pipe(Schema.brand("LegacyDigest"))

/** A text that `parse` or the schema has checked. */
export type LegacyDigest = typeof LegacyDigest.Type

/** `text` is no digest to Docker 1.9; `reason` in its words. */
export class InvalidLegacyDigest extends Schema.TaggedError<InvalidLegacyDigest>()("InvalidLegacyDigest", { text: Schema.String, reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

/** Whether `tarsum`, any character and lower-case letters or digits (or none of these), `+`, letters or digits, `:` and a hex digit are anywhere in it. */
const holdsTarsum = (text: string): boolean => {
  const after = /\+[a-zA-Z0-9]+:[A-Fa-f0-9]/y
  for (let plus = text.indexOf("+"); plus >= 0; plus = text.indexOf("+", plus + 1)) {
    after.lastIndex = plus
    if (!after.test(text)) continue
    // What stands before: the run of letters and digits that ends here, and what can precede it. Runs do not overlap: linear.
    let run = plus
    while (run > 0 && /^[a-z0-9]$/.test(text[run - 1] ?? "")) run--
    const before = text.slice(Math.max(0, run - 8), plus)
    if (before.endsWith("tarsum")) return true
    if (/tarsum[^\n][a-z0-9]+$/u.test(before)) return true
  }
  return false
}

/** What Docker 1.9 says against a digest (distribution's `digest.Validate` of 2015); undefined if it takes it. */
export const fault = (text: string): string | undefined => {
  if (holdsTarsum(text)) return undefined
  if (!/^[a-zA-Z0-9\-_+.]+:[a-fA-F0-9]+$/.test(text)) return "invalid checksum digest format"
  return /^sha(?:256|384|512):/.test(text) ? undefined : "unsupported digest algorithm"
}

/** Whether `text` is a digest to Docker 1.9. */
export const is = Schema.is(LegacyDigest)

/** Takes what Docker 1.9 took: any hex length and case, and tarsums. */
export const parse = (text: string): Result.Result<LegacyDigest, InvalidLegacyDigest> =>
  is(text) ? Result.succeed(text) : Result.fail(new InvalidLegacyDigest({ text, reason: fault(text) ?? "" }))

/**
 * Whether `bytes` have this digest, textually: upper-case digits or another length never match, nor does a tarsum, which is
 * a sum over a tar archive's entries and says nothing about other bytes.
 */
export const verifies = (digest: LegacyDigest, bytes: Uint8Array, hash: Hash): boolean => {
  const algorithm = digest.slice(0, digest.indexOf(":"))
  return (algorithm === "sha256" || algorithm === "sha384" || algorithm === "sha512") && digest === `${algorithm}:${hash(algorithm, bytes)}`
}
