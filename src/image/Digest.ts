import { Schema } from "effect"

/** A blob's address: `sha256:` and 64 or `sha512:` and 128 lowercase hex digits (image-spec, descriptor.md#digests). */
export const Digest = Schema.String.check(
  Schema.isPattern(/^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/, {
    message: "expected sha256: and 64 or sha512: and 128 lower-case hex digits"
  })
).pipe(Schema.brand("Digest"))

/** A string that has been checked to be a digest: the only thing paths and URLs are built from. */
export type Digest = typeof Digest.Type

/** Whether `text` is a digest. */
export const is = Schema.is(Digest)

/** Its algorithm, as node:crypto names it too, and its hex digits: both safe as file names. */
export const parts = (digest: Digest): { readonly algorithm: "sha256" | "sha512"; readonly hex: string } =>
  ({ algorithm: digest.startsWith("sha256") ? "sha256" : "sha512", hex: digest.slice(7) })

/** The first 12 hex digits: what people see in tables and progress lines. */
export const short = (digest: Digest): string => digest.slice(7, 19)
