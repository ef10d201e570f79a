import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Refused } from "../../../src/layer/Fault.ts"
import * as Name from "../../../src/layer/tree/Name.ts"
import { type Folder, type Place, Root } from "../../../src/layer/tree/Root.ts"
import { descriptors, inTemp, thrown } from "../apply/Entries.ts"

const make = (place: Place) => {
  mkdirSync(place.path, 0o700)
  return true
}
const ino = (path: string | Buffer) => statSync(path).ino
const here = (folder: Folder | undefined) => folder && ino(`${folder.prefix}.`)

/** Runs with a root on a new folder, and checks that it leaves no descriptor. */
const withRoot = (run: (root: Root, folder: string) => void, capacity?: number) => inTemp((temp) => {
  const before = descriptors()
  const folder = join(temp, "root")
  mkdirSync(folder)
  mkdirSync(join(temp, "outside"))
  const root = new Root(folder, capacity === undefined ? {} : { capacity })
  try {
    run(root, folder)
  } finally {
    root.close()
    root.close()
  }
  assert.strictEqual(descriptors(), before)
  assert.deepStrictEqual(readdirSync(join(temp, "outside")), [])
})

describe("Name", () => {
  it.each([
    ["a/b", "a/b"], ["./a", "a"], ["/a", "a"], ["a/", "a"], ["a//b", "a/b"], ["a/./b", "a/b"], ["a/../b", "b"], ["../../a", "a"], ["a/../../..", ""],
    ["", ""], [".", ""], ["./", ""], ["/", ""], ["..", ""], ["...", "..."], ["a../b", "a../b"], ["..a", "..a"], [".a", ".a"], ["a/..b/.", "a/..b"],
    [".//a", "a"], ["\xff/\x80", "\xff/\x80"]
  ])("cleans %j to %j", (raw, cleaned) => {
    assert.strictEqual(Name.clean(Buffer.from(raw, "latin1")), cleaned)
  })

  it.prop("cleans as a path from the root is cleaned", [Schema.Array(Schema.Literals(["a", "bc", ".", "..", "", "/", "..d", "e."]))], ([parts]) => {
    const raw = parts.join("/")
    assert.strictEqual(`/${Name.clean(Buffer.from(raw))}`, join("/", raw).replace(/(?<=.)\/$/, ""))
  })
})

