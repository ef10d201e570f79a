import { Buffer } from "node:buffer"
import { Scratch } from "./Scratch.ts"
import { Spilled } from "./Spilled.ts"

/** Beside its key and value, what an entry of a `Map` takes. */
const each = 150

/** About the bytes that pairs of texts, such as extended attributes, take in memory. */
export const pairsSize = (pairs: ReadonlyArray<readonly [string, string]> = []): number => pairs.reduce((sum, [name, value]) => sum + name.length + value.length + 100, 0)

/** What several tables may hold in memory together, in bytes, and the folder for the files of those that get larger. */
export class Room {
  left: number
  readonly folder: string
  private shared: Scratch | undefined
  private borrowers = 0

  constructor(folder: string, bytes: number) {
    this.folder = folder
    this.left = bytes
  }

  /** One file for those who are many at a time, as the lists of folders in folders are: each of its own would cost a descriptor and 128 KiB. */
  borrow(): Scratch {
    this.shared ??= new Scratch(this.folder)
    this.borrowers++
    return this.shared
  }

  /** With the last one the file goes. */
  giveBack(): void {
    if (--this.borrowers > 0) return
    this.shared?.close()
    this.shared = undefined
  }
}

/**
 * A `Map` by names (or other texts of one character a byte) of values that JSON can say, for names that an archive chose: it goes into
 * a file without a name before there is no room left, and costs 15 bytes or so a name from then on. A name that is set again keeps its
 * place in memory, and comes last in a file.
 */
export class Table<A> {
  private readonly room: Room
  private readonly small = new Map<string, A>()
  private taken = 0
  private spilled: Spilled | undefined

  constructor(room: Room) {
    this.room = room
  }

  get size(): number { return this.spilled?.size ?? this.small.size }

  /** Whether it is in memory as yet. */
  get isSmall(): boolean { return this.spilled === undefined }

  has(key: string): boolean {
    return this.spilled?.has(key) ?? this.small.has(key)
  }

  get(key: string): A | undefined {
    if (this.spilled === undefined) return this.small.get(key)
    const text = this.spilled.get(key)
    if (text === undefined) return undefined
    const value: A = JSON.parse(text)
    return value
  }

  /** `weight`: about the bytes that the value takes in memory, where that is much. */
  set(key: string, value: A, weight = 0): void {
    if (this.spilled !== undefined) return this.spilled.set(key, JSON.stringify(value))
    const known = this.small.has(key)
    const bytes = weight + (known ? 0 : key.length + each)
    this.taken += bytes
    this.room.left -= bytes
    // What is kept is one text, and not parts of the longer ones that it was made of; of a short one V8 makes none.
    this.small.set(known || key.length < 13 ? key : Buffer.from(key, "latin1").toString("latin1"), value)
    if (this.room.left < 0) this.spill()
  }

  delete(key: string): void {
    if (this.spilled === undefined) this.small.delete(key)
    else this.spilled.delete(key)
  }

  *keys(): Generator<string> {
    if (this.spilled === undefined) yield* this.small.keys()
    else for (const [key] of this.spilled.entries()) yield key
  }

  *entries(): Generator<readonly [key: string, value: A]> {
    if (this.spilled === undefined) return yield* this.small.entries()
    for (const [key, text] of this.spilled.entries()) {
      const value: A = JSON.parse(text)
      yield [key, value]
    }
  }

  /** As `entries`, of the values the JSON. */
  *texts(): Generator<readonly [key: string, text: string]> {
    if (this.spilled !== undefined) return yield* this.spilled.entries()
    for (const [key, value] of this.small) yield [key, JSON.stringify(value)]
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.room.left += this.taken
    this.taken = 0
    this.small.clear()
    this.spilled?.close()
    this.spilled = undefined
  }

  private spill(): void {
    const spilled = new Spilled(this.room.folder)
    this.spilled = spilled
    for (const [key, value] of this.small) spilled.set(key, JSON.stringify(value))
    this.room.left += this.taken
    this.taken = 0
    this.small.clear()
  }
}
