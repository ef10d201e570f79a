import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { applied, descriptors, dir, file, inTemp, link, privileged, shape, symlink, thrown } from "./Entries.ts"

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
