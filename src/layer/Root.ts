import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, rmdirSync, statSync, unlinkSync } from "node:fs"
import { printable, Refused } from "./Fault.ts"
import * as Name from "./Name.ts"
import { codeOf, relocate, type SystemPath } from "./Syscalls.ts"

/** An open folder inside a root. Its handle may be closed by any later call of its root: use it at once or `pin` it. */
export interface Folder {
  /** An O_PATH descriptor. */
  readonly fd: number
  /** Where it is: no component of this name is a symlink. */
  readonly name: Name.Name
  /** What comes before a child's name in a system path: `/proc/self/fd/N/`. */
  readonly prefix: string
}

/** Where something is or will be: a folder and a name in it. */
export interface Place {
  readonly folder: Folder
  /** The last component. */
  readonly segment: string
  /** The whole name, symlinks in its parents resolved. */
  readonly name: Name.Name
  /** What to give to a system call; the last component is not resolved yet, so no call may follow it. */
  readonly path: SystemPath
}

/** Makes the folder that is missing at a place, or throws. */
export type MakeFolder = (place: Place) => void

const O_PATH = 0o10000000
const handleFlags = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW
const maxHops = 40
const maxSteps = 4096
const maxAliases = 4096
/** Bytes of one name, NAME_MAX. */
const longest = 255
// eslint-disable-next-line no-control-regex -- the ASCII range is what is meant
const ascii = /^[\u0001-\u007f]*$/

/**
 * A folder tree that nothing leads out of. Names are resolved component by component through folder handles, with
 * symlinks in the place of a parent followed as if the root were `/` (40 hops, `..` stops at the root) and the last
 * component never followed. Handles are kept, a few hundred at most: whoever removes, replaces or moves a folder or a
 * symlink must `forget` it. Needs Linux with /proc. System errors name the path under the root's own.
 */
export class Root {
  /** The root's path as it was given. */
  readonly path: string
  /** The root's own handle. */
  readonly top: Folder
  private readonly capacity: number
  private readonly folders = new Map<Name.Name, Folder>()
  private readonly aliases = new Map<Name.Name, Name.Name>()
  private pinned: Folder | undefined
  private recentName: Name.Name | undefined
  private recent: Folder
  private closed = false

  /** Opens the existing folder `path`; `capacity` is the number of handles to keep beside the root's. */
  constructor(path: string, options?: { readonly capacity?: number }) {
    this.path = path
    this.capacity = options?.capacity ?? 256
    const fd = openSync(path, handleFlags)
    this.top = { fd, name: "", prefix: `/proc/self/fd/${fd}/` }
    this.recent = this.top
    try {
      if (!statSync(`${this.top.prefix}.`).isDirectory()) throw new Error("not a folder")
    } catch (cause) {
      closeSync(fd)
      throw new Error(`Cannot unpack into ${path}: /proc/self/fd is needed and not there. It is part of Linux; mount /proc.`, { cause })
    }
  }

  /**
   * Where `name` (cleaned, not "") is: its parents resolved, itself not. A missing parent is made by `make`; without
   * `make` the answer is undefined. Throws `Refused` for a parent that is not a folder, a loop, a name too long.
   */
  locate(name: Name.Name, make: MakeFolder): Place
  locate(name: Name.Name, make?: MakeFolder): Place | undefined
  locate(name: Name.Name, make?: MakeFolder): Place | undefined {
    const parent = Name.parent(name)
    const folder = this.enter(parent, make, name)
    if (folder === undefined) return undefined
    const segment = Name.last(name)
    return folder.name === parent && segment.length <= longest ? { folder, segment, name, path: at(folder, segment) } : this.place(folder, segment)
  }

  /** The folder `name` leads to, itself followed too if it is a symlink; else as `locate`. `asked` is named in errors. */
  enter(name: Name.Name, make?: MakeFolder, asked: Name.Name = name): Folder | undefined {
    if (name === "") return this.top
    if (name === this.recentName) return this.recent
    const folder = this.known(name) ?? this.walk(name, make, asked)
    if (typeof folder === "string") return undefined
    this.recentName = name
    this.recent = folder
    return folder
  }

