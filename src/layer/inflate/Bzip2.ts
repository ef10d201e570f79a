import type { Decoder, Sink } from "./Decoder.ts"
import { Refused } from "../Fault.ts"
import { Bits, Block, damagedBzip2 } from "./Bzip2Block.ts"

/** Bytes that a block can take in the worst case, beside its content: tables, selectors, the end of the stream. */
const overhead = 40_000

/**
 * Decodes bzip2 streams, one after the other. A block, of 100 to 900 KB, is decoded when all its bytes must have come:
 * how long it is only its content tells. Both checksums are verified; randomised blocks, which no writer has made since
 * 1997, are refused.
 */
export class Bzip2Decoder implements Decoder {
  private readonly block: Block
  private readonly bits = new Bits()
  private held: Uint8Array = new Uint8Array(1 << 12)
  private have = 0
  /** Bytes it waits for: none but those of the next header, or what the next block may be long. */
  private wanted = 0
  private state: "start" | "blocks" | "between" = "start"
  private limit = 0
  private combined = 0

  constructor(sink: Sink) {
    this.block = new Block(sink)
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength;) {
      const taken = this.append(bytes, at)
      at += taken
      this.decode(false)
    }
  }

  end(): void {
    this.decode(true)
    if (this.state !== "between" || this.have > 0) throw truncated()
  }

  close(): void { this.held = new Uint8Array(0) }

  /** Takes as much as makes the wanted number of bytes, and the same again, so that they are moved seldom. */
  private append(bytes: Uint8Array, at: number): number {
    const room = Math.max(this.wanted * 2, 1 << 12)
    if (this.held.byteLength < room) {
      const larger = new Uint8Array(room)
      larger.set(this.held.subarray(0, this.have))
      this.held = larger
    }
    const taken = Math.min(this.held.byteLength - this.have, bytes.byteLength - at)
    this.held.set(bytes.subarray(at, at + taken), this.have)
    this.have += taken
    return taken
  }

  /** Decodes what has come; `all`: no more comes. What is not used moves to the front. */
  private decode(all: boolean): void {
    const { bits } = this
    if (this.have < this.wanted && !all) return
    bits.give(this.held.subarray(0, this.have), bits.spare)
    try {
      while (this.step(all));
    } catch (error) {
      if (error === Bits.ended) throw all ? truncated() : damagedBzip2() // longer than any block may be
      throw error
    }
    const used = bits.taken
    this.held.copyWithin(0, used, this.have)
    this.have -= used
  }

  /** Reads a header, a block or an end; false if its bytes may not all be there. */
  private step(all: boolean): boolean {
    if (this.state === "blocks") {
      this.wanted = this.limit * 5 / 2 + overhead
      if (this.bits.left < this.wanted && !all) return false
      this.readBlock()
      return true
    }
    this.wanted = 0
    if (this.state === "between" && this.bits.left === 0) return false
    const header = this.bits.peek(Math.min(4, this.bits.left))
    const fits = "BZh".startsWith(String.fromCharCode(...header.subarray(0, 3))) && (header.byteLength < 4 || isLevel(header[3] ?? 0))
    if (!fits) throw this.state === "start" ? damagedBzip2() : new Refused("the bzip2 stream has bytes that belong to no stream")
    if (header.byteLength < 4) return false
    this.bits.skip(4)
    this.limit = ((header[3] ?? 0) - 0x30) * 100_000
    this.combined = 0
    this.state = "blocks"
    return true
  }

  private readBlock(): void {
    const { bits } = this
    const [high, low] = [bits.read(24), bits.read(24)]
    if (high === 0x314159 && low === 0x265359) {
      const crc = this.block.decode(bits, this.limit)
      this.combined = ((this.combined << 1) | (this.combined >>> 31)) ^ crc
    } else if (high === 0x177245 && low === 0x385090) {
      if (((bits.read(16) << 16) | bits.read(16)) !== this.combined) throw damagedBzip2()
      bits.align()
      this.state = "between"
    } else throw damagedBzip2()
  }
}

const isLevel = (byte: number): boolean => byte > 0x30 && byte <= 0x39
const truncated = () => new Refused("the bzip2 stream is truncated")
