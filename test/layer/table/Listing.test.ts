import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { list, unsorted } from "../../../src/layer/table/Listing.ts"
import { Room } from "../../../src/layer/table/Table.ts"
import { descriptors, inTemp } from "../apply/Entries.ts"

describe("A list of names", () => {
  it("is in the order of their bytes, whether there is room for them or not", inTemp((folder) => {
    const [place, scratch] = [join(folder, "place"), join(folder, "scratch")]
    for (const path of [place, scratch]) mkdirSync(path)
    const names = [...Array(500).keys()].map((n) => n % 3 === 0 ? `${n}\u00ff` : n % 3 === 1 ? `\u0080${n}` : `${n}${"x".repeat(n % 250)}`)
    for (const [n, name] of names.entries()) {
      const path = Buffer.from(`${place}/${name}`, "latin1")
      if (n % 5 === 0) mkdirSync(path)
      else writeFileSync(path, "")
    }
    const expected = names.map((segment, n) => ({ segment, isFolder: n % 5 === 0 })).sort((a, b) => a.segment < b.segment ? -1 : 1)
    const before = descriptors()
    for (const [bytes, stretch] of [[2 ** 20, 2 ** 20], [0, 2 ** 20], [0, 2000], [30_000, 2000], [0, 0]] as const) {
      const room = new Room(scratch, bytes)
      assert.deepStrictEqual([...list(place, room, stretch)], expected)
      assert.strictEqual(room.left, bytes)
      const begun = list(place, room, stretch)
      assert.deepStrictEqual(begun.next().value, expected[0])
      begun.return()
      assert.strictEqual(room.left, bytes)
    }
    assert.deepStrictEqual([descriptors(), readdirSync(scratch)], [before, []])
    assert.deepStrictEqual([...unsorted(place)].sort((a, b) => a.segment < b.segment ? -1 : 1), expected)
  }))

  it("of an empty folder is empty", inTemp((folder) => {
    for (const bytes of [0, 1000]) assert.deepStrictEqual([...list(folder, new Room(folder, bytes))], [])
  }))
})
