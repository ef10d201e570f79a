import type { Amount } from "./Units.ts"

/** At most so many bytes between two progress messages: 512 KiB. */
const step = 512 * 1024

/**
 * When a reader of `size` bytes (not above 0: nobody knows) speaks of its progress (pkg/progressreader): after strictly more
 * than 1 % of the size or 512 KiB, whichever is less, and at the end. The methods give what is said.
 */
export class Meter {
  readonly size: number
  private current = 0
  private said = 0
  private readonly every: number

  constructor(size: number) {
    this.size = size
    this.every = size > 0 ? Math.min(step, Math.trunc(0.01 * size)) : step
  }

  /** The reader has come to byte `position`; a position before the last begins afresh. */
  at(position: number): ReadonlyArray<Amount> {
    if (position < this.current) this.said = 0
    this.current = position
    return this.current - this.said > this.every ? [this.say()] : []
  }

  /** A read came back empty, with the end or with an error: said twice, since both a failing read and an empty one are told. */
  end(): ReadonlyArray<Amount> {
    return [this.say(), this.say()]
  }

  /** The reader is closed: if that is before the end, as if all had come. */
  close(): ReadonlyArray<Amount> {
    if (this.current >= this.size) return []
    this.current = this.size
    return [this.say()]
  }

  private say(): Amount {
    this.said = this.current
    return { current: this.current, total: this.size }
  }
}
