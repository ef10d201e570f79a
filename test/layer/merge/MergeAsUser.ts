// Run by MergeUser.test.ts as a process of its own: as the user 65534 it applies layers below the folder of its first argument
// ("apply"), and merges them: into `root` there ("move", "copy", "hardlink", "squash"), or into `root.tar` ("tar").
import { closeSync, lstatSync, mkdirSync, openSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { flatten } from "../../../src/layer/merge/Flatten.ts"
import { merge } from "../../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { applied, descriptors, type Item, thrown } from "../apply/Entries.ts"

const [, , folder = "", how, text = "[]"] = process.argv
const layers: ReadonlyArray<ReadonlyArray<Item>> = JSON.parse(text)
const syscalls = Syscalls.load()
process.umask(0o077)
process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
const before = descriptors()
let unset: unknown
let touched: ReadonlyArray<string> = []
/** When everything in a folder was changed last, modes included. */
const changes = (folder: string) => readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => `${name} ${lstatSync(join(folder, name), { bigint: true, throwIfNoEntry: false })?.ctimeNs}`)
const error = thrown(() => {
  mkdirSync(folder, { mode: 0o700 })
  const folders = layers.map((items, index) => {
    const layer = join(folder, String(index))
    mkdirSync(layer, { mode: 0o700 })
    applied(layer, items, { syscalls })
    return { folder: layer, move: how === "move" }
  })
  if (how === "apply") return
  mkdirSync(join(folder, "root"), { mode: 0o700 })
  const before = how === "move" ? [] : folders.flatMap(({ folder }) => changes(folder))
  const tar = how === "tar" ? openSync(join(folder, "root.tar"), "wx") : undefined
  unset = merge(join(folder, "root"), folders, {
    link: how === "hardlink" || tar !== undefined ? "hardlink" : "auto", hold: join(folder, "hold"), syscalls,
    ...how === "squash" ? { owners: { uid: "squash", gid: "squash" } } : {},
    ...tar === undefined ? {} : { inspect: (assembly) => flatten(assembly, tar, { syscalls, stop: () => {} }) }
  }).unset
  if (tar !== undefined) closeSync(tar)
  // A hard link is a change too, but of files alone.
  if (how === "copy" || how === "squash") touched = folders.flatMap(({ folder }) => changes(folder)).filter((name) => !before.includes(name))
})
process.stdout.write(JSON.stringify({ unset, error: error === undefined ? undefined : String(error), touched, leaked: descriptors() - before }))
