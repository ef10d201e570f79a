import { assert, describe, it } from "@effect/vitest"
import { chmodSync, lchownSync, linkSync, lutimesSync, mkdirSync, mkdtempSync, renameSync, symlinkSync, truncateSync, unlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { removeTree } from "../../src/layer/tree/Remove.ts"
import * as Syscalls from "../../src/layer/Syscalls.ts"
import { diff, type TreeField, walk } from "../../src/testing/Tree.ts"

const syscalls = Syscalls.load()
const root = process.getuid?.() === 0

/** A small tree with one of everything; the same at every call. */
const build = (folder: string) => {
  mkdirSync(folder)
  mkdirSync(join(folder, "dir"))
  writeFileSync(join(folder, "dir", "file"), "content", { mode: 0o644 })
  writeFileSync(join(folder, "dir", "other"), "content")
  linkSync(join(folder, "dir", "file"), join(folder, "link"))
  symlinkSync("dir/file", join(folder, "symlink"))
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff])]), "")
  if (syscalls.native) {
    syscalls.lsetxattr(join(folder, "dir", "file"), Buffer.from("user.name"), Buffer.from([0, 1]))
    syscalls.mknod(join(folder, "fifo"), 0o010644, 0, 0)
  }
  if (root && syscalls.native) {
    syscalls.mknod(join(folder, "char"), 0o020600, 1, 3)
    syscalls.mknod(join(folder, "block"), 0o060600, 259, 1_000_000)
  }
  settle(folder)
}

/** Times that do not tell when the tree was made or changed. */
const settle = (folder: string) => {
  for (const { path } of walk(folder)) syscalls.lutimens(Buffer.from(path === "" ? folder : `${folder}/${path}`, "latin1"), 1_700_000_000, 5)
}

const inTemp = (run: (folder: string) => void) => () => {
  const folder = mkdtempSync(join(tmpdir(), "towline-tree-"))
  try {
    run(folder)
  } finally {
    removeTree(folder)
  }
}

/** The least change to a tree, and the fields it must show up in. */
interface Change {
  readonly fields: ReadonlyArray<TreeField | "path">
  readonly make: (folder: string) => void
  /** Needs privileges or native calls. */
  readonly here?: boolean
  /** The change is of a time. */
  readonly timed?: boolean
}

const changes: Record<string, Change> = {
  "a name": { fields: ["path"], make: (folder) => renameSync(join(folder, "dir", "other"), join(folder, "dir", "otheq")) },
  "a name that is not UTF-8": {
    fields: ["path"],
    make: (folder) => renameSync(Buffer.from(`${folder}/\u00ff`, "latin1"), Buffer.from(`${folder}/\u00fe`, "latin1"))
  },
  "a type": { fields: ["type", "content"], make: (folder) => {
    unlinkSync(join(folder, "fifo"))
    writeFileSync(join(folder, "fifo"), "")
    chmodSync(join(folder, "fifo"), 0o644)
  }, here: syscalls.native },
  "a kind of device": { fields: ["type"], make: (folder) => {
    unlinkSync(join(folder, "char"))
    syscalls.mknod(join(folder, "char"), 0o060600, 1, 3)
  }, here: root && syscalls.native },
  "a permission bit": { fields: ["mode"], make: (folder) => chmodSync(join(folder, "dir", "other"), 0o645) },
  "the set-user-ID bit": { fields: ["mode"], make: (folder) => chmodSync(join(folder, "dir", "other"), 0o4644) },
  "a folder's mode": { fields: ["mode"], make: (folder) => chmodSync(join(folder, "dir"), 0o1755) },
  "the root's mode": { fields: ["mode"], make: (folder) => chmodSync(folder, 0o754) },
  "a user": { fields: ["uid"], make: (folder) => lchownSync(join(folder, "dir", "other"), 1, 0), here: root },
  "a group": { fields: ["gid"], make: (folder) => lchownSync(join(folder, "dir", "other"), 0, 1), here: root },
  "a symlink's user": { fields: ["uid"], make: (folder) => lchownSync(join(folder, "symlink"), 1, 0), here: root },
  "a size": { fields: ["size", "content"], make: (folder) => truncateSync(join(folder, "dir", "other"), 8) },
  "a bit of content": { fields: ["content"], make: (folder) => writeFileSync(join(folder, "dir", "other"), "contenu") },
  "a link target": { fields: ["linkTarget"], make: (folder) => {
    unlinkSync(join(folder, "symlink"))
    symlinkSync("dir/fild", join(folder, "symlink"))
  } },
  "a hard link that is a copy": { fields: ["hardLinkGroup"], make: (folder) => {
    unlinkSync(join(folder, "link"))
    writeFileSync(join(folder, "link"), "content", { mode: 0o644 })
    if (syscalls.native) syscalls.lsetxattr(join(folder, "link"), Buffer.from("user.name"), Buffer.from([0, 1]))
  } },
  "a nanosecond": { fields: ["mtimeNs"], make: (folder) => void syscalls.lutimens(join(folder, "dir", "other"), 1_700_000_000, 4), timed: true, here: syscalls.native },
  "a symlink's time": { fields: ["mtimeNs"], make: (folder) => lutimesSync(join(folder, "symlink"), 1, 1), timed: true },
  "a folder's time": { fields: ["mtimeNs"], make: (folder) => lutimesSync(join(folder, "dir"), 1, 1), timed: true },
  "a bit of an attribute": { fields: ["xattrs"], make: (folder) => syscalls.lsetxattr(join(folder, "link"), Buffer.from("user.name"), Buffer.from([0, 0])), here: syscalls.native },
  "an attribute's name": { fields: ["xattrs"], make: (folder) => syscalls.lsetxattr(join(folder, "dir"), Buffer.from("user.name"), Buffer.from([])), here: syscalls.native },
  "a minor number": { fields: ["device"], make: (folder) => {
    unlinkSync(join(folder, "block"))
    syscalls.mknod(join(folder, "block"), 0o060600, 259, 1_000_001)
  }, here: root && syscalls.native },
  "a major number": { fields: ["device"], make: (folder) => {
    unlinkSync(join(folder, "char"))
    syscalls.mknod(join(folder, "char"), 0o020600, 0, 3)
  }, here: root && syscalls.native }
}

