import { Buffer } from "node:buffer"
import { Scratch } from "./Scratch.ts"
import type { Room } from "./Table.ts"

/** Beside its text, what a value takes in memory. */
const each = 100
const pieceSize = 16 * 1024
const least = 256
/** What the pieces of all runs that are merged take together. */
const pieces = 4 * 2 ** 20

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
  /** Undefined after the last. */
  current: string | undefined
  private readonly file: Scratch
  private readonly most: number
  private readonly end: number
  private at: number
  private piece = least
  private bytes = nothing
  private from = 0
  private to = 0

  constructor(file: Scratch, at: number, most: number, end = file.size) {
    this.file = file
    this.at = at
    this.most = most
    this.end = end
    this.next()
  }

  next(): void {
    const size = this.has(4) ? 4 + this.bytes.readUInt32LE(this.from) : 0
    if (size === 0 || !this.has(size)) {
      this.current = undefined
      return
    }
    this.current = this.bytes.toString("latin1", this.from + 4, this.from + size)
    this.from += size
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

/** How values are put in order, and how they are written: as texts of one character a byte. */
export interface Form<A> {
  readonly key: (value: A) => string
  readonly text: (value: A) => string
  readonly of: (text: string) => A
}

/** Texts that are in order by themselves. */
export const plain: Form<string> = { key: (text) => text, text: (text) => text, of: (text) => text }

interface Head<A> {
  readonly run: Run
  value: A
  key: string
}

/** Values that are put in the order of their keys; those for which there is no `room` in a file, in which so many bytes at once (4 MiB) are sorted. */
export class Sorted<A> {
  private readonly room: Room
  private readonly form: Form<A>
  private readonly stretch: number
  private values: Array<A> = []
  private held = 0
  private file: Scratch | undefined
  private readonly runs: Array<readonly [at: number, end: number]> = []

  constructor(room: Room, form: Form<A>, stretch = 4 * 2 ** 20) {
    this.room = room
    this.form = form
    this.stretch = stretch
  }

  /** `weight`: about the bytes that the value takes in memory. */
  add(value: A, weight: number): void {
    const bytes = weight + each
    this.values.push(value)
    this.held += bytes
    this.room.left -= bytes
    if (this.held > this.stretch && this.room.left < 0) this.flush()
  }

  /** All of them, in order. */
  *all(): Generator<A, void> {
    if (this.file === undefined && this.room.left >= 0) return yield* this.sorted()
    const file = this.flush()
    const piece = Math.max(1024, Math.min(pieceSize, pieces / this.runs.length))
    const heads: Array<Head<A>> = []
    for (const [at, end] of this.runs) {
      const run = new Run(file, at, piece, end)
      if (run.current === undefined) continue
      const value = this.form.of(run.current)
      heads.push({ run, value, key: this.form.key(value) })
    }
    heads.sort((a, b) => a.key < b.key ? -1 : 1)
    for (let least = heads[0]; least !== undefined; least = heads[0]) {
      const { run, value } = least
      run.next()
      if (run.current === undefined) {
        const last = heads.pop()
        if (last !== undefined && last !== least) heads[0] = last
      } else {
        least.value = this.form.of(run.current)
        least.key = this.form.key(least.value)
      }
      sink(heads)
      yield value
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.values = []
    this.room.left += this.held
    this.held = 0
    this.runs.length = 0
    this.file?.close()
    this.file = undefined
  }

  private sorted(): ReadonlyArray<A> {
    const { key } = this.form
    return this.values.sort((a, b) => key(a) < key(b) ? -1 : 1)
  }

  private flush(): Scratch {
    const file = this.file ??= new Scratch(this.room.folder)
    const at = file.size
    for (const value of this.sorted()) append(file, this.form.text(value))
    this.runs.push([at, file.size])
    this.values = []
    this.room.left += this.held
    this.held = 0
    return file
  }
}

/** Lets the first of a heap sink to its place. */
const sink = (heads: Array<Head<unknown>>): void => {
  for (let at = 0;;) {
    const here = heads[at]
    const [left, right] = [heads[2 * at + 1], heads[2 * at + 2]]
    if (here === undefined || left === undefined) return
    const [to, less] = right !== undefined && right.key < left.key ? [2 * at + 2, right] : [2 * at + 1, left]
    if (here.key <= less.key) return
    heads[at] = less
    heads[to] = here
    at = to
  }
}
