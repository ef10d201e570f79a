import { lstatSync, readlinkSync, statSync } from "node:fs"
import { constants as system } from "node:os"
import { erase } from "./Erase.ts"
import { NoFolder, printable, Refused } from "../Fault.ts"
import { at, type Folder, Handles, Node, type Watch } from "./Handles.ts"
import * as Name from "./Name.ts"
import { relocate, systemError, type SystemPath } from "../Syscalls.ts"

export type { Folder } from "./Handles.ts"

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

/** Makes the folder that is missing at a place; false if there is something. */
export type MakeFolder = (place: Place) => boolean

/**
 * `capacity`: handles to keep beside the root's, by default as many as fit. `made` is for a root that one user alone fills:
 * whether it has made a folder at a place's name that is still there. Then nothing is looked at before it is tried.
 * `watch` is told of handles and may not use the root.
 */
export interface RootOptions {
  readonly capacity?: number | undefined
  readonly made?: ((name: Name.Name) => boolean) | undefined
  readonly watch?: Watch | undefined
}

const maxHops = 40
const maxSteps = 4096
/** Bytes of one name, NAME_MAX. */
const longest = 255

/**
 * A folder tree that nothing leads out of. Names are resolved component by component through folder handles, with
 * symlinks in the place of a parent followed as if the root were `/` (40 hops, `..` stops at the root) and the last
 * component never followed. Handles are kept, a few thousand at most: whoever removes, replaces or moves a folder or a
 * symlink must `forget` it. Needs Linux with /proc. System errors name the path under the root's own.
 */
export class Root {
  /** The root's path as it was given. */
  readonly path: string
  private readonly handles: Handles
  private readonly made: RootOptions["made"]
  private recentName: Name.Name | undefined
  private recent: Node
  /** Made just now on the way to a name: nothing is in it. */
  private bare: Node | undefined
  private closed = false

  /** Opens the existing folder `path`. */
  constructor(path: string, options?: RootOptions) {
    this.path = path
    this.handles = new Handles(path, options ?? {})
    this.made = options?.made
    this.recent = this.handles.top
    try {
      if (!statSync(`${this.top.prefix}.`).isDirectory()) throw new Error("not a folder")
    } catch (cause) {
      this.handles.close()
      throw new Error(`Cannot unpack into ${path}: /proc/self/fd is needed and not there. It is part of Linux; mount /proc.`, { cause })
    }
  }

  /** The root's own handle. */
  get top(): Folder {
    return this.handles.top
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
    return folder.name === parent && segment.length <= longest ? { folder, segment, name, path: at(folder.prefix, segment) } : this.place(folder, segment)
  }

  /** The folder `name` leads to, itself followed too if it is a symlink; else as `locate`. `asked` is named in errors. */
  enter(name: Name.Name, make?: MakeFolder, asked: Name.Name = name): Folder | undefined {
    if (name === "") return this.top
    if (name === this.recentName && this.recent.fd >= 0) return this.recent
    const found = this.follow(name, make, asked)
    if (typeof found === "string") return undefined
    this.recentName = name
    this.recent = found
    return found
  }

  /** The name `name` leads to, as `enter`; nothing needs to be there: what is missing stays as it is written. */
  resolve(name: Name.Name): Name.Name {
    const found = this.follow(name, undefined, name)
    return typeof found === "string" ? found : found.name
  }

  /** A place in an open folder. */
  place(folder: Folder, segment: string): Place {
    const name = Name.join(folder.name, segment)
    if (segment.length > longest) throw new Refused(`a name in its path is longer than ${longest} bytes`, Name.bytes(name))
    return { folder, segment, name, path: at(folder.prefix, segment) }
  }

  /** Runs `open`, once more with the kept handles closed (not that of `needed`) if there were no descriptors left. */
  withRoom<A>(needed: Folder, open: () => A): A {
    return this.handles.withRoom(needed, open)
  }

  /** Keeps this folder's handle open whatever comes, until another one, or none, is pinned. */
  pin(folder: Folder | undefined): void {
    this.handles.pin(folder instanceof Node ? folder : undefined)
  }

  /** What was at `name` (a place's name) is no longer there, or not the same: handles at and below it are dropped. */
  forget(name: Name.Name): void {
    this.recentName = undefined
    this.recent = this.handles.top
    this.handles.forget(name)
  }

  /**
   * Removes what is at a place, a folder with all that is in it, without following anything; nothing there is no error.
   * `removed` is told each name that is gone, children first. Folders must be ours to enter and write (apply keeps them
   * so). Forgets the place.
   */
  remove(place: Place, removed: (name: Name.Name) => void = () => {}): void {
    this.forget(place.name)
    this.handles.withRoom(place.folder, () => this.told(place.name, () => erase(place.path, place.name, removed)))
  }

