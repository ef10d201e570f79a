import { Buffer } from "node:buffer"

/** Collects the pieces of a chunked stream that a format needs whole: headers, blocks. What lies in one chunk is not copied. */
export class Gather {
  /** Bytes of the current piece that came with earlier chunks. */
  have = 0
  private chunk: Uint8Array = new Uint8Array(0)
  private at = 0
  private held: Uint8Array = Buffer.allocUnsafeSlow(64)

  /** Gives the next chunk; the one before must have been used up. */
  offer(chunk: Uint8Array): void {
    this.chunk = chunk
    this.at = 0
  }

  /** Bytes of the chunk that nothing has taken. */
  get left(): number { return this.chunk.byteLength - this.at }

  /** The next `size` bytes, valid until the next call; undefined while they have not all come. Ask again with the same or a larger size. */
  take(size: number): Uint8Array | undefined {
    if (this.have === 0 && this.left >= size) return this.chunk.subarray(this.at, this.at += size)
    if (!this.hold(size)) return undefined
    this.have = 0
    return this.held.subarray(0, size)
  }

  /** As `take`, but the bytes stay to be asked for again. */
  peek(size: number): Uint8Array | undefined {
    if (this.have === 0 && this.left >= size) return this.chunk.subarray(this.at, this.at + size)
    return this.hold(size) ? this.held.subarray(0, size) : undefined
  }

  private hold(size: number): boolean {
    if (size > this.held.byteLength) {
      const larger = Buffer.allocUnsafeSlow(Math.max(size, this.held.byteLength * 2))
      larger.set(this.held.subarray(0, this.have))
      this.held = larger
    }
    const wanted = Math.min(size - this.have, this.left)
    if (wanted > 0) {
      this.held.set(this.chunk.subarray(this.at, this.at + wanted), this.have)
      this.at += wanted
      this.have += wanted
    }
    return this.have >= size
  }
}
