import { Effect, Option, Schema } from "effect"
import { join, resolve } from "node:path"
import { type Bundled, bundle, digestsOf } from "./Bundle.ts"
import { Durability } from "./Durability.ts"
import { type Digest, parts } from "./image/Digest.ts"
import * as MediaType from "./image/MediaType.ts"
import type { PulledImage } from "./Pull.ts"
import { Control } from "./layer/Control.ts"
import { perform } from "./Layers.ts"
import { BlobDamaged, BlobStore } from "./store/BlobStore.ts"
import { Leases } from "./store/Leases.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** The layout's marker (image-spec, image-layout.md#oci-layout-file). */
const marker = `{"imageLayoutVersion":"1.0.0"}`

/** What an entry's name is kept under (image-spec, annotations.md). */
const refName = "org.opencontainers.image.ref.name"

/** `path` holds something that is not an OCI image layout. */
export class NotALayout extends Schema.TaggedError<NotALayout>()("NotALayout", { path: Schema.String }) {
  override get message() {
    return `${this.path} holds something that is not an OCI image layout: name a folder that does not exist yet, an empty one, or a layout`
  }
}

const Fields = Schema.Record(Schema.String, Schema.Unknown)
const Index = Schema.StructWithRest(Schema.Struct({ manifests: Schema.Array(Fields) }), [Fields])
const decodeIndex = Schema.decodeUnknownOption(Schema.fromJsonString(Index))

/** The layout's index as it is now; undefined where there is none yet. */
const indexOf = Effect.fnUntraced(function*(root: string) {
  const text = yield* Files.text(join(root, "index.json"))
  if (text === undefined) return undefined
  const index = decodeIndex(text)
  return Option.isSome(index) ? index.value : yield* new NotALayout({ path: root })
})

/** Makes `root` a layout, or finds that it is one, complete or begun. The marker comes first, so that what was begun is known. */
const open = Effect.fnUntraced(function*(root: string) {
  const [file, name] = [join(root, "oci-layout"), "oci-layout"]
  const index = yield* indexOf(root)
  if ((yield* Files.text(file)) !== undefined) return
  // Another process may be placing the marker now: a name that begins as it does is no obstacle.
  if (index === undefined && (yield* Files.obstacle(root, name)) !== undefined) return yield* new NotALayout({ path: root })
  yield* Files.place(file, Buffer.from(marker))
})

const blobPath = (root: string, digest: Digest): string => {
  const { algorithm, hex } = parts(digest)
  return join(root, "blobs", algorithm, hex)
}

/** What was copied is the blob: one that was damaged in the store does not get further. */
const sound = (digest: Digest, size: number) => (fd: number) => perform<"hash">({ kind: "hash", fd, size, algorithm: parts(digest).algorithm }, digest, new Control()).pipe(
  Effect.catchTags({ LayerRefused: Effect.die, JobStopped: Effect.die }),
  Effect.flatMap(({ hex }) => hex === parts(digest).hex ? Effect.void : Effect.fail(new BlobDamaged({ digest }))))

/**
 * Writes an image or artifact as an OCI image layout (image-spec, image-layout.md) to the folder `path`, or adds it to the
 * layout there, under the reference name `name`, if it has one; one of an index that was stored whole with that index and all
 * its images. Layers keep their compressed form; a schema2 manifest is written in OCI's media types. Blobs come first, each hashed
 * once it is copied, each by a rename, and index.json last. Several may write to one layout at a time. Gives what the name points at.
 */
export const writeBundled = Effect.fn("OciLayout.write")(function*(item: Bundled, path: string, name?: string) {
  const blobs = yield* BlobStore
  const root = resolve(path)
  yield* (yield* Leases).hold(digestsOf(item))
  yield* open(root)
  const { indexes, others, own, top } = yield* bundle(item, false)
  const parts = [own, ...others]
  yield* Effect.forEach(
    new Set(parts.flatMap(({ config, layers }) => [config.digest, ...layers.map(({ digest }) => digest)])),
    (digest) => Effect.scoped(Effect.flatMap(blobs.open(digest), ({ path: from, size }) => Files.copy(from, blobPath(root, digest), sound(digest, size)))),
    { concurrency: 4, discard: true }
  )
  for (const { manifest, raw } of [...parts, ...indexes]) yield* Files.place(blobPath(root, manifest.digest), raw)
  if ((yield* Durability) === "safe") yield* (yield* LayerStore).sync(root)
  yield* add(root, { ...top, ...name === undefined ? {} : { annotations: { [refName]: name } } })
  return top
}, Effect.scoped)

/** A pulled image as it is written out. */
export const bundled = ({ artifact, config, layers, manifest, whole }: Pick<PulledImage, "manifest" | "config" | "layers" | "artifact" | "whole">): Bundled =>
  ({ manifest, config: config.descriptor, layers, artifact, whole })

/** Writes a pulled image to a layout: see `writeBundled`. */
export const write = (image: Parameters<typeof bundled>[0], path: string, name: string) => writeBundled(bundled(image), path, name)

/** Puts an entry into index.json in place of the one with its name, or of the same without one; what else is there stays, whoever writes it meanwhile. */
const add = Effect.fnUntraced(function*(root: string, entry: Schema.Schema.Type<typeof Fields>) {
  const file = join(root, "index.json")
  yield* Files.lock(`${file}.lock`)
  const index = yield* indexOf(root)
  const name = nameOf(entry["annotations"])
  const kept = (index?.manifests ?? []).filter(({ annotations, digest }) => nameOf(annotations) !== name || (name === undefined && digest !== entry["digest"]))
  const whole = { schemaVersion: 2, mediaType: MediaType.ociIndex, ...index, manifests: [...kept, entry] }
  yield* Files.place(file, Buffer.from(JSON.stringify(whole)))
}, Effect.scoped)

const nameOf = (annotations: unknown): unknown =>
  typeof annotations === "object" && annotations !== null ? Object.entries(annotations).find(([key]) => key === refName)?.[1] : undefined
