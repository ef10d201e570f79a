import type { Entry } from "../layer/tar/Entry.ts"
import { Refused } from "../layer/Fault.ts"
import { TarReader, type TarLimits } from "../layer/tar/Tar.ts"
import { readSync } from "node:fs"
import { ArchiveFile } from "./ArchiveFile.ts"
import { ArchiveRefused } from "./Fault.ts"
import { type Name, partsOf, textOf, type Tree } from "./Tree.ts"

/**
 * What an image archive may hold: 100,000 entries, 1 MiB an extended header, names and link targets of 4095 bytes, 16 MiB of
 * them in all, 32 folders deep, 100,000 folders that no entry is of; any size.
 */
export const limits: TarLimits & { readonly names: number } = {
  entries: 100_000, bytes: Number.MAX_SAFE_INTEGER, record: 2 ** 20, path: 4095, names: 2 ** 24, depth: 32
}

/** Links are followed so often, as the kernel does. */
const hops = 40

type Node =
  | { readonly is: "folder"; readonly children: Map<string, Node> }
  | { readonly is: "file"; readonly file: ArchiveFile }
  | { readonly is: "symlink"; readonly target: Name; readonly name: string }
  | { readonly is: "other"; readonly name: string; readonly rule: string }

const blockSize = 512
const windowSize = 64 * 1024

/**
 * The entries of a tar file by name, found by reading its headers and seeking over its data; it is never unpacked. Names are
 * relative to the top, links are resolved in memory and lead nowhere else, of two entries of one name the last counts.
 * `step` reads on; it throws `ArchiveRefused` and Node's errors. After it gave true the index is a `Tree`.
 */
export class TarIndex implements Tree {
  readonly archive: string
  private readonly fd: number
  private readonly size: number
  private readonly top: Extract<Node, { is: "folder" }> = { is: "folder", children: new Map() }
  private readonly reader: TarReader
  private readonly window = Buffer.allocUnsafe(windowSize)
  private windowAt = 0
  private windowEnd = 0
  private at = 0
  private entry: Entry | undefined
  private named = 0
  private implied = 0

  constructor(archive: string, fd: number, size: number) {
    this.archive = archive
    this.fd = fd
    this.size = size
    this.reader = new TarReader({ entry: (entry) => { this.entry = entry }, data: () => {}, end: () => {} }, { ...limits, depth: limits.path })
  }

  /** Reads `count` blocks more; true once the archive has ended. */
  step(count: number): boolean {
    try {
      for (let n = 0; n < count; n++) if (this.next()) return true
      return false
    } catch (error) {
      if (error instanceof Refused) throw new ArchiveRefused({ archive: this.archive, entry: error.entry ?? "", rule: error.rule })
      throw error
    }
  }

  get isEmpty(): boolean { return this.top.children.size === 0 }

  get folders(): ReadonlyArray<Name> {
    return [...this.top.children].filter(([, node]) => node.is === "folder").map(([name]) => name).sort((a, b) => a < b ? -1 : 1)
  }

  find(name: Name): ArchiveFile | undefined {
    const node = this.resolve(name)
    switch (node?.is) {
      case "file": return node.file
      case "other": throw this.refuse(node.name, node.rule)
      default: return undefined
    }
  }

  private next(): boolean {
    if (this.at >= this.size) {
      this.reader.end()
      return true
    }
    const block = this.block()
    const at = this.at
    this.reader.write(block)
    this.at = at + block.byteLength
    if (this.reader.ended) return true
    const { entry } = this
    if (entry === undefined) return false
    this.entry = undefined
    const skipped = this.reader.skip()
    if (this.at + skipped > this.size) throw new Refused("the archive is truncated in its data", entry.path)
    this.add(entry, this.at)
    this.at += skipped
    return false
  }

  private block(): Buffer {
    if (this.at < this.windowAt || this.at + blockSize > this.windowEnd) {
      this.windowAt = this.at
      this.windowEnd = this.at
      const wanted = Math.min(windowSize, this.size - this.at)
      while (this.windowEnd - this.windowAt < Math.min(blockSize, wanted)) {
        const had = this.windowEnd - this.windowAt
        const read = readSync(this.fd, this.window, had, wanted - had, this.windowEnd)
        if (read === 0) throw new Refused("the archive became shorter while it was read")
        this.windowEnd += read
      }
    }
    const from = this.at - this.windowAt
    return this.window.subarray(from, Math.min(from + blockSize, this.windowEnd - this.windowAt))
  }

