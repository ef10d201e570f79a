import { Buffer } from "node:buffer"
import { Scratch } from "./Scratch.ts"
import type { Room } from "./Table.ts"

/** Beside its `weight`, what a value takes in memory. */
const each = 50

/** Values that JSON can say, one after the other, for as many as an archive has: those there is no room for go into a file without a name. */
export class Sequence<A> {
  private readonly room: Room
  private readonly first: Array<A> = []
  private taken = 0
  private file: Scratch | undefined

  constructor(room: Room) {
    this.room = room
  }

  /** `weight`: about the bytes that the value takes in memory. */
  add(value: A, weight: number): void {
    if (this.file === undefined && this.room.left < weight + each) this.file = new Scratch(this.room.folder)
    if (this.file === undefined) {
      this.first.push(value)
      this.taken += weight + each
      this.room.left -= weight + each
      return
    }
    const text = Buffer.from(JSON.stringify(value))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(text.byteLength)
    this.file.append(length)
    this.file.append(text)
  }

  *[Symbol.iterator](): Generator<A, void> {
    yield* this.first
    const { file } = this
    if (file === undefined) return
    for (let at = 0; at < file.size;) {
      const length = file.read(at, 4).readUInt32LE()
      const value: A = JSON.parse(file.read(at + 4, length).toString())
      at += 4 + length
      yield value
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.room.left += this.taken
    this.taken = 0
    this.first.length = 0
    this.file?.close()
    this.file = undefined
  }
}
