import { Buffer } from "node:buffer"
import { checkName, type Draft, draft, Extensions, natural } from "./Draft.ts"
import type { EntrySink } from "./Entry.ts"
import { Refused } from "../Fault.ts"
import { defaultLimits, type LimitName, type Limits } from "../Limits.ts"
import * as Pax from "./Pax.ts"
import * as Sparse from "./Sparse.ts"
import { blockSize, TarHeader } from "./TarHeader.ts"

/** The limits a reader of archives looks at. */
export type TarLimits = Pick<Limits, "entries" | "bytes" | "record" | "path" | "depth">

const noBytes: Buffer = Buffer.alloc(0)
const globalType = 0x67
const longNameType = 0x4c
const longLinkType = 0x4b

/** Types of extension headers: PAX `x` and `g`, Solaris' `X`, GNU's `L` and `K`. */
const isExtension = (type: number): boolean =>
  type === 0x78 || type === globalType || type === 0x58 || type === longNameType || type === longLinkType

const paddingOf = (size: number): number => (blockSize - size % blockSize) % blockSize

/**
 * Reads a tar archive written to it in chunks of any size and drives `sink`; data is passed on without copying. Reads v7,
 * ustar, star's prefix, old GNU (long names, base-256, sparse) and PAX (local and global headers, GNU sparse 0.0 to 1.0).
 *
 * As Go's archive/tar (Docker, containerd, umoci) where dialects are silent: links, devices, folders and fifos hold no data
 * whatever their size says; an archive may end without its end marker, or with half of it, after a whole entry, and so may
 * be empty; a block of zeros followed by anything else is refused. A file whose name ends in `/` is a folder. After the
 * end marker (two blocks of zeros) nothing is read, only counted. Types no layer needs are refused. `write` and `end`
 * throw `Refused`, and what `sink` throws; after that the reader must not be used.
 */
export class TarReader {
  /** Entries so far. */
  entries = 0
  /** Sum of the sizes of the entries so far: what Docker calls the layer's size. */
  size = 0
  private readonly sink: EntrySink
  private readonly limits: TarLimits
  private readonly header = new TarHeader()
  private state: "header" | "extension" | "record" | "map" | "data" | "padding" | "drain" = "header"
  /** Bytes taken, and bytes sparse files claimed beyond them. */
  private position = 0
  private claimed = 0
  /** Bytes of the current block or record that have come. */
  private have = 0
  /** Bytes of the current record, data or padding that are still to come, and of the padding after them. */
  private left = 0
  private padding = 0
  private zeroBlock = false
  private recordType = 0
  private record: Buffer = noBytes
  private readonly extensions = new Extensions()
  /** The current entry's name: what a refusal names. */
  private name: Buffer = noBytes
  private draft: Draft | undefined = undefined
  private map: Sparse.MapReader | undefined = undefined
  private segments: Sparse.Segments | undefined = undefined
  private segment = 0
  /** Bytes of the current file, or of its current segment, that have come. */
  private at = 0

  constructor(sink: EntrySink, limits: TarLimits = defaultLimits) {
    this.sink = sink
    this.limits = limits
  }

  /** Takes the next bytes of the archive. */
  write(chunk: Uint8Array): void {
    this.checkTotal(chunk.byteLength)
    for (let at = 0; at < chunk.byteLength;) {
      switch (this.state) {
        case "header":
        case "extension": at += this.takeBlock(chunk, at); break
        case "record": at += this.takeRecord(chunk, at); break
        case "map": at += this.takeMap(chunk, at); break
        case "data": at += this.takeData(chunk, at); break
        case "padding": at += this.takePadding(chunk, at); break
        case "drain":
          this.position += chunk.byteLength - at
          at = chunk.byteLength
      }
    }
    this.checkTotal(0) // what sparse files claimed in between
  }

  /**
   * Passes over what is still to come of a plain file's data, and its padding, for a reader that seeks: gives how many bytes
   * of the archive are not to be written. `sink.end` is called.
   */
  skip(): number {
    if (this.state !== "data" || this.segments !== undefined) return 0
    const bytes = this.left + this.padding
    this.position += bytes
    this.left = this.padding = 0
    this.finish()
    return bytes
  }

  /** Whether the end marker was read: nothing that follows is looked at. */
  get ended(): boolean { return this.state === "drain" }

