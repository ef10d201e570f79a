import { closeSync, constants, openSync, readFileSync } from "node:fs"
import type * as Name from "./Name.ts"
import { codeOf, type SystemPath } from "../Syscalls.ts"

/** An open folder inside a root. Its handle may be closed by any later call of its root: use it at once or `pin` it. */
export interface Folder {
  /** An O_PATH descriptor. */
  readonly fd: number
  /** Where it is: no component of this name is a symlink. */
  readonly name: Name.Name
  /** What comes before a child's name in a system path: `/proc/self/fd/N/`. */
  readonly prefix: string
}

/** To open a folder itself, for its handle only. */
export const handleFlags = 0o10000000 /* O_PATH */ | constants.O_DIRECTORY | constants.O_NOFOLLOW

// eslint-disable-next-line no-control-regex -- the ASCII range is what is meant
const ascii = /^[\u0001-\u007f]*$/

/** The system path of a name after a folder's prefix. */
export const at = (prefix: string, segment: string): SystemPath =>
  ascii.test(segment) ? prefix + segment : Buffer.from(prefix + segment, "latin1")

// A name after it is nowhere, and above all not in the working directory.
const nowhere = "/proc/self/fd/-1/"
const maxLinks = 4096

/** A folder as far as it is known: it has a handle, or one of those below it has. */
export class Node implements Folder {
  readonly name: Name.Name
  readonly segment: string
  readonly parent: Node | undefined
  /** Known folders in it. Most have none, nor links. */
  children: Map<string, Node> | undefined
  /** Known symlinks in it and where they lead. */
  links: Map<string, string> | undefined
  readonly depth: number
  fd = -1
  prefix = nowhere

  constructor(parent: Node | undefined, segment: string, name: Name.Name) {
    this.depth = parent === undefined ? 0 : parent.depth + 1
    this.parent = parent
    this.segment = segment
    this.name = name
  }
}

/** Is told of folders whose handle was opened, and of those whose handle is given up while it is still open, to make room. */
export interface Watch {
  opened(folder: Folder): void
  leaving(folder: Folder): void
}

/** How many handles a root may keep: a sixteenth of the descriptors this process may have, 64 to 4096. */
const fitting = (): number => {
  const limit = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1]
  return Math.min(4096, Math.max(64, Math.floor(Number(limit ?? 4096) / 16)))
}

/** The handles of a root's folders: opened when needed, the longest unused closed when there are too many. */
export class Handles {
  /** The root itself, always open. */
  readonly top = new Node(undefined, "", "")
  private readonly capacity: number
  private readonly watch: Watch | undefined
  /** The longest unused first. */
  private readonly open = new Set<Node>()
  private pinned: Node | undefined
  private links = 0

  constructor(path: string, { capacity, watch }: { readonly capacity?: number | undefined; readonly watch?: Watch | undefined }) {
    this.capacity = capacity ?? fitting()
    this.watch = watch
    this.opened(this.top, path)
  }

  /** The folder `segment` in `parent`, which must be one or become one before it is opened. */
  child(parent: Node, segment: string, name: Name.Name): Node {
    const children = parent.children ??= new Map()
    let node = children.get(segment)
    if (node === undefined) children.set(segment, node = new Node(parent, segment, name))
    return node
  }

  /** Remembers where a symlink leads. */
  keepLink(parent: Node, segment: string, target: string): void {
    if (this.links >= maxLinks) return
    this.links++
    parent.links ??= new Map()
    parent.links.set(segment, target)
  }

  /** The folder with its handle open. */
  handle(node: Node): Node {
    if (node.fd >= 0) {
      if (this.open.delete(node)) this.open.add(node)
      return node
    }
    const closed = [node]
    let above = node.parent ?? this.top
    for (; above.fd < 0 && above.parent !== undefined; above = above.parent) closed.push(above)
    for (let next = closed.pop(); next !== undefined; next = closed.pop()) {
      this.openIn(above, next)
      above = next
    }
    return node
  }

  private openIn(parent: Node, node: Node): void {
    try {
      this.withRoom(parent, () => this.opened(node, at(parent.prefix, node.segment)))
    } catch (error) {
      this.prune(node)
      throw error
    }
    this.open.add(node)
    this.watch?.opened(node)
    if (this.open.size > this.capacity) this.closeOldest(node, parent)
  }

  /** Runs `open`, once more with the other handles closed if there were no descriptors left. */
  withRoom<A>(needed: Folder, open: () => A): A {
    try {
      return open()
    } catch (error) {
      const code = codeOf(error)
      if (code !== "EMFILE" && code !== "ENFILE") throw error
    }
    for (const node of this.open) if (node !== needed && node !== this.pinned) this.drop(node)
    return open()
  }

  pin(node: Node | undefined): void {
    const before = this.pinned
    this.pinned = node
    if (before !== undefined && before !== node && before !== this.top && !this.open.has(before)) this.shut(before)
  }

  /** What is known of `name` and below it is so no more. */
  forget(name: Name.Name): void {
    const segments = name.split("/")
    const last = segments.pop() ?? ""
    let parent: Node | undefined = this.top
    for (const segment of segments) parent = parent?.children?.get(segment)
    if (parent?.links?.delete(last) === true) this.links--
    const node = parent?.children?.get(last)
    if (parent === undefined || node === undefined) return
    parent.children?.delete(last)
    const gone = [node]
    for (let one = gone.pop(); one !== undefined; one = gone.pop()) {
      this.loseLinks(one)
      for (const below of one.children?.values() ?? []) gone.push(below)
      one.children = undefined
      if (this.open.delete(one) && one !== this.pinned) this.shut(one)
    }
    this.prune(parent)
  }

  close(): void {
    this.pin(undefined)
    for (const node of this.open) this.shut(node)
    this.open.clear()
    this.shut(this.top)
  }

  private opened(node: Node, path: SystemPath): void {
    node.fd = openSync(path, handleFlags)
    node.prefix = `/proc/self/fd/${node.fd}/`
  }

  private shut(node: Node): void {
    const { fd } = node
    node.fd = -1
    node.prefix = nowhere
    if (fd >= 0) closeSync(fd)
  }

  private drop(node: Node): void {
    this.watch?.leaving(node)
    this.open.delete(node)
    this.shut(node)
    this.prune(node)
  }

  private closeOldest(...keep: ReadonlyArray<Node>): void {
    for (const node of this.open) {
      if (node === this.pinned || keep.includes(node)) continue
      this.drop(node)
      return
    }
  }

  /** Takes a folder without handles in and below it out of the tree, and those above it that are then like it. */
  private prune(node: Node): void {
    for (let one: Node | undefined = node; one !== undefined; one = one.parent) {
      const siblings: Map<string, Node> | undefined = one.parent?.children
      if (one.fd >= 0 || (one.children !== undefined && one.children.size > 0) || siblings?.get(one.segment) !== one) return
      siblings.delete(one.segment)
      this.loseLinks(one)
    }
  }

  private loseLinks(node: Node): void {
    this.links -= node.links?.size ?? 0
    node.links = undefined
  }
}
