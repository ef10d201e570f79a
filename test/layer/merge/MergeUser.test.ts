import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { merge } from "../../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { diff, walk } from "../../../src/testing/Tree.ts"
import { applied, device, dir, file, inTemp, type Item, link, privileged, symlink } from "../apply/Entries.ts"

const user = 65534
const syscalls = Syscalls.load()
const options = (folder: string) => ({ link: "auto", hold: join(folder, "hold"), syscalls }) as const

/** Runs the script as the ordinary user in `folder`, which it makes. */
const asUser = (folder: string, how: "apply" | "move" | "copy", layers: ReadonlyArray<ReadonlyArray<Item>>): unknown => {
  const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", join(import.meta.dirname, "MergeAsUser.ts"), folder, how, JSON.stringify(layers)], { encoding: "utf8" })
  assert.strictEqual(stderr, "")
  const answer = JSON.parse(stdout)
  assert.deepStrictEqual([answer.error, answer.leaked], [undefined, 0])
  // Merges at the same time, and one that is killed, leave the stored layers as they are.
  assert.deepStrictEqual(answer.touched, [])
  return answer.unset
}

const asRoot = (folder: string, layers: ReadonlyArray<ReadonlyArray<Item>>, move: boolean) => {
  mkdirSync(join(folder, "root"), { mode: 0o700, recursive: true })
  return merge(join(folder, "root"), layers.map((items, index) => {
    const layer = join(folder, String(index))
    mkdirSync(layer)
    applied(layer, items)
    return { folder: layer, move }
  }), options(folder))
}

const awkward: ReadonlyArray<ReadonlyArray<Item>> = [
  [
    dir("", { mode: 0o555 }), dir("shut", { mode: 0, mtime: [3, 4] }), file("shut/in", "in", { mode: 0 }), dir("shut/deeper", { mode: 0o300 }), file("shut/deeper/f", "f", { mode: 0o400 }),
    dir("fixed", { mode: 0o555, mtime: [5, 6] }), file("fixed/old", "old"), file("fixed/gone", "gone"), dir("fixed/sub", { mode: 0o555 }), file("fixed/sub/x", "x"),
    dir("whole", { mode: 0o500 }), dir("whole/a", { mode: 0 }), file("whole/a/b", "b"), symlink("s", "shut/deeper"), dir("replaced", { mode: 0 }), file("replaced/x", "x"),
    dir("opaque", { mode: 0o100, mtime: [7, 8] }), file("opaque/x"), dir("opaque/y", { mode: 0o400 }), file("opaque/y/z"), file("su", "su", { mode: 0o4755, mtime: [9, 10] }), link("fixed/su", "su")
  ],
  [
    file("fixed/new", "new"), link("shut/held", "fixed/gone"), file("fixed/.wh.gone"), dir("fixed/sub", { mode: 0o311, mtime: [11, 12] }), file("fixed/sub/y", "y"), file("s/through", "t"),
    file("replaced", "flat"), file("opaque/.wh..wh..opq"), file("opaque/new"), file(".wh.whole"), link("shut/deeper/su", "su"), dir("late", { mode: 0 }), dir("late/r", { mode: 0o600 }), file("late/r/f", "", { mode: 0 })
  ],
  [file("late/r/g", "g"), file("shut/deeper/.wh.f"), dir("shut", { mode: 0o111 })]
]

describe.runIf(privileged && syscalls.native)("Merge as an ordinary user", () => {
  it("copes with folders it may not enter, list or write, moved and copied, and gives them their modes", inTemp((folder) => {
    chmodSync(folder, 0o777)
    const mine = awkward.map((items) => items.map((item) => ({ ...item, uid: user, gid: user })))
    for (const how of ["move", "copy"] as const) {
      assert.deepStrictEqual(asUser(join(folder, how), how, mine), { owners: 0, devices: 0, xattrs: 0, times: 0 })
      assert.deepStrictEqual(readdirSync(join(folder, how)).filter((name) => name === "hold"), [])
    }
    asRoot(join(folder, "root"), mine, true)
    const expected = walk(join(folder, "root", "root"))
    assert.include(expected.map(({ path, mode }) => `${path} ${mode.toString(8)}`), "shut/deeper 300")
    for (const how of ["move", "copy"]) assert.deepStrictEqual(diff(walk(join(folder, how, "root")), expected), [])
    asUser(join(folder, "layers"), "apply", mine)
    for (const index of mine.keys()) assert.deepStrictEqual(diff(walk(join(folder, "copy", `${index}`, "fs")), walk(join(folder, "layers", `${index}`, "fs"))), [])
  }))

  const foreign: ReadonlyArray<ReadonlyArray<Item>> = [
    [
      dir("etc", { uid: 1, gid: 2 }), file("etc/f", "f", { uid: 3, gid: 4, mode: 0o6755, xattrs: { "security.capability": Buffer.from("0100000200040000000000000000000000000000", "hex").toString("latin1") } }),
      link("etc/again", "etc/f"), symlink("etc/s", "f", { uid: 5, gid: 6 }), device("char", "dev/null", [1, 3], { mode: 0o666, mtime: [1, 2] }), file("dev/zero", "was a file"),
      dir("t", { xattrs: { "trusted.dir": "x" }, mode: 0o555 }), device("block", "t/b", [8, 0], { mode: 0o660, uid: 7 }), link("dev/second", "dev/null")
    ],
    [file("etc/g", "g", { uid: 8 }), device("char", "dev/zero", [1, 5], { mode: 0o666 }), link("l", "etc/f"), file("dev/.wh.null"), dir("t/sub", { uid: 9 })]
  ]

  it("counts what it cannot set, and leaves nothing of a lower layer in its place", inTemp((folder) => {
    chmodSync(folder, 0o777)
    for (const how of ["move", "copy"] as const) {
      assert.deepStrictEqual(asUser(join(folder, how), how, foreign), { owners: 8, devices: 4, xattrs: 3, times: 0 })
      const names = walk(join(folder, how, "root")).map(({ path, type }) => `${path} ${type}`)
      assert.deepStrictEqual(names, [" dir", "dev dir", "etc dir", "etc/again file", "etc/f file", "etc/g file", "etc/s symlink", "l file", "t dir", "t/sub dir"])
    }
  }))

  it("leaves records by which root gives everything its own later", inTemp((folder) => {
    chmodSync(folder, 0o777)
    const expected = asRoot(join(folder, "expected"), foreign, true)
    assert.deepStrictEqual(expected.unset, { owners: 0, devices: 0, xattrs: 0, times: 0 })
    const tree = walk(join(folder, "expected", "root"))
    for (const move of [false, true]) {
      const base = join(folder, `user-${String(move)}`)
      asUser(base, "apply", foreign)
      const root = join(folder, `root-${String(move)}`)
      mkdirSync(root, { mode: 0o700 })
      const { unset } = merge(root, foreign.map((_, index) => ({ folder: join(base, String(index)), move })), options(folder))
      assert.deepStrictEqual(unset, { owners: 0, devices: 0, xattrs: 0, times: 0 })
      assert.deepStrictEqual(diff(walk(root), tree, {
        // What no entry names, and is only moved, belongs to who made it; two records of one device are two devices.
        ignore: (path, field) => ((field === "uid" || field === "gid") && move && path === "dev") || field === "hardLinkGroup"
      }), [])
      assert.strictEqual(walk(root).find(({ path }) => path === "l")?.hardLinkGroup, "etc/again")
    }
  }))
})
