import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { chmodSync, linkSync, lutimesSync, mkdirSync, readFileSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MetaDamaged } from "../../src/layer/apply/Meta.ts"
import * as Comparison from "../../src/layer/sums/Comparison.ts"
import * as Record from "../../src/layer/sums/Record.ts"
import * as Sums from "../../src/layer/sums/Sums.ts"
import * as Syscalls from "../../src/layer/Syscalls.ts"
import { mayMount } from "../main/setting.ts"
import { applied, device, dir, file, inTemp, type Item, link, privileged, symlink } from "./apply/Entries.ts"

const syscalls = Syscalls.load()
const options = { syscalls, stop: () => {} }
const whiteout = (path: string): Item => file(path.replace(/([^/]*)$/, ".wh.$1"))

const items: ReadonlyArray<Item> = [
  dir("", { mode: 0o751, mtime: [5, 5] }),
  dir("etc", { mode: 0o2755, uid: 3, gid: 4, mtime: [1_600_000_000, 123_456_789] }),
  file("etc/passwd", "root:x:0:0\n", { mode: 0o4644, uid: 7, mtime: [-9, 1], xattrs: { "user.note": "\0\xff" } }),
  file("etc/\xff\x01name", "odd", { mode: 0o600 }), file("etc/shadow", "secret", { mode: 0 }),
  link("etc/alias", "etc/passwd"), symlink("etc/link", "../x\xfe", { uid: 5 }), dir("shut", { mode: 0o500, uid: 9 }), file("shut/in", "in"),
  file("implied/by/child", "c"), whiteout("etc/old"), file("opaque/.wh..wh..opq"), link("etc/below", "usr/lower"),
  device("char", "null", [1, 3], { mode: 0o666, uid: 1 }), device("fifo", "pipe", [0, 0], { mode: 0o622 })
]

/** Layers applied from the same items, by name. */
const pair = (folder: string, content: ReadonlyArray<Item>, more: Parameters<typeof applied>[2] = {}) => {
  for (const name of ["should", "is"]) mkdirSync(join(folder, name))
  applied(join(folder, "should"), content)
  applied(join(folder, "is"), content, more)
  return [join(folder, "should"), join(folder, "is")] as const
}

const compared = (should: string, is: string) => {
  const { count, differences } = Comparison.compare(Sums.of(should, options), Sums.of(is, options), { attributes: true })
  assert.strictEqual(count, differences.length)
  return differences.map(({ path, what }) => `${path} ${what}`)
}

const flip = (path: string, bit: number) => {
  const bytes = readFileSync(path)
  const at = bit >> 3
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7))
  writeFileSync(path, bytes)
}

