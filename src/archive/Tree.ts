import type { ArchiveFile } from "./ArchiveFile.ts"

/** A name's bytes as latin-1 text: a unit a byte, so that names that are not UTF-8 stay what they are. */
export type Name = string

/** The name a document means by `text`. */
export const nameOf = (text: string): Name => Buffer.from(text, "utf8").toString("latin1")

/** A name as people read it. */
export const textOf = (name: Name): string => {
  const bytes = Buffer.from(name, "latin1")
  const text = bytes.toString("utf8")
  return Buffer.from(text, "utf8").equals(bytes) ? text : name
}

/** The files of an archive, or of a layout's folder, by name. Nothing in it leads outside. */
export interface Tree {
  /** The path it was given by. */
  readonly archive: string
  /** The file of that name, links in the archive followed; undefined if there is none. Throws `ArchiveRefused`. */
  find(name: Name): ArchiveFile | undefined
  /** Whether nothing at all is in it. */
  readonly isEmpty: boolean
  /** The names of the folders at its top, in the order of their bytes. */
  readonly folders: ReadonlyArray<Name>
}

/** The parts of a name taken relative to the top; undefined if one of them is `..`. */
export const partsOf = (name: Name): ReadonlyArray<string> | undefined => {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".")
  return parts.includes("..") ? undefined : parts
}