  /** The name `name` leads to, as `enter`; nothing needs to be there: what is missing stays as it is written. */
  resolve(name: Name.Name): Name.Name {
    const folder = name === "" ? this.top : this.known(name) ?? this.walk(name, undefined, name)
    return typeof folder === "string" ? folder : folder.name
  }

  /** A place in an open folder. */
  place(folder: Folder, segment: string): Place {
    const name = Name.join(folder.name, segment)
    if (segment.length > longest) throw new Refused(`a name in its path is longer than ${longest} bytes`, Name.bytes(name))
    return { folder, segment, name, path: at(folder, segment) }
  }

  /** Runs `open`, once more with the kept handles closed (not that of `needed`) if there were no descriptors left. */
  withRoom<A>(needed: Folder, open: () => A): A {
    try {
      return open()
    } catch (error) {
      const code = codeOf(error)
      if (code !== "EMFILE" && code !== "ENFILE") throw error
    }
    for (const folder of this.folders.values()) if (folder !== needed) this.drop(folder)
    return open()
  }

  /** Keeps this folder's handle open whatever comes, until another one, or none, is pinned. */
  pin(folder: Folder | undefined): void {
    const before = this.pinned
    this.pinned = folder
    if (before !== undefined && before !== folder && before !== this.top && this.folders.get(before.name) !== before) closeSync(before.fd)
  }

  /** What was at `name` (a place's name) is no longer there, or not the same: handles at and below it are dropped. */
  forget(name: Name.Name): void {
    this.aliases.clear()
    this.recentName = undefined
    const below = `${name}/`
    for (const [key, folder] of this.folders) {
      if (key === name || key.startsWith(below)) this.drop(folder)
    }
  }

  /**
   * Removes what is at a place, a folder with all that is in it, without following anything; nothing there is no error.
   * `removed` is told each name that is gone, children first. Folders must be ours to enter and write (apply keeps them
   * 0700). Forgets the place.
   */
  remove(place: Place, removed?: (name: Name.Name) => void): void {
    this.forget(place.name)
    try {
      if (!unlinkUnlessFolder(place.path)) removeFolder(place, removed)
      removed?.(place.name)
    } catch (error) {
      throw relocate(error, this.real(place.name))
    }
  }

  /** The path of `name` for people and errors. */
  real(name: Name.Name): string {
    return name === "" ? this.path : `${this.path}/${Name.bytes(name).toString()}`
  }

  /** Closes every handle; the root cannot be used any more. May be called again. */
  close(): void {
    if (this.closed) return
    this.closed = true
    this.pin(undefined)
    for (const folder of this.folders.values()) closeSync(folder.fd)
    this.folders.clear()
    closeSync(this.top.fd)
  }

  private known(name: Name.Name): Folder | undefined {
    if (name === "") return this.top
    const folder = this.folders.get(name) ?? this.folders.get(this.aliases.get(name) ?? "")
    if (folder !== undefined) { // the youngest is last
      this.folders.delete(folder.name)
      this.folders.set(folder.name, folder)
    }
    return folder
  }

  /** The folder, or where it would be if it were not missing. */
  private walk(name: Name.Name, make: MakeFolder | undefined, asked: Name.Name): Folder | Name.Name {
    try {
      return this.follow(name, make, asked)
    } catch (error) {
      throw relocate(error, this.real(name))
    }
  }

  private follow(name: Name.Name, make: MakeFolder | undefined, asked: Name.Name): Folder | Name.Name {
    let start = name
    let folder: Folder | undefined
    while (folder === undefined) {
      start = Name.parent(start)
      folder = this.known(start)
    }
    const pending = name.slice(start === "" ? 0 : start.length + 1).split("/").reverse()
    const missing: Array<string> = []
    let hops = 0
    let steps = 0
    for (;;) {
      const segment = pending.pop()
      if (segment === undefined) break
      if (segment === "" || segment === ".") continue
      if (++steps > maxSteps) throw new Refused(`its path leads through more than ${maxSteps} folders`, Name.bytes(asked))
      if (missing.length > 0) {
        if (segment === "..") missing.pop()
        else missing.push(segment)
        continue
      }
      if (segment === "..") {
        if (folder !== this.top) folder = this.known(Name.parent(folder.name)) ?? this.open(folder, "..", Name.parent(folder.name))
        continue
      }
      const place = this.place(folder, segment)
      const child = this.known(place.name) ?? this.child(place, asked)
      if (child === "missing") {
        if (make === undefined) missing.push(segment)
        else {
          make(place)
          folder = this.open(folder, segment, place.name)
        }
      } else if (typeof child === "string") {
        if (++hops > maxHops) throw new Refused(`its path leads through more than ${maxHops} symlinks`, Name.bytes(asked))
        if (child.startsWith("/")) folder = this.top
        pending.push(...child.split("/").reverse())
      } else folder = child
    }
    if (missing.length > 0) return Name.join(folder.name, missing.join("/"))
    if (folder.name !== name) {
      if (this.aliases.size >= maxAliases) this.aliases.clear()
      this.aliases.set(name, folder.name)
    }
    return folder
  }