describe("Sums", () => {
  it("are the same for the same layer, however it was applied", inTemp((folder) => {
    const [should, is] = pair(folder, items)
    assert.deepStrictEqual(compared(should, is), [])
    const plain = join(folder, "plain")
    mkdirSync(plain)
    applied(plain, items, { syscalls: Syscalls.load({ native: false }) })
    assert.deepStrictEqual(compared(should, plain), [], "without native calls what is not on disk is in the journal")
    if (!privileged) return
    chmodSync(folder, 0o777)
    const script = join(import.meta.dirname, "apply", "AsUser.ts")
    for (const native of ["native", "plain"] as const) {
      const { stderr } = spawnSync(process.execPath, ["--no-warnings", script, join(folder, `user-${native}`), native, JSON.stringify(items)], { encoding: "utf8" })
      assert.strictEqual(stderr, "")
      assert.deepStrictEqual(compared(should, join(folder, `user-${native}`)), [], `as an ordinary user, ${native}`)
    }
  }))

  it("change with every bit of every file", inTemp((folder) => {
    const [should, is] = pair(folder, items)
    for (const [path, said] of [["fs/etc/passwd", ["/etc/alias content"]], ["fs/implied/by/child", ["/implied/by/child content"]]] as const) {
      const times = () => lutimesSync(join(is, path), path.includes("passwd") ? "-8.999999999" : 1, path.includes("passwd") ? "-8.999999999" : 1)
      for (let bit = 0; bit < readFileSync(join(is, path)).byteLength * 8; bit++) {
        flip(join(is, path), bit)
        times()
        const found = compared(should, is)
        assert.include(found.join(), said[0], `bit ${bit}`)
        flip(join(is, path), bit)
      }
    }
  }))

  // The memory of a process cannot be read at 0: a file like those on a bad sector.
  it.skipIf(!mayMount)("a file that cannot be read is like no other, nor like itself, and nothing is recorded of it", inTemp((folder) => {
    const [should, is] = pair(folder, items)
    const broken = (layer: string) => join(layer, "fs/implied/by/child")
    const mount = (layer: string) => assert.strictEqual(spawnSync("mount", ["--bind", `/proc/${process.pid}/mem`, broken(layer)]).status, 0)
    const lenient = { ...options, unreadable: true }
    const file = join(folder, "sums")
    mount(is)
    try {
      assert.throws(() => [...Sums.of(is, options)], /^EIO: .*fs\/implied\/by\/child/)
      const marks = [...Sums.of(is, lenient)]
      for (const first of [[...Sums.of(should, options)], marks]) {
        const { differences } = Comparison.compare(first.values(), Sums.of(is, lenient), { attributes: true })
        assert.include(differences.map(({ path, what }) => `${path} ${what}`), "/implied/by/child content")
      }
      const record = new Record.Record(file, { diffId: "d", size: 1, entries: 1 })
      try {
        assert.throws(() => [...record.while(Sums.of(is, options))], /EIO/)
      } finally {
        record.close()
      }
    } finally {
      spawnSync("umount", [broken(is)])
    }
  }))

  it("are recorded while they are compared, and read again as they were", inTemp((folder) => {
    const [should] = pair(folder, items)
    const file = join(folder, "sums")
    const facts = { diffId: "d", size: 2, entries: 3 }
    const record = new Record.Record(file, facts)
    const all = [...record.while(Sums.of(should, options))]
    const hash = record.commit()
    assert.strictEqual(hash, createHash("sha256").update(readFileSync(file)).digest("hex"))
    const read = Record.open(file)
    assert.deepStrictEqual([read.facts, [...read.sums]], [facts, all])
  }))

  it("change with any bit of the journal", inTemp((folder) => {
    const few = items.filter(({ path }) => !["etc/shadow", "shut", "shut/in", "etc/link"].includes(path))
    const [, is] = pair(folder, few, { syscalls: Syscalls.load({ native: false }) })
    const should = [...Sums.of(is, options)]
    const meta = join(is, "meta")
    const bits = readFileSync(meta).byteLength * 8
    assert.isAbove(bits, 3000)
    for (let bit = 0; bit < bits; bit += process.env["TOWLINE_KILL"] === undefined ? 11 : 1) {
      flip(meta, bit)
      try {
        assert.isAbove(Comparison.compare(should.values(), Sums.of(is, options), { attributes: true }).count, 0, `bit ${bit}`)
      } catch (error) {
        assert.isTrue(error instanceof MetaDamaged, `bit ${bit}: ${String(error)}`)
      }
      flip(meta, bit)
    }
    assert.strictEqual(Comparison.compare(should.values(), Sums.of(is, options), { attributes: true }).count, 0)
  }), 600_000)

  const changes: ReadonlyArray<readonly [name: string, change: (fs: string) => void, said: ReadonlyArray<string>]> = [
    ["a file that is gone", (fs) => unlinkSync(`${fs}/shut/in`), ["/shut time", "/shut/in missing"]],
    ["a folder that is gone", (fs) => rmSync(`${fs}/implied`, { recursive: true }), ["/ time", "/implied missing", "/implied/by missing", "/implied/by/child missing"]],
    ["a file too many", (fs) => writeFileSync(`${fs}/etc/more`, ""), ["/etc time", "/etc/more extra"]],
    ["a mode", (fs) => chmodSync(`${fs}/etc/shadow`, 0o200), ["/etc/shadow mode"]],
    ["a target", (fs) => { unlinkSync(`${fs}/etc/link`); symlinkSync("../y", `${fs}/etc/link`) }, ["/etc time", "/etc/link content"]],
    ["a copy in place of a link", (fs) => { unlinkSync(`${fs}/etc/alias`); writeFileSync(`${fs}/etc/alias`, "root:x:0:0\n") }, ["/etc time", "/etc/alias mode", "/etc/passwd content"]],
    ["a link in place of a copy", (fs) => { unlinkSync(`${fs}/etc/shadow`); linkSync(`${fs}/etc/passwd`, `${fs}/etc/shadow`) }, ["/etc time", "/etc/shadow content"]],
    ["a folder's time", (fs) => lutimesSync(`${fs}/shut`, 2, 2), ["/shut time"]]
  ]
  for (const [name, change, said] of changes) {
    it(`tell of ${name}`, inTemp((folder) => {
      const [should, is] = pair(folder, items)
      change(join(is, "fs"))
      assert.deepStrictEqual(compared(should, is), said)
    }))
  }

  it.runIf(privileged)("tell of an owner and an attribute", inTemp((folder) => {
    const [should, is] = pair(folder, items)
    spawnSync("chown", ["77:0", join(is, "fs/pipe")])
    syscalls.lsetxattr(join(is, "fs/shut/in"), Buffer.from("user.more"), Buffer.from("x"))
    assert.deepStrictEqual(compared(should, is), ["/pipe owner", "/shut/in attributes"])
  }))

  const path = Schema.Array(Schema.Literals(["a", "b", "c"])).check(Schema.isBetweenLength(1, 3))
  const Entries = Schema.Array(Schema.Struct({
    kind: Schema.Literals(["file", "dir", "symlink", "link", "whiteout", "fifo"]), path, target: path, mode: Schema.Literals([0o755, 0o700, 0o555, 0o000])
  })).check(Schema.isMaxLength(12))
  it.effect.prop("are the same for any layer applied twice, in native calls or without", { entries: Entries }, ({ entries }) => Effect.sync(() => inTemp((folder) => {
    const generated = entries.map(({ kind, mode, path, target }, index): Item => {
      const name = path.join("/")
      if (kind === "whiteout") return whiteout(name)
      const mtime = [1_600_000_000 + index, index] as const
      return kind === "link" ? link(name, target.join("/")) : kind === "symlink" ? symlink(name, target.join("/"), { mtime })
        : { type: kind, path: name, mode, mtime, content: kind === "file" ? `content ${index}` : "", uid: index % 3 }
    })
    try {
      const [should, is] = pair(folder, generated, { syscalls: Syscalls.load({ native: false }) })
      assert.deepStrictEqual(compared(should, is), [])
      // What is remembered of names is the same in files.
      for (const layer of [should, is]) assert.deepStrictEqual([...Sums.of(layer, { ...options, memory: 0 })], [...Sums.of(layer, options)])
    } catch (error) {
      if (!(error instanceof Error) || error.name !== "Refused") throw error
    }
  })()), { arbitrary: { runs: 150 }, timeout: 60_000 })
})
