import type { Metadata } from "../apply/Attributes.ts"
import * as Name from "../tree/Name.ts"

interface Node {
  metadata: Metadata | undefined
  readonly children: Map<string, Node>
}

/**
 * What folders of a root file system will get in the end, kept as a tree: a folder that is removed takes what is below it
 * along, however many folders there are.
 */
export class FolderTree {
  private readonly root: Node = { metadata: undefined, children: new Map() }

  /** What the folder `name` will get, if that is known. */
  get(name: Name.Name): Metadata | undefined {
    let node: Node | undefined = this.root
    for (const segment of segments(name)) {
      node = node?.children.get(segment)
      if (node === undefined) return undefined
    }
    return node.metadata
  }

  /** The folder `name` will get this. */
  set(name: Name.Name, metadata: Metadata): void {
    let node = this.root
    for (const segment of segments(name)) {
      let child = node.children.get(segment)
      if (child === undefined) node.children.set(segment, child = { metadata: undefined, children: new Map() })
      node = child
    }
    node.metadata = metadata
  }

  /** `name`, which is not the root, is gone, with all below it. */
  delete(name: Name.Name): void {
    let node: Node | undefined = this.root
    for (const segment of segments(Name.parent(name))) {
      node = node.children.get(segment)
      if (node === undefined) return
    }
    node.children.delete(Name.last(name))
  }

  /** All that is known, each folder before the one it is in. */
  *deepestFirst(): Generator<readonly [Name.Name, Metadata]> {
    const levels = [{ name: "", node: this.root, rest: this.root.children.entries() }]
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.rest.next()
      if (next.done === true) {
        levels.pop()
        if (level.node.metadata !== undefined) yield [level.name, level.node.metadata]
      } else {
        const [segment, node] = next.value
        levels.push({ name: Name.join(level.name, segment), node, rest: node.children.entries() })
      }
    }
  }
}

const segments = (name: Name.Name): ReadonlyArray<string> => name === "" ? [] : name.split("/")
