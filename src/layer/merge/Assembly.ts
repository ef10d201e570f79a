import { closeSync, constants, fstatSync, lchownSync, lstatSync, mkdirSync, openSync, renameSync, rmdirSync } from "node:fs"
import { Attributes, type Metadata, unknownMode } from "../apply/Attributes.ts"
import { metadataOf, xattrsOf } from "./Copy.ts"
import { Refused } from "../Fault.ts"
import { NameTree } from "./NameTree.ts"
import * as Packed from "./Packed.ts"
import { mapped, type OwnerMap } from "./Owners.ts"
import type { Unset, UnsetCounts } from "../apply/Meta.ts"
import { chmodItself, entersAll } from "../tree/Mode.ts"
import { list, type ListedName } from "../table/Listing.ts"
import { pairsSize, Room, Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import { handleFlags } from "../tree/Handles.ts"
import { removeTree } from "../tree/Remove.ts"
import { type Folder, type MakeFolder, type Place, Root } from "../tree/Root.ts"
import { codeOf, relocate, type Syscalls } from "../Syscalls.ts"

/** `hold` is a folder of ours on the same file system; `stop` is called for each entry. */
export interface AssemblyOptions {
  readonly hold: string
  readonly syscalls: Syscalls
  readonly stop: () => void
  /** Who owns what; as the layers say unless told otherwise. */
  readonly owners?: OwnerMap | undefined
  /** To be looked at only: what is not on disk already is not set, but stays in `folders` and `records`. */
  readonly recorded?: boolean | undefined
  /** Bytes that what is remembered of names may take in memory: 16 MiB. */
  readonly memory?: number | undefined
}

const deviceKinds = { char: constants.S_IFCHR, block: constants.S_IFBLK, fifo: constants.S_IFIFO }
const refusals = new Set(["EPERM", "EACCES", "ENOTSUP", "EINVAL"])
const capability = Buffer.from("security.capability")
const unknownOwner = { uid: -1, gid: -1, cut: 0 }

/**
 * A root file system being built. What is put into a folder never shows in the folder's own metadata: that is kept before
 * the first change and set by `finish`. Until then every folder in it can be entered and written by this process.
 */
export class Assembly {
  readonly root: Root
  /** The file system it is on. */
  readonly device: bigint
  /** Whether no folder's mode is in the way here. */
  readonly entersAll = entersAll()
  /** What is being worked on, for errors. */
  at: Name.Name = ""
  /** As `locate` of `Root` takes it. */
  readonly makeImplied = (place: Place): boolean => {
    this.keep(place.folder)
    mkdirSync(place.path, 0o700)
    this.folders.set(place.name, this.implied)
    return true
  }
  private readonly options: AssemblyOptions
  /** What folders get in the end, without the extended attributes that they have already. */
  readonly folders: NameTree<Metadata, Packed.PackedMetadata>
  /** Devices that could not be made, and with `recorded` all that is not on disk. */
  readonly records: NameTree<Unset>
  /** What a folder is that no layer describes: root's, as far as this process can make it so, or need not. */
  readonly implied: Metadata
  private readonly privileged = process.geteuid?.() === 0
  private readonly unset = { owners: 0, devices: 0, xattrs: 0, times: 0 }
  private names = 0
  /** What is remembered of names, and lists of them, may take so much memory; what is more goes into the hold folder. */
  readonly room: Room
  /** A handle on the hold folder. */
  private held = -1

  /** Builds in the existing empty 0700 folder `path`. */
  constructor(path: string, options: AssemblyOptions) {
    this.options = options
    this.root = new Root(path)
    try {
      const { dev, uid, gid } = lstatSync(path, { bigint: true })
      this.device = dev
      const [own, group] = options.recorded === true ? [0, 0] : [Number(uid), Number(gid)]
      this.implied = { mode: 0o755, uid: own, gid: group, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
      mkdirSync(options.hold, { mode: 0o700, recursive: true })
      this.held = openSync(options.hold, handleFlags)
      this.room = new Room(`/proc/self/fd/${this.held}/.`, options.memory ?? 16 * 2 ** 20)
    } catch (error) {
      this.root.close()
      throw error
    }
    this.folders = new NameTree(this.room, Packed.packing)
    this.records = new NameTree(this.room, { pack: (unset) => unset, unpack: (unset) => unset, weight: ({ xattrs }) => 100 + pairsSize(xattrs) })
    this.folders.set("", this.implied)
  }

  /** A path in the hold folder that nothing else has. */
  fresh(): string {
    return `/proc/self/fd/${this.held}/${this.names++}`
  }


  /** The folder `name` leads to; `Refused` if there is none. */
  entered(name: Name.Name, make?: MakeFolder): Folder {
    const folder = this.root.enter(name, make)
    if (folder === undefined) throw new Refused("another entry of its layer removes the folder it is in", Name.bytes(this.at))
    return folder
  }

  /** What an existing folder will get: what it has, unless that is decided already. To be called before anything is changed in it. */
  keep(folder: Folder): Metadata {
    const known = this.folders.get(folder.name)
    if (known !== undefined) return known
    const path = `${folder.prefix}.`
    const metadata = { ...metadataOf({ path, stats: lstatSync(path, { bigint: true }) }, this.options.syscalls), xattrs: [] }
    this.folders.set(folder.name, metadata)
    return metadata
  }

  /** Removes what is at a place, whatever it is. */
  remove(place: Place): void {
    this.root.forget(place.name)
    this.folders.delete(place.name)
    this.records.delete(place.name)
    removeTree(place.path, { stop: this.options.stop })
  }

  /** A place for something that is no folder, where nothing is any more. */
  cleared(name: Name.Name): Place {
    const place = this.root.locate(name, this.makeImplied)
    this.keep(place.folder)
    if (lstatSync(place.path, { throwIfNoEntry: false }) !== undefined) this.remove(place)
    else this.records.delete(place.name)
    return place
  }

  /** The folder at a place gets this in the end; extended attributes it has and `metadata` has not go. */
  declare(place: Place, metadata: Metadata): void {
    const old = xattrsOf(place.path, this.options.syscalls)
    if (!old.every(([name]) => metadata.xattrs.some(([other]) => other.equals(name)))) this.remake(place)
    this.folders.set(place.name, metadata)
  }

  /** As `declare`, for the root. */
  declareRoot(metadata: Metadata): void {
    this.folders.set("", metadata)
  }

  /** The folder `name`, made here, has all its children: it gets its metadata, at once if that is not in the way. */
  filled(name: Name.Name, metadata: Metadata): void {
    const open = this.entersAll || (metadata.mode & 0o700) === 0o700
    if (open && this.options.recorded !== true && this.folders.get(name) === undefined) this.settle(name, metadata)
    else this.folders.set(name, metadata)
  }

  /**
   * Sets what could not be set when the layer was applied, as far as it can be here; what is not there any more is passed
   * over. `shared`: the files are the stored layer's own, which must stay as they are.
   */
  restore(name: Name.Name, says: Unset, shared = false): void {
    this.options.stop()
    this.at = name
    const unset = this.owned(name, says)
    if (unset.device !== undefined) return this.makeDevice(name, unset, unset.device)
    if (this.options.recorded !== true && !this.privileged && unset.xattrs === undefined && unset.mtime === undefined && unset.mode === undefined) return this.count(unset)
    const place = name === "" ? undefined : this.root.locate(name)
    if (place === undefined && name !== "") return
    const stats = place && lstatSync(place.path, { bigint: true, throwIfNoEntry: false })
    if (place === undefined || stats?.isDirectory() === true) {
      const folder = this.entered(place?.name ?? "")
      return this.folders.set(folder.name, Packed.completed(this.keep(folder), unset))
    }
    if (stats === undefined) return
    if (this.options.recorded === true) return this.records.set(place.name, unset)
    if (shared) {
      if (this.privileged && (unset.uid !== undefined || unset.gid !== undefined || unset.xattrs !== undefined)) {
        throw new Refused("hard links would give the stored layer, which another user unpacked, other owners or attributes: use --link copy or reflink", Name.bytes(name))
      }
      return this.count(unset)
    }
    const has = { ...metadataOf({ path: place.path, stats }, this.options.syscalls), xattrs: [] }
    // A new owner costs a file its set-ID bits.
    const mode = stats.isSymbolicLink() ? undefined : unset.uid === undefined && unset.gid === undefined ? has.mode : unknownMode
    this.count(new Attributes(this.options.syscalls, { uid: has.uid, gid: has.gid, cut: 0 }).set(place.path, undefined, Packed.completed(has, unset), mode))
  }

  /** Adds to the count of what was not set. */
  count(unset: Unset | undefined): void {
    if (unset === undefined) return
    const { device, uid, gid, xattrs, mtime } = unset
    if (device !== undefined) this.unset.devices++
    else {
      if (uid !== undefined || gid !== undefined) this.unset.owners++
      if (xattrs !== undefined) this.unset.xattrs++
      if (mtime !== undefined) this.unset.times++
    }
  }

  /** Gives the folders their metadata, removes the hold folder, and says what could not be set. */
  finish(): UnsetCounts {
    if (this.options.recorded === true) {
      removeTree(this.options.hold, { stop: this.options.stop })
      return this.unset
    }
    if (this.privileged && this.options.owners !== undefined) this.remap(this.options.owners)
    for (const [name, metadata] of this.folders.deepestFirst()) {
      this.options.stop()
      this.at = name
      this.settle(name, metadata)
    }
    removeTree(this.options.hold, { stop: this.options.stop })
    return this.unset
  }

  /** The error with the path of what is being worked on, in place of a handle's. */
  fault(error: unknown): unknown {
    const handle = error instanceof Error && "path" in error && typeof error.path === "string" && error.path.startsWith("/proc/self/fd/")
    return handle ? relocate(error, this.root.real(this.at)) : error
  }

  /** Closes every handle. */
  close(): void {
    this.folders.close()
    this.records.close()
    if (this.held >= 0) closeSync(this.held)
    this.held = -1
    this.root.close()
  }

  /** A record with its owners as the map says; an ordinary user's own are no record. Those of a privileged process are mapped in the end. */
  private owned(name: Name.Name, unset: Unset): Unset {
    const { owners } = this.options
    if (owners === undefined || this.privileged) return unset
    const own = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
    const is = mapped(owners, { uid: unset.uid ?? own.uid, gid: unset.gid ?? own.gid }, Name.bytes(name))
    const { gid, uid, ...rest } = unset
    return {
      ...rest, ...uid === undefined || (is.uid === own.uid && unset.device === undefined) ? {} : { uid: is.uid },
      ...gid === undefined || (is.gid === own.gid && unset.device === undefined) ? {} : { gid: is.gid }
    }
  }

  /** Gives everything the owner that the map says, except folders that get theirs in the end. A new owner costs a file set-ID bits and capabilities. */
  private remap(owners: OwnerMap): void {
    /** Those of several names that are done, by inode. */
    const linked = new Table<1>(this.room)
    const levels = [this.level("")]
    try {
      for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
        const next = level.names.next()
        if (next.done === true) {
          levels.pop()
          continue
        }
        this.options.stop()
        const { isFolder, segment } = next.value
        const place = this.root.place(this.entered(level.name), segment)
        this.at = place.name
        if (!isFolder || this.folders.get(place.name) === undefined) this.own(place, owners, linked)
        if (isFolder) levels.push(this.level(place.name))
      }
    } finally {
      for (const { names } of levels) names.return()
      linked.close()
    }
  }

  private level(name: Name.Name): { readonly name: Name.Name; readonly names: Generator<ListedName, void> } {
    return { name, names: list(`${this.entered(name).prefix}.`, this.room) }
  }

  private own({ name, path }: Place, owners: OwnerMap, linked: Table<1>): void {
    const stats = lstatSync(path, { bigint: true })
    if (stats.nlink > 1n && !stats.isDirectory()) {
      const inode = String(stats.ino)
      if (linked.has(inode)) return
      linked.set(inode, 1)
    }
    const { uid, gid } = mapped(owners, { uid: Number(stats.uid), gid: Number(stats.gid) }, Name.bytes(name))
    if (uid === Number(stats.uid) && gid === Number(stats.gid)) return
    const { syscalls } = this.options
    const power = stats.isFile() && syscalls.native ? syscalls.lgetxattr(path, capability) : undefined
    lchownSync(path, uid, gid)
    if ((stats.mode & 0o6000n) !== 0n && !stats.isSymbolicLink()) chmodItself(path, Number(stats.mode) & 0o7777)
    if (power !== undefined) syscalls.lsetxattr(path, capability, power)
  }

  /** A new folder around the children of the one at a place. */
  private remake(place: Place): void {
    const fresh = this.fresh()
    this.keep(place.folder)
    mkdirSync(fresh, 0o700)
    for (const { segment } of list(`${this.entered(place.name).prefix}.`, this.room)) {
      renameSync(this.root.place(this.entered(place.name), segment).path, Buffer.from(`${fresh}/${segment}`, "latin1"))
    }
    this.root.forget(place.name)
    rmdirSync(place.path)
    renameSync(fresh, place.path)
  }

  private makeDevice(name: Name.Name, unset: Unset, [type, major, minor]: NonNullable<Unset["device"]>): void {
    const place = this.cleared(name)
    if (this.options.recorded === true) return this.records.set(place.name, unset)
    const { path } = place
    try {
      this.options.syscalls.mknod(path, deviceKinds[type] | 0o600, major, minor)
    } catch (error) {
      if (!refusals.has(codeOf(error) ?? "")) throw error
      this.records.set(place.name, unset)
      return this.count(unset)
    }
    this.count(new Attributes(this.options.syscalls, unknownOwner).set(path, undefined, Packed.completed(this.implied, unset), unknownMode))
  }

  private settle(name: Name.Name, says: Metadata): void {
    const metadata = this.options.owners === undefined ? says : { ...says, ...mapped(this.options.owners, says, Name.bytes(name)) }
    const path = `${this.entered(name).prefix}.`
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      const { uid, gid, mode } = fstatSync(fd)
      this.count(new Attributes(this.options.syscalls, { uid, gid, cut: 0 }).set(path, fd, metadata, mode & 0o7777))
    } finally {
      closeSync(fd)
    }
  }
}
