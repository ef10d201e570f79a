import { closeSync, constants, openSync, readSync, writeSync } from "node:fs"
import { relocate } from "../Syscalls.ts"
import { pairsSize, type Room, Table } from "../table/Table.ts"
import type { Name } from "../tree/Name.ts"

/** Kinds of device files. */
export type DeviceType = "char" | "block" | "fifo"

/** What could not be set on this host, each field absent when it was: ids, permission bits, exact time, attributes, the device itself. */
export interface Unset {
  readonly uid?: number
  readonly gid?: number
  readonly mode?: number
  readonly mtime?: readonly [seconds: number, nanos: number]
  /** Names as text of their bytes (one character per byte), values in base64. */
  readonly xattrs?: ReadonlyArray<readonly [name: string, base64: string]>
  /** Nothing was made in `fs/`; uid, gid, mode and mtime are then all there. */
  readonly device?: readonly [type: DeviceType, major: number, minor: number]
}

/**
 * What a layer's `fs/` cannot say, one record per name and kind. Names are cleaned and relative with the symlinks that the
 * layer itself had before them resolved in their parents; the root is "".
 * - `whiteout`: what lower layers have there is gone (also where this layer had put something that a folder of its own replaced).
 * - `opaque`: what lower layers have in this folder is gone.
 * - `implied`: a folder of `fs/` that is there only because a child needed it: looked up through the lower layers, changes nothing.
 * - `link`: a hard link whose `target` is not in this layer; nothing is in `fs/` at `path`.
 * - `unset`: see `Unset`; a hard link has its own copy.
 */
export type MetaRecord =
  | { readonly t: "whiteout" | "opaque" | "implied"; readonly path: Name }
  | { readonly t: "link"; readonly path: Name; readonly target: Name }
  | ({ readonly t: "unset"; readonly path: Name } & Unset)

/** How many names have something that was not set. */
export interface UnsetCounts {
  readonly owners: number
  readonly devices: number
  readonly xattrs: number
  readonly times: number
}

/** The first line of the file, which ends with the format's version. */
export const heading = "towline-layer 1"

/** The records of one layer while it is applied. There may be millions: `room` is what they may take in memory. */
export class Journal {
  private readonly whiteouts: Table<1>
  private readonly opaques: Table<1>
  private readonly implied: Table<1>
  private readonly links: Table<Name>
  private readonly unset: Table<Unset>
  /** Names that have a record and nothing on disk, in a chain for each folder: its first, and the next of each. Some may have something else since. */
  private readonly ghosts: Table<Name>
  private readonly others: Table<Name>
  private readonly counted = { owners: 0, devices: 0, xattrs: 0, times: 0 }
  /** Most of an ordinary user's records say the same. */
  private readonly owners = new Map<string, Unset>()

  constructor(room: Room) {
    this.whiteouts = new Table(room)
    this.opaques = new Table(room)
    this.implied = new Table(room)
    this.links = new Table(room)
    this.unset = new Table(room)
    this.ghosts = new Table(room)
    this.others = new Table(room)
  }

  addWhiteout(path: Name): void {
    this.whiteouts.set(path, 1)
  }

  addOpaque(path: Name): void {
    this.opaques.set(path, 1)
  }

  addImplied(path: Name): void {
    this.implied.set(path, 1)
  }

  /** The folder there got an entry of its own. */
  declared(path: Name): void {
    this.implied.delete(path)
    this.forget(path)
  }

  isImplied(path: Name): boolean {
    return this.implied.has(path)
  }

  addLink(path: Name, target: Name): void {
    this.links.set(path, target, target.length)
    this.addGhost(path)
  }

  addUnset(path: Name, unset: Unset): void {
    const { uid, gid, mode, ...more } = unset
    this.forget(path)
    this.count(unset, 1)
    if (Object.keys(more).length === 0) {
      const key = `${uid}:${gid}:${mode}`
      const shared = this.owners.get(key) ?? unset
      if (this.owners.size < sharing) this.owners.set(key, shared)
      return this.unset.set(path, shared)
    }
    this.unset.set(path, unset, 100 + pairsSize(unset.xattrs))
    if (unset.device !== undefined) this.addGhost(path)
  }

