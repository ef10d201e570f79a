import { createHash } from "node:crypto"
import { type BigIntStats, closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs"
import { load, type Syscalls, type SystemPath } from "../layer/Syscalls.ts"

/** What a name in a tree is. */
export type TreeType = "file" | "dir" | "symlink" | "char" | "block" | "fifo" | "socket"

/** One name of a tree, with everything two trees must share to be equal. */
export interface TreeRecord {
  /** Relative to the root, one character per byte; the root is "". */
  readonly path: string
  readonly type: TreeType
  /** Permission, setuid, setgid and sticky bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Bytes of a file or link target, else 0. */
  readonly size: number
  /** Of a symlink, one character per byte, else "". */
  readonly linkTarget: string
  /** The first name, in order, of those in the tree that are this same file; "" if there is only one. */
  readonly hardLinkGroup: string
  readonly mtimeNs: bigint
  /** SHA-256 of a file's bytes in hex, else "". */
  readonly content: string
  /** `name=hex` of each extended attribute, in order. */
  readonly xattrs: ReadonlyArray<string>
  /** `major:minor` of a device, else "". */
  readonly device: string
}

/** How to walk: the calls that read extended attributes (none are read by calls that are not native). */
export interface WalkOptions {
  readonly syscalls?: Syscalls
}

/** Every name below the folder `root` and the root itself, in the order of their bytes. No link is followed; any depth. Throws Node's errors. */
export const walk = (root: SystemPath, options?: WalkOptions): ReadonlyArray<TreeRecord> =>
  new Walk(options?.syscalls ?? load()).run(root)

/** A field of a record that can be left out of a comparison. */
export type TreeField = Exclude<keyof TreeRecord, "path">

const fields: ReadonlyArray<TreeField> =
  ["type", "mode", "uid", "gid", "size", "linkTarget", "hardLinkGroup", "mtimeNs", "content", "xattrs", "device"]

/** What to leave out of a comparison: fields everywhere, or fields of some names (the field `path`: a name that is in one tree only). */
export interface DiffOptions {
  readonly ignore?: ReadonlyArray<TreeField> | ((path: string, field: TreeField | "path") => boolean)
}

/** The differences between two walks as sentences, in the order of the names; none if the trees are equal. */
export const diff = (a: ReadonlyArray<TreeRecord>, b: ReadonlyArray<TreeRecord>, options?: DiffOptions): ReadonlyArray<string> => {
  const ignore = options?.ignore ?? []
  const ignored = typeof ignore === "function" ? ignore : (_: string, field: TreeField | "path") => ignore.some((one) => one === field)
  const others = new Map(b.map((record) => [record.path, record]))
  const sentences: Array<readonly [path: string, sentence: string]> = []
  for (const left of a) {
    const { path, type } = left
    const right = others.get(path)
    others.delete(path)
    if (right === undefined) {
      if (!ignored(path, "path")) sentences.push([path, `"${path}" (${type}) is only in the first tree`])
      continue
    }
    for (const field of fields) {
      const [one, other] = [shown(left, field), shown(right, field)]
      if (one !== other && !ignored(path, field)) sentences.push([path, `"${path}": ${field} is ${one} in the first tree and ${other} in the second`])
    }
  }
  for (const { path, type } of others.values()) {
    if (!ignored(path, "path")) sentences.push([path, `"${path}" (${type}) is only in the second tree`])
  }
  return sentences.sort(([one], [other]) => one < other ? -1 : one > other ? 1 : 0).map(([, sentence]) => sentence)
}

const shown = (record: TreeRecord, field: TreeField): string =>
  field === "mode" ? `0${record.mode.toString(8)}` : field === "xattrs" ? `[${record.xattrs.join(", ")}]` : JSON.stringify(String(record[field]))

const read = constants.O_RDONLY | constants.O_NOFOLLOW
const piece = Buffer.allocUnsafeSlow(256 * 1024)

/** One walk with one descriptor: down by name, up by `..`. */
class Walk {
  private readonly syscalls: Syscalls
  private readonly records: Array<TreeRecord> = []
  private readonly inodes = new Map<string, Array<string>>()
  private readonly inodeOf = new Map<string, string>()

  constructor(syscalls: Syscalls) {
    this.syscalls = syscalls
  }

  run(root: SystemPath): ReadonlyArray<TreeRecord> {
    const levels: Array<{ readonly name: string; readonly folders: Array<string> }> = []
    let fd = openSync(root, read | constants.O_DIRECTORY)
    const enter = (name: string) => {
      const folders: Array<string> = []
      levels.push({ name, folders })
      for (const segment of readdirSync(`/proc/self/fd/${fd}`, { encoding: "buffer" })) {
        const text = segment.toString("latin1")
        const path = Buffer.from(`/proc/self/fd/${fd}/${text}`, "latin1")
        const stats = lstatSync(path, { bigint: true })
        this.record(name === "" ? text : `${name}/${text}`, path, stats)
        if (stats.isDirectory()) folders.push(text)
      }
    }
    const move = (path: SystemPath) => {
      const next = openSync(path, read | constants.O_DIRECTORY)
      closeSync(fd)
      fd = next
    }
    try {
      this.record("", `/proc/self/fd/${fd}/.`, lstatSync(`/proc/self/fd/${fd}/.`, { bigint: true }))
      enter("")
      for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
        const next = level.folders.pop()
        if (next !== undefined) {
          move(Buffer.from(`/proc/self/fd/${fd}/${next}`, "latin1"))
          enter(level.name === "" ? next : `${level.name}/${next}`)
        } else {
          levels.pop()
          if (levels.length > 0) move(`/proc/self/fd/${fd}/..`)
        }
      }
    } finally {
      closeSync(fd)
    }
    return this.records.map((record) => ({ ...record, hardLinkGroup: this.groupOf(record.path) }))
      .sort((a, b) => a.path < b.path ? -1 : 1)
  }

  private record(path: string, at: SystemPath, stats: BigIntStats): void {
    const type = typeOf(stats)
    const target = type === "symlink" ? readlinkSync(at, "buffer").toString("latin1") : ""
    if (type !== "dir" && stats.nlink > 1n) {
      const inode = `${stats.dev}:${stats.ino}`
      this.inodeOf.set(path, inode)
      const names = this.inodes.get(inode)
      if (names === undefined) this.inodes.set(inode, [path])
      else names.push(path)
    }
    this.records.push({
      path, type, mode: Number(stats.mode) & 0o7777, uid: Number(stats.uid), gid: Number(stats.gid),
      size: type === "file" || type === "symlink" ? Number(stats.size) : 0,
      linkTarget: target, hardLinkGroup: "", mtimeNs: stats.mtimeNs,
      content: type === "file" ? contentOf(at) : "", xattrs: this.xattrs(at),
      device: type === "char" || type === "block" ? deviceOf(stats.rdev) : ""
    })
  }

  private xattrs(at: SystemPath): ReadonlyArray<string> {
    if (!this.syscalls.native) return []
    return this.syscalls.llistxattr(at).map((name) =>
      `${name.toString("latin1")}=${this.syscalls.lgetxattr(at, name)?.toString("hex") ?? ""}`).sort()
  }

  private groupOf(path: string): string {
    const names = this.inodes.get(this.inodeOf.get(path) ?? "") ?? []
    return names.length < 2 ? "" : names.reduce((first, name) => name < first ? name : first)
  }
}

const typeOf = (stats: BigIntStats): TreeType =>
  stats.isFile() ? "file" : stats.isDirectory() ? "dir" : stats.isSymbolicLink() ? "symlink" : stats.isCharacterDevice() ? "char" :
    stats.isBlockDevice() ? "block" : stats.isFIFO() ? "fifo" : "socket"

const contentOf = (at: SystemPath): string => {
  const hash = createHash("sha256")
  const fd = openSync(at, read)
  try {
    for (let size = readSync(fd, piece); size > 0; size = readSync(fd, piece)) hash.update(piece.subarray(0, size))
  } finally {
    closeSync(fd)
  }
  return hash.digest("hex")
}

// As the C library's gnu_dev_major and gnu_dev_minor.
const deviceOf = (rdev: bigint): string =>
  `${((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)}:${(rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)}`
