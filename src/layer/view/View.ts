import { createHash, type Hash } from "node:crypto"
import { Refused } from "../Fault.ts"
import { Sequence } from "../table/Sequence.ts"
import { type Room, Table } from "../table/Table.ts"
import type { Entry, EntrySink } from "../tar/Entry.ts"
import { opaque, pseudoLink, reserved, whiteout } from "../tree/Markers.ts"
import * as Name from "../tree/Name.ts"
import { type Facts, factsOf, summed, type ViewEntry } from "./Facts.ts"
import { type Named, Tree } from "./Tree.ts"

/** A file whose content comes. */
interface Coming {
  readonly facts: Facts
  readonly put: (facts: Facts) => void
  readonly hash: Hash | undefined
  readonly size: number
  filled: number
}

const zeros = Buffer.alloc(64 * 1024)

/**
 * A root file system: layers' tars are read into it one after the other, lowest first, as applying them would do it (image-spec,
 * layer.md#applying-changesets), but for what files hold. There may be millions of names and links: `room` is what they may take in
 * memory.
 */
export class View implements EntrySink {
  private readonly hashing: boolean
  private readonly tree: Tree
  /** What aufs kept for hard links of this layer. */
  private readonly kept: Table<number>
  /** Hard links whose target has not come yet, and what they are called in the tar. */
  private readonly pending: Sequence<readonly [name: Name.Name, target: Name.Name, path: string]>
  /** Hard links of this layer whose target is, or was, in a layer below, and the file, -1 for a folder. */
  private readonly held: Sequence<readonly [path: Name.Name, target: Name.Name, node?: number]>
  private count = 0
  private file: Coming | undefined

  constructor(room: Room, options: { readonly hash: boolean }) {
    this.hashing = options.hash
    this.tree = new Tree(room)
    this.kept = new Table(room)
    this.pending = new Sequence(room)
    this.held = new Sequence(room)
  }

  /** The next layer's entries come. */
  begin(): void {
    this.tree.layer++
    this.kept.close()
    this.count = 0
  }

  entry(entry: Entry): void {
    this.count++
    const name = Name.clean(entry.path)
    if (name === "") {
      if (entry.type !== "dir") throw new Refused("the root can only be a folder", entry.path)
      this.tree.rootFacts = this.facts(entry, "")
      return
    }
    if (name.includes(whiteout)) {
      const last = Name.last(name)
      if (entry.type === "file" && pseudoLink.test(name)) return this.keep(name, entry)
      if (reserved.test(name) && !(last === opaque && !reserved.test(Name.parent(name)))) return
      if (last.startsWith(whiteout)) return this.whiteout(Name.parent(name), last)
    }
    if (entry.type === "link") return this.link(name, entry)
    const { tree } = this
    this.enter(name, entry.path)
    const segment = Name.last(name)
    const facts = this.facts(entry, tree.isStraight ? null : name)
    if (entry.type === "dir") tree.putFolder(segment, facts)
    else if (entry.type === "file") this.take(facts, (facts) => tree.putLeaf(segment, facts))
    else tree.putLeaf(segment, facts)
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
    if (file?.hash !== undefined) fill(file.hash, file.size - file.filled)
    this.known(file?.hash?.digest("hex"))
  }

  /** The file that came last has this digest, if that is known: its content does not come. */
  known(sha256: string | undefined): void {
    const file = this.file
    this.file = undefined
    file?.put(sha256 === undefined ? file.facts : summed(file.facts, sha256))
  }

  /** A hard link of the coming layer may lead to what is in those below: it is found while that is there. */
  hold(path: Name.Name, target: Name.Name): void {
    const node = this.tree.shareAt(target)
    this.held.add(node === undefined ? [path, target] : [path, target, node], 100 + path.length + target.length)
  }

  /** Hides what is below the layer at a name, or all in a folder, wherever in the layer that came. */
  hide(path: Name.Name, all: boolean): void {
    if (all) this.whiteout(path, opaque)
    else this.whiteout(Name.parent(path), `${whiteout}${Name.last(path)}`)
  }

  /** All entries of the layer have come: held links get their names, then those whose target came after them. */
  finish(): void {
    for (const [path, target, node] of this.held) this.putName(path, Name.bytes(path), node ?? this.tree.shareAt(target))
    this.held.close()
    for (const [name, target, path] of this.pending) this.putName(name, Name.bytes(path), this.tree.shareAt(target))
    this.pending.close()
  }

  /** See `Tree.lookUp`. */
  lookUp(path: Name.Name): ViewEntry | undefined { return this.tree.lookUp(path) }

  /** See `Tree.names`. */
  names(stop?: () => void): Generator<Named> { return this.tree.names(stop) }

  /** Forgets everything; may be called again. */
  close(): void {
    this.tree.close()
    for (const some of [this.kept, this.pending, this.held]) some.close()
  }

  private facts(entry: Entry, source: Name.Name | null): Facts {
    return factsOf(entry, this.tree.layer, this.count, source)
  }

  private take(facts: Facts, put: (facts: Facts) => void): void {
    this.file = { facts, put, hash: this.hashing ? createHash("sha256") : undefined, size: facts[4], filled: 0 }
  }

  /** What aufs kept for hard links of this layer. */
  private keep(name: Name.Name, entry: Entry): void {
    this.take(this.facts(entry, name), (facts) => this.kept.set(Name.last(name), this.tree.makeNode(facts)))
  }

  private link(name: Name.Name, entry: Entry): void {
    const asked = Name.clean(entry.linkpath)
    const node = (pseudoLink.test(asked) ? this.kept.get(Name.last(asked)) : undefined) ?? this.tree.shareAt(asked)
    if (node !== undefined && node !== -1) this.putName(name, entry.path, node)
    else this.pending.add([name, asked, entry.path.toString("latin1")], 100 + name.length + asked.length + entry.path.byteLength)
  }

  private putName(name: Name.Name, path: Buffer, node: number | undefined): void {
    if (node === undefined || node === -1) throw new Refused("its hard link target is in no layer", path)
    this.enter(name, path)
    this.tree.putName(Name.last(name), node)
  }

  private whiteout(parent: Name.Name, last: string): void {
    if (!this.tree.walk(parent)) return
    if (last === opaque) this.tree.hideAll()
    else this.tree.hide(last.slice(whiteout.length))
  }

  /** Goes to the folder that a name is in, which is made if it is missing. */
  private enter(name: Name.Name, path: Buffer): void {
    if (!this.tree.walk(Name.parent(name), true)) throw new Refused("a parent is not a folder", path)
  }
}

const fill = (hash: Hash, count: number): void => {
  for (let left = count; left > 0; left -= zeros.byteLength) hash.update(zeros.subarray(0, Math.min(left, zeros.byteLength)))
}
