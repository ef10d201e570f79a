import { Buffer } from "node:buffer"
import { readSync, writeSync } from "node:fs"
import { relocate } from "../Syscalls.ts"
import { type Room, Table } from "../table/Table.ts"
import type * as Name from "../tree/Name.ts"
import { entryOf, type Facts, type ViewEntry } from "./Facts.ts"
import type { Named } from "./Tree.ts"

/** Where a list of names is: its first bytes in a file, as far as they are too much for memory, the others here. */
export interface Written {
  readonly flushed: number
  readonly rest: Uint8Array
  /** Which part of it is asked for: bytes, and how many names. */
  readonly from: number
  readonly to: number
  readonly names: number
  /** The most characters of a size (of a device its numbers), and of `uid:gid`, in that part. */
  readonly widths: { readonly size: number; readonly owner: number }
}

/** Thrown where a file is needed and there is none. */
export class NoFile extends Error {}

const roomy = 4 * 2 ** 20
const pieceSize = 16 * 1024

/** A size as it is shown: of a device its numbers. */
export const sizeOf = ({ size, target, type }: Pick<ViewEntry, "size" | "target" | "type">): string => type === "char" || type === "block" ? target : String(size)

/**
 * Writes names and what they are, a line of JSON each, one byte a character. A further name of a file has only where the line of the first
 * is, and how long: a file may have millions of names.
 */
export class NameWriter {
  private readonly into: number | undefined
  private readonly folder: string
  /** Where the first name of each file with several is. */
  private readonly firsts: Table<readonly [at: number, length: number]>
  private readonly buffer: Buffer
  private readonly under: Name.Name
  private flushed = 0
  private held = 0
  private from = 0
  private to = 0
  private names = 0
  private size = 0
  private owner = 0

  /** `into`: an empty file, in the room's folder, for what is more than so many bytes (4 MiB); `under`: the name that is asked for, and all in it. */
  constructor(into: number | undefined, room: Room, under: Name.Name = "", capacity = roomy) {
    this.into = into
    this.folder = room.folder
    this.under = under
    this.firsts = new Table(room)
    this.buffer = Buffer.allocUnsafeSlow(capacity)
  }

  add({ facts, name, node }: Named): void {
    const at = this.flushed + this.held
    const first = node === undefined ? undefined : this.firsts.get(String(node))
    const line = `${JSON.stringify(first === undefined ? [name, facts] : [name, ...first])}\n`
    if (node !== undefined && first === undefined) this.firsts.set(String(node), [at, line.length], 100)
    this.write(line)
    if (this.under !== "" && name !== this.under && !name.startsWith(`${this.under}/`)) return
    if (this.names++ === 0) this.from = at
    this.to = this.flushed + this.held
    const [type, , uid, gid, size, , , target] = facts
    this.size = Math.max(this.size, sizeOf({ type, size, target }).length)
    this.owner = Math.max(this.owner, digits(uid) + digits(gid) + 1)
  }

  end(): Written {
    const { flushed, from, held, names, owner, size, to } = this
    return { flushed, rest: Uint8Array.from(this.buffer.subarray(0, held)), from, to, names, widths: { size, owner } }
  }

  /** Forgets what is kept of names; may be called again. */
  close(): void { this.firsts.close() }

  private write(line: string): void {
    if (this.held + line.length > this.buffer.byteLength) this.flush()
    if (line.length > this.buffer.byteLength) this.put(Buffer.from(line, "latin1"))
    else this.held += this.buffer.write(line, this.held, "latin1")
  }

  private flush(): void {
    const { held } = this
    this.held = 0
    this.put(this.buffer.subarray(0, held))
  }

  private put(bytes: Buffer): void {
    if (this.into === undefined) throw new NoFile("there is no file for so many names")
    try {
      for (let at = 0; at < bytes.byteLength;) at += writeSync(this.into, bytes, at, bytes.byteLength - at, this.flushed + at)
    } catch (error) {
      throw relocate(error, this.folder)
    }
    this.flushed += bytes.byteLength
  }
}

const digits = (id: number): number => id < 10 ? 1 : String(id).length

/** Reads what a `NameWriter` wrote, or the part that was asked for, piece by piece. Throws Node's errors. */
export class NameReader {
  private readonly fd: number | undefined
  private readonly written: Written
  private readonly piece = Buffer.allocUnsafeSlow(pieceSize)
  private at: number
  private rest = ""
  /** Where the first name of the file is that came last, and what that is. */
  private last: { readonly at: number; readonly entry: ViewEntry } | undefined

  constructor(fd: number | undefined, written: Written) {
    this.fd = fd
    this.written = written
    this.at = written.from
  }

  /** The next names; undefined after the last. */
  next(): ReadonlyArray<ViewEntry> | undefined {
    for (;;) {
      const size = Math.min(pieceSize, this.written.to - this.at)
      if (size === 0) return undefined
      const text = this.read(this.at, size)
      this.at += size
      const lines = (this.rest + text).split("\n")
      this.rest = lines.pop() ?? ""
      if (lines.length > 0) return lines.map((line) => this.entry(line))
    }
  }

  private entry(line: string): ViewEntry {
    const said: readonly [Name.Name, Facts] | readonly [Name.Name, number, number] = JSON.parse(line)
    if (said.length === 2) return entryOf(...said)
    const [name, at, length] = said
    const { entry } = this.last?.at === at ? this.last : this.last = { at, entry: this.entry(this.read(at, length)) }
    return { ...entry, name, link: entry.name }
  }

  private read(at: number, length: number): string {
    const { flushed, rest } = this.written
    let text = ""
    for (let have = 0; have < length;) {
      const from = at + have
      if (from >= flushed || this.fd === undefined) return text + Buffer.from(rest.buffer, rest.byteOffset + from - flushed, length - have).toString("latin1")
      const read = readSync(this.fd, this.piece, 0, Math.min(pieceSize, length - have, flushed - from), from)
      if (read === 0) throw new Error(`the list of names ended at ${from} of ${flushed} bytes`)
      text += this.piece.toString("latin1", 0, read)
      have += read
    }
    return text
  }
}
