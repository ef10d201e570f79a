import { Buffer } from "node:buffer"

const slots = 4
const slotSize = 256 * 1024
/** How long a side waits before it looks whether it was asked to stop: 20 ms. */
const glance = 20
const [noteAt, noteSize, head] = [64, 192, 256] as const
const [writtenAt, readAt, endAt] = [0, 1, 2] as const
const [open, ended, broken] = [0, 1, 2] as const

/** Thrown by a side of a ring when the other side is gone. */
export class RingBroken extends Error {}

/**
 * A stream of bytes from one thread to another through shared memory: 4 pieces of at most 256 KiB. One thread writes, one
 * reads; each waits for the other, and looks at `stop` meanwhile, which ends the wait by throwing. What was written before
 * a side broke the ring is still read: so the reader finds its own faults first, as if both were one thread. The end
 * carries a note, such as the digest of all.
 */
export class Ring {
  readonly buffer: SharedArrayBuffer
  private readonly words: Int32Array
  private readonly lengths: Int32Array
  private readonly data: Buffer

  /** A new ring, or a view of the one another thread made. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(head + slots * slotSize)) {
    this.buffer = buffer
    this.words = new Int32Array(buffer, 0, 3)
    this.lengths = new Int32Array(buffer, 16, slots + 1)
    this.data = Buffer.from(buffer, head)
  }

  /** Puts all of `bytes` in; throws `RingBroken` when nobody reads any more. */
  write(bytes: Uint8Array, stop: () => void): void {
    for (let at = 0; at < bytes.byteLength;) {
      const written = Atomics.load(this.words, writtenAt)
      for (;;) {
        if (Atomics.load(this.words, endAt) === broken) throw new RingBroken()
        const read = Atomics.load(this.words, readAt)
        if (((written - read) | 0) < slots) break
        Atomics.wait(this.words, readAt, read, glance)
        stop()
      }
      const length = Math.min(slotSize, bytes.byteLength - at)
      const slot = written & (slots - 1)
      this.data.set(bytes.subarray(at, at + length), slot * slotSize)
      this.lengths[slot] = length
      Atomics.store(this.words, writtenAt, (written + 1) | 0)
      Atomics.notify(this.words, writtenAt)
      at += length
    }
  }

  /** Gives every piece to `take`, which must not keep it, until the other side says that there are no more; its note. Throws `RingBroken` where it never will. */
  read(take: (bytes: Buffer) => void, stop: () => void): string {
    for (;;) {
      const read = Atomics.load(this.words, readAt)
      for (;;) {
        // In this order: what was written before the end is never missed.
        const end = Atomics.load(this.words, endAt)
        const written = Atomics.load(this.words, writtenAt)
        if (written !== read) break
        if (end === ended) return Buffer.from(this.buffer, noteAt, this.lengths[slots]).toString()
        if (end === broken) throw new RingBroken()
        Atomics.wait(this.words, writtenAt, written, glance)
        stop()
      }
      const slot = read & (slots - 1)
      take(this.data.subarray(slot * slotSize, slot * slotSize + (this.lengths[slot] ?? 0)))
      Atomics.store(this.words, readAt, (read + 1) | 0)
      Atomics.notify(this.words, readAt)
    }
  }

  /** Says that all was written; `note` is ASCII, at most 192 characters. */
  end(note: string): void {
    this.lengths[slots] = Buffer.from(this.buffer, noteAt, noteSize).write(note)
    this.close(ended)
  }

  /** Says that one side is gone; after `end` that changes nothing. */
  break(): void {
    this.close(broken)
  }

  /** Makes it as new: both sides must be done with it. */
  reset(): void {
    this.words.fill(0)
  }

  private close(how: typeof ended | typeof broken): void {
    Atomics.compareExchange(this.words, endAt, open, how)
    Atomics.notify(this.words, writtenAt)
    Atomics.notify(this.words, readAt)
  }
}
