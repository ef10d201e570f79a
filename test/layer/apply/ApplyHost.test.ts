import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { applied, descriptors, dir, file, inTemp, link, privileged, shape, symlink, thrown, tree } from "./Entries.ts"

describe.runIf(privileged)("Apply on a host that runs short", () => {
  it("gets by with few descriptors", inTemp((temp) => {
    chmodSync(temp, 0o777)
    const items = Array.from({ length: 120 }, (_, one) => [file(`d${one}/e/f`, "x"), symlink(`s${one}`, `d${one}/e`), link(`s${one}/l`, `d${119 - one}/e/f`), dir(`s${one}/g`)]).flat()
    const script = join(import.meta.dirname, "AsUser.ts")
    const { stdout, stderr } = spawnSync("sh", ["-c", 'ulimit -n 40 && exec "$0" "$@"', process.execPath, "--no-warnings", script, join(temp, "layer"), "native", JSON.stringify(items)],
      { encoding: "utf8" })
    assert.strictEqual(stderr, "")
    const answer: unknown = JSON.parse(stdout)
    assert.deepInclude(Object(Object(answer).result).summary, { entries: 480, bytes: 120 })
    assert.strictEqual(Object(answer).own, 0)
    assert.strictEqual(shape(join(temp, "layer/fs")).filter((line) => line.endsWith("file x")).length, 180)
  }))

  it("gives folders their times whenever something came into them last", inTemp((temp) => {
    chmodSync(temp, 0o777)
    // More folders than handles are kept with so few descriptors; what they lack is set when a handle is given up.
    const names = Array.from({ length: 200 }, (_, one) => `d${one}`)
    const declared = (name: string, at: number) => dir(name, { mode: 0o700, uid: 65534, gid: 65534, mtime: [at, 0] })
    const items = [
      ...names.flatMap((name) => [declared(name, 5), file(`${name}/1`)]), ...names.flatMap((name) => [file(`${name}/2`), file(`${name}/1`, "again")]),
      ...names.slice(0, 50).map((name) => declared(name, 7)), ...names.slice(40, 60).map((name) => symlink(`${name}/3`, "1")),
      ...names.slice(60, 70).map((name) => file(name)), ...names.slice(60, 65).map((name) => declared(name, 9)), ...names.slice(70, 80).map((name) => file(`${name}/sub/f`))
    ]
    const { stdout, stderr } = spawnSync("sh", ["-c", 'ulimit -n 1000 && exec "$0" "$@"', process.execPath, "--no-warnings", join(import.meta.dirname, "AsUser.ts"), join(temp, "layer"), "native", JSON.stringify(items)],
      { encoding: "utf8" })
    assert.deepStrictEqual([stderr, Object(JSON.parse(stdout)).error], ["", undefined])
    const found = tree(join(temp, "layer/fs"))
    for (const [one, name] of names.entries()) {
      const is = found.get(name)
      if (one >= 65 && one < 70) assert.strictEqual(is?.type, "file")
      else assert.deepStrictEqual([name, is?.type, is?.mode, is?.mtime], [name, "dir", 0o700, one < 50 ? 7_000_000_000n : one >= 60 && one < 65 ? 9_000_000_000n : 5_000_000_000n])
    }
    assert.deepStrictEqual([found.get("d70/sub")?.mode, found.get("d70/sub")?.mtime], [0o755, 0n])
  }))

  it("says where the disk was full", inTemp((temp) => {
    const disk = join(temp, "disk")
    mkdirSync(disk)
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk])
    if (mounted.status !== 0) return // not in this sandbox
    const before = descriptors()
    try {
      const error = thrown(() => applied(disk, [file("a/small", "x"), file("a/large", "x".repeat(200_000))]))
      assert.deepInclude(Object(error), { code: "ENOSPC", syscall: "write", path: join(disk, "fs/a/large") })
      assert.match(String(error), /^Error: ENOSPC: no space left on device, write '.*\/fs\/a\/large'$/)
      assert.strictEqual(descriptors(), before)
    } finally {
      spawnSync("umount", [disk])
    }
  }))
})
