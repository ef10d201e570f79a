import { gunzipSync, zstdDecompressSync } from "node:zlib"
import * as Digest from "../../image/Digest.ts"
import type { Item } from "../Archive.ts"
import type { Built, BuiltImage } from "../ImageBuilder.ts"

/** An image, and the names (`repository:tag`) it is saved under. */
export interface Saved {
  readonly image: BuiltImage
  readonly names?: ReadonlyArray<string>
}

/** An image of Docker 1.9 or before. */
export interface LegacySaved {
  readonly id: string
  /** `json`, verbatim. */
  readonly json: string
  /** `layer.tar`: bytes, or the name it is a symbolic link to; undefined: there is none. */
  readonly layer?: Uint8Array | string
  /** The folder's name. Default: the id. */
  readonly folder?: string
}

const bytesOf = (image: Built, digest: Digest.Digest): Uint8Array => {
  const body = image.blobs.get(digest) ?? image.manifests.get(digest)?.raw
  if (!(body instanceof Uint8Array)) throw new Error(`${digest} is not in memory`)
  return body
}

/** The plain tars of an image's layers, bottom first. */
export const tars = (image: BuiltImage): ReadonlyArray<Uint8Array> => image.layers.map(({ digest }) => {
  const body = bytesOf(image, digest)
  return body[0] === 0x1f ? gunzipSync(body) : body[0] === 0x28 ? zstdDecompressSync(body) : body
})

/** The entries of what Docker 1.10 to 24 save: configs, a folder for each layer (in twos of the same as a link), `manifest.json`. */
export const docker = (saved: ReadonlyArray<Saved>): ReadonlyArray<Item> => {
  const items: Array<Item> = []
  const first = new Map<string, string>()
  const manifest = saved.map(({ image, names = [] }) => {
    const { hex } = Digest.parts(image.config.descriptor.digest)
    const plain = tars(image)
    items.push({ path: `${hex}.json`, contents: image.config.raw })
    return {
      Config: `${hex}.json`, RepoTags: names,
      Layers: image.diffIds.map((diffId, index) => {
        const folder = Digest.parts(diffId).hex.split("").reverse().join("").slice(0, 62) + String(index).padStart(2, "0")
        const path = `${folder}/layer.tar`
        const there = first.get(diffId)
        if (there === path) return path
        items.push({ path: `${folder}/` }, { path: `${folder}/VERSION`, contents: "1.0" }, { path: `${folder}/json`, contents: JSON.stringify({ id: folder }) })
        items.push(there === undefined ? { path, contents: plain[index] ?? "" } : { path, type: "symlink", linkpath: `../${there}` })
        if (there === undefined) first.set(diffId, path)
        return path
      })
    }
  })
  return [...items, { path: "manifest.json", contents: JSON.stringify(manifest) }]
}

/** The entries of what Docker 1.9 and before save: a folder for each image, and `repositories` (name -> tag -> id). */
export const legacy = (
  saved: ReadonlyArray<LegacySaved>, repositories?: Readonly<Record<string, Readonly<Record<string, string>>>>
): ReadonlyArray<Item> => [
  ...saved.flatMap(({ folder, id, json, layer }): ReadonlyArray<Item> => {
    const name = folder ?? id
    return [
      { path: `${name}/` }, { path: `${name}/VERSION`, contents: "1.0" }, { path: `${name}/json`, contents: json },
      ...layer === undefined ? [] : typeof layer === "string"
        ? [{ path: `${name}/layer.tar`, type: "symlink" as const, linkpath: layer }] : [{ path: `${name}/layer.tar`, contents: layer }]
    ]
  }),
  ...repositories === undefined ? [] : [{ path: "repositories", contents: JSON.stringify(repositories) }]
]

/** The entries of an OCI image layout (image-spec, image-layout.md). `names` become the reference names. */
export const oci = (saved: ReadonlyArray<{ readonly image: Built; readonly names?: ReadonlyArray<string> }>, annotation = "org.opencontainers.image.ref.name"): ReadonlyArray<Item> => {
  const blobs = new Map<Digest.Digest, Uint8Array>()
  const manifests = saved.flatMap(({ image, names = [] }) => {
    for (const digest of [...image.manifests.keys(), ...image.blobs.keys()]) blobs.set(digest, bytesOf(image, digest))
    const { mediaType, digest, size } = image.manifest.descriptor
    const entry = { mediaType, digest, size }
    return names.length === 0 ? [entry] : names.map((name) => ({ ...entry, annotations: { [annotation]: name } }))
  })
  return [
    { path: "oci-layout", contents: `{"imageLayoutVersion":"1.0.0"}` },
    { path: "blobs/" }, { path: "blobs/sha256/" },
    ...[...blobs].map(([digest, contents]) => ({ path: `blobs/${Digest.parts(digest).algorithm}/${Digest.parts(digest).hex}`, contents })),
    { path: "index.json", contents: JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests }) }
  ]
}
