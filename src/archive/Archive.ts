import { Effect, type Scope } from "effect"
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readSync, statSync } from "node:fs"
import { join } from "node:path"
import { ArchiveFile, attempt } from "./ArchiveFile.ts"
import { type ArchiveError, ArchiveRefused } from "./Fault.ts"
import { TarIndex } from "./TarIndex.ts"
import { type Name, partsOf, textOf, type Tree } from "./Tree.ts"

/** A file on disk that holds an archive, or something else: its descriptor, size in bytes, and first bytes. */
export interface Opened {
  readonly archive: string
  readonly fd: number
  readonly size: number
  readonly head: Uint8Array
}

const headSize = 32

const opened = (archive: string, fd: number): Opened => {
  const stat = fstatSync(fd)
  if (!stat.isFile()) throw new ArchiveRefused({ archive, entry: "", rule: "it is neither a file nor a folder: name the file, or pipe it in" })
  const head = Buffer.alloc(headSize)
  return { archive, fd, size: stat.size, head: head.subarray(0, readSync(fd, head, 0, headSize, 0)) }
}

/** Opens the file `path` (a link to it is followed), until the scope closes. `archive` names it in errors. */
export const openFile = (path: string, archive = path): Effect.Effect<Opened, ArchiveError, Scope.Scope> =>
  Effect.flatMap(
    Effect.acquireRelease(
      attempt(archive, () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)), (fd) => Effect.sync(() => closeSync(fd))),
    (fd) => attempt(archive, () => opened(archive, fd)))

/** Whether `path` is a folder, links to it followed. */
export const isFolder = (path: string): Effect.Effect<boolean, ArchiveError> => attempt(path, () => statSync(path).isDirectory())

/** Headers that are read before other fibers get a turn. */
const turn = 256

/** Indexes a plain tar file: its headers are read, its data is not. */
export const index = Effect.fn("Archive.index")(function*({ archive, fd, size }: Opened): Effect.fn.Return<Tree, ArchiveError> {
  if (size === 0) return yield* new ArchiveRefused({ archive, entry: "", rule: "it has no bytes" })
  const index = new TarIndex(archive, fd, size)
  while (!(yield* attempt(archive, () => index.step(turn)))) yield* Effect.yieldNow
  return index
})

/** A layout's folder as a tree. Links in it are not followed. */
class FolderTree implements Tree {
  readonly archive: string
  constructor(archive: string) { this.archive = archive }

  find(name: Name): ArchiveFile | undefined {
    const parts = partsOf(name)
    if (parts === undefined) throw new ArchiveRefused({ archive: this.archive, entry: textOf(name), rule: "it names something outside: it has a part `..`" })
    let path = this.archive
    for (const [index, part] of parts.entries()) {
      path = join(path, textOf(part))
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (index === parts.length - 1 && stat?.isFile()) return new ArchiveFile(this.archive, textOf(name), stat.size, { path })
      if (stat === undefined || (index === parts.length - 1 && stat.isDirectory())) return undefined
      if (!stat.isDirectory()) throw new ArchiveRefused({ archive: this.archive, entry: textOf(name), rule: "it is no file in a folder: links are not followed" })
    }
    return undefined
  }

  get isEmpty(): boolean { return readdirSync(this.archive).length === 0 }

  get folders(): ReadonlyArray<Name> {
    return readdirSync(this.archive, { withFileTypes: true, encoding: "buffer" })
      .filter((entry) => entry.isDirectory()).map(({ name }) => name.toString("latin1")).sort((a, b) => a < b ? -1 : 1)
  }
}

/** The folder `path` as what an archive of it would be. */
export const folder = (path: string): Tree => new FolderTree(path)
