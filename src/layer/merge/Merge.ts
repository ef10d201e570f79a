import { linkSync, lstatSync, mkdirSync, renameSync, unlinkSync } from "node:fs"
import { constants as system } from "node:os"
import { Assembly } from "./Assembly.ts"
import type { Metadata } from "../apply/Attributes.ts"
import { Copier, type LinkMode } from "./Copy.ts"
import type { OwnerMap } from "./Owners.ts"
import { printable, Refused } from "../Fault.ts"
import { LayerSource, type LinkRecord } from "./LayerSource.ts"
import type { Unset, UnsetCounts } from "../apply/Meta.ts"
import { list, type ListedName } from "../table/Listing.ts"
import { Sequence } from "../table/Sequence.ts"
import * as Name from "../tree/Name.ts"
import type { Folder } from "../tree/Root.ts"
import { codeOf, systemError, type Syscalls, type SystemPath } from "../Syscalls.ts"

/** A layer as `Apply` left it: `folder` holds `fs/` and `meta`. */
export interface MergeLayer {
  readonly folder: string
  /** True: it is taken apart, its files end up in the root file system. False: it stays as it is. */
  readonly move: boolean
}

/** How to build a root file system. */
export interface MergeOptions {
  /** How files of layers that stay are copied; `hardlink`: they are not, the root file system is for reading only. */
  readonly link: LinkMode | "hardlink"
  /** Who owns what; as the layers say unless told otherwise. */
  readonly owners?: OwnerMap | undefined
  /** The root file system is only to be looked at, by this, before its folders get their metadata: see `AssemblyOptions.recorded`. */
  readonly inspect?: ((assembly: Assembly) => void) | undefined
  /** A path outside the root, on its file system: a folder that is made there, used and removed. */
  readonly hold: string
  readonly syscalls: Syscalls
  /** Called for each entry and every 256 KiB copied; what it throws ends the merge where it is. */
  readonly stop?: (() => void) | undefined
  /** Bytes that what is remembered of names may take in memory: 16 MiB. */
  readonly memory?: number | undefined
}

/** How many names of the root file system could not be given all that their layers say. */
export interface MergeSummary {
  readonly unset: UnsetCounts
}

/**
 * Builds a root file system in the existing empty 0700 folder `root` from `layers`, bottom first: what applying them one
 * after the other would give (image-spec, layer.md#applying-changesets). A layer on another file system is copied.
 * Nothing outside `root`, `hold` and the layers that may be moved is changed, whatever the layers say. Throws `Refused` for
 * a layer's fault, `MetaDamaged`, and Node's errors; the caller then removes what is there.
 */
export const merge = (root: string, layers: ReadonlyArray<MergeLayer>, options: MergeOptions): MergeSummary => {
  const { hold, syscalls, link, memory, owners, inspect, stop = () => {} } = options
  if (link === "hardlink" && owners !== undefined && inspect === undefined && layers.some(({ move }) => !move)) {
    throw new Refused("owners cannot be mapped on hard links, which would change the stored layers too: use --link copy or reflink")
  }
  const assembly = new Assembly(root, { hold, syscalls, stop, owners, memory, recorded: inspect !== undefined })
  try {
    for (const { folder, move } of layers) {
      const near = lstatSync(`${folder}/fs`, { bigint: true }).dev === assembly.device
      const layer = new LayerSource(folder, { move: move && near, room: assembly.room })
      try {
        if (!near && (link === "hardlink" || link === "reflink")) throw systemError(system.errno.EXDEV, "link", root)
        const changeset = new Changeset(assembly, layer, { link: near ? link : "copy", syscalls, stop })
        try {
          changeset.apply()
        } finally {
          changeset.close()
        }
      } finally {
        layer.close()
      }
    }
    inspect?.(assembly)
    return { unset: assembly.finish() }
  } catch (error) {
    throw assembly.fault(error)
  } finally {
    assembly.close()
  }
}

/** A folder of a layer that is being merged into the folder `lower`. */
interface Frame {
  readonly upper: Name.Name
  readonly lower: Name.Name
  readonly entries: Generator<ListedName, void>
  /** Whether the lower folder's metadata is safe from changes in it. */
  kept: boolean
  /** What the lower folder, made for this frame, gets once it is filled. */
  readonly fill: Metadata | undefined
}

