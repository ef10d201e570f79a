import { Buffer } from "node:buffer"
import { opendirSync } from "node:fs"
import { Scratch } from "./Scratch.ts"
import type { Room } from "./Table.ts"

/** A name in a folder, one character a byte. */
export interface ListedName {
  readonly segment: string
  readonly isFolder: boolean
}

/** Beside its text, what a name takes in memory. */
const each = 100
const pieceSize = 16 * 1024

/** A sorted part of a folder's names in a file, read piece by piece: a letter, the name, a NUL. */
class Run {
  current: ListedName | undefined
  private readonly file: Scratch
  private readonly end: number
  private at: number
  private rest = ""
  private from = 0

  constructor(file: Scratch, names: ReadonlyArray<ListedName>) {
    this.file = file
    this.at = file.size
    for (const { isFolder, segment } of names) file.append(Buffer.from(`${isFolder ? "d" : "-"}${segment}\u0000`, "latin1"))
    this.end = file.size
    this.next()
  }

  next(): void {
    let to = this.rest.indexOf("\u0000", this.from)
    while (to === -1 && this.at < this.end) {
      const bytes = this.file.read(this.at, Math.min(pieceSize, this.end - this.at))
      this.at += bytes.byteLength
      this.rest = this.rest.slice(this.from) + bytes.toString("latin1")
      this.from = 0
      to = this.rest.indexOf("\u0000")
    }
    if (to === -1) {
      this.current = undefined
      return
    }
    this.current = { segment: this.rest.slice(this.from + 1, to), isFolder: this.rest[this.from] === "d" }
    this.from = to + 1
  }
}

const sorted = (names: Array<ListedName>) => names.sort((a, b) => a.segment < b.segment ? -1 : 1)

/** The names in the folder `path`, as they come. Those that are removed meanwhile may, those that are added need not be among them. */
export const unsorted = function*(path: string): Generator<ListedName, void> {
  const folder = opendirSync(path, { encoding: "latin1", bufferSize: 256 })
  try {
    for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) yield { segment: entry.name, isFolder: entry.isDirectory() }
  } finally {
    folder.closeSync()
  }
}

/**
 * The names in the folder `path` in the order of their bytes, as they are when the first is asked for. Those for which there is no
 * `room` are sorted in a file, so many bytes of them at once (4 MiB). It must be run to its end or ended.
 */
export const list = function*(path: string, room: Room, stretch = 4 * 2 ** 20): Generator<ListedName, void> {
  let names: Array<ListedName> = []
  let held = 0
  let file: Scratch | undefined
  const runs: Array<Run> = []
  const flush = () => {
    file ??= new Scratch(room.folder)
    runs.push(new Run(file, sorted(names)))
    names = []
    room.left += held
    held = 0
  }
  try {
    for (const one of unsorted(path)) {
      const bytes = one.segment.length + each
      names.push(one)
      held += bytes
      room.left -= bytes
      if (held > stretch && room.left < 0) flush()
    }
    if (file === undefined && room.left >= 0) return yield* sorted(names)
    flush()
    for (;;) {
      let least: Run | undefined
      for (const run of runs) if (run.current !== undefined && (least?.current === undefined || run.current.segment < least.current.segment)) least = run
      if (least?.current === undefined) return
      const { current } = least
      least.next()
      yield current
    }
  } finally {
    room.left += held
    file?.close()
  }
}
