import { Clock, Effect, Exit, type Scope, Stream } from "effect"
import { randomBytes } from "node:crypto"
import { chmodSync, closeSync, constants, copyFile, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, renameSync, rmSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import * as Disk from "./Disk.ts"

/**
 * What stands in the way of writing a new folder at `path`: it is no folder, or it holds something whose name does not begin
 * with `except`; undefined if nothing does.
 */
export const obstacle = (path: string, except?: string): Effect.Effect<string | undefined, Disk.StoreError> =>
  Disk.call("look at", path, () => Disk.unlessAbsent(() => {
    if (!lstatSync(path).isDirectory()) return "is not a folder"
    return readdirSync(path).every((name) => except !== undefined && name.startsWith(except)) ? undefined : "is not empty"
  }))

/** Makes the folder `path` with `mode`. */
export const makeFolder = (path: string, mode: number): Effect.Effect<void, Disk.StoreError> =>
  Disk.call("make the folder", path, () => { mkdirSync(path, { mode }) })

/** Makes the folder `path`, and the parents it lacks, their names durable; one that is there is as good. */
export const makeFolders = (path: string): Effect.Effect<void, Disk.StoreError> =>
  Effect.flatMap(Disk.call("make the folder", path, () => Disk.makeFolders(path)), Effect.forEach(Disk.syncNames, { discard: true }))

/** The text of a small file, or undefined where there is none. */
export const text = (path: string): Effect.Effect<string | undefined, Disk.StoreError> =>
  Disk.call("read", path, () => Disk.unlessAbsent(() => readFileSync(path, "utf8")))

/** Milliseconds after which a lock is nobody's any more: whoever took it was killed. It is for work of a moment. */
const forgotten = 15_000

const taken = (path: string, now: number): boolean => {
  try {
    closeSync(openSync(path, "wx", 0o600))
    return true
  } catch (error) {
    if (Disk.codeOf(error) !== "EEXIST") throw error
    const since = Disk.unlessAbsent(() => lstatSync(path).mtimeMs)
    if (since !== undefined && now - since > forgotten) rmSync(path, { force: true })
    return false
  }
}

/** Holds the lock file `path`, among all processes, until the scope closes; waits while another has it. */
export const lock = (path: string): Effect.Effect<void, Disk.StoreError, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.gen(function*() {
      while (!(yield* Effect.flatMap(Clock.currentTimeMillis, (now) => Disk.call("lock", path, () => taken(path, now))))) yield* Effect.sleep("10 millis")
    }),
    () => Effect.ignore(Disk.call("unlock", path, () => rmSync(path, { force: true }))),
    { interruptible: true }
  ))

/** A name beside `path` that becomes `path` when `make` succeeded and vanishes when it did not. */
const renamed = <E, R>(path: string, make: (draft: string) => Effect.Effect<void, E, R>): Effect.Effect<void, E | Disk.StoreError, R> =>
  Effect.suspend(() => {
    const draft = `${path}.${randomBytes(6).toString("hex")}`
    return Effect.andThen(make(draft), Disk.call("rename to", path, () => renameSync(draft, path))).pipe(
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.ignore(Disk.call("remove", draft, () => rmSync(draft, { force: true })))))
  })

/** Makes a new name durable, where its folder can be asked to. */
const named = (path: string) => Disk.syncNames(dirname(path))

/** A new file with the mode that the user's umask leaves: these are for others too, unlike the store's. */
const begin = (path: string) => Disk.call("make", path, () => {
  closeSync(openSync(path, "wx", 0o666))
  return lstatSync(path).mode & 0o777
})

/** Writes a small file at once: durable, then visible, and its name durable too. Parents are made. */
export const place = (path: string, bytes: Uint8Array): Effect.Effect<void, Disk.StoreError> =>
  Effect.andThen(makeFolders(dirname(path)), renamed(path, (draft) =>
    Effect.scoped(Effect.gen(function*() {
      yield* begin(draft)
      const fd = yield* Disk.open(draft, constants.O_WRONLY)
      yield* Disk.call("write", draft, () => { for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at) })
      yield* Disk.sync(fd, draft)
    }))).pipe(Effect.andThen(named(path))))

