import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Refused } from "../../../src/layer/Fault.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { Apply } from "../../../src/layer/apply/Apply.ts"
import { applied, descriptors, device, dir, entryOf, file, inTemp, type Item, link, shape, symlink, thrown, tree } from "./Entries.ts"

/** What must come of the entries: a rule they break, or the tree and records they make. */
type Outcome = RegExp | { readonly tree: ReadonlyArray<string>; readonly records?: ReadonlyArray<object> }

const none = { tree: [] }
const chain = (length: number) => [dir("end"), ...Array.from({ length }, (_, hop) => symlink(`s${hop}`, hop === 0 ? "end" : `s${hop - 1}`))]
const record = (t: "whiteout" | "opaque" | "implied", path: string) => ({ t, path })

// CANARY stands for the path of a folder outside, with one file, beside the folder that holds fs/.
const attacks: ReadonlyArray<readonly [name: string, items: ReadonlyArray<Item>, outcome: Outcome]> = [
  ["a name that leads up", [file("../canary/file", "evil")], { tree: ["canary dir", "canary/file file evil"] }],
  ["a name that leads up far", [file("../../../../../../etc/evil", "x")], { tree: ["etc dir", "etc/evil file x"] }],
  ["a name that leads up in its middle", [file("a/../../canary/file", "evil")], { tree: ["canary dir", "canary/file file evil"] }],
  ["an absolute name", [file("/evil", "x")], { tree: ["evil file x"] }],
  ["an absolute name into the canary", [file("CANARY/file", "evil")], { tree: ["CANARY dirs", "CANARY/file file evil"] }],
  ["a name that ends in ..", [file("a/..", "x")], /root can only be a folder/],
  ["the root as a file", [file("/", "x")], /root can only be a folder/],
  ["the root as a symlink", [symlink(".", "CANARY"), file("file", "evil")], /root can only be a folder/],
  ["the root as a hard link", [link("./", "a")], /root can only be a folder/],
  ["writing through a symlink to outside", [symlink("s", "CANARY"), file("s/file", "evil")], { tree: ["CANARY dirs", "CANARY/file file evil", "s symlink CANARY"] }],
  ["writing through a relative symlink", [symlink("s", "../canary"), file("s/file", "evil")], { tree: ["canary dir", "canary/file file evil", "s symlink ../canary"] }],
  ["writing over a symlink to a file outside", [symlink("s", "CANARY/file"), file("s", "evil")], { tree: ["s file evil"] }],
  ["a folder over a symlink to outside", [symlink("s", "CANARY"), dir("s", { mode: 0o777, mtime: [5, 0] }), file("s/x", "1")],
    { tree: ["s dir", "s/x file 1"], records: [record("whiteout", "s"), record("implied", "")] }],
  ["a symlink whose target goes through another", [dir("a"), symlink("a/up", ".."), symlink("s", "a/up/../canary"), file("s/file", "evil")],
    { tree: ["a dir", "a/up symlink ..", "canary dir", "canary/file file evil", "s symlink a/up/../canary"] }],
  ["a folder replaced by a symlink after it was used (poisoned cache)", [dir("d"), file("d/1", "a"), symlink("d", "CANARY"), file("d/file", "evil")],
    { tree: ["CANARY dirs", "CANARY/file file evil", "d symlink CANARY"] }],
  ["a folder deep below replaced by a symlink", [file("a/b/c/1", "x"), symlink("a/b", "CANARY"), file("a/b/file", "evil"), file("a/b/c/1", "y")],
    { tree: ["CANARY dirs", "CANARY/c dir", "CANARY/c/1 file y", "CANARY/file file evil", "a dir", "a/b symlink CANARY"] }],
  ["metadata of a folder that became a symlink", [dir("d", { mode: 0o777, mtime: [5, 5] }), symlink("d", "CANARY")], { tree: ["d symlink CANARY"] }],
  ["metadata of a folder under one that became a symlink", [dir("d"), dir("d/file", { mode: 0o777 }), symlink("d", "CANARY")], { tree: ["d symlink CANARY"] }],
  ["a loop", [symlink("a", "b"), symlink("b", "a"), file("a/x", "1")], /more than 40 symlinks/],
  ["a symlink to itself", [symlink("a", "a"), file("a/x", "1")], /more than 40 symlinks/],
  ["a symlink that grows", [symlink("a", "a/a/a"), file("a/x", "1")], /more than 40 symlinks/],
  ["40 symlinks", [...chain(40), file("s39/x", "1")], { tree: ["end dir", "end/x file 1", ...Array.from({ length: 40 }, (_, hop) => `s${hop} symlink ${hop === 0 ? "end" : `s${hop - 1}`}`).sort()] }],
  ["41 symlinks", [...chain(41), file("s40/x", "1")], /more than 40 symlinks/],
  ["a parent that is a file", [file("f", "1"), file("f/x", "2")], /parent "f" is not a folder/],
  ["a parent that is a symlink to a file", [file("f", "1"), symlink("s", "f"), file("s/x", "2")], /parent "f" is not a folder/],
  ["a parent that is a hard link to a lower layer", [link("l", "lower"), file("l/x", "2")], /parent is not a folder/],
  ["a whiteout in a file, as umoci repack writes it where a folder became one", [file("f", "1"), file("f/.wh.x"), file("f/.wh..wh..opq")],
    { tree: ["f file 1"], records: [record("implied", "")] }],
  ["a hard link to outside", [link("l", "CANARY/file")], { tree: [], records: [record("implied", ""), { t: "link", path: "l", target: "CANARY/file" }] }],
  ["a hard link up", [link("l", "../canary/file")], { tree: [], records: [record("implied", ""), { t: "link", path: "l", target: "canary/file" }] }],
  ["a hard link through a symlink to outside", [symlink("s", "CANARY"), link("l", "s/file"), file("l", "evil")], { tree: ["l file evil", "s symlink CANARY"] }],
  ["writing through a hard link to a symlink", [symlink("s", "CANARY/file"), link("l", "s"), file("l", "evil")], { tree: ["l file evil", "s symlink CANARY/file"] }],
  ["a hard link to a folder", [dir("d"), link("l", "d")], /target is a folder/],
  ["a hard link to the root", [link("l", "/")], /target is a folder/],
  ["a hard link to the root by ..", [link("l", "a/..")], /target is a folder/],
  ["a hard link to itself", [file("a", "1"), link("a", "a")], /link to itself/],
  ["a hard link to itself that is not there", [link("a", "./a")], /link to itself/],
  ["a hard link over the folder its target is in", [file("d/x", "1"), link("d", "d/x")], /in the folder that it replaces/],
  ["a hard link over the folder its absent target is in", [dir("d"), link("d", "d/x")], /in the folder that it replaces/],
  ["a hard link to a child of a file", [file("f", "1"), link("l", "f/x")], /target: its parent "f" is not a folder/],
  ["a hard link through a loop", [symlink("a", "a"), link("l", "a/x")], /target: .*40 symlinks/],
  ["a hard link to what this layer removed", [file(".wh.gone"), link("l", "gone")], /removed by this layer/],
  ["a hard link into what this layer removed", [file("d/.wh.gone"), link("l", "d/gone/x")], /removed by this layer/],
  ["a hard link into an opaque folder", [file("d/.wh..wh..opq"), link("l", "d/x")], /removed by this layer/],
  ["a hard link to a whiteout", [file(".wh.x"), link("l", ".wh.x")], /is no file/],
  ["a hard link to what aufs did not keep", [file(".wh..wh.plnk/1", "x"), link("l", ".wh..wh.plnk/2")], /is no file that came before it/],
  ["a hard link to what aufs keeps later", [link("l", ".wh..wh.plnk/1"), file(".wh..wh.plnk/1", "x")], /is no file that came before it/],
  ["a hard link to what else aufs kept", [file(".wh..wh.orph/1", "x"), link("l", ".wh..wh.orph/1")], /is no file/],
  ["a whiteout of nothing", [file("d/.wh.")], /must name something/],
  ["a whiteout of .", [file("d/.wh..")], /must name something/],
  ["a whiteout of ..", [file("d/.wh...")], /must name something/],
  ["a whiteout of nothing at the root", [file(".wh.")], /must name something/],
  ["a whiteout of .. with a slash", [dir("d/.wh.../")], /must name something/],
  ["a whiteout through a symlink to outside", [symlink("s", "CANARY"), file("s/.wh.file")],
    { tree: ["s symlink CANARY"], records: [record("whiteout", "CANARY/file"), record("implied", "")] }],
  ["a whiteout that leads up", [file("../canary/.wh.file")], { tree: [], records: [record("whiteout", "canary/file"), record("implied", "")] }],
  ["an opaque folder through a symlink to outside", [symlink("s", "CANARY"), file("s/.wh..wh..opq")],
    { tree: ["s symlink CANARY"], records: [record("opaque", "CANARY"), record("implied", "")] }],
  ["an overlay whiteout", [device("char", "d", [0, 0])], /0:0/],
  ["a block device 0:0", [device("block", "d", [0, 0])], /0:0/],
  ["a device number out of range", [device("char", "d", [0x1000, 0])], /out of range/],
  ["a minor device number out of range", [device("char", "d", [1, 0x100000])], /out of range/],
  ["overlay attributes", [file("f", "1", { xattrs: { "trusted.overlay.opaque": "y", "user.overlay.redirect": "/CANARY", "trusted.overlay.metacopy": "" } })], { tree: ["f file 1"] }],
  ["overlay attributes of a folder", [dir("d", { xattrs: { "trusted.overlay.opaque": "y", "user.overlay.opaque": "x" } })], { tree: ["d dir"] }],
  ["writing into a FIFO", [device("fifo", "p"), file("p", "1")], { tree: ["p file 1"] }],
  ["writing through a symlink to a FIFO", [symlink("s", "p"), device("fifo", "p"), file("s", "1")], { tree: ["p fifo", "s file 1"] }],
  ["a FIFO as a parent", [device("fifo", "p"), file("p/x", "1")], /not a folder/],
  ["a name of 256 bytes", [file("n".repeat(256), "1")], /longer than 255 bytes/],
  ["a parent of 256 bytes", [file(`${"n".repeat(256)}/x`, "1")], /longer than 255 bytes/],
  ["a whiteout of a name of 256 bytes in a missing folder", [file(`${"n".repeat(256)}/.wh.x`, "1")], /longer than 255 bytes/],
  ["a hard link to a name of 256 bytes", [link("l", "n".repeat(256))], /longer than 255 bytes/],
  ["a symlink target longer than a path", [symlink("s", "t".repeat(5000))], /too long/],
  ["a way through more folders than a path can name", [symlink("s", "./d/../".repeat(500)), dir("d"), ...Array.from({ length: 12 }, (_, hop) => symlink(`t${hop}`, `${"d/../".repeat(500)}${hop === 0 ? "s" : `t${hop - 1}`}`)),
    file("t11/x", "1")], /more than 4096 folders/],
  ["an empty layer", [], none]
]

