import { createHash } from "node:crypto"
import { closeSync, openSync, readSync, statSync } from "node:fs"
import { Digest } from "../image/Digest.ts"
import type { Body } from "./ImageLayer.ts"

/** Bytes that can be read from anywhere, in pieces; `size` may be Infinity. */
export interface Source {
  readonly size: number
  /** The bytes from `from` to `to` (exclusive), in pieces. */
  readonly read: (from: number, to: number) => Iterable<Uint8Array>
}

const pieceSize = 256 * 1024

/** Bytes in memory. */
export const bytes = (body: Uint8Array): Source => ({
  size: body.byteLength,
  read: function*(from, to) {
    for (let at = from; at < Math.min(to, body.byteLength); at += pieceSize) {
      yield body.subarray(at, Math.min(at + pieceSize, to, body.byteLength))
    }
  }
})

/** No descriptor is held between two pieces: a reader that stops early leaves nothing open. */
const readAt = (path: string, at: number, length: number): Uint8Array => {
  const fd = openSync(path, "r")
  try {
    const piece = Buffer.alloc(length)
    return piece.subarray(0, readSync(fd, piece, 0, length, at))
  } finally {
    closeSync(fd)
  }
}

const file = (path: string): Source => ({
  size: statSync(path).size,
  read: function*(from, to) {
    for (let at = from; at < to;) {
      const piece = readAt(path, at, Math.min(pieceSize, to - at))
      if (piece.byteLength === 0) return
      yield piece
      at += piece.byteLength
    }
  }
})

/** A blob's bytes, as they are now. */
export const of = (body: Body): Source => body instanceof Uint8Array ? bytes(body) : file(body.file)

/** `size` bytes of 0x2e. */
export const filler = (size: number): Source => ({
  size,
  read: function*(from, to) {
    const piece = Buffer.alloc(Math.min(pieceSize, Math.max(0, to - from)), 0x2e)
    for (let at = from; at < to; at += piece.byteLength) yield piece.subarray(0, Math.min(piece.byteLength, to - at))
  }
})

/** A part of another source, as a source of its own. */
export const slice = (source: Source, from: number, to: number): Source => ({
  size: Math.max(0, Math.min(to, source.size) - from),
  read: (start, end) => source.read(from + start, Math.min(from + end, to))
})

/** Sources one after the other. */
export const join = (...sources: ReadonlyArray<Source>): Source => ({
  size: sources.reduce((sum, source) => sum + source.size, 0),
  read: function*(from, to) {
    let begin = 0
    for (const source of sources) {
      const end = begin + source.size
      if (from < end && to > begin) yield* source.read(Math.max(0, from - begin), Math.min(source.size, to - begin))
      begin = end
    }
  }
})

/** A source with one bit of the byte at `place` turned over. */
export const flip = (source: Source, place: number, bit: number): Source => ({
  size: source.size,
  read: function*(from, to) {
    let at = from
    for (const piece of source.read(from, to)) {
      const here = place - at
      if (here >= 0 && here < piece.byteLength) {
        const copy = Buffer.from(piece)
        copy[here] = (copy[here] ?? 0) ^ (1 << bit)
        yield copy
      } else yield piece
      at += piece.byteLength
    }
  }
})

/** Its sha256 digest, read piece by piece. */
export const digest = (source: Source): Digest => {
  const hash = createHash("sha256")
  for (const piece of source.read(0, source.size)) hash.update(piece)
  return Digest.make(`sha256:${hash.digest("hex")}`)
}

/** All of it at once. */
export const collect = (source: Source): Buffer => Buffer.concat([...source.read(0, source.size)].map((piece) => Buffer.from(piece)))
