import { Schema } from "effect"
import * as Digest from "../image/Digest.ts"
import * as ImageId from "../image/ImageId.ts"

/** What a layer goes by: its blob's digest, or in a pull from a v1 registry, where no digest is known before the end, its image's ID. */
export const LayerKey = Schema.Union([Digest.Digest, ImageId.ImageId])
export type LayerKey = typeof LayerKey.Type

/** The first 12 hex digits of a layer's key: what people see in progress lines. */
export const short = (key: LayerKey): string => Digest.is(key) ? Digest.short(key) : ImageId.short(key)

const reference = { reference: Schema.String }
const layer = { ...reference, layer: LayerKey }
const progress = { ...layer, bytes: Schema.Natural, total: Schema.optionalKey(Schema.Natural) }

/** What a planned layer is to this pull: unpacked in the store, its blob there, a part of its blob there, or to be fetched. */
export const LayerState = Schema.Literals(["unpacked", "stored", "partial", "missing"])

/**
 * A layer of a plan. `size` is of its blob, unless nobody knows it yet. `image` is the image that it makes, where each layer
 * makes one (schema1, v1), and whether that is in the graph already; one blob can be the layer of several images.
 */
export const PlannedLayer = Schema.Struct({
  layer: LayerKey, size: Schema.optionalKey(Schema.Natural), state: LayerState,
  image: Schema.optionalKey(Schema.Struct({ id: ImageId.ImageId, known: Schema.Boolean }))
})

/**
 * A repository is asked for images: a v1 registry always, for one tag or all; others when all its tags are pulled, which are
 * `tags` then. `reference` is what was asked for, without a tag if that was all. Each tag then has its events under its own
 * reference (`reference:tag`), `done` included, and `done` of `reference` is the last. `name` is the canonical name.
 */
export const Repository = Schema.TaggedStruct("repository", {
  ...reference, name: Schema.String, protocol: Schema.Literals(["v1", "v2"]), tags: Schema.optionalKey(Schema.Array(Schema.String))
})
/** The registry answered: what the reference points at, and who said so. */
export const Resolved = Schema.TaggedStruct("resolved", { ...reference, digest: Digest.Digest, mediaType: Schema.String, endpoint: Schema.String })
/** The manifest's signatures are good, made by the keys with these IDs (libtrust's form: groups of four letters and digits). */
export const Signed = Schema.TaggedStruct("verified", { ...reference, by: Schema.Array(Schema.String) })
/**
 * The image that a v1 repository's tag names: about to be fetched; being fetched `from` a mirror or an endpoint; not fetched
 * from there, or, without `from`, from anywhere (`cause` says why); or complete with all its layers.
 */
export const Image = Schema.TaggedStruct("image", {
  ...reference, image: ImageId.ImageId, tag: Schema.String, repository: Schema.String, state: Schema.Literals(["pulling", "failed", "complete"]),
  from: Schema.optionalKey(Schema.Struct({ kind: Schema.Literals(["mirror", "endpoint"]), url: Schema.String })),
  cause: Schema.optionalKey(Schema.String)
})
/** The image's layers, bottom first, and how many bytes of the `total` are to be fetched, as far as their sizes are known. */
export const Planned = Schema.TaggedStruct("planned", {
  ...reference, manifest: Schema.optionalKey(Digest.Digest), platform: Schema.optionalKey(Schema.String),
  total: Schema.Natural, missing: Schema.Natural, layers: Schema.Array(PlannedLayer)
})
/**
 * What a v1 pull does for a layer, and its how-manieth try (1 is the first): asks for the images it stands on, for its JSON,
 * or for its bytes. With a `cause` that failed for good; `unpack` is only told of then: the bytes came, and are no layer.
 */
export const Step = Schema.TaggedStruct("step", {
  ...layer, doing: Schema.Literals(["ancestry", "metadata", "request", "unpack"]), attempt: Schema.Natural, cause: Schema.optionalKey(Schema.String)
})
/** A layer waits for its turn. */
export const Waiting = Schema.TaggedStruct("waiting", layer)
/** `bytes` of the layer's `total`, if that is known, have come. */
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
/** The reference now points at `digest` in the store (at `image` where there is no manifest), and not at another image any more if it `moved`. */
export const Tagged = Schema.TaggedStruct("tagged", {
  ...reference, digest: Schema.optionalKey(Digest.Digest), image: Schema.optionalKey(Schema.String), moved: Schema.optionalKey(Schema.Boolean)
})
/** Something the reader should know, though the pull goes on. */
export const Warning = Schema.TaggedStruct("warning", { ...reference, message: Schema.String })
/** The pull is complete; `changed` is false when everything was there. A repository with all its tags has neither digest nor image. */
export const Done = Schema.TaggedStruct("done", {
  ...reference, digest: Schema.optionalKey(Digest.Digest), image: Schema.optionalKey(Schema.String), changed: Schema.Boolean
})
/** The pull failed; `code` is the HTTP status that it failed with, if it was one. Commands tell this; a library's caller gets the error itself. */
export const Failed = Schema.TaggedStruct("failed", { ...reference, message: Schema.String, code: Schema.optionalKey(Schema.Natural) })

/** One thing that happened in a pull. Every event names its reference; those of a layer name the layer. */
export const PullEvent = Schema.Union([
  Repository, Resolved, Signed, Image, Planned, Step, Waiting, Downloading, Retrying, Resumed, Verified, Extracting, Committed, Exists, Tagged,
  Warning, Done, Failed
])
export type PullEvent = typeof PullEvent.Type

/** The version of the events' form, written with each event by the `events` renderer. */
export const version = 1

/** What happened to one layer, before a pull put its reference to it. */
export type LayerEvent = WithoutReference<Extract<PullEvent, { readonly layer: LayerKey }>>
type WithoutReference<E> = E extends unknown ? Omit<E, "reference"> : never

/** Events of the same key replace each other in a history: only the newest progress of a layer is kept. */
export const keyOf = (event: { readonly _tag: string; readonly reference?: string; readonly layer?: LayerKey }): string | undefined =>
  event._tag === "downloading" || event._tag === "extracting" ? `${event._tag} ${event.reference ?? ""} ${event.layer ?? ""}` : undefined
