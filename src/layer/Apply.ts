import { closeSync, constants, fstatSync, ftruncateSync, linkSync, lstatSync, mkdirSync, openSync, symlinkSync, unlinkSync, writeSync } from "node:fs"
import { Attributes, type Born, type Metadata, recorded, settable, unknownMode } from "./Attributes.ts"
import type { Entry, EntrySink } from "./Entry.ts"
import { Refused } from "./Fault.ts"
import { Folders } from "./Folders.ts"
import * as Meta from "./Meta.ts"
import * as Name from "./Name.ts"
import { type Place, Root } from "./Root.ts"
import { codeOf, relocate, type Syscalls } from "./Syscalls.ts"

/** What applying a layer made: tar entries, bytes written to files, and how many names could not be given all they have. */
export interface ApplySummary {
  readonly entries: number
  readonly bytes: number
  readonly unset: Meta.UnsetCounts
}

/** `stop` is called for each entry and every 256 KiB of content; what it throws ends the call it came from. */
export interface ApplyOptions {
  readonly syscalls: Syscalls
  readonly stop?: (() => void) | undefined
  /** Bytes of memory for what is known only at the end, about 150 beside each name: 128 MiB, some 700,000 folders, whiteouts and links. */
  readonly memory?: number | undefined
}

const create = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
const inspect = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const stride = 256 * 1024
const whiteout = ".wh."
const opaque = ".wh..wh..opq"
const reserved = /(?:^|\/)\.wh\.\.wh\./
const deviceKinds = { char: constants.S_IFCHR, block: constants.S_IFBLK, fifo: constants.S_IFIFO }

/**
 * Applies the entries of one layer to a folder (`fs/`) and writes what that folder cannot say to its journal (`Meta.ts`).
 *
 * Names are relative to the folder and cannot leave it (`Root`). The last entry of a name wins: what is there is removed
 * first, except that a folder over a folder only brings its metadata. Parents without an entry are made as implied
 * folders; a parent that is not a folder (nor a symlink to one) is refused. Whiteouts concern lower layers only. A hard
 * link's target is a name from the root whose last component is not followed; if this layer has nothing there the link is
 * left to the merge. A folder's metadata is set by `finish`, until then folders are 0700: what comes before its folder's
 * own entry is in that folder. Throws `Refused` for the layer's faults, Node's errors for the host's; then `abort`.
 */
export class Apply implements EntrySink {
  private readonly root: Root
  private readonly meta: string
  private readonly syscalls: Syscalls
  private readonly stop: () => void
  private readonly attributes: Attributes
  private readonly implied: Metadata
  private readonly journal = new Meta.Journal()
  private readonly folders = new Folders()
  private readonly makeImplied = (place: Place) => this.imply(place)
  private entries = 0
  private bytes = 0
  private untilStop = stride
  private memory: number
  /** The file whose content comes. */
  private file: { readonly fd: number; readonly place: Place; readonly entry: Entry; readonly mode: number; filled: number } | undefined

