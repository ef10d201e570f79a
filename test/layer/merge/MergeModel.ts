import { createHash } from "node:crypto"
import type { TreeRecord } from "../../../src/testing/Tree.ts"
import type { Item } from "../apply/Entries.ts"

/** A root file system in memory, to which layers are applied entry by entry: the plainest reading of the image-spec there is. */
interface Folder { readonly type: "dir"; mode: number; mtime: bigint; readonly children: Map<string, Node> }
interface File { readonly type: "file"; readonly mode: number; readonly mtime: bigint; readonly content: string }
interface Symlink { readonly type: "symlink"; readonly mtime: bigint; readonly to: string }
/** A hard link without a target: refused, or not, if its own layer replaces it again. */
interface Broken { readonly type: "broken" }
type Node = Folder | File | Symlink | Broken

/** The model's word for what must be refused. */
export class ModelRefused extends Error {}

/**
 * A layer that goes through a symlink of a lower layer to what it itself replaces: what that gives depends on the order of
 * its entries, which a layer on disk does not have. No archiver writes one.
 */
export class ModelUndefined extends Error {}

const folder = (): Folder => ({ type: "dir", mode: 0o755, mtime: 0n, children: new Map() })
const split = (path: string) => path.split("/").filter((segment) => segment !== "")

export class Model {
  readonly root = folder()
  /** Whether some layer had a hard link without a target, or a whiteout below a file or loop of its own: it may be refused for that. */
  doubtful = false
  /** The names in each folder that this layer brought. */
  private readonly written = new Map<Folder, Set<string>>()
  private readonly declared = new Set<Node>()
  /** Symlinks of lower layers that this layer went through, and folders it came to so. */
  private readonly through = new Set<Node>()
  /** Symlinks that this layer has made by hard links: it does not know them when it is unpacked. */
  private readonly linkedSymlinks = new Set<Node>()
  /** Whether the last `find` went through symlinks of its layer only, and, if it ended at a file, to a file of its layer. */
  private own = true

  apply(items: ReadonlyArray<Item>): void {
    this.written.clear()
    this.declared.clear()
    this.through.clear()
    this.linkedSymlinks.clear()
    for (const item of items) this.one(item)
    if (this.isBroken(this.root)) throw new ModelRefused()
  }

  records(): ReadonlyArray<TreeRecord> {
    const records: Array<TreeRecord> = []
    const names = new Map<Node, Array<string>>()
    const visit = (path: string, node: Node) => {
      if (node.type === "broken") return
      const file = node.type === "file" ? node.content : ""
      const target = node.type === "symlink" ? node.to : ""
      if (node.type !== "dir") names.set(node, [...names.get(node) ?? [], path])
      records.push({
        path, type: node.type, mode: node.type === "symlink" ? 0o777 : node.mode, uid: 0, gid: 0, size: file.length + target.length, linkTarget: target,
        hardLinkGroup: "", mtimeNs: node.mtime, content: node.type === "file" ? createHash("sha256").update(file).digest("hex") : "", xattrs: [], device: ""
      })
      if (node.type === "dir") for (const [name, child] of node.children) visit(path === "" ? name : `${path}/${name}`, child)
    }
    visit("", this.root)
    for (const group of names.values()) {
      if (group.length < 2) continue
      const first = [...group].sort()[0] ?? ""
      for (const record of records) if (group.includes(record.path)) Object.assign(record, { hardLinkGroup: first })
    }
    return records
  }