  /** The folder at a place, or "missing", or the symlink's target there as `/` or `./` and its bytes. */
  private child(place: Place, asked: Name.Name): Folder | string {
    const is = lstatSync(place.path, { throwIfNoEntry: false })
    if (is === undefined) return "missing"
    if (is.isDirectory()) return this.open(place.folder, place.segment, place.name)
    if (!is.isSymbolicLink()) throw new Refused(`its parent "${printable(Name.bytes(place.name))}" is not a folder`, Name.bytes(asked))
    const target = readlinkSync(place.path, "buffer").toString("latin1")
    return target.startsWith("/") ? target : `./${target}`
  }

  private open(parent: Folder, segment: string, name: Name.Name): Folder {
    const fd = this.withRoom(parent, () => openSync(at(parent, segment), handleFlags))
    const folder = { fd, name, prefix: `/proc/self/fd/${fd}/` }
    this.folders.set(name, folder)
    if (this.folders.size > this.capacity) this.evict(folder, parent)
    return folder
  }

  private evict(...keep: ReadonlyArray<Folder>): void {
    for (const folder of this.folders.values()) {
      if (folder === this.pinned || keep.includes(folder)) continue
      this.drop(folder)
      return
    }
  }

  private drop(folder: Folder): void {
    this.folders.delete(folder.name)
    if (this.recent === folder) this.recentName = undefined
    if (this.pinned !== folder) closeSync(folder.fd)
  }
}

const at = (folder: Folder, segment: string): SystemPath => {
  const path = folder.prefix + segment
  return ascii.test(segment) ? path : Buffer.from(path, "latin1")
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

/** Removes a folder tree of any depth with one descriptor: down by name, up by `..`. */
const removeFolder = (place: Place, removed: ((name: Name.Name) => void) | undefined): void => {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
  const opened = (path: SystemPath, name: Name.Name): Folder => {
    const fd = openSync(path, flags)
    return { fd, name, prefix: `/proc/self/fd/${fd}/` }
  }
  const levels: Array<{ readonly name: Name.Name; readonly folders: Array<string> }> = []
  let folder = opened(place.path, place.name)
  const list = () => {
    const folders: Array<string> = []
    levels.push({ name: folder.name, folders })
    for (const bytes of readdirSync(`${folder.prefix}.`, { encoding: "buffer" })) {
      const segment = bytes.toString("latin1")
      if (!unlinkUnlessFolder(at(folder, segment))) folders.push(segment)
      else removed?.(Name.join(folder.name, segment))
    }
  }
  const move = (path: SystemPath, name: Name.Name) => {
    const next = opened(path, name)
    closeSync(folder.fd)
    folder = next
  }
  try {
    list()
    for (;;) {
      const level = levels[levels.length - 1]
      const next = level?.folders.at(-1)
      if (level === undefined) break
      if (next !== undefined) {
        move(at(folder, next), Name.join(level.name, next))
        list()
        continue
      }
      levels.pop()
      const above = levels[levels.length - 1]
      if (above === undefined) break
      move(`${folder.prefix}..`, above.name)
      const gone = above.folders.pop() ?? ""
      rmdirSync(at(folder, gone))
      removed?.(Name.join(above.name, gone))
    }
  } finally {
    closeSync(folder.fd)
  }
  rmdirSync(place.path)
}
