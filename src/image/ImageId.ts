import { Schema } from "effect"

/** An image's ID in the graph: 64 lower-case hex digits. A strong ID for signed schema1, the given ID for a v1 registry. */
export const ImageId = Schema.String.check(
  Schema.isPattern(/^[a-f0-9]{64}$/, { message: "expected 64 lower-case hex digits" })
).pipe(Schema.brand("ImageId"))

/** A string that has been checked to be an image's ID. */
export type ImageId = typeof ImageId.Type

/** Whether `text` is an image's ID. */
export const is = Schema.is(ImageId)

/** The first 12 digits: what people see in tables and progress lines (stringid.TruncateID). */
export const short = (id: ImageId): string => id.slice(0, 12)
