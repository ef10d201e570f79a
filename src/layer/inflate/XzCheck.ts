import { createHash, type Hash } from "node:crypto"
import { crc32 } from "node:zlib"
import { Refused } from "../Fault.ts"

/** The check of a block's content (xz file format, 2.1.1.2): `size` bytes at its end. */
export interface XzCheck {
  readonly size: number
  update(bytes: Uint8Array): void
  /** The check of what came since the last one, as it is stored; it begins anew. */
  digest(): Uint8Array
}

/** The check of this kind; refuses those the format has only reserved. */
export const xzCheck = (kind: number): XzCheck => {
  switch (kind) {
    case 0: return { size: 0, update: () => {}, digest: () => new Uint8Array(0) }
    case 1: return new Crc32()
    case 4: return new Crc64()
    case 10: return new Sha256()
    default: throw new Refused(`the xz stream has a check of kind ${kind}: none (0), CRC32 (1), CRC64 (4) and SHA-256 (10) are known`)
  }
}

class Crc32 implements XzCheck {
  readonly size = 4
  private value = 0
  update(bytes: Uint8Array): void { this.value = crc32(bytes, this.value) }
  digest(): Uint8Array {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(this.value)
    this.value = 0
    return bytes
  }
}

class Sha256 implements XzCheck {
  readonly size = 32
  private hash: Hash = createHash("sha256")
  update(bytes: Uint8Array): void { this.hash.update(bytes) }
  digest(): Uint8Array {
    const bytes = this.hash.digest()
    this.hash = createHash("sha256")
    return bytes
  }
}

/** CRC64 of ECMA-182, bits reversed: the value of each byte's remainder, low and high word, for four bytes at a time. */
const tables = (() => {
  const low = new Int32Array(1024)
  const high = new Int32Array(1024)
  for (let byte = 0; byte < 256; byte++) {
    let [a, b] = [byte, 0]
    for (let bit = 0; bit < 8; bit++) {
      const odd = (a & 1) !== 0
      a = ((a >>> 1) | (b << 31)) ^ (odd ? 0xd7870f42 : 0)
      b = (b >>> 1) ^ (odd ? 0xc96c5795 : 0)
    }
    low[byte] = a
    high[byte] = b
  }
  for (let n = 256; n < 1024; n++) { // a byte further from the end
    const [a, b] = [low[n - 256] ?? 0, high[n - 256] ?? 0]
    low[n] = ((a >>> 8) | (b << 24)) ^ (low[a & 0xff] ?? 0)
    high[n] = (b >>> 8) ^ (high[a & 0xff] ?? 0)
  }
  return { low, high }
})()

class Crc64 implements XzCheck {
  readonly size = 8
  private low = -1
  private high = -1

  update(bytes: Uint8Array): void {
    const { low: lows, high: highs } = tables
    let { low, high } = this
    let at = 0
    for (const end = bytes.byteLength - 3; at < end; at += 4) {
      low ^= (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)
      const [a, b, c, d] = [768 + (low & 0xff), 512 + ((low >>> 8) & 0xff), 256 + ((low >>> 16) & 0xff), low >>> 24]
      low = high ^ (lows[a] ?? 0) ^ (lows[b] ?? 0) ^ (lows[c] ?? 0) ^ (lows[d] ?? 0)
      high = (highs[a] ?? 0) ^ (highs[b] ?? 0) ^ (highs[c] ?? 0) ^ (highs[d] ?? 0)
    }
    for (; at < bytes.byteLength; at++) {
      const n = (low ^ (bytes[at] ?? 0)) & 0xff
      low = ((low >>> 8) | (high << 24)) ^ (lows[n] ?? 0)
      high = (high >>> 8) ^ (highs[n] ?? 0)
    }
    this.low = low
    this.high = high
  }

  digest(): Uint8Array {
    const bytes = Buffer.alloc(8)
    bytes.writeInt32LE(~this.low, 0)
    bytes.writeInt32LE(~this.high, 4)
    this.low = this.high = -1
    return bytes
  }
}
