import { fchmodSync, fchownSync, lchownSync, statfsSync } from "node:fs"
import type { Unset } from "./Meta.ts"
import { chmodItself } from "../tree/Mode.ts"
import { codeOf, type Syscalls, type SystemPath } from "../Syscalls.ts"

/** What a file carries beside its content (an `Entry` is one). */
export interface Metadata {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
  readonly mtimeNanos: number
  readonly xattrs: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
}

/** How files come into being here: their owner, and the permission bits that creation takes away. */
export interface Born {
  readonly uid: number
  readonly gid: number
  readonly cut: number
}

/** In place of the permission bits that something has: they must be set whatever they are. */
export const unknownMode = -1

type Mutable = { -readonly [key in keyof Unset]: Unset[key] }

const isOverlay = (name: Buffer) => /^(?:trusted|user)\.overlay\./.test(name.toString("latin1"))

/** The attributes that are set at all: those that steer an overlay mount are not (rules.md, overlay smuggling). */
export const settable = (xattrs: Metadata["xattrs"]): Metadata["xattrs"] =>
  xattrs.length === 0 ? xattrs : xattrs.filter(([name]) => !isOverlay(name))

/** Attributes as a record holds them. */
export const recorded = (xattrs: Metadata["xattrs"]): NonNullable<Unset["xattrs"]> =>
  xattrs.map(([name, value]) => [name.toString("latin1"), value.toString("base64")])

/** Sets metadata in the one order that keeps it all (owner, xattrs, mode, times) and says what this host could not set. */
export class Attributes {
  private readonly syscalls: Syscalls
  private readonly born: Born
  private readonly privileged = process.geteuid?.() === 0

  constructor(syscalls: Syscalls, born: Born) {
    this.syscalls = syscalls
    this.born = born
  }

  /** The permission bits to create a file with: attributes need one that can be written. */
  creationMode(metadata: Metadata): number {
    return metadata.xattrs.length > 0 ? 0o600 : metadata.mode & 0o777
  }

  /** The bits it has when its turn comes if it was created with `mode`: an attribute may be an access control list. */
  bornMode(metadata: Metadata, mode: number): number {
    return metadata.xattrs.length > 0 ? unknownMode : mode & ~this.born.cut
  }

  /**
   * For what is at `path` and, unless it is a symlink or a device, open as `fd`; `mode` are the bits it has
   * (`unknownMode`: set in any case), undefined for a symlink, which has none. Errors other than the host's refusal of one attribute are thrown.
   */
  set(path: SystemPath, fd: number | undefined, metadata: Metadata, mode: number | undefined): Unset | undefined {
    let unset: Mutable | undefined
    const { uid, gid } = metadata
    if ((uid !== this.born.uid || gid !== this.born.gid) && !this.own(path, fd, uid, gid)) {
      unset = {}
      if (uid !== this.born.uid) unset.uid = uid
      if (gid !== this.born.gid) unset.gid = gid
    }
    if (metadata.xattrs.length > 0) {
      const left = settable(metadata.xattrs).filter(([name, value]) => !this.attribute(path, name, value))
      if (left.length > 0) (unset ??= {}).xattrs = recorded(left)
    }
    if (mode !== undefined && mode !== metadata.mode && !this.permit(path, fd, metadata.mode)) (unset ??= {}).mode = metadata.mode
    if (!this.date(path, fd, metadata.mtimeSeconds, metadata.mtimeNanos)) {
      (unset ??= {}).mtime = [metadata.mtimeSeconds, metadata.mtimeNanos]
    }
    return unset
  }

  /** Whether `set` will give it another owner. */
  owns({ uid, gid }: Metadata): boolean {
    return this.privileged && (uid !== this.born.uid || gid !== this.born.gid)
  }

  private own(path: SystemPath, fd: number | undefined, uid: number, gid: number): boolean {
    if (!this.privileged) return false
    try {
      if (fd === undefined) lchownSync(path, uid, gid)
      else fchownSync(fd, uid, gid)
      return true
    } catch (error) {
      return refused(error)
    }
  }

  private attribute(path: SystemPath, name: Buffer, value: Buffer): boolean {
    try {
      this.syscalls.lsetxattr(path, name, value)
      return true
    } catch (error) {
      // Some file systems say "no space" when the attributes of one file are more than an inode can have.
      if (codeOf(error) === "ENOSPC" && value.byteLength > 256 && hasSpace(path)) return false
      return refused(error)
    }
  }

  private permit(path: SystemPath, fd: number | undefined, mode: number): boolean {
    try {
      if (fd === undefined) chmodItself(path, mode)
      else fchmodSync(fd, mode)
      return true
    } catch (error) {
      return refused(error)
    }
  }

  private date(path: SystemPath, fd: number | undefined, seconds: number, nanos: number): boolean {
    try {
      return fd === undefined ? this.syscalls.lutimens(path, seconds, nanos) : this.syscalls.futimens(fd, seconds, nanos)
    } catch (error) {
      return refused(error)
    }
  }
}

// The host will not have this id, attribute, mode or time; anything else (no space, I/O) is a failure of the host.
const refusals = new Set(["EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "ERANGE", "E2BIG", "EOVERFLOW"])

/** False if `error` is a refusal, else thrown. */
const refused = (error: unknown): false => {
  if (refusals.has(codeOf(error) ?? "")) return false
  throw error
}

const hasSpace = (path: SystemPath): boolean => {
  const folder = typeof path === "string" ? path.slice(0, path.lastIndexOf("/") + 1) : path.subarray(0, path.lastIndexOf(0x2f) + 1)
  const { bavail, ffree } = statfsSync(folder)
  return bavail > 256 && ffree > 0
}
