import { assert, describe, it } from "@effect/vitest"
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Refused } from "../../../src/layer/Fault.ts"
import { merge, type MergeOptions, type MergeSummary } from "../../../src/layer/merge/Merge.ts"
import * as Meta from "../../../src/layer/apply/Meta.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { diff, type TreeRecord, walk } from "../../../src/testing/Tree.ts"
import { applied, descriptors, device, dir, file, inTemp, type Item, link, privileged, symlink, thrown } from "../apply/Entries.ts"

const syscalls = Syscalls.load()

/** Applies layers and merges them below `folder`. */
const built = (folder: string, move: boolean, layers: ReadonlyArray<ReadonlyArray<Item>>, options: Partial<MergeOptions> = {}): MergeSummary => {
  mkdirSync(folder)
  mkdirSync(join(folder, "root"), { mode: 0o700 })
  const folders = layers.map((items, index) => {
    const layer = join(folder, String(index))
    mkdirSync(layer)
    applied(layer, items)
    return { folder: layer, move }
  })
  return merge(join(folder, "root"), folders, { link: "auto", hold: join(folder, "hold"), syscalls, ...options })
}

/** Moved and copied: equal trees, no handle left open, the hold folder gone, layers that stay unchanged. */
const merged = (folder: string, layers: ReadonlyArray<ReadonlyArray<Item>>): ReadonlyArray<TreeRecord> => {
  const before = descriptors()
  built(join(folder, "spilled"), true, layers, { memory: 0 })
  built(join(folder, "move"), true, layers)
  built(join(folder, "copy"), false, layers)
  assert.strictEqual(descriptors(), before)
  const [moved, copied] = [walk(join(folder, "move", "root")), walk(join(folder, "copy", "root"))]
  assert.deepStrictEqual(diff(moved, copied), [])
  for (const name of ["move", "copy"]) assert.isFalse(existsSync(join(folder, name, "hold")))
  layers.forEach((items, index) => {
    const again = join(folder, `again-${index}`)
    mkdirSync(again)
    applied(again, items)
    assert.deepStrictEqual(diff(walk(join(again, "fs")), walk(join(folder, "copy", String(index), "fs"))), [])
  })
  return moved
}

/** The refusal, moved and copied alike. */
const refused = (folder: string, layers: ReadonlyArray<ReadonlyArray<Item>>): string => {
  const before = descriptors()
  const errors = [true, false].map((move) => thrown(() => built(join(folder, `refused-${String(move)}`), move, layers)))
  assert.strictEqual(descriptors(), before)
  for (const error of errors) assert.instanceOf(error, Refused)
  assert.strictEqual(String(errors[0]), String(errors[1]))
  return String(errors[0])
}

/** One line a name: type, mode of folders, content, target, group. */
const lines = (records: ReadonlyArray<TreeRecord>): ReadonlyArray<string> => records.slice(1).map(({ path, type, mode, size, linkTarget, hardLinkGroup }) =>
  [path, type, ...type === "dir" ? [mode.toString(8)] : type === "symlink" ? [linkTarget] : [size], ...hardLinkGroup === "" ? [] : [`= ${hardLinkGroup}`]].join(" "))

const of = (records: ReadonlyArray<TreeRecord>, path: string): TreeRecord | undefined => records.find((record) => record.path === path)

const whiteout = (path: string): Item => file(path.replace(/([^/]*)$/, ".wh.$1"))
const opaque = (path: string): Item => file(`${path}/.wh..wh..opq`)
const at = (seconds: number, nanos = 0) => ({ mtime: [seconds, nanos] as const })

