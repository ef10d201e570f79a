import { Buffer } from "node:buffer"
import { closeSync, constants, lstatSync, openSync } from "node:fs"
import type { Entry } from "./tar/Entry.ts"
import { Refused } from "./Fault.ts"
import { LayerSource } from "./merge/LayerSource.ts"
import * as Sums from "./sums/Sums.ts"
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

/** Reads an unpacked layer (a folder with `fs/` and `meta`) into a root file system, as its tar would be. Throws `Refused`, `MetaDamaged`, and Node's errors. */
export const show = (view: View, folder: string, options: Sums.SumsOptions): void => {
  const layer = new LayerSource(folder, { move: false })
  const { links } = layer
  const hidden = [...layer.hidden()]
  layer.close()
  view.begin()
  const held = view.hold(links)
  const within = new Map<Name.Name, Array<(typeof hidden)[number]>>()
  for (const record of hidden) {
    const place = record.opaque ? record.path : Name.parent(record.path)
    within.set(place, [...within.get(place) ?? [], record])
  }
  const hideIn = (place: Name.Name) => {
    for (const { opaque, path } of within.get(place) ?? []) view.hideAll(path, opaque)
    within.delete(place)
  }
  // What hides in a folder does so once the folder is there, and before what this layer has in it.
  hideIn("")
  for (const sum of Sums.of(folder, options)) {
    const entry = entryOf(sum)
    if (entry !== undefined) {
      view.entry(entry)
      if (entry.type === "file") view.known(sum.data.split(" ")[1])
    }
    if (sum.type === "dir") hideIn(sum.name)
  }
  for (const place of within.keys()) hideIn(place)
  view.put(held)
  view.finish()
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
