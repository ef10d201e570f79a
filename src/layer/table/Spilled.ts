import { Buffer } from "node:buffer"
import { randomInt } from "node:crypto"
import { Refused } from "../Fault.ts"
import { Scratch } from "./Scratch.ts"

/** A record: its key's hash, the key's length, the value's, both; then up to a multiple of `unit`, which places are counted in. */
const head = 12
const unit = 16
const empty = 0
const gone = 1
const least = 1 << 12
/** How much is read at once where a key is looked up: most records are shorter. */
const glance = 512
const stretch = 64 * 1024
/** What places of 32 bits can tell: 64 GiB. */
const most = (2 ** 32 - 1) * unit

interface Found {
  readonly slot: number
  readonly value: string
}

/**
 * A table of texts by keys of one character a byte, in a file without a name: in memory there are 6 bytes for each of up to three times
 * as many slots as there are keys. Keys that are set again move to the end.
 */
export class Spilled {
  size = 0
  private readonly file: Scratch
  /** Whoever chooses the keys cannot know where they fall. */
  private readonly seed = randomInt(2 ** 32 - 1)
  /** Where in the file, in units; and the upper half of the hash, so that few others are looked at. */
  private places = new Uint32Array(least)
  private tags = new Uint16Array(least)
  /** Where records are put together. */
  private record = Buffer.alloc(least)
  /** Slots that were ever used. */
  private used = 0

  /** `folder` is where its file is. */
  constructor(folder: string) {
    this.file = new Scratch(folder)
    this.file.append(Buffer.alloc(2 * unit))
  }

  get(key: string): string | undefined {
    return this.find(key, this.hash(key))?.value
  }

  has(key: string): boolean {
    return this.find(key, this.hash(key)) !== undefined
  }

  set(key: string, value: string): void {
    const hash = this.hash(key)
    const found = this.find(key, hash)
    const place = this.put(key, value, hash)
    if (found !== undefined) {
      this.places[found.slot] = place
      return
    }
    this.size++
    if (this.insert(place, hash) && ++this.used > this.places.length * 0.7) this.rebuild()
  }

  delete(key: string): void {
    const found = this.find(key, this.hash(key))
    if (found === undefined) return
    this.places[found.slot] = gone
    this.size--
  }

  /** All, in the order in which they were last set. */
  *entries(): Generator<readonly [key: string, value: string]> {
    for (let at = 2 * unit; at < this.file.size;) {
      // What comes from the file is good until the next call: all that is whole in a stretch is taken first.
      const some: Array<readonly [place: number, hash: number, key: string, value: string]> = []
      let bytes = this.file.read(at, stretch)
      for (let next = 0; next + head <= bytes.byteLength;) {
        const [hash, key, value] = [bytes.readUInt32LE(next), bytes.readUInt32LE(next + 4), bytes.readUInt32LE(next + 8)]
        const size = Math.ceil((head + key + value) / unit) * unit
        if (next + size > bytes.byteLength && next > 0) break
        if (this.isAt(at / unit, hash)) {
          if (next + size > bytes.byteLength) bytes = this.file.read(at, size)
          some.push([at / unit, hash, bytes.toString("latin1", next + head, next + head + key), bytes.toString("utf8", next + head + key, next + head + key + value)])
        }
        next += size
        at += size
      }
      for (const [place, hash, key, value] of some) if (this.isAt(place, hash)) yield [key, value]
    }
  }

  close(): void {
    this.file.close()
    free(this.places, this.tags)
  }

