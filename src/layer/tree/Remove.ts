import { chmodSync, closeSync, constants, fchmodSync, openSync, rmdirSync, unlinkSync } from "node:fs"
import { codeOf, relocate, type SystemPath } from "../Syscalls.ts"
import { unsorted } from "../table/Listing.ts"

/** `stop` is called for each entry; what it throws ends the removal where it is. */
export interface RemoveOptions {
  readonly stop?: (() => void) | undefined
}

const O_PATH = 0o10000000
const folderOnly = constants.O_DIRECTORY | constants.O_NOFOLLOW
// eslint-disable-next-line no-control-regex -- the ASCII range is what is meant
const ascii = /^[\u0001-\u007f]*$/

/**
 * Removes what is at `path`: a file, a symlink itself, a folder with all that is in it. Nothing there is no error, nor is
 * it when another process removes the same tree. No link is followed. Folders that their owner may not enter, list or
 * write get 0700 on the way, others keep their mode. One descriptor whatever the depth, so names may be longer than
 * PATH_MAX. Throws Node's errors, which name the path.
 */
export const removeTree = (path: SystemPath, options?: RemoveOptions): void => {
  const stop = options?.stop ?? (() => {})
  // A second round is for what another process added, or took away under our feet, meanwhile.
  for (let rounds = 0;; rounds++) {
    const removal = new Removal(path, stop)
    try {
      return removal.run()
    } catch (error) {
      const code = codeOf(error)
      const again = code === "ENOTEMPTY" || code === "EEXIST" || code === "ENOENT" || code === "ENOTDIR"
      if (!again || rounds === 3) throw relocate(error, removal.where())
    } finally {
      removal.close()
    }
  }
}

/** A folder on the way down: its name in the one above, and the folders in it that are still to be removed. */
interface Level {
  readonly segment: string
  readonly folders: Array<string>
}

/** One walk through the tree: down by name, up by `..`. */
class Removal {
  private readonly path: SystemPath
  private readonly stop: () => void
  private readonly levels: Array<Level> = []
  /** What is being removed in the open folder, for errors. */
  private segment = ""
  private fd: number | undefined
  private folder = ""

  constructor(path: SystemPath, stop: () => void) {
    this.path = path
    this.stop = stop
  }

  /** Removes all there is, once. */
  run(): void {
    this.stop()
    if (this.unlink(this.path) || !this.enter(this.path, "")) return
    for (let level = this.levels.at(-1); level !== undefined; level = this.levels.at(-1)) {
      const next = level.folders.at(-1)
      if (next !== undefined) {
        this.stop()
        if (!this.enter(this.at(next), next)) level.folders.pop()
        continue
      }
      const above = this.levels.at(-2)
      if (above === undefined) break
      this.move(this.open(`${this.folder}/..`))
      this.levels.pop()
      above.folders.pop()
      this.segment = level.segment
      this.allowed(() => unlessMissing(() => rmdirSync(this.at(level.segment))))
    }
    this.close()
    unlessMissing(() => rmdirSync(this.path))
  }

  /** Where it is, for errors. */
  where(): string {
    const inside = [...this.levels.slice(1).map(({ segment }) => segment), this.segment].filter((segment) => segment !== "").join("/")
    const path = this.path.toString()
    return inside === "" ? path : `${path}/${Buffer.from(inside, "latin1").toString()}`
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd)
    this.fd = undefined
  }

  /** Goes into a folder and removes what is no folder in it; false if it is not there any more. */
  private enter(path: SystemPath, segment: string): boolean {
    this.segment = segment
    const fd = unlessMissing(() => this.open(path))
    if (fd === undefined) return false
    this.move(fd)
    const folders: Array<string> = []
    this.levels.push({ segment, folders })
    for (const entry of unsorted(this.folder)) {
      this.stop()
      this.segment = entry.segment
      if (entry.isFolder || !this.allowed(() => this.unlink(this.at(this.segment)))) folders.push(this.segment)
    }
    this.segment = ""
    return true
  }

  private move(fd: number): void {
    this.close()
    this.fd = fd
    this.folder = `/proc/self/fd/${fd}`
  }

  /** Opens a folder to be listed; if its mode is in the way it gets 0700, through a handle that follows nothing. */
  private open(path: SystemPath): number {
    try {
      return openSync(path, constants.O_RDONLY | folderOnly)
    } catch (error) {
      if (codeOf(error) !== "EACCES") throw error
    }
    const handle = this.allowed(() => openSync(path, O_PATH | folderOnly))
    try {
      chmodSync(`/proc/self/fd/${handle}`, 0o700)
    } finally {
      closeSync(handle)
    }
    return openSync(path, constants.O_RDONLY | folderOnly)
  }

  /** Does it in the open folder, and again as 0700 if the folder's mode was in the way. */
  private allowed<A>(run: () => A): A {
    try {
      return run()
    } catch (error) {
      if (codeOf(error) !== "EACCES" || this.fd === undefined) throw error
    }
    fchmodSync(this.fd, 0o700)
    return run()
  }

  /** False if it is a folder. */
  private unlink(path: SystemPath): boolean {
    try {
      unlinkSync(path)
    } catch (error) {
      const code = codeOf(error)
      if (code === "EISDIR") return false
      if (code !== "ENOENT") throw error
    }
    return true
  }

  private at(segment: string): SystemPath {
    const path = `${this.folder}/${segment}`
    return ascii.test(segment) ? path : Buffer.from(path, "latin1")
  }
}

const unlessMissing = <A>(run: () => A): A | undefined => {
  try {
    return run()
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error
    return undefined
  }
}
