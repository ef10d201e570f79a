/** OCI image manifest (image-spec, media-types.md). */
export const ociManifest = "application/vnd.oci.image.manifest.v1+json"
/** OCI image index. */
export const ociIndex = "application/vnd.oci.image.index.v1+json"
/** Docker image manifest, version 2 schema 2. */
export const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
/** Docker manifest list. */
export const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
/** Docker manifest, schema 1, signed. */
export const schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
/** Docker manifest, schema 1, unsigned. */
export const schema1 = "application/vnd.docker.distribution.manifest.v1+json"
/** OCI image config. */
export const ociConfig = "application/vnd.oci.image.config.v1+json"
/** Docker image config. */
export const dockerConfig = "application/vnd.docker.container.image.v1+json"

/** Value of the Accept header of a request for a manifest: all that `Manifest.decode` and `v1/SignedManifest.decode` understand, the old schema last. */
export const accept = [ociIndex, ociManifest, dockerList, dockerManifest, schema1Signed, schema1].join(", ")

/** Whether documents of this type list manifests (index or manifest list). */
export const isIndex = (mediaType: string): boolean => mediaType === ociIndex || mediaType === dockerList

/** Whether documents of this type describe one image or artifact. */
export const isManifest = (mediaType: string): boolean => mediaType === ociManifest || mediaType === dockerManifest

/** Whether blobs of this type are image configs. */
export const isConfig = (mediaType: string): boolean => mediaType === ociConfig || mediaType === dockerConfig

const layer = /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+(gzip|zstd))?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.(gzip|zstd))?)$/

/**
 * How a layer's media type says its tar is compressed (image-spec, media-types.md; the bytes themselves decide in the end).
 * `undefined`: no file-system layer (an artifact's blob, an encrypted layer).
 */
export const layerCompression = (mediaType: string): "none" | "gzip" | "zstd" | undefined => {
  const match = layer.exec(mediaType)
  const suffix = match?.[1] ?? match?.[2]
  return suffix === "gzip" || suffix === "zstd" ? suffix : match === null ? undefined : "none"
}

const magics = [["gzip", [0x1f, 0x8b]], ["zstd", [0x28, 0xb5, 0x2f, 0xfd]], ["bzip2", [0x42, 0x5a, 0x68]], ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]]] as const

/** How bytes that begin so are compressed: what a layer is whose media type nobody gave. */
export const compressionOf = (head: Uint8Array): "none" | "gzip" | "zstd" | "bzip2" | "xz" =>
  magics.find(([, magic]) => magic.every((byte, at) => head[at] === byte))?.[0] ?? "none"

/** The media type of a file-system layer that is compressed so, in Docker's words, which have no name for bzip2 and xz. */
export const layerOf = (compression: "none" | "gzip" | "zstd"): string =>
  `application/vnd.docker.image.rootfs.diff.tar${compression === "none" ? "" : `.${compression}`}`

/** Whether registries need not hold the layer's blob (foreign or nondistributable: it has `urls`). */
export const isForeign = (mediaType: string): boolean =>
  layerCompression(mediaType) !== undefined && /\.(?:foreign|nondistributable)\./.test(mediaType)

const inOci: Partial<Record<string, string>> = {
  [dockerManifest]: ociManifest, [dockerList]: ociIndex, [dockerConfig]: ociConfig
}

/** OCI's name for the same bytes; types OCI has no other name for stay as they are. */
export const asOci = (mediaType: string): string => {
  const compression = layerCompression(mediaType)
  if (compression === undefined || !mediaType.startsWith("application/vnd.docker.")) return inOci[mediaType] ?? mediaType
  const kind = isForeign(mediaType) ? "layer.nondistributable" : "layer"
  return `application/vnd.oci.image.${kind}.v1.tar${compression === "none" ? "" : `+${compression}`}`
}
