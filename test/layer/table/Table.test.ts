import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { Room, Table } from "../../../src/layer/table/Table.ts"
import { descriptors, inTemp } from "../apply/Entries.ts"

// eslint-disable-next-line no-control-regex -- one character per byte is what is meant
const key = Schema.String.check(Schema.isPattern(/^[\u0001-\u00ff]{0,3}$/))

describe("Table", () => {
  it.prop("is a Map of names, before and after it goes into a file", [Schema.Array(Schema.Tuple([key, Schema.UndefinedOr(Schema.String)])), Schema.Natural], ([steps, n]) => {
    const [table, map] = [new Table<readonly [string]>(new Room(tmpdir(), n % 2000)), new Map<string, readonly [string]>()]
    try {
      for (const [name, value] of steps) {
        if (value === undefined) {
          table.delete(name)
          map.delete(name)
        } else {
          table.set(name, [value])
          map.set(name, [value])
        }
        assert.deepStrictEqual([table.get(name), table.has(name), table.size], [map.get(name), map.has(name), map.size])
      }
      assert.deepStrictEqual(new Map(table.entries()), map)
      assert.deepStrictEqual(new Set(table.keys()), new Set(map.keys()))
    } finally {
      table.close()
    }
  })

  it("keeps many names in their order, outgrows its slots, and leaves nothing behind", inTemp((folder) => {
    const before = descriptors()
    const table = new Table<number>(new Room(folder, 10_000))
    const names = [...Array(20_000).keys()].map((n) => `folder\u00ff/${n}${n % 100 === 0 ? "x".repeat(5000) : ""}`)
    for (const [n, name] of names.entries()) table.set(name, n)
    for (const [n, name] of names.entries()) if (n % 3 === 0) table.delete(name)
    for (const [n, name] of names.entries()) if (n % 7 === 0) table.set(name, -1 - n)
    const expected = names.flatMap((name, n): Array<[string, number]> => n % 3 === 0 || n % 7 === 0 ? [] : [[name, n]])
    const again = names.flatMap((name, n): Array<[string, number]> => n % 7 === 0 ? [[name, -1 - n]] : [])
    assert.deepStrictEqual([...table.entries()], [...expected, ...again])
    assert.strictEqual(table.size, expected.length + again.length)
    for (const [name, n] of expected) assert.strictEqual(table.get(name), n)
    assert.isFalse(table.has("folder\u00ff/3"))
    assert.deepStrictEqual(readdirSync(folder), [])
    table.close()
    assert.strictEqual(descriptors(), before)
  }))

  it("gives the room back that it had", () => {
    const room = new Room(tmpdir(), 1000)
    const [one, other] = [new Table<number>(room), new Table<number>(room)]
    for (let n = 0; n < 20; n++) one.set(`${n}`, n)
    assert.isAbove(room.left, 0)
    other.set("a", 1)
    assert.deepStrictEqual([other.get("a"), one.size, one.get("7")], [1, 20, 7])
    one.close()
    other.close()
    assert.strictEqual(room.left, 1000)
  })
})
