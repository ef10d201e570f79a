import { Effect, Exit } from "effect"
import { randomBytes } from "node:crypto"
import { constants, copyFile, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import * as Disk from "./Disk.ts"

/** What stands in the way of writing a new folder at `path`: it is no folder, or it holds something; undefined if nothing does. */
export const obstacle = (path: string): Effect.Effect<string | undefined, Disk.StoreError> =>
  Disk.call("look at", path, () => Disk.unlessAbsent(() => {
    if (!lstatSync(path).isDirectory()) return "is not a folder"
    return readdirSync(path).length > 0 ? "is not empty" : undefined
  }))

/** Makes the folder `path` with `mode`, and its parents if `parents`. */
export const makeFolder = (path: string, options: { readonly mode?: number; readonly parents?: boolean } = {}): Effect.Effect<void, Disk.StoreError> =>
  Disk.call("make the folder", path, () => { mkdirSync(path, { mode: options.mode ?? 0o777, recursive: options.parents === true }) })

/** The text of a small file, or undefined where there is none. */
export const text = (path: string): Effect.Effect<string | undefined, Disk.StoreError> =>
  Disk.call("read", path, () => Disk.unlessAbsent(() => readFileSync(path, "utf8")))

/** A name beside `path` that becomes `path` when `make` succeeded and vanishes when it did not. */
const renamed = <E>(path: string, make: (draft: string) => Effect.Effect<void, E>): Effect.Effect<void, E | Disk.StoreError> =>
  Effect.suspend(() => {
    const draft = `${path}.${randomBytes(6).toString("hex")}`
    return Effect.andThen(make(draft), Disk.call("rename to", path, () => renameSync(draft, path))).pipe(
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.ignore(Disk.call("remove", draft, () => rmSync(draft, { force: true })))))
  })

/** Writes a small file at once: durable, then visible. Parents are made. */
export const place = (path: string, bytes: Uint8Array): Effect.Effect<void, Disk.StoreError> =>
  Effect.andThen(makeFolder(dirname(path), { parents: true }), renamed(path, (draft) =>
    Effect.scoped(Effect.gen(function*() {
      const fd = yield* Disk.open(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL)
      yield* Disk.call("write", draft, () => { for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at) })
      yield* Disk.sync(fd, draft)
    }))))

/** Copies a file, sharing its blocks where the file system can, away from the main thread; visible once it is whole. */
export const copy = (from: string, path: string): Effect.Effect<void, Disk.StoreError> =>
  Effect.andThen(makeFolder(dirname(path), { parents: true }), renamed(path, (draft) =>
    Effect.callback<void, Disk.StoreError>((resume) => {
      copyFile(from, draft, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL, (cause) =>
        resume(cause === null ? Exit.void : Exit.fail(Disk.storeError(cause, "copy to", path))))
    }).pipe(Effect.uninterruptible)))
