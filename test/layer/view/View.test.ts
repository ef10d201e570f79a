import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import { closeSync, mkdirSync, mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Refused } from "../../../src/layer/Fault.ts"
import { open } from "../../../src/layer/table/Scratch.ts"
import { Room } from "../../../src/layer/table/Table.ts"
import type { ViewEntry } from "../../../src/layer/view/Facts.ts"
import { NameReader, NameWriter } from "../../../src/layer/view/NameList.ts"
import { View } from "../../../src/layer/view/View.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { show } from "../../../src/layer/Unpacked.ts"
import { applied, device, dir, entryOf, file, type Item, link, symlink } from "../apply/Entries.ts"
import { Model, ModelRefused, ModelUndefined } from "../merge/MergeModel.ts"

/** What there is in memory, and how much of a list: all, or nothing. */
const rooms = [2 ** 24, 0] as const

/** All names, as they are written and read again. */
const listed = (view: View, room: number, under = ""): ReadonlyArray<ViewEntry> => {
  const file = open(tmpdir())
  const names = new NameWriter(file, new Room(tmpdir(), room), under, room === 0 ? 100 : undefined)
  try {
    for (const named of view.names()) names.add(named)
    const reader = new NameReader(file, names.end())
    const entries: Array<ViewEntry> = []
    for (let some = reader.next(); some !== undefined; some = reader.next()) entries.push(...some)
    return entries
  } finally {
    names.close()
    view.close()
    closeSync(file)
  }
}

const filled = (layers: ReadonlyArray<ReadonlyArray<Item>>, room: number): View => {
  const view = new View(new Room(tmpdir(), room), { hash: true })
  for (const items of layers) {
    view.begin()
    for (const item of items) {
      view.entry(entryOf(item))
      const content = Buffer.from(item.content ?? "", "latin1")
      if (content.byteLength > 0) view.data(content, 0)
      view.end()
    }
    view.finish()
  }
  return view
}

const viewOf = (layers: ReadonlyArray<ReadonlyArray<Item>>, room: number = rooms[0]) => listed(filled(layers, room), room)

/** The same of the layers as applying unpacks them. */
const viewOfUnpacked = (layers: ReadonlyArray<ReadonlyArray<Item>>, { bytes = rooms[0], native = true }: { readonly bytes?: number; readonly native?: boolean } = {}): ReadonlyArray<ViewEntry> => {
  const folder = mkdtempSync(join(tmpdir(), "towline-view-"))
  try {
    const room = new Room(tmpdir(), bytes)
    const view = new View(room, { hash: true })
    const syscalls = Syscalls.load({ native })
    for (const [index, items] of layers.entries()) {
      const place = join(folder, String(index))
      mkdirSync(place)
      applied(place, items, { syscalls })
      show(view, place, { syscalls, stop: () => {}, room })
    }
    return listed(view, bytes)
  } finally {
    removeTree(folder, { stop: () => {} })
  }
}

const whiteout = (path: string): Item => file(path.replace(/([^/]*)$/, ".wh.$1"))
/** What does not depend on where a name was found. */
const same = (entry: ViewEntry) => ({ ...entry, entry: 0, source: "" })
const sha = (text: string) => createHash("sha256").update(text).digest("hex")