  /** The path of `name` for people and errors. */
  real(name: Name.Name): string {
    return name === "" ? this.path : `${this.path}/${Name.bytes(name).toString()}`
  }

  /** Closes every handle; the root cannot be used any more. May be called again. */
  close(): void {
    if (this.closed) return
    this.closed = true
    this.handles.close()
  }

  /** The folder with its handle open, or where it would be if it were not missing. */
  private follow(name: Name.Name, make: MakeFolder | undefined, asked: Name.Name): Node | Name.Name {
    let node = this.nearest(name)
    let rest = name
    let from = node.depth === 0 ? 0 : node.name.length + 1
    let steps = node.depth
    let hops = 0
    const missing: Array<string> = []
    this.bare = undefined
    while (from < rest.length) {
      const slash = rest.indexOf("/", from)
      const segment = rest.slice(from, slash === -1 ? rest.length : slash)
      from += segment.length + 1
      if (segment === "" || segment === ".") continue
      if (++steps > maxSteps) throw new Refused(`its path leads through more than ${maxSteps} folders`, Name.bytes(asked))
      if (missing.length > 0) {
        if (segment === "..") missing.pop()
        else missing.push(segment)
        continue
      }
      const next = segment === ".." ? node.parent ?? node : this.step(node, segment, make, asked)
      if (next === undefined) missing.push(segment)
      else if (typeof next === "string") {
        if (++hops > maxHops) throw new Refused(`its path leads through more than ${maxHops} symlinks`, Name.bytes(asked))
        if (next.startsWith("/")) node = this.handles.top
        rest = `${next}/${rest.slice(from)}`
        from = 0
      } else node = next
    }
    return missing.length > 0 ? Name.join(node.name, missing.join("/")) : this.open(node)
  }

  /** The folder that `name` is, or is in, and that is known from the last time. */
  private nearest(name: Name.Name): Node {
    let node = this.recent.fd >= 0 ? this.recent : this.handles.top
    while (node.parent !== undefined && !(name.startsWith(node.name) && (name.length === node.name.length || name[node.name.length] === "/"))) node = node.parent
    return node
  }

  /** What is in a folder under this name: a folder, made if nothing is there, or the target of a symlink; without `make` also nothing. */
  private step(parent: Node, segment: string, make: MakeFolder | undefined, asked: Name.Name): Node | string | undefined {
    const known = parent.children?.get(segment) ?? parent.links?.get(segment)
    if (known !== undefined) return known
    const name = Name.join(parent.name, segment)
    if (this.made?.(name) === true) return this.handles.child(parent, segment, name)
    if (make === undefined) return this.look(parent, segment, asked)
    const ahead = parent === this.bare || this.made !== undefined ? this.make(parent, segment, make) : undefined
    const found = ahead ?? this.look(parent, segment, asked) ?? this.make(parent, segment, make)
    if (found === undefined) throw systemError(system.errno.EEXIST, "mkdir", this.real(name))
    return found
  }

  private make(parent: Node, segment: string, make: MakeFolder): Node | undefined {
    const place = this.place(this.open(parent), segment)
    if (!this.told(place.name, () => make(place))) return undefined
    return this.bare = this.handles.child(parent, segment, place.name)
  }

  /** Looks at what is in a folder under this name: a folder, the target of a symlink, or nothing. */
  private look(parent: Node, segment: string, asked: Name.Name): Node | string | undefined {
    const place = this.place(this.open(parent), segment)
    return this.told(place.name, () => {
      const is = lstatSync(place.path, { throwIfNoEntry: false })
      if (is === undefined) return undefined
      if (is.isDirectory()) return this.handles.child(parent, segment, place.name)
      if (!is.isSymbolicLink()) throw new NoFolder(`its parent "${printable(Name.bytes(place.name))}" is not a folder`, Name.bytes(asked))
      const target = readlinkSync(place.path, "buffer").toString("latin1")
      this.handles.keepLink(parent, segment, target)
      return target
    })
  }

  private open(node: Node): Node {
    return node.fd >= 0 ? this.handles.handle(node) : this.told(node.name, () => this.handles.handle(node))
  }

  /** Runs what may fail; a system error then tells of `name`. */
  private told<A>(name: Name.Name, run: () => A): A {
    try {
      return run()
    } catch (error) {
      throw relocate(error, this.real(name))
    }
  }
}
