import { cleanPages } from "./CleanPages.ts"
import { copyFileSync, constants, fstatSync, futimesSync, lstatSync, lutimesSync, mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { constants as system } from "node:os"
import { getSystemErrorMessage, getSystemErrorName } from "node:util"

/** A path for the system: text, or the raw bytes of one that is not UTF-8. */
export type SystemPath = string | Buffer

/**
 * What layers need from the kernel and Node does not offer, or offers at twice the price. No call follows a symlink in the last component. Failures are
 * errors like Node's (`code`, `errno`, `syscall`, `path`); where native calls are missing those without a substitute fail
 * with the code ENOTSUP.
 */
export interface Syscalls {
  /** Whether the calls are native (koffi is there); false: times to the second are exact, the rest is ENOTSUP. */
  readonly native: boolean
  /** Makes a folder: `mode` is cut by the umask. */
  mkdir(path: SystemPath, mode: number): void
  /** Makes a device or FIFO: `mode` is a type (`S_IFCHR`, `S_IFBLK`, `S_IFIFO`) and permission bits, cut by the umask. */
  mknod(path: SystemPath, mode: number, major: number, minor: number): void
  /** Sets an extended attribute of the path itself. */
  lsetxattr(path: SystemPath, name: Buffer, value: Buffer): void
  /** An extended attribute of the path itself, undefined if it has none of that name. */
  lgetxattr(path: SystemPath, name: Buffer): Buffer | undefined
  /** The names of the path's extended attributes. */
  llistxattr(path: SystemPath): ReadonlyArray<Buffer>
  /** Sets access and modification time of the path itself; false if the time kept is not exactly this one. */
  lutimens(path: SystemPath, seconds: number, nanos: number): boolean
  /** The same through an open descriptor. */
  futimens(fd: number, seconds: number, nanos: number): boolean
  /** Makes the file `to`, which must not exist, share the content of the file `from`; fails if the file system cannot. */
  reflink(from: SystemPath, to: SystemPath): void
  /**
   * Gives memory that nothing uses back to the system, and from now on what is freed of 128 KiB or more, as far as the C library can
   * (glibc). So with what is in memory of Node's own file (40 MiB and more): what of it is used comes back by itself.
   */
  trim(): void
}

/** Options of `load`: `native: false` leaves koffi alone. */
export interface SyscallsOptions {
  readonly native?: boolean | undefined
}

/** The calls as this host has them: through koffi if it can be loaded, else Node's own. */
export const load = (options?: SyscallsOptions): Syscalls =>
  (options?.native === false ? undefined : native()) ?? fallback

/** Path for people and errors. */
const shown = (path: SystemPath) => typeof path === "string" ? path : path.toString()

// libuv does not know every number of Linux (EDQUOT).
const codeName = (errno: number): string => {
  const name = getSystemErrorName(-errno)
  return name.startsWith("Unknown") ? Object.entries(system.errno).find(([, value]) => value === errno)?.[0] ?? name : name
}

/** An error like those of node:fs, for the positive `errno`. */
export const systemError = (errno: number, syscall: string, path?: SystemPath): NodeJS.ErrnoException => {
  const code = codeName(errno)
  const where = path === undefined ? "" : ` '${shown(path)}'`
  const error: NodeJS.ErrnoException = new Error(`${code}: ${getSystemErrorMessage(-errno)}, ${syscall}${where}`)
  error.errno = -errno
  error.code = code
  error.syscall = syscall
  if (path !== undefined) error.path = shown(path)
  return error
}

/** The `code` of a system error, else undefined. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

/** A system error that names a handle's path, or none, told of `path` instead; anything else stays as it is. */
export const relocate = (error: unknown, path: string): unknown => {
  if (!(error instanceof Error) || !("errno" in error) || typeof error.errno !== "number") return error
  // Of a call with two paths the second is what was to be made; a symlink's first is the text that it holds.
  const named = "dest" in error ? error.dest : "path" in error ? error.path : undefined
  if (named !== undefined && !String(named).startsWith("/proc/self/fd/")) return error
  const syscall = "syscall" in error && typeof error.syscall === "string" ? error.syscall : "call"
  return systemError(Math.abs(error.errno), syscall, path)
}

// From the ends of 32 bits on file systems differ in the times they can keep, and the kernel clamps without a word; the first
// and the last second that one has are kept without their nanoseconds.
const everyFileSystemKeeps = (seconds: number) => seconds > -0x8000_0000 && seconds < 0x7fff_ffff
const nanoseconds = (seconds: number, nanos: number) => BigInt(seconds) * 1_000_000_000n + BigInt(nanos)
const pathKeeps = (path: SystemPath, seconds: number, nanos: number) =>
  everyFileSystemKeeps(seconds) || lstatSync(path, { bigint: true }).mtimeNs === nanoseconds(seconds, nanos)
const fdKeeps = (fd: number, seconds: number, nanos: number) =>
  everyFileSystemKeeps(seconds) || fstatSync(fd, { bigint: true }).mtimeNs === nanoseconds(seconds, nanos)

const reflink = (from: SystemPath, to: SystemPath) =>
  copyFileSync(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE)

// A double holds seconds exactly, their billionths not. Node takes a negative number for "now", its text for itself.
const nodeTime = (seconds: number, nanos: number) => {
  const time = seconds + nanos / 1e9
  return time < 0 ? String(time) : time
}

const unavailable = (syscall: string) => (path: SystemPath | number): never => {
  throw systemError(system.errno.ENOTSUP, syscall, typeof path === "number" ? undefined : path)
}

const fallback: Syscalls = {
  native: false,
  mkdir: (path, mode) => void mkdirSync(path, mode),
  mknod: unavailable("mknod"),
  lsetxattr: unavailable("lsetxattr"),
  lgetxattr: unavailable("lgetxattr"),
  llistxattr: unavailable("llistxattr"),
  lutimens(path, seconds, nanos) {
    const time = nodeTime(seconds, nanos)
    lutimesSync(path, time, time)
    return nanos === 0 && pathKeeps(path, seconds, nanos)
  },
  futimens(fd, seconds, nanos) {
    const time = nodeTime(seconds, nanos)
    futimesSync(fd, time, time)
    return nanos === 0 && fdKeeps(fd, seconds, nanos)
  },
  reflink,
  trim: () => {}
}

/** The little of koffi that is used. */
interface Koffi {
  load(path: null): { func(name: string, result: string, parameters: ReadonlyArray<string>): NativeFunction }
  errno(): number
}
type NativeFunction = (...values: ReadonlyArray<number | bigint | Uint8Array | null>) => number | bigint

const AT_FDCWD = -100
const handles = "/proc/self/fd/"
const AT_SYMLINK_NOFOLLOW = 0x100
const { EINVAL, ENODATA, ERANGE } = system.errno

const libc = (): Syscalls => {
  const koffi: Koffi = createRequire(import.meta.url)("koffi")
  const library = koffi.load(null)
  const mkdirat = library.func("mkdirat", "int", ["int", "void *", "uint32_t"])
  const utimensat = library.func("utimensat", "int", ["int", "void *", "void *", "int"])
  const futimens = library.func("futimens", "int", ["int", "void *"])
  const lsetxattr = library.func("lsetxattr", "int", ["void *", "void *", "void *", "size_t", "int"])
  const lgetxattr = library.func("lgetxattr", "int64_t", ["void *", "void *", "void *", "size_t"])
  const llistxattr = library.func("llistxattr", "int64_t", ["void *", "void *", "size_t"])
  const trim = trimmer(library)
  const mknod = nodeMaker(library)

  // Paths, names and times are laid out here for the length of one call; paths of handles are short.
  let space = Buffer.alloc(8192)
  const text = (path: SystemPath): Buffer => {
    const isText = typeof path === "string"
    if (isText ? path.includes("\0") : path.includes(0)) throw systemError(EINVAL, "path", path)
    if (path.length * 3 >= space.byteLength) space = Buffer.alloc(path.length * 6)
    space[isText ? space.write(path) : path.copy(space)] = 0
    return space
  }
  /** As `text`, for calls that take a handle to begin at, which is the answer: the way through /proc is as long as all else. */
  const below = (path: SystemPath): number => {
    const end = typeof path === "string" && path.startsWith(handles) ? path.indexOf("/", handles.length) : -1
    // An absolute rest would not begin at the handle.
    if (typeof path !== "string" || end === -1 || end === path.length - 1 || path[end + 1] === "/") {
      text(path)
      return AT_FDCWD
    }
    text(path.slice(end + 1))
    return Number(path.slice(handles.length, end))
  }
  const named = (name: Buffer): Buffer => {
    if (name.includes(0)) throw systemError(EINVAL, "xattr")
    return Buffer.concat([name, zero])
  }
  const times = new BigInt64Array(4)
  const timespec = new Uint8Array(times.buffer)
  const setTimes = (seconds: number, nanos: number) => {
    times[0] = times[2] = BigInt(seconds)
    times[1] = times[3] = BigInt(nanos)
  }
  const check = (result: number | bigint, syscall: string, path?: SystemPath): number => {
    if (result < 0) throw systemError(koffi.errno(), syscall, path)
    return Number(result)
  }
  /** The call's answer in a buffer of its size, asked for again while it grows. */
  const sized = (syscall: string, path: SystemPath, call: (into: Buffer | null, size: number) => number | bigint): Buffer | undefined => {
    for (;;) {
      const size = call(null, 0)
      if (size < 0 && koffi.errno() === ENODATA) return undefined
      const into = Buffer.alloc(check(size, syscall, path))
      if (into.byteLength === 0) return into
      const length = call(into, into.byteLength)
      if (length < 0 && koffi.errno() === ERANGE) continue
      return into.subarray(0, check(length, syscall, path))
    }
  }

  return {
    native: true,
    mkdir(path, mode) {
      check(mkdirat(below(path), space, mode), "mkdir", path)
    },
    mknod(path, mode, major, minor) {
      check(mknod(text(path), mode, major, minor), "mknod", path)
    },
    lsetxattr(path, name, value) {
      check(lsetxattr(text(path), named(name), value.byteLength === 0 ? null : value, value.byteLength, 0), "lsetxattr", path)
    },
    lgetxattr(path, name) {
      const key = named(name)
      return sized("lgetxattr", path, (into, size) => lgetxattr(text(path), key, into, size))
    },
    llistxattr(path) {
      const list = sized("llistxattr", path, (into, size) => llistxattr(text(path), into, size)) ?? zero.subarray(1)
      const names: Array<Buffer> = []
      for (let at = 0; at < list.byteLength;) {
        const end = list.indexOf(0, at)
        names.push(list.subarray(at, end))
        at = end + 1
      }
      return names
    },
    lutimens(path, seconds, nanos) {
      setTimes(seconds, nanos)
      check(utimensat(below(path), space, timespec, AT_SYMLINK_NOFOLLOW), "utimensat", path)
      return pathKeeps(path, seconds, nanos)
    },
    futimens(fd, seconds, nanos) {
      setTimes(seconds, nanos)
      check(futimens(fd, timespec), "futimens")
      return fdKeeps(fd, seconds, nanos)
    },
    reflink,
    trim
  }
}

const zero = Buffer.alloc(1)

/** `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` of mallopt(3): from 128 KiB on, what is freed goes back to the system, from now on too. */
const [mmapThreshold, trimThreshold, least] = [-3, -1, 128 * 1024] as const

/** glibc's malloc_trim; other C libraries have none. */
const trimmer = (library: ReturnType<Koffi["load"]>) => {
  const madvise = library.func("madvise", "int", ["uint64_t", "size_t", "int"])
  // Looked for once: nothing is written there later either, and it is a megabyte of text.
  let clean: ReturnType<typeof cleanPages> | undefined
  const leave = () => {
    clean ??= cleanPages(readFileSync("/proc/self/smaps", "latin1"), process.execPath)
    for (const [from, to] of clean) madvise(BigInt(`0x${from}`), Number.parseInt(to, 16) - Number.parseInt(from, 16), dontNeed)
  }
  try {
    const trim = library.func("malloc_trim", "int", ["size_t"])
    const mallopt = library.func("mallopt", "int", ["int", "int"])
    return () => {
      mallopt(mmapThreshold, least)
      mallopt(trimThreshold, least)
      trim(0)
      leave()
    }
  } catch {
    return leave
  }
}

/** `MADV_DONTNEED` of madvise(2). */
const dontNeed = 4

/** libc's mknod; before glibc 2.33 it was only there as `__xmknod`, which takes a version (0 on 64-bit Linux) and a pointer. */
const nodeMaker = (library: ReturnType<Koffi["load"]>) => {
  const device = (major: number, minor: number) =>
    (BigInt(major & ~0xfff) << 32n) | BigInt((major & 0xfff) << 8) | (BigInt(minor & ~0xff) << 12n) | BigInt(minor & 0xff)
  try {
    const mknod = library.func("mknod", "int", ["void *", "uint32_t", "uint64_t"])
    return (path: Buffer, mode: number, major: number, minor: number) => mknod(path, mode, device(major, minor))
  } catch {
    const mknod = library.func("__xmknod", "int", ["int", "void *", "uint32_t", "void *"])
    return (path: Buffer, mode: number, major: number, minor: number) =>
      mknod(0, path, mode, new Uint8Array(BigUint64Array.of(device(major, minor)).buffer))
  }
}

// The structures laid out above are those of 64-bit Linux.
const hosts = new Set(["x64", "arm64", "riscv64", "loong64", "ppc64"])

const native = (): Syscalls | undefined => {
  if (process.platform !== "linux" || !hosts.has(process.arch)) return undefined
  try {
    return libc()
  } catch {
    return undefined
  }
}
