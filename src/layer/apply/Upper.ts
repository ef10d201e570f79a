import { closeSync, constants, fstatSync, lstatSync, openSync, statSync, unlinkSync } from "node:fs"
import { type Born, type Metadata, unknownMode } from "./Attributes.ts"
import { Refused } from "../Fault.ts"
import { Folders } from "./Folders.ts"
import * as Meta from "./Meta.ts"
import { entersAll, ownBits } from "../tree/Mode.ts"
import * as Name from "../tree/Name.ts"
import type { Room } from "../table/Table.ts"
import { type Folder, type Place, Root } from "../tree/Root.ts"
import { codeOf, relocate, type Syscalls } from "../Syscalls.ts"

/** To make a file that is not there. */
export const create = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

/** One layer's folder, its journal and its folders' metadata, which stay in step whatever replaces what. */
export class Upper {
  readonly root: Root
  readonly journal: Meta.Journal
  readonly folders: Folders
  /** How new files come into being in it. */
  readonly born: Born
  /** Whether no mode is in the way of this process. */
  readonly entersAll = entersAll()
  /** Whether the root gives new folders more than they are made with (set-group-ID). */
  private readonly bequeaths: boolean
  private readonly syscalls: Syscalls
  private readonly stop: () => void
  private readonly implied: Metadata
  private readonly imply = (place: Place) => this.makeImplied(place)
  private left: number

  /**
   * `room` is for what is remembered of folders, whiteouts, links, and what could not be set; `most` is how many bytes of it are taken in
   * all; `leaving` as a root's watch is told.
   */
  constructor(path: string, options: {
    readonly syscalls: Syscalls; readonly stop: () => void; readonly room: Room; readonly most: number; readonly leaving: (folder: Folder) => void
  }) {
    this.syscalls = options.syscalls
    this.stop = options.stop
    this.left = options.most
    this.journal = new Meta.Journal(options.room)
    this.folders = new Folders(options.room)
    this.root = new Root(path, {
      made: (name) => this.folders.has(name),
      watch: { opened: ({ name }) => this.folders.reopen(name), leaving: options.leaving }
    })
    try {
      this.born = probe(this.root)
      this.bequeaths = (statSync(`${this.root.top.prefix}.`).mode & 0o7000) !== 0
    } catch (error) {
      this.root.close()
      throw relocate(error, path)
    }
    this.implied = { mode: 0o755, uid: this.born.uid, gid: this.born.gid, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
    this.journal.addImplied("")
    this.folders.add("", this.implied, unknownMode)
  }

  /** Where an entry goes; parents without an entry are made as implied folders. */
  locate(name: Name.Name): Place {
    return this.root.locate(name, this.imply)
  }

  /** A folder with an entry: what is there stays if it is one. */
  folder(place: Place, metadata: Metadata): void {
    const { name } = place
    if (this.folders.has(name)) {
      this.journal.declared(name)
      return this.folders.update(name, metadata)
    }
    const mode = this.openMode(metadata)
    if (this.journal.isGhost(name) || !this.makeFolder(place, mode)) {
      this.clear(place)
      this.syscalls.mkdir(place.path, mode)
      // What this layer had there before has replaced what lower layers have, which must not come back into this folder.
      this.journal.addWhiteout(name)
    }
    this.folders.add(this.remember(name), metadata, this.bornMode(mode))
  }

  /** Runs `make` for a place where nothing is left. */
  fresh<A>(place: Place, make: () => A): A {
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
  clear(place: Place): void {
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

  private makeImplied(place: Place): boolean {
    if (this.journal.isGhost(place.name)) throw new Refused("a parent is not a folder", Name.bytes(place.name))
    const mode = this.openMode(this.implied)
    if (!this.makeFolder(place, mode)) return false
    const name = this.remember(place.name)
    this.journal.addImplied(name)
    this.folders.add(name, this.implied, this.bornMode(mode))
    return true
  }

  /** Makes the folder; false if something is there. */
  private makeFolder(place: Place, mode: number): boolean {
    try {
      this.syscalls.mkdir(place.path, mode)
      return true
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false
      throw error
    }
  }

  /** What a folder is made with: all that is not in the way of what comes into it, and no bits that this would inherit. */
  private openMode({ mode }: Metadata): number {
    return (this.entersAll ? mode : mode | ownBits.dir) & 0o777
  }

  /** The bits a folder has that was made with these. */
  private bornMode(mode: number): number {
    return this.bequeaths ? unknownMode : mode & ~this.born.cut
  }

  /** Takes the bytes for a name, or refuses the layer: a short archive may imply many long ones. */
  remember(name: Name.Name): Name.Name {
    this.take(name.length + 150, name)
    return name
  }

  private take(bytes: number, name: Name.Name): void {
    this.left -= bytes
    if (this.left < 0) throw new Refused("the layer has more folders, whiteouts, links and attributes that cannot be set here than can be kept track of", Name.bytes(name))
  }

  /** Records what could not be set. */
  note(name: Name.Name, unset: Meta.Unset | undefined): void {
    if (unset === undefined) return
    if (unset.xattrs !== undefined) this.take(unset.xattrs.reduce((sum, [key, value]) => sum + 2 * value.length + key.length + 150, name.length + 150), name)
    this.journal.addUnset(name, unset)
  }

  /** Closes every handle and forgets everything. May be called again. */
  close(): void {
    this.root.close()
    this.journal.close()
    this.folders.close()
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
