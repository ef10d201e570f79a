// Run by ApplyUser.test.ts as a process of its own: applies the items of its first argument as the user 65534.
import { mkdirSync, readdirSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { applied, type Item, thrown } from "./Entries.ts"

const [, , folder = "", native, text = "[]"] = process.argv
const items: ReadonlyArray<Item> = JSON.parse(text)
const syscalls = Syscalls.load({ native: native === "native" })
// Modules are loaded and the umask is set by now: the rest is done as an ordinary user would.
process.umask(0o077)
process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
mkdirSync(folder, { mode: 0o700 })
const before = readdirSync("/proc/self/fd").length
let result: unknown
const error = thrown(() => {
  const { summary, records } = applied(folder, items, { syscalls })
  result = { summary, records }
})
const own = readdirSync("/proc/self/fd").length - before
process.stdout.write(JSON.stringify(error === undefined ? { result, own } : { error: String(error), own, at: readlinkSync(join("/proc/self/cwd")) }))
