import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { cleanPages } from "../../src/layer/CleanPages.ts"

const mapping = (head: string, { anonymous = 0, dirty = 0, shared = 0, swap = 0 }) => `${head}
Size:               3352 kB
Rss:                3352 kB
Shared_Clean:       3352 kB
Shared_Dirty:     ${String(shared).padStart(6)} kB
Private_Clean:         0 kB
Private_Dirty:    ${String(dirty).padStart(6)} kB
Referenced:         3352 kB
Anonymous:        ${String(anonymous).padStart(6)} kB
Swap:             ${String(swap).padStart(6)} kB
THPeligible:           0
VmFlags: rd ex mr mw me
`

it("Only what is as it is in the file is given back: also while a child is being forked, which shares what is not", () => {
  const node = "/usr/bin/node (x)"
  const smaps = [
    mapping(`00400000-00746000 r--p 00000000 fe:00 77                       ${node}`, {}),
    mapping(`0074a000-03044000 r-xp 0034a000 fe:00 77                       ${node}`, {}),
    mapping(`06b52000-06b56000 r--p 06752000 fe:00 77                       ${node}`, { shared: 16, anonymous: 16 }),
    mapping(`06b56000-06b5a000 r--p 06756000 fe:00 77                       ${node}`, { dirty: 16, anonymous: 16 }),
    mapping(`06b5a000-06b5b000 r--p 0675a000 fe:00 77                       ${node}`, { swap: 4 }),
    mapping(`06b5b000-06b7b000 rw-p 0675b000 fe:00 77                       ${node}`, {}),
    mapping("06b7b000-06b8b000 rw-p 00000000 00:00 0 ", {}),
    mapping("7f0000000000-7f0000001000 r-xp 00000000 fe:00 78               /usr/lib/libc.so.6", {}),
    mapping("7f0000001000-7f0000002000 r--p 00000000 00:00 0 ", {})
  ].join("")
  assert.deepStrictEqual(cleanPages(smaps, node), [["00400000", "00746000"], ["0074a000", "03044000"]])
})

it.runIf(process.platform === "linux")("Some of Node's own file is given back", () => {
  assert.isAbove(cleanPages(readFileSync("/proc/self/smaps", "latin1"), process.execPath).length, 0)
})
