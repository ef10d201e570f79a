import { Buffer } from "node:buffer"
import type { Metadata } from "./Attributes.ts"
import { type Room, Table } from "../table/Table.ts"
import type { Name } from "../tree/Name.ts"

/** A folder as a table keeps it: its name, the bits it was made with, then mode, owner and group, time; attributes as text of their bytes. */
type Line = readonly [name: Name, born: number, mode: number, uid: number, gid: number, seconds: number, nanos: number, xattrs: ReadonlyArray<readonly [name: string, value: string]>]

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

  /** A folder was made, with these permission bits: it comes after those that were made before. */
  add(name: Name, metadata: Metadata, born: number): void {
    this.delete(name)
    this.slots.set(name, this.made)
    this.put(this.made++, name, metadata, born)
  }

  /** The folder at `name`, which was added, will get this. */
  update(name: Name, metadata: Metadata): void {
    const slot = this.slots.get(name)
    const born = slot === undefined ? undefined : this.lines.get(String(slot))?.[1]
    if (slot !== undefined && born !== undefined) this.put(slot, name, metadata, born)
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
  *youngestFirst(): Generator<readonly [name: Name, metadata: Metadata, born: number]> {
    for (let slot = this.made - 1; slot >= 0; slot--) {
      const line = this.lines.get(String(slot))
      if (line === undefined) continue
      const [name, born, mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs] = line
      yield [name, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs: xattrs.map(([key, value]) => [Buffer.from(key, "latin1"), Buffer.from(value, "latin1")]) }, born]
    }
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.slots.close()
    this.lines.close()
  }

  private put(slot: number, name: Name, { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs }: Metadata, born: number): void {
    const weight = 100 + name.length + xattrs.reduce((sum, [key, value]) => sum + key.byteLength + value.byteLength + 100, 0)
    this.lines.set(String(slot), [name, born, mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs.map(([key, value]) => [key.toString("latin1"), value.toString("latin1")])], weight)
  }
}