// Long path components of the canary folder are folders of their own: shown as one.
const shown = (lines: ReadonlyArray<string>, canary: string) => {
  const inside = canary.slice(1)
  return lines.map((line) => line.replaceAll(canary, "CANARY").replaceAll(inside, "CANARY"))
    .filter((line) => !canary.startsWith(`/${line.slice(0, line.lastIndexOf(" "))}/`))
    .map((line) => line === "CANARY dir" ? "CANARY dirs" : line).sort()
}

describe.each([["native", true], ["without native calls", false]] as const)("A hostile layer, %s", (_, native) => {
  it.each(attacks)("%s", (_, items, outcome) => inTemp((temp) => {
    const canary = join(temp, "canary")
    mkdirSync(canary, { mode: 0o700 })
    writeFileSync(join(canary, "file"), "untouched", { mode: 0o600 })
    mkdirSync(join(temp, "layer"))
    const place = (text: string) => text.replaceAll("CANARY", canary)
    const real = items.map((item) => ({ ...item, path: place(item.path), ...item.to === undefined ? {} : { to: place(item.to) } }))
    const outside = [...tree(canary)]
    const open = descriptors()
    let result: unknown
    try {
      result = applied(join(temp, "layer"), real, { syscalls: Syscalls.load({ native }) })
    } catch (error) {
      result = error
    }
    assert.deepStrictEqual([...tree(canary)], outside)
    assert.strictEqual(descriptors(), open)
    if (outcome instanceof RegExp) {
      assert.instanceOf(result, Refused)
      assert.match(result.rule, outcome)
      assert.isDefined(result.entry)
      return
    }
    if (result instanceof Error) throw result
    const fs = join(temp, "layer/fs")
    const expected = outcome.tree.filter((line) => native || !line.endsWith(" fifo"))
    assert.deepStrictEqual(shown(shape(fs), canary), [...expected].sort())
    for (const { xattrs } of tree(fs).values()) assert.isUndefined(xattrs)
    if (outcome.records !== undefined) {
      const records: unknown = JSON.parse(JSON.stringify(outcome.records).replaceAll("CANARY", canary.slice(1)))
      assert.deepStrictEqual(Object(result).records, records)
    }
  })())
})