  /** Says that the archive has no more bytes. */
  end(): void {
    switch (this.state) {
      case "drain": return
      case "header":
        if (this.have > 0) throw new Refused("the archive is truncated in a header")
        return this.noOrphan()
      case "extension": throw this.refuse("the archive is truncated in its header")
      case "record": throw this.refuse("the archive is truncated in an extension header")
      case "map":
      case "data": throw this.refuse("the archive is truncated in its data")
      case "padding": throw this.refuse("the archive is truncated in the padding of its data")
    }
  }

  private takeBlock(chunk: Uint8Array, at: number): number {
    const taken = Math.min(blockSize - this.have, chunk.byteLength - at)
    this.header.bytes.set(chunk.subarray(at, at + taken), this.have)
    this.have += taken
    this.position += taken
    if (this.have === blockSize) {
      this.have = 0
      if (this.state === "extension") this.readExtension()
      else this.readHeader()
    }
    return taken
  }

  private readHeader(): void {
    const { header } = this
    const sum = header.sum()
    if (sum === 0) {
      this.noOrphan()
      if (this.zeroBlock) this.state = "drain"
      this.zeroBlock = true
      return
    }
    if (this.zeroBlock) throw new Refused("a block of zeros is followed by something else: the archive's end is two of them")
    if (!header.checks(sum)) {
      throw this.refuse(this.position === blockSize ? "it does not begin with a tar header: the checksum is wrong" : "what follows it is no tar header: the checksum is wrong")
    }
    if (isExtension(header.type)) return this.beginRecord(header.type)
    const begun = draft(header, this.extensions, this.limits)
    const records = this.extensions.local?.sparse
    this.extensions.clear()
    this.name = begun.path
    if (++this.entries > this.limits.entries) throw this.refuse(`the archive has more than ${this.limits.entries} entries`, "entries")
    this.left = begun.stored
    this.padding = paddingOf(begun.stored)
    if (header.type === 0x53) this.beginOldSparse(begun, records)
    else if (records !== undefined) this.beginPaxSparse(begun, records)
    else this.begin(begun)
  }

  private begin(begun: Draft): void {
    const { left } = this
    const { type, path, linkpath, mode, uid, gid, size, mtimeSeconds, mtimeNanos, devmajor, devminor, xattrs, pairs } = begun
    const sparse = this.segments = pairs === undefined ? undefined : Sparse.segments(pairs, size, left, path)
    this.draft = this.map = undefined
    this.segment = this.at = 0
    this.claimed += size - left
    this.checkTotal(left)
    this.size += size
    this.sink.entry({ type, path, linkpath, mode, uid, gid, size, mtimeSeconds, mtimeNanos, devmajor, devminor, xattrs, sparse })
    if (left === 0) this.finish()
    else this.state = "data"
  }

