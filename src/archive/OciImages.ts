import { Option, Result, Schema } from "effect"
import { Descriptor } from "../image/Descriptor.ts"
import { type Digest, parts } from "../image/Digest.ts"
import * as Manifest from "../image/Manifest.ts"
import * as MediaType from "../image/MediaType.ts"
import type { ArchiveFile } from "./ArchiveFile.ts"
import type { DockerImage } from "./DockerImages.ts"
import * as Document from "./Document.ts"
import { nameOf, type Tree } from "./Tree.ts"

/** An entry of a layout's index.json: a manifest or an index, and what it is called. */
export interface OciImage {
  readonly target: Descriptor
  readonly names: ReadonlyArray<Document.ImageName>
  /** A name that is a tag alone, as many tools write it: it names no repository. */
  readonly label: string | undefined
}

/** Images of one layout at most. */
const imageCap = 4096

const Marker = Schema.Struct({ imageLayoutVersion: Schema.String })

/** What containerd and Docker call an image by in full, and what the image spec has. */
const fullName = "io.containerd.image.name"
const refName = "org.opencontainers.image.ref.name"

const namesOf = (tree: Tree, annotations: Readonly<Record<string, string>>): Pick<OciImage, "names" | "label"> => {
  const full = annotations[fullName]
  const short = annotations[refName]
  if (full !== undefined) return { names: [Document.imageName(tree.archive, "index.json", full)], label: undefined }
  if (short === undefined || !/[/:]/.test(short) || short.includes("@")) return { names: [], label: short }
  return { names: [Document.imageName(tree.archive, "index.json", short)], label: undefined }
}

/** Where a layout has a blob. */
export const blob = (tree: Tree, digest: Digest): ArchiveFile | undefined => {
  const { algorithm, hex } = parts(digest)
  return tree.find(`blobs/${algorithm}/${hex}`)
}

/** The images of an OCI layout (image-spec, image-layout.md); undefined where there is none. Throws `ArchiveRefused`. */
export const read = (tree: Tree): ReadonlyArray<OciImage> | undefined => {
  const marker = tree.find(nameOf("oci-layout"))
  const file = tree.find(nameOf("index.json"))
  if (marker === undefined || file === undefined) return undefined
  const { imageLayoutVersion } = Document.decode(Marker, marker)
  if (imageLayoutVersion !== "1.0.0") throw marker.refuse(`its version is ${imageLayoutVersion}, and only 1.0.0 is known`)
  const index = Manifest.decode(file.bytes(Document.documentCap), { contentType: MediaType.ociIndex })
  if (Result.isFailure(index)) throw file.refuse(`${index.failure.field === "" ? "" : `${index.failure.field}: `}${index.failure.rule}`)
  if (index.success._tag !== "Index") throw file.refuse("it is no index")
  const count = index.success.manifests.length
  if (count > imageCap) throw file.refuse(`it lists ${count} images, and at most ${imageCap} are taken`)
  return index.success.manifests.filter(({ mediaType }) => MediaType.isIndex(mediaType) || MediaType.isManifest(mediaType)).map((entry) => ({
    target: new Descriptor({ mediaType: entry.mediaType, digest: entry.digest, size: entry.size }), ...namesOf(tree, entry.annotations ?? {})
  }))
}

/** The same images, with the names that `manifest.json` gives to the images of the same configs. */
export const named = (tree: Tree, images: ReadonlyArray<OciImage>, docker: ReadonlyArray<DockerImage>): ReadonlyArray<OciImage> =>
  images.map((image) => {
    const file = image.names.length === 0 ? blob(tree, image.target.digest) : undefined
    const manifest = file === undefined ? Option.none() : Result.getSuccess(Manifest.decode(file.bytes(Document.documentCap), { descriptor: image.target }))
    if (Option.isNone(manifest) || manifest.value._tag !== "Image") return image
    const id = parts(manifest.value.config.digest).hex
    return { ...image, names: docker.filter((one) => one.id === id).flatMap(({ names }) => names) }
  })
