import { opendirSync } from "node:fs"
import { Sorted } from "./Sorted.ts"
import type { Room } from "./Table.ts"

/** A name in a folder, one character a byte. */
export interface ListedName {
  readonly segment: string
  readonly isFolder: boolean
}

/** The names in the folder `path`, as they come. Those that are removed meanwhile may, those that are added need not be among them. */
export const unsorted = function*(path: string): Generator<ListedName, void> {
  const folder = opendirSync(path, { encoding: "latin1", bufferSize: 256 })
  try {
    for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) yield { segment: entry.name, isFolder: entry.isDirectory() }
  } finally {
    folder.closeSync()
  }
}

/** What stands behind a name: no name has a NUL, so that these sort as the names do. */
const [folder, other] = ["\u0000d", "\u0000-"]

/**
 * The names in the folder `path` in the order of their bytes, as they are when the first is asked for. Those for which there is no
 * `room` are sorted in a file, so many bytes of them at once (4 MiB). It must be run to its end or ended.
 */
export const list = function*(path: string, room: Room, stretch?: number): Generator<ListedName, void> {
  const names = new Sorted(room, stretch)
  try {
    for (const { isFolder, segment } of unsorted(path)) names.add(segment + (isFolder ? folder : other))
    for (const text of names.all()) yield { segment: text.slice(0, -2), isFolder: text.endsWith(folder) }
  } finally {
    names.close()
  }
}