  private add(entry: Entry, offset: number): void {
    const name = entry.path.toString("latin1")
    const shown = textOf(name)
    const parts = partsOf(name)
    this.named += name.length + entry.linkpath.byteLength
    if (this.named > limits.names) throw this.refuse(shown, `the names of the archive's entries have more than ${limits.names} bytes`)
    if (parts === undefined) throw this.refuse(shown, "its name leads outside: it has a part `..`")
    if (parts.length > limits.depth) throw this.refuse(shown, `it is more than ${limits.depth} folders deep`)
    const last = parts.at(-1)
    if (last === undefined) return // the top itself
    const folder = this.enter(parts.slice(0, -1), shown)
    const there = folder.children.get(last)
    if (entry.type !== "dir") folder.children.set(last, this.node(entry, shown, offset))
    else if (there?.is !== "folder") folder.children.set(last, { is: "folder", children: new Map() })
  }

  private node(entry: Entry, name: string, offset: number): Node {
    switch (entry.type) {
      case "file": return entry.sparse === undefined
        ? { is: "file", file: new ArchiveFile(this.archive, name, entry.size, { fd: this.fd, offset }) }
        : { is: "other", name, rule: "it is a sparse file: only layers may hold such" }
      case "symlink": return { is: "symlink", target: entry.linkpath.toString("latin1"), name }
      // A hard link is to what has the name now, whatever gets it later.
      case "link": return this.linked(entry.linkpath.toString("latin1"), name)
      default: return { is: "other", name, rule: `it is no file but a ${entry.type}` }
    }
  }

  private linked(target: Name, name: string): Node {
    const parts = partsOf(target)
    if (parts === undefined) throw this.refuse(name, "it links to a name outside: it has a part `..`")
    let node: Node | undefined = this.top
    for (const part of parts) node = node?.is === "folder" ? node.children.get(part) : undefined
    return node === undefined || node.is === "folder" ? { is: "other", name, rule: `it links to ${textOf(target)}, which is no file before it` } : node
  }

  /** The folder of these parts, made where it is only implied. */
  private enter(parts: ReadonlyArray<string>, entry: string) {
    let folder = this.top
    for (const part of parts) {
      const known = folder.children.get(part)
      if (known === undefined && ++this.implied > limits.entries) throw this.refuse(entry, `the names of the archive's entries imply more than ${limits.entries} folders`)
      const there = known ?? { is: "folder", children: new Map<string, Node>() }
      if (there.is !== "folder") throw this.refuse(entry, `its name leads through ${textOf(part)}, which is no folder`)
      folder.children.set(part, there)
      folder = there
    }
    return folder
  }

  /** What has the name, symbolic links followed as far as they stay in the archive. */
  private resolve(name: Name): Node | undefined {
    const first = partsOf(name)
    if (first === undefined) throw this.refuse(textOf(name), "it names something outside: it has a part `..`")
    const left = [...first].reverse()
    const path: Array<Extract<Node, { is: "folder" }>> = [this.top]
    for (let followed = 0; left.length > 0;) {
      const part = left.pop() ?? ""
      if (part === "..") {
        path.pop()
        if (path.length === 0) throw this.refuse(textOf(name), "a symbolic link of it leads outside")
        continue
      }
      const node = path.at(-1)?.children.get(part)
      if (node?.is === "folder") path.push(node)
      else if (node?.is === "symlink") {
        if (node.target.startsWith("/")) throw this.refuse(node.name, `it is a symbolic link to an absolute name: ${textOf(node.target)}`)
        if (++followed > hops) throw this.refuse(node.name, `more than ${hops} symbolic links follow each other`)
        left.push(...node.target.split("/").filter((part) => part !== "" && part !== ".").reverse())
        if (left.length > limits.path) throw this.refuse(node.name, "its symbolic links make a name that is too long")
      } else return left.length === 0 ? node : undefined
    }
    return path.at(-1)
  }

  private refuse(entry: string, rule: string): ArchiveRefused {
    return new ArchiveRefused({ archive: this.archive, entry, rule })
  }
}
