import type { Entry } from "../tar/Entry.ts"
import { Refused } from "../Fault.ts"
import { opaque, reserved } from "../tree/Markers.ts"
import * as Name from "../tree/Name.ts"

/** Refuses names and links that lead above the root, as Docker did (pkg/archive: breakoutError). */
export const checkConfined = (name: Name.Name, { linkpath, path, type }: Entry): void => {
  if (reserved.test(name) && Name.last(name) !== opaque) return
  // Of an absolute name, `..` at the root is the root.
  if (path[0] !== 0x2f && Name.climbs(path)) throw new Refused("its name leads out of the layer", path)
  if (type === "link" && Name.climbs(linkpath)) throw new Refused("its hard link target is outside the layer", path)
  if (type === "symlink" && Name.climbs(linkpath, Name.parent(name))) throw new Refused("it is a symlink that leads out of the layer", path)
}
