import { readSync } from "node:fs"
import { Refused } from "../Fault.ts"
import { noLimits } from "../Limits.ts"
import { inflater } from "../inflate/Inflate.ts"
import { TarReader } from "../tar/Tar.ts"

const pieceSize = 256 * 1024
/** A piece of a hole: sparse files may claim a lot. */
const hole = new Uint8Array(pieceSize)

/** The bytes of one file in a layer's blob, read piece by piece; nothing is unpacked. */
export class Extract {
  private readonly fd: number
  private readonly size: number
  private readonly piece = Buffer.allocUnsafe(pieceSize)
  private readonly inflate: ReturnType<typeof inflater>
  private chunks: Array<Uint8Array> = []
  private at = 0
  private seen = 0
  private filled = 0
  private done = false

  /** `entry` counts the archive's entries from 1; `length` is the file's size. The descriptor stays its owner's. */
  constructor(fd: number, size: number, entry: number, length: number, native: boolean) {
    this.fd = fd
    this.size = size
    const zeros = (count: number) => {
      for (let left = count; left > 0; left -= pieceSize) this.chunks.push(left < pieceSize ? hole.subarray(0, left) : hole)
    }
    const tar = new TarReader({
      entry: () => { this.seen++ },
      data: (bytes, offset) => {
        if (this.seen !== entry) return
        zeros(offset - this.filled)
        this.chunks.push(Uint8Array.from(bytes))
        this.filled = offset + bytes.byteLength
      },
      end: () => {
        if (this.seen !== entry) return
        zeros(length - this.filled)
        this.done = true
      }
    }, noLimits)
    this.inflate = inflater((bytes) => { if (!this.done) tar.write(bytes) }, { native })
  }

  /** The next bytes; undefined after the last. Throws `Refused` for a blob that is no layer, and Node's errors. */
  async next(): Promise<ReadonlyArray<Uint8Array> | undefined> {
    while (this.chunks.length === 0 && !this.done) {
      const read = readSync(this.fd, this.piece, 0, Math.min(pieceSize, this.size - this.at), this.at)
      if (read === 0) throw new Refused("the layer ends before the file that was found in it")
      this.at += read
      await this.inflate.write(this.piece.subarray(0, read))
    }
    if (this.chunks.length === 0) return undefined
    const chunks = this.chunks
    this.chunks = []
    return chunks
  }

  /** Gives back what inflating holds. */
  close(): void {
    this.inflate.close()
  }
}
