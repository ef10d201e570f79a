import { Effect, Option, Result, Stream } from "effect"
import { createHash } from "node:crypto"
import { resolve } from "node:path"
import { type ArchiveError } from "./archive/Fault.ts"
import { ArchiveFile } from "./archive/ArchiveFile.ts"
import * as Layouts from "./archive/Layouts.ts"
import * as TarWriter from "./archive/TarWriter.ts"
import { type Bundled, bundle, digestsOf, type NotSavable, type Part } from "./Bundle.ts"
import { Descriptor } from "./image/Descriptor.ts"
import { type Digest, parts } from "./image/Digest.ts"
import * as Manifest from "./image/Manifest.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Reference from "./image/Reference.ts"
import * as OciLayout from "./OciLayout.ts"
import { BlobDamaged, BlobStore, type NotInStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { Graph, type Image } from "./store/Graph.ts"
import type { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import { NoFileSystem } from "./StoreImages.ts"

/**
 * What an archive is for. `oci-archive`: an OCI layout, of OCI media types alone. `docker-archive`: what docker, podman and
 * skopeo load by `manifest.json`; it is a layout too, which keeps the images' digests.
 */
export type Format = "oci-archive" | "docker-archive"

/** An image or artifact to be saved, complete in the store. */
export interface Savable extends Bundled {
  readonly artifact?: Image["artifact"]
  /** Normalised references by which it was asked for: those with a tag name it. */
  readonly references: ReadonlyArray<string>
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
    all.set(image.manifest.digest, there === undefined ? image : { ...there, whole: there.whole ?? image.whole, references: [...new Set([...there.references, ...image.references])] })
  }
  return [...all.values()]
}

const written = Effect.fnUntraced(function*(image: Savable, format: Format, all: ReadonlyArray<Savable>) {
  if (format === "docker-archive" && image.artifact !== undefined) return yield* new NoFileSystem({ name: image.references[0] ?? image.manifest.digest, type: image.artifact.type })
  const { indexes, others, own, top } = yield* bundle(image, format === "docker-archive")
  const contents = Effect.fnUntraced(function*({ config, layers, ...document }: Part) {
    return { ...document, config: yield* content(config), layers: yield* Effect.forEach(layers, content) }
  })
  return { ...yield* contents(own), top, others: yield* Effect.forEach(others, contents), indexes, names: namesOf(image, all) }
})

/**
 * The bytes of an archive of these images: the same for the same images, blobs and names, whenever and wherever it is written.
 * All layers must be in the store as blobs, which are held there while the stream is read.
 */
export const stream = (images: ReadonlyArray<Savable>, format: Format): Stream.Stream<Uint8Array, ArchiveError | StoreError | NotInStore | NotSavable | NoFileSystem | BlobDamaged, BlobStore | LayerStore | Leases> =>
  Stream.unwrap(Effect.gen(function*() {
    const all = merged(images)
    yield* (yield* Leases).hold(all.flatMap(digestsOf))
    const parts = yield* Effect.forEach(all, (image) => written(image, format, all))
    return TarWriter.stream(format === "oci-archive" ? Layouts.oci(parts) : Layouts.docker(parts))
  }))

/** Writes the archive to a file, which is there once it is whole and durable, in place of an older one. */
export const write = Effect.fn("Save.write")((images: ReadonlyArray<Savable>, format: Format, path: string) =>
  Files.write(resolve(path), stream(images, format)))

/** Writes the images as an OCI image layout to a folder, or adds them to the layout there (see `OciLayout.writeBundled`). */
export const layout = Effect.fn("Save.layout")(function*(images: ReadonlyArray<Savable>, path: string) {
  const all = merged(images)
  for (const image of all) {
    const names = namesOf(image, all).map(({ label }) => label)
    for (const name of names.length === 0 ? [undefined] : names) yield* OciLayout.writeBundled(image, path, name)
  }
})

/** The index a tag leads to with all its images, if every one of them is in the store. */
export const wholeOf = Effect.fnUntraced(function*(target: Digest) {
  const members = yield* (yield* Graph).members(target)
  if (members.length === 0 || Option.isNone(yield* (yield* BlobStore).find(target))) return undefined
  const raw = yield* (yield* BlobStore).read(target, manifestCap)
  const index = Result.getOrUndefined(Manifest.decode(raw))
  if (index?._tag !== "Index") return undefined
  const there = new Set<Digest>(members.map(({ manifest }) => manifest.digest))
  const complete = index.manifests.every(({ digest, mediaType }) => !MediaType.isManifest(mediaType) || there.has(digest))
  return complete ? { index: new Descriptor({ mediaType: index.mediaType, digest: target, size: raw.byteLength }), members } : undefined
})

const savable = Effect.fnUntraced(function*(image: Image, text: string) {
  const asked = Result.getOrUndefined(Reference.parse(text))
  const name = image.tags.find(({ name, reference }) => asked !== undefined && name === `${asked.domain}/${asked.path}` && reference === (asked.digest ?? asked.tag))
  const target = name === undefined ? undefined : yield* (yield* Graph).targetOf(name)
  const whole = target === undefined ? undefined : yield* wholeOf(target)
  const found: Savable = { ...image, whole, references: name === undefined || name.reference.includes(":") ? [] : [`${name.name}:${name.reference}`] }
  return found
})

/** The images of the store that `names` mean (see `Graph.resolve`), each by the name it was called by; one called by its id has none. */
export const find = Effect.fn("Save.find")(function*(names: ReadonlyArray<string>) {
  const graph = yield* Graph
  return yield* Effect.forEach(names, (name) => Effect.flatMap(graph.resolve(name), (image) => savable(image, name)))
})
