import { type BigIntStats, closeSync, constants, ftruncateSync, linkSync, openSync, readlinkSync, symlinkSync, writeSync } from "node:fs"
import { constants as system } from "node:os"
import { Attributes, type Metadata, unknownMode } from "../apply/Attributes.ts"
import { Refused } from "../Fault.ts"
import type { Unset } from "../apply/Meta.ts"
import { readInto } from "../Piece.ts"
import { type Room, Table } from "../table/Table.ts"
import { chmodItself } from "../tree/Mode.ts"
import { codeOf, systemError, type Syscalls, type SystemPath } from "../Syscalls.ts"

/** How file contents are copied: `reflink` shares them or fails, `auto` shares them where the file system can. */
export type LinkMode = "auto" | "reflink" | "copy"

/** Paths on the target's file system that begin with `hold` are this copier's; `stop` is called every 256 KiB. */
export interface CopierOptions {
  readonly syscalls: Syscalls
  readonly link: LinkMode
  readonly hold: string
  readonly stop: () => void
  /** For what is remembered of files with several names. */
  readonly room: Room
}

/** Something to copy: where it is, and its `lstat`. */
export interface Source {
  readonly path: SystemPath
  readonly stats: BigIntStats
}

const create = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
const read = constants.O_RDONLY | constants.O_NOFOLLOW
const piece = Buffer.allocUnsafeSlow(256 * 1024)
const block = 4096
const zeros = Buffer.alloc(block)

/** The extended attributes of what is at `path`; none where they cannot be read. */
export const xattrsOf = (path: SystemPath, syscalls: Syscalls): Metadata["xattrs"] => {
  if (!syscalls.native) return []
  const names = listed(path, syscalls)
  if (names.length === 0) return []
  return names.flatMap((name) => {
    const value = syscalls.lgetxattr(path, name)
    return value === undefined ? [] : [[name, value] as const]
  })
}

const listed = (path: SystemPath, syscalls: Syscalls): ReadonlyArray<Buffer> => {
  try {
    return syscalls.llistxattr(path)
  } catch (error) {
    if (codeOf(error) === "ENOTSUP" || codeOf(error) === "EOPNOTSUPP") return []
    throw error
  }
}

/** What the thing at `path` carries beside its content. */
export const metadataOf = ({ path, stats }: Source, syscalls: Syscalls): Metadata => {
  const nanos = stats.mtimeNs % 1_000_000_000n
  const mtimeNanos = Number(nanos < 0n ? nanos + 1_000_000_000n : nanos)
  return {
    mode: Number(stats.mode) & 0o7777, uid: Number(stats.uid), gid: Number(stats.gid),
    mtimeSeconds: Number((stats.mtimeNs - BigInt(mtimeNanos)) / 1_000_000_000n), mtimeNanos, xattrs: xattrsOf(path, syscalls)
  }
}

/** Copies what is not a folder out of one layer, with all it carries. Sparse files stay sparse, hard links stay links to each other. */
export class Copier {
  private readonly syscalls: Syscalls
  private readonly attributes: Attributes
  private readonly hold: string
  private readonly stop: () => void
  private readonly privileged = process.geteuid?.() === 0
  private link: LinkMode
  /** The held copy of files that have several names, by inode. */
  private readonly groups: Table<string>

  constructor({ syscalls, link, hold, room, stop }: CopierOptions) {
    this.groups = new Table(room)
    this.syscalls = syscalls
    this.link = link
    this.hold = hold
    this.stop = stop
    // A set-group-ID folder gives its group to what is made in it: a privileged owner is always set.
    const [uid, gid] = this.privileged ? [-1, -1] : [process.geteuid?.() ?? -1, process.getegid?.() ?? -1]
    this.attributes = new Attributes(syscalls, { uid, gid, cut: 0 })
  }

  /** Makes `to`, where nothing is, a copy of `from`; says what this host could not set. Throws Node's errors. */
  copy(from: Source, to: SystemPath): Unset | undefined {
    const { stats } = from
    if (stats.nlink < 2n) return this.make(from, to)
    const inode = String(stats.ino)
    const first = this.groups.get(inode)
    if (first !== undefined) {
      linkSync(first, to)
      return undefined
    }
    const unset = this.make(from, to)
    if (unset?.device !== undefined) return unset
    const held = `${this.hold}${this.groups.size}`
    linkSync(to, held)
    this.groups.set(inode, held, held.length)
    return unset
  }

