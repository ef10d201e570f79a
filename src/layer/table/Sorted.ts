import { Buffer } from "node:buffer"
import type { Scratch } from "./Scratch.ts"
import type { Room } from "./Table.ts"

/** Beside its characters, what a text takes in memory. */
const each = 40
/** What all runs together read at once, and each of them at least. */
const pieces = 2 ** 20
const least = 512
const most = 4096
/** So many runs are of the same length, the next ones longer. */
const few = 64
/** What a run that is read alone reads first. */
const glance = 256

/** Adds a text of one character a byte, its length before it. */
export const append = (file: Scratch, text: string): void => {
  const bytes = Buffer.allocUnsafe(4 + text.length)
  bytes.writeUInt32LE(text.length)
  bytes.write(text, 4, "latin1")
  file.append(bytes)
}

const nothing: Buffer = Buffer.alloc(0)

/** Texts that were added to a file one after the other, read from a place on in pieces that grow to `most` bytes. */
export class Run {
  current = ""
  private readonly file: Scratch
  private readonly most: number
  private readonly end: number
  private at: number
  private piece = glance
  private bytes = nothing
  private from = 0
  private to = 0

  constructor(file: Scratch, at: number, most: number, end = file.size) {
    this.file = file
    this.at = at
    this.most = most
    this.end = end
  }

  /** Whether there is one more text: then it is `current`. */
  next(): boolean {
    const size = this.has(4) ? 4 + this.bytes.readUInt32LE(this.from) : 0
    if (size === 0 || !this.has(size)) return false
    this.current = this.bytes.toString("latin1", this.from + 4, this.from + size)
    this.from += size
    return true
  }

  /** Whether there are so many bytes more; they are in `bytes` then. */
  private has(size: number): boolean {
    while (this.to - this.from < size && this.at < this.end) {
      const { bytes, from, to } = this
      this.piece = Math.min(this.piece * 2, this.most)
      const read = this.file.read(this.at, Math.min(Math.max(this.piece, size), this.end - this.at))
      this.to = to - from + read.byteLength
      if (this.to > bytes.byteLength) this.bytes = Buffer.allocUnsafe(this.to)
      bytes.copy(this.bytes, 0, from, to)
      read.copy(this.bytes, to - from)
      this.at += read.byteLength
      this.from = 0
    }
    return this.to - this.from >= size
  }
}

/** The run with the least text comes up; `heap` is put in order from `at` down. */
const sink = (heap: Array<Run>, at: number): void => {
  for (let hole = at;;) {
    let child = 2 * hole + 1
    const [left, right] = [heap[child], heap[child + 1]]
    if (left !== undefined && right !== undefined && right.current < left.current) child++
    const [run, down] = [heap[hole], heap[child]]
    if (run === undefined || down === undefined || down.current >= run.current) return
    heap[hole] = down
    heap[child] = run
    hole = child
  }
}

/**
 * Texts of one character a byte that are to come in the order of their bytes, for those that an archive chose: what there is no `room` for
 * is sorted in a file without a name, so many bytes of it at once (4 MiB), and more the more it gets.
 */
export class Sorted {
  private readonly room: Room
  private readonly stretch: number
  private texts: Array<string> = []
  private held = 0
  private file: Scratch | undefined
  private readonly runs: Array<readonly [from: number, to: number]> = []

  constructor(room: Room, stretch = 4 * 2 ** 20) {
    this.room = room
    this.stretch = stretch
  }

  add(text: string): void {
    const bytes = text.length + each
    this.texts.push(text)
    this.held += bytes
    this.room.left -= bytes
    if (this.room.left < 0 && this.held > this.stretch * (1 + Math.floor(this.runs.length / few))) this.flush()
  }

  /** All of them. No more may be added. */
  *all(): Generator<string, void> {
    if (this.file === undefined && this.room.left >= 0) return yield* this.texts.sort(ascending)
    this.flush()
    const { file, runs } = this
    if (file === undefined) return
    const piece = Math.min(most, Math.max(least, Math.floor(pieces / runs.length)))
    const heap = runs.map(([at, end]) => new Run(file, at, piece, end)).filter((run) => run.next())
    for (let at = heap.length >> 1; at >= 0; at--) sink(heap, at)
    for (let [run] = heap; run !== undefined; [run] = heap) {
      yield run.current
      if (!run.next()) {
        const last = heap.pop()
        if (last === undefined || last === run) continue
        heap[0] = last
      }
      sink(heap, 0)
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.room.left += this.held
    this.held = 0
    this.texts = []
    this.runs.length = 0
    if (this.file !== undefined) this.room.giveBack()
    this.file = undefined
  }

  private flush(): void {
    if (this.texts.length === 0) return
    const file = this.file ??= this.room.borrow()
    const from = file.size
    for (const text of this.texts.sort(ascending)) append(file, text)
    this.runs.push([from, file.size])
    this.texts = []
    this.room.left += this.held
    this.held = 0
  }
}

const ascending = (a: string, b: string): number => a < b ? -1 : a === b ? 0 : 1