describe("A layer made to fill memory, or the disk with names", () => {
  it("is refused when it has too much to remember", inTemp((temp) => {
    mkdirSync(join(temp, "fs"))
    const before = descriptors()
    const apply = new Apply(join(temp, "fs"), join(temp, "meta"), { syscalls: Syscalls.load(), most: 16 * 1024 * 1024 })
    const deep = "d/".repeat(1500)
    const error = thrown(() => {
      for (let one = 0; one < 1_000_000; one++) apply.entry(entryOf(file(`${deep}${"x".repeat(200)}/.wh.${one}`)))
    })
    apply.abort()
    assert.instanceOf(error, Refused)
    assert.match(error.rule, /more folders, whiteouts, links/)
    assert.strictEqual(descriptors(), before)
  }))

  it("is refused when its names say more with every folder", inTemp((temp) => {
    mkdirSync(join(temp, "fs"))
    const apply = new Apply(join(temp, "fs"), join(temp, "meta"), { syscalls: Syscalls.load(), most: 8 * 1024 * 1024 })
    const error = thrown(() => {
      for (let one = 0; one < 10_000; one++) apply.entry(entryOf(dir(`${one}/${"d/".repeat(1900)}`)))
    })
    apply.abort()
    assert.instanceOf(error, Refused)
    assert.match(error.rule, /more folders, whiteouts, links/)
  }))
})