  /** Forgets everything; may be called again. */
  close(): void { this.groups.close() }

  private make(from: Source, to: SystemPath): Unset | undefined {
    const { path, stats } = from
    if (stats.isFile()) return this.file(from, to)
    if (stats.isSymbolicLink()) {
      symlinkSync(readlinkSync(path, "buffer"), to)
      return this.attributes.set(to, undefined, metadataOf(from, this.syscalls), undefined)
    }
    if (stats.isSocket()) throw new Refused("a socket is no part of a layer")
    const { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs } = metadataOf(from, this.syscalls)
    const [major, minor] = deviceOf(stats.rdev)
    try {
      this.syscalls.mknod(to, (Number(stats.mode) & constants.S_IFMT) | 0o600, major, minor)
    } catch (error) {
      const code = codeOf(error)
      if (code !== "EPERM" && code !== "EACCES" && code !== "ENOTSUP") throw error
      return { uid, gid, mode, mtime: [mtimeSeconds, mtimeNanos], device: [stats.isFIFO() ? "fifo" : stats.isBlockDevice() ? "block" : "char", major, minor] }
    }
    return this.attributes.set(to, undefined, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs }, unknownMode)
  }

  private file(from: Source, to: SystemPath): Unset | undefined {
    const metadata = metadataOf(from, this.syscalls)
    const source = openSync(from.path, read)
    try {
      if (this.shared({ path: `/proc/self/fd/${source}`, stats: from.stats }, to)) {
        chmodItself(to, 0o600)
        return this.attributes.set(to, undefined, metadata, unknownMode)
      }
      const target = openSync(to, create, 0o600)
      try {
        this.content(source, target, from.stats)
        return this.attributes.set(to, target, metadata, unknownMode)
      } finally {
        closeSync(target)
      }
    } finally {
      closeSync(source)
    }
  }

  private shared({ path, stats }: Source, to: SystemPath): boolean {
    if (this.link === "copy" || (this.link === "auto" && stats.size === 0n)) return false
    try {
      this.syscalls.reflink(path, to)
      return true
    } catch (error) {
      if (!unshareable.has(codeOf(error) ?? "")) throw error
      if (this.link === "reflink") throw systemError(system.errno.ENOTSUP, "ficlone", to)
      this.link = "copy"
      return false
    }
  }

  private content(source: number, target: number, stats: BigIntStats): void {
    const size = Number(stats.size)
    const sparse = stats.blocks * 512n < stats.size
    for (let at = 0; at < size;) {
      const length = readInto(piece, source, piece.byteLength, at)
      if (length === 0) break
      if (sparse) writeData(target, piece.subarray(0, length), at)
      else write(target, piece, 0, length, at)
      at += length
      if (at < size) this.stop()
    }
    if (sparse) ftruncateSync(target, size)
  }
}

const unshareable = new Set(["ENOTSUP", "EOPNOTSUPP", "EXDEV", "EINVAL", "ENOTTY", "ENOSYS", "EPERM"])

const write = (fd: number, bytes: Uint8Array, from: number, to: number, at: number): void => {
  for (let done = from; done < to;) done += writeSync(fd, bytes, done, to - done, at + done)
}

/** Writes what is not zeros, by blocks. */
const writeData = (fd: number, bytes: Buffer, at: number): void => {
  let from = 0
  for (let end = 0; end < bytes.byteLength;) {
    const next = Math.min(end + block, bytes.byteLength)
    if (bytes.compare(zeros, 0, next - end, end, next) === 0) {
      write(fd, bytes, from, end, at)
      from = next
    }
    end = next
  }
  write(fd, bytes, from, bytes.byteLength, at)
}

/** The kernel's device number, taken apart as `makedev` of the C library puts it together. */
export const deviceOf = (rdev: bigint): readonly [major: number, minor: number] => [
  Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)), Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn))
]
