import { Buffer } from "node:buffer"
import { createHash, type Hash } from "node:crypto"
import { crc32 } from "node:zlib"
import type { Decoder, Sink } from "./Decoder.ts"
import { Refused } from "../Fault.ts"
import { defaultLimits } from "../Limits.ts"
import { Gather } from "./Gather.ts"
import { damaged, Lzma } from "./Lzma.ts"
import { type XzCheck, xzCheck } from "./XzCheck.ts"

type State = "start" | "between" | "block" | "control" | "chunk" | "stored" | "padding" | "check" | "count" | "records" | "indexEnd" | "footer"

const magic = Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)
/** What one chunk of stored bytes gives the sink at most. */
const storedPiece = 1 << 16

/**
 * Decodes xz streams (The .xz File Format 1.2.1), one after the other, with padding of zeros in fours behind each. Every
 * checksum, size and the index are verified; filters other than LZMA2, dictionaries larger than `maxWindow` bytes and
 * reserved checks are refused.
 */
export class XzDecoder implements Decoder {
  private readonly sink: Sink
  private readonly maxWindow: number
  private readonly reserve: (bytes: number) => void
  private readonly input = new Gather()
  private state: State = "start"
  private flags: Uint8Array = new Uint8Array(2)
  private check: XzCheck = xzCheck(0)
  private lzma: Lzma | undefined = undefined
  private window = 0
  /** Sizes of the current block: what its header says, and what came. */
  private headerSize = 0
  private saysCompressed: number | undefined = undefined
  private saysSize: number | undefined = undefined
  private compressed = 0
  private size = 0
  private chunkIn = 0
  private chunkOut = 0
  private needsDictionary = true
  private needsProperties = true
  /** The blocks' sizes as they were, and as the index says: a number and a digest of each. */
  private blocks = 0
  private records = 0
  private seen: Hash = createHash("sha256")
  private told: Hash = createHash("sha256")
  private half: number | undefined = undefined
  private number = 0
  private shift = 1
  private indexSize = 0
  private indexCrc = 0

  constructor(sink: Sink, maxWindow: number, reserve: (bytes: number) => void) {
    this.sink = (bytes) => {
      this.size += bytes.byteLength
      this.check.update(bytes)
      sink(bytes)
    }
    this.maxWindow = maxWindow
    this.reserve = reserve
  }

  write(bytes: Uint8Array): void {
    this.input.offer(bytes)
    while (this.step());
  }

  end(): void {
    if (this.state !== "between" || this.input.have > 0) throw new Refused("the xz stream is truncated")
  }

  close(): void {
    this.lzma?.close()
    this.lzma = undefined
  }

  /** Reads one piece of the format; false if it has not all come. */
  private step(): boolean {
    switch (this.state) {
      case "start": return this.with(12, (bytes) => this.start(bytes))
      case "between": return this.between()
      case "block": return this.block()
      case "control": return this.readControl()
      case "chunk": return this.with(this.chunkIn, (bytes) => this.chunk(bytes))
      case "stored": return this.stored()
      case "padding": return this.with(-this.compressed & 3, (bytes) => {
        if (bytes.some((byte) => byte !== 0)) throw damaged()
        this.state = "check"
      })
      case "check": return this.with(this.check.size, (bytes) => this.endBlock(bytes))
      case "count":
      case "records": return this.with(1, ([byte = 0]) => this.index(byte))
      case "indexEnd": return this.with((-this.indexSize & 3) + 4, (bytes) => this.endIndex(bytes))
      case "footer": return this.with(12, (bytes) => this.footer(bytes))
    }
  }

  private with(size: number, use: (bytes: Uint8Array) => void): boolean {
    const bytes = size === 0 ? new Uint8Array(0) : this.input.take(size)
    if (bytes === undefined) return false
    use(bytes)
    return true
  }

  private between(): boolean {
    const bytes = this.input.peek(4)
    if (bytes === undefined) return false
    if (bytes.every((byte) => byte === 0)) this.input.take(4)
    else if (bytes.every((byte, n) => byte === magic[n])) this.state = "start"
    else throw new Refused("the xz stream has bytes that belong to no stream")
    return true
  }

