import { closeSync, constants, fstatSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, renameSync, rmdirSync, unlinkSync } from "node:fs"
import { Attributes, type Metadata, unknownMode } from "./Attributes.ts"
import { Copier, type LinkMode, metadataOf, xattrsOf } from "./Copy.ts"
import { Refused } from "./Fault.ts"
import { FolderTree } from "./FolderTree.ts"
import { entersAll, LayerSource, list, type ListedName } from "./LayerSource.ts"
import type { Unset, UnsetCounts } from "./Meta.ts"
import * as Name from "./Name.ts"
import { removeTree } from "./Remove.ts"
import { type Folder, type Place, Root } from "./Root.ts"
import { codeOf, relocate, type Syscalls } from "./Syscalls.ts"

/** A layer as `Apply` left it: `folder` holds `fs/` and `meta`. */
export interface MergeLayer {
  readonly folder: string
  /** True: it is taken apart, its files end up in the root file system. False: it stays as it is. */
  readonly move: boolean
}

/** How to build a root file system. */
export interface MergeOptions {
  /** How files of layers that stay are copied. */
  readonly link: LinkMode
  /** A path on the root's file system, outside it, for a folder that is made, used and removed. */
  readonly hold: string
  readonly syscalls: Syscalls
  /** Called for each entry and every 256 KiB copied; what it throws ends the merge where it is. */
  readonly stop?: (() => void) | undefined
}

/** How many names of the root file system could not be given all that their layers say. */
export interface MergeSummary {
  readonly unset: UnsetCounts
}

/**
 * Builds a root file system in the existing empty 0700 folder `root` from `layers`, bottom first: what applying them one
 * after the other would give (image-spec, layer.md#applying-changesets). A layer whose `fs/` is on another file system is
 * copied. Nothing outside `root`, `hold` and the layers that may be moved is changed, whatever the layers say. Throws
 * `Refused` for a layer's fault, `MetaDamaged`, and Node's errors; the caller removes what is there then.
 */
export const merge = (root: string, layers: ReadonlyArray<MergeLayer>, options: MergeOptions): MergeSummary => {
  const merger = new Merger(root, options)
  try {
    for (const layer of layers) merger.add(layer)
    return merger.finish()
  } finally {
    merger.close()
  }
}

/** A folder of a layer, being merged into the folder `lower`. */
interface Frame {
  readonly upper: Name.Name
  readonly lower: Name.Name
  readonly entries: ReadonlyArray<ListedName>
  next: number
  /** Whether the lower folder's metadata is safe from changes in it. */
  kept: boolean
  /** What the lower folder, made for this frame, gets once it is filled. */
  readonly fill: Metadata | undefined
}

const frameOf = (layer: LayerSource, upper: Name.Name, lower: Name.Name, kept = false, fill?: Metadata): Frame =>
  ({ upper, lower, entries: list(layer.folder(upper)), next: 0, kept, fill })

const deviceKinds = { char: constants.S_IFCHR, block: constants.S_IFBLK, fifo: constants.S_IFIFO }
const refusals = new Set(["EPERM", "EACCES", "ENOTSUP", "EINVAL"])

class Merger {
  private readonly root: Root
  private readonly options: MergeOptions
  private readonly stop: () => void
  private readonly device: bigint
  /** What folders get in the end; until then those of an ordinary user can all be entered and written. */
  private readonly folders = new FolderTree()
  private readonly implied: Metadata
  private readonly privileged = process.geteuid?.() === 0
  private readonly entersAll = entersAll()
  private readonly unset = { owners: 0, devices: 0, xattrs: 0, times: 0 }
  private readonly makeImplied = (place: Place) => this.imply(place)
  private held = 0
  /** What is being worked on, for errors. */
  private at: Name.Name = ""