  /** `root` is an existing empty 0700 folder of ours, `meta` the path of the journal to write. */
  constructor(root: string, meta: string, options: ApplyOptions) {
    this.meta = meta
    this.syscalls = options.syscalls
    this.stop = options.stop ?? (() => {})
    this.memory = options.memory ?? 128 * 1024 * 1024
    this.root = new Root(root)
    try {
      const born = probe(this.root)
      this.attributes = new Attributes(this.syscalls, born)
      this.implied = { mode: 0o755, uid: born.uid, gid: born.gid, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
    } catch (error) {
      this.root.close()
      throw relocate(error, root)
    }
    this.journal.addImplied("")
    this.folders.add("", this.implied)
  }

  entry(entry: Entry): void {
    this.stop()
    this.entries++
    const name = Name.clean(entry.path)
    try {
      this.apply(name, entry)
    } catch (error) {
      throw this.fault(error, name, entry)
    }
  }

  data(bytes: Uint8Array, at: number): void {
    const file = this.file
    if (file === undefined) return
    try {
      for (let from = 0; from < bytes.byteLength;) {
        const size = writeSync(file.fd, bytes, from, Math.min(bytes.byteLength - from, stride), at + from)
        from += size
        this.bytes += size
        this.untilStop -= size
        if (this.untilStop <= 0) {
          this.untilStop = stride
          this.stop()
        }
      }
      file.filled = at + bytes.byteLength
    } catch (error) {
      throw this.fault(error, file.place.name, file.entry)
    }
  }

  end(): void {
    const file = this.file
    if (file === undefined) return
    try {
      if (file.filled < file.entry.size) ftruncateSync(file.fd, file.entry.size)
      this.note(file.place.name, this.attributes.set(file.place.path, file.fd, file.entry, file.mode))
      this.file = undefined
      closeSync(file.fd)
    } catch (error) {
      throw this.fault(error, file.place.name, file.entry)
    }
  }

  /** Gives the folders their metadata, writes the journal and closes every handle. */
  finish(): ApplySummary {
    for (const [name, metadata] of this.folders.youngestFirst()) {
      this.stop()
      try {
        this.settle(name, metadata)
      } catch (error) {
        throw relocate(error, this.root.real(name))
      }
    }
    Meta.write(this.meta, this.journal.records())
    this.abort()
    return { entries: this.entries, bytes: this.bytes, unset: this.journal.counts() }
  }

  /** Closes every handle; what was made stays for whoever removes the folder. May be called again, and after `finish`. */
  abort(): void {
    const file = this.file
    this.file = undefined
    if (file !== undefined) closeSync(file.fd)
    this.root.close()
  }

  private apply(name: Name.Name, entry: Entry): void {
    if (name === "") {
      if (entry.type !== "dir") throw new Refused("the root can only be a folder", entry.path)
      this.journal.declared("")
      return this.folders.update("", entry)
    }
    if (name.includes(whiteout)) {
      const last = Name.last(name)
      if (last === opaque && !reserved.test(Name.parent(name))) return this.journal.addOpaque(this.remember(this.root.resolve(Name.parent(name))))
      if (reserved.test(name)) return // what aufs kept for itself
      if (last.startsWith(whiteout)) return this.whiteout(name, last.slice(whiteout.length), entry)
    }
    switch (entry.type) {
      case "file": return this.open(this.root.locate(name, this.makeImplied), entry)
      case "dir": return this.folder(this.root.locate(name, this.makeImplied), entry)
      case "link": return this.link(name, entry)
      case "symlink": return this.symlink(this.root.locate(name, this.makeImplied), entry)
      default: return this.device(entry.type, this.root.locate(name, this.makeImplied), entry)
    }
  }

  private whiteout(name: Name.Name, hidden: string, entry: Entry): void {
    if (hidden === "" || hidden === "." || hidden === "..") throw new Refused("a whiteout must name something in its folder", entry.path)
    this.journal.addWhiteout(this.remember(Name.join(this.root.resolve(Name.parent(name)), hidden)))
  }

  private open(place: Place, entry: Entry): void {
    const mode = this.attributes.creationMode(entry)
    const fd = this.fresh(place, () => openSync(place.path, create, mode))
    this.file = { fd, place, entry, mode: this.attributes.bornMode(entry, mode), filled: 0 }
  }

  private folder(place: Place, entry: Entry): void {
    const { name } = place
    if (this.folders.has(name)) {
      this.journal.declared(name)
      return this.folders.update(name, entry)
    }
    if (this.journal.isGhost(name) || !this.makeFolder(place)) {
      this.clear(place)
      mkdirSync(place.path, 0o700)
      // What this layer had there before has replaced what lower layers have, which must not come back into this folder.
      this.journal.addWhiteout(name)
    }
    this.folders.add(this.remember(name), entry)
  }

  private link(name: Name.Name, entry: Entry): void {
    const asked = Name.clean(entry.linkpath)
    if (reserved.test(asked) || Name.last(asked).startsWith(whiteout)) throw new Refused("its hard link target is no file", entry.path)
    if (asked === "") throw new Refused("its hard link target is a folder", entry.path)
    const target = Name.join(this.resolveTarget(Name.parent(asked), entry), Name.last(asked))
    const found = this.root.locate(target)
    this.root.pin(found?.folder)
    try {
      const place = this.root.locate(name, this.makeImplied)
      if (target === place.name) throw new Refused("a hard link to itself", entry.path)
      if (target.startsWith(`${place.name}/`)) throw new Refused("its hard link target is in the folder that it replaces", entry.path)
      const is = found && lstatSync(found.path, { throwIfNoEntry: false })
      if (found === undefined || is === undefined || (is.isDirectory() && this.journal.isImplied(target))) return this.linkLater(place, target, entry)
      if (is.isDirectory()) throw new Refused("its hard link target is a folder", entry.path)
      this.fresh(place, () => linkSync(found.path, place.path))
      this.note(place.name, this.journal.unsetAt(target))
    } finally {
      this.root.pin(undefined)
    }
  }

  private resolveTarget(folder: Name.Name, entry: Entry): Name.Name {
    try {
      return this.root.resolve(folder)
    } catch (error) {
      throw error instanceof Refused ? new Refused(`its hard link target: ${error.rule}`, entry.path) : error
    }
  }

  /** A link to what is not on disk: to a link or device that is itself only recorded, else to what a lower layer has. */
  private linkLater(place: Place, target: Name.Name, entry: Entry): void {
    const device = this.journal.unsetAt(target)
    const linked = this.journal.linkAt(target)
    if (device?.device === undefined && linked === undefined && this.journal.hides(target)) {
      throw new Refused("its hard link target was removed by this layer", entry.path)
    }
    this.clear(place)
    if (device?.device !== undefined) this.journal.addUnset(place.name, device)
    else this.journal.addLink(this.remember(place.name), this.remember(linked ?? target))
  }

  private symlink(place: Place, entry: Entry): void {
    this.fresh(place, () => symlinkSync(entry.linkpath, place.path))
    this.note(place.name, this.attributes.set(place.path, undefined, entry, undefined))
  }

  private device(type: Meta.DeviceType, place: Place, entry: Entry): void {
    const { devmajor, devminor, mode, uid, gid } = entry
    if (type !== "fifo") {
      if (devmajor === 0 && devminor === 0) throw new Refused("the device 0:0 is an overlay's whiteout", entry.path)
      if (devmajor > 0xfff || devminor > 0xfffff) throw new Refused("its device number is out of range", entry.path)
    }
    try {
      this.fresh(place, () => this.syscalls.mknod(place.path, deviceKinds[type] | (mode & 0o777), devmajor, devminor))
    } catch (error) {
      const code = codeOf(error)
      if (code !== "EPERM" && code !== "EACCES" && code !== "ENOTSUP" && code !== "EINVAL") throw error
      this.clear(place)
      const xattrs = settable(entry.xattrs)
      return this.journal.addUnset(place.name, {
        uid, gid, mode, mtime: [entry.mtimeSeconds, entry.mtimeNanos], device: [type, devmajor, devminor],
        ...xattrs.length > 0 ? { xattrs: recorded(xattrs) } : {}
      })
    }
    this.note(place.name, this.attributes.set(place.path, undefined, entry, this.attributes.bornMode(entry, mode & 0o777)))
  }

  /** Runs `make` for a place where nothing is left. */
  private fresh<A>(place: Place, make: () => A): A {
    this.journal.dropped(place.name)
    try {
      return this.root.withRoom(place.folder, make)
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error
    }
    this.remove(place)
    return make()
  }

  /** Removes what this layer has at a place, on disk or in the journal, if anything. */
  private clear(place: Place): void {
    if (lstatSync(place.path, { throwIfNoEntry: false }) === undefined) this.journal.dropped(place.name)
    else this.remove(place)
  }

  private remove(place: Place): void {
    this.journal.dropped(place.name)
    this.root.remove(place, (name) => {
      this.stop()
      this.journal.dropped(name)
      this.folders.delete(name)
    })
  }

  private imply(place: Place): void {
    if (this.journal.isGhost(place.name)) throw new Refused("a parent is not a folder", Name.bytes(place.name))
    mkdirSync(place.path, 0o700)
    this.journal.addImplied(this.remember(place.name))
    this.folders.add(place.name, this.implied)
  }

  /** Makes the folder; false if something is there. */
  private makeFolder(place: Place): boolean {
    try {
      mkdirSync(place.path, 0o700)
      return true
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false
      throw error
    }
  }

  private remember(name: Name.Name): Name.Name {
    this.memory -= name.length + 150
    if (this.memory < 0) throw new Refused("the layer has more folders, whiteouts and links than fit into memory", Name.bytes(name))
    return name
  }

  private note(name: Name.Name, unset: Meta.Unset | undefined): void {
    if (unset !== undefined) this.journal.addUnset(name, unset)
  }

  private settle(name: Name.Name, metadata: Metadata): void {
    const folder = this.root.enter(Name.parent(name)) ?? this.root.top
    const path = name === "" ? `${folder.prefix}.` : this.root.place(folder, Name.last(name)).path
    const fd = this.root.withRoom(folder, () => openSync(path, inspect))
    try {
      this.note(name, this.attributes.set(path, fd, metadata, unknownMode))
    } finally {
      closeSync(fd)
    }
  }

  private fault(error: unknown, name: Name.Name, entry: Entry): unknown {
    if (error instanceof Refused) return new Refused(error.rule, entry.path)
    const code = codeOf(error)
    if (code === "ENAMETOOLONG") return new Refused("a name or link target is too long for the file system", entry.path)
    if (code === "ELOOP") return new Refused("its path leads through too many symlinks", entry.path)
    return relocate(error, this.root.real(name))
  }
}

/** What a new file is like here: umask, set-group-ID folders, mount options and access control lists all have a say. */
const probe = (root: Root): Born => {
  const path = `${root.top.prefix}.probe`
  const fd = openSync(path, create, 0o777)
  try {
    const { uid, gid, mode } = fstatSync(fd)
    return { uid, gid, cut: ~mode & 0o777 }
  } finally {
    closeSync(fd)
    unlinkSync(path)
  }
}
