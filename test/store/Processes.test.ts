import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Graph } from "../../src/store/Graph.ts"
import * as Home from "../../src/store/disk/Home.ts"
import { blobOf, imageOf, litter, pull, take, temp, visible, withStore } from "./Fixtures.ts"

const program = fileURLToPath(new URL("child.ts", import.meta.url))
/** Where Node keeps sources without their types, so that not every process strips them. */
const compiled = fileURLToPath(new URL("../../node_modules/.vitest/compiled", import.meta.url))

/** A process of its own; `said` resolves with its first line, `ended` with how it ended and all it said. */
const child = (job: string, path: string, number = 0) => {
  const process_ = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", program, job, path, String(number)], { env: { ...process.env, NODE_COMPILE_CACHE: compiled } })
  let out = ""
  let err = ""
  process_.stderr.on("data", (bytes) => { err += String(bytes) })
  const said = new Promise<string>((resolve) => process_.stdout.on("data", (bytes) => {
    out += String(bytes)
    if (out.includes("\n")) resolve(out)
  }))
  const ended = new Promise<{ readonly code: number | null; readonly signal: string | null; readonly out: string; readonly err: string }>(
    (resolve) => process_.once("close", (code, signal) => resolve({ code, signal, out, err })))
  return { process: process_, said: Effect.promise(() => said), ended: Effect.promise(() => ended) }
}

it.live("8 processes open a new store at once and commit 100 transactions each", () => Effect.gen(function*() {
  const path = yield* temp
  const ends = yield* Effect.forEach(Array.from({ length: 8 }), () => child("count", path, 100).ended, { concurrency: 8 })
  assert.deepStrictEqual(ends.map(({ code, err }) => [code, err]), ends.map(() => [0, ""]))
  const [row] = yield* Effect.provide(Effect.flatMap(Home.Home, ({ db }) =>
    db.rows(Schema.Struct({ at: Schema.Int }), db.sql`SELECT at FROM origins`)), Home.layer(path))
  assert.strictEqual(row?.at, 800)
}).pipe(Effect.scoped), 120_000)

it.live("another process's ingest is waited for, and taken over when it is killed", () => Effect.gen(function*() {
  const path = yield* temp
  const bytes = Buffer.from("first half, second half")
  const other = child("hold", path)
  const row = (yield* other.said).trim().slice("holding ".length)
  yield* Effect.gen(function*() {
    assert.strictEqual(litter(path).length, 2)
    const next = yield* take(blobOf(bytes), [bytes.subarray(12)], { commit: true }).pipe(Effect.forkChild({ startImmediately: true }))
    yield* Effect.sleep("400 millis")
    assert.strictEqual(next.pollUnsafe(), undefined)
    other.process.kill("SIGKILL")
    assert.strictEqual(yield* Fiber.join(next), 12)
    assert.deepStrictEqual(visible(path, blobOf(bytes)), bytes)
  }).pipe(withStore(path))
  assert.deepStrictEqual(litter(path).map((name) => `ingest/${name}`), [row])
  assert.deepStrictEqual(yield* Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path)), [])
  assert.deepStrictEqual(litter(path), [])
}).pipe(Effect.scoped), 60_000)

it.live("killed before any call that changes the disk, it leaves a store that the next command finds in order", () => Effect.gen(function*() {
  const first = Effect.flatMap(Graph, (graph) => Effect.flatMap(imageOf("first", ["base", "old"]), graph.register))
  const trial = Effect.fnUntraced(function*(n: number) {
    const path = yield* temp
    yield* first.pipe(withStore(path))
    const end = yield* child("pull", path, n).ended
    if (end.signal === null) return { calls: Number(/calls (\d+)/.exec(end.out)?.[1] ?? 0), err: end.err }
    const findings = yield* Effect.flatMap(Graph, (graph) => graph.check()).pipe(withStore(path))
    assert.deepStrictEqual([n, findings], [n, []])
    yield* pull.pipe(withStore(path))
    const left = yield* Effect.flatMap(Graph, (graph) => Effect.all([graph.check(), Effect.map(graph.list, (rows) => rows.map(({ name }) => name))])).pipe(withStore(path))
    assert.deepStrictEqual([n, left, litter(path)], [n, [[], ["docker.io/library/second"]], []])
    return { calls: 0, err: "" }
  }, Effect.scoped)
  const { calls, err } = yield* trial(0)
  assert.isAbove(calls, 100, err)
  const step = Number(process.env["TOWLINE_KILL_STEP"] ?? Math.ceil(calls / 12))
  const points = Array.from({ length: Math.floor(calls / step) }, (_, index) => 1 + index * step)
  yield* Effect.forEach(points, trial, { concurrency: 2, discard: true })
}).pipe(Effect.scoped), 600_000)
