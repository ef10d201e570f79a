// Run by Race.test.ts as a process of its own: works in the folder of its first argument on the scene that its second names, as
// the user of its third, while another process of that user swaps folders for symlinks that lead out. Says how often it failed.
import assert from "node:assert"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, lstatSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { merge } from "../../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { applied, device, dir, file, type Item, link, symlink, tree } from "./Entries.ts"

/** Swaps folders for symlinks that lead out, and back, until it is killed. */
const swapper = `
const { renameSync, symlinkSync, unlinkSync } = require("node:fs")
const [user, canary, ...places] = process.argv.slice(1)
if (process.getuid() !== Number(user)) {
  process.setgroups([])
  process.setgid(Number(user))
  process.setuid(Number(user))
}
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
  symlink("a/b/folder", "x"), file("a/b/c", "replaced"), dir("a/b", { mode: 0o711 }), file("a/e/f/4", "implied")
]
/** Folders that are only made, and get their owner, mode and times in the end. */
const folders = Array.from({ length: 8 }, (_, n) => dir(`a/t${n}`, { mode: n % 2 === 0 ? 0o755 : 0o2770, mtime: [5, 5], uid: 3 }))

const calls = [Syscalls.load({ native: false }), Syscalls.load()] as const
const [, , temp = "", which = "", user = ""] = process.argv

/** Applies a layer in the place of what was applied there before. */
const anew = (items: ReadonlyArray<Item>, native: 0 | 1): void => {
  const [work, old] = [join(temp, "work"), join(temp, "old")]
  if (existsSync(work)) renameSync(work, old)
  removeTree(old)
  mkdirSync(work)
  applied(work, items, { syscalls: calls[native] })
}

/** What is done again and again, with native calls and without in turn, and the folders that are swapped meanwhile. */
const scenes: Readonly<Record<string, readonly [work: (native: 0 | 1, round: number) => void, ...places: ReadonlyArray<string>]>> = {
  apply: [(native) => anew([...items, ...items, ...items, ...items], native), "work/fs/a", "work/fs/a/b", "work/fs/a/b/c", "work/fs/a/e"],
  folders: [(native) => {
    anew(folders, native)
    for (const { path } of folders) if (lstatSync(join(temp, "work/fs", path)).isSymbolicLink()) throw new Error("swapped")
  }, ...folders.map(({ path }) => `work/fs/${path}`)],
  merge: [(native, round) => {
    const layers = ["one", "two"].map((name) => join(temp, "work", `${name}${round}`))
    for (const layer of layers) {
      mkdirSync(layer, { recursive: true })
      applied(layer, items, { syscalls: calls[0] })
    }
    const root = join(temp, "work/root")
    removeTree(root)
    mkdirSync(root, { mode: 0o700 })
    try {
      merge(root, layers.map((folder, at) => ({ folder, move: at === 1 })), { link: "copy", hold: join(temp, "work/hold"), syscalls: calls[native] })
    } finally {
      for (const layer of layers) removeTree(layer)
      removeTree(join(temp, "work/hold"))
    }
    for (const [name, { content }] of tree(root)) assert.notStrictEqual(content, "untouched", name)
  }, "work/root/a", "work/root/a/b", "work/hold"],
  remove: [() => {
    const made = join(temp, "work/made")
    mkdirSync(join(made, "b/c"), { recursive: true })
    for (let n = 0; n < 30; n++) writeFileSync(join(made, `b/c/${n}`), "")
    removeTree(join(temp, "work/fs"))
    mkdirSync(join(temp, "work/fs"), { recursive: true })
    renameSync(made, join(temp, "work/fs/a"))
    removeTree(join(temp, "work/fs/a"))
  }, "work/fs/a", "work/fs/a/b", "work/fs/a/b/c"]
}

const scene = scenes[which]
assert(scene !== undefined)
const [work, ...places] = scene
const canary = join(temp, "canary")
const child = spawn(process.execPath, ["-e", swapper, user, canary, ...places.map((place) => join(temp, place))], { stdio: ["ignore", "pipe", "inherit"] })
try {
  await once(child.stdout, "data")
  if (process.getuid?.() !== Number(user)) {
    process.setgroups?.([])
    process.setgid?.(Number(user))
    process.setuid?.(Number(user))
  }
  // The canary belongs to the user, who may do all to it that must not be done.
  mkdirSync(join(canary, "folder"), { recursive: true, mode: 0o700 })
  mkdirSync(join(canary, "b/c"), { recursive: true, mode: 0o700 })
  mkdirSync(join(canary, "f"), { mode: 0o700 })
  for (const name of ["file", "1", "folder/in", "b/2", "b/c/3", "n", "f/4"]) writeFileSync(join(canary, name), "untouched", { mode: 0o600 })
  symlinkSync("file", join(canary, "s"))
  const before = [...tree(canary)]
  // On a busy machine the other process may get no turn for long.
  const [end, patience] = [performance.now() + 2500, performance.now() + 20_000]
  const failed: [number, number] = [0, 0]
  const enough = () => which === "remove" ? failed[0] + failed[1] > 0 : failed[0] > 0 && failed[1] > 0
  let rounds = 0
  while (performance.now() < end || (!enough() && performance.now() < patience)) {
    const native = rounds % 2 === 0 ? 1 : 0
    try {
      work(native, rounds)
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      failed[native]++ // whatever it met: only what it did outside matters here
    }
    rounds++
  }
  assert.deepStrictEqual([...tree(canary)], before)
  process.stdout.write(JSON.stringify({ uid: process.geteuid?.(), swapped: existsSync(join(temp, "work")) && enough() }))
} finally {
  child.kill("SIGKILL")
}
