import { Effect, Result, Stream } from "effect"
import { resolve } from "node:path"
import { type ArchiveError } from "./archive/Fault.ts"
import { ArchiveFile } from "./archive/ArchiveFile.ts"
import * as Layouts from "./archive/Layouts.ts"
import * as TarWriter from "./archive/TarWriter.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Reference from "./image/Reference.ts"
import * as OciLayout from "./OciLayout.ts"
import { BlobStore, type NotInStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/Disk.ts"
import * as Files from "./store/Files.ts"
import { Graph, type Image } from "./store/Graph.ts"
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
  readonly layers: ReadonlyArray<{ readonly blob: Descriptor }>
  /** Normalised references by which it was asked for: those with a tag name it. */
  readonly references: ReadonlyArray<string>
}

/** Manifests are read whole, up to 4 MiB. */
const manifestCap = 4 * 1024 * 1024

const content = Effect.fnUntraced(function*(descriptor: Descriptor) {
  const { path, size } = yield* (yield* BlobStore).open(descriptor.digest)
  return { descriptor, bytes: new ArchiveFile(path, descriptor.digest, size, { path }).stream() }
}, Effect.scoped)

const shortOf = (reference: string): string => /:([^:/@]+)$/.exec(reference)?.[1] ?? "latest"

/** Names in a layout: the tag, or where two images share one, the whole reference. */
const namesOf = (image: Savable, all: ReadonlyArray<Savable>) => image.references.flatMap((reference) => {
  const read = Reference.parseNormalized(reference)
  if (Result.isFailure(read)) return []
  const { digest, tag } = read.success
  const shared = all.flatMap(({ references }) => references).filter((other) => shortOf(other) === shortOf(reference)).length > 1
  if (tag === undefined || digest !== undefined) return []
  return [{ label: shared ? reference : shortOf(reference), full: reference, familiar: Reference.familiar(read.success) }]
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

const written = Effect.fnUntraced(function*(image: Savable, format: Format, all: ReadonlyArray<Savable>) {
  const foreign = format === "oci-archive" && image.manifest.mediaType !== MediaType.ociManifest
  const { manifest, raw } = foreign
    ? OciLayout.asOci({ config: { descriptor: image.config }, layers: image.layers })
    : { manifest: image.manifest, raw: yield* (yield* BlobStore).read(image.manifest.digest, manifestCap) }
  return { manifest, raw, config: yield* content(image.config), layers: yield* Effect.forEach(image.layers, ({ blob }) => content(blob)), names: namesOf(image, all) }
})

/**
 * The bytes of an archive of these images: the same for the same images and names, whenever and wherever it is written. All
 * blobs must be in the store, and are held there while the stream is read.
 */
export const stream = (images: ReadonlyArray<Savable>, format: Format): Stream.Stream<Uint8Array, ArchiveError | StoreError | NotInStore, BlobStore | Leases> =>
  Stream.unwrap(Effect.gen(function*() {
    const all = merged(images)
    yield* (yield* Leases).hold(all.flatMap(({ config, layers, manifest }) => [manifest.digest, config.digest, ...layers.map(({ blob }) => blob.digest)]))
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
