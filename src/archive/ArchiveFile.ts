import { Effect, type Scope, Stream } from "effect"
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { type ArchiveError, ArchiveRefused, faultOf } from "./Fault.ts"

/** Where a file's bytes are: `offset` in an open descriptor. */
export interface Place {
  readonly fd: number
  readonly offset: number
}

const pieceSize = 256 * 1024
/** How many pieces a stream has at a time: the memory of an older one is used again. */
const piecesKept = 4

/**
 * One file of an archive or layout folder. Nothing of it is read before it is asked for. In a folder it is opened anew each
 * time, never through a link, and must still have its size.
 */
export class ArchiveFile {
  /** The archive's path, and the file's name in it as people read it. */
  readonly archive: string
  readonly name: string
  /** In bytes. */
  readonly size: number
  private readonly place: Place | { readonly path: string }

  constructor(archive: string, name: string, size: number, place: Place | { readonly path: string }) {
    this.archive = archive
    this.name = name
    this.size = size
    this.place = place
  }

  /** A refusal that names this file. */
  refuse(rule: string): ArchiveRefused {
    return new ArchiveRefused({ archive: this.archive, entry: this.name, rule })
  }

  /** Where its bytes can be read until the scope closes. */
  get open(): Effect.Effect<Place, ArchiveError, Scope.Scope> {
    return Effect.map(
      Effect.acquireRelease(attempt(this.archive, () => this.enter()), (place) => Effect.sync(() => this.leave(place))),
      ({ fd, offset }) => ({ fd, offset }))
  }

  /** All of it, if it has at most `cap` bytes. Synchronous and throwing: for small documents. */
  bytes(cap: number): Uint8Array {
    if (this.size > cap) throw this.refuse(`it has ${this.size} bytes, and at most ${cap} are taken`)
    return this.slice(0, this.size)
  }

  /** Up to `length` of its bytes from `from` on. Synchronous and throwing. */
  slice(from: number, length: number): Uint8Array {
    const into = new Uint8Array(Math.max(0, Math.min(length, this.size - from)))
    const place = this.enter()
    try {
      this.fill(place, into, from)
    } finally {
      this.leave(place)
    }
    return into
  }

  /** Its bytes from `from` on, 256 KiB at a time. A piece is valid until the third after it is asked for: who keeps one copies it. */
  stream(from = 0): Stream.Stream<Uint8Array, ArchiveError> {
    return Stream.unwrap(Effect.map(this.open, (place) => {
      const pieces = Array.from({ length: this.size - from > pieceSize ? piecesKept : 1 }, () => Buffer.allocUnsafeSlow(Math.max(0, Math.min(pieceSize, this.size - from))))
      let count = 0
      return Stream.unfold(from, (at) => {
        if (at >= this.size) return Effect.succeed(undefined)
        return attempt(this.archive, () => {
          const piece = pieces[count++ % pieces.length]?.subarray(0, this.size - at) ?? Buffer.alloc(0)
          this.fill(place, piece, at)
          return [piece, at + piece.byteLength] as const
        })
      })
    }))
  }

  private fill({ fd, offset }: Place, into: Uint8Array, from: number): void {
    for (let at = 0; at < into.byteLength;) {
      const read = readSync(fd, into, at, into.byteLength - at, offset + from + at)
      if (read === 0) throw this.refuse(`it ends after ${from + at} of its ${this.size} bytes`)
      at += read
    }
  }

  private enter(): Place {
    const { place } = this
    if ("fd" in place) return place
    const fd = openSync(place.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stat = fstatSync(fd)
    if (stat.isFile() && stat.size === this.size) return { fd, offset: 0 }
    closeSync(fd)
    throw this.refuse("it was changed while it was read")
  }

  private leave(place: Place): void {
    if (place !== this.place) closeSync(place.fd)
  }
}

/** The boundary: runs plain synchronous code on the archive `path`, and makes its exceptions typed errors. */
export const attempt = <A>(path: string, run: () => A): Effect.Effect<A, ArchiveError> =>
  Effect.try({ try: run, catch: (cause) => faultOf(cause, path) })