  constructor(path: string, options: MergeOptions) {
    this.options = options
    this.stop = options.stop ?? (() => {})
    this.root = new Root(path)
    try {
      const { dev, uid, gid } = lstatSync(path, { bigint: true })
      this.device = dev
      this.implied = { mode: 0o755, uid: Number(uid), gid: Number(gid), mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
      mkdirSync(options.hold, { mode: 0o700, recursive: true })
    } catch (error) {
      this.root.close()
      throw error
    }
    this.folders.set("", this.implied)
  }

  add({ folder, move }: MergeLayer): void {
    const near = lstatSync(`${folder}/fs`, { bigint: true }).dev === this.device
    const layer = new LayerSource(folder, { move: move && near, entersAll: this.entersAll, stop: this.stop })
    try {
      const held = layer.links.map(({ path, target }) => ({ path, file: this.holdTarget(path, target) }))
      for (const path of layer.opaques) this.empty(layer, path)
      for (const path of layer.whiteouts) this.hide(layer, path)
      this.walk(layer, near ? this.options.link : "copy")
      for (const { path, file } of held) this.put(path, file)
      for (const [path, mode] of layer.locked) if (layer.move) this.lock(path, mode)
      for (const { path, ...unset } of layer.unset()) this.restore(path, unset)
    } catch (error) {
      throw this.fault(error)
    } finally {
      layer.close()
    }
  }

  finish(): MergeSummary {
    try {
      for (const [name, metadata] of this.folders.deepestFirst()) {
        this.stop()
        this.at = name
        this.settle(name, metadata)
      }
      removeTree(this.options.hold, { stop: this.stop })
    } catch (error) {
      throw this.fault(error)
    }
    return { unset: this.unset }
  }

  close(): void {
    this.root.close()
  }

  // ── What a layer takes from those below ──────────────────────────────────

  /** Gives a hard link's target in the layers below a second name, whatever happens to the first. */
  private holdTarget(path: Name.Name, target: Name.Name): string {
    this.stop()
    this.at = target
    const refuse = (reason: string) => new Refused(`its hard link target "${Name.bytes(target).toString()}" ${reason}`, Name.bytes(path))
    let place: Place | undefined
    try {
      place = this.root.locate(target)
    } catch (error) {
      throw error instanceof Refused ? refuse(`cannot be reached: ${error.rule}`) : error
    }
    const is = place && lstatSync(place.path, { throwIfNoEntry: false })
    if (place === undefined || is === undefined) throw refuse("is in no layer")
    if (is.isDirectory()) throw refuse("is a folder")
    const file = `${this.options.hold}/link-${this.held++}`
    linkSync(place.path, file)
    return file
  }

  /**
   * The folder that a layer's `name` stands for in the layers below; undefined if there is none, or if a folder of the
   * layer's own will be in its place.
   */
  private below(layer: LayerSource, name: Name.Name): Folder | undefined {
    try {
      const folder = this.root.enter(name)
      if (folder === undefined || folder.name === name) return folder
      for (let end = name.indexOf("/");; end = name.indexOf("/", end + 1)) {
        const part = end === -1 ? name : name.slice(0, end)
        const place = this.root.locate(part)
        if (layer.declares(part) && place !== undefined && !lstatSync(place.path).isDirectory()) return undefined
        if (end === -1) return this.root.enter(name)
      }
    } catch (error) {
      if (error instanceof Refused) return undefined // a file, or a loop of symlinks, on the way: nothing is there
      throw error
    }
  }

  private empty(layer: LayerSource, path: Name.Name): void {
    this.stop()
    this.at = path
    const folder = this.below(layer, path)
    if (folder === undefined) return
    const names = readdirSync(`${folder.prefix}.`, { encoding: "buffer" })
    if (names.length === 0) return
    this.keep(folder)
    for (const name of names) this.remove(this.root.place(folder, name.toString("latin1")))
  }

  private hide(layer: LayerSource, path: Name.Name): void {
    this.stop()
    this.at = path
    const folder = this.below(layer, Name.parent(path))
    const place = folder && this.root.place(folder, Name.last(path))
    if (place === undefined || lstatSync(place.path, { throwIfNoEntry: false }) === undefined) return
    this.keep(place.folder)
    this.remove(place)
  }

  // ── What a layer brings ──────────────────────────────────────────────────

  private walk(layer: LayerSource, link: LinkMode): void {
    const copier = new Copier({ syscalls: this.options.syscalls, stop: this.stop, link, hold: `${this.options.hold}/group-${this.held++}-` })
    if (layer.declares("")) this.folders.set("", layer.metadata("", this.options.syscalls))
    const frames = [frameOf(layer, "", "")]
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const entry = frame.entries[frame.next++]
      if (entry !== undefined) {
        this.stop()
        const inner = this.bring(layer, copier, frame, entry)
        if (inner !== undefined) frames.push(inner)
      } else {
        frames.pop()
        if (frame.fill !== undefined) this.filled(frame.lower, frame.fill)
      }
    }
  }

