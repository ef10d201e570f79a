import { type Room, Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"

/** Ends a chain: no name. */
const end: Name.Name = "/"

/** What is known of a name, if anything, and the next name of its folder's chain. */
type Node<P> = readonly [next: Name.Name] | readonly [next: Name.Name, value: P]

/** How a tree keeps its values: as what JSON can say, with about the bytes that takes in memory. */
export interface Packing<A, P> {
  readonly pack: (value: A) => P
  readonly unpack: (packed: P) => A
  readonly weight: (packed: P) => number
}

/** A folder on the way through a tree: the next of the names in it. */
interface Level {
  readonly name: Name.Name
  next: Name.Name | undefined
}

/**
 * What is known of names of a root file system: a folder that is removed takes what is below it along. Each folder has a chain of the
 * names in it that were ever known, or have such names in them: they stay in it until the folder goes.
 */
export class NameTree<A, P = A> {
  private readonly nodes: Table<Node<P>>
  /** The first name of each folder's chain. */
  private readonly firsts: Table<Name.Name>
  private readonly packing: Packing<A, P>

  constructor(room: Room, packing: Packing<A, P>) {
    this.nodes = new Table(room)
    this.firsts = new Table(room)
    this.packing = packing
  }

  /** What is known of `name`. */
  get(name: Name.Name): A | undefined {
    return this.nodes.size === 0 ? undefined : this.valueOf(this.nodes.get(name))
  }

  /** This is known of `name`. */
  set(name: Name.Name, value: A): void {
    const packed = this.packing.pack(value)
    const next = this.nodes.get(name)?.[0] ?? this.link(name)
    this.nodes.set(name, [next, packed], next.length + this.packing.weight(packed))
  }

  /** `name`, which is not the root, is gone, with all below it. */
  delete(name: Name.Name): void {
    if (this.nodes.size === 0) return
    const node = this.nodes.get(name)
    if (node === undefined) return
    if (node.length === 2) this.nodes.set(name, [node[0]])
    this.clear(name)
  }

  /** All below `name` is gone. */
  clear(name: Name.Name): void {
    for (const level of this.levels(name)) {
      if (level.next !== undefined) continue
      this.firsts.delete(level.name)
      if (level.name !== name) this.nodes.delete(level.name)
    }
  }

  /** All that is known of names in the folder `name`, in no order. */
  *in(name: Name.Name): Generator<readonly [segment: string, value: A]> {
    for (let at = this.firsts.get(name) ?? end; at !== end;) {
      const node = this.nodes.get(at)
      const value = this.valueOf(node)
      if (value !== undefined) yield [Name.last(at), value]
      at = node?.[0] ?? end
    }
  }

  /** All that is known, each name before the folder it is in. */
  *deepestFirst(): Generator<readonly [Name.Name, A]> {
    for (const { name, next } of this.levels("")) {
      const value = next === undefined ? this.get(name) : undefined
      if (value !== undefined) yield [name, value]
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.nodes.close()
    this.firsts.close()
  }

  private valueOf(node: Node<P> | undefined): A | undefined {
    return node?.length === 2 ? this.packing.unpack(node[1]) : undefined
  }

  /** Puts a name into its folder's chain, and that folder into its own; what is next to it there. */
  private link(name: Name.Name): Name.Name {
    if (name === "") return end
    const folder = Name.parent(name)
    const next = this.firsts.get(folder) ?? end
    this.firsts.set(folder, name, name.length)
    for (let at = folder; at !== "" && !this.nodes.has(at); at = Name.parent(at)) {
      const above = Name.parent(at)
      const beside = this.firsts.get(above) ?? end
      this.nodes.set(at, [beside], beside.length)
      this.firsts.set(above, at, at.length)
    }
    return next
  }

  /** The names at and below one, each when it is come to, and again, without a next one, once all below it are through. It may be forgotten then. */
  private *levels(top: Name.Name): Generator<Level> {
    const levels: Array<Level> = [{ name: top, next: this.firsts.get(top) }]
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      yield level
      const { next } = level
      if (next === undefined) levels.pop()
      else {
        const beside = this.nodes.get(next)?.[0]
        level.next = beside === end ? undefined : beside
        levels.push({ name: next, next: this.firsts.get(next) })
      }
    }
  }
}
