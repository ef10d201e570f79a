import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { Control } from "../../src/layer/Control.ts"
import { defaultLimits, type Limits } from "../../src/layer/Limits.ts"
import { Workers } from "../../src/layer/Workers.ts"
import { archive } from "../../src/testing/Archive.ts"
import { temporary } from "../harness.ts"

const unpacked = Effect.fnUntraced(function*(blob: Uint8Array, limits: Partial<Limits> = {}) {
  const folder = yield* temporary
  writeFileSync(join(folder, "blob"), blob)
  mkdirSync(join(folder, "layer"), { mode: 0o700 })
  const fd = yield* Effect.acquireRelease(Effect.sync(() => openSync(join(folder, "blob"), "r")), (fd) => Effect.sync(() => closeSync(fd)))
  const control = new Control()
  control.advance(blob.byteLength)
  const job = { kind: "unpack", fd, size: blob.byteLength, folder: join(folder, "layer"), diffId: undefined, native: true, limits: { ...defaultLimits, ...limits } } as const
  return yield* Effect.map((yield* Workers).run<"unpack">(job, "the layer", control), (made) => ({ ...made, text: readFileSync(join(folder, "layer/fs/f")) }))
})

const zeros = archive([{ path: "f", contents: Buffer.alloc(8 * 2 ** 20) }])
const piped = (tool: string, input: Uint8Array) => execFileSync(tool, ["-c"], { input: Buffer.from(input), maxBuffer: 2 ** 28 })

layer(Workers.layer)("A layer's limits", (it) => {
  it.effect("are those it is told: what grows too much, says too much, or has too many entries is refused", () => Effect.gen(function*() {
    const refusal = (blob: Uint8Array, limits: Partial<Limits>) => Effect.map(Effect.flip(unpacked(blob, limits)), ({ message }) => message)
    for (const blob of [gzipSync(zeros), zstdCompressSync(zeros), piped("bzip2", zeros), piped("xz", zeros)]) {
      assert.match(yield* refusal(blob, { ratio: 50, freely: 2 ** 20 }), /layer the layer is refused: the layer inflates to more than 50 times its size: \d+ bytes became \d+; nothing of it was kept; if you trust it, --limit ratio=VALUE allows more$/)
      assert.strictEqual((yield* unpacked(blob, { ratio: 50 })).text.byteLength, 8 * 2 ** 20)
      assert.match(yield* refusal(blob, { bytes: 2 ** 20 }), /larger than 1048576 bytes/)
    }
    const two = archive([{ path: "f" }, { path: "a/b/c" }])
    assert.match(yield* refusal(two, { entries: 1 }), /entry "a\/b\/c": the archive has more than 1 entries/)
    assert.match(yield* refusal(two, { depth: 2 }), /more than 2 names deep/)
    assert.match(yield* refusal(zstdCompressSync(zeros), { window: 1024 }), /needs a window of \d+ bytes, the limit is 1024.*--limit window=VALUE/)
    assert.match(yield* refusal(piped("xz", zeros), { window: 1024 }), /needs a dictionary of \d+ bytes, the limit is 1024/)
  }), 60_000)

  it.effect("leave old layers, compressed with bzip2 and xz, with the digest of their tar", () => Effect.gen(function*() {
    const tar = archive([{ path: "f", contents: "old" }])
    const { diffId } = yield* unpacked(tar)
    for (const tool of ["bzip2", "xz"]) assert.deepInclude(yield* unpacked(piped(tool, tar)), { diffId, text: Buffer.from("old") })
  }), 60_000)
})
