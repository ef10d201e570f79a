import type { Sink } from "./Decoder.ts"
import { Refused } from "../Fault.ts"

/** Damage, of whatever kind. */
export const damagedBzip2 = (): Refused => new Refused("the bzip2 stream is damaged")

/** Bits, the highest of a byte first. */
export class Bits {
  /** Thrown by reading when the bytes are used up. */
  static readonly ended: Error = new Error("no more bits")
  private bytes: Uint8Array = new Uint8Array(0)
  private at = 0
  private held = 0
  private count = 0

  /** Reads on in `bytes`, of whose first byte `spare` bits have not been read yet (0: all of them). */
  give(bytes: Uint8Array, spare: number): void {
    this.bytes = bytes
    this.at = this.held = this.count = 0
    if (spare > 0) this.read(8 - spare)
  }

  /** Whole bytes that have been used up. */
  get taken(): number { return this.at - (this.count + 7 >> 3) }
  /** Bits of the byte after those that have not been read, 0 if that is all of them. */
  get spare(): number { return this.count & 7 }
  /** Bytes that are left, at least in part. */
  get left(): number { return this.bytes.byteLength - this.taken }

  /** The next `length` bytes, at a byte's begin. */
  peek(length: number): Uint8Array { return this.bytes.subarray(this.taken, this.taken + length) }
  /** Passes over as many bytes, at a byte's begin. */
  skip(bytes: number): void {
    this.at = this.taken + bytes
    this.held = this.count = 0
  }

  /** Passes over the rest of a byte that was begun. */
  align(): void { this.read(this.count & 7) }

  /** The next `bits`, up to 24. */
  read(bits: number): number {
    while (this.count < bits) {
      const byte = this.bytes[this.at++]
      if (byte === undefined) throw Bits.ended
      this.held = (this.held << 8) | byte
      this.count += 8
    }
    this.count -= bits
    if (this.past) throw Bits.ended
    return (this.held >>> this.count) & ((1 << bits) - 1)
  }

  /** Whether bits were read that are not there: `symbol` looks at zeros behind the end. */
  private get past(): boolean { return this.at * 8 - this.count > this.bytes.byteLength * 8 }

  /** Reads a symbol by a prefix code. */
  symbol({ quick, limits, bases, symbols, longest }: Code): number {
    while (this.count < 20) {
      this.held = (this.held << 8) | (this.bytes[this.at++] ?? 0)
      this.count += 8
    }
    const known = quick[(this.held >>> (this.count - quickBits)) & (1 << quickBits) - 1] ?? 0
    if (known !== 0) this.count -= known & 31
    else {
      let length = quickBits + 1
      let code = (this.held >>> (this.count - length)) & ((1 << length) - 1)
      while (length <= longest && code > (limits[length] ?? -1)) code = (this.held >>> (this.count - ++length)) & ((1 << length) - 1)
      if (length > longest) throw this.at > this.bytes.byteLength ? Bits.ended : damagedBzip2()
      this.count -= length
      if (this.past) throw Bits.ended
      return symbols[code - (bases[length] ?? 0)] ?? 0
    }
    if (this.past) throw Bits.ended
    return known >> 5
  }
}

const quickBits = 10
const longestCode = 20

/** A prefix code: a table for short codes (symbol and length), limits for longer ones. */
interface Code {
  readonly quick: Uint16Array
  readonly limits: Int32Array
  readonly bases: Int32Array
  readonly symbols: Uint16Array
  readonly longest: number
}

/** The canonical code with these lengths, each 1 to 20. */
const codeOf = (lengths: Uint8Array): Code => {
  const quick = new Uint16Array(1 << quickBits)
  const limits = new Int32Array(longestCode + 1).fill(-1)
  const bases = new Int32Array(longestCode + 1)
  const symbols = new Uint16Array(lengths.byteLength)
  let longest = 0
  let next = 0
  for (let length = 1, code = 0; length <= longestCode; length++, code <<= 1) {
    bases[length] = code - next
    for (let symbol = 0; symbol < lengths.byteLength; symbol++) {
      if (lengths[symbol] !== length) continue
      if (code >= 1 << length) throw damagedBzip2()
      if (length <= quickBits) quick.fill((symbol << 5) | length, code << (quickBits - length), (code + 1) << (quickBits - length))
      symbols[next++] = symbol
      limits[length] = code++
      longest = length
    }
    // No code of this length: one that is shorter than all of the next is never taken for it.
    if (limits[length] === -1) limits[length] = code - 1
  }
  return { quick, limits, bases, symbols, longest }
}

const crcTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte << 24
  for (let bit = 0; bit < 8; bit++) value = value < 0 ? (value << 1) ^ 0x04c11db7 : value << 1
  return value
})

/** Decodes blocks, in memory that is used again. */
export class Block {
  private readonly sink: Sink
  private text = new Uint32Array(0)
  private readonly out = new Uint8Array(1 << 18)
  private readonly selectors = new Uint8Array(18_002)
  private readonly counts = new Uint32Array(256)

  constructor(sink: Sink) {
    this.sink = sink
  }

