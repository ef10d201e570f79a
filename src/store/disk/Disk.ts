import { Effect, Exit, Schema, type Scope } from "effect"
import { closeSync, constants, fsync, mkdirSync, openSync, readSync, statSync } from "node:fs"
import { constants as system } from "node:os"
import { dirname } from "node:path"
import { VerifyError } from "../../image/Descriptor.ts"

const words: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full; free some space, or name a folder elsewhere",
  EDQUOT: "the disk quota is used up; free some space, or name a folder elsewhere",
  EROFS: "the file system is read-only; name a writable folder",
  EACCES: "permission denied; use a folder that is yours, or change its owner",
  EPERM: "the operation is not permitted for this user or on this file system",
  EMFILE: "too many open files; raise the limit (ulimit -n) or lower --jobs",
  ENFILE: "the system has too many open files; try again later",
  EIO: "the disk reported a read or write error; check it before trying again",
  ENOLCK: "the file system does not lock files, and a store needs that; name a folder on a local disk with --store",
  ENOENT: "there is no such file or folder",
  EEXIST: "something is already there",
  ENOTEMPTY: "the folder is not empty",
  ENOTDIR: "a part of the path is not a folder",
  EXDEV: "source and target are on different file systems, which share no contents; use --link copy",
  ENOTSUP: "the file system cannot do that; files that share their contents (reflink) need XFS or Btrfs, and --link copy does without",
  ENAMETOOLONG: "the name is too long for the file system",
  EUCLEAN: "what the store has there is damaged; run `graph check --repair`",
  ESTALE: "another process took this work over, because this one showed no life for 15 seconds; run the command again"
}

/**
 * The disk, or the store on it, refused. `operation` is what was being done, `path` where; `code` is errno's name where
 * there is one; `detail` is a whole explanation where errno has none to give; `cause` is the foreign error.
 */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  path: Schema.String,
  code: Schema.optionalKey(Schema.String),
  detail: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const code = this.code === undefined ? "" : ` (${this.code})`
    const why = this.detail ?? (this.code === undefined ? undefined : words[this.code]) ?? String(this.cause)
    return `cannot ${this.operation} ${this.path}: ${why}${code}`
  }
}

/** errno's name: libuv has none for some numbers of Linux (EDQUOT), and calls them unknown system errors. */
export const nameOf = (code: string): string => {
  const [, errno] = /^Unknown system error -(\d+)$/.exec(code) ?? []
  return errno === undefined ? code : Object.entries(system.errno).find(([, value]) => value === Number(errno))?.[0] ?? code
}

/** The typed error of a thrown value: Node's system errors keep their code and path, and bugs stay readable in `cause`. */
export const storeError = (cause: unknown, operation?: string, path?: string): StoreError => {
  const error: Partial<NodeJS.ErrnoException> = cause instanceof Error ? cause : {}
  return new StoreError({
    operation: operation ?? error.syscall ?? "use",
    path: path ?? error.path ?? "the store",
    ...(typeof error.code === "string" && { code: nameOf(error.code) }),
    cause
  })
}

/** The errno name of an error Node threw, if it has one. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? nameOf(error.code) : undefined

const failureOf = (cause: unknown, operation?: string, path?: string) =>
  cause instanceof VerifyError || cause instanceof StoreError ? cause : storeError(cause, operation, path)

/** The boundary: runs plain synchronous code, and makes its exceptions typed errors, named after `operation` and `path`. */
export const attempt = <A>(run: () => A, operation?: string, path?: string): Effect.Effect<A, StoreError | VerifyError> =>
  Effect.try({ try: run, catch: (cause) => failureOf(cause, operation, path) })

/** As `attempt`, for code that only asks the disk. */
export const call = <A>(operation: string, path: string, run: () => A): Effect.Effect<A, StoreError> =>
  Effect.try({ try: run, catch: (cause) => cause instanceof StoreError ? cause : storeError(cause, operation, path) })

/** What `run` gives, or undefined where nothing is at the path it asks for. Synchronous and throwing, for plain code. */
export const unlessAbsent = <A>(run: () => A): A | undefined => {
  try {
    return run()
  } catch (error) {
    const code = codeOf(error)
    if (code === "ENOENT" || code === "ENOTDIR") return undefined
    throw error
  }
}

/** A descriptor on `path` that is closed with the scope; new files are 0600. The last component is never followed. */
export const open = (path: string, flags: number): Effect.Effect<number, StoreError, Scope.Scope> =>
  Effect.acquireRelease(
    call("open", path, () => openSync(path, flags | constants.O_NOFOLLOW, 0o600)),
    (fd) => Effect.sync(() => closeSync(fd))
  )

/** fsync away from the main thread. An interrupted caller does not wait for it. */
export const sync = (fd: number, path: string): Effect.Effect<void, StoreError> =>
  Effect.callback((resume) => {
    fsync(fd, (cause) => resume(cause === null ? Exit.void : Exit.fail(storeError(cause, "write", path))))
  })

/** Makes the names in `folder` durable. */
export const syncFolder = (folder: string): Effect.Effect<void, StoreError> =>
  Effect.scoped(Effect.flatMap(open(folder, constants.O_RDONLY | constants.O_DIRECTORY), (fd) => sync(fd, folder)))

/** The same where a folder can be asked to: one may write to a folder that one may not read, and not every file system syncs folders. */
export const syncNames = (folder: string): Effect.Effect<void, StoreError> =>
  Effect.catchIf(syncFolder(folder), ({ code }) => code === "EACCES" || code === "EINVAL", () => Effect.void)

const pieceSize = 1024 * 1024

/**
 * Hands the first `size` bytes of the file (fewer if it is shorter) to `take`, a MiB at a time, letting other fibers run
 * in between. A piece is only valid during the call.
 */
export const forEachPiece = (
  fd: number, size: number, path: string, take: (piece: Uint8Array, at: number) => void
): Effect.Effect<void, StoreError> =>
  Effect.gen(function*() {
    const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(pieceSize, size)))
    for (let at = 0; at < size;) {
      const from = at
      const read = yield* call("read", path, () => {
        const read = readSync(fd, buffer, 0, Math.min(buffer.byteLength, size - from), from)
        if (read > 0) take(buffer.subarray(0, read), from)
        return read
      })
      if (read === 0) return
      at += read
      yield* Effect.yieldNow
    }
  })

/**
 * Makes the folder `path` with `mode`, and the parents it lacks; a folder that is there stays as it is. Gives the folders that have
 * new names in them, the highest first, for `syncNames`. Not `recursive`: that calls a read-only file system a missing folder, and
 * never returns where nothing can be made (as in /proc). Throws.
 */
export const makeFolders = (path: string, mode = 0o777): ReadonlyArray<string> => {
  const make = (): "made" | "there" | "orphan" => {
    try {
      mkdirSync(path, { mode })
      return "made"
    } catch (error) {
      const code = codeOf(error)
      if (code === "EEXIST" && statSync(path).isDirectory()) return "there"
      if (code !== "ENOENT" || dirname(path) === path) throw storeError(error, "make the folder", path)
      return "orphan"
    }
  }
  const first = make()
  if (first !== "orphan") return first === "made" ? [dirname(path)] : []
  const above = makeFolders(dirname(path), mode)
  const second = make()
  if (second === "orphan") throw new StoreError({ operation: "make the folder", path, code: "ENOENT" })
  return second === "made" ? [...above, dirname(path)] : above
}
