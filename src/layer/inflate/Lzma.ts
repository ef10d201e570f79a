import { Refused } from "../Fault.ts"
import type { Sink } from "./Decoder.ts"
import { RangeCoder } from "./RangeCoder.ts"

/** Damage, of whatever kind: what it looks like depends on where it is. */
export const damaged = (): Refused => new Refused("the xz stream is damaged")

// Where each model's probabilities are in one table; lengths are two tables of `lengthSize` each.
const isMatch = 0
const isRep = 192
const isRepG0 = 204
const isRepG1 = 216
const isRepG2 = 228
const isRep0Long = 240
const slots = 432
const special = 688
const align = 803
const lengths = 819
const repLengths = 1333
const literals = 1847
const tableSize = literals + (0x300 << 4)
/** Bytes below which a dictionary is not made, so that the sink gets more at a time; and those from which it has its whole size. */
const smallest = 1 << 16
const middling = 1 << 20

/**
 * Decodes the LZMA of LZMA2 chunks into a dictionary, which the sink sees as it is filled. A chunk comes whole (64 KiB at
 * most). The dictionary has memory only where something was written: it costs what the stream is long, up to its size.
 */
export class Lzma {
  private readonly sink: Sink
  private ring: Uint8Array<ArrayBuffer>
  private readonly size: number
  private readonly window: number
  private pos = 0
  /** From where the sink has not seen it, and how many bytes a match may reach back. */
  private unseen = 0
  private full = 0
  private readonly coder = new RangeCoder(tableSize)
  private state = 0
  private readonly reps = new Int32Array(4)
  private lc = 0
  private lpMask = 0
  private pbMask = 0

  /** `window`: bytes of the dictionary. */
  constructor(window: number, sink: Sink) {
    this.window = window
    this.size = Math.max(window, smallest)
    this.ring = new Uint8Array(smallest)
    this.sink = sink
  }

  /** Gives the dictionary's memory back now, and not when it is collected: another thread may wait for it. */
  close(): void {
    this.ring.buffer.transfer(0)
    this.ring = new Uint8Array(0)
  }

  /** Forgets what came before. */
  resetDictionary(): void {
    this.flush()
    this.pos = this.unseen = this.full = 0
  }

  /** Forgets what the probabilities have learned. */
  resetState(): void {
    this.state = 0
    this.reps.fill(0)
    this.coder.forget()
  }

  /** Takes a byte of properties: literal context and position bits. */
  setProperties(byte: number): void {
    const [lc, lp, pb] = [byte % 9, Math.floor(byte / 9) % 5, Math.floor(byte / 45)]
    if (pb > 4 || lc + lp > 4) throw damaged()
    this.lc = lc
    this.lpMask = (1 << lp) - 1
    this.pbMask = (1 << pb) - 1
  }

  /** Takes bytes that are stored as they are. */
  copy(bytes: Uint8Array): void {
    this.reserve(bytes.byteLength)
    for (let from = 0; from < bytes.byteLength;) {
      const length = Math.min(bytes.byteLength - from, this.ring.byteLength - this.pos)
      this.ring.set(bytes.subarray(from, from + length), this.pos)
      from += length
      this.advance(length)
    }
    this.flush()
  }

  /** Decodes a chunk, which makes exactly `size` bytes of exactly `bytes`. */
  decode(bytes: Uint8Array, size: number): void {
    if (!this.coder.begin(bytes)) throw damaged()
    this.reserve(size)
    for (let left = size; left > 0;) left -= this.run(Math.min(left, this.ring.byteLength - this.pos), left)
    if (!this.coder.isAtEnd()) throw damaged()
    this.flush()
  }

  /** Makes the ring larger, up to its whole size, if so many bytes more would fill it. Untouched memory of a large one costs nothing. */
  private reserve(bytes: number): void {
    const wanted = this.pos + bytes
    if (wanted < this.ring.byteLength || this.ring.byteLength === this.size) return
    const larger = new Uint8Array(wanted > middling ? this.size : Math.min(this.size, Math.max(wanted + 1, this.ring.byteLength * 2)))
    larger.set(this.ring.subarray(0, this.pos))
    this.close()
    this.ring = larger
  }

  private advance(length: number): void {
    this.pos += length
    this.full = Math.min(this.full + length, this.window)
    if (this.pos === this.ring.byteLength) {
      this.flush()
      this.pos = this.unseen = 0
    }
  }

  private flush(): void {
    if (this.pos > this.unseen) this.sink(this.ring.subarray(this.unseen, this.pos))
    this.unseen = this.pos
  }