describe("Root", () => {
  it("follows parents as if it were / and never the last component", withRoot((root, folder) => {
    mkdirSync(join(folder, "usr/lib"), { recursive: true })
    mkdirSync(join(folder, "etc"))
    symlinkSync("usr/lib", join(folder, "lib"))
    symlinkSync("/usr/lib", join(folder, "etc/abs"))
    symlinkSync("../../../../usr/./lib//", join(folder, "etc/up"))
    symlinkSync("etc/up", join(folder, "chain"))
    for (const name of ["usr/lib/x", "lib/x", "etc/abs/x", "etc/up/x", "chain/x"]) {
      const place = root.locate(name)
      assert.deepStrictEqual([place?.name, place?.segment, here(place?.folder)], ["usr/lib/x", "x", ino(join(folder, "usr/lib"))], name)
    }
    assert.strictEqual(root.locate("lib")?.name, "lib")
    assert.strictEqual(root.enter("lib")?.name, "usr/lib")
    assert.strictEqual(root.enter("")?.name, "")
  }))

  it("stays inside whatever a symlink says", withRoot((root, folder) => {
    mkdirSync(join(folder, "a/b"), { recursive: true })
    const outside = join(dirname(folder), "outside")
    for (const [name, target] of [["up", "../outside"], ["abs", outside], ["deep", "a/b/../../../../outside"], ["root", "/.."], ["host", "/proc/self/cwd"]] as const) {
      symlinkSync(target, join(folder, name))
    }
    const inRoot = outside.slice(1)
    const ways = [["up/1", "outside/1"], ["abs/2", `${inRoot}/2`], ["deep/3", "outside/3"], ["root/outside/4", "outside/4"], ["host/5", "proc/self/cwd/5"]] as const
    for (const [name, real] of ways) {
      const place = root.locate(name, make)
      mkdirSync(place.path)
      assert.strictEqual(place.name, real)
      assert.isTrue(lstatSync(join(folder, real)).isDirectory(), name)
    }
  }))

  it("says what is missing, makes it, and resolves names of what is not there", withRoot((root, folder) => {
    symlinkSync("not/here", join(folder, "dangling"))
    mkdirSync(join(folder, "real"))
    symlinkSync("none/../real", join(folder, "back"))
    assert.strictEqual(root.locate("dangling/a/b"), undefined)
    assert.strictEqual(root.enter("dangling"), undefined)
    assert.deepStrictEqual(["dangling/a", "x/y", "back/a", "", "real"].map((name) => root.resolve(name)), ["not/here/a", "x/y", "real/a", "", "real"])
    assert.isFalse(existsSync(join(folder, "not")))
    const made: Array<string> = []
    const place = root.locate("dangling/a/b", (one) => {
      made.push(one.name)
      return make(one)
    })
    assert.deepStrictEqual([place.name, made], ["not/here/a/b", ["not", "not/here", "not/here/a"]])
  }))

  it("refuses a parent that is no folder, loops, long names and long ways", withRoot((root, folder) => {
    writeFileSync(join(folder, "file"), "")
    symlinkSync("file", join(folder, "to-file"))
    symlinkSync("loop", join(folder, "loop"))
    symlinkSync("ping", join(folder, "pong"))
    symlinkSync("pong", join(folder, "ping"))
    for (let hop = 0; hop < 41; hop++) symlinkSync(hop === 0 ? "." : `hop${hop - 1}`, join(folder, `hop${hop}`))
    symlinkSync(`${"a/../".repeat(800)}w1`, join(folder, "w0"))
    for (let hop = 1; hop < 10; hop++) symlinkSync(`${"a/../".repeat(800)}w${hop + 1}`, join(folder, `w${hop}`))
    mkdirSync(join(folder, "a"))
    const rule = (name: string) => {
      const error = thrown(() => root.locate(name, make))
      return error instanceof Refused ? `${error.entry}: ${error.rule}` : error
    }
    assert.strictEqual(rule("file/x"), 'file/x: its parent "file" is not a folder')
    assert.strictEqual(rule("to-file/x"), 'to-file/x: its parent "file" is not a folder')
    assert.strictEqual(rule("loop/x"), "loop/x: its path leads through more than 40 symlinks")
    assert.strictEqual(rule("ping/x"), "ping/x: its path leads through more than 40 symlinks")
    assert.strictEqual(rule("hop39/x"), undefined)
    assert.strictEqual(rule("hop40/x"), "hop40/x: its path leads through more than 40 symlinks")
    assert.strictEqual(rule("w0/x"), "w0/x: its path leads through more than 4096 folders")
    assert.match(String(rule("n".repeat(256))), /longer than 255 bytes$/)
    assert.match(String(rule(`${"n".repeat(256)}/x`)), /longer than 255 bytes$/)
    assert.strictEqual(rule("n".repeat(255)), undefined)
  }))

  it("sees what was replaced once it is told to forget it", withRoot((root, folder) => {
    mkdirSync(join(folder, "a/b"), { recursive: true })
    mkdirSync(join(folder, "c/b"), { recursive: true })
    symlinkSync("a", join(folder, "s"))
    assert.deepStrictEqual(["a/b/x", "s/b/x"].map((name) => root.locate(name)?.name), ["a/b/x", "a/b/x"])
    unlinkSync(join(folder, "s"))
    symlinkSync("c", join(folder, "s"))
    root.forget("s")
    assert.strictEqual(root.locate("s/b/x")?.name, "c/b/x")
    renameSync(join(folder, "a"), join(folder, "moved"))
    symlinkSync("/c", join(folder, "a"))
    root.forget("a")
    const place = root.locate("a/b/x")
    assert.deepStrictEqual([place?.name, here(place?.folder)], ["c/b/x", ino(join(folder, "c/b"))])
  }))

  it("keeps few handles open, the pinned one among them", withRoot((root, folder) => {
    const before = descriptors()
    for (let one = 0; one < 50; one++) mkdirSync(join(folder, `d${one}/e/f`), { recursive: true })
    const first = root.enter("d0/e/f")
    root.pin(first)
    for (let one = 1; one < 50; one++) assert.strictEqual(here(root.enter(`d${one}/e/f`)), ino(join(folder, `d${one}/e/f`)))
    assert.isAtMost(descriptors() - before, 6)
    assert.strictEqual(here(first), ino(join(folder, "d0/e/f")))
    root.forget("d0")
    assert.strictEqual(here(first), ino(join(folder, "d0/e/f")))
    root.pin(undefined)
    assert.isAtMost(descriptors() - before, 5)
    assert.strictEqual(here(root.enter("d0/e/f")), ino(join(folder, "d0/e/f")))
  }, 4))

  it("goes deeper than a path can be long, and removes it", withRoot((root, folder) => {
    const deep = Array.from({ length: 2000 }, () => "d").join("/")
    const long = "l".repeat(255)
    mkdirSync(join(folder, "top"))
    root.enter(`top/${deep}`, make)
    symlinkSync(`top/${deep}`, join(folder, "half"))
    for (let one = 0; one < 3; one++) {
      root.enter(`half/${long}/${long}`, make)
      unlinkSync(join(folder, "half"))
      symlinkSync("top", join(folder, "half"))
      root.forget("half")
    }
    const place = root.locate("top")
    assert.isDefined(place)
    const gone: Array<string> = []
    if (place !== undefined) root.remove(place, (name) => gone.push(name))
    assert.strictEqual(gone.at(-1), "top")
    assert.strictEqual(gone.length, 2001 + 4)
    assert.deepStrictEqual(readdirSync(folder), ["half"])
  }, 8))

  it("removes without following, and tells errors by the root's path", withRoot((root, folder) => {
    mkdirSync(join(folder, "d/e"), { recursive: true })
    const outside = join(folder, "../outside")
    symlinkSync(outside, join(folder, "d/out"))
    symlinkSync(outside, join(folder, "out"))
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/d/e/`), Buffer.from([0xff])]), "")
    const gone: Array<string> = []
    for (const name of ["d", "out", "none"]) {
      const place = root.locate(name)
      if (place !== undefined) root.remove(place, (one) => gone.push(one))
    }
    assert.deepStrictEqual(gone.sort(), ["d", "d/e", "d/e/\xff", "d/out", "none", "out"])
    assert.isTrue(existsSync(outside))
    rmdirSync(folder)
    const error = thrown(() => root.locate("a/b", make))
    assert.strictEqual(Object(error).code, "ENOENT")
  }))

  it("says what it needs where /proc is not there or the root is no folder", inTemp((temp) => {
    const before = descriptors()
    assert.match(String(thrown(() => new Root(join(temp, "none")))), /ENOENT/)
    symlinkSync(temp, join(temp, "link"))
    assert.match(String(thrown(() => new Root(join(temp, "link")))), /ENOTDIR|ELOOP/)
    assert.strictEqual(descriptors(), before)
  }))
})