  /** The target of the link record at `path`. */
  linkAt(path: Name): Name | undefined {
    return this.links.get(path)
  }

  unsetAt(path: Name): Unset | undefined {
    return this.unset.get(path)
  }

  /** Whether this layer has something at `path` that is not on disk: a link or device record. */
  isGhost(path: Name): boolean {
    return this.ghosts.size > 0 && (this.links.has(path) || this.unset.get(path)?.device !== undefined)
  }

  /** Whether `path` or something it is in is a ghost. */
  isInGhost(path: Name): boolean {
    if (this.ghosts.size === 0) return false
    for (let at = path; at !== ""; at = folderOf(at)) if (this.isGhost(at)) return true
    return false
  }

  /** Whether this layer so far takes `path` away from the layers below: by a whiteout of it or above, or an opaque folder above. */
  hides(path: Name): boolean {
    if (this.whiteouts.size === 0 && this.opaques.size === 0) return false
    if (this.whiteouts.has(path)) return true
    for (let at = path; at !== "";) {
      at = at.slice(0, Math.max(0, at.lastIndexOf("/")))
      if (this.opaques.has(at) || this.whiteouts.has(at)) return true
    }
    return false
  }

  /**
   * What this layer had at `path` is replaced or removed: its records go, those of names below that were not on disk too.
   * Names below that were on disk are told one by one. Whiteouts stay, they concern the layers below.
   */
  dropped(path: Name): void {
    if (this.implied.size > 0) this.implied.delete(path)
    this.forget(path)
    if (this.ghosts.size === 0) return
    this.links.delete(path)
    let inside = this.ghosts.get(path)
    if (inside !== undefined) this.ghosts.delete(path)
    while (inside !== undefined && inside !== end) {
      const name: Name = inside
      inside = this.others.get(name)
      this.others.delete(name)
      this.links.delete(name)
      this.forget(name)
    }
  }

  counts(): UnsetCounts {
    return this.counted
  }

  /** All records, kind by kind. */
  *records(): Generator<MetaRecord> {
    for (const path of this.whiteouts.keys()) yield { t: "whiteout", path }
    for (const path of this.opaques.keys()) yield { t: "opaque", path }
    for (const path of this.implied.keys()) yield { t: "implied", path }
    for (const [path, target] of this.links.entries()) yield { t: "link", path, target }
    for (const [path, unset] of this.unset.entries()) yield { t: "unset", path, ...unset }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    for (const table of [this.whiteouts, this.opaques, this.implied, this.links, this.unset, this.ghosts, this.others]) table.close()
  }

  private forget(path: Name): void {
    if (this.unset.size === 0) return
    const unset = this.unset.get(path)
    if (unset === undefined) return
    this.count(unset, -1)
    this.unset.delete(path)
  }

  private count({ uid, gid, xattrs, mtime, device }: Unset, by: 1 | -1): void {
    if (device !== undefined) this.counted.devices += by
    else {
      if (uid !== undefined || gid !== undefined) this.counted.owners += by
      if (xattrs !== undefined) this.counted.xattrs += by
      if (mtime !== undefined) this.counted.times += by
    }
  }

  private addGhost(path: Name): void {
    if (this.others.has(path)) return
    const folder = folderOf(path)
    this.others.set(path, this.ghosts.get(folder) ?? end, 100)
    this.ghosts.set(folder, path, path.length)
  }
}

/** Ends a chain: no name. */
const end: Name = "/"

/** How many different records of owners and modes are kept to be shared. */
const sharing = 1000

const folderOf = (path: Name) => path.slice(0, Math.max(0, path.lastIndexOf("/")))

