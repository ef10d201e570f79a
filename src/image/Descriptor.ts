import { Schema } from "effect"
import { Digest } from "./Digest.ts"

/** What a blob is, its address, and its length in bytes (0 to 2^53-1; image-spec, descriptor.md#properties). */
export class Descriptor extends Schema.Class<Descriptor>("image/Descriptor")({
  mediaType: Schema.String,
  digest: Digest,
  size: Schema.Natural
}) {}

/** `size` bytes came (digest `actual`, if so many were hashed) and are not the expected blob. They are discarded; fetching again may help. */
export class VerifyError extends Schema.TaggedError<VerifyError>()("VerifyError", {
  expected: Descriptor,
  size: Schema.Natural,
  actual: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const { digest, size } = this.expected
    return this.size === size
      ? `the bytes received for ${digest} have the digest ${this.actual ?? "of something else"}: the registry, or something between, sent a damaged or different blob; nothing of it was kept`
      : `expected ${size} bytes for ${digest}, received ${this.size}${this.size > size ? " or more" : ""}: nothing of it was kept`
  }
}
