import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { device, dir, file, type Item, link, privileged, symlink, tree } from "./Entries.ts"

const user = 65534
const kinds = (found: ReturnType<typeof tree>): Readonly<Record<string, unknown>> =>
  Object.fromEntries([...found].map(([name, { type, mode }]) => [name, [type, mode]]))

/** Applies items as an ordinary user with the umask 077, in a process of its own. */
const asUser = (native: boolean, items: ReadonlyArray<Item>, check: (fs: string, answer: { readonly result?: { readonly summary: unknown; readonly records: unknown }; readonly error?: string; readonly own: number }) => void) => () => {
  const temp = mkdtempSync(join(tmpdir(), "towline-user-"))
  try {
    chmodSync(temp, 0o777)
    const folder = join(temp, "layer")
    const script = join(import.meta.dirname, "AsUser.ts")
    const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", script, folder, native ? "native" : "plain", JSON.stringify(items)], { encoding: "utf8" })
    assert.strictEqual(stderr, "")
    check(join(folder, "fs"), JSON.parse(stdout))
  } finally {
    removeTree(temp)
  }
}

describe.runIf(privileged)("Apply as an ordinary user", () => {
  const items = [
    dir("", { mode: 0o755 }),
    dir("shut", { mode: 0 }), file("shut/in", "a", { mode: 0 }), dir("shut/deeper", { mode: 0o555 }), file("shut/deeper/f", "b", { mode: 0o4755, uid: user, gid: user }),
    dir("write", { mode: 0o300, uid: user, gid: 7, mtime: [3, 4] }), file("write/x", "c", { mode: 0o444, xattrs: { "user.a": "\0\xff", "security.capability": "x", "trusted.t": "t" } }),
    symlink("s", "/shut", { uid: 1, gid: 2 }), file("s/late", "d", { mode: 0o2711 }),
    link("alias", "write/x"), device("char", "dev/null", [1, 3], { mode: 0o666 }), device("fifo", "p", [0, 0], { mode: 0o622, uid: user, gid: user }),
    link("null2", "dev/null"), file("gone", "x", { uid: 9 }), dir("gone", { mode: 0o700, uid: user, gid: user })
  ]
  // What the user needs to go through the layer is left on disk: the mode is in the journal then.
  const modes: Readonly<Record<string, unknown>> = {
    "": ["dir", 0o755], shut: ["dir", 0o700], "shut/in": ["file", 0o400], "shut/deeper": ["dir", 0o755], "shut/deeper/f": ["file", 0o4755], "shut/late": ["file", 0o2711],
    write: ["dir", 0o700], "write/x": ["file", 0o444], s: ["symlink", 0o777], alias: ["file", 0o444], dev: ["dir", 0o755], gone: ["dir", 0o700]
  }
  const root = { uid: 0, gid: 0 }
  const common = [
    { t: "whiteout", path: "gone" }, { t: "implied", path: "dev" },
    { t: "unset", path: "shut/in", ...root, mode: 0 }, { t: "unset", path: "s", uid: 1, gid: 2 }, { t: "unset", path: "shut/late", ...root },
    { t: "unset", path: "dev/null", ...root, mode: 0o666, mtime: [1, 0], device: ["char", 1, 3] },
    { t: "unset", path: "null2", ...root, mode: 0o666, mtime: [1, 0], device: ["char", 1, 3] },
    { t: "unset", path: "shut/deeper", ...root, mode: 0o555 }, { t: "unset", path: "shut", ...root, mode: 0 }, { t: "unset", path: "", ...root }
  ]
  const capability = [["security.capability", "eA=="], ["trusted.t", "dA=="]]
  const sorted = (records: unknown) => Array.isArray(records) ? records.map((record) => JSON.stringify(Object.entries(Object(record)).sort())).sort() : records

  it("sets what it may, whatever the folders' modes, and records the rest", asUser(true, items, (fs, answer) => {
    const found = tree(fs)
    assert.deepStrictEqual(kinds(found), { ...modes, p: ["fifo", 0o622] })
    for (const { uid, gid } of found.values()) assert.deepStrictEqual([uid, gid], [user, user])
    assert.deepStrictEqual(found.get("alias")?.inode, found.get("write/x")?.inode)
    assert.deepStrictEqual([found.get("write")?.mtime, found.get("write/x")?.xattrs], [3_000_000_004n, { "user.a": "\0\xff" }])
    assert.deepStrictEqual(sorted(answer.result?.records), sorted([
      ...common, { t: "unset", path: "write", gid: 7, mode: 0o300 },
      { t: "unset", path: "write/x", ...root, xattrs: capability }, { t: "unset", path: "alias", ...root, xattrs: capability }
    ]))
    assert.deepStrictEqual(answer.result?.summary, { entries: 15, bytes: 5, unset: { owners: 9, devices: 2, xattrs: 2, times: 0 } })
    assert.strictEqual(answer.own, 0)
  }))

  it("does so without native calls", asUser(false, items, (fs, answer) => {
    const found = tree(fs)
    assert.deepStrictEqual(kinds(found), modes)
    const all = [["user.a", "AP8="], ...capability]
    assert.deepStrictEqual(sorted(answer.result?.records), sorted([
      ...common, { t: "unset", path: "write", gid: 7, mode: 0o300, mtime: [3, 4] },
      { t: "unset", path: "write/x", ...root, xattrs: all }, { t: "unset", path: "alias", ...root, xattrs: all },
      { t: "unset", path: "p", uid: user, gid: user, mode: 0o622, mtime: [1, 0], device: ["fifo", 0, 0] }
    ]))
    assert.strictEqual(answer.own, 0)
  }))

  it("refuses the same and leaves no descriptor", asUser(true, [dir("d", { mode: 0 }), file("d/f", "1"), file("d/f/x", "2")], (_, answer) => {
    assert.match(answer.error ?? "", /parent "d\/f" is not a folder/)
    assert.strictEqual(answer.own, 0)
  }))
})
