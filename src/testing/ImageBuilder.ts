import { createHash } from "node:crypto"
import { Descriptor } from "../image/Descriptor.ts"
import type { Digest } from "../image/Digest.ts"
import type { Item } from "./Archive.ts"
import { digestOf, layer, layerOf, type Body, type BuiltLayer } from "./ImageLayer.ts"

export { digestOf, hugeLayer, layer, layerOf, skippableFrame } from "./ImageLayer.ts"
export type { Body, BuiltLayer, Compression, HugeLayerOptions, LayerOptions } from "./ImageLayer.ts"

/** A platform as manifests and configs name it (image-spec, image-index.md). */
export interface PlatformSpec {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
  readonly "os.version"?: string
  readonly "os.features"?: ReadonlyArray<string>
}

/** OCI media types, or Docker's schema2 ones. */
export type Format = "oci" | "docker"

/** A manifest's bytes and what an index or a request says about them. */
export interface BuiltManifest {
  readonly raw: Uint8Array
  readonly descriptor: Descriptor
}

/** Anything a registry can hold under one tag, with everything it is made of. */
export interface Built {
  readonly manifest: BuiltManifest
  /** An image's platform; undefined for an index. */
  readonly platform: PlatformSpec | undefined
  /** This manifest and every one below it, by digest. */
  readonly manifests: ReadonlyMap<Digest, BuiltManifest>
  /** Configs and layers, by digest. */
  readonly blobs: ReadonlyMap<Digest, Body>
}

/** An image. */
export interface BuiltImage extends Built {
  /** The config; its digest is the image's id. */
  readonly config: BuiltManifest
  /** Bottom-up. */
  readonly layers: ReadonlyArray<Descriptor>
  /** Bottom-up, one for each layer. */
  readonly diffIds: ReadonlyArray<Digest>
}

/** Top-level fields of a JSON document that replace or join the computed ones; undefined removes one. */
export type Fields = Readonly<Record<string, unknown>>

/** What an image is made of. */
export interface ImageOptions {
  /** Bottom-up; entries become a gzip layer. */
  readonly layers: ReadonlyArray<BuiltLayer | ReadonlyArray<Item>>
  /** Default linux/amd64. */
  readonly platform?: PlatformSpec
  /** The config's `config` object: Cmd, Env, … Default: Cmd /bin/sh. */
  readonly config?: Fields
  /** Default oci. */
  readonly format?: Format
  /** Fields of the config document, `rootfs` for instance. */
  readonly configFields?: Fields
  /** Fields of the manifest. */
  readonly manifestFields?: Fields
}

/** One entry of an index. */
export interface IndexEntry {
  readonly built: Built
  /** Default: the platform of an image, none for an index; null: none. */
  readonly platform?: PlatformSpec | null
  readonly annotations?: Readonly<Record<string, string>>
  /** Fields of the entry, `size` or `urls` for instance. */
  readonly fields?: Fields
}

/** What an index is made of besides its entries. */
export interface IndexOptions {
  /** Default oci. */
  readonly format?: Format
  /** Fields of the index. */
  readonly fields?: Fields
}

/** The media types of each format. */
export const mediaTypes = {
  oci: {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: {
      none: "application/vnd.oci.image.layer.v1.tar",
      gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
      zstd: "application/vnd.oci.image.layer.v1.tar+zstd"
    }
  },
  docker: {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: {
      none: "application/vnd.docker.image.rootfs.diff.tar",
      gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      zstd: "application/vnd.docker.image.rootfs.diff.tar.zstd"
    }
  }
} as const

const document = (mediaType: string, content: Fields): BuiltManifest => {
  const raw = Buffer.from(JSON.stringify(content))
  return { raw, descriptor: new Descriptor({ mediaType, digest: digestOf(raw), size: raw.byteLength }) }
}

/** Mutable JSON of a descriptor: class instances carry nothing else. */
const json = ({ mediaType, digest, size }: Descriptor) => ({ mediaType, digest, size })

/** An image: config with diff IDs, manifest, blobs. Made up to its last byte from the options: no clock, no randomness. */
export const image = (options: ImageOptions): BuiltImage => {
  const types = mediaTypes[options.format ?? "oci"]
  const platform = options.platform ?? { os: "linux", architecture: "amd64" }
  const built = options.layers.map((one): BuiltLayer => "digest" in one ? one : layer(one))
  const diffIds = built.map((one) => one.diffId)
  const config = document(types.config, {
    created: "2023-11-14T22:13:20Z",
    ...platform,
    config: options.config ?? { Cmd: ["/bin/sh"] },
    rootfs: { type: "layers", diff_ids: diffIds },
    history: diffIds.map((_, at) => ({ created: "2023-11-14T22:13:20Z", created_by: `layer ${at + 1}` })),
    ...options.configFields
  })
  const layers = built.map((one) =>
    new Descriptor({ mediaType: one.mediaType ?? types.layer[one.compression], digest: one.digest, size: one.size }))
  const manifest = document(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: json(config.descriptor),
    layers: layers.map(json),
    ...options.manifestFields
  })
  return {
    manifest,
    platform,
    config,
    layers,
    diffIds,
    manifests: new Map([[manifest.descriptor.digest, manifest]]),
    blobs: new Map<Digest, Body>([[config.descriptor.digest, config.raw], ...built.map((one) => [one.digest, one.body] as const)])
  }
}

