import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { chmodSync, mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Apply } from "../../../src/layer/apply/Apply.ts"
import { Refused } from "../../../src/layer/Fault.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { applied, at, descriptors, device, dir, entryOf, feed, file, type Found, inTemp, type Item, link, look, privileged, shape, symlink, thrown, tree } from "./Entries.ts"

const capability = "\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
const facts = (found: Found) => [found.type, found.mode.toString(8), found.uid, found.gid, found.mtime]
const seconds = (value: number, nanos = 0) => BigInt(value) * 1_000_000_000n + BigInt(nanos)

describe.runIf(privileged)("Apply as root", () => {
  it("sets owners, modes, times and attributes of every type", inTemp((folder) => {
    const common = { uid: 1234, gid: 0xfffffffe, mtime: [1_600_000_000, 123_456_789] as const }
    const { fs, summary, records } = applied(folder, [
      dir("", { ...common, mode: 0o1751 }),
      dir("d", { ...common, mode: 0o2555, xattrs: { "user.d": "\0\xff" } }),
      file("d/setuid", "content", { ...common, mode: 0o6755 }),
      file("d/plain", "", { mode: 0o644, mtime: [-5, 1] }),
      file("d/none", "x", { ...common, mode: 0 }),
      file("d/cap", "x", { ...common, mode: 0o755, xattrs: { "security.capability": capability, "user.a": "", "trusted.t": "\0" } }),
      symlink("d/link", "../x\xff", common),
      device("char", "d/char", [1, 3], { ...common, mode: 0o666 }),
      device("block", "d/block", [7, 200], { ...common, mode: 0o4660 }),
      device("fifo", "d/fifo", [0, 0], { ...common, mode: 0o622 }),
      file("d/\xff\xfe\x80", "bytes", { mode: 0o777 }),
      dir("d/open", { mode: 0o7777, mtime: [2_000_000_000, 0] }),
      file("d/open/file", "x")
    ])
    assert.deepStrictEqual(facts(look(at(fs, ""))), ["dir", "1751", 1234, 0xfffffffe, seconds(1_600_000_000, 123_456_789)])
    const found = tree(fs)
    const of = (name: string) => {
      const one = found.get(name)
      return one === undefined ? undefined : [...facts(one), one.content ?? one.target ?? one.device, one.xattrs]
    }
    const all = [1234, 0xfffffffe, seconds(1_600_000_000, 123_456_789)]
    assert.deepStrictEqual(of("d"), ["dir", "2555", ...all, undefined, { "user.d": "\0\xff" }])
    assert.deepStrictEqual(of("d/setuid"), ["file", "6755", ...all, "content", undefined])
    assert.deepStrictEqual(of("d/plain"), ["file", "644", 0, 0, seconds(-5, 1), "", undefined])
    assert.deepStrictEqual(of("d/none"), ["file", "0", ...all, "x", undefined])
    assert.deepStrictEqual(of("d/cap"), ["file", "755", ...all, "x", { "security.capability": capability, "user.a": "", "trusted.t": "\0" }])
    assert.deepStrictEqual(of("d/link"), ["symlink", "777", ...all, "../x\xff", undefined])
    assert.deepStrictEqual(of("d/char"), ["char", "666", ...all, [1, 3], undefined])
    assert.deepStrictEqual(of("d/block"), ["block", "4660", ...all, [7, 200], undefined])
    assert.deepStrictEqual(of("d/fifo"), ["fifo", "622", ...all, undefined, undefined])
    assert.deepStrictEqual(of("d/\xff\xfe\x80"), ["file", "777", 0, 0, seconds(1), "bytes", undefined])
    assert.deepStrictEqual(of("d/open"), ["dir", "7777", 0, 0, seconds(2_000_000_000), undefined, undefined])
    assert.deepStrictEqual([summary, records], [{ entries: 13, bytes: 15, unset: { owners: 0, devices: 0, xattrs: 0, times: 0 } }, []])
  }))

  it("records what it cannot set without native calls", inTemp((folder) => {
    const numbers = { uid: 0, gid: 0, mode: 0o640 }
    const { fs, summary, records } = applied(folder, [
      dir("", { mtime: [5, 5] }),
      file("exact", "", { mtime: [-7, 0], mode: 0o4711, uid: 3 }),
      file("nanos", "", { mtime: [7, 500_000_000] }),
      file("attributes", "", { xattrs: { "security.capability": capability, "trusted.overlay.opaque": "y", "user.\xe9": "\xff" } }),
      symlink("link", "x", { mtime: [9, 9] }),
      device("char", "char", [1, 3], numbers),
      device("fifo", "fifo", [0, 0], { ...numbers, xattrs: { "user.a": "b" }, mtime: [3, 4] }),
      link("alias", "char"),
      link("other", "nanos")
    ], { syscalls: Syscalls.load({ native: false }) })
    assert.deepStrictEqual(shape(fs), ["attributes file", "exact file", "link symlink x", "nanos file", "other file"])
    assert.deepStrictEqual(facts(look(at(fs, "exact"))), ["file", "4711", 3, 0, seconds(-7)])
    const capabilities = Buffer.from(capability, "latin1").toString("base64")
    assert.deepStrictEqual(records, [
      { t: "unset", path: "nanos", mtime: [7, 500_000_000] },
      { t: "unset", path: "attributes", xattrs: [["security.capability", capabilities], ["user.\xe9", "/w=="]] },
      { t: "unset", path: "link", mtime: [9, 9] },
      { t: "unset", path: "char", ...numbers, mtime: [1, 0], device: ["char", 1, 3] },
      { t: "unset", path: "fifo", ...numbers, mtime: [3, 4], device: ["fifo", 0, 0], xattrs: [["user.a", "Yg=="]] },
      { t: "unset", path: "alias", ...numbers, mtime: [1, 0], device: ["char", 1, 3] },
      { t: "unset", path: "other", mtime: [7, 500_000_000] },
      { t: "unset", path: "", mtime: [5, 5] }
    ])
    assert.deepStrictEqual(summary.unset, { owners: 0, devices: 3, xattrs: 1, times: 4 })
  }))

  it("records attributes the file system refuses", inTemp((folder) => {
    const large = "v".repeat(70_000)
    const { fs, records } = applied(folder, [
      dir(""), file("a", "", { xattrs: { "nospace.x": "1", "user.ok": "1", "user.large": large } }), symlink("l", "x", { xattrs: { "user.no": "1" } })
    ])
    assert.deepStrictEqual(look(at(fs, "a")).xattrs, { "user.ok": "1" })
    assert.deepStrictEqual(records, [
      { t: "unset", path: "a", xattrs: [["nospace.x", "MQ=="], ["user.large", Buffer.from(large).toString("base64")]] },
      { t: "unset", path: "l", xattrs: [["user.no", "MQ=="]] }
    ])
  }))

  it("gives new files their owner in a folder that hands down its group", inTemp((folder) => {
    const fs = join(folder, "fs")
    mkdirSync(fs)
    chmodSync(fs, 0o2700)
    const apply = new Apply(fs, join(folder, "meta"), { syscalls: Syscalls.load() })
    feed(apply, [dir("d", { mode: 0o700 }), file("d/f", "", { mode: 0o666 }), dir("e", { mode: 0o2711 }), file("implied/f", "")])
    apply.finish()
    assert.deepStrictEqual([...tree(fs)].map(([name, { mode }]) => `${name} ${mode.toString(8)}`),
      [" 755", "d 700", "d/f 666", "e 2711", "implied 755", "implied/f 644"])
  }))
})