  private one(item: Item): void {
    const segments = split(item.path)
    const name = segments.pop()
    if (name === undefined) return void Object.assign(this.root, { mode: item.mode, mtime: stamp(item) })
    if (name.startsWith(".wh.")) {
      const lower = this.find(segments)
      if (lower?.type === "file" && this.own) this.doubtful = true
      if (lower?.type !== "dir") return
      for (const child of name === ".wh..wh..opq" ? [...lower.children.keys()] : [name.slice(4)]) this.hide(lower, child)
      return
    }
    const parent = this.find(segments, true)
    if (parent?.type !== "dir") throw this.own ? new ModelRefused() : new ModelUndefined()
    const there = parent.children.get(name)
    if (there !== undefined && there.type !== "dir" && this.isThrough(there)) throw new ModelUndefined()
    if (item.type === "dir") {
      const made = there?.type === "dir" ? there : folder()
      Object.assign(made, { mode: item.mode, mtime: stamp(item) })
      this.declared.add(made)
      return this.put(parent, name, made)
    }
    if (item.type === "link" && this.find(split(item.to ?? "").slice(0, -1)) === parent && split(item.to ?? "").at(-1) === name) throw new ModelRefused()
    if (there !== undefined && this.isThrough(there)) throw new ModelUndefined()
    parent.children.delete(name)
    this.put(parent, name, item.type === "link" ? this.linked(split(item.to ?? "")) : item.type === "symlink"
      ? { type: "symlink", mtime: stamp(item), to: item.to ?? "" }
      : { type: "file", mode: item.mode ?? 0, mtime: stamp(item), content: item.content ?? "" })
  }

  private linked(segments: Array<string>): Node {
    const name = segments.pop() ?? ""
    const parent = this.find(segments)
    const node = parent?.type === "dir" ? parent.children.get(name) : undefined
    if (node?.type === "dir" && this.declared.has(node)) throw new ModelRefused()
    if (node?.type === "symlink") this.linkedSymlinks.add(node)
    if (node !== undefined && node.type !== "dir") return node
    this.doubtful = true
    return { type: "broken" }
  }

  private isWritten(parent: Folder, name: string): boolean {
    return this.written.get(parent)?.has(name) === true
  }

  private isThrough(node: Node): boolean {
    return this.through.has(node) || (node.type === "dir" && [...node.children.values()].some((child) => this.isThrough(child)))
  }

  private isBroken(node: Node): boolean {
    return node.type === "broken" || (node.type === "dir" && [...node.children.values()].some((child) => this.isBroken(child)))
  }

  private put(parent: Folder, name: string, node: Node): void {
    parent.children.set(name, node)
    const names = this.written.get(parent)
    if (names === undefined) this.written.set(parent, new Set([name]))
    else names.add(name)
  }

  /** What the segments lead to, symlinks followed as if the root were `/`; with `make` missing folders are made. */
  private find(segments: ReadonlyArray<string>, make = false): Node | undefined {
    const pending = [...segments].reverse()
    const above: Array<Folder> = [this.root]
    let hops = 0
    this.own = true
    for (let segment = pending.pop(); segment !== undefined; segment = pending.pop()) {
      if (segment === ".") continue
      if (segment === "..") {
        if (above.length > 1) above.pop()
        continue
      }
      const here = above.at(-1) ?? this.root
      let child = here.children.get(segment)
      if (child === undefined) {
        if (!make) return undefined
        this.put(here, segment, child = folder())
      }
      if (child.type !== "dir") {
        if (this.linkedSymlinks.has(child)) throw new ModelUndefined()
        if (!this.own && this.isWritten(here, segment)) throw new ModelUndefined()
        this.own &&= this.isWritten(here, segment)
      } else if (!this.own) this.through.add(child)
      if (child.type === "file" || child.type === "broken") return child
      if (child.type === "symlink") {
        if (++hops > 40) {
          if (make) throw this.own ? new ModelRefused() : new ModelUndefined()
          this.doubtful = true
          return undefined
        }
        if (!this.own) this.through.add(child)
        if (child.to.startsWith("/")) above.length = 1
        pending.push(...split(child.to).reverse())
      } else above.push(child)
    }
    return above.at(-1)
  }

  /** A whiteout takes what lower layers brought and leaves what this one did. */
  private hide(parent: Folder, name: string): void {
    const node = parent.children.get(name)
    if (node === undefined) return
    if (node.type === "dir") for (const child of node.children.keys()) this.hide(node, child)
    // A folder that stays for what this layer has in it is a new one.
    if (node.type === "dir" && !this.declared.has(node)) Object.assign(node, { mode: 0o755, mtime: 0n })
    if (!this.isWritten(parent, name) && (node.type !== "dir" || node.children.size === 0)) parent.children.delete(name)
  }
}

const stamp = ({ mtime: [seconds, nanos] = [1, 0] }: Item) => BigInt(seconds) * 1_000_000_000n + BigInt(nanos)