  private start(bytes: Uint8Array): void {
    if (!magic.every((byte, n) => byte === bytes[n]) || bytes[6] !== 0 || (bytes[7] ?? 0) > 15 || !crcFits(bytes, 6, 8)) throw damaged()
    this.flags = Uint8Array.from(bytes.subarray(6, 8))
    this.check = xzCheck(bytes[7] ?? 0)
    this.blocks = this.records = 0
    this.state = "block"
  }

  private block(): boolean {
    const first = this.input.peek(1)?.[0]
    if (first === undefined) return false
    if (first !== 0) return this.with((first + 1) * 4, (bytes) => this.blockHeader(bytes))
    this.input.take(1)
    this.indexSize = 1
    this.indexCrc = crc32(Uint8Array.of(0))
    this.state = "count"
    return true
  }

  private blockHeader(bytes: Uint8Array): void {
    const end = bytes.byteLength - 4
    if (!crcFits(bytes, 0, end)) throw damaged()
    const fields = new Fields(bytes.subarray(0, end))
    fields.at = 1
    const flags = fields.byte()
    if ((flags & 0x3c) !== 0) throw damaged()
    this.saysCompressed = (flags & 0x40) === 0 ? undefined : fields.number()
    this.saysSize = (flags & 0x80) === 0 ? undefined : fields.number()
    const id = fields.number()
    if ((flags & 3) !== 0 || id !== 0x21) throw new Refused(`the xz stream uses another filter than LZMA2 (${(flags & 3) + 1} filters, the first is ${id})`)
    if (fields.number() !== 1) throw damaged()
    const exponent = fields.byte()
    if (exponent > 40 || fields.rest.some((byte) => byte !== 0)) throw damaged()
    const window = exponent === 40 ? 2 ** 32 - 1 : (2 | (exponent & 1)) * 2 ** ((exponent >> 1) + 11)
    if (window > this.maxWindow) throw new Refused(`the xz stream needs a dictionary of ${window} bytes, the limit is ${this.maxWindow}`, undefined, this.maxWindow < defaultLimits.window ? "window" : undefined)
    if (this.window !== window) this.close()
    this.reserve(window)
    this.lzma ??= new Lzma(window, this.sink)
    this.window = window
    this.headerSize = bytes.byteLength
    this.compressed = this.size = 0
    this.needsDictionary = this.needsProperties = true
    this.state = "control"
  }

  private readControl(): boolean {
    const control = this.input.peek(1)?.[0]
    if (control === undefined) return false
    if (control >= 0x80) return this.with(control >= 0xc0 ? 6 : 5, (bytes) => this.lzmaChunk(bytes))
    if (control === 0) return this.with(1, () => this.endChunks())
    if (control > 2) throw damaged()
    return this.with(3, (bytes) => this.storedChunk(bytes))
  }

  private endChunks(): void {
    this.compressed++
    if (this.saysCompressed !== undefined && this.saysCompressed !== this.compressed) throw damaged()
    if (this.saysSize !== undefined && this.saysSize !== this.size) throw damaged()
    this.state = "padding"
  }

  private lzmaChunk(bytes: Uint8Array): void {
    const [control = 0, b = 0, c = 0, d = 0, e = 0, properties = 0] = bytes
    const { lzma } = this
    if (lzma === undefined) throw damaged()
    if (control >= 0xe0) {
      lzma.resetDictionary()
      this.needsDictionary = false
    } else if (this.needsDictionary) throw damaged()
    if (control >= 0xc0) {
      lzma.setProperties(properties)
      this.needsProperties = false
    } else if (this.needsProperties) throw damaged()
    if (control >= 0xa0) lzma.resetState()
    this.chunkOut = ((control & 0x1f) << 16) + (b << 8) + c + 1
    this.chunkIn = (d << 8) + e + 1
    this.beginChunk(bytes.byteLength, this.chunkOut)
    this.state = "chunk"
  }