/** Writes records to the new file `file` (0600): the heading, then one JSON object per line. */
export const write = (file: string, records: Iterable<MetaRecord>): void => {
  const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600)
  try {
    let lines = `${heading}\n`
    const flush = () => {
      const bytes = Buffer.from(lines)
      for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at)
      lines = ""
    }
    for (const record of records) {
      lines += `${JSON.stringify(record)}\n`
      if (lines.length > 0x10000) flush()
    }
    flush()
  } catch (error) {
    throw relocate(error, file)
  } finally {
    closeSync(fd)
  }
}

/** A layer's `meta` file is not one that this version wrote; the layer must be unpacked again. */
export class MetaDamaged extends Error {
  override readonly name = "MetaDamaged"
  readonly file: string
  /** Counted from 1. */
  readonly line: number

  constructor(file: string, line: number, cause?: unknown) {
    super(`${file}, line ${line}: not a layer journal of this version. Remove the layer and pull its image again.`, { cause })
    this.file = file
    this.line = line
  }
}

/** The records of a `meta` file, in its order, read piece by piece. Throws `MetaDamaged`, and Node's errors. */
export const read = function*(file: string): Generator<MetaRecord> {
  let number = 0
  for (const line of lines(file)) {
    number++
    if (number === 1) {
      if (line !== heading) throw new MetaDamaged(file, 1)
      continue
    }
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch (cause) {
      throw new MetaDamaged(file, number, cause)
    }
    if (!isRecord(value)) throw new MetaDamaged(file, number)
    yield value
  }
  if (number === 0) throw new MetaDamaged(file, 1)
}

/** A file's lines, read piece by piece; a last one without its end has a NUL behind it. */
export const lines = function*(file: string): Generator<string> {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const piece = Buffer.allocUnsafe(0x10000)
    let rest: Array<Buffer> = []
    for (;;) {
      const size = readSync(fd, piece, 0, piece.byteLength, null)
      if (size === 0) break
      let from = 0
      for (let end = piece.subarray(0, size).indexOf(10); end !== -1; end = piece.subarray(0, size).indexOf(10, from)) {
        const line = piece.subarray(from, end)
        yield (rest.length === 0 ? line : Buffer.concat([...rest, line])).toString()
        rest = []
        from = end + 1
      }
      if (from < size) rest.push(Buffer.from(piece.subarray(from, size)))
    }
    // A last line without its end was cut: it is given as it is, and is no record.
    if (rest.length > 0) yield `${Buffer.concat(rest).toString()}\u0000`
  } catch (error) {
    throw relocate(error, file)
  } finally {
    closeSync(fd)
  }
}

const fields = (value: unknown): Partial<Record<string, unknown>> | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined
const isCount = (value: unknown) => typeof value === "number" && Number.isSafeInteger(value)
const isOptional = (value: unknown, is: (value: unknown) => boolean) => value === undefined || is(value)
const isArray = (...is: ReadonlyArray<(value: unknown) => boolean>) => (value: unknown) =>
  Array.isArray(value) && value.length === is.length && is.every((one, index) => one(value[index]))
const isText = (value: unknown): value is string => typeof value === "string"
// eslint-disable-next-line no-control-regex -- one character per byte is what is meant
const isName = (value: unknown) => isText(value) && /^[\u0001-\u00ff]*$/.test(value) &&
  (value === "" || value.split("/").every((segment) => segment !== "" && segment !== "." && segment !== ".."))
const isDevice = isArray((type) => type === "char" || type === "block" || type === "fifo", isCount, isCount)
const isAttribute = isArray(isText, isText)

const isRecord = (value: unknown): value is MetaRecord => {
  const record = fields(value)
  if (record === undefined || !isName(record["path"])) return false
  switch (record["t"]) {
    case "whiteout": case "opaque": case "implied": return true
    case "link": return isName(record["target"])
    case "unset":
      return isOptional(record["uid"], isCount) && isOptional(record["gid"], isCount) && isOptional(record["mode"], isCount) &&
        isOptional(record["mtime"], isArray(isCount, isCount)) && isOptional(record["device"], isDevice) &&
        isOptional(record["xattrs"], (list) => Array.isArray(list) && list.every(isAttribute))
    default: return false
  }
}
