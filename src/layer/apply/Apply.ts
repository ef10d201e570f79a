import { closeSync, constants, ftruncateSync, linkSync, lstatSync, openSync, symlinkSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import { Attributes, type Metadata, recorded, settable, unknownMode } from "./Attributes.ts"
import type { Entry, EntrySink } from "../tar/Entry.ts"
import { NoFolder, Refused } from "../Fault.ts"
import { checkConfined } from "./Confined.ts"
import * as Meta from "./Meta.ts"
import { opaque, pseudoLink, pseudoLinks, reserved, whiteout } from "../tree/Markers.ts"
import { ownBits } from "../tree/Mode.ts"
import { Room } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import type { Folder, Place } from "../tree/Root.ts"
import { codeOf, relocate, type Syscalls, type SystemPath } from "../Syscalls.ts"
import { create, Upper } from "./Upper.ts"

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
  /** Bytes of memory for what is known only at the end, about 150 beside each name, before it goes into a file: 16 MiB, some 40,000 folders, whiteouts and links. */
  readonly memory?: number | undefined
  /** So many bytes of it in all are taken, counted in the same way: 1 GiB. */
  readonly most?: number | undefined
  /** Names and links that lead above the root are refused, as by Docker (pkg/archive: breakoutError). Default: they end at the root. */
  readonly confined?: boolean | undefined
}

const inspect = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const stride = 256 * 1024
const deviceKinds = { char: constants.S_IFCHR, block: constants.S_IFBLK, fifo: constants.S_IFIFO }

/**
 * Applies the entries of one layer to a folder (`fs/`) and writes what that folder cannot say to its journal (`Meta.ts`).
 *
 * Names are relative to the folder and cannot leave it (`Root`). The last entry of a name wins: what is there is removed
 * first, except that a folder over a folder only brings its metadata. Parents without an entry are made as implied
 * folders; a parent that is not a folder (nor a symlink to one) is refused. Whiteouts concern lower layers only. A hard
 * link's target is a name from the root, or a file that aufs kept for its hard links (docker: pkg/archive, WhiteoutLinkDir), whose last component is not followed; if this layer has nothing there the link is
 * left to the merge. Folders are made with their permission bits, never set-ID, and with u+rwx by an ordinary user; `fs/` itself is 0700.
 * The rest of their metadata is set when their handle is given up, or by `finish`: what comes before its folder's own entry is
 * in that folder. Throws `Refused` for the layer's faults, Node's errors for the host's; then `abort`.
 */
export class Apply implements EntrySink {
  private readonly upper: Upper
  private readonly meta: string
  private readonly syscalls: Syscalls
  private readonly stop: () => void
  private readonly attributes: Attributes
  private readonly confined: boolean
  private entries = 0
  private bytes = 0
  private untilStop = stride
  /** The file whose content comes. */
  private file: { readonly fd: number; readonly place: Place; readonly entry: Entry; readonly mode: number; filled: number } | undefined

  /** `root` is an existing empty 0700 folder of ours, `meta` the path of the journal to write. */
  constructor(root: string, meta: string, options: ApplyOptions) {
    this.meta = meta
    this.syscalls = options.syscalls
    this.stop = options.stop ?? (() => {})
    this.confined = options.confined ?? false
    this.upper = new Upper(root, {
      syscalls: this.syscalls, stop: this.stop, room: new Room(dirname(meta), options.memory ?? 16 * 1024 * 1024), most: options.most ?? 2 ** 30,
      leaving: (folder) => this.settleEarly(folder)
    })
    this.attributes = new Attributes(this.syscalls, this.upper.born)
  }

  entry(entry: Entry): void {
    this.stop()
    this.entries++
    const name = Name.clean(entry.path)
    try {
      if (this.confined) checkConfined(name, entry)
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
      this.upper.note(file.place.name, this.give(file.place.path, file.fd, file.entry, file.mode, ownBits.file))
      this.file = undefined
      closeSync(file.fd)
    } catch (error) {
      throw this.fault(error, file.place.name, file.entry)
    }
  }

  /** Gives the folders their metadata, writes the journal and closes every handle. */
  finish(): ApplySummary {
    const kept = this.upper.root.locate(pseudoLinks)
    if (kept !== undefined) this.upper.clear(kept)
    for (const [name, metadata, born] of this.upper.folders.youngestFirst()) {
      this.stop()
      try {
        this.settle(name, metadata, born)
      } catch (error) {
        throw relocate(error, this.upper.root.real(name))
      }
    }
    Meta.write(this.meta, this.upper.journal.records())
    this.abort()
    return { entries: this.entries, bytes: this.bytes, unset: this.upper.journal.counts() }
  }

