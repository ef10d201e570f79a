import { Buffer } from "node:buffer"
import type { Metadata } from "./Attributes.ts"
import { type Room, Table } from "../table/Table.ts"
import type { Name } from "../tree/Name.ts"

/** Whether a folder waits for what it will get, got it before the others, or was opened again after that. */
const [waiting, settled, reopened] = [0, 1, 2]

/** A folder as a table keeps it: its state, the bits it was made with, its name, mode, owner and group, time; attributes as text of their bytes. */
type Line = [
  state: number, born: number, name: Name, mode: number, uid: number, gid: number, seconds: number, nanos: number,
  xattrs: ReadonlyArray<readonly [name: string, value: string]>
]

const none: Metadata["xattrs"] = []

const metadataOf = ({ 3: mode, 4: uid, 5: gid, 6: mtimeSeconds, 7: mtimeNanos, 8: xattrs }: Readonly<Line>): Metadata =>
  ({ mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs: xattrs.length === 0 ? none : xattrs.map(([key, value]) => [Buffer.from(key, "latin1"), Buffer.from(value, "latin1")]) })

/** What the folders of a layer will get once everything is in them. There may be millions: `room` is what they may take in memory. */
export class Folders {
  /** Which they are, counted from 0 as they were made; and by that number what they get. */
  private readonly slots: Table<number>
  private readonly lines: Table<Line>
  private made = 0
  /** Whether any is settled. */
  private early = false

  constructor(room: Room) {
    this.slots = new Table(room)
    this.lines = new Table(room)
  }

  /** A folder was made, with these permission bits: it comes after those that were made before. */
  add(name: Name, metadata: Metadata, born: number): void {
    this.delete(name)
    this.slots.set(name, this.made)
    this.put(this.made++, name, metadata, born, waiting)
  }

  /** The folder at `name`, which was added, will get this. */
  update(name: Name, metadata: Metadata): void {
    const slot = this.slots.get(name)
    const line = slot === undefined ? undefined : this.lines.get(String(slot))
    if (slot !== undefined && line !== undefined) this.put(slot, name, metadata, line[1], line[0] === waiting ? waiting : reopened)
  }

  /** Whether there is one. */
  has(name: Name): boolean {
    return this.slots.has(name)
  }

  /** What the folder at `name` will get and its permission bits, unless it got it once. */
  pending(name: Name): readonly [metadata: Metadata, born: number] | undefined {
    const slot = this.slots.get(name)
    const line = slot === undefined ? undefined : this.lines.get(String(slot))
    return line === undefined || line[0] !== waiting ? undefined : [metadataOf(line), line[1]]
  }

  /** It got what `pending` said, before the others. */
  settle(name: Name): void {
    this.early = true
    this.mark(name, waiting, settled)
  }

  /** Something may come into it: what it got before that does not count. */
  reopen(name: Name): void {
    if (this.early) this.mark(name, settled, reopened)
  }

  /** It is gone. */
  delete(name: Name): void {
    const slot = this.slots.get(name)
    if (slot === undefined) return
    this.slots.delete(name)
    this.lines.delete(String(slot))
  }

  /** Those that wait for what they will get, the latest made first, so that each comes before the one it is in. */
  *youngestFirst(): Generator<readonly [name: Name, metadata: Metadata, born: number]> {
    for (let slot = this.made - 1; slot >= 0; slot--) {
      const line = this.lines.get(String(slot))
      if (line !== undefined && line[0] !== settled) yield [line[2], metadataOf(line), line[1]]
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.slots.close()
    this.lines.close()
  }

  private mark(name: Name, from: number, to: number): void {
    const slot = this.slots.get(name)
    const line = slot === undefined ? undefined : this.lines.get(String(slot))
    if (line === undefined || line[0] !== from) return
    line[0] = to
    this.lines.set(String(slot), line)
  }

  private put(slot: number, name: Name, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs }: Metadata, born: number, state: number): void {
    const weight = 100 + name.length + xattrs.reduce((sum, [key, value]) => sum + key.byteLength + value.byteLength + 100, 0)
    const kept = xattrs.length === 0 ? [] : xattrs.map(([key, value]) => [key.toString("latin1"), value.toString("latin1")] as const)
    this.lines.set(String(slot), [state, born, name, mode, uid, gid, mtimeSeconds, mtimeNanos, kept], weight)
  }
}
