import { type Stream } from "effect"
import type { Descriptor } from "../image/Descriptor.ts"
import { type Digest, parts } from "../image/Digest.ts"
import * as MediaType from "../image/MediaType.ts"
import * as GoJson from "../image/v1/go/GoJson.ts"
import * as GoText from "../image/v1/go/GoText.ts"
import type { Member } from "./TarWriter.ts"

/** A blob that goes into an archive. */
export interface Content<E, R> {
  readonly descriptor: Descriptor
  readonly bytes: Stream.Stream<Uint8Array, E, R>
}

/** A document's bytes, and what they are. */
interface WrittenDocument {
  readonly manifest: Descriptor
  readonly raw: Uint8Array
}

/** An image's or artifact's manifest, its config and layers (bottom first). */
interface WrittenPart<E, R> extends WrittenDocument {
  readonly config: Content<E, R>
  readonly layers: ReadonlyArray<Content<E, R>>
}

/** An image that goes into an archive, and its names. */
export interface Written<E, R> extends WrittenPart<E, R> {
  /** What the names point at: the manifest, or an index that it is in, which goes into the archive with `others` that it lists, and `indexes`, itself the last. */
  readonly top: Descriptor
  readonly others: ReadonlyArray<WrittenPart<E, R>>
  readonly indexes: ReadonlyArray<WrittenDocument>
  /** `label` is the name in the layout (a tag, or a whole reference); `full` the whole reference with its tag. */
  readonly names: ReadonlyArray<{ readonly label: string; readonly full: string }>
}

const file = <E, R>(name: string, contents: NonNullable<Member<E, R>["contents"]>): Member<E, R> => ({ name, type: "file", mode: 0o644, mtime: 0, contents })
const folder = (name: string): Member => ({ name, type: "folder", mode: 0o755, mtime: 0 })
const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

const pathOf = (digest: Digest): string => {
  const { algorithm, hex } = parts(digest)
  return `blobs/${algorithm}/${hex}`
}

const fullName = "io.containerd.image.name"
const refName = "org.opencontainers.image.ref.name"

/**
 * The entries of an OCI image layout (image-spec, image-layout.md), all with time 0: the documents first, then the blobs, in
 * the order of the images, each once. The names are written for those who look for a tag and for those who want the whole.
 */
export const oci = <E, R>(images: ReadonlyArray<Written<E, R>>): ReadonlyArray<Member<E, R>> => {
  const manifests = images.flatMap(({ names, top: { mediaType, digest, size } }) => {
    const entry = { mediaType, digest, size }
    return names.length === 0 ? [entry] : names.map(({ full, label }) => ({
      ...entry, annotations: { [fullName]: full, [refName]: label }
    }))
  })
  const blobs = new Map<Digest, Member<E, R>>()
  for (const { manifest, raw } of images.flatMap(({ indexes }) => [...indexes].reverse())) blobs.set(manifest.digest, file(pathOf(manifest.digest), raw))
  for (const { config, layers, manifest, raw } of images.flatMap((image) => [image, ...image.others])) {
    blobs.set(manifest.digest, file(pathOf(manifest.digest), raw))
    for (const { bytes, descriptor } of [config, ...layers]) {
      if (!blobs.has(descriptor.digest)) blobs.set(descriptor.digest, file(pathOf(descriptor.digest), { size: descriptor.size, bytes }))
    }
  }
  const algorithms = [...new Set([...blobs.keys()].map((digest) => parts(digest).algorithm))].sort()
  return [
    file("oci-layout", Buffer.from(`{"imageLayoutVersion":"1.0.0"}`)),
    file("index.json", json({ schemaVersion: 2, mediaType: MediaType.ociIndex, manifests })),
    folder("blobs/"), ...algorithms.map((algorithm) => folder(`blobs/${algorithm}/`)), ...blobs.values()
  ]
}

/**
 * The entries that docker (1.10 and later), podman and skopeo load: `manifest.json`, which names configs and layers in an OCI
 * layout, so that readers of layouts find the images too, under their digests. Layers stay compressed as they are.
 */
export const docker = <E, R>(images: ReadonlyArray<Written<E, R>>): ReadonlyArray<Member<E, R>> => {
  const [marker, ...rest] = oci(images)
  const manifest = file<E, R>("manifest.json", json(images.map(({ config, layers, names }) => ({
    Config: pathOf(config.descriptor.digest),
    // In full: podman takes a short name for one of its own.
    RepoTags: names.map(({ full }) => full),
    Layers: layers.map(({ descriptor }) => pathOf(descriptor.digest))
  }))))
  return marker === undefined ? [] : [marker, manifest, ...rest]
}

/** An image as Docker 1.9 saved it. */
export interface LegacyWritten<E, R> {
  readonly id: string
  /** The struct re-marshalled, with id, parent and Size (V1Image.print). */
  readonly json: string
  /** RFC 3339; its seconds become the entries' times. */
  readonly created: string
  /** The layer's plain tar; an image without one has an empty tar. */
  readonly layer: { readonly size: number; readonly bytes: Stream.Stream<Uint8Array, E, R> } | Uint8Array
}

/** The last second whose nanoseconds Go counts in 64 bits. */
const lastSecond = 9_223_372_036

/** A time in whole seconds; what is before the epoch or after what Go counts is 0 (pkg/system: Chtimes). */
const secondsOf = (created: string): number => {
  const seconds = Math.floor(Date.parse(created.replace(/\.\d+/, "")) / 1000)
  return seconds >= 0 && seconds <= lastSecond ? seconds : 0
}

/**
 * The entries of an archive of Docker 1.9: for each image a folder with VERSION, json and layer.tar, and last `repositories`
 * (name -> tag -> id), which has time 0 and is left out where there are no names (docker: graph/export.go).
 */
export const legacy = <E, R>(
  images: ReadonlyArray<LegacyWritten<E, R>>, repositories: ReadonlyMap<string, ReadonlyMap<string, string>>
): ReadonlyArray<Member<E, R>> => {
  const folders = [...images].sort((a, b) => a.id < b.id ? -1 : 1).flatMap(({ created, id, json, layer }): ReadonlyArray<Member<E, R>> => {
    const at = { mtime: secondsOf(created) }
    return [
      { ...folder(`${id}/`), ...at }, { ...file<E, R>(`${id}/VERSION`, Buffer.from("1.0")), ...at },
      { ...file<E, R>(`${id}/json`, Buffer.from(json)), ...at }, { ...file<E, R>(`${id}/layer.tar`, layer), ...at }
    ]
  })
  if (repositories.size === 0) return folders
  const map = (entries: Iterable<readonly [string, string]>) =>
    `{${[...entries].sort(([a], [b]) => GoText.compare(a, b)).map(([key, text]) => `${GoJson.quote(key)}:${text}`).join(",")}}`
  const text = map([...repositories].map(([name, tags]) => [name, map([...tags].map(([tag, id]) => [tag, GoJson.quote(id)]))] as const))
  return [...folders, file<E, R>("repositories", Buffer.from(`${text}\n`))]
}