  /** Closes every handle; what was made stays for whoever removes the folder. May be called again, and after `finish`. */
  abort(): void {
    const file = this.file
    this.file = undefined
    if (file !== undefined) closeSync(file.fd)
    this.upper.close()
  }

  private apply(name: Name.Name, entry: Entry): void {
    if (name === "") {
      if (entry.type !== "dir") throw new Refused("the root can only be a folder", entry.path)
      this.upper.journal.declared("")
      return this.upper.folders.update("", entry)
    }
    if (name.includes(whiteout)) {
      const last = Name.last(name)
      if (last === opaque && !reserved.test(Name.parent(name))) return this.hide(name, (folder) => this.upper.journal.addOpaque(this.upper.remember(folder)))
      if (entry.type === "file" && pseudoLink.test(name)) return this.open(this.upper.locate(name), entry) // until `finish`
      if (reserved.test(name)) return // what aufs kept for itself
      if (last.startsWith(whiteout)) return this.whiteout(name, last.slice(whiteout.length), entry)
    }
    switch (entry.type) {
      case "file": return this.open(this.upper.locate(name), entry)
      case "dir": return this.upper.folder(this.upper.locate(name), entry)
      case "link": return this.link(name, entry)
      case "symlink": return this.symlink(this.upper.locate(name), entry)
      default: return this.device(entry.type, this.upper.locate(name), entry)
    }
  }

  private whiteout(name: Name.Name, hidden: string, entry: Entry): void {
    if (hidden === "" || hidden === "." || hidden === "..") throw new Refused("a whiteout must name something in its folder", entry.path)
    this.hide(name, (folder) => this.upper.journal.addWhiteout(this.upper.remember(Name.join(folder, hidden))))
  }

  /** Lower content in what this layer made a non-folder is hidden already: repackers still write its whiteouts. */
  private hide(name: Name.Name, note: (folder: Name.Name) => void): void {
    let folder: Name.Name
    try {
      folder = this.upper.root.resolve(Name.parent(name))
    } catch (error) {
      if (error instanceof NoFolder) return
      throw error
    }
    // A device that is only recorded is no folder either: the journal is the same where it could be made.
    if (!this.upper.journal.isInGhost(folder)) note(folder)
  }

  private open(place: Place, entry: Entry): void {
    const mode = this.attributes.creationMode(entry)
    const fd = this.upper.fresh(place, () => openSync(place.path, create, mode))
    this.file = { fd, place, entry, mode: this.attributes.bornMode(entry, mode), filled: 0 }
  }

  private link(name: Name.Name, entry: Entry): void {
    const asked = Name.clean(entry.linkpath)
    const isPseudo = pseudoLink.test(asked)
    if (!isPseudo && (reserved.test(asked) || Name.last(asked).startsWith(whiteout))) throw new Refused("its hard link target is no file", entry.path)
    if (asked === "") throw new Refused("its hard link target is a folder", entry.path)
    const target = Name.join(this.resolveTarget(Name.parent(asked), entry), Name.last(asked))
    const found = this.upper.root.locate(target)
    if (isPseudo && (found === undefined || lstatSync(found.path, { throwIfNoEntry: false }) === undefined)) throw new Refused("its hard link target is no file that came before it", entry.path)
    this.upper.root.pin(found?.folder)
    try {
      const place = this.upper.locate(name)
      if (target === place.name) throw new Refused("a hard link to itself", entry.path)
      if (target.startsWith(`${place.name}/`)) throw new Refused("its hard link target is in the folder that it replaces", entry.path)
      const is = found && lstatSync(found.path, { throwIfNoEntry: false })
      if (found === undefined || is === undefined || (is.isDirectory() && this.upper.journal.isImplied(target))) return this.linkLater(place, target, entry)
      if (is.isDirectory()) throw new Refused("its hard link target is a folder", entry.path)
      this.upper.fresh(place, () => linkSync(found.path, place.path))
      this.upper.note(place.name, this.upper.journal.unsetAt(target))
    } finally {
      this.upper.root.pin(undefined)
    }
  }

  private resolveTarget(folder: Name.Name, entry: Entry): Name.Name {
    try {
      return this.upper.root.resolve(folder)
    } catch (error) {
      throw error instanceof Refused ? new Refused(`its hard link target: ${error.rule}`, entry.path) : error
    }
  }

