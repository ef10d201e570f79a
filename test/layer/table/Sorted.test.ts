import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { Sequence } from "../../../src/layer/table/Sequence.ts"
import { Sorted } from "../../../src/layer/table/Sorted.ts"
import { Room } from "../../../src/layer/table/Table.ts"
import { descriptors, inTemp } from "../apply/Entries.ts"

// eslint-disable-next-line no-control-regex -- one character per byte is what is meant
const text = Schema.String.check(Schema.isPattern(/^[\u0000-\u00ff]{0,9}$/))

describe("Sorted", () => {
  it.prop("gives texts in the order of their bytes, whether there is room for them or not", [Schema.Array(text), Schema.Natural, Schema.Natural], ([texts, bytes, stretch]) => {
    for (const [room, at] of [[new Room(tmpdir(), bytes % 1000), stretch % 200], [new Room(tmpdir(), 0), 0]] as const) {
      const before = room.left
      const sorted = new Sorted(room, at)
      try {
        for (const one of texts) sorted.add(one)
        assert.deepStrictEqual([...sorted.all()], [...texts].sort())
        assert.deepStrictEqual([...sorted.all()], [...texts].sort())
      } finally {
        sorted.close()
      }
      assert.strictEqual(room.left, before)
    }
  })

  it("merges many runs, of texts of any length, in one file for all of a room, and leaves nothing", inTemp((folder) => {
    const before = descriptors()
    const room = new Room(folder, 0)
    const texts = [...Array(4000).keys()].map((n) => `${(n * 7919) % 4001}${"\u00ff".repeat(n % 97 === 0 ? 70_000 : n % 50)}`)
    const many = [...Array(50).keys()].map(() => new Sorted(room, 3000))
    for (const sorted of many.slice(1)) for (const one of texts.slice(0, 20)) sorted.add(one)
    const [first] = many
    for (const one of texts) first?.add(one)
    assert.isAtMost(descriptors() - before, 1)
    assert.deepStrictEqual([...first?.all() ?? []], [...texts].sort())
    for (const sorted of many.slice(1)) assert.deepStrictEqual([...sorted.all()], texts.slice(0, 20).sort())
    for (const sorted of many) sorted.close()
    assert.deepStrictEqual([descriptors(), readdirSync(folder), room.left], [before, [], 0])
  }))
})

describe("Sequence", () => {
  it.prop("gives values in the order in which they came, whether there is room for them or not", [Schema.Array(Schema.NullOr(Schema.Array(Schema.String))), Schema.Natural], ([values, bytes]) => {
    for (const left of [bytes % 500, 0]) {
      const room = new Room(tmpdir(), left)
      const sequence = new Sequence<ReadonlyArray<string> | null>(room)
      try {
        for (const value of values) sequence.add(value, 30)
        assert.deepStrictEqual([...sequence], values)
        assert.deepStrictEqual([...sequence], values)
      } finally {
        sequence.close()
      }
      assert.strictEqual(room.left, left)
    }
  })
})
