import { createHash, type Hash } from "node:crypto"
import { Refused } from "../Fault.ts"
import type { Entry, EntrySink } from "../tar/Entry.ts"
import { opaque, pseudoLink, reserved, whiteout } from "../tree/Markers.ts"
import * as Name from "../tree/Name.ts"

/** A name of a root file system, as its layers make it. */
export interface ViewEntry {
  readonly name: Name.Name
  readonly type: "file" | "dir" | "symlink" | "char" | "block" | "fifo"
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: readonly [seconds: number, nanos: number]
  /** Of a symlink, as text of its bytes; of a device `major,minor`; else empty. */
  readonly target: string
  /** Which layer (0: the lowest) its content or metadata is from; -1 for folders that no layer describes. */
  readonly layer: number
  /** Which entry of that layer's tar, counted from 1, and the name it has there. */
  readonly entry: number
  readonly source: Name.Name
  /** The first name of the same file, where it has several. */
  readonly link: Name.Name | undefined
  /** SHA-256 of a file's content, if that was asked for. */
  readonly sha256: string | undefined
  readonly xattrs: ReadonlyArray<readonly [name: string, base64: string]>
}

interface Folder extends Facts { readonly children: Map<string, Child> }
interface Leaf extends Facts { readonly children?: never }
type Node = Folder | Leaf
interface Child { node: Node; by: number }
interface Facts {
  type: ViewEntry["type"]
  mode: number; uid: number; gid: number; size: number
  mtime: readonly [number, number]
  target: string
  layer: number; entry: number; source: Name.Name
  sha256: string | undefined
  xattrs: ViewEntry["xattrs"]
}

/** A hard link to a layer below: its name, the target's, and the target, if that was there before the layer came. */
export interface HeldLink {
  readonly path: Name.Name
  readonly target: Name.Name
  readonly node: Node | undefined
}

const maxHops = 40
const zeros = Buffer.alloc(64 * 1024)

const implied = (): Folder => ({
  type: "dir", mode: 0o755, uid: 0, gid: 0, size: 0, mtime: [0, 0], target: "", layer: -1, entry: 0, source: "", sha256: undefined, xattrs: [], children: new Map()
})

const isFolder = (node: Node | undefined): node is Folder => node?.children !== undefined

/**
 * A root file system in memory: layers' tars are read into it one after the other, lowest first, as applying them would do it
 * (image-spec, layer.md#applying-changesets), but for what files hold. Memory grows with the number of names.
 */
export class View implements EntrySink {
  private readonly root = implied()
  private readonly hashing: boolean
  private layer = -1
  private count = 0
  private file: { readonly leaf: Leaf; readonly hash: Hash | undefined; filled: number } | undefined
  private readonly kept = new Map<string, Leaf>()
  /** Hard links whose target has not come yet. */
  private pending: Array<{ readonly name: Name.Name; readonly target: Name.Name; readonly path: Buffer }> = []

  constructor(options: { readonly hash: boolean }) {
    this.hashing = options.hash
  }

  /** The next layer's entries come. */
  begin(): void {
    this.layer++
    this.kept.clear()
    this.count = 0
  }

  entry(entry: Entry): void {
    this.count++
    const name = Name.clean(entry.path)
    if (name === "") {
      if (entry.type !== "dir") throw new Refused("the root can only be a folder", entry.path)
      Object.assign(this.root, this.facts(entry))
      return
    }
    if (name.includes(whiteout)) {
      const last = Name.last(name)
      if (entry.type === "file" && pseudoLink.test(name)) return this.keep(Name.last(name), entry)
      if (reserved.test(name) && !(last === opaque && !reserved.test(Name.parent(name)))) return
      if (last.startsWith(whiteout)) return this.whiteout(Name.parent(name), last)
    }
    if (entry.type === "link") return this.link(name, entry)
    const parent = this.folder(Name.parent(name), entry.path)
    const segment = Name.last(name)
    const there = parent.children.get(segment)
    if (entry.type === "dir" && isFolder(there?.node)) {
      Object.assign(there.node, this.facts(entry))
      there.by = this.layer
      return
    }
    const facts = this.facts(entry)
    const node: Node = entry.type === "dir" ? { ...facts, children: new Map() } : facts
    parent.children.set(segment, { node, by: this.layer })
    if (entry.type === "file" && !isFolder(node)) this.file = { leaf: node, hash: this.hashing ? createHash("sha256") : undefined, filled: 0 }
  }

