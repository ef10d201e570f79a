import { lstatSync, readlinkSync, statSync } from "node:fs"
import { erase } from "./Erase.ts"
import { NoFolder, printable, Refused } from "../Fault.ts"
import { at, type Folder, Handles, Node } from "./Handles.ts"
import * as Name from "./Name.ts"
import { relocate, type SystemPath } from "../Syscalls.ts"

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

/** Makes the folder that is missing at a place, or throws. */
export type MakeFolder = (place: Place) => void

const maxHops = 40
const maxSteps = 4096
/** Bytes of one name, NAME_MAX. */
const longest = 255

/**
 * A folder tree that nothing leads out of. Names are resolved component by component through folder handles, with
 * symlinks in the place of a parent followed as if the root were `/` (40 hops, `..` stops at the root) and the last
 * component never followed. Handles are kept, a few hundred at most: whoever removes, replaces or moves a folder or a
 * symlink must `forget` it. Needs Linux with /proc. System errors name the path under the root's own.
 */
export class Root {
  /** The root's path as it was given. */
  readonly path: string
  private readonly handles: Handles
  private recentName: Name.Name | undefined
  private recent: Node
  private closed = false

  /** Opens the existing folder `path`; `capacity` is the number of handles to keep beside the root's. */
  constructor(path: string, options?: { readonly capacity?: number }) {
    this.path = path
    this.handles = new Handles(path, options?.capacity ?? 256)
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
    this.handles.forget(name)
  }

  /**
   * Removes what is at a place, a folder with all that is in it, without following anything; nothing there is no error.
   * `removed` is told each name that is gone, children first. Folders must be ours to enter and write (apply keeps them
   * 0700). Forgets the place.
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
    const pending = name.split("/").reverse()
    const missing: Array<string> = []
    let node = this.handles.top
    let hops = 0
    let steps = 0
    for (let segment = pending.pop(); segment !== undefined; segment = pending.pop()) {
      if (segment === "" || segment === ".") continue
      if (++steps > maxSteps) throw new Refused(`its path leads through more than ${maxSteps} folders`, Name.bytes(asked))
      if (missing.length > 0) {
        if (segment === "..") missing.pop()
        else missing.push(segment)
        continue
      }
      const next = segment === ".." ? node.parent ?? node : node.children.get(segment) ?? this.look(node, segment, asked)
      if (next === undefined) {
        if (make === undefined) missing.push(segment)
        else {
          const place = this.place(this.open(node), segment)
          this.told(place.name, () => make(place))
          node = this.handles.child(node, segment)
        }
      } else if (typeof next === "string") {
        if (++hops > maxHops) throw new Refused(`its path leads through more than ${maxHops} symlinks`, Name.bytes(asked))
        if (next.startsWith("/")) node = this.handles.top
        pending.push(...next.split("/").reverse())
      } else node = next
    }
    return missing.length > 0 ? Name.join(node.name, missing.join("/")) : this.open(node)
  }

  /** What is in a folder under this name: a folder, the target of a symlink, or nothing. */
  private look(parent: Node, segment: string, asked: Name.Name): Node | string | undefined {
    const known = parent.links.get(segment)
    if (known !== undefined) return known
    const place = this.place(this.open(parent), segment)
    return this.told(place.name, () => {
      const is = lstatSync(place.path, { throwIfNoEntry: false })
      if (is === undefined) return undefined
      if (is.isDirectory()) return this.handles.child(parent, segment)
      if (!is.isSymbolicLink()) throw new NoFolder(`its parent "${printable(Name.bytes(place.name))}" is not a folder`, Name.bytes(asked))
      const target = readlinkSync(place.path, "buffer").toString("latin1")
      this.handles.keepLink(parent, segment, target)
      return target
    })
  }

  private open(node: Node): Node {
    return this.told(node.name, () => this.handles.handle(node))
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