/** A hard link's target: where it was, its other name, and what is recorded of it. A device that is only recorded has no name. */
interface Held {
  readonly name: Name.Name
  readonly file: string | undefined
  readonly record: Unset | undefined
}

/** One layer on its way into a root file system. */
class Changeset {
  private readonly into: Assembly
  private readonly layer: LayerSource
  private readonly syscalls: Syscalls
  private readonly stop: () => void
  private readonly copier: Copier
  /** Files are shared with a layer that stays. */
  private readonly shared: boolean
  /** The targets of its links to layers below that were there before anything was taken away, or null. */
  private readonly held: Sequence<Held | null>

  constructor(into: Assembly, layer: LayerSource, options: { readonly link: LinkMode | "hardlink"; readonly syscalls: Syscalls; readonly stop: () => void }) {
    this.into = into
    this.layer = layer
    this.syscalls = options.syscalls
    this.stop = options.stop
    this.shared = options.link === "hardlink" && !layer.move
    this.copier = new Copier({ ...options, link: options.link === "hardlink" ? "auto" : options.link, hold: `${into.fresh()}-`, room: into.room })
    this.held = new Sequence(into.room)
  }

  /** Forgets everything; may be called again. */
  close(): void {
    this.held.close()
    this.copier.close()
  }

  /** What it takes away comes first: that concerns the layers below only, and hard links may want it. */
  apply(): void {
    const { into, layer } = this
    for (const link of layer.links()) {
      const target = this.hold(link, false)
      this.held.add(target ?? null, 2 * link.target.length + 200)
    }
    for (const { path, opaque } of layer.hidden()) {
      if (opaque) this.empty(path)
      else this.hide(path)
    }
    this.walk()
    const held = this.held[Symbol.iterator]()
    for (const link of layer.links()) {
      const from = held.next().value ?? this.hold(link, true)
      if (from !== undefined) this.put(link.path, from)
    }
    for (const { path, ...unset } of layer.unset()) into.restore(path, unset, this.shared)
  }

  /**
   * Gives a hard link's target another name, whatever happens to the first. Undefined if it is not there yet
   * but may come (not the `last` time): it may be a file of this layer under the name that a symlink of the layers below
   * gives it. What this layer has under the very name comes after the link, or `Apply` would have found it.
   */
  private hold({ path, target }: LinkRecord, last: boolean): Held | undefined {
    this.at(target)
    const { root } = this.into
    const refuse = (reason: string) => new Refused(`its hard link target "${printable(Name.bytes(target))}": ${reason}`, Name.bytes(path))
    try {
      const place = root.locate(target)
      const is = place && lstatSync(place.path, { throwIfNoEntry: false })
      if (place !== undefined && is !== undefined) {
        if (is.isDirectory()) throw new Refused("it is a folder")
        const file = this.into.fresh()
        linkSync(place.path, file)
        return { file, name: place.name, record: this.into.records.get(place.name) }
      }
      const record = place && this.into.records.get(place.name)
      if (place !== undefined && record !== undefined) return { file: undefined, name: place.name, record }
    } catch (error) {
      throw error instanceof Refused ? refuse(error.rule) : error
    }
    if (last || this.layer.has(target)) throw refuse("it is in no layer")
    return undefined
  }

  private put(path: Name.Name, { file, name, record }: Held): void {
    this.at(path)
    const place = this.into.cleared(path)
    if (`${name}/`.startsWith(`${place.name}/`)) throw new Refused("its hard link target is what it replaces", Name.bytes(path))
    if (file !== undefined) {
      renameSync(file, place.path)
      if (record !== undefined) this.into.records.set(place.name, record)
    } else if (record !== undefined) this.into.restore(place.name, record)
  }

