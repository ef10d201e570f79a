import { Effect, Option, Schema } from "effect"
import { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { Digest } from "./image/Digest.ts"
import type * as Manifest from "./image/Manifest.ts"
import * as Origin from "./Origin.ts"
import { BlobStore } from "./store/BlobStore.ts"

/** An entry of an index, and why it was not chosen. */
export const PlannedCandidate = Schema.Struct({ digest: Digest, platform: Schema.String, lost: Schema.optionalKey(Schema.String) })

/** A blob of an artifact: what the store has of it, how many bytes those are, and whether it is verified and there. */
export class PlannedBlob extends Schema.Class<PlannedBlob>("PlannedBlob")({
  blob: Descriptor, state: Schema.Literals(["stored", "partial", "missing"]), have: Schema.Natural, stored: Schema.Boolean
}) {}

/** What the plan of one image or artifact says of what was chosen, and why. */
export const chosen = {
  repository: Schema.Struct({
    domain: Schema.String, path: Schema.String, pinned: Schema.optionalKey(Schema.Boolean),
    foreign: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
  }),
  ...Origin.fields,
  /** What the reference points at: an index or a manifest. */
  target: Descriptor,
  /** The platform that was asked for, or the host's; and the image's own, or what an index's entry says an artifact is for (`unknown/unknown` where nobody says). */
  wanted: Schema.String,
  platform: Schema.String,
  /** Whether it runs on the platform that was wanted. It need not where nobody asked and there is no other. */
  fits: Schema.Boolean,
  candidates: Schema.Array(PlannedCandidate),
  manifest: Descriptor
}

/**
 * What a pull of an artifact will do, as plain data: of a manifest whose config is no image's or whose layers are no file
 * systems, as of charts, WebAssembly modules, signatures and attestations. It is stored whole and never unpacked.
 */
export class ArtifactPlan extends Schema.Class<ArtifactPlan>("ArtifactPlan")({
  kind: Schema.Literal("artifact"),
  ...chosen,
  /** What it is: `Manifest.artifactOf`. */
  type: Schema.String,
  /** The config first, then the layers in the manifest's order. */
  blobs: Schema.Array(PlannedBlob),
  /** Target, nested indexes, and last the manifest, byte for byte. */
  documents: Schema.Array(Schema.Struct({ descriptor: Descriptor, raw: Schema.Uint8Array }))
}) {}

/** What the store has of an artifact's blobs now. */
export const blobsOf = Effect.fnUntraced(function*({ config, layers }: Pick<Manifest.ImageManifest, "config" | "layers">) {
  const store = yield* BlobStore
  return yield* Effect.forEach([config, ...layers], Effect.fnUntraced(function*({ digest, mediaType, size }) {
    const blob = new Descriptor({ digest, mediaType, size })
    const there = Option.getOrUndefined(yield* store.find(digest))
    if (there !== undefined && there.size !== size) return yield* new VerifyError({ expected: blob, size: there.size })
    const have = there !== undefined ? size : Math.min(size, yield* store.partial(digest))
    return new PlannedBlob({ blob, state: there !== undefined ? "stored" : have > 0 ? "partial" : "missing", have, stored: there !== undefined })
  }))
})