  /** Decodes symbols until the ring's end is reached, or `room` bytes; a match may go over the ring's end, up to `left`. */
  private run(room: number, left: number): number {
    const { ring, window, reps, lc, lpMask, pbMask } = this
    const { input, probs, registers } = this.coder
    const size = ring.byteLength
    const end = input.byteLength
    let done = 0
    let pos = this.pos
    let full = this.full
    let state = this.state
    let previous = full === 0 ? 0 : ring[pos === 0 ? size - 1 : pos - 1] ?? 0
    let [range = 0, code = 0, at = 0] = registers
    while (done < room) {
      if (at > end) throw damaged()
      const posState = pos & pbMask
      // The bit that most symbols begin with, and literals, are decoded in line: they are most of the work.
      let index = isMatch + (state << 4) + posState
      let prob = probs[index] ?? 0
      if (range >>> 0 < 0x1000000) { range <<= 8; code = (code << 8) | (input[at++] ?? 0) }
      let bound = Math.imul(range >>> 11, prob)
      if (code >>> 0 < bound >>> 0) {
        range = bound
        probs[index] = prob + ((2048 - prob) >> 5)
        const base = literals + 0x300 * (((pos & lpMask) << lc) + (previous >> (8 - lc)))
        let symbol = 1
        if (state >= 7) {
          const back = pos - (reps[0] ?? 0) - 1
          let match = (ring[back < 0 ? back + size : back] ?? 0) << 1
          let offset = 0x100
          while (symbol < 0x100) {
            const bit = match & offset
            match <<= 1
            index = base + offset + bit + symbol
            prob = probs[index] ?? 0
            if (range >>> 0 < 0x1000000) { range <<= 8; code = (code << 8) | (input[at++] ?? 0) }
            bound = Math.imul(range >>> 11, prob)
            if (code >>> 0 < bound >>> 0) {
              range = bound
              probs[index] = prob + ((2048 - prob) >> 5)
              symbol <<= 1
              offset &= ~bit
            } else {
              range = (range - bound) | 0
              code = (code - bound) | 0
              probs[index] = prob - (prob >> 5)
              symbol = (symbol << 1) | 1
              offset &= bit
            }
          }
        } else {
          while (symbol < 0x100) {
            index = base + symbol
            prob = probs[index] ?? 0
            if (range >>> 0 < 0x1000000) { range <<= 8; code = (code << 8) | (input[at++] ?? 0) }
            bound = Math.imul(range >>> 11, prob)
            if (code >>> 0 < bound >>> 0) {
              range = bound
              probs[index] = prob + ((2048 - prob) >> 5)
              symbol <<= 1
            } else {
              range = (range - bound) | 0
              code = (code - bound) | 0
              probs[index] = prob - (prob >> 5)
              symbol = (symbol << 1) | 1
            }
          }
        }
        ring[pos++] = previous = symbol & 0xff
        if (full < window) full++
        done++
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6
        continue
      }
      range = (range - bound) | 0
      code = (code - bound) | 0
      probs[index] = prob - (prob >> 5)
      registers[0] = range
      registers[1] = code
      registers[2] = at
      let length = this.match(state, posState)
      range = registers[0] ?? 0
      code = registers[1] ?? 0
      at = registers[2] ?? 0
      state = this.state
      const distance = reps[0] ?? 0
      if (distance >>> 0 >= full || length > left - done) throw damaged()
      done += length
      full = Math.min(full + length, window)
      let from = pos - distance - 1
      if (from < 0) from += size
      while (length-- > 0) {
        ring[pos++] = ring[from++] ?? 0
        if (from === size) from = 0
        if (pos < size) continue
        this.pos = pos
        this.flush()
        pos = this.pos = this.unseen = 0
      }
      previous = ring[pos === 0 ? size - 1 : pos - 1] ?? 0
    }
    registers[0] = range
    registers[1] = code
    registers[2] = at
    this.state = state
    this.pos = pos
    this.full = full
    if (pos === size) {
      this.flush()
      this.pos = this.unseen = 0
    }
    return done
  }

  /** Decodes a match: its distance into `reps`, its length returned. */
  private match(state: number, posState: number): number {
    const { coder, reps } = this
    if (coder.bit(isRep + state) === 0) {
      reps.copyWithin(1, 0, 3)
      const length = this.length(lengths, posState)
      reps[0] = this.distance(length)
      this.state = state < 7 ? 7 : 10
      return length
    }
    if (coder.bit(isRepG0 + state) === 0) {
      if (coder.bit(isRep0Long + (state << 4) + posState) === 0) {
        this.state = state < 7 ? 9 : 11
        return 1
      }
    } else if (coder.bit(isRepG1 + state) === 0) this.recall(1)
    else this.recall(coder.bit(isRepG2 + state) === 0 ? 2 : 3)
    this.state = state < 7 ? 8 : 11
    return this.length(repLengths, posState)
  }

  /** Moves an earlier distance to the front. */
  private recall(n: number): void {
    const { reps } = this
    const distance = reps[n] ?? 0
    reps.copyWithin(1, 0, n)
    reps[0] = distance
  }

  private length(at: number, posState: number): number {
    const { coder } = this
    if (coder.bit(at) === 0) return 2 + coder.tree(at + 2 + (posState << 3), 3)
    if (coder.bit(at + 1) === 0) return 10 + coder.tree(at + 130 + (posState << 3), 3)
    return 18 + coder.tree(at + 258, 8)
  }

  private distance(length: number): number {
    const { coder } = this
    const slot = coder.tree(slots + (Math.min(length - 2, 3) << 6), 6)
    if (slot < 4) return slot
    const bits = (slot >> 1) - 1
    const base = (2 | (slot & 1)) << bits
    if (slot < 14) return base + coder.reverse(special + base - slot, bits)
    const high = coder.direct(bits - 4) << 4
    return (base + high + coder.reverse(align, 4)) | 0
  }
}