/** An index (OCI) or manifest list (Docker) of images and further indexes. An image is named with its platform. */
export const index = (entries: ReadonlyArray<Built | IndexEntry>, options: IndexOptions = {}): Built => {
  const type = mediaTypes[options.format ?? "oci"].index
  const all = entries.map((entry): IndexEntry => "built" in entry ? entry : { built: entry })
  const manifests = new Map<Digest, BuiltManifest>()
  const blobs = new Map<Digest, Body>()
  for (const { built } of all) {
    for (const [digest, one] of built.manifests) manifests.set(digest, one)
    for (const [digest, body] of built.blobs) blobs.set(digest, body)
  }
  const manifest = document(type, {
    schemaVersion: 2,
    mediaType: type,
    manifests: all.map(({ built, platform, annotations, fields }) => Object.assign(json(built.manifest.descriptor), {
      platform: platform === null ? undefined : platform ?? built.platform,
      annotations
    }, fields)),
    ...options.fields
  })
  return { manifest, platform: undefined, manifests: manifests.set(manifest.descriptor.digest, manifest), blobs }
}

/** A BuildKit attestation of `subject`, as an entry for the index that names it: platform unknown/unknown, one in-toto layer. */
export const attestation = (subject: Built): IndexEntry => {
  const statement = Buffer.from(JSON.stringify({ _type: "https://in-toto.io/Statement/v0.1", predicateType: "https://slsa.dev/provenance/v0.2" }))
  const built = image({
    layers: [layerOf(statement, { compression: "none", mediaType: "application/vnd.in-toto+json" })],
    platform: { os: "unknown", architecture: "unknown" },
    config: {}
  })
  return {
    built,
    annotations: {
      "vnd.docker.reference.digest": subject.manifest.descriptor.digest,
      "vnd.docker.reference.type": "attestation-manifest"
    }
  }
}

/** Bytes that look random, do not compress and are always the same. */
export const noise = (seed: string, size: number): Uint8Array => createHash("shake256", { outputLength: size }).update(seed).digest()

/**
 * A small image of three layers, with something of everything an image has: a base tree of folders, files and symbolic links
 * (gzip); a layer with a hard link into it, a whiteout and an opaque folder (gzip); a layer compressed with zstd.
 * linux/amd64, OCI; the same bytes wherever it is built with the same Node.
 */
export const demo = (): BuiltImage => image({
  config: { Cmd: ["/bin/greet"], Env: ["PATH=/bin", "LANG=C.UTF-8"], WorkingDir: "/home/sailor" },
  layers: [
    layer([
      { path: "bin", type: "symlink", linkpath: "usr/bin" },
      { path: "etc/" },
      { path: "etc/os-release", contents: "NAME=\"Demo Harbour\"\nID=demo\nVERSION_ID=1\n" },
      { path: "etc/motd", contents: "This file is removed by the second layer.\n" },
      { path: "home/" },
      { path: "home/sailor/", mode: 0o750, uid: 1000, gid: 1000 },
      { path: "home/sailor/knots/", uid: 1000, gid: 1000 },
      { path: "home/sailor/knots/granny", uid: 1000, gid: 1000, contents: "hidden by the opaque folder of the second layer\n" },
      { path: "tmp/", mode: 0o1777 },
      { path: "usr/" },
      { path: "usr/bin/" },
      { path: "usr/bin/greet", mode: 0o755, contents: "#!/bin/sh\necho Ahoy\n" },
      { path: "usr/lib/" },
      { path: "usr/lib/libtow.so.1", mode: 0o755, contents: noise("library", 1_500_000) },
      { path: "usr/lib/libtow.so", type: "symlink", linkpath: "libtow.so.1" }
    ]),
    layer([
      { path: "etc/.wh.motd" },
      { path: "home/sailor/knots/", uid: 1000, gid: 1000 },
      { path: "home/sailor/knots/.wh..wh..opq" },
      { path: "home/sailor/knots/bowline", uid: 1000, gid: 1000, contents: "The rabbit comes out of the hole.\n" },
      { path: "usr/bin/ahoy", type: "link", linkpath: "usr/bin/greet" },
      { path: "var/lib/log", contents: noise("log", 400_000) }
    ]),
    layer([
      { path: "usr/share/" },
      { path: "usr/share/charts/" },
      { path: "usr/share/charts/north sea", contents: noise("chart", 700_000) },
      { path: "etc/os-release", contents: "NAME=\"Demo Harbour\"\nID=demo\nVERSION_ID=2\n" }
    ], { compression: "zstd" })
  ]
})
