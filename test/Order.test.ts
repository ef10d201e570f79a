import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder } from "../src/testing/index.ts"
import { type Call, callsIn, faults, options } from "./interop/order.ts"
import { command } from "./command.ts"
import { assertDigest, setting } from "./main/setting.ts"

const missing = spawnSync("strace", ["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).status !== 0
const required = process.env["TOWLINE_INTEROP"] === "required"

describe("Power loss", () => {
  it.live.skipIf(missing && !required)("everything is on the disk before what names it, whatever is pulled (needs strace)", () => Effect.gen(function*() {
    assert.isFalse(missing, "strace is missing, or may not trace")
    const { folder, reference } = yield* setting()
    for (const [index, args] of [[], ["--no-unpack"], ["--unpack", "--rootfs", "root"], ["--rootfs", "root"]].entries()) {
      const place = join(folder, String(index))
      const [store, root] = [join(place, "store"), join(place, "root")]
      const trace = join(folder, `trace${index}`)
      const given = args.map((arg) => arg === "root" ? root : arg)
      assertDigest(yield* command("pull", ["-q", "--store", store, ...given, reference], { under: ["strace", "-qq", "-o", trace, ...options] }))
      const calls = callsIn(readFileSync(trace, "utf8"))
      const renamed = (folder: string) => calls.filter(({ name, to }) => name === "rename" && to.startsWith(`${store}/${folder}/`)).length
      const demo = ImageBuilder.demo()
      assert.deepStrictEqual([renamed("blobs"), renamed("layers")], [demo.layers.length + 2, args.includes("--no-unpack") || (args.includes("--rootfs") && !args.includes("--unpack")) ? 0 : demo.layers.length])
      assert.deepStrictEqual([args, faults(calls, store, `${reference.slice(0, reference.lastIndexOf(":"))}`, args.includes("--rootfs") ? root : undefined)], [args, []])
    }
  }).pipe(Effect.scoped), 240_000)

  it("the checker notices each kind of wrong order", () => {
    const call = (name: string, path: string, to = "", text = ""): Call => ({ name, path, to, text })
    const [ingest, blob, layer, log] = ["/s/ingest/x", "/s/blobs/sha256/x", "/s/layers/sha256/y", "/s/graph.db-wal"]
    const right = [
      call("write", ingest), call("sync", ingest), call("rename", ingest, blob), call("sync", "/s/blobs/sha256"), call("write", log), call("sync", log),
      call("rename", "/s/ingest/l", layer), call("syncfs", "/s"), call("rename", "/s/../staging", "/r/root"), call("sync", "/r"), call("write", log, "", "the tag"), call("sync", log)
    ]
    assert.deepStrictEqual(faults(right, "/s", "the tag", "/r/root"), [])
    for (const [left, said] of [[1, /bytes of/], [3, /name of .* was never/], [7, /files of/], [9, /name of \/r\/root/], [10, /no write of the tag/], [11, /tag itself/]] as const) {
      assert.match(faults(right.toSpliced(left, 1), "/s", "the tag", "/r/root").join(), said, `without ${left}`)
    }
    const late = [...right.slice(0, 7), ...right.slice(8), right[7] ?? call("syncfs", "/s")]
    assert.match(faults(late, "/s", "the tag", "/r/root").join(), /tag came before the files/)
  })
})
