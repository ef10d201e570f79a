import { Effect, Option, Result, Schema, Stream } from "effect"
import { createHash } from "node:crypto"
import { resolve } from "node:path"
import { type ArchiveError } from "./archive/Fault.ts"
import { ArchiveFile } from "./archive/ArchiveFile.ts"
import * as Layouts from "./archive/Layouts.ts"
import * as TarWriter from "./archive/TarWriter.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import { Digest, parts } from "./image/Digest.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Reference from "./image/Reference.ts"
import * as OciLayout from "./OciLayout.ts"
import { BlobDamaged, BlobStore, type NotInStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/Disk.ts"
import * as Files from "./store/Files.ts"
import { Graph, type Image } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"

/**
 * What an archive is for. `oci-archive`: an OCI layout, of OCI media types alone. `docker-archive`: what docker, podman and
 * skopeo load by `manifest.json`; it is a layout too, which keeps the images' digests.
 */
export type Format = "oci-archive" | "docker-archive"

/** An image to be saved, complete in the store. */
export interface Savable {
  readonly manifest: Descriptor
  readonly config: Descriptor
  /** Bottom first. */
  readonly layers: ReadonlyArray<{ readonly blob: Descriptor; readonly diffId: Digest }>
  /** Normalised references by which it was asked for: those with a tag name it. */
  readonly references: ReadonlyArray<string>
}

/** A layer of an image is in the store unpacked alone: no blob that holds it is there to be written. */
export class NotSavable extends Schema.TaggedError<NotSavable>()("NotSavable", { layer: Digest }) {
  override get message() {
    return `the store has the layer ${this.layer} unpacked, and not as a blob to be saved: \`graph save\` and \`pull --output\` fetch it again`
  }
}

/** Manifests are read whole, up to 4 MiB. */
const manifestCap = 4 * 1024 * 1024

/** The same bytes; where they are not the blob's, the stream fails at its end. */
const verified = <E, R>(digest: Digest, bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E | BlobDamaged, R> => Stream.suspend(() => {
  const { algorithm, hex } = parts(digest)
  const hash = createHash(algorithm)
  return Stream.concat(
    Stream.mapArray(bytes, (chunks) => {
      for (const chunk of chunks) hash.update(chunk)
      return chunks
    }),
    Stream.suspend(() => hash.digest("hex") === hex ? Stream.empty : Stream.fail(new BlobDamaged({ digest }))))
})

const content = Effect.fnUntraced(function*(descriptor: Descriptor) {
  const { path, size } = yield* (yield* BlobStore).open(descriptor.digest)
  return { descriptor, bytes: verified(descriptor.digest, new ArchiveFile(path, descriptor.digest, size, { path }).stream()) }
}, Effect.scoped)

const shortOf = (reference: string): string => /:([^:/@]+)$/.exec(reference)?.[1] ?? "latest"

/** Names in a layout: the tag, or where two images share one, the whole reference. */
const namesOf = (image: Savable, all: ReadonlyArray<Savable>) => image.references.flatMap((reference) => {
  const read = Reference.parseNormalized(reference)
  if (Result.isFailure(read)) return []
  const { digest, tag } = read.success
  const shared = all.flatMap(({ references }) => references).filter((other) => shortOf(other) === shortOf(reference)).length > 1
  if (tag === undefined || digest !== undefined) return []
  return [{ label: shared ? reference : shortOf(reference), full: reference }]
})

/** One image once, with all its references. */
const merged = (images: ReadonlyArray<Savable>): ReadonlyArray<Savable> => {
  const all = new Map<string, Savable>()
  for (const image of images) {
    const there = all.get(image.manifest.digest)
    all.set(image.manifest.digest, there === undefined ? image : { ...there, references: [...new Set([...there.references, ...image.references])] })
  }
  return [...all.values()]
}

/** The layer's blob; where that was never fetched, since the layer was there already, another one that was found to hold it. */
export const blobOf = Effect.fnUntraced(function*({ blob, diffId }: Savable["layers"][number]) {
  if (Option.isSome(yield* (yield* BlobStore).find(blob.digest))) return blob
  const [other] = yield* (yield* LayerStore).blobsOf(diffId)
  return other ?? (yield* new NotSavable({ layer: diffId }))
})

const written = Effect.fnUntraced(function*(image: Savable, format: Format, all: ReadonlyArray<Savable>) {
  const layers = yield* Effect.forEach(image.layers, blobOf)
  const same = layers.every(({ digest }, index) => digest === image.layers[index]?.blob.digest)
  const kept = same && (format === "docker-archive" || image.manifest.mediaType === MediaType.ociManifest)
  const { manifest, raw } = kept
    ? { manifest: image.manifest, raw: yield* (yield* BlobStore).read(image.manifest.digest, manifestCap) }
    : OciLayout.asOci({ config: { descriptor: image.config }, layers: layers.map((blob) => ({ blob })) })
  return { manifest, raw, config: yield* content(image.config), layers: yield* Effect.forEach(layers, content), names: namesOf(image, all) }
})

/**
 * The bytes of an archive of these images: the same for the same images, blobs and names, whenever and wherever it is written.
 * All layers must be in the store as blobs, which are held there while the stream is read.
 */
export const stream = (images: ReadonlyArray<Savable>, format: Format): Stream.Stream<Uint8Array, ArchiveError | StoreError | NotInStore | NotSavable | BlobDamaged, BlobStore | LayerStore | Leases> =>
  Stream.unwrap(Effect.gen(function*() {
    const all = merged(images)
    yield* (yield* Leases).hold(all.flatMap(({ config, layers, manifest }) => [manifest.digest, config.digest, ...layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])]))
    const parts = yield* Effect.forEach(all, (image) => written(image, format, all))
    return TarWriter.stream(format === "oci-archive" ? Layouts.oci(parts) : Layouts.docker(parts))
  }))

/** Writes the archive to a file, which is there once it is whole and durable, in place of an older one. */
export const write = Effect.fn("Save.write")((images: ReadonlyArray<Savable>, format: Format, path: string) =>
  Files.write(resolve(path), stream(images, format)))

const savable = (image: Image, text: string): Savable => {
  const asked = Result.getOrUndefined(Reference.parse(text))
  const name = image.tags.find(({ name, reference }) => asked !== undefined && name === `${asked.domain}/${asked.path}` && reference === (asked.digest ?? asked.tag))
  return { ...image, references: name === undefined || name.reference.includes(":") ? [] : [`${name.name}:${name.reference}`] }
}

/** The images of the store that `names` mean (see `Graph.resolve`), each by the name it was called by; one called by its id has none. */
export const find = Effect.fn("Save.find")(function*(names: ReadonlyArray<string>) {
  const graph = yield* Graph
  return yield* Effect.forEach(names, (name) => Effect.map(graph.resolve(name), (image) => savable(image, name)))
})
