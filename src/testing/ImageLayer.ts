import { Effect } from "effect"
import { createHash, type Hash } from "node:crypto"
import { closeSync, openSync, writeSync } from "node:fs"
import { constants, crc32, deflateRawSync, gzipSync, zstdCompressSync } from "node:zlib"
import { Digest } from "../image/Digest.ts"
import { archive, blocks, endMark, header, type Item } from "./Archive.ts"

/** A blob's bytes: in memory, or the whole of a file. */
export type Body = Uint8Array | { readonly file: string }

/** How a layer is compressed. */
export type Compression = "none" | "gzip" | "zstd"

/** How a tar becomes a layer blob. */
export interface LayerOptions {
  /** Default gzip. */
  readonly compression?: Compression
  /** Into how many gzip members or zstd frames the tar is cut. Default 1. */
  readonly members?: number
  /** zstd: where skippable frames stand (middle: between every two frames). */
  readonly skippable?: ReadonlyArray<"first" | "middle" | "last">
  /** Bytes appended after the compressed data: junk that a reader must refuse. */
  readonly junk?: Uint8Array
  /** Media type instead of the one that fits the compression and the image's format. */
  readonly mediaType?: string
}

/** A layer blob, with the digest of its uncompressed tar. */
export interface BuiltLayer {
  readonly digest: Digest
  /** Bytes of the blob. */
  readonly size: number
  readonly diffId: Digest
  readonly body: Body
  readonly compression: Compression
  readonly mediaType: string | undefined
}

/** The digest of `bytes` (default sha256). */
export const digestOf = (bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): Digest =>
  Digest.make(`${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`)

/** A zstd skippable frame of 11 bytes (RFC 8878, 3.1.2). */
export const skippableFrame: Uint8Array = Uint8Array.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])

const compress = (tar: Uint8Array, options: LayerOptions): Uint8Array => {
  const { compression = "gzip", members = 1, skippable = [] } = options
  if (compression === "none") return Buffer.concat([tar, options.junk ?? new Uint8Array()])
  const piece = Math.max(1, Math.ceil(tar.byteLength / members))
  const parts: Array<Uint8Array> = []
  if (skippable.includes("first")) parts.push(skippableFrame)
  for (let k = 0; k < members; k++) {
    if (k > 0 && skippable.includes("middle")) parts.push(skippableFrame)
    const bytes = tar.subarray(k * piece, (k + 1) * piece)
    parts.push(compression === "gzip" ? gzipSync(bytes) : zstdCompressSync(bytes))
  }
  if (skippable.includes("last")) parts.push(skippableFrame)
  return Buffer.concat([...parts, options.junk ?? new Uint8Array()])
}

/** A layer of tar bytes that are there already, or of anything that is to pass for them. */
export const layerOf = (tar: Uint8Array, options: LayerOptions = {}): BuiltLayer => {
  const body = compress(tar, options)
  return {
    digest: digestOf(body),
    size: body.byteLength,
    diffId: digestOf(tar),
    body,
    compression: options.compression ?? "gzip",
    mediaType: options.mediaType
  }
}

/** A layer of these entries. The same input gives the same diff ID everywhere, and the same blob on the same Node. */
export const layer = (items: ReadonlyArray<Item>, options?: LayerOptions): BuiltLayer => layerOf(archive(items), options)

/** What a huge layer holds. */
export interface HugeLayerOptions {
  /** Where the blob is written (replaced if there). */
  readonly file: string
  /** The one big file's path in the layer. Default `big`. */
  readonly path?: string
  /** Its size in bytes; may pass 4 GiB and, as PAX allows, 8 GiB. */
  readonly size: number
  /** gzip (default): one member. zstd: one frame for each 16 MiB. */
  readonly compression?: "gzip" | "zstd"
  /** Entries before it. */
  readonly before?: ReadonlyArray<Item>
  /** Entries after it. */
  readonly after?: ReadonlyArray<Item>
}

const piece = Buffer.alloc(16 << 20)

/** Compresses tar bytes into an open file; a run of zeros is compressed once and written again and again. */
class Writer {
  size = 0
  private plain = 0
  private crc = 0
  private readonly zeros: Buffer
  private readonly diff = createHash("sha256")
  private readonly blob = createHash("sha256")
  private readonly fd: number
  private readonly compression: "gzip" | "zstd"

  constructor(fd: number, compression: "gzip" | "zstd") {
    this.fd = fd
    this.compression = compression
    this.zeros = this.compressed(piece)
    if (compression === "gzip") this.out(Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]))
  }

  take(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return
    this.diff.update(bytes)
    this.plain += bytes.byteLength
    if (this.compression === "gzip") this.crc = crc32(bytes, this.crc)
    this.out(bytes === piece ? this.zeros : this.compressed(bytes))
  }

  end(): { readonly digest: Digest; readonly diffId: Digest } {
    if (this.compression === "gzip") {
      const trailer = Buffer.from([3, 0, 0, 0, 0, 0, 0, 0, 0, 0]) // an empty last block, CRC-32, length modulo 2^32
      trailer.writeUInt32LE(this.crc, 2)
      trailer.writeUInt32LE(this.plain % 2 ** 32, 6)
      this.out(trailer)
    }
    const digest = (hash: Hash) => Digest.make(`sha256:${hash.digest("hex")}`)
    return { digest: digest(this.blob), diffId: digest(this.diff) }
  }

  /** Deflate blocks that end on a byte and refer to nothing before them, or a zstd frame: either may follow itself. */
  private compressed(bytes: Uint8Array): Buffer {
    return this.compression === "gzip"
      ? deflateRawSync(bytes, { level: 6, finishFlush: constants.Z_FULL_FLUSH })
      : zstdCompressSync(bytes)
  }

  private out(bytes: Buffer): void {
    this.blob.update(bytes)
    this.size += bytes.byteLength
    for (let at = 0; at < bytes.byteLength;) at += writeSync(this.fd, bytes, at)
  }
}

/**
 * A layer with one huge file of zeros, written to `options.file` and served from there: nothing is held in memory but 16 MiB
 * (4 GiB give a blob of about 4 MiB with gzip). The caller removes the file. Other fibers run in between.
 */
export const hugeLayer = (options: HugeLayerOptions): Effect.Effect<BuiltLayer> =>
  Effect.acquireUseRelease(
    Effect.sync(() => openSync(options.file, "w")),
    Effect.fnUntraced(function*(fd) {
      const compression = options.compression ?? "gzip"
      const writer = new Writer(fd, compression)
      writer.take(blocks(options.before ?? []))
      writer.take(header({ path: options.path ?? "big" }, options.size))
      for (let left = options.size; left > 0; left -= piece.byteLength) {
        writer.take(left < piece.byteLength ? piece.subarray(0, left) : piece)
        yield* Effect.yieldNow
      }
      writer.take(new Uint8Array((512 - options.size % 512) % 512))
      writer.take(blocks(options.after ?? []))
      writer.take(endMark)
      return { ...writer.end(), size: writer.size, body: { file: options.file }, compression, mediaType: undefined }
    }),
    (fd) => Effect.sync(() => closeSync(fd))
  )