describe("View", () => {
  it("lists what the layers make together, and where each name is from", () => {
    const layers = [
      [dir("etc", { mode: 0o750 }), file("etc/a", "old", { uid: 3 }), file("etc/b", "b"), dir("gone"), file("gone/x", "x"), symlink("bin", "usr/bin"), dir("usr/bin")],
      [file("etc/a", "new"), whiteout("gone"), file("bin/tool", "t"), link("alias", "etc/b"), device("char", "null", [1, 3]), file("deep/er", "")]
    ]
    const entries = viewOf(layers)
    assert.deepStrictEqual(viewOf(layers, 0), entries)
    const names = entries.map(({ layer, link, name, type }) => [name, type, layer, link])
    assert.deepStrictEqual(names, [
      ["", "dir", -1, undefined], ["alias", "file", 0, undefined], ["bin", "symlink", 0, undefined], ["deep", "dir", -1, undefined], ["deep/er", "file", 1, undefined],
      ["etc", "dir", 0, undefined], ["etc/a", "file", 1, undefined], ["etc/b", "file", 0, "alias"], ["null", "char", 1, undefined],
      ["usr", "dir", -1, undefined], ["usr/bin", "dir", 0, undefined], ["usr/bin/tool", "file", 1, undefined]
    ])
    const of = new Map(entries.map((entry) => [entry.name, entry]))
    assert.deepStrictEqual([of.get("etc/a")?.sha256, of.get("etc/a")?.size, of.get("etc/a")?.entry, of.get("null")?.target], [sha("new"), 3, 1, "1,3"])
    for (const room of rooms) {
      const view = filled(layers, room)
      assert.deepStrictEqual(view.lookUp("bin/tool"), of.get("usr/bin/tool"))
      assert.strictEqual(view.lookUp("bin/../../etc/./b")?.name, "etc/b")
      assert.strictEqual(view.lookUp("etc/b/../a/.")?.name, "etc/a")
      assert.deepStrictEqual(["etc/a/x", "none", "gone", "gone/x"].map((path) => view.lookUp(path)), Array(4).fill(undefined))
      for (const name of ["", "etc", "deep", "usr/bin"]) assert.deepStrictEqual(view.lookUp(`/${name}/`), of.get(name))
      view.close()
    }
    for (const [under, count] of [["etc", 3], ["et", 0], ["usr/bin/tool", 1], ["usr", 3]] as const) {
      assert.deepStrictEqual(listed(filled(layers, 0), 0, under), entries.filter(({ name }) => name === under || name.startsWith(`${under}/`)))
      assert.strictEqual(listed(filled(layers, 0), 0, under).length, count)
    }
  })

  it("hashes holes as zeros", () => {
    const view = new View(new Room(tmpdir(), rooms[0]), { hash: true })
    view.begin()
    view.entry(entryOf(file("sparse", "", { size: 100_000 })))
    view.data(Buffer.from("x"), 70_000)
    view.end()
    view.finish()
    const whole = Buffer.alloc(100_000)
    whole[70_000] = 0x78
    assert.strictEqual(listed(view, rooms[0])[1]?.sha256, createHash("sha256").update(whole).digest("hex"))
  })

  it("refuses what no root file system can be", () => {
    for (const layers of [[[file("a"), file("a/b")]], [[link("a", "b")]], [[dir("a"), link("b", "a")]], [[symlink("a", "b"), symlink("b", "a"), file("a/x")]]]) {
      for (const room of rooms) assert.throws(() => viewOf(layers, room), Refused)
    }
  })

  const path = Schema.Array(Schema.Literals(["a", "b", "c"])).check(Schema.isBetweenLength(1, 3))
  const Layers = Schema.Array(Schema.Array(Schema.Struct({
    kind: Schema.Literals(["file", "file", "dir", "dir", "symlink", "link", "whiteout", "opaque"]), path, target: path, absolute: Schema.Boolean
  })).check(Schema.isMaxLength(7))).check(Schema.isMaxLength(4))
  it.effect.prop("shows what applying the layers one after the other gives", { layers: Layers }, ({ layers }) => Effect.sync(() => {
    let count = 0
    const items = layers.map((entries) => [...new Map(entries.map(({ absolute, kind, path, target }): [string, Item] => {
      count++
      const name = path.join("/")
      const mtime = [1_600_000_000 + count, count] as const
      const to = target.join("/")
      const item: Item = kind === "whiteout" ? whiteout(name) : kind === "opaque" ? file(`${path.slice(0, -1).map((one) => `${one}/`).join("")}.wh..wh..opq`)
        : kind === "link" ? link(name, to) : kind === "symlink" ? symlink(name, absolute ? `/${to}` : to, { mtime })
        : { type: kind, path: name, mode: 0o700, mtime, content: kind === "file" ? `content ${count}` : "" }
      return [item.path, item]
    })).values()].sort((a, b) => a.path < b.path ? -1 : 1))
    const model = new Model()
    try {
      for (const layer of items) model.apply(layer)
    } catch (error) {
      if (error instanceof ModelRefused || error instanceof ModelUndefined) return
      throw error
    }
    let entries: ReadonlyArray<ViewEntry>
    try {
      entries = viewOf(items)
    } catch (error) {
      assert.isTrue(error instanceof Refused && model.doubtful, String(error))
      return
    }
    const bare = (records: ReadonlyArray<readonly [string, string, string, string, bigint]>) => records.toSorted(([a], [b]) => a < b ? -1 : 1)
    assert.deepStrictEqual(
      bare(entries.map(({ mtime, name, sha256, target, type }) => [name, type, target, sha256 ?? "", BigInt(mtime[0]) * 1_000_000_000n + BigInt(mtime[1])])),
      bare(model.records().map(({ content, linkTarget, mtimeNs, path, type }) => [path, type, linkTarget, content, mtimeNs])), JSON.stringify(items))
    assert.deepStrictEqual(viewOf(items, 0), entries, JSON.stringify(items))
    // Where the records are of one mind about it, the unpacked layers show the same.
    if (!model.doubtful) for (const bytes of rooms) assert.deepStrictEqual(viewOfUnpacked(items, { bytes }).map(same), entries.map(same), JSON.stringify(items))
  }), { arbitrary: { runs: 400 }, timeout: 60_000 })

  it("shows the same of unpacked layers: owners, modes, attributes, devices, sparse files, links", () => {
    const layers = [
      [dir("", { mode: 0o751, mtime: [5, 5] }), dir("etc", { mode: 0o2755, uid: 3, gid: 4 }), file("etc/a", "old", { uid: 3, mode: 0o4644, mtime: [-9, 1], xattrs: { "user.b": "2", "user.a": "\0" } }),
        file("etc/b", "b"), link("etc/c", "etc/b"), symlink("bin", "/usr/bin", { uid: 7 }), dir("usr/bin"), file("usr/lib/x", "x"), dir("gone"), file("gone/y", "y"), file("\xff\x01", "odd"), dir("etc/shut", { mode: 0 }), file("etc/shut/in", "in", { mode: 0 })],
      [file("bin/tool", "t", { mode: 0 }), link("alias", "etc/b"), whiteout("etc/b"), whiteout("gone"), file("usr/lib/.wh..wh..opq"), file("usr/lib/z", "z"),
        device("char", "null", [1, 3], { uid: 5 }), device("fifo", "pipe"), file("sparse", "x", { size: 100_000, sparse: [[70_000, 1]] })]
    ]
    const should = viewOf(layers.map((items) => items.map((item) => item.sparse === undefined ? item : { ...item, content: "\0".repeat(70_000) + "x" })))
    for (const native of [true, false]) for (const bytes of rooms) assert.deepStrictEqual(viewOfUnpacked(layers, { bytes, native }).map(same), should.map(same), String(native))
  })
})