  /** One entry of a layer's folder; the answer is what is to be done in it. */
  private bring(layer: LayerSource, copier: Copier, frame: Frame, { segment, isFolder }: ListedName): Frame | undefined {
    this.at = Name.join(frame.upper, segment)
    const from = layer.place(frame.upper, segment)
    const to = this.root.place(this.entered(frame.lower), segment)
    const there = lstatSync(to.path, { throwIfNoEntry: false })
    if (isFolder && there !== undefined) {
      if (layer.isImplied(from.name)) return frameOf(layer, from.name, this.entered(to.name, this.makeImplied).name)
      if (there.isDirectory()) {
        const metadata = layer.metadata(from.name, this.options.syscalls)
        this.strip(to, metadata)
        this.folders.set(to.name, metadata)
        return frameOf(layer, from.name, to.name, true)
      }
    }
    if (!frame.kept) this.keep(to.folder)
    frame.kept = true
    // A rename takes the place of all but folders; handles know of folders and symlinks.
    if (there !== undefined && (isFolder || there.isDirectory() || there.isSymbolicLink())) this.remove(to)
    else if (there !== undefined && !layer.move) unlinkSync(to.path)
    if (layer.move) renameSync(from.path, to.path)
    else if (isFolder) {
      mkdirSync(to.path, 0o700)
      return frameOf(layer, from.name, to.name, true, layer.metadata(from.name, this.options.syscalls))
    } else this.count(copier.copy({ path: from.path, stats: lstatSync(from.path, { bigint: true }) }, to.path))
    return undefined
  }

  /** A folder over a folder brings its own extended attributes only: one that has others is made anew, around its children. */
  private strip(place: Place, { xattrs }: Metadata): void {
    const old = xattrsOf(place.path, this.options.syscalls)
    if (old.every(([name]) => xattrs.some(([other]) => other.equals(name)))) return
    const fresh = `${this.options.hold}/folder-${this.held++}`
    this.keep(place.folder)
    mkdirSync(fresh, 0o700)
    for (const { segment } of list(this.entered(place.name))) {
      const to = Buffer.from(`${fresh}/${segment}`, "latin1")
      renameSync(this.root.place(this.entered(place.name), segment).path, to)
    }
    this.root.forget(place.name)
    rmdirSync(place.path)
    renameSync(fresh, place.path)
  }

  /** Puts a held file in its place. */
  private put(path: Name.Name, file: string): void {
    this.stop()
    this.at = path
    renameSync(file, this.cleared(path).path)
  }

  /** A place for something that is no folder, where nothing is any more. */
  private cleared(path: Name.Name): Place {
    const place = this.root.locate(path, this.makeImplied)
    this.keep(place.folder)
    if (lstatSync(place.path, { throwIfNoEntry: false }) !== undefined) this.remove(place)
    return place
  }

  // ── What could not be set, or not yet ────────────────────────────────────

  /** Sets what could not be set when the layer was applied, as far as it can be here. */
  private restore(path: Name.Name, unset: Unset): void {
    this.stop()
    this.at = path
    if (unset.device !== undefined) return this.makeDevice(path, unset, unset.device)
    if (!this.privileged && unset.xattrs === undefined && unset.mtime === undefined && unset.mode === undefined) return this.count(unset)
    const place = path === "" ? undefined : this.root.locate(path)
    if (place === undefined && path !== "") return
    const stats = lstatSync(place?.path ?? `${this.root.top.prefix}.`, { bigint: true, throwIfNoEntry: false })
    if (stats === undefined) return
    if (place === undefined || stats.isDirectory()) {
      const folder = this.entered(place?.name ?? "")
      return this.folders.set(folder.name, completed(this.keep(folder), unset))
    }
    const has = { ...metadataOf({ path: place.path, stats }, this.options.syscalls), xattrs: [] }
    // A new owner costs a file its set-ID bits.
    const mode = stats.isSymbolicLink() ? undefined : unset.uid === undefined && unset.gid === undefined ? has.mode : unknownMode
    this.count(new Attributes(this.options.syscalls, { uid: has.uid, gid: has.gid, cut: 0 }).set(place.path, undefined, completed(has, unset), mode))
  }

