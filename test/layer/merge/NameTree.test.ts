import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { tmpdir } from "node:os"
import { NameTree } from "../../../src/layer/merge/NameTree.ts"
import { Room } from "../../../src/layer/table/Table.ts"
import * as Name from "../../../src/layer/tree/Name.ts"

const name = Schema.Array(Schema.Literals(["a", "b", "\u00ff"])).check(Schema.isMaxLength(4))
const Step = Schema.Struct({ what: Schema.Literals(["set", "set", "set", "delete", "clear"]), name })
const packing = { pack: (n: number) => [n], unpack: ([n]: ReadonlyArray<number>) => n ?? 0, weight: () => 8 }

describe("NameTree", () => {
  it.prop("is a Map of names whose folders take along what is in them, before and after it goes into a file", [Schema.Array(Step), Schema.Natural], ([steps, bytes]) => {
    for (const left of [2 ** 20, bytes % 2000, 0]) {
      const tree = new NameTree<number, ReadonlyArray<number>>(new Room(tmpdir(), left), packing)
      const map = new Map<string, number>()
      const below = (name: string) => [...map.keys()].filter((other) => name === "" ? other !== "" : other.startsWith(`${name}/`))
      try {
        for (const [n, { name: segments, what }] of steps.entries()) {
          const name = segments.join("/")
          if (what === "set") {
            tree.set(name, n)
            map.set(name, n)
          } else if (what === "clear" || name !== "") {
            if (what === "clear") tree.clear(name)
            else tree.delete(name)
            for (const other of below(name)) map.delete(other)
            if (what === "delete") map.delete(name)
          }
          assert.strictEqual(tree.get(name), map.get(name))
          assert.deepStrictEqual(new Map(tree.in(Name.parent(name))),
            new Map([...map].flatMap(([other, value]) => other !== "" && Name.parent(other) === Name.parent(name) ? [[Name.last(other), value] as const] : [])))
        }
        const all = [...tree.deepestFirst()]
        assert.deepStrictEqual(new Map(all), map)
        assert.strictEqual(all.length, map.size)
        const place = new Map(all.map(([name], at) => [name, at]))
        for (const [name, at] of place) for (const other of below(name)) assert.isBelow(place.get(other) ?? 0, at)
      } finally {
        tree.close()
      }
    }
  }, { arbitrary: { runs: 200 } })
})
