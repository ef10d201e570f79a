import { closeSync, constants, openSync, rmdirSync, unlinkSync } from "node:fs"
import { at } from "./Handles.ts"
import * as Name from "./Name.ts"
import { codeOf, type SystemPath } from "../Syscalls.ts"
import { unsorted } from "../table/Listing.ts"

/**
 * Removes what is at `path`, a folder with all that is in it (any depth, one descriptor); nothing there is no error. No link
 * is followed. `removed` is told each name that is gone, children first, as one below `name`. Folders must be ours to
 * enter, list and write.
 */
export const erase = (path: SystemPath, name: Name.Name, removed: (name: Name.Name) => void): void => {
  if (!unlinkUnlessFolder(path)) eraseFolder(path, name, removed)
  removed(name)
}

/** Unlinks a path; false if it is a folder. */
const unlinkUnlessFolder = (path: SystemPath): boolean => {
  try {
    unlinkSync(path)
  } catch (error) {
    const code = codeOf(error)
    if (code === "EISDIR") return false
    if (code !== "ENOENT") throw error
  }
  return true
}

const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** Down by name, up by `..`. */
const eraseFolder = (path: SystemPath, name: Name.Name, removed: (name: Name.Name) => void): void => {
  const levels: Array<{ readonly name: Name.Name; readonly folders: Array<string> }> = []
  let fd = openSync(path, flags)
  let prefix = `/proc/self/fd/${fd}/`
  const list = (name: Name.Name) => {
    const folders: Array<string> = []
    levels.push({ name, folders })
    for (const { segment } of unsorted(`${prefix}.`)) {
      if (!unlinkUnlessFolder(at(prefix, segment))) folders.push(segment)
      else removed(Name.join(name, segment))
    }
  }
  const move = (segment: string) => {
    const next = openSync(at(prefix, segment), flags)
    closeSync(fd)
    fd = next
    prefix = `/proc/self/fd/${fd}/`
  }
  try {
    list(name)
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.folders.at(-1)
      if (next !== undefined) {
        move(next)
        list(Name.join(level.name, next))
        continue
      }
      levels.pop()
      const above = levels.at(-1)
      const gone = above?.folders.pop()
      if (gone === undefined) break
      move("..")
      rmdirSync(at(prefix, gone))
      removed(level.name)
    }
  } finally {
    closeSync(fd)
  }
  rmdirSync(path)
}
