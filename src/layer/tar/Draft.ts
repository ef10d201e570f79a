import { Buffer } from "node:buffer"
import type { EntryType } from "./Entry.ts"
import { Refused } from "../Fault.ts"
import { defaultLimits, type Limits } from "../Limits.ts"
import { Pax, type Xattr } from "./Pax.ts"
import { fields, type TarHeader } from "./TarHeader.ts"

/** The largest owner: 2^32-1 means "leave as it is" to chown. */
const maxId = 2 ** 32 - 2
const empty: Buffer = Buffer.alloc(0)
const noXattrs: ReadonlyArray<Xattr> = []

/** The extension headers that speak of the next entry, and the records of global headers. */
export class Extensions {
  readonly global = new Pax()
  local: Pax | undefined = undefined
  longName: Buffer | undefined = undefined
  longLink: Buffer | undefined = undefined

  /** Whether one waits for its entry. */
  get pending(): boolean { return this.local !== undefined || this.longName !== undefined || this.longLink !== undefined }

  /** They have been applied. */
  clear(): void { this.local = this.longName = this.longLink = undefined }
}

/** An entry whose sparse map, and with it the size, may still be on its way. */
export interface Draft {
  readonly type: EntryType
  readonly path: Buffer
  readonly linkpath: Buffer
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
  readonly mtimeNanos: number
  readonly devmajor: number
  readonly devminor: number
  readonly xattrs: ReadonlyArray<Xattr>
  /** Bytes the archive holds for it. */
  readonly stored: number
  size: number
  pairs: Array<number> | undefined
}

/**
 * The entry of `header` with its extension headers applied: a GNU long name counts more than a PAX path, a local record
 * more than a global one, any record more than the header. Names keep to `limits`; throws `Refused`.
 */
export const draft = (header: TarHeader, { local, global, longName, longLink }: Extensions, limits: Pick<Limits, "path" | "depth">): Draft => {
  const path = local?.sparse?.name ?? longName ?? local?.path ?? header.name()
  const flag = header.type
  const type = typeOf(flag, path)
  checkName(path, "name", limits, path)
  if (type === undefined) throw new Refused(`no layer can hold an entry of type ${JSON.stringify(String.fromCharCode(flag))}`, path)
  let linkpath = empty
  if (type === "link" || type === "symlink") {
    linkpath = longLink ?? local?.linkpath ?? header.text(157, 100)
    checkName(linkpath, "link target", limits, path)
  }
  const headerSize = natural(header, "size", path)
  const size = local?.size ?? headerSize
  if (type === "dir" && flag !== 0x35 && size > 0) throw new Refused("it is a file with data whose name ends in a slash", path)
  const stored = type === "file" ? size : 0
  const mtime = over(local?.mtime, global.mtime)
  const mtimeSeconds = number(header, "mtime", path)
  const device = type === "char" || type === "block"
  return {
    type,
    path,
    linkpath,
    mode: natural(header, "mode", path) & 0o7777,
    uid: id(header, "uid", over(local?.uid, global.uid), path),
    gid: id(header, "gid", over(local?.gid, global.gid), path),
    mtimeSeconds: mtime?.[0] ?? mtimeSeconds,
    mtimeNanos: mtime?.[1] ?? 0,
    devmajor: device ? deviceNumber(header, "devmajor", 0xfff, path) : 0,
    devminor: device ? deviceNumber(header, "devminor", 0xfffff, path) : 0,
    xattrs: local?.xattrs === undefined ? noXattrs : [...local.xattrs.values()],
    stored,
    size: stored,
    pairs: undefined
  }
}

/** A name or link target of `entry` is not empty, and not longer or deeper than the limits. */
export const checkName = (name: Buffer, what: "name" | "link target", limits: Pick<Limits, "path" | "depth">, entry: Buffer): void => {
  if (name.byteLength === 0) throw new Refused(`its ${what} is empty`, entry)
  if (name.byteLength > limits.path) throw new Refused(`its ${what} is longer than ${limits.path} bytes`, entry, limits.path < defaultLimits.path ? "path" : undefined)
  if (name.byteLength >= limits.depth * 2 && depthOf(name) > limits.depth) throw new Refused(`its ${what} is more than ${limits.depth} names deep`, entry, limits.depth < defaultLimits.depth ? "depth" : undefined)
}

/** The names in a path; `.` and `..` count as they are written. */
const depthOf = (name: Buffer): number => {
  let depth = 0
  for (let at = 0; at < name.byteLength; at++) if (name[at] !== 0x2f && (at === 0 || name[at - 1] === 0x2f)) depth++
  return depth
}

/** A numeric field that is 0 or more. */
export const natural = (header: TarHeader, field: keyof typeof fields, entry: Buffer): number => {
  const value = number(header, field, entry)
  if (value < 0) throw new Refused(`its ${field} is negative`, entry)
  return value
}

const number = (header: TarHeader, field: keyof typeof fields, entry: Buffer): number => {
  const place = fields[field]
  const value = header.number(place[0], place[1])
  if (Number.isNaN(value)) throw new Refused(`the ${field} of its header is neither octal nor base-256, or is 2^53 or more`, entry)
  return value
}

const id = (header: TarHeader, field: "uid" | "gid", record: number | null | undefined, entry: Buffer): number => {
  const own = number(header, field, entry)
  const value = record ?? own
  if (value < 0 || value > maxId) throw new Refused(`its ${field} is ${value}, owners are 0 to 2^32-2`, entry)
  return value
}

const deviceNumber = (header: TarHeader, field: "devmajor" | "devminor", limit: number, entry: Buffer): number => {
  const value = natural(header, field, entry)
  if (value > limit) throw new Refused(`its ${field} is ${value}, Linux knows 0 to ${limit}`, entry)
  return value
}

/** The local record, where there is one; an empty one leaves the header's field. */
const over = <A>(local: A | null | undefined, global: A | null | undefined): A | null | undefined => local === undefined ? global : local

const typeOf = (flag: number, path: Buffer): EntryType | undefined => {
  switch (flag) {
    case 0x00:
    case 0x30:
    case 0x37: return path[path.byteLength - 1] === 0x2f ? "dir" : "file"
    case 0x53: return "file"
    case 0x31: return "link"
    case 0x32: return "symlink"
    case 0x33: return "char"
    case 0x34: return "block"
    case 0x35: return "dir"
    case 0x36: return "fifo"
    default: return undefined
  }
}