describe("Tree", () => {
  it("finds two equal trees equal, and a walk equal to itself in any order", inTemp((folder) => {
    build(join(folder, "a"))
    build(join(folder, "b"))
    const [a, b] = [walk(join(folder, "a")), walk(join(folder, "b"))]
    assert.deepStrictEqual(diff(a, b), [])
    assert.deepStrictEqual(diff(a, [...b].reverse()), [])
    assert.deepStrictEqual(a.map(({ path }) => path), a.map(({ path }) => path).sort())
    assert.include(a.map(({ path, hardLinkGroup }) => `${path} ${hardLinkGroup}`), "link dir/file")
  }))

  for (const [what, { fields, make, here = true, timed = false }] of Object.entries(changes)) {
    it.skipIf(!here)(`notices ${what}`, inTemp((folder) => {
      build(join(folder, "a"))
      build(join(folder, "b"))
      make(join(folder, "b"))
      if (!timed) settle(join(folder, "b"))
      const [a, b] = [walk(join(folder, "a")), walk(join(folder, "b"))]
      for (const [one, other] of [[a, b], [b, a]] as const) {
        const found = diff(one, other)
        assert.isNotEmpty(found)
        for (const field of fields) assert.isTrue(field === "path" ? found.some((text) => text.includes(" is only in ")) : found.some((text) => text.includes(`: ${field} is `)), `${field} in ${found.join("; ")}`)
        assert.deepStrictEqual(diff(one, other, { ignore: (_, field) => fields.includes(field) || (fields.includes("path") && field === "hardLinkGroup") }), [])
      }
    }))
  }

  it("leaves out what it is told to, everywhere or by name", inTemp((folder) => {
    build(join(folder, "a"))
    build(join(folder, "b"))
    chmodSync(join(folder, "b", "dir"), 0o700)
    writeFileSync(join(folder, "b", "more"), "")
    const [a, b] = [walk(join(folder, "a")), walk(join(folder, "b"))]
    assert.deepStrictEqual(diff(a, b, { ignore: ["mtimeNs"] }), [
      "\"dir\": mode is 0755 in the first tree and 0700 in the second", "\"more\" (file) is only in the second tree"
    ])
    assert.deepStrictEqual(diff(a, b, { ignore: (path, field) => field === "mtimeNs" || field === "mode" || path === "more" }), [])
  }))

  it("walks trees deeper than a path can be long", inTemp((folder) => {
    const deep = join(folder, "deep")
    mkdirSync(deep)
    const cwd = Array.from({ length: 30 }, () => "d".repeat(100)).join("/")
    mkdirSync(join(deep, cwd), { recursive: true })
    mkdirSync(join(folder, "bottom", cwd), { recursive: true })
    renameSync(join(folder, "bottom"), join(deep, cwd, "bottom"))
    const records = walk(deep)
    assert.strictEqual(records.length, 62)
    assert.isAbove(records.at(-1)?.path.length ?? 0, 4096)
  }))
})
