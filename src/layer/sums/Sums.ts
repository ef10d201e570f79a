import { createHash } from "node:crypto"
import { type BigIntStats, closeSync, constants, lstatSync, openSync, readlinkSync, readSync } from "node:fs"
import { tmpdir } from "node:os"
import { deviceOf, metadataOf } from "../merge/Copy.ts"
import { printable } from "../Fault.ts"
import { LayerSource } from "../merge/LayerSource.ts"
import * as Meta from "../apply/Meta.ts"
import { list } from "../table/Listing.ts"
import { Sorted } from "../table/Sorted.ts"
import { pairsSize, Room, Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import { hashOf } from "./Record.ts"
import { codeOf, relocate, type Syscalls, type SystemPath } from "../Syscalls.ts"

/**
 * What one name of a layer is: type, metadata as the layer's tar has it (what could not be set on disk is taken from the
 * journal), and what it holds: of a file its size and SHA-256, of a symlink `to` and its target, of a device its numbers, of
 * another name of a file `link` and the first. A record of the journal has the type `journal` and only a name.
 */
export interface Sum {
  readonly name: Name.Name
  readonly type: "file" | "dir" | "symlink" | "char" | "block" | "fifo" | "socket" | "journal"
  readonly mode: number
  /** `uid:gid`; empty for a folder that is only implied. */
  readonly owner: string
  readonly mtime: string
  readonly xattrs: ReadonlyArray<readonly [name: string, base64: string]>
  readonly data: string
}

/**
 * How to look at a layer; `stop` is called for each name and every 256 KiB. With `contents` false, of a file's content only its size is
 * told; with `unreadable`, a file that the disk cannot read is told as one that is like no other, and is no error.
 */
export interface SumsOptions {
  readonly syscalls: Syscalls
  readonly stop: () => void
  readonly contents?: boolean
  readonly unreadable?: boolean
  /** Bytes that what is remembered of names may take in memory: 8 MiB. */
  readonly memory?: number
}

const piece = Buffer.allocUnsafeSlow(256 * 1024)
const fields = new Set(["uid", "gid", "mode", "mtime", "xattrs", "device"])
const read = constants.O_RDONLY | constants.O_NOFOLLOW
/** Sorts what the journal says behind all names. */
export const behind = "\uffff"
/** What a file holds that cannot be read. */
export const lost = "cannot be read (EIO)"
/** Labels that the host gives by itself. */
const hostLabel = /^security\.(?:selinux|ima|evm|SMACK64.*)$/

/** The journal's bytes are those that its records are written as: a bit that changes no record is a changed bit too. */
const isCanonical = (meta: string, stop: () => void): boolean => {
  const hash = createHash("sha256").update(`${Meta.heading}\n`)
  for (const record of Meta.read(meta)) hash.update(`${JSON.stringify(record)}\n`)
  return hashOf(meta, stop) === hash.digest("hex")
}

const typeOf = (stats: BigIntStats): Sum["type"] => {
  if (stats.isFile()) return "file"
  if (stats.isDirectory()) return "dir"
  if (stats.isSymbolicLink()) return "symlink"
  if (stats.isCharacterDevice()) return "char"
  if (stats.isBlockDevice()) return "block"
  return stats.isFIFO() ? "fifo" : "socket"
}

const journal = (text: string): Sum => ({ name: behind + text, type: "journal", mode: 0, owner: "", mtime: "", xattrs: [], data: "" })

/** A walk over one unpacked layer. */
class Walk {
  private readonly layer: LayerSource
  private readonly syscalls: Syscalls
  private readonly stop: () => void
  private readonly contents: boolean
  private readonly unreadable: boolean
  private readonly folderPath: string
  private at: Name.Name = ""
  /** The store may be read-only: what is too much for memory goes into the folder for temporary files. */
  private readonly room: Room
  private readonly unset: Table<Meta.Unset>
  /** Names of devices that are only recorded, in the order of the walk. */
  private readonly ghosts: Sorted
  private coming: Generator<string, void> | undefined
  private next: string | undefined
  /** The first name of files that have several, by inode. */
  private readonly groups: Table<Name.Name>
  private readonly said: Sorted

  constructor(folder: string, { contents = true, memory = 8 * 2 ** 20, stop, syscalls, unreadable = false }: SumsOptions) {
    this.room = new Room(tmpdir(), memory)
    this.unset = new Table(this.room)
    this.ghosts = new Sorted(this.room)
    this.groups = new Table(this.room)
    this.said = new Sorted(this.room)
    this.folderPath = folder
    this.unreadable = unreadable
    this.syscalls = syscalls
    this.stop = stop
    this.contents = contents
    if (!isCanonical(`${folder}/meta`, stop)) this.said.add("damaged")
    this.layer = new LayerSource(folder, { move: false, room: this.room })
    try {
      this.read(`${folder}/meta`)
    } catch (error) {
      this.close()
      throw error
    }
  }

  private read(meta: string): void {
    for (const record of Meta.read(meta)) {
      if (record.t !== "unset") {
        this.said.add(`${record.t} ${record.path}${record.t === "link" ? `\u0000${record.target}` : ""}`)
        continue
      }
      const { path, t: _, ...unset } = record
      if (Object.keys(unset).some((key) => !fields.has(key))) this.said.add(`unknown ${path}`)
      if (this.unset.has(path)) this.said.add(`again ${path}`)
      this.unset.set(path, unset, 100 + pairsSize(unset.xattrs))
      if (unset.device !== undefined) this.ghosts.add(Name.inOrder(path))
    }
  }

  *sums(): Generator<Sum> {
    try {
      yield* this.walk()
      for (const path of this.unset.keys()) this.said.add(`unset ${path}`)
      for (const text of this.said.all()) yield journal(text)
    } catch (error) {
      throw relocate(error, `${this.folderPath}/fs/${printable(Name.bytes(this.at))}`)
    }
  }

  close(): void {
    this.layer.close()
    this.unset.close()
    this.groups.close()
    this.ghosts.close()
    this.said.close()
  }

  private *walk(): Generator<Sum> {
    yield this.folder("")
    const frames = [{ name: "", names: this.list("") }]
    try {
      yield* this.through(frames)
    } finally {
      for (const { names } of frames) names.return()
    }
  }

  private *through(frames: Array<{ readonly name: Name.Name; readonly names: Generator<string, void> }>): Generator<Sum> {
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const next = frame.names.next()
      if (next.done === true) {
        frames.pop()
        continue
      }
      const segment = next.value
      this.stop()
      const name = Name.join(frame.name, segment)
      this.at = name
      const place = this.layer.place(frame.name, segment)
      const stats = lstatSync(place.path, { bigint: true, throwIfNoEntry: false })
      if (stats === undefined) yield this.ghost(name)
      else if (stats.isDirectory()) {
        yield this.folder(name)
        frames.push({ name, names: this.list(name) })
      } else yield this.one(name, place.path, stats)
    }
  }

  /** Names in a folder, and those of devices that are only recorded. */
  private *list(name: Name.Name): Generator<string, void> {
    for (const { segment } of list(`${this.layer.folder(name).prefix}.`, this.room)) {
      yield* this.ghostsIn(name, segment)
      yield segment
    }
    yield* this.ghostsIn(name)
  }

  /** The ghosts in a folder that come before one of its names, or after all: those in folders that are not there are passed over. */
  private *ghostsIn(name: Name.Name, before?: string): Generator<string, void> {
    const folder = name === "" ? "" : `${Name.inOrder(name)}\u0000`
    const limit = before === undefined ? undefined : `${folder}${before}`
    let last: string | undefined
    for (let next = this.ahead(); next !== undefined && (limit === undefined ? next < folder || next.startsWith(folder) : next <= limit); next = this.ahead()) {
      this.next = undefined
      const segment = next.slice(folder.length)
      if (next !== limit && next !== last && next.startsWith(folder) && !segment.includes("\u0000")) yield segment
      last = next
    }
  }

  /** The next ghost, which stays the next until it is taken. */
  private ahead(): string | undefined {
    this.coming ??= this.ghosts.all()
    return this.next ??= this.coming.next().value ?? undefined
  }

  private folder(name: Name.Name): Sum {
    const implied = this.layer.isImplied(name)
    const metadata = this.layer.metadata(name, this.syscalls)
    return { name, type: "dir", ...this.complete(name, metadata, implied), data: implied ? "implied" : "" }
  }

  private ghost(name: Name.Name): Sum {
    const unset = this.unset.get(name)
    const [type = "socket", major = 0, minor = 0] = unset?.device ?? []
    const nobody = { mode: -1, uid: -1, gid: -1, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
    return { name, type, ...this.complete(name, nobody, false), data: `${major},${minor}` }
  }

  private one(name: Name.Name, path: SystemPath, stats: BigIntStats): Sum {
    const type = typeOf(stats)
    const metadata = metadataOf({ path, stats }, this.syscalls)
    return { name, type, ...this.complete(name, type === "symlink" ? { ...metadata, mode: 0 } : metadata, false), data: this.data(name, type, path, stats) }
  }

  private data(name: Name.Name, type: Sum["type"], path: SystemPath, stats: BigIntStats): string {
    // Devices that could not be made are recorded name by name: that two are one is seen nowhere.
    if (stats.nlink > 1n && (type === "file" || type === "symlink")) {
      const first = this.groups.get(String(stats.ino))
      if (first !== undefined) return `link ${first}`
      this.groups.set(String(stats.ino), name, name.length)
    }
    switch (type) {
      case "file": return this.contents ? this.content(path) : String(stats.size)
      case "symlink": return `to ${readlinkSync(path, "buffer").toString("latin1")}`
      default: return deviceOf(stats.rdev).join(",")
    }
  }

  private content(path: SystemPath): string {
    try {
      const fd = openSync(path, read)
      try {
        const hash = createHash("sha256")
        let size = 0
        for (;;) {
          const length = readSync(fd, piece, 0, piece.byteLength, size)
          if (length === 0) return `${size} ${hash.digest("hex")}`
          hash.update(piece.subarray(0, length))
          size += length
          this.stop()
        }
      } finally {
        closeSync(fd)
      }
    } catch (error) {
      if (!this.unreadable || codeOf(error) !== "EIO") throw error
      return lost
    }
  }

  /** What the name should have: what it has, except for what could not be set. */
  private complete(name: Name.Name, has: ReturnType<typeof metadataOf>, implied: boolean): Pick<Sum, "mode" | "owner" | "mtime" | "xattrs"> {
    const { uid = has.uid, gid = has.gid, mode = has.mode, mtime = [has.mtimeSeconds, has.mtimeNanos], xattrs = [] } = this.unset.get(name) ?? {}
    this.unset.delete(name)
    const set = has.xattrs.map(([key, value]) => [key.toString("latin1"), value.toString("base64")] as const).filter(([key]) => !hostLabel.test(key))
    return {
      // A record keeps the owner's bits that an ordinary user's store cannot do without; the others are on disk.
      mode: has.mode !== -1 && (has.mode & 0o077) !== (mode & 0o077) ? has.mode : mode, owner: implied ? "" : `${uid}:${gid}`, mtime: `${mtime[0]}.${mtime[1]}`,
      xattrs: [...set, ...xattrs].sort(([a], [b]) => a < b ? -1 : 1)
    }
  }
}

/** Every name of the unpacked layer in `folder`, in the order of a walk, then what its journal says beside. Throws as `LayerSource`. */
export const of = function*(folder: string, options: SumsOptions): Generator<Sum> {
  const walk = new Walk(folder, options)
  try {
    yield* walk.sums()
  } finally {
    walk.close()
  }
}
