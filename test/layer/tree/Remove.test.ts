import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, chownSync, existsSync, linkSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { descriptors, inTemp, privileged, thrown } from "../apply/Entries.ts"

const asUser = join(import.meta.dirname, "RemoveAsUser.ts")

/** A tree whose name is many times longer than a path may be. */
const deepen = (folder: string, times: number) => {
  const piece = Array.from({ length: 15 }, () => "d".repeat(200)).join("/")
  mkdirSync(folder)
  for (let count = 0; count < times; count++) {
    const next = `${folder}-next`
    mkdirSync(join(next, piece), { recursive: true })
    writeFileSync(join(next, piece, "file"), "")
    renameSync(folder, join(next, piece, "inner"))
    renameSync(next, folder)
  }
}

describe("removeTree", () => {
  it("removes files, symlinks themselves, folders, and nothing where nothing is", inTemp((folder) => {
    mkdirSync(join(folder, "kept"))
    writeFileSync(join(folder, "kept", "file"), "kept")
    mkdirSync(join(folder, "tree", "a", "b"), { recursive: true })
    writeFileSync(join(folder, "tree", "a", "file"), "")
    linkSync(join(folder, "kept", "file"), join(folder, "tree", "a", "hard"))
    symlinkSync("../../kept", join(folder, "tree", "a", "folder"))
    symlinkSync(join(folder, "kept", "file"), join(folder, "tree", "file"))
    symlinkSync("nothing", join(folder, "tree", "a", "b", "dangling"))
    writeFileSync(Buffer.from(`${folder}/tree/\u00ff\u0080`, "latin1"), "")
    mkdirSync(Buffer.from(`${folder}/tree/a/\u00fe`, "latin1"))
    symlinkSync("kept", join(folder, "link"))
    const before = descriptors()
    removeTree(join(folder, "tree"))
    removeTree(join(folder, "link"))
    removeTree(Buffer.from(join(folder, "nothing")))
    assert.strictEqual(descriptors(), before)
    assert.deepStrictEqual(readdirSync(folder), ["kept"])
    assert.deepStrictEqual(readdirSync(join(folder, "kept")), ["file"])
    assert.strictEqual(lstatSync(join(folder, "kept", "file")).nlink, 1)
    removeTree(join(folder, "kept", "file"))
    assert.deepStrictEqual(readdirSync(join(folder, "kept")), [])
  }))

  it("removes trees far deeper than a path can be long", inTemp((folder) => {
    deepen(join(folder, "deep"), 270)
    removeTree(join(folder, "deep"))
    assert.deepStrictEqual(readdirSync(folder), [])
  }))

  it("asks at each entry whether to stop, closes its handles and can go on later", inTemp((folder) => {
    mkdirSync(join(folder, "tree", "inner"), { recursive: true })
    for (let count = 0; count < 20; count++) writeFileSync(join(folder, "tree", "inner", String(count)), "")
    const before = descriptors()
    let asked = 0
    const error = thrown(() => removeTree(join(folder, "tree"), { stop: () => {
      if (++asked === 12) throw new Error("stopped")
    } }))
    assert.strictEqual(String(error), "Error: stopped")
    assert.strictEqual(descriptors(), before)
    assert.isAbove(readdirSync(join(folder, "tree", "inner")).length, 8)
    asked = 100
    removeTree(join(folder, "tree"), { stop: () => void asked++ })
    assert.isAbove(asked, 108)
    assert.isFalse(existsSync(join(folder, "tree")))
  }))

  it("does not mind others who remove the same tree", inTemp((folder) => {
    for (let turn = 0; turn < 12; turn++) {
      mkdirSync(join(folder, "tree", "a", "b"), { recursive: true })
      mkdirSync(join(folder, "tree", "c"))
      for (const name of ["1", "2", "a/1", "a/b/1", "c/1"]) writeFileSync(join(folder, "tree", name), "")
      let asked = 0
      removeTree(join(folder, "tree"), { stop: () => {
        if (asked++ === turn) removeTree(join(folder, "tree"))
      } })
      assert.isFalse(existsSync(join(folder, "tree")))
    }
  }))

  it("removes what is added while it runs", inTemp((folder) => {
    mkdirSync(join(folder, "tree", "inner"), { recursive: true })
    writeFileSync(join(folder, "tree", "inner", "file"), "")
    let added = false
    removeTree(join(folder, "tree"), { stop: () => {
      if (!added && existsSync(join(folder, "tree", "inner")) && !existsSync(join(folder, "tree", "inner", "file"))) {
        added = true
        writeFileSync(join(folder, "tree", "late"), "")
      }
    } })
    assert.isFalse(existsSync(join(folder, "tree")))
  }))

  it("names the path in its errors", inTemp((folder) => {
    writeFileSync(join(folder, "file"), "")
    const error = thrown(() => removeTree(join(folder, "file", "x")))
    assert.include(String(error), join(folder, "file", "x"))
    assert.include(String(error), "ENOTDIR")
  }))

  describe.runIf(privileged)("as an ordinary user", () => {
    /** The errors of removing each path. */
    const run = (...paths: ReadonlyArray<string>): ReadonlyArray<string> => {
      const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", asUser, ...paths], { encoding: "utf8" })
      assert.strictEqual(stderr, "")
      return JSON.parse(stdout)
    }
    const own = (path: string, mode: number) => {
      chownSync(path, 65534, 65534)
      chmodSync(path, mode)
    }

    it("opens folders of its own that are in the way", () => {
      const folder = mkdtempSync(join(tmpdir(), "towline-remove-"))
      try {
        own(folder, 0o755)
        const trees: Array<string> = []
        for (const outer of [0o555, 0o300, 0, 0o400, 0o100, 0o600, 0o200, 0o700]) {
          for (const inner of [0o555, 0o300, 0, 0o400, 0o100, 0o600, 0o200]) {
            const tree = join(folder, `${outer.toString(8)}-${inner.toString(8)}`)
            trees.push(tree)
            mkdirSync(join(tree, "inner", "empty"), { recursive: true })
            writeFileSync(join(tree, "inner", "file"), "")
            writeFileSync(join(tree, "file"), "", { mode: 0 })
            symlinkSync(folder, join(tree, "inner", "link"))
            own(join(tree, "inner", "empty"), inner)
            own(join(tree, "inner"), inner)
            own(tree, outer)
          }
        }
        assert.deepStrictEqual(run(...trees), [])
        assert.deepStrictEqual(readdirSync(folder), [])
        assert.strictEqual(lstatSync(folder).mode & 0o7777, 0o755)
      } finally {
        removeTree(folder)
      }
    })

    it("leaves the mode of what a symlink leads to, and says what it may not remove", () => {
      const folder = mkdtempSync(join(tmpdir(), "towline-remove-"))
      try {
        own(folder, 0o755)
        mkdirSync(join(folder, "kept"))
        own(join(folder, "kept"), 0o500)
        mkdirSync(join(folder, "tree"))
        symlinkSync("../kept", join(folder, "tree", "link"))
        own(join(folder, "tree"), 0o500)
        assert.deepStrictEqual(run(join(folder, "tree")), [])
        assert.strictEqual(lstatSync(join(folder, "kept")).mode & 0o7777, 0o500)
        mkdirSync(join(folder, "tree", "foreign"), { recursive: true })
        writeFileSync(join(folder, "tree", "foreign", "file"), "")
        own(join(folder, "tree"), 0o755)
        assert.match(run(join(folder, "tree")).join(), new RegExp(`${folder}/tree/foreign`))
      } finally {
        removeTree(folder)
      }
    })
  })
})
