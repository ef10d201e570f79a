// Run by Cases.test.ts as a process of its own: applies every case below the folder of its first argument as the user 65534.
import { join } from "node:path"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { layerCases } from "../../../src/testing/LayerCases.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { applyTar, described } from "./cases.ts"
import { descriptors } from "./Entries.ts"

const [, , folder = "", native] = process.argv
const syscalls = Syscalls.load({ native: native === "native" })
process.umask(0o077)
process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
const before = descriptors()
const outcomes = layerCases.map(({ expect, tar }, index) => {
  const place = join(folder, String(index))
  const refused = applyTar(tar, place, syscalls, 4096)
  const outcome = refused === undefined ? { tree: described(place, "tree" in expect ? expect.tree : [], { owners: false, exact: native === "native" }) } : { refused }
  removeTree(place)
  return outcome
})
process.stdout.write(JSON.stringify({ outcomes, leaked: descriptors() - before }))
