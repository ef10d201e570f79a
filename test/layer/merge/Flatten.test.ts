import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { flatten } from "../../../src/layer/merge/Flatten.ts"
import { merge } from "../../../src/layer/merge/Merge.ts"
import type { OwnerMap } from "../../../src/layer/merge/Owners.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { diff, walk } from "../../../src/testing/Tree.ts"
import { applied, descriptors, device, dir, file, inTemp, type Item, link, privileged, symlink } from "../apply/Entries.ts"
import { read } from "../tar/TarBytes.ts"

const syscalls = Syscalls.load()
const power = Buffer.from("0100000200040000000000000000000000000000", "hex").toString("latin1")
const size = 3 * 2 ** 20

const layers: ReadonlyArray<ReadonlyArray<Item>> = [
  [
    dir("", { mode: 0o555, mtime: [5, 5] }), dir("etc", { uid: 1, gid: 2, mtime: [-5, 250_000_000] }), file("etc/f", "f", { uid: 3, gid: 4, mode: 0o6755, mtime: [1_700_000_000, 123_456_789], xattrs: { "security.capability": power, "user.a=b%c": "\xff\0" } }),
    link("etc/again", "etc/f"), symlink("etc/s", "t".repeat(200), { uid: 3_000_000_000, gid: 6, mtime: [7, 8] }), device("char", "dev/null", [1, 3], { mode: 0o666, mtime: [1, 2] }), file("dev/zero", "was a file"),
    dir("shut", { mode: 0, uid: 13 }), file("shut/in", "secret", { mode: 0 }), device("fifo", "shut/p", [0, 0], { mode: 0o622, mtime: [3, 3] }), device("block", "shut/b", [8, 0x12345], { mode: 0o660, uid: 7 }),
    link("dev/second", "dev/null"), file(`${"d".repeat(120)}/${"n".repeat(200)}`, "deep"), file("\xff\xe9", "bytes"), dir("t", { xattrs: { "trusted.dir": "x" }, mode: 0o1777 }),
    file("holes", "headtail", { size, sparse: [[4096, 4], [size - 4, 4]] }), file("hollow", "", { size, sparse: [] }), dir("gone/x"), device("char", "gone/d", [1, 7]), device("char", "gone2", [1, 7])
  ],
  [
    file("etc/g", "g", { uid: 8, mode: 0o400 }), device("char", "dev/zero", [1, 5], { mode: 0o666, mtime: [4, 0] }), link("l", "etc/f"), file("dev/.wh.null"), dir("t/sub", { uid: 9 }), link("null", "dev/second"),
    dir("shut", { mode: 0o700, gid: 12, mtime: [1, 1] }), file(".wh.gone"), file("gone2", "no device any more", { mtime: [2, 2] })
  ],
  [file("etc/f", "newer", { mtime: [9, 9] }), file("dev/second", "is a file", { uid: 11 }), dir("gone"), file("gone/d", "plain")]
]

