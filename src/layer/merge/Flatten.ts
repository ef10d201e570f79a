import { Buffer } from "node:buffer"
import { type BigIntStats, closeSync, constants, lstatSync, openSync, readlinkSync } from "node:fs"
import { type Metadata, settable } from "../apply/Attributes.ts"
import type { DeviceType } from "../apply/Meta.ts"
import type { EntryType } from "../tar/Entry.ts"
import { type Outgoing, TarOutput } from "../tar/TarOutput.ts"
import { readInto } from "../Piece.ts"
import { list } from "../table/Listing.ts"
import { Sorted } from "../table/Sorted.ts"
import { Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import type { Place } from "../tree/Root.ts"
import type { Syscalls } from "../Syscalls.ts"
import type { Assembly } from "./Assembly.ts"
import { deviceOf, metadataOf, xattrsOf } from "./Copy.ts"
import { mapped, type OwnerMap } from "./Owners.ts"
import { completed } from "./Packed.ts"

/** How to write an assembled root file system: whose files they are to be, and what is asked for each entry and every 256 KiB. */
export interface FlattenOptions {
  readonly syscalls: Syscalls
  readonly owners?: OwnerMap | undefined
  readonly stop: () => void
}

const piece = Buffer.allocUnsafeSlow(256 * 1024)
const block = 4096
const zeros = Buffer.alloc(block)
const nothing: Buffer = Buffer.alloc(0)
/** Holes are looked for in files from this size on. */
const sparseFrom = 1 << 20

/**
 * Writes a root file system that was assembled to be looked at (`recorded`) to a descriptor as one tar archive, each folder
 * before what is in it, in the order of their bytes: everything is what the layers say, whatever this user could set. Large files keep their holes.
 */
export const flatten = (assembly: Assembly, fd: number, options: FlattenOptions): void => {
  const flat = new Flat(assembly, new TarOutput(fd), options)
  try {
    flat.run()
  } finally {
    flat.close()
  }
}

/** A folder on the way through the tree: each is followed by all that is in it, or its time would not last. */
interface Level {
  readonly name: Name.Name
  readonly segments: Generator<string, void>
}

class Flat {
  private readonly from: Assembly
  private readonly tar: TarOutput
  private readonly options: FlattenOptions
  /** The first name of files that have several, by inode. Where they are shared with the store that is every file. */
  private readonly names: Table<Name.Name>

  constructor(from: Assembly, tar: TarOutput, options: FlattenOptions) {
    this.from = from
    this.tar = tar
    this.options = options
    this.names = new Table(from.room)
  }

  close(): void { this.names.close() }

  run(): void {
    this.folder("", this.from.root.top.prefix)
    const levels = [this.level("")]
    try {
      this.walk(levels)
    } finally {
      for (const { segments } of levels) segments.return()
    }
    this.tar.end()
  }

  private walk(levels: Array<Level>): void {
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.segments.next()
      if (next.done === true) {
        levels.pop()
        continue
      }
      this.options.stop()
      const segment = next.value
      const place = this.from.root.place(this.from.entered(level.name), segment)
      this.from.at = place.name
      const stats = lstatSync(place.path, { bigint: true, throwIfNoEntry: false })
      if (stats?.isDirectory() === true) {
        this.folder(place.name, this.from.entered(place.name).prefix)
        levels.push(this.level(place.name))
      } else this.other(place, stats)
    }
  }

  private level(name: Name.Name): Level {
    return { name, segments: this.segments(name) }
  }

  /** A folder's names, of which some are only recorded. */
  private *segments(name: Name.Name): Generator<string, void> {
    const missing = new Sorted(this.from.room)
    try {
      for (const [segment, { device }] of this.from.records.in(name)) if (device !== undefined) missing.add(segment)
      const others = missing.all()
      let next = others.next().value
      for (const { segment } of list(`${this.from.entered(name).prefix}.`, this.from.room)) {
        for (; next !== undefined && next <= segment; next = others.next().value) if (next !== segment) yield next
        yield segment
      }
      for (; next !== undefined; next = others.next().value) yield next
    } finally {
      missing.close()
    }
  }

  private folder(name: Name.Name, prefix: string): void {
    const { syscalls } = this.options
    const path = `${prefix}.`
    const known = this.from.folders.get(name)
    const metadata = known === undefined
      ? metadataOf({ path, stats: lstatSync(path, { bigint: true }) }, syscalls)
      : { ...known, xattrs: [...xattrsOf(path, syscalls), ...known.xattrs] }
    this.entry("dir", name, `${name === "" ? "." : name}/`, metadata)
  }

  private other(place: Place, stats: BigIntStats | undefined): void {
    const record = this.from.records.get(place.name)
    if (record?.device !== undefined) {
      const [type, major, minor] = record.device
      return this.entry(type, place.name, place.name, completed(blank, record), { device: [major, minor] })
    }
    if (stats === undefined) return
    if (stats.nlink > 1n) {
      const inode = String(stats.ino)
      const first = this.names.get(inode)
      if (first !== undefined) return this.entry("link", place.name, place.name, blank, { linkpath: Name.bytes(first) })
      this.names.set(inode, place.name, place.name.length)
    }
    const has = metadataOf({ path: place.path, stats }, this.options.syscalls)
    const metadata = record === undefined ? has : completed(has, record)
    if (stats.isSymbolicLink()) return this.entry("symlink", place.name, place.name, metadata, { linkpath: readlinkSync(place.path, "buffer") })
    if (stats.isFile()) return this.file(place, stats, metadata)
    const type: DeviceType = stats.isFIFO() ? "fifo" : stats.isBlockDevice() ? "block" : "char"
    this.entry(type, place.name, place.name, metadata, { device: deviceOf(stats.rdev) })
  }

  private file(place: Place, stats: BigIntStats, metadata: Metadata): void {
    const fd = openSync(place.path, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      const size = Number(stats.size)
      const holes = size >= sparseFrom && stats.blocks * 512n + BigInt(sparseFrom) / 2n < stats.size
      const segments = holes ? this.dataOf(fd, size) : undefined
      this.entry("file", place.name, place.name, metadata, { size, segments })
      for (const [offset, length] of segments ?? [[0, size]]) this.content(fd, offset, length)
      this.tar.pad()
    } finally {
      closeSync(fd)
    }
  }

  private content(fd: number, offset: number, length: number): void {
    for (let at = 0; at < length;) {
      const read = readInto(piece, fd, length - at, offset + at)
      if (read === 0) throw new Error(`a file of the root file system ended at ${offset + at}`)
      this.tar.write(piece.subarray(0, read))
      at += read
      this.options.stop()
    }
  }

  /** Where a file has something else than blocks of zeros. */
  private dataOf(fd: number, size: number): ReadonlyArray<readonly [number, number]> {
    const found: Array<[number, number]> = []
    for (let at = 0; at < size;) {
      const read = readInto(piece, fd, size - at, at)
      if (read === 0) throw new Error(`a file of the root file system ended at ${at}`)
      for (let from = 0; from < read; from += block) {
        const length = Math.min(block, read - from)
        if (piece.compare(zeros, 0, length, from, from + length) === 0) continue
        const last = found.at(-1)
        if (last !== undefined && last[0] + last[1] === at + from) last[1] += length
        else found.push([at + from, length])
      }
      at += read
      this.options.stop()
    }
    const end = found.at(-1)
    return end !== undefined && end[0] + end[1] === size ? found : [...found, [size, 0]]
  }

  private entry(
    type: EntryType, name: Name.Name, path: string, metadata: Metadata,
    more: { readonly linkpath?: Buffer; readonly size?: number; readonly device?: readonly [number, number]; readonly segments?: ReadonlyArray<readonly [number, number]> | undefined } = {}
  ): void {
    const { linkpath = nothing, size = 0, device: [devmajor, devminor] = [0, 0], segments } = more
    const { owners } = this.options
    const { gid, uid } = owners === undefined || type === "link" ? metadata : mapped(owners, metadata, Name.bytes(name))
    const xattrs = [...new Map(settable(metadata.xattrs).map((one) => [one[0].toString("latin1"), one])).values()]
    const entry: Outgoing = {
      type, path: Buffer.from(path, "latin1"), linkpath, mode: metadata.mode, uid, gid, size, mtimeSeconds: metadata.mtimeSeconds, mtimeNanos: metadata.mtimeNanos, devmajor, devminor, xattrs
    }
    this.tar.entry(entry, segments)
  }
}

const blank: Metadata = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
