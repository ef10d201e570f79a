import type { Metadata } from "./Attributes.ts"
import type { Name } from "../tree/Name.ts"

const perSlot = 5
const perChunk = 4096

/**
 * What the folders of a layer will get once everything is in them. There may be millions, so their numbers are kept in
 * plain arrays, about 120 bytes a folder with its name.
 */
export class Folders {
  private readonly slots = new Map<Name, number>()
  private readonly names: Array<Name> = []
  private readonly chunks: Array<Float64Array> = []
  private readonly xattrs = new Map<number, Metadata["xattrs"]>()

  /** A folder was made: it comes after those that were made before. */
  add(name: Name, metadata: Metadata): void {
    this.delete(name)
    const slot = this.names.length
    this.names.push(name)
    this.slots.set(name, slot)
    this.put(slot, metadata)
  }

  /** The folder at `name` has this metadata now. */
  update(name: Name, metadata: Metadata): void {
    const slot = this.slots.get(name)
    if (slot === undefined) this.add(name, metadata)
    else this.put(slot, metadata)
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
    this.xattrs.delete(slot)
  }

  /** The latest made first, so that each comes before the one it is in. */
  *youngestFirst(): Generator<readonly [Name, Metadata]> {
    for (let slot = this.names.length - 1; slot >= 0; slot--) {
      const name = this.names[slot]
      if (name !== undefined && this.slots.get(name) === slot) yield [name, this.get(slot)]
    }
  }

  private put(slot: number, metadata: Metadata): void {
    const index = Math.floor(slot / perChunk)
    const chunk = this.chunks[index] ??= new Float64Array(perSlot * perChunk)
    const { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs } = metadata
    chunk.set([mode, uid, gid, mtimeSeconds, mtimeNanos], (slot % perChunk) * perSlot)
    if (xattrs.length > 0) this.xattrs.set(slot, xattrs)
    else this.xattrs.delete(slot)
  }

  private get(slot: number): Metadata {
    const at = (slot % perChunk) * perSlot
    const [mode = 0, uid = 0, gid = 0, mtimeSeconds = 0, mtimeNanos = 0] = this.chunks[Math.floor(slot / perChunk)]?.subarray(at, at + perSlot) ?? []
    return { mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs: this.xattrs.get(slot) ?? [] }
  }
}