  private makeDevice(path: Name.Name, unset: Unset, [type, major, minor]: NonNullable<Unset["device"]>): void {
    const { path: at } = this.cleared(path)
    try {
      this.options.syscalls.mknod(at, deviceKinds[type] | 0o600, major, minor)
    } catch (error) {
      if (!refusals.has(codeOf(error) ?? "")) throw error
      return this.count(unset)
    }
    this.count(new Attributes(this.options.syscalls, unknownOwner).set(at, undefined, completed(this.implied, unset), unknownMode))
  }

  private imply(place: Place): void {
    this.keep(place.folder)
    mkdirSync(place.path, 0o700)
    this.folders.set(place.name, this.implied)
  }

  /** What an existing folder will get: what it has, unless that is decided already. Before anything is changed in it. */
  private keep(folder: Folder): Metadata {
    const known = this.folders.get(folder.name)
    if (known !== undefined) return known
    const path = `${folder.prefix}.`
    const metadata = { ...metadataOf({ path, stats: lstatSync(path, { bigint: true }) }, this.options.syscalls), xattrs: [] }
    this.folders.set(folder.name, metadata)
    return metadata
  }

  /** A moved folder whose mode was in the way gets it back in the end. */
  private lock(path: Name.Name, mode: number): void {
    this.at = path
    const folder = this.entered(path)
    this.folders.set(folder.name, { ...this.keep(folder), mode })
  }

  /** A folder made here has all its children. */
  private filled(name: Name.Name, metadata: Metadata): void {
    const open = this.entersAll || (metadata.mode & 0o700) === 0o700
    if (open && this.folders.get(name) === undefined) this.settle(name, metadata)
    else this.folders.set(name, metadata)
  }

  private settle(name: Name.Name, metadata: Metadata): void {
    const path = `${this.entered(name).prefix}.`
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      const { uid, gid, mode } = fstatSync(fd)
      this.count(new Attributes(this.options.syscalls, { uid, gid, cut: 0 }).set(path, fd, metadata, mode & 0o7777))
    } finally {
      closeSync(fd)
    }
  }

  private remove(place: Place): void {
    this.root.forget(place.name)
    this.folders.delete(place.name)
    removeTree(place.path, { stop: this.stop })
  }

  private entered(name: Name.Name, make?: (place: Place) => void): Folder {
    const folder = this.root.enter(name, make)
    if (folder === undefined) throw new Refused("another entry of its layer removes the folder it is in", Name.bytes(this.at))
    return folder
  }

  private count(unset: Unset | undefined): void {
    if (unset === undefined) return
    const { device, uid, gid, xattrs, mtime } = unset
    if (device !== undefined) this.unset.devices++
    else {
      if (uid !== undefined || gid !== undefined) this.unset.owners++
      if (xattrs !== undefined) this.unset.xattrs++
      if (mtime !== undefined) this.unset.times++
    }
  }

  private fault(error: unknown): unknown {
    const handle = error instanceof Error && "path" in error && typeof error.path === "string" && error.path.startsWith("/proc/self/fd/")
    return handle ? relocate(error, this.root.real(this.at)) : error
  }
}

const unknownOwner = { uid: -1, gid: -1, cut: 0 }

/** What something has, with what a record says it should have in its place. */
const completed = (has: Metadata, { uid = has.uid, gid = has.gid, mode = has.mode, mtime, xattrs = [] }: Unset): Metadata => {
  const [mtimeSeconds, mtimeNanos] = mtime ?? [has.mtimeSeconds, has.mtimeNanos]
  const more = xattrs.map(([name, value]) => [Buffer.from(name, "latin1"), Buffer.from(value, "base64")] as const)
  return { uid, gid, mode, mtimeSeconds, mtimeNanos, xattrs: [...has.xattrs, ...more] }
}
