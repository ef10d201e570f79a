import { Buffer } from "node:buffer"

/** Bytes of a header, and what every entry's data is padded to. */
export const blockSize = 512

/** Where the fields of a header are: [offset, length] (POSIX ustar; sparse fields of old GNU). */
export const fields = {
  name: [0, 100], mode: [100, 8], uid: [108, 8], gid: [116, 8], size: [124, 12], mtime: [136, 12], linkname: [157, 100],
  devmajor: [329, 8], devminor: [337, 8], realsize: [483, 12]
} as const satisfies Record<string, readonly [number, number]>

/** The dialect a header's magic tells: it decides whether there is a prefix and how long it is. */
export type Dialect = "v7" | "ustar" | "star" | "gnu"

/** One 512-byte block that headers are copied into, with the readers of its fields. */
export class TarHeader {
  /** Aligned, so that `words` can view it. */
  readonly bytes: Buffer = Buffer.from(new ArrayBuffer(blockSize))
  private readonly words = new Int32Array(this.bytes.buffer, this.bytes.byteOffset, blockSize / 4)

  /** Sum of all bytes; 0 only for a block of zeros. */
  sum(): number {
    const words = this.words
    let lanes = 0 // two sums of 16 bits: 256 times 255 just fits
    for (let n = 0; n < 128; n++) {
      const word = words[n] ?? 0
      lanes = (lanes + (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff)) | 0
    }
    return (lanes & 0xffff) + (lanes >>> 16)
  }

  /** Whether the checksum field fits `sum`: bytes counted as unsigned, or as signed by some old writers. */
  checks(sum: number): boolean {
    const bytes = this.bytes
    const claimed = this.number(148, 8)
    let expected = sum + 8 * 0x20
    for (let n = 148; n < 156; n++) expected -= bytes[n] ?? 0
    if (claimed === expected) return true
    for (let n = 0; n < blockSize; n++) if ((n < 148 || n >= 156) && (bytes[n] ?? 0) >= 0x80) expected -= 256
    return claimed === expected
  }

  /** The type flag's byte. */
  get type(): number { return this.bytes[156] ?? 0 }

  /** What the magic says. */
  get dialect(): Dialect {
    const bytes = this.bytes
    if (bytes.toString("latin1", 257, 262) !== "ustar") return "v7"
    if (bytes[262] === 0) return bytes.toString("latin1", 508, 512) === "tar\0" ? "star" : "ustar"
    return bytes[262] === 0x20 && bytes[263] === 0x20 && bytes[264] === 0 ? "gnu" : "v7"
  }

  /**
   * A numeric field: octal, with spaces and NULs before it and a space or NUL after it, or base-256 where the first bit is
   * set (GNU). A blank field is 0. Anything else, and a magnitude of 2^53 or more, is NaN.
   */
  number(from: number, length: number): number {
    const bytes = this.bytes
    const end = from + length
    if ((bytes[from] ?? 0) >= 0x80) return base256(bytes, from, end)
    let at = from
    while (at < end && (bytes[at] === 0x20 || bytes[at] === 0)) at++
    let value = 0
    for (; at < end; at++) {
      const digit = (bytes[at] ?? 0) - 0x30
      if (digit < 0 || digit > 7) break
      value = value * 8 + digit
    }
    while (at < end && bytes[at] === 0x20) at++
    return at < end && bytes[at] !== 0 ? NaN : value
  }

  /** A copy of a text field: up to its first NUL or its end. */
  text(from: number, length: number): Buffer {
    const end = this.textEnd(from, length)
    const copy = Buffer.allocUnsafe(end - from)
    this.bytes.copy(copy, 0, from, end)
    return copy
  }

  /** The name, with the prefix where the dialect has one. */
  name(): Buffer {
    const length = this.prefixLength()
    if (length === 0 || this.bytes[345] === 0) return this.text(0, 100)
    const prefixEnd = this.textEnd(345, length)
    const nameEnd = this.textEnd(0, 100)
    const copy = Buffer.allocUnsafe(prefixEnd - 345 + 1 + nameEnd)
    this.bytes.copy(copy, 0, 345, prefixEnd)
    copy[prefixEnd - 345] = 0x2f
    this.bytes.copy(copy, prefixEnd - 345 + 1, 0, nameEnd)
    return copy
  }

  private prefixLength(): number {
    if (this.bytes[345] === 0) return 0
    switch (this.dialect) {
      case "ustar": return 155
      case "star": return 131
      case "v7": return 0
      // Go before 1.8, and so Docker's first years, wrote a prefix where old GNU has two times.
      case "gnu": return (Number.isNaN(this.number(345, 12)) || Number.isNaN(this.number(357, 12))) && this.isAscii(345, 155) ? 155 : 0
    }
  }

  private textEnd(from: number, length: number): number {
    const bytes = this.bytes
    const end = from + length
    let at = from
    while (at < end && bytes[at] !== 0) at++
    return at
  }

  private isAscii(from: number, length: number): boolean {
    const end = this.textEnd(from, length)
    for (let at = from; at < end; at++) if ((this.bytes[at] ?? 0) >= 0x80) return false
    return true
  }
}

/** Two's complement, big-endian, its first bit spent as the mark. */
const base256 = (bytes: Uint8Array, from: number, end: number): number => {
  const first = bytes[from] ?? 0
  const flip = (first & 0x40) === 0 ? 0 : 0xff
  let value = (first ^ flip) & 0x7f
  for (let at = from + 1; at < end; at++) {
    value = value * 256 + ((bytes[at] ?? 0) ^ flip)
    if (value > Number.MAX_SAFE_INTEGER) return NaN
  }
  return flip === 0 ? value : -1 - value
}
