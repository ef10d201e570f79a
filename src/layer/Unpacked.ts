import { Buffer } from "node:buffer"
import { closeSync, constants, lstatSync, openSync } from "node:fs"
import type { Entry } from "./tar/Entry.ts"
import { Refused } from "./Fault.ts"
import { type Hidden, LayerSource } from "./merge/LayerSource.ts"
import * as Sums from "./sums/Sums.ts"
import { Sorted } from "./table/Sorted.ts"
import type { Room } from "./table/Table.ts"
import * as Name from "./tree/Name.ts"
import type { View } from "./view/View.ts"

const nothing: Buffer = Buffer.alloc(0)

/** The entry of a tar that would have made this name. */
const entryOf = ({ data, mode, mtime, name, owner, type, xattrs }: Sums.Sum): Entry | undefined => {
  if (type === "journal" || type === "socket" || data === "implied") return undefined
  const [uid, gid] = owner.split(":").map(Number)
  const [mtimeSeconds, mtimeNanos] = mtime.split(".").map(Number)
  const linked = data.startsWith("link ")
  const [devmajor, devminor] = type === "char" || type === "block" ? data.split(",").map(Number) : []
  return {
    type: linked ? "link" : type, path: Name.bytes(name === "" ? "." : name),
    linkpath: linked ? Name.bytes(data.slice("link ".length)) : type === "symlink" ? Name.bytes(data.slice("to ".length)) : nothing,
    mode, uid: uid ?? 0, gid: gid ?? 0, size: type === "file" && !linked ? Number(data.split(" ")[0]) : 0,
    mtimeSeconds: mtimeSeconds ?? 0, mtimeNanos: mtimeNanos ?? 0, devmajor: devmajor ?? 0, devminor: devminor ?? 0,
    xattrs: xattrs.map(([key, value]) => [Buffer.from(key, "latin1"), Buffer.from(value, "base64")]), sparse: undefined
  }
}

/** A folder's name as it is in the order of a walk: before what is in it. */
const placeOf = (name: Name.Name): string => `${Name.inOrder(name)}\u0000`

/** Wide enough for every number of records. */
const numbered = 12

/** What a layer hides, in the order of a walk through it; what it hides in folders that it does not have comes last, as the layer has it. */
class Hiding {
  private readonly all: Sorted
  private readonly others: Sorted
  private readonly rest: Generator<string, void>
  private next: { readonly place: string; readonly rest: string } | undefined

  constructor(records: Iterable<Hidden>, room: Room) {
    this.all = new Sorted(room)
    this.others = new Sorted(room)
    let count = 0
    for (const { opaque, path } of records) {
      const place = placeOf(opaque ? path : Name.parent(path))
      this.all.add(`${place}\u0000${String(count++).padStart(numbered)}${opaque ? "o" : "w"}${path}`)
    }
    this.rest = this.all.all()
    this.advance()
  }

  /** What is hidden in a folder that the walk has come to. */
  *in(name: Name.Name): Generator<Hidden> {
    for (const place = placeOf(name); this.next !== undefined && this.next.place <= place; this.advance()) {
      if (this.next.place === place) yield hidden(this.next.rest)
      else this.others.add(this.next.rest)
    }
  }

  /** The walk has ended. */
  *left(): Generator<Hidden> {
    for (; this.next !== undefined; this.advance()) this.others.add(this.next.rest)
    for (const rest of this.others.all()) yield hidden(rest)
  }

  close(): void {
    this.all.close()
    this.others.close()
  }

  private advance(): void {
    const { done, value } = this.rest.next()
    const end = value?.indexOf("\u0000\u0000") ?? 0
    this.next = done === true ? undefined : { place: value.slice(0, end + 1), rest: value.slice(end + 2) }
  }
}

const hidden = (rest: string): Hidden => ({ opaque: rest[numbered] === "o", path: rest.slice(numbered + 1) })

/**
 * Reads an unpacked layer (a folder with `fs/` and `meta`) into a root file system, as its tar would be. What is too much for the `room`
 * goes into files. Throws `Refused`, `MetaDamaged`, and Node's errors.
 */
export const show = (view: View, folder: string, options: Sums.SumsOptions & { readonly room: Room }): void => {
  const layer = new LayerSource(folder, { move: false })
  let hiding: Hiding | undefined
  try {
    view.begin()
    for (const { path, target } of layer.links()) view.hold(path, target)
    hiding = new Hiding(layer.hidden(), options.room)
    layer.close()
    // What hides in a folder does so once the folder is there, and before what this layer has in it.
    for (const { opaque, path } of hiding.in("")) view.hide(path, opaque)
    for (const sum of Sums.of(folder, options)) {
      const entry = entryOf(sum)
      if (entry !== undefined) {
        view.entry(entry)
        if (entry.type === "file") view.known(sum.data.split(" ")[1])
      }
      if (sum.type === "dir") for (const { opaque, path } of hiding.in(sum.name)) view.hide(path, opaque)
    }
    for (const { opaque, path } of hiding.left()) view.hide(path, opaque)
    view.finish()
  } finally {
    layer.close()
    hiding?.close()
  }
}

/** Opens a file of an unpacked layer by its name there, for reading; the caller closes it. */
export const openFile = (folder: string, name: Name.Name): number => {
  const layer = new LayerSource(folder, { move: false })
  try {
    const { path } = layer.place(Name.parent(name), Name.last(name))
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile() !== true) throw new Refused("it is not in the unpacked layer any more", Name.bytes(name))
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } finally {
    layer.close()
  }
}

/** Closes what `openFile` opened. */
export const closeFile = (fd: number): void => closeSync(fd)
