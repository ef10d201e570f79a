import * as Name from "../tree/Name.ts"

interface Node<A> {
  value: A | undefined
  readonly children: Map<string, Node<A>>
}

/**
 * What is known of names of a root file system, kept as a tree: a folder that is removed takes what is below it along,
 * however much that is.
 */
export class NameTree<A> {
  private readonly root: Node<A> = { value: undefined, children: new Map() }

  /** What is known of `name`. */
  get(name: Name.Name): A | undefined {
    return this.find(name)?.value
  }

  /** This is known of `name`. */
  set(name: Name.Name, value: A): void {
    let node = this.root
    for (const segment of segments(name)) {
      let child = node.children.get(segment)
      if (child === undefined) node.children.set(segment, child = { value: undefined, children: new Map() })
      node = child
    }
    node.value = value
  }

  /** `name`, which is not the root, is gone, with all below it. */
  delete(name: Name.Name): void {
    this.find(Name.parent(name))?.children.delete(Name.last(name))
  }

  /** All below `name` is gone. */
  clear(name: Name.Name): void {
    this.find(name)?.children.clear()
  }

  /** What is known of names in the folder `name`. */
  *in(name: Name.Name): Generator<readonly [segment: string, value: A]> {
    for (const [segment, { value }] of this.find(name)?.children ?? []) if (value !== undefined) yield [segment, value]
  }

  /** All that is known, each name before the folder it is in. */
  *deepestFirst(): Generator<readonly [Name.Name, A]> {
    const levels = [{ name: "", node: this.root, rest: this.root.children.entries() }]
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.rest.next()
      if (next.done === true) {
        levels.pop()
        if (level.node.value !== undefined) yield [level.name, level.node.value]
      } else {
        const [segment, node] = next.value
        levels.push({ name: Name.join(level.name, segment), node, rest: node.children.entries() })
      }
    }
  }

  private find(name: Name.Name): Node<A> | undefined {
    let node: Node<A> | undefined = this.root
    for (const segment of segments(name)) {
      node = node.children.get(segment)
      if (node === undefined) return undefined
    }
    return node
  }
}

const segments = (name: Name.Name): ReadonlyArray<string> => name === "" ? [] : name.split("/")