  /**
   * The folder that the layer's `name` stands for in the layers below; undefined if there is none, or if a folder of the
   * layer's own will be in its place.
   */
  private below(name: Name.Name): Folder | undefined {
    const { root } = this.into
    try {
      const folder = root.enter(name)
      if (folder === undefined || folder.name === name) return folder
      for (let end = 0; end !== -1;) {
        end = name.indexOf("/", end + 1)
        const part = end === -1 ? name : name.slice(0, end)
        const place = root.locate(part)
        if (place !== undefined && !lstatSync(place.path).isDirectory() && this.layer.declares(part)) return undefined
      }
      return root.enter(name)
    } catch (error) {
      if (error instanceof Refused) return undefined // a file, or a loop of symlinks, on the way: nothing is there
      throw error
    }
  }

  /** An opaque folder. */
  private empty(path: Name.Name): void {
    this.at(path)
    const folder = this.below(path)
    if (folder === undefined) return
    this.into.records.clear(folder.name)
    for (const { segment } of list(`${folder.prefix}.`, this.into.room)) {
      const again = this.into.entered(folder.name)
      this.into.keep(again)
      this.into.remove(this.into.root.place(again, segment))
    }
  }

  /** A whiteout. */
  private hide(path: Name.Name): void {
    this.at(path)
    const folder = this.below(Name.parent(path))
    const place = folder && this.into.root.place(folder, Name.last(path))
    if (place !== undefined) this.into.records.delete(place.name)
    if (place === undefined || lstatSync(place.path, { throwIfNoEntry: false }) === undefined) return
    this.into.keep(place.folder)
    this.into.remove(place)
  }

  private walk(): void {
    if (this.layer.declares("")) this.into.declareRoot(this.layer.metadata("", this.syscalls))
    const frames = [this.frame("", "")]
    try {
      for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
        const entry = frame.entries.next()
        if (entry.done !== true) {
          const inner = this.bring(frame, entry.value)
          if (inner !== undefined) frames.push(inner)
        } else {
          frames.pop()
          if (frame.fill !== undefined) this.into.filled(frame.lower, frame.fill)
        }
      }
    } finally {
      for (const { entries } of frames) entries.return()
    }
  }

  /** One entry of a layer's folder; the answer is what is to be done in it. */
  private bring(frame: Frame, { segment, isFolder }: ListedName): Frame | undefined {
    const { into, layer } = this
    this.at(Name.join(frame.upper, segment))
    const from = layer.place(frame.upper, segment)
    const to = into.root.place(into.entered(frame.lower), segment)
    const there = lstatSync(to.path, { throwIfNoEntry: false })
    if (isFolder && there !== undefined) {
      if (layer.isImplied(from.name)) return this.frame(from.name, into.entered(to.name, into.makeImplied).name)
      if (there.isDirectory()) {
        into.declare(to, layer.metadata(from.name, this.syscalls))
        return this.frame(from.name, to.name, { kept: true })
      }
    }
    if (!frame.kept) into.keep(to.folder)
    frame.kept = true
    into.records.delete(to.name)
    // A rename takes the place of all but folders; handles know of folders and symlinks.
    if (there !== undefined && (isFolder || there.isDirectory() || there.isSymbolicLink())) into.remove(to)
    else if (there !== undefined && !layer.move) unlinkSync(to.path)
    if (layer.move) renameSync(from.path, to.path)
    else if (isFolder) {
      mkdirSync(to.path, 0o700)
      return this.frame(from.name, to.name, { kept: true, fill: layer.isImplied(from.name) ? into.implied : layer.metadata(from.name, this.syscalls) })
    } else if (!this.shared || !linked(from.path, to.path)) into.count(this.copier.copy({ path: from.path, stats: lstatSync(from.path, { bigint: true }) }, to.path))
    return undefined
  }

  private frame(upper: Name.Name, lower: Name.Name, { kept = false, fill }: { readonly kept?: boolean; readonly fill?: Metadata } = {}): Frame {
    return { upper, lower, entries: list(`${this.layer.folder(upper).prefix}.`, this.into.room), kept, fill }
  }

  /** The next entry. */
  private at(name: Name.Name): void {
    this.stop()
    this.into.at = name
  }
}

/** Gives a file another name; false if it has as many as its file system allows. */
const linked = (from: SystemPath, to: SystemPath): boolean => {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (codeOf(error) === "EMLINK") return false
    throw error
  }
}
