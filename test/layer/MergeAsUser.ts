// Run by MergeUser.test.ts as a process of its own: applies layers as the user 65534 and merges them, in the folder of its first argument.
import { chmodSync, lstatSync, mkdirSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { merge } from "../../src/layer/Merge.ts"
import { removeTree } from "../../src/layer/Remove.ts"
import * as Syscalls from "../../src/layer/Syscalls.ts"
import { applied, descriptors, type Item, thrown } from "./Entries.ts"

const [, , folder = "", how, text = "[]"] = process.argv
const layers: ReadonlyArray<ReadonlyArray<Item>> = JSON.parse(text)
const syscalls = Syscalls.load()
process.umask(0o077)
process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
const before = descriptors()
let result: unknown
const error = thrown(() => {
  const folders = layers.map((items, index) => {
    const layer = join(folder, String(index))
    mkdirSync(layer, { mode: 0o700 })
    applied(layer, items, { syscalls })
    return { folder: layer, move: how === "move" }
  })
  if (how === "apply") return
  mkdirSync(join(folder, "root"), { mode: 0o700 })
  const { unset } = merge(join(folder, "root"), folders, { link: "auto", hold: join(folder, "hold"), syscalls })
  result = { unset, left: readdirSync(folder).sort() }
  if (how !== "remove") return
  // What the caller could not look at as itself it can now.
  removeTree(join(folder, "root"))
  chmodSync(folder, lstatSync(folder).mode)
  for (const { folder: layer } of folders) removeTree(layer)
})
process.stdout.write(JSON.stringify({ result, error: error === undefined ? undefined : String(error), leaked: descriptors() - before }))
