import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, renameSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Apply } from "../../../src/layer/apply/Apply.ts"
import { merge } from "../../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { device, dir, entryOf, file, type Item, link, symlink, tree } from "./Entries.ts"

/** Swaps folders for symlinks that lead out, and back, until it is killed. */
const swapper = `
const { renameSync, symlinkSync, unlinkSync } = require("node:fs")
const [canary, ...places] = process.argv.slice(1)
process.stdout.write("ready")
for (let round = 0;; round++) for (const place of places) {
  const aside = place + ".aside"
  try { renameSync(place, aside) } catch { continue }
  try { symlinkSync(canary, place) } catch {}
  for (let spin = 0; spin < round % 200; spin++) Math.sqrt(spin)
  try { unlinkSync(place) } catch {}
  try { renameSync(aside, place) } catch {}
}`

/** What is applied again and again while the folders `a` and `a/b` change under it. */
const items: ReadonlyArray<Item> = [
  dir("a"), dir("a/b"), file("a/1", "x", { mode: 0o4755, uid: 3 }), file("a/b/2", "y", { xattrs: { "user.a": "b" } }), symlink("a/b/s", "../1"), link("a/b/h", "a/1"),
  device("fifo", "a/b/p", [0, 0], { mode: 0o666 }), device("char", "a/n", [1, 3], { mode: 0o666 }), dir("a/b/c", { mode: 0o777, mtime: [7, 7] }), file("a/b/c/3", "z"),
  file("a/b/.wh.file"), file("a/b/file", "evil", { mode: 0o777 }), dir("a/b/folder", { mode: 0o777, mtime: [9, 9] }), file("a/b/folder/in", "evil"),
  symlink("a/b/folder", "x"), file("a/b/c", "replaced"), dir("a/b", { mode: 0o711 })
]

const scene = async (work: (temp: string, native: boolean, round: number) => void, places: ReadonlyArray<string>) => {
  const temp = mkdtempSync(join(tmpdir(), "towline-race-"))
  const canary = join(temp, "canary")
  try {
    mkdirSync(join(canary, "folder"), { recursive: true, mode: 0o700 })
    mkdirSync(join(canary, "b/c"), { recursive: true, mode: 0o700 })
    for (const name of ["file", "1", "folder/in", "b/2", "b/c/3", "n"]) writeFileSync(join(canary, name), "untouched", { mode: 0o600 })
    symlinkSync("file", join(canary, "s"))
    const before = [...tree(canary)]
    const child = spawn(process.execPath, ["-e", swapper, canary, ...places.map((place) => join(temp, place))], { stdio: ["ignore", "pipe", "inherit"] })
    try {
      mkdirSync(join(temp, "work/fs/a/b"), { recursive: true })
      await once(child.stdout, "data")
      // On a busy machine the other process may get no turn for long.
      const [end, patience] = [performance.now() + 2500, performance.now() + 20_000]
      let [rounds, failed] = [0, 0]
      while (performance.now() < end || (failed === 0 && performance.now() < patience)) {
        try {
          work(temp, rounds % 2 === 0, rounds)
        } catch (error) {
          assert.instanceOf(error, Error)
          failed++ // whatever it met: only what it did outside matters here
        }
        rounds++
      }
      assert.isAbove(rounds, 2)
      assert.isAbove(failed, 0, "the folders were swapped while it worked")
    } finally {
      child.kill("SIGKILL")
      await once(child, "exit")
    }
    assert.deepStrictEqual([...tree(canary)], before)
  } finally {
    removeTree(temp)
  }
}

describe("While another process swaps folders for symlinks", () => {
  const calls = [Syscalls.load({ native: false }), Syscalls.load()] as const

  it("a layer that is applied stays inside", { timeout: 20_000 }, () => scene((temp, native) => {
    const fs = join(temp, "work/fs")
    if (!existsSync(fs)) mkdirSync(fs, { recursive: true })
    const apply = new Apply(fs, join(temp, "work/meta"), { syscalls: calls[native ? 1 : 0] })
    try {
      for (let turn = 0; turn < 4; turn++) {
        for (const item of items) {
          apply.entry(entryOf(item))
          if (item.content !== undefined && item.content !== "") apply.data(Buffer.from(item.content), 0)
          apply.end()
        }
      }
      apply.finish()
    } finally {
      apply.abort()
    }
  }, ["work/fs/a", "work/fs/a/b", "work/fs/a/b/c"]))

  it("a merge stays inside, and takes nothing from outside", { timeout: 20_000 }, () => scene((temp, native, round) => {
    const layers = ["one", "two"].map((name) => join(temp, "work", `${name}${round}`))
    for (const layer of layers) {
      mkdirSync(layer, { recursive: true })
      if (!existsSync(join(temp, "work/layers"))) mkdirSync(join(temp, "work/layers"))
      mkdirSync(join(layer, "fs"))
      const apply = new Apply(join(layer, "fs"), join(layer, "meta"), { syscalls: calls[0] })
      for (const item of items) {
        apply.entry(entryOf(item))
        if (item.content !== undefined && item.content !== "") apply.data(Buffer.from(item.content), 0)
        apply.end()
      }
      apply.finish()
    }
    const root = join(temp, "work/root")
    removeTree(root)
    mkdirSync(root, { mode: 0o700 })
    try {
      merge(root, layers.map((folder, at) => ({ folder, move: at === 1 })), { link: "copy", hold: join(temp, "work/hold"), syscalls: calls[native ? 1 : 0] })
    } finally {
      for (const layer of layers) removeTree(layer)
      removeTree(join(temp, "work/hold"))
    }
    for (const [name, { content }] of tree(root)) assert.notStrictEqual(content, "untouched", name)
  }, ["work/root/a", "work/root/a/b", "work/hold"]))

  it("a removal stays inside", { timeout: 20_000 }, () => scene((temp) => {
    const made = join(temp, "work/made")
    mkdirSync(join(made, "b/c"), { recursive: true })
    for (let n = 0; n < 30; n++) writeFileSync(join(made, `b/c/${n}`), "")
    removeTree(join(temp, "work/fs"))
    mkdirSync(join(temp, "work/fs"))
    renameSync(made, join(temp, "work/fs/a"))
    removeTree(join(temp, "work/fs/a"))
  }, ["work/fs/a", "work/fs/a/b", "work/fs/a/b/c"]))
})