describe("Merge", () => {
  it("writes through what lower layers laid down where a layer has only implied folders", inTemp((folder) => {
    const records = merged(folder, [
      [dir("usr"), dir("usr/lib", at(5, 6)), symlink("lib", "usr/lib"), file("usr/lib/gone", "x"), file("file", "data", at(9, 1)), dir("own", { mode: 0o711, ...at(7, 8) }), file("own/first")],
      [file("lib/foo", "foo"), link("second", "file"), whiteout("lib/gone"), file("own/more")]
    ])
    assert.deepStrictEqual(lines(records), [
      "file file 4 = file", "lib symlink usr/lib", "own dir 711", "own/first file 0", "own/more file 0", "second file 4 = file", "usr dir 755", "usr/lib dir 755", "usr/lib/foo file 3"
    ])
    assert.deepStrictEqual(["own", "usr/lib", "file", "second"].map((path) => of(records, path)?.mtimeNs), [7_000_000_008n, 5_000_000_006n, 9_000_000_001n, 9_000_000_001n])
  }))

  it("hides and adds again in one layer", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [dir("a"), file("a/old", "o"), file("f", "old"), dir("kept"), file("kept/x")],
      [whiteout("a"), dir("a", { mode: 0o700 }), file("a/new", "n"), file("f", "newer"), whiteout("f"), whiteout("nothing"), whiteout("no/where"), whiteout("kept/x/below")]
    ])), ["a dir 700", "a/new file 1", "f file 5", "kept dir 755", "kept/x file 0"])
  }))

  it("empties opaque folders of what is below, wherever the record stands, and keeps what the layer has there", inTemp((folder) => {
    const lower = [dir("a", at(3)), dir("a/deep"), file("a/deep/old"), file("a/old"), dir("b", { mode: 0o750, ...at(4) }), file("b/old"), symlink("s", "b")]
    const records = merged(folder, [
      lower,
      [dir("a", { mode: 0o711, ...at(8) }), file("a/new"), file("a/deep/new"), opaque("a"), opaque("s"), file("s/new"), opaque("none")]
    ])
    assert.deepStrictEqual(lines(records), ["a dir 711", "a/deep dir 755", "a/deep/new file 0", "a/new file 0", "b dir 750", "b/new file 0", "s symlink b"])
    assert.deepStrictEqual(["a", "a/deep", "b"].map((path) => of(records, path)?.mtimeNs), [8_000_000_000n, 0n, 4_000_000_000n])
    assert.deepStrictEqual(lines(merged(join(folder, "copy"), [lower, [file(".wh..wh..opq"), file("only")]])), ["only file 0"])
  }))

  it("deletes a folder that an earlier layer made a symlink, not where it leads", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [dir("usr"), file("usr/kept"), dir("lib"), file("lib/old")], [symlink("lib", "usr")], [whiteout("lib")]
    ])), ["usr dir 755", "usr/kept file 0"])
  }))

  it("replaces by type: folder over symlink, file over folder, folder over file, symlink over folder", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [dir("t"), file("t/kept"), symlink("link", "t"), symlink("other", "t"), dir("full"), dir("full/of"), file("full/of/things"), file("file", "x"), dir("dir"), file("dir/x"), dir("empty")],
      [dir("link", { mode: 0o700 }), file("link/new"), symlink("other", "full"), file("full", "flat"), dir("file"), file("file/in"), symlink("dir", "t"), file("empty", "e")]
    ])), [
      "dir symlink t", "empty file 1", "file dir 755", "file/in file 0", "full file 4", "link dir 700", "link/new file 0", "other symlink full", "t dir 755", "t/kept file 0"
    ])
  }))

  it("takes a whiteout by the folder that will be there, not by the symlink that it replaces", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [dir("t"), file("t/gone"), file("t/kept"), symlink("link", "t")], [dir("link"), whiteout("link/gone"), opaque("link")]
    ])), ["link dir 755", "t dir 755", "t/gone file 0", "t/kept file 0"])
  }))

  it("holds the target of a hard link that the same layer hides or replaces", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [file("one", "1"), file("two", "22"), dir("d"), file("d/three", "333"), symlink("s", "d")],
      [link("a/one", "one"), link("b", "one"), link("c", "two"), link("e", "s/three"), link("f", "d/three"), file("two", "other"), whiteout("one"), whiteout("d")]
    ])), [
      "a dir 755", "a/one file 1 = a/one", "b file 1 = a/one", "c file 2", "e file 3 = e", "f file 3 = e", "s symlink d", "two file 5"
    ])
  }))

  it("links symlinks themselves, and in place of a folder or of the target itself", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [symlink("s", "nowhere"), file("f", "f"), dir("d"), file("d/x"), link("g", "f")], [link("d", "s"), link("g", "f")]
    ])), ["d symlink nowhere = d", "f file 1 = f", "g file 1 = f", "s symlink nowhere = d"])
  }))

  for (const [what, layers, reason] of [
    ["a hard link to what is in no layer", [[file("x")], [link("l", "none")]], "entry \"l\": its hard link target \"none\": it is in no layer"],
    ["a hard link to what cannot be", [[file("x")], [link("l", "x/y")]], "its parent \"x\" is not a folder"],
    ["a hard link to a folder", [[dir("d")], [link("l", "d")]], "it is a folder"],
    ["a file in a file", [[file("f")], [file("f/x")]], "its parent \"f\" is not a folder"],
    ["a loop of symlinks", [[symlink("a", "b"), symlink("b", "a")], [file("a/x")]], "40 symlinks"]
  ] as const) {
    it(`refuses ${what}`, inTemp((folder) => assert.include(refused(folder, layers), reason)))
  }

  it("never leaves the root, whatever lower layers lead to", inTemp((folder) => {
    const outside = join(folder, "outside")
    mkdirSync(outside)
    writeFileSync(join(outside, "secret"), "secret")
    const up = "../".repeat(20)
    const records = merged(folder, [
      [symlink("abs", outside), symlink("up", `${up}${outside.slice(1)}`), symlink("secret", join(outside, "secret")), dir("proc"), symlink("self", "/proc/self/root")],
      [file("abs/in", "1"), whiteout("up/secret"), opaque("abs"), file("up/in2", "2"), file("secret", "mine"), file("self/x", "3"), dir(outside.slice(1))]
    ])
    assert.deepStrictEqual(readdirSync(outside), ["secret"])
    assert.strictEqual(readFileSync(join(outside, "secret"), "utf8"), "secret")
    assert.deepStrictEqual(lines(records).filter((line) => / file /.test(line)), [
      "proc/self/root/x file 1", "secret file 4", `${outside.slice(1)}/in file 1`, `${outside.slice(1)}/in2 file 1`
    ].sort())
    mkdirSync(join(folder, "link"))
    assert.include(refused(join(folder, "link"), [[symlink("abs", outside)], [link("l", "abs/secret")]]), "it is in no layer")
  }))

  it("makes folders that a dangling symlink leads to", inTemp((folder) => {
    const records = merged(folder, [[symlink("run", "var/run"), dir("var", at(4))], [file("run/a/b", "x"), whiteout("run/gone")]])
    assert.deepStrictEqual(lines(records), ["run symlink var/run", "var dir 755", "var/run dir 755", "var/run/a dir 755", "var/run/a/b file 1"])
    assert.deepStrictEqual(["var", "var/run", "var/run/a"].map((path) => of(records, path)?.mtimeNs), [4_000_000_000n, 0n, 0n])
  }))

  it("finds a hard link's target in its own layer through a symlink of a lower one", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [[dir("usr"), symlink("lib", "usr")], [file("usr/new", "new"), link("x", "lib/new")]])),
      ["lib symlink usr", "usr dir 755", "usr/new file 3 = usr/new", "x file 3 = usr/new"])
  }))

  it("gives a folder the metadata of the last layer that has an entry for it, the root too", inTemp((folder) => {
    const records = merged(folder, [
      [dir("", { mode: 0o700, ...at(1) }), dir("d", { mode: 0o700, ...at(2) }), dir("d/e", at(3, 3)), file("d/e/f")],
      [dir("d", { mode: 0o1777, ...at(4, 5) }), file("d/e/g")],
      [dir("", { mode: 0o711, ...at(6) }), file("d/h"), whiteout("d/e/f")],
      [file("d/e/f2")]
    ])
    assert.deepStrictEqual(["", "d", "d/e"].map((path) => [of(records, path)?.mode, of(records, path)?.mtimeNs]), [[0o711, 6_000_000_000n], [0o1777, 4_000_000_005n], [0o755, 3_000_000_003n]])
    mkdirSync(join(folder, "bare"))
    const bare = merged(join(folder, "bare"), [[file("a/b/c")], [file("a/b/d")]])
    assert.deepStrictEqual(bare.filter(({ type }) => type === "dir").map(({ path, mode, mtimeNs }) => [path, mode, mtimeNs]), [["", 0o755, 0n], ["a", 0o755, 0n], ["a/b", 0o755, 0n]])
  }))

  it("keeps hard links of one layer, also across folders and those of an older group", inTemp((folder) => {
    assert.deepStrictEqual(lines(merged(folder, [
      [dir("a"), file("a/1", "one"), link("a/2", "a/1"), link("b", "a/1"), file("z", "z")],
      [file("a/2", "new"), link("c", "b"), link("a/3", "a/2"), link("d", "z")]
    ])), ["a dir 755", "a/1 file 3 = a/1", "a/2 file 3 = a/2", "a/3 file 3 = a/2", "b file 3 = a/1", "c file 3 = a/1", "d file 1 = d", "z file 1 = d"])
  }))

  it("keeps names that are not UTF-8, control characters and long names", inTemp((folder) => {
    const names = ["\u00ff\u00fe", "a\nb", "%", "x".repeat(255), ".wh"]
    const records = merged(folder, [[...names.map((name) => file(`d/${name}`, "1")), symlink("s", "d/\u00ff")], [...names.map((name) => dir(`e/${name}`)), whiteout("d/\u00ff\u00fe"), dir("d/\u00ff"), file("s/x")]])
    assert.sameMembers(records.filter(({ type }) => type === "file").map(({ path }) => path), [...names.slice(1).map((name) => `d/${name}`), "d/\u00ff/x"])
  }))

  it("keeps sparse files sparse and copies large ones piece by piece", inTemp((folder) => {
    const size = 64 * 1024 * 1024
    const sparse: ReadonlyArray<readonly [number, number]> = [[0, 3], [10_000_000, 5], [30_000_001, 4]]
    const items = [file("sparse", "abcdefghijkl", { size, sparse }), file("hole", "", { size: 1_000_000, sparse: [] }), file("full", "x".repeat(700_001))]
    const records = merged(folder, [items])
    assert.strictEqual(of(records, "sparse")?.size, size)
    for (const how of ["move", "copy"]) {
      assert.isBelow(statSync(join(folder, how, "root", "sparse")).blocks, 200)
      assert.isBelow(statSync(join(folder, how, "root", "hole")).blocks, 9)
    }
    mkdirSync(join(folder, "stopped"))
    let asked = 0
    const before = descriptors()
    const error = thrown(() => built(join(folder, "stopped", "x"), false, [[items[2] ?? file("x")]], { stop: () => {
      if (++asked === 3) throw new Error("stopped")
    } }))
    assert.strictEqual(String(error), "Error: stopped")
    assert.strictEqual(descriptors(), before)
  }))

  it("says by a reflink option that contents must be shared", inTemp((folder) => {
    const error = thrown(() => built(join(folder, "x"), false, [[file("f", "content")]], { link: "reflink" }))
    if (error === undefined) return // this file system can
    assert.match(String(error), /ENOTSUP|EOPNOTSUPP|EINVAL|EXDEV|ENOTTY|ENOSYS/)
    assert.include(String(error), join(folder, "x", "root", "f"))
  }))

  it("stops at every entry", inTemp((folder) => {
    const layers = [[dir("a"), file("a/1"), file("a/2"), dir("b")], [file("a/3"), whiteout("a/1"), link("c", "a/2"), opaque("b"), file("b/x")]]
    const before = descriptors()
    for (const move of [true, false]) {
      let calls = 0
      built(join(folder, `all-${String(move)}`), move, layers, { stop: () => void calls++ })
      assert.isAbove(calls, 9)
      for (let turn = 1; turn <= calls; turn++) {
        let asked = 0
        const error = thrown(() => built(join(folder, `${String(move)}-${turn}`), move, layers, { stop: () => {
          if (++asked === turn) throw new Error("stopped")
        } }))
        assert.strictEqual(String(error), "Error: stopped")
      }
    }
    assert.strictEqual(descriptors(), before)
  }))

  it("takes no journal of another version, and no layer without files", inTemp((folder) => {
    mkdirSync(join(folder, "layer", "fs"), { recursive: true })
    mkdirSync(join(folder, "root"), { mode: 0o700 })
    const run = () => merge(join(folder, "root"), [{ folder: join(folder, "layer"), move: true }], { link: "auto", hold: join(folder, "hold"), syscalls })
    const before = descriptors()
    writeFileSync(join(folder, "layer", "meta"), "towline-layer 2\n")
    assert.instanceOf(thrown(run), Meta.MetaDamaged)
    assert.include(String(thrown(() => merge(join(folder, "root"), [{ folder: join(folder, "none"), move: true }], { link: "auto", hold: join(folder, "hold"), syscalls }))), "ENOENT")
    assert.strictEqual(descriptors(), before)
  }))

  it.runIf(privileged && syscalls.native)("keeps owners, devices, attributes and set-ID bits", inTemp((folder) => {
    const caps = Buffer.from("0100000200040000000000000000000000000000", "hex").toString("latin1")
    const records = merged(folder, [
      [dir("g", { mode: 0o2775, gid: 50, xattrs: { "user.dir": "1" } }), file("su", "x", { mode: 0o4755, uid: 7 }), device("char", "null", [1, 3], { mode: 0o666 }), device("fifo", "p", [0, 0], { uid: 3 })],
      [file("g/f", "x", { mode: 0o6755, uid: 4_000_000_000, gid: 9, xattrs: { "security.capability": caps, "user.b": "\0\u00ff" } }), dir("g/sub"), symlink("g/s", "x", { uid: 5, gid: 6 }), device("block", "g/b", [8, 1])],
      [dir("g", { mode: 0o755, xattrs: { "user.other": "2" } })],
      [file("g/plain"), device("char", "su", [1, 5])]
    ])
    assert.deepStrictEqual(of(records, "g/f"), { ...of(records, "g/f"), uid: 4_000_000_000, gid: 9, mode: 0o6755, xattrs: [`security.capability=${Buffer.from(caps, "latin1").toString("hex")}`, "user.b=00ff"] } as TreeRecord)
    assert.deepStrictEqual(["g", "g/sub", "g/s", "g/plain"].map((path) => [of(records, path)?.uid, of(records, path)?.gid, of(records, path)?.mode]), [[0, 0, 0o755], [0, 0, 0o755], [5, 6, 0o777], [0, 0, 0o644]])
    assert.deepStrictEqual(of(records, "g")?.xattrs, ["user.other=32"])
    assert.deepStrictEqual(["null", "p", "g/b", "su"].map((path) => [of(records, path)?.type, of(records, path)?.device]), [["char", "1:3"], ["fifo", ""], ["block", "8:1"], ["char", "1:5"]])
  }))

  it("passes on what could not be set", inTemp((folder) => {
    mkdirSync(join(folder, "layer"))
    mkdirSync(join(folder, "root"), { mode: 0o700 })
    applied(join(folder, "layer"), [file("f", "x", { mtime: [1_700_000_000, 123_456_789] })], { syscalls: Syscalls.load({ native: false }) })
    const plain = merge(join(folder, "root"), [{ folder: join(folder, "layer"), move: false }], { link: "auto", hold: join(folder, "hold"), syscalls: Syscalls.load({ native: false }) })
    assert.isAbove(plain.unset.times, 0)
    if (!syscalls.native) return
    mkdirSync(join(folder, "root2"), { mode: 0o700 })
    assert.deepStrictEqual(merge(join(folder, "root2"), [{ folder: join(folder, "layer"), move: true }], { link: "auto", hold: join(folder, "hold"), syscalls }).unset, { owners: 0, devices: 0, xattrs: 0, times: 0 })
    assert.strictEqual(lstatSync(join(folder, "root2", "f"), { bigint: true }).mtimeNs, 1_700_000_000_123_456_789n)
  }))
})
