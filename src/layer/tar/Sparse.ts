import { blockSize, type TarHeader } from "./TarHeader.ts"
import { Refused } from "../Fault.ts"

/** Where a sparse file has data: [offset, length], rising, not overlapping, none empty. */
export type Segments = ReadonlyArray<readonly [offset: number, length: number]>

/**
 * Checks a sparse map of `pairs` (offset, length, offset, length, ...) against the file's size and the number of bytes
 * the archive holds for it; throws `Refused` for `entry` if it does not fit exactly.
 */
export const segments = (pairs: ReadonlyArray<number>, size: number, stored: number, entry: Uint8Array): Segments => {
  const found: Array<readonly [number, number]> = []
  let end = 0
  let sum = 0
  if (pairs.length % 2 !== 0) throw new Refused("its sparse map has an offset without a length", entry)
  for (let n = 0; n < pairs.length; n += 2) {
    const offset = pairs[n] ?? NaN
    const length = pairs[n + 1] ?? NaN
    if (!(offset >= end && length >= 0 && offset + length <= size)) {
      throw new Refused("its sparse map is not rising within the file's size", entry)
    }
    end = offset + length
    sum += length
    if (length > 0) found.push([offset, length])
  }
  if (sum !== stored) throw new Refused(`its sparse map wants ${sum} bytes of data, the archive holds ${stored}`, entry)
  return found
}

/** The pairs of an old GNU header (4 from offset 386) or extension block (21 from 0), up to the first empty one; NaN where a field is junk. */
export const oldPairs = (block: TarHeader, from: number, count: number, pairs: Array<number>): void => {
  for (let at = from; at < from + count * 24 && block.bytes[at] !== 0; at += 24) pairs.push(block.number(at, 12), block.number(at + 12, 12))
}

/** Reads a GNU sparse 1.0 map off the head of a file's data: decimal lines, their count of pairs first, padded to a block. */
export class MapReader {
  /** Offsets and lengths, in turn. */
  readonly pairs: Array<number> = []
  private readonly entry: Uint8Array
  private readonly limit: number
  private count = -1
  private value = 0
  private digits = 0
  private taken = 0

  /** `limit`: bytes a map may have. */
  constructor(entry: Uint8Array, limit: number) {
    this.entry = entry
    this.limit = limit
  }

  /** Whether the map and its padding have been read. */
  get done(): boolean { return this.complete && this.taken % blockSize === 0 }

  private get complete(): boolean { return this.count >= 0 && this.pairs.length === this.count * 2 }

  /** Takes bytes of `chunk` from `at`, none from `end` on, and returns where it stopped. */
  take(chunk: Uint8Array, at: number, end: number): number {
    while (at < end && !this.done) {
      const byte = chunk[at++] ?? 0
      this.taken++
      if (this.complete) continue // padding
      if (byte === 0x0a && this.digits > 0) this.push()
      else {
        const digit = byte - 0x30
        this.value = this.value * 10 + digit
        this.digits++
        if (digit < 0 || digit > 9 || this.value > Number.MAX_SAFE_INTEGER) throw new Refused("its sparse map is not lines of decimal numbers", this.entry)
      }
      if (this.taken > this.limit) throw this.giant()
    }
    return at
  }

  private push(): void {
    if (this.count >= 0) this.pairs.push(this.value)
    else if (this.value * 4 > this.limit) throw this.giant()
    else this.count = this.value
    this.value = 0
    this.digits = 0
  }

  private giant(): Refused { return new Refused(`its sparse map is larger than ${this.limit} bytes`, this.entry, "record") }
}
