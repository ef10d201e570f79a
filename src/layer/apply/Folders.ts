import { Buffer } from "node:buffer"
import type { Metadata } from "./Attributes.ts"
import { type Room, Table } from "../table/Table.ts"
import type { Name } from "../tree/Name.ts"

/** A folder as a table keeps it: its name, then mode, owner and group, time; attributes as text of their bytes. */
type Line = readonly [name: Name, mode: number, uid: number, gid: number, seconds: number, nanos: number, xattrs: ReadonlyArray<readonly [name: string, value: string]>]

/** What the folders of a layer will get once everything is in them. There may be millions: `room` is what they may take in memory. */
export class Folders {
  /** Which they are, counted from 0 as they were made; and by that number what they get. */
  private readonly slots: Table<number>
  private readonly lines: Table<Line>
  private made = 0

  constructor(room: Room) {
    this.slots = new Table(room)
    this.lines = new Table(room)
  }

  /** A folder was made: it comes after those that were made before. */
  add(name: Name, metadata: Metadata): void {
    this.delete(name)
    this.slots.set(name, this.made)
    this.put(this.made++, name, metadata)
  }

  /** The folder at `name` has this metadata now. */
  update(name: Name, metadata: Metadata): void {
    const slot = this.slots.get(name)
    if (slot === undefined) this.add(name, metadata)
    else this.put(slot, name, metadata)
  }

  /** Whether there is one. */
  has(name: Name): boolean {
    return this.slots.has(name)
  }

  /** It is gone. */
  delete(name: Name): void {
    const slot = this.slots.get(name)
    if (slot === undefined) return
    this.slots.delete(name)
    this.lines.delete(String(slot))
  }

  /** The latest made first, so that each comes before the one it is in. */
  *youngestFirst(): Generator<readonly [Name, Metadata]> {
    for (let slot = this.made - 1; slot >= 0; slot--) {
      const line = this.lines.get(String(slot))
      if (line === undefined) continue
      const [name, mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs] = line
      yield [name, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs: xattrs.map(([key, value]) => [Buffer.from(key, "latin1"), Buffer.from(value, "latin1")]) }]
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.slots.close()
    this.lines.close()
  }

  private put(slot: number, name: Name, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs }: Metadata): void {
    const weight = 100 + name.length + xattrs.reduce((sum, [key, value]) => sum + key.byteLength + value.byteLength + 100, 0)
    this.lines.set(String(slot), [name, mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs.map(([key, value]) => [key.toString("latin1"), value.toString("latin1")])], weight)
  }
}
