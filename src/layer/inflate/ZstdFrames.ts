import { Refused } from "../Fault.ts"
import { defaultLimits } from "../Limits.ts"

/**
 * Walks the frames of a zstd stream (RFC 8878, section 3) without decoding them: cuts chunks into runs that never go past
 * a frame's end, leaves skippable frames out, and so knows at the end whether the last frame was whole; Node's decoders
 * stop after one frame, and before Node 24 took a truncated one for whole. Refuses bytes that belong to no frame, frames
 * that need a dictionary, windows above `maxWindow` bytes, and frames that tell another size than they have, which zstd
 * checks only where it sees the whole frame at once.
 */
export class ZstdFrames {
  private readonly maxWindow: number
  private readonly reserve: (bytes: number) => void
  private state: "magic" | "skippable" | "descriptor" | "header" | "block" | "body" = "magic"
  /** The field being read, little-endian: its bytes so far, and how many of how many they are. */
  private readonly field = new Uint8Array(14)
  private have = 0
  private want = 4
  /** Bytes of the current block, checksum or skippable frame to pass over. */
  private skip = 0
  private last = false
  private checksum = false
  /** Bytes the current frame says it has, and has given. */
  private contentSize: number | undefined = undefined
  private given = 0
  private chunk: Uint8Array = new Uint8Array(0)
  private at = 0

  /** `reserve` is told the window of each frame before it is decoded. */
  constructor(maxWindow: number, reserve: (bytes: number) => void) {
    this.maxWindow = maxWindow
    this.reserve = reserve
  }

  /** Gives the next chunk; call `next` until it has no more. */
  offer(chunk: Uint8Array): void {
    this.chunk = chunk
    this.at = 0
  }

  /** Counts what the decoder gave for the runs so far. */
  count(bytes: number): void { this.given += bytes }

  /** The next run of bytes of one frame, or undefined when the chunk is used up. The run before must have been decoded. */
  next(): Uint8Array | undefined {
    const { chunk } = this
    if (this.state === "magic") this.checkContent()
    while (this.at < chunk.byteLength) {
      const from = this.at
      if (this.state === "skippable") this.pass()
      else if (this.state !== "magic") return this.walk(from)
      else if (this.fill() && this.magic()) {
        if (this.at - from < 4) return frameMagic // it came in pieces
        return this.walk(from)
      }
    }
    return undefined
  }

  /** Says that there are no more chunks. */
  end(): void {
    if (this.state !== "magic" || this.have > 0) throw new Refused("the zstd stream is truncated")
  }

  /** Whether the magic number that was read begins a frame, not a skippable one. */
  private magic(): boolean {
    const [a = 0, b = 0, c = 0, d = 0] = this.field
    if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) {
      this.expect("descriptor", 1)
      return true
    }
    if ((a & 0xf0) !== 0x50 || b !== 0x2a || c !== 0x4d || d !== 0x18) throw new Refused("the zstd stream has bytes that belong to no frame")
    this.expect("skippable", 4)
    return false
  }

  /** Compares the sizes when a frame is over; does nothing after that. */
  private checkContent(): void {
    if (this.contentSize !== undefined && this.contentSize !== this.given) throw new Refused("the zstd stream is damaged")
    this.contentSize = undefined
    this.given = 0
  }

  /** Passes over a skippable frame: its size, then its bytes. */
  private pass(): void {
    if (this.want > 0) {
      if (!this.fill()) return
      this.skip = this.number(0, 4)
      this.want = 0
    }
    const passed = Math.min(this.skip, this.chunk.byteLength - this.at)
    this.at += passed
    this.skip -= passed
    if (this.skip === 0) this.expect("magic", 4)
  }

  /** Goes through a frame up to its end or the chunk's. */
  private walk(from: number): Uint8Array {
    const { chunk } = this
    while (this.at < chunk.byteLength && this.state !== "magic") {
      if (this.state === "body") {
        const passed = Math.min(this.skip, chunk.byteLength - this.at)
        this.at += passed
        this.skip -= passed
        if (this.skip === 0) this.afterBlock()
      } else if (this.fill()) this.read()
    }
    return from === 0 && this.at === chunk.byteLength ? chunk : chunk.subarray(from, this.at)
  }

  private read(): void {
    if (this.state === "descriptor") {
      const descriptor = this.field[0] ?? 0
      const single = (descriptor & 0x20) !== 0
      this.checksum = (descriptor & 0x04) !== 0
      const length = (single ? 0 : 1) + dictionaryBytes(descriptor) + contentSizeBytes(descriptor)
      this.state = "header"
      this.want = 1 + length // the descriptor stays in the field
    } else if (this.state === "header") {
      this.checkHeader()
      this.expect("block", 3)
    } else {
      const header = this.number(0, 3)
      const type = (header >> 1) & 3
      if (type === 3) throw new Refused("the zstd stream is damaged")
      this.last = (header & 1) === 1
      this.skip = (type === 1 ? 1 : header >> 3)
      this.state = "body"
      if (this.skip === 0) this.afterBlock()
    }
  }

  private checkHeader(): void {
    const descriptor = this.field[0] ?? 0
    const single = (descriptor & 0x20) !== 0
    const dictionaryAt = single ? 1 : 2
    const sizeAt = dictionaryAt + dictionaryBytes(descriptor)
    if (this.number(dictionaryAt, sizeAt - dictionaryAt) !== 0) throw new Refused("the zstd stream needs a dictionary, which no layer comes with")
    const byte = this.field[1] ?? 0
    const base = 2 ** (10 + (byte >> 3))
    const bytes = contentSizeBytes(descriptor)
    this.contentSize = bytes === 0 ? undefined : this.number(sizeAt, bytes) + (bytes === 2 ? 256 : 0)
    const window = single ? this.contentSize ?? 0 : base + base / 8 * (byte & 7)
    if (window > this.maxWindow) throw new Refused(`the zstd stream needs a window of ${window} bytes, the limit is ${this.maxWindow}`, undefined, this.maxWindow < defaultLimits.window ? "window" : undefined)
    this.reserve(window)
  }

  /** A block, or the checksum after the last one, is over. */
  private afterBlock(): void {
    if (!this.last) this.expect("block", 3)
    else if (this.checksum) {
      this.checksum = false
      this.state = "body"
      this.skip = 4
    } else this.expect("magic", 4)
  }

  private expect(state: "magic" | "skippable" | "descriptor" | "block", want: number): void {
    this.state = state
    this.have = 0
    this.want = want
  }

  /** Takes bytes into the field; whether it is full. */
  private fill(): boolean {
    while (this.have < this.want && this.at < this.chunk.byteLength) this.field[this.have++] = this.chunk[this.at++] ?? 0
    return this.have === this.want
  }

  private number(from: number, length: number): number {
    let value = 0
    for (let n = from + length; n > from;) value = value * 256 + (this.field[--n] ?? 0)
    return value
  }
}

const frameMagic = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd)
const dictionaryBytes = (descriptor: number): number => [0, 1, 2, 4][descriptor & 3] ?? 0
const contentSizeBytes = (descriptor: number): number =>
  [(descriptor & 0x20) === 0 ? 0 : 1, 2, 4, 8][descriptor >> 6] ?? 0