  private takeData(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.left, chunk.byteLength - at)
    this.position += taken
    this.left -= taken
    if (this.segments !== undefined) this.scatter(chunk.subarray(at, at + taken), this.segments)
    else {
      this.sink.data(taken === chunk.byteLength ? chunk : chunk.subarray(at, at + taken), this.at)
      this.at += taken
    }
    if (this.left === 0) this.finish()
    return taken
  }

  private scatter(bytes: Uint8Array, segments: Sparse.Segments): void {
    for (let from = 0; from < bytes.byteLength;) {
      const [offset, length] = segments[this.segment] ?? [0, Infinity]
      const taken = Math.min(length - this.at, bytes.byteLength - from)
      this.sink.data(bytes.subarray(from, from + taken), offset + this.at)
      from += taken
      this.at += taken
      if (this.at < length) continue
      this.segment++
      this.at = 0
    }
  }

  private finish(): void {
    this.sink.end()
    this.pad()
  }

  private pad(): void {
    this.left = this.padding
    this.state = this.left === 0 ? "header" : "padding"
  }

  private takePadding(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.left, chunk.byteLength - at)
    this.position += taken
    this.left -= taken
    if (this.left === 0) this.state = "header"
    return taken
  }

  private beginRecord(type: number): void {
    const { header } = this
    this.name = this.extensions.longName ?? this.extensions.local?.path ?? header.name()
    if (type === globalType) this.noOrphan()
    const size = natural(header, "size", this.name)
    if (size > this.limits.record) throw this.refuse(`its extension header is larger than ${this.limits.record} bytes`, "record")
    this.recordType = type
    this.left = size
    this.padding = paddingOf(size)
    this.state = "record"
    if (size === 0) this.readRecord(noBytes)
  }

  private takeRecord(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.left, chunk.byteLength - at)
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset + at, taken)
    this.position += taken
    if (this.have === 0 && taken === this.left) {
      this.readRecord(bytes)
      return taken
    }
    if (this.have === 0) this.record = Buffer.allocUnsafe(this.left)
    this.record.set(bytes, this.have)
    this.have += taken
    this.left -= taken
    if (this.left === 0) {
      this.have = 0
      this.readRecord(this.record)
      this.record = noBytes
    }
    return taken
  }

  /** `body` may be a view of the chunk: what is kept of it is copied. */
  private readRecord(body: Buffer): void {
    this.pad()
    if (this.recordType === globalType) return Pax.global(body, this.extensions.global, this.name)
    if (this.recordType !== longNameType && this.recordType !== longLinkType) {
      this.extensions.local = Pax.local(body, this.name)
      return
    }
    const end = body.indexOf(0)
    const text = Buffer.from(end === -1 ? body : body.subarray(0, end))
    const isName = this.recordType === longNameType
    checkName(text, isName ? "name" : "link target", this.limits, this.name)
    if (isName) this.extensions.longName = text
    else this.extensions.longLink = text
  }

  /** An extension header must be followed by the entry it speaks of. */
  private noOrphan(): void {
    if (this.extensions.pending) throw this.refuse("an extension header is not followed by the entry it describes")
  }

  private beginOldSparse(begun: Draft, records: Pax.SparseRecords | undefined): void {
    const { header } = this
    if (header.dialect !== "gnu" || records !== undefined) throw this.refuse("it is sparse in a way that is not old GNU's")
    begun.size = natural(header, "realsize", this.name)
    begun.pairs = []
    Sparse.oldPairs(header, 386, 4, begun.pairs)
    if (header.bytes[482] === 0) return this.begin(begun)
    this.draft = begun
    this.state = "extension"
  }

  private readExtension(): void {
    const { draft, header, limits } = this
    if (draft?.pairs === undefined) throw new Error("an extension block without its header")
    Sparse.oldPairs(header, 0, 21, draft.pairs)
    if (draft.pairs.length * 12 > limits.record) throw this.refuse(`its sparse map is larger than ${limits.record} bytes`, "record")
    if (header.bytes[504] === 0) this.begin(draft)
  }

  private beginPaxSparse(begun: Draft, { major = 0, minor = 0, size, blocks, map }: Pax.SparseRecords): void {
    if (begun.type !== "file" || size === undefined) throw this.refuse("its GNU.sparse records are incomplete, or it is no file")
    begun.size = size
    if (major === 1 && minor === 0) {
      this.draft = begun
      this.map = new Sparse.MapReader(this.name, this.limits.record)
      this.state = "map"
      if (this.left === 0) throw this.refuse("its sparse map is truncated")
      return
    }
    if (major !== 0 || minor > 1 || map === undefined || (blocks !== undefined && blocks * 2 !== map.length)) {
      throw this.refuse("its GNU.sparse records are incomplete or of an unknown version")
    }
    begun.pairs = map
    this.begin(begun)
  }

  private takeMap(chunk: Uint8Array, at: number): number {
    const { map, draft } = this
    if (map === undefined || draft === undefined) throw new Error("a sparse map without its header")
    const taken = map.take(chunk, at, Math.min(chunk.byteLength, at + this.left)) - at
    this.position += taken
    this.left -= taken
    if (map.done) {
      draft.pairs = map.pairs
      this.begin(draft)
    } else if (this.left === 0) throw this.refuse("its sparse map is truncated")
    return taken
  }

  /** Refuses a stream that is, or must become, larger than the limit. */
  private checkTotal(ahead: number): void {
    if (this.position + this.claimed + ahead > this.limits.bytes) throw this.refuse(`the archive is, or claims to be, larger than ${this.limits.bytes} bytes`, "size")
  }

  private refuse(rule: string, limit?: LimitName): Refused { return new Refused(rule, this.name.byteLength === 0 ? undefined : this.name, limit) }
}
