import { Schema } from "effect"
import { Digest } from "../image/Digest.ts"

const reference = { reference: Schema.String }
const layer = { ...reference, layer: Digest }
const progress = { ...layer, bytes: Schema.Natural, total: Schema.Natural }

/** What a planned layer is to this pull: unpacked in the store, its blob there, a part of its blob there, or to be fetched. */
export const LayerState = Schema.Literals(["unpacked", "stored", "partial", "missing"])

/** The registry answered: what the reference points at, and who said so. */
export const Resolved = Schema.TaggedStruct("resolved", { ...reference, digest: Digest, mediaType: Schema.String, endpoint: Schema.String })
/** The image's layers, bottom first, and how many bytes of the `total` are to be fetched. */
export const Planned = Schema.TaggedStruct("planned", {
  ...reference, manifest: Digest, platform: Schema.String, total: Schema.Natural, missing: Schema.Natural,
  layers: Schema.Array(Schema.Struct({ layer: Digest, size: Schema.Natural, state: LayerState }))
})
/** A layer waits for its turn. */
export const Waiting = Schema.TaggedStruct("waiting", layer)
/** `bytes` of the layer's `total` have come. */
export const Downloading = Schema.TaggedStruct("downloading", progress)
/** A request failed and will be made again after `delay` milliseconds. */
export const Retrying = Schema.TaggedStruct("retrying", { ...layer, cause: Schema.String, delay: Schema.Finite })
/** A download went on at byte `offset`. */
export const Resumed = Schema.TaggedStruct("resumed", { ...layer, offset: Schema.Natural })
/** The layer's bytes have its digest and size, and are in the store. */
export const Verified = Schema.TaggedStruct("verified", layer)
/** `bytes` of the compressed layer's `total` are unpacked. */
export const Extracting = Schema.TaggedStruct("extracting", progress)
/** The layer is complete. */
export const Committed = Schema.TaggedStruct("committed", layer)
/** The layer was already complete. */
export const Exists = Schema.TaggedStruct("exists", layer)
/** The reference now points at `digest` in the store. */
export const Tagged = Schema.TaggedStruct("tagged", { ...reference, digest: Digest })
/** Something the reader should know, though the pull goes on. */
export const Warning = Schema.TaggedStruct("warning", { ...reference, message: Schema.String })
/** The pull is complete; `changed` is false when everything was there. */
export const Done = Schema.TaggedStruct("done", { ...reference, digest: Digest, image: Schema.String, changed: Schema.Boolean })

/** One thing that happened in a pull. Every event names its reference; those of a layer name the blob's digest. */
export const PullEvent = Schema.Union([
  Resolved, Planned, Waiting, Downloading, Retrying, Resumed, Verified, Extracting, Committed, Exists, Tagged, Warning, Done
])
export type PullEvent = typeof PullEvent.Type

/** The version of the events' form, written with each event by the `events` renderer. */
export const version = 1

/** What happened to one layer, before a pull put its reference to it. */
export type LayerEvent = WithoutReference<Extract<PullEvent, { readonly layer: Digest }>>
type WithoutReference<E> = E extends unknown ? Omit<E, "reference"> : never

/** Events of the same key replace each other in a history: only the newest progress of a layer is kept. */
export const keyOf = (event: { readonly _tag: string; readonly layer?: Digest }): string | undefined =>
  event._tag === "downloading" || event._tag === "extracting" ? `${event._tag} ${event.layer ?? ""}` : undefined