  data(bytes: Uint8Array, at: number): void {
    const file = this.file
    if (file?.hash === undefined) return
    fill(file.hash, at - file.filled)
    file.hash.update(bytes)
    file.filled = at + bytes.byteLength
  }

  end(): void {
    const file = this.file
    this.file = undefined
    if (file?.hash === undefined) return
    fill(file.hash, file.leaf.size - file.filled)
    file.leaf.sha256 = file.hash.digest("hex")
  }

  /** The file that came last has this digest, if that is known: its content does not come. */
  known(sha256: string | undefined): void {
    if (this.file !== undefined) this.file.leaf.sha256 = sha256
    this.file = undefined
  }

  /** What hard links of the coming layer lead to in those below, as far as it is there already. */
  hold(links: ReadonlyArray<{ readonly path: Name.Name; readonly target: Name.Name }>): ReadonlyArray<HeldLink> {
    return links.map(({ path, target }) => ({ path, target, node: this.at(target) }))
  }

  /** Hides what is below the layer at a name, or all in a folder, wherever in the layer that came. */
  hideAll(path: Name.Name, all: boolean): void {
    if (all) this.whiteout(path, opaque)
    else this.whiteout(Name.parent(path), `${whiteout}${Name.last(path)}`)
  }

  /** The layer's other names have come: those of held links too. */
  put(links: ReadonlyArray<HeldLink>): void {
    for (const { node, path, target } of links) {
      const found = node ?? this.at(target)
      if (found === undefined || isFolder(found)) throw new Refused("its hard link target is in no layer", Name.bytes(path))
      this.folder(Name.parent(path), Name.bytes(path)).children.set(Name.last(path), { node: found, by: this.layer })
    }
  }

  /** All entries of the layer have come. */
  finish(): void {
    for (const { name, path, target } of this.pending.splice(0)) {
      const node = this.at(target)
      if (node === undefined || isFolder(node)) throw new Refused(`its hard link target is in no layer`, path)
      this.folder(Name.parent(name), path).children.set(Name.last(name), { node, by: this.layer })
    }
  }