const extracted = (tar: string, folder: string) => {
  mkdirSync(folder)
  execFileSync("tar", ["-x", "-p", "--same-owner", "--numeric-owner", "--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "-f", tar, "-C", folder])
  return walk(folder)
}

const unpacked = (folder: string, move: boolean) => layers.map((items, index) => {
  const layer = join(folder, String(index))
  mkdirSync(layer, { recursive: true })
  applied(layer, items)
  return { folder: layer, move }
})

const assembled = (folder: string, owners?: OwnerMap) => {
  const parts = unpacked(folder, true)
  mkdirSync(join(folder, "root"), { mode: 0o700 })
  merge(join(folder, "root"), parts, { link: "copy", hold: join(folder, "hold"), syscalls, owners })
  return walk(join(folder, "root"))
}

const archived = (folder: string, move: boolean, owners?: OwnerMap) => {
  const parts = unpacked(folder, move)
  const before = parts.map(({ folder }) => walk(join(folder, "fs")))
  mkdirSync(join(folder, "root"), { mode: 0o700 })
  const open = descriptors()
  const tar = join(folder, "root.tar")
  const fd = openSync(tar, "wx")
  merge(join(folder, "root"), parts, { link: "hardlink", hold: join(folder, "hold"), syscalls, owners, inspect: (assembly) => flatten(assembly, fd, { syscalls, owners, stop: () => {} }) })
  closeSync(fd)
  assert.strictEqual(descriptors(), open)
  if (!move) parts.forEach(({ folder }, index) => assert.deepStrictEqual(diff(walk(join(folder, "fs")), before[index] ?? []), []))
  return tar
}

const asUser = (folder: string, how: "hardlink" | "squash" | "tar") => {
  chmodSync(join(folder, ".."), 0o777)
  const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", join(import.meta.dirname, "MergeAsUser.ts"), folder, how, JSON.stringify(layers)], { encoding: "utf8" })
  assert.strictEqual(stderr, "")
  const answer = JSON.parse(stdout)
  assert.deepStrictEqual([answer.error, answer.leaked], [undefined, 0])
  return answer.unset
}

describe.runIf(privileged && syscalls.native)("A root file system as one archive", () => {
  it("is, extracted by GNU tar, what assembling gives, and leaves stored layers alone", inTemp((folder) => {
    const expected = assembled(join(folder, "expected"))
    assert.isTrue(expected.some(({ xattrs }) => xattrs.includes("user.a=b%c=ff00")))
    for (const move of [false, true]) {
      const tar = archived(join(folder, String(move)), move)
      assert.deepStrictEqual(diff(extracted(tar, join(folder, `out-${String(move)}`)), expected), [])
      assert.isBelow(readFileSync(tar).byteLength, size)
    }
    assert.deepStrictEqual(readFileSync(join(folder, "false/root.tar")), readFileSync(join(folder, "true/root.tar")))
  }))

  it("is the same from an ordinary user, who can set nearly nothing", inTemp((folder) => {
    const expected = assembled(join(folder, "expected"))
    asUser(join(folder, "user"), "tar")
    const found = extracted(join(folder, "user/root.tar"), join(folder, "out"))
    assert.deepStrictEqual(diff(found, expected, {
      ignore: (path, field) => field === "hardLinkGroup" && (path === "null" || path === "dev/second")
    }), [])
    assert.include(read([readFileSync(join(folder, "user/root.tar"))]).map(({ type, path }) => `${path.toString("latin1")} ${type}`), "null char")
  }))

  it("has the owners that a map gives them, as the assembled one has", inTemp((folder) => {
    const owners: OwnerMap = { uid: [{ inside: 0, outside: 100_000, count: 1000 }, { inside: 3_000_000_000, outside: 5, count: 1 }], gid: "squash" }
    const expected = assembled(join(folder, "expected"), owners)
    const at = (path: string) => expected.find((record) => record.path === path)
    assert.deepStrictEqual([at("etc/g")?.uid, at("etc/s")?.uid, at("")?.uid, at("dev")?.uid, at("shut")?.gid, at("etc/again")?.mode], [100_008, 5, 100_000, 100_000, 0, 0o6755])
    assert.isTrue(at("etc/again")?.xattrs.some((one) => one.startsWith("security.capability=01000002")))
    assert.deepStrictEqual(diff(extracted(archived(join(folder, "tar"), false, owners), join(folder, "out")), expected), [])
    assert.throws(() => assembled(join(folder, "narrow"), { uid: [{ inside: 0, outside: 1, count: 3 }], gid: undefined }), /its uid is \d+, which is in no range of the uid map/)
  }))
})

describe.runIf(privileged && syscalls.native)("Hard links and owners", () => {
  it("share the files of layers that stay, which stay as they are", inTemp((folder) => {
    const expected = assembled(join(folder, "expected"))
    const parts = unpacked(join(folder, "linked"), false)
    const before = parts.map((part) => walk(join(part.folder, "fs")))
    mkdirSync(join(folder, "root"), { mode: 0o700 })
    merge(join(folder, "root"), parts, { link: "hardlink", hold: join(folder, "hold"), syscalls })
    assert.deepStrictEqual(diff(walk(join(folder, "root")), expected), [])
    parts.forEach((part, index) => assert.deepStrictEqual(diff(walk(join(part.folder, "fs")), before[index] ?? []), []))
    const inode = (path: string) => execFileSync("stat", ["-c", "%i", path], { encoding: "utf8" })
    assert.strictEqual(inode(join(folder, "root/etc/g")), inode(join(folder, "linked/1/fs/etc/g")))
  }))

  it("are refused where owners are mapped, or another user unpacked the layers", inTemp((folder) => {
    const parts = unpacked(join(folder, "linked"), false)
    mkdirSync(join(folder, "root"), { mode: 0o700 })
    const options = { link: "hardlink", hold: join(folder, "hold"), syscalls } as const
    assert.throws(() => merge(join(folder, "root"), parts, { ...options, owners: { uid: "squash", gid: undefined } }), /cannot be mapped on hard links/)
    asUser(join(folder, "user"), "hardlink")
    mkdirSync(join(folder, "root2"), { mode: 0o700 })
    assert.throws(() => merge(join(folder, "root2"), layers.map((_, index) => ({ folder: join(folder, "user", String(index)), move: false })), options), /other owners or attributes: use --link copy/)
  }))

  it("are nothing to warn of where an ordinary user squashes them", inTemp((folder) => {
    assert.strictEqual(asUser(join(folder, "squash"), "squash").owners, 0)
    assert.isAbove(asUser(join(folder, "plain"), "hardlink").owners, 0)
  }))
})
