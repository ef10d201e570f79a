import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { appendFileSync, lstatSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Meta from "../../../src/layer/apply/Meta.ts"
import { Room } from "../../../src/layer/table/Table.ts"
import { descriptors, inTemp, thrown } from "./Entries.ts"

const Int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Id = Int(0, 0xfffffffe)
const Name = Schema.Array(Schema.Literals(["a", ".b", "\xff\x80", "\n", "\"\\", "..c", "\u0001", " "])).check(Schema.isMaxLength(5))
const Record = Schema.Union([
  Schema.Struct({ t: Schema.Literals(["whiteout", "opaque", "implied"]), path: Name }),
  Schema.Struct({ t: Schema.Literal("link"), path: Name, target: Name }),
  Schema.Struct({
    t: Schema.Literal("unset"), path: Name, uid: Schema.optionalKey(Id), gid: Schema.optionalKey(Id), mode: Schema.optionalKey(Int(0, 0o7777)),
    mtime: Schema.optionalKey(Schema.Tuple([Schema.Int, Int(0, 999_999_999)])),
    xattrs: Schema.optionalKey(Schema.Array(Schema.Tuple([Schema.Literals(["user.a", "user.\xe9"]), Schema.Literals(["", "AAE="])])).check(Schema.isMaxLength(3))),
    device: Schema.optionalKey(Schema.Tuple([Schema.Literals(["char", "block", "fifo"]), Id, Id]))
  })
])
const recordOf = ({ path, ...rest }: typeof Record.Type): Meta.MetaRecord => {
  const name = path.join("/")
  if (rest.t === "link") return { t: "link", path: name, target: rest.target.join("/") }
  return rest.t === "unset" ? { ...rest, path: name } : { t: rest.t, path: name }
}

describe("Meta", () => {
  it.prop("reads back what it wrote, and nothing of a file that was cut", [Schema.Array(Record), Schema.Int], ([items, cut]) => inTemp((folder) => {
    const file = join(folder, "meta")
    const records = items.map(recordOf)
    const before = descriptors()
    Meta.write(file, records)
    assert.deepStrictEqual([...Meta.read(file)], records)
    assert.strictEqual(lstatSync(file).mode & 0o777, 0o600)
    const size = lstatSync(file).size
    const at = Math.abs(cut) % size
    const whole = readFileSync(file)[at - 1] === 10
    truncateSync(file, at)
    const error = thrown(() => [...Meta.read(file)])
    if (whole) assert.isBelow([...Meta.read(file)].length, records.length + 1)
    else assert.instanceOf(error, Meta.MetaDamaged)
    assert.strictEqual(descriptors(), before)
  })())

  it("reads a journal larger than its buffer", inTemp((folder) => {
    const records = Array.from({ length: 20_000 }, (_, index): Meta.MetaRecord => ({ t: "whiteout", path: `${index}${"x".repeat(index % 300)}` }))
    Meta.write(join(folder, "meta"), records)
    assert.deepStrictEqual([...Meta.read(join(folder, "meta"))], records)
  }))

  it.each([
    ["an empty file", "", 1],
    ["another version", "towline-layer 2\n", 1],
    ["no JSON", "towline-layer 1\n{\n", 2],
    ["an array", "towline-layer 1\n[]\n", 2],
    ["an unknown kind", 'towline-layer 1\n{"t":"whiteout","path":"a"}\n{"t":"more","path":"a"}\n', 3],
    ["a name that leads up", 'towline-layer 1\n{"t":"whiteout","path":"../a"}\n', 2],
    ["an absolute name", 'towline-layer 1\n{"t":"opaque","path":"/a"}\n', 2],
    ["a name of characters that are no bytes", 'towline-layer 1\n{"t":"opaque","path":"\u0100"}\n', 2],
    ["a link to nothing", 'towline-layer 1\n{"t":"link","path":"a"}\n', 2],
    ["a text for an id", 'towline-layer 1\n{"t":"unset","path":"a","uid":"0"}\n', 2],
    ["an unknown device", 'towline-layer 1\n{"t":"unset","path":"a","device":["socket",0,0]}\n', 2],
    ["half a time", 'towline-layer 1\n{"t":"unset","path":"a","mtime":[1]}\n', 2],
    ["half an attribute", 'towline-layer 1\n{"t":"unset","path":"a","xattrs":[["user.a"]]}\n', 2]
  ])("refuses %s", (_, text, line) => inTemp((folder) => {
    const file = join(folder, "meta")
    writeFileSync(file, "")
    appendFileSync(file, text)
    const error = thrown(() => [...Meta.read(file)])
    assert.instanceOf(error, Meta.MetaDamaged)
    assert.include(String(error), `${file}, line ${line}: `)
  })())
})

describe.each([["memory", 2 ** 20], ["a file", 0]])("Journal in %s", (_, bytes) => {
  const empty = () => new Meta.Journal(new Room(tmpdir(), bytes))
  const records = (journal: Meta.Journal) => [...journal.records()]

  it("drops what is replaced, below it too, and keeps whiteouts", () => {
    const journal = empty()
    journal.addWhiteout("d/w")
    journal.addOpaque("d")
    journal.addImplied("d")
    journal.addLink("d/l", "x")
    journal.addUnset("d/dev", { uid: 0, gid: 0, mode: 0o600, mtime: [0, 0], device: ["char", 1, 3] })
    journal.addUnset("dd", { uid: 5 })
    journal.addLink("d2/l", "y")
    assert.deepStrictEqual(["d/l", "d/dev", "dd", "d"].map((name) => journal.isGhost(name)), [true, true, false, false])
    journal.dropped("d")
    assert.deepStrictEqual(records(journal), [
      { t: "whiteout", path: "d/w" }, { t: "opaque", path: "d" }, { t: "link", path: "d2/l", target: "y" }, { t: "unset", path: "dd", uid: 5 }
    ])
    journal.dropped("d2/l")
    journal.dropped("dd")
    assert.strictEqual(records(journal).length, 2)
    journal.close()
  })

  it("drops what is not on disk as often as it comes back", () => {
    const journal = empty()
    for (let round = 0; round < 3; round++) {
      journal.addLink("d/a", "x")
      journal.addLink("d/b", "x")
      journal.dropped("d/a")
      journal.addUnset("d/a", { uid: 0, gid: 0, mode: 0o600, mtime: [0, 0], device: ["char", 1, 3] })
      assert.deepStrictEqual(journal.counts().devices, 1)
      journal.dropped("d")
      assert.deepStrictEqual([records(journal), journal.isGhost("d/a"), journal.counts().devices], [[], false, 0])
    }
    journal.close()
  })

  it("knows what this layer hides", () => {
    const journal = empty()
    assert.isFalse(journal.hides("a"))
    journal.addWhiteout("w")
    journal.addOpaque("o")
    assert.deepStrictEqual(["w", "w/x/y", "o/x", "o", "ww", "x"].map((name) => journal.hides(name)), [true, true, true, false, false, false])
    journal.addOpaque("")
    assert.deepStrictEqual(["x", "o"].map((name) => journal.hides(name)), [true, true])
    journal.close()
  })

  it("counts names, not fields", () => {
    const journal = empty()
    journal.addUnset("a", { uid: 1, gid: 1 })
    journal.addUnset("b", { uid: 1, gid: 1, xattrs: [["user.a", ""]], mtime: [0, 1] })
    journal.addUnset("c", { uid: 1, gid: 1, mode: 0, mtime: [0, 0], device: ["fifo", 0, 0] })
    assert.deepStrictEqual(journal.counts(), { owners: 2, devices: 1, xattrs: 1, times: 1 })
    journal.close()
  })
})
