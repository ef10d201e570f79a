import { opendirSync } from "node:fs"
import { type Form, Sorted } from "./Sorted.ts"
import type { Room } from "./Table.ts"

/** A name in a folder, one character a byte. */
export interface ListedName {
  readonly segment: string
  readonly isFolder: boolean
}

const form: Form<ListedName> = {
  key: ({ segment }) => segment,
  text: ({ isFolder, segment }) => `${isFolder ? "d" : "-"}${segment}`,
  of: (text) => ({ segment: text.slice(1), isFolder: text[0] === "d" })
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

/**
 * The names in the folder `path` in the order of their bytes, as they are when the first is asked for. Those for which there is no
 * `room` are sorted in a file, so many bytes of them at once (4 MiB). It must be run to its end or ended.
 */
export const list = function*(path: string, room: Room, stretch?: number): Generator<ListedName, void> {
  const names = new Sorted(room, form, stretch)
  try {
    for (const one of unsorted(path)) names.add(one, one.segment.length)
    yield* names.all()
  } finally {
    names.close()
  }
}
