import { Effect, Option, Schema } from "effect"
import { createHash } from "node:crypto"
import { join, resolve } from "node:path"
import { Descriptor } from "./image/Descriptor.ts"
import { Digest, parts } from "./image/Digest.ts"
import * as MediaType from "./image/MediaType.ts"
import type { PulledImage } from "./Pull.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Files from "./store/Files.ts"

/** The layout's marker (image-spec, image-layout.md#oci-layout-file). */
const marker = `{"imageLayoutVersion":"1.0.0"}`

/** `path` holds something that is not an OCI image layout. */
export class NotALayout extends Schema.TaggedError<NotALayout>()("NotALayout", { path: Schema.String }) {
  override get message() {
    return `${this.path} holds something that is not an OCI image layout: name a folder that does not exist yet, an empty one, or a layout`
  }
}

const Index = Schema.Struct({ manifests: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)) })
const decodeIndex = Schema.decodeUnknownOption(Schema.fromJsonString(Index))

/** A schema2 manifest in OCI's words: the same config and layers, other media types. The bytes depend on nothing else. */
const asOci = ({ config, layers }: PulledImage): { readonly manifest: Descriptor; readonly raw: Buffer } => {
  const raw = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: MediaType.ociManifest,
    config: { mediaType: MediaType.ociConfig, digest: config.descriptor.digest, size: config.descriptor.size },
    layers: layers.map(({ blob: { digest, mediaType, size } }) => ({ mediaType: MediaType.asOci(mediaType), digest, size }))
  }))
  const digest = Schema.decodeSync(Digest)(`sha256:${createHash("sha256").update(raw).digest("hex")}`)
  return { manifest: new Descriptor({ mediaType: MediaType.ociManifest, digest, size: raw.byteLength }), raw }
}

const blobPath = (root: string, digest: Digest): string => {
  const { algorithm, hex } = parts(digest)
  return join(root, "blobs", algorithm, hex)
}

/**
 * Writes `image` as an OCI image layout (image-spec, image-layout.md) to the folder `path`, or adds it to the layout there,
 * under the reference name `name`. Layers keep their compressed form; a schema2 manifest is written in OCI's media types.
 * Blobs come first, each by a rename, and index.json last.
 */
export const write = Effect.fn("OciLayout.write")(function*(image: PulledImage, path: string, name: string) {
  const blobs = yield* BlobStore
  const root = resolve(path)
  const there = yield* Files.text(join(root, "index.json"))
  const old = there === undefined ? Option.some({ manifests: [] }) : decodeIndex(there)
  if (Option.isNone(old) || (there === undefined && (yield* Files.obstacle(root)) !== undefined)) {
    return yield* new NotALayout({ path: root })
  }

  const { manifest, raw } = image.manifest.mediaType === MediaType.ociManifest
    ? { manifest: image.manifest, raw: yield* blobs.read(image.manifest.digest, image.manifest.size) }
    : asOci(image)
  yield* Effect.forEach(
    new Set([image.config.descriptor.digest, ...image.layers.map(({ blob }) => blob.digest)]),
    (digest) => Effect.scoped(Effect.flatMap(blobs.open(digest), ({ path: from }) => Files.copy(from, blobPath(root, digest)))),
    { concurrency: 4, discard: true }
  )
  yield* Files.place(blobPath(root, manifest.digest), raw)
  yield* Files.place(join(root, "oci-layout"), Buffer.from(marker))
  const kept = old.value.manifests.filter(({ annotations }) => nameOf(annotations) !== name)
  const entry = { ...manifest, annotations: { "org.opencontainers.image.ref.name": name } }
  yield* Files.place(join(root, "index.json"), Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: [...kept, entry] })))
  return manifest
})

const nameOf = (annotations: unknown): unknown =>
  typeof annotations === "object" && annotations !== null ? Object.entries(annotations).find(([key]) => key === "org.opencontainers.image.ref.name")?.[1] : undefined