  private hash(key: string): number {
    let hash = this.seed
    for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193)
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
    return (hash ^ (hash >>> 16)) >>> 0
  }

  private find(key: string, hash: number): Found | undefined {
    const { places, tags } = this
    const mask = places.length - 1
    for (let slot = hash & mask;; slot = (slot + 1) & mask) {
      const place = places[slot] ?? empty
      if (place === empty) return undefined
      if (place === gone || tags[slot] !== hash >>> 16) continue
      const value = this.valueOf(place, key)
      if (value !== undefined) return { slot, value }
    }
  }

  /** The value of the record at a place, if this is its key. */
  private valueOf(place: number, key: string): string | undefined {
    const at = place * unit
    const bytes = this.file.read(at, glance)
    const [keySize, valueSize] = [bytes.readUInt32LE(4), bytes.readUInt32LE(8)]
    if (keySize !== key.length) return undefined
    const end = head + keySize + valueSize
    const whole = end <= bytes.byteLength ? bytes : this.file.read(at, end)
    return whole.toString("latin1", head, head + keySize) === key ? whole.toString("utf8", head + keySize, end) : undefined
  }

  private put(key: string, value: string, hash: number): number {
    const at = this.file.size
    if (at > most) throw new Refused("the layer has more names and attributes than can be kept track of (64 GiB)")
    const valueSize = Buffer.byteLength(value)
    const size = head + key.length + valueSize
    const whole = Math.ceil(size / unit) * unit
    if (whole > this.record.byteLength) this.record = Buffer.allocUnsafeSlow(whole)
    const { record } = this
    record.writeUInt32LE(hash, 0)
    record.writeUInt32LE(key.length, 4)
    record.writeUInt32LE(valueSize, 8)
    record.write(key, head, "latin1")
    record.write(value, head + key.length, "utf8")
    this.file.append(whole === record.byteLength ? record : record.subarray(0, whole))
    return at / unit
  }

  /** Puts a place into the first slot that is free; whether that was never used. */
  private insert(place: number, hash: number): boolean {
    const { places, tags } = this
    const mask = places.length - 1
    let slot = hash & mask
    while ((places[slot] ?? empty) > gone) slot = (slot + 1) & mask
    const fresh = places[slot] === empty
    places[slot] = place
    tags[slot] = hash >>> 16
    return fresh
  }

  private isAt(place: number, hash: number): boolean {
    const { places } = this
    const mask = places.length - 1
    for (let slot = hash & mask; places[slot] !== empty; slot = (slot + 1) & mask) if (places[slot] === place) return true
    return false
  }

  /** Every record there ever was, without what it holds. */
  private *records(): Generator<{ readonly at: number; readonly place: number; readonly hash: number; readonly key: number; readonly value: number }> {
    for (let at = 2 * unit; at < this.file.size;) {
      // What comes from the file is good until the next call: the numbers of many are taken first.
      const bytes = this.file.read(at, stretch)
      const numbers: Array<number> = []
      let next = 0
      while (next + head <= bytes.byteLength) {
        const [hash, key, value] = [bytes.readUInt32LE(next), bytes.readUInt32LE(next + 4), bytes.readUInt32LE(next + 8)]
        numbers.push(next, hash, key, value)
        next += Math.ceil((head + key + value) / unit) * unit
      }
      for (let n = 0; n < numbers.length; n += 4) {
        const from = at + (numbers[n] ?? 0)
        yield { at: from, place: from / unit, hash: numbers[n + 1] ?? 0, key: numbers[n + 2] ?? 0, value: numbers[n + 3] ?? 0 }
      }
      at += next
    }
  }

  private rebuild(): void {
    const live: Array<number> = []
    let slots = least
    while (slots < this.size * 2) slots *= 2
    const [places, tags] = [new Uint32Array(slots), new Uint16Array(slots)]
    const fill = () => {
      const [oldPlaces, oldTags] = [this.places, this.tags]
      this.places = places
      this.tags = tags
      for (let n = 0; n < live.length; n += 2) this.insert(live[n] ?? 0, live[n + 1] ?? 0)
      live.length = 0
      this.places = oldPlaces
      this.tags = oldTags
    }
    for (const { hash, place } of this.records()) {
      if (!this.isAt(place, hash)) continue
      live.push(place, hash)
      if (live.length > 10_000) fill()
    }
    fill()
    free(this.places, this.tags)
    this.places = places
    this.tags = tags
    this.used = this.size
  }
}

/** Gives the memory back at once: a thread that has little else to do collects its garbage late. */
const free = (places: Uint32Array<ArrayBuffer>, tags: Uint16Array<ArrayBuffer>): void => {
  places.buffer.transfer(0)
  tags.buffer.transfer(0)
}
