import { pairsSize } from "../table/Table.ts"
import type { Entry } from "../tar/Entry.ts"
import type * as Name from "../tree/Name.ts"

/** A name of a root file system, as its layers make it. */
export interface ViewEntry {
  readonly name: Name.Name
  readonly type: "file" | "dir" | "symlink" | "char" | "block" | "fifo"
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: readonly [seconds: number, nanos: number]
  /** Of a symlink, as text of its bytes; of a device `major,minor`; else empty. */
  readonly target: string
  /** Which layer (0: the lowest) its content or metadata is from; -1 for folders that no layer describes. */
  readonly layer: number
  /** Which entry of that layer's tar, counted from 1, and the name it has there. */
  readonly entry: number
  readonly source: Name.Name
  /** The first name of the same file, where it has several. */
  readonly link: Name.Name | undefined
  /** SHA-256 of a file's content, if that was asked for. */
  readonly sha256: string | undefined
  readonly xattrs: ReadonlyArray<readonly [name: string, base64: string]>
}

/** The same but for names, as short as it can be, for there may be millions. `source` is null where it is the name itself. */
export type Facts = readonly [
  type: ViewEntry["type"], mode: number, uid: number, gid: number, size: number, seconds: number, nanos: number, target: string,
  layer: number, entry: number, source: Name.Name | null, xattrs: ViewEntry["xattrs"], sha256?: string
]

const none: ViewEntry["xattrs"] = []

/** Of a folder that no layer describes. */
export const implied: Facts = ["dir", 0o755, 0, 0, 0, 0, 0, "", -1, 0, "", none]

/** What an entry, the n-th of its layer, says. */
export const factsOf = (entry: Entry, layer: number, count: number, source: Name.Name | null): Facts => {
  const { devmajor, devminor, gid, linkpath, mode, mtimeNanos, mtimeSeconds, size, type, uid, xattrs } = entry
  return [
    type === "link" ? "file" : type, type === "symlink" ? 0o777 : mode, uid, gid, size, mtimeSeconds, mtimeNanos,
    type === "symlink" ? linkpath.toString("latin1") : type === "char" || type === "block" ? `${devmajor},${devminor}` : "", layer, count, source,
    xattrs.length === 0 ? none : xattrs.map(([name, value]) => [name.toString("latin1"), value.toString("base64")] as const).sort(([a], [b]) => a < b ? -1 : 1)
  ]
}

/** About the bytes that they take in memory. */
export const weightOf = ([, , , , , , , target, , , source, xattrs, sha256]: Facts): number =>
  200 + target.length + (source?.length ?? 0) + (sha256 === undefined ? 0 : 90) + pairsSize(xattrs)

/** The entry of a name. */
export const entryOf = (name: Name.Name, facts: Facts, link?: Name.Name): ViewEntry => {
  const [type, mode, uid, gid, size, seconds, nanos, target, layer, entry, source, xattrs, sha256] = facts
  return { name, type, mode, uid, gid, size, mtime: [seconds, nanos], target, layer, entry, source: source ?? name, link, sha256, xattrs }
}

export const typeOf = ([type]: Facts): ViewEntry["type"] => type
export const targetOf = ([, , , , , , , target]: Facts): string => target
export const layerOf = ([, , , , , , , , layer]: Facts): number => layer

/** With a digest. */
export const summed = (facts: Facts, sha256: string): Facts => {
  const [type, mode, uid, gid, size, seconds, nanos, target, layer, entry, source, xattrs] = facts
  return [type, mode, uid, gid, size, seconds, nanos, target, layer, entry, source, xattrs, sha256]
}

/** Of a file that has been called so first. */
export const placed = (facts: Facts, name: Name.Name): Facts => {
  const [type, mode, uid, gid, size, seconds, nanos, target, layer, entry, source, ...more] = facts
  return [type, mode, uid, gid, size, seconds, nanos, target, layer, entry, source ?? name, ...more]
}