  /** Every name, a folder before what is in it, names in the order of their bytes. */
  *entries(): Generator<ViewEntry> {
    const firsts = new Map<Node, Name.Name>()
    const levels = [{ name: "", rest: [...this.root.children].sort(byName).values() }]
    yield this.shown("", this.root, undefined)
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.rest.next()
      if (next.done === true) {
        levels.pop()
        continue
      }
      const [segment, { node }] = next.value
      const name = Name.join(level.name, segment)
      const first = isFolder(node) ? undefined : firsts.get(node)
      if (!isFolder(node) && first === undefined) firsts.set(node, name)
      yield this.shown(name, node, first)
      if (isFolder(node)) levels.push({ name, rest: [...node.children].sort(byName).values() })
    }
  }

  private shown(name: Name.Name, { type, mode, uid, gid, size, mtime, target, layer, entry, source, sha256, xattrs }: Node, link: Name.Name | undefined): ViewEntry {
    return { name, type, mode, uid, gid, size, mtime, target, layer, entry, source, link, sha256, xattrs }
  }

  private facts({ path, type, mode, uid, gid, size, mtimeSeconds, mtimeNanos, linkpath, devmajor, devminor, xattrs }: Entry): Leaf {
    return {
      type: type === "link" ? "file" : type, mode: type === "symlink" ? 0o777 : mode, uid, gid, size, mtime: [mtimeSeconds, mtimeNanos],
      target: type === "symlink" ? linkpath.toString("latin1") : type === "char" || type === "block" ? `${devmajor},${devminor}` : "",
      layer: this.layer, entry: this.count, source: Name.clean(path), sha256: undefined,
      xattrs: xattrs.length === 0 ? [] : xattrs.map(([name, value]) => [name.toString("latin1"), value.toString("base64")] as const).sort(byName)
    }
  }

  /** What aufs kept for hard links of this layer. */
  private keep(segment: string, entry: Entry): void {
    const leaf = this.facts(entry)
    this.kept.set(segment, leaf)
    this.file = { leaf, hash: this.hashing ? createHash("sha256") : undefined, filled: 0 }
  }

  private link(name: Name.Name, entry: Entry): void {
    const asked = Name.clean(entry.linkpath)
    const kept = pseudoLink.test(asked) ? this.kept.get(Name.last(asked)) : undefined
    if (kept !== undefined) return void this.folder(Name.parent(name), entry.path).children.set(Name.last(name), { node: kept, by: this.layer })
    const folder = this.find(Name.parent(asked))
    const node = isFolder(folder) ? folder.children.get(Name.last(asked))?.node : undefined
    if (node !== undefined && !isFolder(node)) {
      this.folder(Name.parent(name), entry.path).children.set(Name.last(name), { node, by: this.layer })
    } else this.pending.push({ name, target: asked, path: entry.path })
  }

  private at(name: Name.Name): Node | undefined {
    const folder = this.find(Name.parent(name))
    return isFolder(folder) ? folder.children.get(Name.last(name))?.node : undefined
  }

  private whiteout(parent: Name.Name, last: string): void {
    const folder = this.find(parent)
    if (!isFolder(folder)) return
    for (const segment of last === opaque ? [...folder.children.keys()] : [last.slice(whiteout.length)]) this.hide(folder, segment)
  }

  /** Takes what lower layers brought and leaves what this one did. */
  private hide(parent: Folder, segment: string): void {
    const child = parent.children.get(segment)
    if (child === undefined) return
    const { node } = child
    if (isFolder(node)) {
      for (const inner of node.children.keys()) this.hide(node, inner)
      if (node.layer !== this.layer) Object.assign(node, { ...implied(), children: node.children })
    }
    if (child.by !== this.layer && (!isFolder(node) || node.children.size === 0)) parent.children.delete(segment)
  }

  private folder(name: Name.Name, path: Buffer): Folder {
    const found = this.find(name, true)
    if (!isFolder(found)) throw new Refused("a parent is not a folder", path)
    return found
  }

  /** What a name leads to, symlinks followed as if the root were `/`; with `make` missing folders are made. */
  private find(name: Name.Name, make = false): Node | undefined {
    const pending = name.split("/").reverse()
    const above: Array<Folder> = [this.root]
    let hops = 0
    for (let segment = pending.pop(); segment !== undefined; segment = pending.pop()) {
      if (segment === "" || segment === ".") continue
      if (segment === "..") {
        if (above.length > 1) above.pop()
        continue
      }
      const here = above.at(-1) ?? this.root
      let child = here.children.get(segment)
      if (child === undefined) {
        if (!make) return undefined
        here.children.set(segment, child = { node: implied(), by: this.layer })
      }
      const { node } = child
      if (isFolder(node)) above.push(node)
      else if (node.type === "symlink") {
        if (++hops > maxHops) return undefined
        if (node.target.startsWith("/")) above.length = 1
        pending.push(...node.target.split("/").reverse())
      } else return node
    }
    return above.at(-1)
  }
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => a < b ? -1 : 1

const fill = (hash: Hash, count: number): void => {
  for (let left = count; left > 0; left -= zeros.byteLength) hash.update(zeros.subarray(0, Math.min(left, zeros.byteLength)))
}

/**
 * The entry that `path` leads to among those of a root file system by name, symlinks followed as if the root were `/`, the last
 * one too; undefined if there is none. For one look at a list: nothing is kept.
 */
export const lookUp = (entries: ReadonlyMap<Name.Name, ViewEntry>, path: Name.Name): ViewEntry | undefined => {
  const pending = path.split("/").reverse()
  let at = ""
  let hops = 0
  for (let segment = pending.pop(); segment !== undefined; segment = pending.pop()) {
    if (segment === "" || segment === ".") continue
    if (segment === "..") {
      at = Name.parent(at)
      continue
    }
    if (entries.get(at)?.type !== "dir") return undefined
    const entry = entries.get(Name.join(at, segment))
    if (entry === undefined) return undefined
    if (entry.type === "symlink") {
      if (++hops > maxHops) return undefined
      if (entry.target.startsWith("/")) at = ""
      pending.push(...entry.target.split("/").reverse())
    } else at = entry.name
  }
  return entries.get(at)
}
