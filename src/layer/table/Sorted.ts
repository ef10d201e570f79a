import { Buffer } from "node:buffer"
import type { Scratch } from "./Scratch.ts"
import type { Room } from "./Table.ts"

/** Beside its characters, what a text takes in memory. */
const each = 40
/** What all runs together read at once, and each of them at least. */
const pieces = 2 ** 20
const least = 512
const most = 4096

/** A sorted part of the texts in a file, read piece by piece: each with its length in four bytes before it. */
class Run {
  current = ""
  private readonly file: Scratch
  private readonly end: number
  private readonly piece: number
  private at: number
  private bytes: Buffer = Buffer.alloc(0)
  private from = 0

  constructor(file: Scratch, [from, to]: readonly [number, number], piece: number) {
    this.file = file
    this.at = from
    this.end = to
    this.piece = piece
  }

  /** Whether there is one more text: then it is `current`. */
  next(): boolean {
    if (!this.has(4)) return false
    const length = this.bytes.readUInt32LE(this.from)
    this.has(4 + length)
    this.from += 4
    this.current = this.bytes.toString("latin1", this.from, this.from + length)
    this.from += length
    return true
  }

  private has(length: number): boolean {
    const rest = this.bytes.byteLength - this.from
    if (rest >= length) return true
    const more = this.file.read(this.at, Math.min(Math.max(this.piece, length - rest), this.end - this.at))
    this.at += more.byteLength
    // What comes from the file is good until the next call.
    this.bytes = Buffer.concat([this.bytes.subarray(this.from), more])
    this.from = 0
    return this.bytes.byteLength >= length
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
 * is sorted in a file without a name, so many bytes of it at once (4 MiB).
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
    if (this.held > this.stretch && this.room.left < 0) this.flush()
  }

  /** All of them. No more may be added. */
  *all(): Generator<string, void> {
    if (this.file === undefined && this.room.left >= 0) return yield* this.texts.sort(ascending)
    this.flush()
    const { file, runs } = this
    if (file === undefined) return
    const piece = Math.min(most, Math.max(least, Math.floor(pieces / runs.length)))
    const heap = runs.map((run) => new Run(file, run, piece)).filter((run) => run.next())
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
    const length = Buffer.alloc(4)
    for (const text of this.texts.sort(ascending)) {
      length.writeUInt32LE(text.length)
      file.append(length)
      file.append(Buffer.from(text, "latin1"))
    }
    this.runs.push([from, file.size])
    this.texts = []
    this.room.left += this.held
    this.held = 0
  }
}

const ascending = (a: string, b: string): number => a < b ? -1 : a === b ? 0 : 1
