import { append, Run, Sorted } from "../table/Sorted.ts"
import { Scratch } from "../table/Scratch.ts"
import { Room, type Table } from "../table/Table.ts"
import type { Facts } from "./Facts.ts"

/** A folder. What is in it is found by its number: one that comes in the place of another has nothing of that. */
export interface Folder {
  readonly id: number
  /** The last layer that put it there, or anything in it. */
  touched: number
  /** What is in it and older than this layer is gone. */
  floor: number
  /** Null where no layer describes it. */
  facts: Facts | null
}

/** Anything else, and the layer that put it there. */
export interface Leaf {
  readonly by: number
  readonly facts: Facts
}

/** One of several names of a file, or one that was. */
export interface Shared {
  readonly by: number
  readonly node: number
}

export type Child = Folder | Leaf | Shared

export const isFolder = (child: Child | undefined): child is Folder => child !== undefined && "id" in child

/** Whether it is there, in a folder with this floor. */
export const isIn = (child: Child, floor: number): boolean => (isFolder(child) ? child.touched : child.by) >= floor

/** What the keys of a folder's children begin with: its number in four bytes, so that they are in the order of folders, and of names in them. */
export const prefixOf = (id: number): string => String.fromCharCode(id >>> 24, (id >>> 16) & 0xff, (id >>> 8) & 0xff, id & 0xff)

const prefixSize = 4
/** How many bytes are sorted at once. */
const stretch = 2 ** 20
/** How much is read at once of folders that are not very deep, and of others: all on the way to a name are open. */
const [piece, small, deep] = [16 * 1024, 512, 50]

type Listed = readonly [segment: string, child: Child]

/** The children of each folder in the order of their names: sorted in memory, or if there are too many, in files. */
export class Children {
  private readonly lists = new Map<number, Array<Listed>>()
  private readonly file: Scratch | undefined
  /** Where in the file each folder's children begin; an empty text ends them. */
  private readonly starts: Float64Array
  private open = 0

  /** Empties the table. `folders`: the numbers of all are less. */
  constructor(children: Table<Child>, folders: number, room: Room, stop: () => void) {
    this.starts = new Float64Array(children.isSmall ? 0 : folders)
    if (!children.isSmall) this.file = this.sorted(children, room, stop)
    else for (const [key, child] of children.entries()) {
      const id = idOf(key)
      const list = this.lists.get(id)
      if (list === undefined) this.lists.set(id, [[key.slice(prefixSize), child]])
      else list.push([key.slice(prefixSize), child])
    }
  }

  /** Those of one folder; asked for once. */
  *of(id: number): Generator<Listed, void> {
    const { file } = this
    if (file === undefined) {
      const list = this.lists.get(id)
      this.lists.delete(id)
      if (list !== undefined) yield* list.sort(([a], [b]) => a < b ? -1 : 1)
      return
    }
    const start = this.starts[id] ?? 0
    if (start === 0) return
    this.open++
    for (const run = new Run(file, start, this.open > deep ? small : piece); run.next() && run.current !== "";) {
      const end = run.current.indexOf("\u0000")
      const child: Child = JSON.parse(run.current.slice(end + 1))
      yield [run.current.slice(0, end), child]
    }
    this.open--
  }

  /** Forgets them; may be called again. */
  close(): void {
    this.lists.clear()
    this.file?.close()
  }

  private sorted(children: Table<Child>, room: Room, stop: () => void): Scratch {
    const sorted = new Sorted(new Room(room.folder, 0), stretch)
    const file = new Scratch(room.folder)
    try {
      for (const [key, text] of children.texts()) {
        stop()
        sorted.add(`${key}\u0000${text}`)
      }
      children.close()
      append(file, "")
      let last = -1
      for (const text of sorted.all()) {
        stop()
        const id = idOf(text)
        if (id !== last) {
          append(file, "")
          this.starts[last = id] = file.size
        }
        append(file, text.slice(prefixSize))
      }
      append(file, "")
      return file
    } catch (error) {
      file.close()
      throw error
    } finally {
      sorted.close()
    }
  }
}

const idOf = (key: string): number => key.charCodeAt(0) * 2 ** 24 + key.charCodeAt(1) * 2 ** 16 + key.charCodeAt(2) * 2 ** 8 + key.charCodeAt(3)