/**
 * Copies a file, sharing its blocks where the file system can, away from the main thread; visible once it is whole and `check` has found
 * nothing wrong with the copy, which it is given open.
 */
export const copy = <E, R>(from: string, path: string, check: (fd: number, draft: string) => Effect.Effect<void, E, R>): Effect.Effect<void, Disk.StoreError | E, R> =>
  Effect.andThen(makeFolders(dirname(path)), renamed(path, (draft) =>
    Effect.flatMap(begin(draft), (mode) => Effect.all([
      Effect.callback<void, Disk.StoreError>((resume) => {
        let left = false
        copyFile(from, draft, constants.COPYFILE_FICLONE, (cause) => {
          if (left) rmSync(draft, { force: true }) // one that began late made it again
          resume(cause === null ? Exit.void : Exit.fail(Disk.storeError(cause, "copy to", path)))
        })
        return Effect.sync(() => { left = true })
      }),
      Effect.scoped(Effect.flatMap(Disk.open(draft, constants.O_RDONLY), (fd) => check(fd, draft))),
      Disk.call("copy to", path, () => chmodSync(draft, mode))
    ], { discard: true }))))

/** A new file for this user alone, readable and writable until the scope closes. */
export const fresh = (path: string): Effect.Effect<number, Disk.StoreError, Scope.Scope> =>
  Disk.open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL)

/** Writes all of a stream to the empty file `fd` at `path`, with flat memory. */
export const pour = <E, R>(fd: number, path: string, bytes: Stream.Stream<Uint8Array, E, R>): Effect.Effect<void, E | Disk.StoreError, R> =>
  Effect.suspend(() => {
    let size = 0
    return Stream.runForEachArray(bytes, (chunks) => Disk.call("write", path, () => {
      for (const chunk of chunks) {
        for (let at = 0; at < chunk.byteLength;) at += writeSync(fd, chunk, at, chunk.byteLength - at, size + at)
        size += chunk.byteLength
      }
    }))
  })

/** The first `size` bytes of an open file, a MiB at a time. A file that ends before them is an error. */
export const stream = (fd: number, size: number, path: string): Stream.Stream<Uint8Array, Disk.StoreError> =>
  Stream.unfold(0, (at) => at >= size ? Effect.succeed(undefined) : Disk.call("read", path, () => {
    const piece = Buffer.allocUnsafeSlow(Math.min(1024 * 1024, size - at))
    const read = readSync(fd, piece, 0, piece.byteLength, at)
    if (read === 0) throw new Disk.StoreError({ operation: "read", path, detail: `it ends after ${at} of its ${size} bytes; run \`graph check\`` })
    return [piece.subarray(0, read), at + read] as const
  }))

/** Makes a file of what `fill` writes to a draft beside it: durable, then visible (and its name durable), in place of a file that is there. Anything else there is an error. */
export const replace = <E, R>(path: string, fill: (fd: number, draft: string) => Effect.Effect<void, E, R>): Effect.Effect<void, E | Disk.StoreError, R> =>
  Effect.andThen(
    Disk.call("write", path, () => {
      if (Disk.unlessAbsent(() => lstatSync(path).isFile()) === false) throw new Disk.StoreError({ operation: "write", path, detail: "what is there is no file; name another one" })
    }),
    renamed(path, (draft) => Effect.scoped(Effect.gen(function*() {
      yield* begin(draft)
      const fd = yield* Disk.open(draft, constants.O_WRONLY)
      yield* fill(fd, draft)
      yield* Disk.sync(fd, draft)
    }))).pipe(Effect.andThen(named(path))))

/** As `replace`, of bytes as they come. */
export const write = <E, R>(path: string, bytes: Stream.Stream<Uint8Array, E, R>): Effect.Effect<void, E | Disk.StoreError, R> =>
  replace(path, (fd, draft) => pour(fd, draft, bytes))
