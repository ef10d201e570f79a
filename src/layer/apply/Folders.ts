import { type Metadata, unknownMode } from "./Attributes.ts"
import type { Name } from "../tree/Name.ts"

const perSlot = 7
const [waiting, settled, reopened] = [0, 1, 2]
const perChunk = 4096

/**
 * What the folders of a layer will get once everything is in them. There may be millions, so their numbers are kept in
 * plain arrays, about 140 bytes a folder with its name.
 */
export class Folders {
  private readonly slots = new Map<Name, number>()
  private readonly names: Array<Name> = []
  private readonly chunks: Array<Float64Array> = []
  private readonly xattrs = new Map<number, Metadata["xattrs"]>()
  /** Whether any is settled. */
  private early = false

  /** A folder was made, with these permission bits: it comes after those that were made before. */
  add(name: Name, metadata: Metadata, born: number): void {
    this.delete(name)
    const slot = this.names.length
    this.names.push(name)
    this.slots.set(name, slot)
    this.put(slot, metadata, born)
  }

  /** The folder at `name`, which was added, will get this. */
  update(name: Name, metadata: Metadata): void {
    const slot = this.slots.get(name)
    if (slot === undefined) return
    this.put(slot, metadata)
    this.unsettle(slot)
  }

  /** Whether there is one. */
  has(name: Name): boolean {
    return this.slots.has(name)
  }

  /** What the folder at `name` will get and its permission bits, unless it got it once. */
  pending(name: Name): readonly [metadata: Metadata, born: number] | undefined {
    const slot = this.slots.get(name)
    return slot === undefined || this.chunk(slot)[at(slot) + 6] !== waiting ? undefined : [this.get(slot), this.born(slot)]
  }

  /** It got what `pending` said, before the others. */
  settle(name: Name): void {
    const slot = this.slots.get(name)
    if (slot === undefined) return
    this.chunk(slot)[at(slot) + 6] = settled
    this.early = true
  }

  /** Something may come into it: what it got before that does not count. */
  reopen(name: Name): void {
    const slot = this.early ? this.slots.get(name) : undefined
    if (slot !== undefined) this.unsettle(slot)
  }

  /** It is gone. */
  delete(name: Name): void {
    const slot = this.slots.get(name)
    if (slot === undefined) return
    this.slots.delete(name)
    this.xattrs.delete(slot)
  }

  /** Those that wait for what they will get, the latest made first, so that each comes before the one it is in. */
  *youngestFirst(): Generator<readonly [name: Name, metadata: Metadata, born: number]> {
    for (let slot = this.names.length - 1; slot >= 0; slot--) {
      const name = this.names[slot]
      if (name === undefined || this.slots.get(name) !== slot || this.chunk(slot)[at(slot) + 6] === settled) continue
      yield [name, this.get(slot), this.born(slot)]
    }
  }

  private put(slot: number, metadata: Metadata, born?: number): void {
    const chunk = this.chunk(slot)
    const from = at(slot)
    const { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs } = metadata
    chunk[from] = mode
    chunk[from + 1] = uid
    chunk[from + 2] = gid
    chunk[from + 3] = mtimeSeconds
    chunk[from + 4] = mtimeNanos
    if (born !== undefined) chunk[from + 5] = born
    if (xattrs.length > 0) this.xattrs.set(slot, xattrs)
    else this.xattrs.delete(slot)
  }

  private get(slot: number): Metadata {
    const chunk = this.chunk(slot)
    const from = at(slot)
    return {
      mode: chunk[from] ?? 0, uid: chunk[from + 1] ?? 0, gid: chunk[from + 2] ?? 0, mtimeSeconds: chunk[from + 3] ?? 0, mtimeNanos: chunk[from + 4] ?? 0,
      xattrs: this.xattrs.get(slot) ?? []
    }
  }

  private born(slot: number): number {
    return this.chunk(slot)[at(slot) + 5] ?? unknownMode
  }

  private unsettle(slot: number): void {
    const chunk = this.chunk(slot)
    if (chunk[at(slot) + 6] === settled) chunk[at(slot) + 6] = reopened
  }

  private chunk(slot: number): Float64Array {
    return this.chunks[Math.floor(slot / perChunk)] ??= new Float64Array(perSlot * perChunk)
  }
}

const at = (slot: number) => (slot % perChunk) * perSlot