describe.each([["native", true], ["without native calls", false]] as const)("Apply, %s", (_, native) => {
  const syscalls = Syscalls.load({ native })
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const run = (folder: string, items: ReadonlyArray<Item>) => applied(folder, items.map((item) => ({ ...own, ...item })), { syscalls })

  it("makes hard links of one inode, of symlinks too", inTemp((folder) => {
    const { fs, records } = run(folder, [dir(""), file("a/x", "one"), link("b/y", "/a/../a/x"), symlink("s", "a"), link("z", "s/x"), link("s2", "s")])
    const found = tree(fs)
    assert.deepStrictEqual(["b/y", "z"].map((name) => found.get(name)?.inode), [found.get("a/x")?.inode, found.get("a/x")?.inode])
    assert.deepStrictEqual([found.get("a/x")?.links, found.get("s2")?.inode, found.get("s2")?.target], [3, found.get("s")?.inode, "a"])
    assert.deepStrictEqual(records, [{ t: "implied", path: "a" }, { t: "implied", path: "b" }])
  }))

  it("leaves links to what lower layers have to the merge", inTemp((folder) => {
    const { fs, records } = run(folder, [
      dir(""), symlink("lib", "usr/lib"), link("l1", "bin/sh"), link("l2", "l1"), link("l3", "lib/lower"), link("d/l4", "none/../bin/sh"),
      file("usr/lib/here", ""), link("l5", "usr"), link("over", "bin/sh"), file("over", "mine"), link("l1", "bin/other"), link("l6", "l1")
    ])
    assert.deepStrictEqual(shape(fs), ["d dir", "lib symlink usr/lib", "over file mine", "usr dir", "usr/lib dir", "usr/lib/here file"])
    assert.deepStrictEqual(records.filter(({ t }) => t === "link"), [
      { t: "link", path: "l2", target: "bin/sh" }, { t: "link", path: "l3", target: "usr/lib/lower" }, { t: "link", path: "d/l4", target: "bin/sh" },
      { t: "link", path: "l5", target: "usr" }, { t: "link", path: "l1", target: "bin/other" }, { t: "link", path: "l6", target: "bin/other" }
    ])
  }))

  it("records whiteouts and opaque folders, and touches nothing of its own layer", inTemp((folder) => {
    const { fs, records } = run(folder, [
      dir(""), file("a/kept", "1"), file("a/.wh.kept", "ignored"), file("a/.wh..wh..opq"), symlink("s", "a"), file("s/.wh.gone"), dir("none/.wh.far"),
      file(".wh.top"), symlink("x/.wh.l", "/"), file(".wh..wh.plnk/1.2", "aufs"), file(".wh..wh.aufs"), file("s/.wh..wh..opq"), file("foo.wh.bar"),
      file(".wh..opq"), file(".wh..wh..opq"), file("lower/.wh..wh..opq")
    ])
    assert.deepStrictEqual(shape(fs), ["a dir", "a/kept file 1", "foo.wh.bar file", "s symlink a"])
    assert.deepStrictEqual(records, [
      ...["a/kept", "a/gone", "none/far", "top", "x/l", ".opq"].map((path) => ({ t: "whiteout" as const, path })),
      ...["a", "", "lower"].map((path) => ({ t: "opaque" as const, path })), { t: "implied", path: "a" }
    ])
  }))

  it("gives implied folders fixed metadata and a journal record, until they get an entry", inTemp((folder) => {
    const { fs, records } = run(folder, [file("a/b/c", ""), dir("a", { mode: 0o711, mtime: [77, 0] }), symlink("s", "far/off"), file("s/x", "")])
    const found = tree(fs)
    assert.deepStrictEqual(["", "a/b", "far", "far/off"].map((name) => facts(found.get(name) ?? look(at(fs, "a"))).slice(0, 5)),
      Array.from({ length: 4 }, () => ["dir", "755", own.uid, own.gid, 0n]))
    assert.deepStrictEqual([found.get("a")?.mode, found.get("a")?.mtime], [0o711, seconds(77)])
    assert.deepStrictEqual(records, ["", "a/b", "far", "far/off"].map((path) => ({ t: "implied", path })))
  }))

  it.each<readonly [string, ReadonlyArray<Item>, ReadonlyArray<string>, ReadonlyArray<object>]>([
    ["file over file", [file("a", "1"), file("a", "2")], ["a file 2"], []],
    ["a linked file keeps its other name", [file("a", "1"), link("b", "a"), file("a", "2")], ["a file 2", "b file 1"], []],
    ["file over symlink", [file("t", "kept"), symlink("a", "t"), file("a", "2")], ["a file 2", "t file kept"], []],
    ["file over folder", [file("a/b/c", "1"), file("a", "2")], ["a file 2"], []],
    ["symlink over folder", [dir("t"), dir("a/b"), symlink("a", "t")], ["a symlink t", "t dir"], []],
    ["link over folder", [file("t", "1"), dir("a/b"), link("a", "t")], ["a file 1", "t file 1"], []],
    ["folder over file", [file("a", "1"), dir("a")], ["a dir"], [{ t: "whiteout", path: "a" }]],
    ["folder over symlink to folder", [dir("t"), symlink("a", "t"), dir("a"), file("a/x", "1")], ["a dir", "a/x file 1", "t dir"], [{ t: "whiteout", path: "a" }]],
    ["folder over folder", [dir("a"), file("a/x", "1"), dir("a")], ["a dir", "a/x file 1"], []],
    ["folder over a link record", [link("a", "lower"), dir("a")], ["a dir"], [{ t: "whiteout", path: "a" }]],
    ["link record over folder", [dir("a"), file("a/x", "1"), link("a", "lower")], [], [{ t: "link", path: "a", target: "lower" }]],
    ["folder over folder with link records in it", [dir("a"), link("a/l", "lower"), dir("a")], ["a dir"], [{ t: "link", path: "a/l", target: "lower" }]],
    ["file over folder with records in it", [dir("a"), link("a/l", "lower"), file("a/b/c"), file("a", "2")], ["a file 2"], []],
    ["whiteout, then an entry", [file(".wh.a"), file("a", "1")], ["a file 1"], [{ t: "whiteout", path: "a" }]],
    ["an entry, then its whiteout", [file("a", "1"), file(".wh.a")], ["a file 1"], [{ t: "whiteout", path: "a" }]],
    ["names that are one after cleaning", [file("./a//b", "1"), file("/a/./b", "2"), file("../a/c/../b", "3")], ["a dir", "a/b file 3"], [{ t: "implied", path: "a" }]],
    ["names that differ in case or form", [file("e\u0301".normalize("NFD").replace("\u0301", "\xcc\x81"), "1"), file("\xc3\xa9", "2"), file("E", "3"), file("e", "4")],
      ["E file 3", "e file 4", "e\xcc\x81 file 1", "\xc3\xa9 file 2"], []],
    ["a replaced symlink is not followed any more", [dir("x"), dir("y"), symlink("s", "x"), file("s/1", "a"), symlink("s", "y"), file("s/1", "b")],
      ["s symlink y", "x dir", "x/1 file a", "y dir", "y/1 file b"], []]
  ])("last wins: %s", (_, items, expected, records) => inTemp((folder) => {
    const done = run(folder, [dir(""), ...items])
    assert.deepStrictEqual(shape(done.fs), expected)
    assert.deepStrictEqual(done.records, records)
  })())

  it("takes content in any pieces and leaves holes where a sparse file has none", inTemp((folder) => {
    const size = 64 * 1024 * 1024
    const stops: Array<number> = []
    const fs = join(folder, "fs")
    mkdirSync(fs)
    const apply = new Apply(fs, join(folder, "meta"), { syscalls, stop: () => stops.push(1) })
    feed(apply, [file("sparse", "headtail", { size, sparse: [[4096, 4], [size / 2, 4]], ...own }), file("hollow", "", { size: 12_345, sparse: [], ...own })])
    apply.entry(entryOf(file("large", "", { size: 1_000_000, ...own })))
    const before = stops.length
    const content = Buffer.alloc(1_000_000, "abc")
    apply.data(content.subarray(0, 1), 0)
    apply.data(content.subarray(1), 1)
    apply.end()
    assert.strictEqual(stops.length - before, 3)
    assert.strictEqual(apply.finish().bytes, 1_000_008)
    const found = tree(fs)
    assert.strictEqual(found.get("large")?.content, content.toString())
    const sparse = found.get("sparse")
    assert.deepStrictEqual([sparse?.size, found.get("hollow")?.size], [size, 12_345])
    assert.isBelow((sparse?.blocks ?? size) * 512, 1024 * 1024)
    assert.deepStrictEqual([sparse?.content?.slice(4096, 4100), sparse?.content?.slice(size / 2, size / 2 + 4)], ["head", "tail"])
    assert.strictEqual(sparse?.content?.replaceAll("\0", ""), "headtail")
  }))

  it("stops where it is told to, and leaves no descriptor behind", inTemp((folder) => {
    const before = descriptors()
    const items = [...Array.from({ length: 40 }, (_, one) => [dir(`d${one}`), file(`d${one}/e/f`, "x", own)]).flat(), file("d1", "replaces a folder", own)]
    for (let at = 0; at < 130; at += 7) {
      let left = at
      const target = join(folder, String(at))
      mkdirSync(target)
      const error = thrown(() => applied(target, items, { syscalls, stop: () => { if (left-- === 0) throw new Error("stopped") } }))
      assert.match(String(error), /^Error: stopped$/)
    }
    assert.strictEqual(descriptors(), before)
    const fs = join(folder, "open")
    mkdirSync(fs)
    const apply = new Apply(fs, join(folder, "meta"), { syscalls })
    apply.entry(entryOf(file("a/b", "", { size: 5 })))
    apply.abort()
    apply.abort()
    assert.strictEqual(descriptors(), before)
  }))

  it("tells the host's errors by the path in the layer", inTemp((folder) => {
    const before = descriptors()
    const fs = join(folder, "fs")
    mkdirSync(fs)
    const apply = new Apply(fs, join(folder, "meta"), { syscalls })
    feed(apply, [file("d/first", "")])
    rmSync(join(fs, "d"), { recursive: true })
    const error = thrown(() => apply.entry(entryOf(file("d/second\xff", ""))))
    assert.deepInclude(Object(error), { code: "ENOENT", syscall: "open", path: `${fs}/d/second\ufffd` })
    apply.abort()
    assert.deepStrictEqual(Object(thrown(() => new Apply(join(folder, "none"), join(folder, "meta"), { syscalls }))).code, "ENOENT")
    assert.strictEqual(descriptors(), before)
  }))

  const Segment = Schema.Literals(["a", "b", "c", "..", ".", ""])
  const Path = Schema.Array(Segment).check(Schema.isMaxLength(4))
  const Made = Schema.Struct({ type: Schema.Literals(["file", "dir", "symlink", "link", "whiteout"]), path: Path, to: Path, absolute: Schema.Boolean })
  it.prop("whatever the entries, they stay inside and all is closed", [Schema.Array(Made)], ([made]) => inTemp((folder) => {
    const before = descriptors()
    const items = made.map(({ type, path, to, absolute }): Item => {
      const name = path.join("/")
      const target = `${absolute ? "/" : ""}${to.join("/")}`
      if (type === "whiteout") return file(`${name}/.wh.x`)
      return type === "file" || type === "dir" ? { type, path: name, mode: 0o700 } : { type, path: name, to: target === "" ? "." : target }
    })
    const error = thrown(() => run(folder, items))
    if (error !== undefined) assert.instanceOf(error, Refused)
    assert.deepStrictEqual([...tree(folder).keys()].filter((name) => !name.startsWith("fs/") && name !== "meta"), ["", "fs"])
    assert.strictEqual(descriptors(), before)
    removeTree(join(folder, "fs"))
  })())
})