  /** Decodes the block after the magic `bits` stand behind, of `limit` bytes at most; its checksum, which was verified. */
  decode(bits: Bits, limit: number): number {
    if (this.text.length < limit) this.text = new Uint32Array(limit)
    const crc = (bits.read(16) << 16) | bits.read(16)
    if (bits.read(1) === 1) throw new Refused("the bzip2 stream is randomised, which only bzip2 0.9.0 and older did")
    const origin = bits.read(24)
    const length = this.readText(bits, limit)
    if (origin >= length) throw damagedBzip2()
    this.invert(length)
    if (this.write(length, origin) !== crc) throw damagedBzip2()
    return crc
  }

  /** The bytes as they were sorted, into `text`, and how often each is there. */
  private readText(bits: Bits, limit: number): number {
    const { text, counts } = this
    const order = readAlphabet(bits)
    const end = order.byteLength + 1
    const codes = this.readCodes(bits, order.byteLength + 2)
    counts.fill(0)
    let length = 0
    let run = 0
    let weight = 1
    let group = 0
    let left = 0
    let code = codes[0]
    for (;;) {
      if (left === 0) {
        if (group === this.groups) throw damagedBzip2()
        code = codes[this.selectors[group++] ?? 0]
        left = 50
      }
      left--
      if (code === undefined) throw damagedBzip2()
      const symbol = bits.symbol(code)
      if (symbol < 2) { // a run of the first byte: digits 1 and 2 of a number to the base 2
        if (weight > limit) throw damagedBzip2()
        run += weight << symbol
        weight <<= 1
        continue
      }
      if (run > 0) {
        if (length + run > limit) throw damagedBzip2()
        const byte = order[0] ?? 0
        counts[byte] = (counts[byte] ?? 0) + run
        text.fill(byte, length, length += run)
        run = 0
        weight = 1
      }
      if (symbol === end) return length
      if (length === limit) throw damagedBzip2()
      const n = symbol - 1
      const byte = order[n] ?? 0
      if (n > 16) order.copyWithin(1, 0, n)
      else for (let k = n; k > 0; k--) order[k] = order[k - 1] ?? 0
      order[0] = byte
      counts[byte] = (counts[byte] ?? 0) + 1
      text[length++] = byte
    }
  }

  private groups = 0

  private readCodes(bits: Bits, symbols: number): ReadonlyArray<Code> {
    const tables = bits.read(3)
    const groups = bits.read(15)
    if (tables < 2 || tables > 6 || groups === 0) throw damagedBzip2()
    this.groups = Math.min(groups, this.selectors.byteLength) // no block needs more: bzip2 passes over them too
    const order = Uint8Array.from({ length: tables }, (_, n) => n)
    for (let group = 0; group < groups; group++) {
      let n = 0
      while (bits.read(1) === 1) if (++n === tables) throw damagedBzip2()
      const selector = order[n] ?? 0
      order.copyWithin(1, 0, n)
      order[0] = selector
      if (group < this.groups) this.selectors[group] = selector
    }
    return Array.from({ length: tables }, () => {
      let length = bits.read(5)
      return codeOf(Uint8Array.from({ length: symbols }, () => {
        for (;;) {
          if (length < 1 || length > longestCode) throw damagedBzip2()
          if (bits.read(1) === 0) return length
          length += bits.read(1) === 0 ? 1 : -1
        }
      }))
    })
  }

  /** Adds to each byte of `text`, above its 8 bits, where the byte after it is. */
  private invert(length: number): void {
    const { counts, text } = this
    let sum = 0
    for (let byte = 0; byte < 256; byte++) {
      const count = counts[byte] ?? 0
      counts[byte] = sum
      sum += count
    }
    for (let n = 0; n < length; n++) {
      const byte = (text[n] ?? 0) & 0xff
      const place = counts[byte] ?? 0
      counts[byte] = place + 1
      text[place] = (text[place] ?? 0) | (n << 8)
    }
  }

  /** Gives the text to the sink, runs of four bytes and a number made long again; its checksum. */
  private write(length: number, origin: number): number {
    const { out, text } = this
    const size = out.byteLength
    let crc = -1
    let at = 0
    let same = 0
    let previous = -1
    let next = (text[origin] ?? 0) >>> 8
    for (let n = 0; n < length; n++) {
      const entry = text[next] ?? 0
      const byte = entry & 0xff
      next = entry >>> 8
      if (same === 4) {
        for (let left = byte; left > 0; left--) {
          crc = (crc << 8) ^ (crcTable[(crc >>> 24) ^ previous] ?? 0)
          out[at++] = previous
          if (at === size) {
            this.sink(out)
            at = 0
          }
        }
        same = 0
        previous = -1
        continue
      }
      same = byte === previous ? same + 1 : 1
      previous = byte
      crc = (crc << 8) ^ (crcTable[(crc >>> 24) ^ byte] ?? 0)
      out[at++] = byte
      if (at === size) {
        this.sink(out)
        at = 0
      }
    }
    if (at > 0) this.sink(out.subarray(0, at))
    return ~crc
  }
}

/** The bytes that occur, in their order: 16 ranges of 16. */
const readAlphabet = (bits: Bits): Uint8Array => {
  const ranges = bits.read(16)
  const used: Array<number> = []
  for (let high = 0; high < 16; high++) {
    if ((ranges & (0x8000 >> high)) === 0) continue
    const range = bits.read(16)
    for (let low = 0; low < 16; low++) if ((range & (0x8000 >> low)) !== 0) used.push(high * 16 + low)
  }
  if (used.length === 0) throw damagedBzip2()
  return Uint8Array.from(used)
}
