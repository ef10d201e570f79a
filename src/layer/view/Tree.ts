import { type Room, Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import { type Child, Children, type Folder, isFolder, isIn, type Leaf, prefixOf, type Shared } from "./Children.ts"
import { entryOf, type Facts, implied, layerOf, placed, targetOf, typeOf, type ViewEntry, weightOf } from "./Facts.ts"

/** A name that is there: `node` tells which file it is, if that has, or had, several. */
export interface Named {
  readonly name: Name.Name
  readonly facts: Facts
  readonly node: number | undefined
}

/** A folder on the way to a name. */
interface Frame {
  readonly segment: string
  readonly key: string
  readonly folder: Folder
  readonly prefix: string
  /** What is in it and older than this layer is gone. */
  floor: number
  /** How much of the name led here. */
  readonly end: number
}

const maxHops = 40

/**
 * The names of a root file system. A record each is kept, in a file once there is no `room` for them.
 *
 * Nothing is taken away name by name: each record tells which layer put it there, and a folder which was the last to put something
 * in it, and the last to hide what is in it.
 */
export class Tree {
  /** Counted from 0: what is put there, or hidden, comes from this one. */
  layer = -1
  private readonly room: Room
  private readonly root: Folder = { id: 0, touched: 0, floor: 0, facts: null }
  private readonly children: Table<Child>
  /** Files that have several names. */
  private readonly nodes: Table<Facts>
  private folders = 1
  private shared = 0
  /** From the root to where `walk` led; and by which name, unless there were symlinks on the way. */
  private readonly frames: Array<Frame>
  private walked: Name.Name | undefined = ""

  constructor(room: Room) {
    this.room = room
    this.children = new Table(room)
    this.nodes = new Table(room)
    this.frames = [{ segment: "", key: "", folder: this.root, prefix: prefixOf(0), floor: 0, end: 0 }]
  }

  /** What the root folder is. */
  set rootFacts(facts: Facts) { this.root.facts = facts }

  /** Whether `walk` led to the very name that it was given. */
  get isStraight(): boolean { return this.walked !== undefined }

  /** Puts a folder into the one that `walk` led to; one that is there keeps what it has. */
  putFolder(segment: string, facts: Facts): void {
    const key = this.here().prefix + segment
    const there = this.get(key)
    this.put(key, isFolder(there) ? { ...there, touched: this.layer, facts } : { id: this.folders++, touched: this.layer, floor: 0, facts }, weightOf(facts))
  }

  /** Puts anything else there. */
  putLeaf(segment: string, facts: Facts): void {
    this.put(this.here().prefix + segment, { by: this.layer, facts }, weightOf(facts))
  }

  /** Puts another name of a file there. */
  putName(segment: string, node: number): void {
    this.put(this.here().prefix + segment, { by: this.layer, node }, 0)
  }

  /** A file without a name as yet. */
  makeNode(facts: Facts): number {
    const node = this.shared++
    this.nodes.set(String(node), facts, weightOf(facts))
    return node
  }

  /** The file at a name, which may have others from now on; -1 if it is a folder, undefined if nothing is there. */
  shareAt(name: Name.Name): number | undefined {
    if (!this.walk(Name.parent(name))) return undefined
    const segment = Name.last(name)
    const key = this.here().prefix + segment
    const child = this.get(key)
    if (child === undefined || isFolder(child)) return child === undefined ? undefined : -1
    if ("node" in child) return child.node
    const node = this.makeNode(placed(child.facts, Name.join(this.name(), segment)))
    this.children.set(key, { by: child.by, node })
    return node
  }

  /** Takes what lower layers brought to a name in the folder that `walk` led to, and leaves what this one did. */
  hide(segment: string): void {
    const key = this.here().prefix + segment
    const child = this.get(key)
    if (child === undefined) return
    if ((isFolder(child) ? child.touched : child.by) < this.layer) this.children.delete(key)
    else if (isFolder(child)) this.children.set(key, { ...child, floor: this.layer, facts: child.facts !== null && layerOf(child.facts) === this.layer ? child.facts : null })
  }

  /** The same of all that is in it. */
  hideAll(): void {
    const here = this.here()
    here.floor = here.folder.floor = this.layer
    this.keep(here)
  }

  /** Goes to the folder that is `name`, symlinks followed as if the root were `/`; with `make` missing folders are made. False if it is none. */
  walk(name: Name.Name, make = false): boolean {
    const { frames } = this
    let end = this.resume(name)
    this.walked = name
    const steps = name.slice(end).split("/").reverse()
    let hops = 0
    for (let segment = steps.pop(); segment !== undefined; segment = steps.pop()) {
      if (segment === "" || segment === ".") continue
      if (segment === "..") {
        if (frames.length > 1) frames.pop()
        continue
      }
      const here = this.here()
      const key = here.prefix + segment
      let child = this.get(key)
      if (child === undefined) {
        if (!make) return false
        child = { id: this.folders++, touched: this.layer, floor: 0, facts: null }
        this.put(key, child, 0)
      }
      if (isFolder(child)) {
        end += segment.length + (end === 0 ? 0 : 1)
        this.enter(segment, key, child, end)
        continue
      }
      const facts = this.factsOf(child)
      if (typeOf(facts) !== "symlink" || ++hops > maxHops) return false
      this.walked = undefined
      this.follow(targetOf(facts), steps)
    }
    return true
  }

  /** The entry that `path` leads to, symlinks followed as if the root were `/`, the last one too; undefined if there is none. Other names of it are not looked for. */
  lookUp(path: Name.Name): ViewEntry | undefined {
    const { frames } = this
    frames.length = 1
    this.walked = undefined
    const steps = path.split("/").reverse()
    let hops = 0
    let found: ViewEntry | undefined
    for (let segment = steps.pop(); segment !== undefined; segment = steps.pop()) {
      if (segment === "" || segment === ".") continue
      if (segment === "..") {
        if (found === undefined && frames.length > 1) frames.pop()
        found = undefined
        continue
      }
      const here = this.here()
      const key = here.prefix + segment
      const child = found === undefined ? this.get(key) : undefined
      if (child === undefined) return undefined
      if (isFolder(child)) {
        this.enter(segment, key, child, 0)
        continue
      }
      const facts = this.factsOf(child)
      if (typeOf(facts) !== "symlink") found = entryOf(Name.join(this.name(), segment), facts)
      else if (++hops > maxHops) return undefined
      else this.follow(targetOf(facts), steps)
    }
    if (found !== undefined) return found
    const { folder: { facts } } = this.here()
    return entryOf(this.name(), facts !== null && (frames.length === 1 || layerOf(facts) >= (frames.at(-2)?.floor ?? 0)) ? facts : implied)
  }

  /** Every name, a folder before what is in it, names in the order of their bytes. To be asked for once, as the last. */
  *names(stop: () => void = () => {}): Generator<Named, void> {
    const { root } = this
    yield { name: "", facts: root.facts ?? implied, node: undefined }
    const children = new Children(this.children, this.folders, this.room, stop)
    try {
      const levels = [{ name: "", floor: root.floor, rest: children.of(0) }]
      for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
        const next = level.rest.next()
        if (next.done === true) {
          levels.pop()
          continue
        }
        const [segment, child] = next.value
        if (!isIn(child, level.floor)) continue
        stop()
        const name = Name.join(level.name, segment)
        if (!isFolder(child)) {
          yield { name, facts: this.factsOf(child), node: "node" in child ? child.node : undefined }
          continue
        }
        yield { name, facts: child.facts !== null && layerOf(child.facts) >= level.floor ? child.facts : implied, node: undefined }
        levels.push({ name, floor: Math.max(level.floor, child.floor), rest: children.of(child.id) })
      }
    } finally {
      children.close()
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.children.close()
    this.nodes.close()
  }

  private get(key: string): Child | undefined {
    const child = this.children.get(key)
    return child !== undefined && isIn(child, this.here().floor) ? child : undefined
  }

  private here(): Frame {
    const frame = this.frames.at(-1)
    if (frame === undefined) throw new Error("a root file system without a root")
    return frame
  }

  /** What the frames lead to. */
  private name(): Name.Name {
    return this.frames.slice(1).map(({ segment }) => segment).join("/")
  }

  private factsOf(child: Leaf | Shared): Facts {
    if ("facts" in child) return child.facts
    const facts = this.nodes.get(String(child.node))
    if (facts === undefined) throw new Error("a name of nothing")
    return facts
  }

  /** Puts something into the folder that the frames lead to. */
  private put(key: string, child: Child, weight: number): void {
    this.children.set(key, child, 100 + weight)
    this.touch()
  }

  /** This layer has put something into the folder that the frames lead to. */
  private touch(): void {
    for (let at = this.frames.length - 1, frame = this.frames[at]; frame !== undefined && frame.folder.touched !== this.layer; frame = this.frames[--at]) {
      frame.folder.touched = this.layer
      this.keep(frame)
    }
  }

  private keep({ folder, key }: Frame): void {
    if (folder !== this.root) this.children.set(key, folder)
  }

  private enter(segment: string, key: string, folder: Folder, end: number): void {
    this.frames.push({ segment, key, folder, prefix: prefixOf(folder.id), floor: Math.max(this.here().floor, folder.floor), end })
  }

  /** Goes on where a symlink leads. */
  private follow(target: string, steps: Array<string>): void {
    if (target.startsWith("/")) this.frames.length = 1
    steps.push(...target.split("/").reverse())
  }

  /** Leaves the frames that are on the way to `name`; how much of it is behind them. */
  private resume(name: Name.Name): number {
    const { frames, walked } = this
    if (walked === undefined) frames.length = 1
    else {
      let same = 0
      while (same < name.length && name.charCodeAt(same) === walked.charCodeAt(same)) same++
      const isOnTheWay = ({ end }: Frame) => end <= same && (end === 0 || end === name.length || name[end] === "/")
      while (!isOnTheWay(this.here())) frames.pop()
    }
    return this.here().end
  }
}