  /** A link to what is not on disk: to a link or device that is itself only recorded, else to what a lower layer has. */
  private linkLater(place: Place, target: Name.Name, entry: Entry): void {
    const device = this.upper.journal.unsetAt(target)
    const linked = this.upper.journal.linkAt(target)
    if (device?.device === undefined && linked === undefined && this.upper.journal.hides(target)) {
      throw new Refused("its hard link target was removed by this layer", entry.path)
    }
    this.upper.clear(place)
    if (device?.device !== undefined) this.upper.note(place.name, device)
    else this.upper.journal.addLink(this.upper.remember(place.name), this.upper.remember(linked ?? target))
  }

  private symlink(place: Place, entry: Entry): void {
    this.upper.fresh(place, () => symlinkSync(entry.linkpath, place.path))
    this.upper.note(place.name, this.attributes.set(place.path, undefined, entry, undefined))
  }

  private device(type: Meta.DeviceType, place: Place, entry: Entry): void {
    const { devmajor, devminor, mode, uid, gid } = entry
    if (type !== "fifo") {
      if (devmajor === 0 && devminor === 0) throw new Refused("the device 0:0 is an overlay's whiteout", entry.path)
      if (devmajor > 0xfff || devminor > 0xfffff) throw new Refused("its device number is out of range", entry.path)
    }
    try {
      this.upper.fresh(place, () => this.syscalls.mknod(place.path, deviceKinds[type] | (mode & 0o777), devmajor, devminor))
    } catch (error) {
      const code = codeOf(error)
      if (code !== "EPERM" && code !== "EACCES" && code !== "ENOTSUP" && code !== "EINVAL") throw error
      this.upper.clear(place)
      const xattrs = settable(entry.xattrs)
      return this.upper.note(place.name, {
        uid, gid, mode, mtime: [entry.mtimeSeconds, entry.mtimeNanos], device: [type, devmajor, devminor],
        ...xattrs.length > 0 ? { xattrs: recorded(xattrs) } : {}
      })
    }
    this.upper.note(place.name, this.attributes.set(place.path, undefined, entry, this.attributes.bornMode(entry, mode & 0o777)))
  }

  /**
   * As `Attributes.set`. Of an ordinary user's layer every file can be read and every folder gone through, so that nothing needs to be
   * opened up for a while later: bits that are too many are recorded as a mode that was not set.
   */
  private give(path: SystemPath, fd: number, metadata: Metadata, has: number, needed: number): Meta.Unset | undefined {
    const { mode } = metadata
    if (this.upper.entersAll || (mode & needed) === needed) return this.attributes.set(path, fd, metadata, has)
    return { ...this.attributes.set(path, fd, { ...metadata, mode: mode | needed }, has), mode }
  }

  /** Gives a folder that only lacks its times what it lacks while it is open: in most archives nothing more comes into it. */
  private settleEarly({ name, prefix }: Folder): void {
    const [metadata, born] = this.upper.folders.pending(name) ?? []
    if (metadata === undefined || born === undefined || !isPlain(metadata, born) || this.attributes.owns(metadata)) return
    try {
      this.upper.note(name, this.attributes.set(`${prefix}.`, undefined, metadata, born))
      this.upper.folders.settle(name)
    } catch {} // `settle` meets it again, and says where
  }

  /** `born` are the permission bits it has. */
  private settle(name: Name.Name, metadata: Metadata, born: number): void {
    const folder = this.upper.root.enter(Name.parent(name)) ?? this.upper.root.top
    const path = name === "" ? `${folder.prefix}.` : this.upper.root.place(folder, Name.last(name)).path
    // Most folders only lack their owner and times: these need no handle, and do not follow what is at the path.
    if (isPlain(metadata, born) && (this.upper.entersAll || !this.attributes.owns(metadata))) {
      return this.upper.note(name, this.attributes.set(path, undefined, metadata, born))
    }
    const fd = this.upper.root.withRoom(folder, () => openSync(path, inspect))
    try {
      this.upper.note(name, this.give(path, fd, metadata, unknownMode, ownBits.dir))
    } finally {
      closeSync(fd)
    }
  }

  private fault(error: unknown, name: Name.Name, entry: Entry): unknown {
    if (error instanceof Refused) return new Refused(error.rule, entry.path)
    const code = codeOf(error)
    if (code === "ENAMETOOLONG") return new Refused("a name or link target is too long for the file system", entry.path)
    if (code === "ELOOP") return new Refused("its path leads through too many symlinks", entry.path)
    return relocate(error, this.upper.root.real(name))
  }
}

/** Whether a folder with these permission bits has what it will get but for its owner and times. */
const isPlain = (metadata: Metadata, born: number) => born === metadata.mode && metadata.xattrs.length === 0
