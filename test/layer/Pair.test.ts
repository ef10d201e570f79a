import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { gzipSync } from "node:zlib"
import { Control } from "../../src/layer/Control.ts"
import { defaultLimits, type Limits } from "../../src/layer/Limits.ts"
import { Ring } from "../../src/layer/Ring.ts"
import { Workers } from "../../src/layer/Workers.ts"
import { archive } from "../../src/testing/Archive.ts"
import { layerCases } from "../../src/testing/LayerCases.ts"
import { temporary } from "../harness.ts"
import { tree } from "./apply/Entries.ts"

interface Given {
  readonly blob: Uint8Array
  readonly diffId?: string
  readonly limits?: Partial<Limits>
}

const started = Effect.fnUntraced(function*({ blob, diffId, limits }: Given, control: Control) {
  const folder = yield* temporary
  writeFileSync(join(folder, "blob"), blob)
  mkdirSync(join(folder, "layer"), { mode: 0o700 })
  const fd = yield* Effect.acquireRelease(Effect.sync(() => openSync(join(folder, "blob"), "r")), (fd) => Effect.sync(() => closeSync(fd)))
  const job = { kind: "unpack", fd, size: blob.byteLength, folder: join(folder, "layer"), diffId, native: true, limits: { ...defaultLimits, ...limits } } as const
  const workers = yield* Workers
  return yield* Effect.map(workers.run<"unpack">(job, "the layer", control), (made) =>
    ({ made, tree: [...tree(join(folder, "layer/fs"))].map(([name, { content, mode, type }]) => [name, content, mode, type]) }))
})

/** What comes of a layer: what was made, or the sentence that refuses it. */
const outcome = (given: Given) => Effect.scoped(Effect.suspend(() => {
  const control = new Control()
  control.advance(given.blob.byteLength)
  return started(given, control)
})).pipe(Effect.catchTags({ LayerRefused: ({ message }) => Effect.succeed({ refused: message }) }))

/** The same by one thread, and by two. */
const both = (given: Given) => Effect.gen(function*() {
  const workers = yield* Workers
  return [yield* outcome(given), yield* Effect.scoped(Effect.andThen(workers.expect, outcome(given)))] as const
})

layer(Workers.layer, { excludeTestServices: true })("A layer that two threads unpack", (it) => {
  it.effect("comes out as by one thread, and is refused for the same reason", () => Effect.gen(function*() {
    for (const { name, tar } of layerCases) {
      const [one, two] = yield* both({ blob: gzipSync(tar, { level: 1 }) })
      assert.deepStrictEqual(two, one, name)
    }
  }), 60_000)

  it.effect("is refused for what is wrong with its compressed form, its size and its digest, as by one thread", () => Effect.gen(function*() {
    const tar = archive([{ path: "a", contents: Buffer.alloc(5 * 2 ** 20, "some text ") }, { path: "b", contents: "x" }])
    const blob = gzipSync(tar)
    const flipped = Buffer.from(blob)
    flipped[blob.byteLength - 6] = (flipped[blob.byteLength - 6] ?? 0) ^ 1
    const digest = `sha256:${"0".repeat(64)}`
    const cases: Readonly<Record<string, readonly [Given, RegExp]>> = {
      "a checksum": [{ blob: flipped }, /gzip/],
      "a cut": [{ blob: blob.subarray(0, blob.byteLength - 100) }, /truncated|ends/],
      "a cut archive": [{ blob: gzipSync(tar.subarray(0, 3 * 2 ** 20)), diffId: digest }, /ends|truncated/],
      "a digest": [{ blob, diffId: digest }, /has the digest sha256:/],
      "a ratio": [{ blob, limits: { ratio: 2, freely: 2 ** 20 } }, /inflates to more than 2 times/],
      "a size": [{ blob, limits: { bytes: 2 ** 20 } }, /larger than/]
    }
    for (const [name, [given, rule]] of Object.entries(cases)) {
      const [one, two] = yield* both(given)
      assert.deepStrictEqual(two, one, name)
      assert.match("refused" in two ? two.refused : "taken", rule, name)
    }
  }), 60_000)

  it.effect("leaves both threads free when it is interrupted while bytes are awaited", () => Effect.gen(function*() {
    const workers = yield* Workers
    const blob = gzipSync(archive([{ path: "a", contents: "x" }]))
    const control = new Control()
    const fiber = yield* Effect.scoped(Effect.andThen(workers.expect, started({ blob }, control))).pipe(Effect.forkScoped)
    yield* Effect.sleep("50 millis")
    yield* Fiber.interrupt(fiber)
    assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
    const [one, two] = yield* both({ blob })
    assert.deepStrictEqual(two, one)
    assert.isFalse("refused" in two)
  }).pipe(Effect.scoped))
})

/** A thread that writes `pieces` into a ring and ends or breaks it. */
const writer = `
const { workerData: { buffer, how, pieces, url } } = require("node:worker_threads")
import(url).then(({ Ring }) => {
  const ring = new Ring(buffer)
  for (const piece of pieces) ring.write(piece, () => {})
  if (how === "end") ring.end("all of it")
  else ring.break()
})
`

layer(Workers.layer, { excludeTestServices: true })("Ring", (it) => {
  const written = (pieces: ReadonlyArray<Uint8Array>, how: "end" | "break") => Effect.acquireRelease(
    Effect.sync(() => {
      const ring = new Ring()
      return { ring, thread: new Worker(writer, { eval: true, execArgv: [], workerData: { buffer: ring.buffer, how, pieces, url: new URL("../../src/layer/Ring.ts", import.meta.url).href } }) }
    }), ({ thread }) => Effect.promise(() => thread.terminate()))
  it.effect("gives what another thread puts in, in order, and its note; of a broken one too what came before", () => Effect.gen(function*() {
    const pieces = [0, 1, 255, 256 * 1024, 256 * 1024 + 1, 3_000_000, 17].map((size, n) => Buffer.alloc(size, `${n} piece`))
    for (const how of ["end", "break"] as const) {
      const { ring } = yield* written(pieces, how)
      const taken: Array<Buffer> = []
      const read = () => ring.read((bytes) => taken.push(Buffer.from(bytes)), () => {})
      if (how === "end") assert.strictEqual(read(), "all of it")
      else assert.throws(read)
      assert.isTrue(Buffer.concat(taken).equals(Buffer.concat(pieces)))
    }
  }).pipe(Effect.scoped))
  it.effect("lets a side that is asked to stop go", () => Effect.gen(function*() {
    const stop = () => { throw new Error("asked to stop") }
    assert.throws(() => new Ring().read(() => {}, stop), "asked to stop")
    assert.throws(() => new Ring().write(Buffer.alloc(3 * 2 ** 20), stop), "asked to stop")
    yield* Effect.void
  }))
})