  private storedChunk([control = 0, b = 0, c = 0]: Uint8Array): void {
    if (control === 1) {
      this.lzma?.resetDictionary()
      this.needsDictionary = false
      this.needsProperties = true
    } else if (this.needsDictionary) throw damaged()
    this.chunkIn = (b << 8) + c + 1
    this.beginChunk(3, this.chunkIn)
    this.state = "stored"
  }

  private beginChunk(header: number, gives: number): void {
    this.compressed += header + this.chunkIn
    if (this.compressed >= (this.saysCompressed ?? Infinity) || this.size + gives > (this.saysSize ?? Infinity)) throw damaged()
  }

  private chunk(bytes: Uint8Array): void {
    this.lzma?.decode(bytes, this.chunkOut)
    this.state = "control"
  }

  private stored(): boolean {
    const bytes = this.input.take(Math.min(this.chunkIn, Math.max(1, Math.min(this.input.left, storedPiece))))
    if (bytes === undefined) return false
    this.lzma?.copy(bytes)
    this.chunkIn -= bytes.byteLength
    if (this.chunkIn === 0) this.state = "control"
    return true
  }

  private endBlock(bytes: Uint8Array): void {
    if (!Buffer.from(this.check.digest()).equals(bytes)) throw damaged()
    this.blocks++
    this.seen.update(`${this.headerSize + this.compressed + this.check.size}:${this.size} `)
    this.state = "block"
  }

  /** Takes one byte of the index: of the number of records, or of the two numbers of each. */
  private index(byte: number): void {
    this.indexSize++
    this.indexCrc = crc32(Uint8Array.of(byte), this.indexCrc)
    if ((byte === 0 && this.shift > 1) || this.shift > 2 ** 49) throw damaged()
    this.number += (byte & 0x7f) * this.shift
    this.shift *= 128
    if (byte >= 0x80) return
    const value = this.number
    this.number = 0
    this.shift = 1
    if (this.state === "count") {
      if (value !== this.blocks) throw damaged()
      this.state = "records"
    } else if (this.half === undefined) this.half = value
    else {
      this.told.update(`${this.half}:${value} `)
      this.half = undefined
      this.records++
    }
    if (this.records === this.blocks) this.state = "indexEnd"
  }

  private endIndex(bytes: Uint8Array): void {
    const padding = bytes.byteLength - 4
    for (let n = 0; n < padding; n++) if (bytes[n] !== 0) throw damaged()
    const crc = crc32(bytes.subarray(0, padding), this.indexCrc)
    if (crc !== Buffer.from(bytes.subarray(padding)).readUInt32LE(0) || this.seen.digest("hex") !== this.told.digest("hex")) throw damaged()
    this.seen = createHash("sha256")
    this.told = createHash("sha256")
    this.indexSize += bytes.byteLength
    this.state = "footer"
  }

  private footer(bytes: Uint8Array): void {
    const view = Buffer.from(bytes)
    const fits = view.readUInt32LE(0) === crc32(view.subarray(4, 10)) && (view.readUInt32LE(4) + 1) * 4 === this.indexSize &&
      this.flags.every((byte, n) => byte === view[8 + n]) && view[10] === 0x59 && view[11] === 0x5a
    if (!fits) throw damaged()
    this.state = "between"
  }
}

/** Whether the four bytes at `to` are the CRC32 of those before, from `from`. */
const crcFits = (bytes: Uint8Array, from: number, to: number): boolean =>
  crc32(bytes.subarray(from, to)) === Buffer.from(bytes.subarray(to, to + 4)).readUInt32LE(0)

/** Reads the fields of a block header. */
class Fields {
  at = 0
  private readonly bytes: Uint8Array
  constructor(bytes: Uint8Array) { this.bytes = bytes }

  get rest(): Uint8Array { return this.bytes.subarray(this.at) }

  byte(): number {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw damaged()
    return byte
  }

  /** A number of up to 9 bytes of 7 bits, of which we take what a double holds: 2^53 and more are damage. */
  number(): number {
    let value = 0
    for (let shift = 1;; shift *= 128) {
      const byte = this.byte()
      if ((byte === 0 && shift > 1) || shift > 2 ** 49) throw damaged()
      value += (byte & 0x7f) * shift
      if (byte < 0x80) return value
    }
  }
}
