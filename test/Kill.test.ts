import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { ImageBuilder, TestRegistry, Tree } from "../src/testing/index.ts"
import { command, type Ended, startCommand } from "./command.ts"
import { assertSound, temporary, towline } from "./harness.ts"
import { assertChecked, assertDigest, ingests } from "./main/setting.ts"

// strace sends the real process a signal as it enters its n-th call of a kind. TOWLINE_KILL=25 tries 25 of each kind
// instead of 1, and TOWLINE_KILL=all every one.
const { TOWLINE_KILL: thorough } = process.env
const points = (few: number): number => thorough === undefined ? few : thorough === "all" ? Infinity : Number(thorough)
const patience = thorough === undefined ? 600_000 : 24 * 3_600_000
const strace = ["strace", "-f", "-qq"] // with --seccomp-bpf, strace 6.1 does not count
const missing = spawnSync("strace", [...strace.slice(1), "-o", "/dev/null", "-e", "trace=none", "true"]).status !== 0
const required = process.env["TOWLINE_INTEROP"] === "required"

/** What changes a disk, by the names it has on one architecture or another. */
const kinds: Readonly<Record<string, ReadonlyArray<string>>> = {
  rename: ["rename", "renameat", "renameat2"],
  fsync: ["fsync", "fdatasync"],
  link: ["link", "linkat"],
  unlink: ["unlink", "unlinkat", "rmdir"],
  mkdir: ["mkdir", "mkdirat"],
  write: ["write", "writev"],
  pwrite: ["pwrite64", "pwritev", "ftruncate"]
}
const optional = (names: ReadonlyArray<string>) => names.map((name) => `?${name}`).join(",")

/** A call, and which of the thread that makes most of it: `strace` counts for each thread. */
interface Point {
  readonly call: string
  readonly nth: number
}

/** The points of each kind in a trace of a whole run: at most `count`, spread over all there are. */
const pointsIn = (trace: string, count: number): ReadonlyArray<Point> => {
  const counts = new Map<string, Map<string, number>>()
  for (const [, thread = "", call = ""] of trace.matchAll(/^(\d+) +(\w+)\(/gm)) {
    const threads = counts.get(call) ?? new Map<string, number>()
    counts.set(call, threads.set(thread, (threads.get(thread) ?? 0) + 1))
  }
  return Object.values(kinds).flatMap((calls) => {
    const all = calls.flatMap((call) => Array.from({ length: Math.max(0, ...counts.get(call)?.values() ?? []) }, (_, at) => ({ call, nth: at + 1 })))
    if (all.length <= count) return all
    const place = (at: number) => Math.round((count === 1 ? 0.5 : at / (count - 1)) * (all.length - 1))
    return Array.from({ length: count }, (_, at) => all[place(at)]).filter((point) => point !== undefined)
  })
}

const traced = (file: string) => [...strace, "-o", file, "-e", `trace=${Object.values(kinds).map(optional).join(",")}`]

/** `how` is what strace injects: `signal=KILL`, or `error=ENOSPC`. */
const met = ({ call, nth }: Point, how: string) =>
  [...strace, "-o", "/dev/null", "-e", `trace=${call}`, "-e", `inject=${call}:${how}:when=${nth}`]

/** A registry, and what its image looks like as files. */
const shelf = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.demo())
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  assertDigest(yield* command("pull", ["-q", "--store", join(folder, "store"), "--rootfs", join(folder, "root"), reference]))
  return { folder, reference, whole: Tree.walk(join(folder, "root")) }
})

/** One run in a folder of its own that meets `how` at `point`; then everything must be as if it had not been. */
const survives = Effect.fnUntraced(function*(
  { reference, whole }: Effect.Success<typeof shelf>, point: Point, how: string, options: ReadonlyArray<string>
) {
  const folder = yield* temporary
  const [store, place] = [join(folder, "store"), join(folder, "place")]
  const target = join(place, "root")
  const running = yield* startCommand("pull", ["-q", "--store", store, ...options, "--rootfs", target, reference], { under: met(point, how) })
  const ended = yield* running.ended
  yield* assertChecked(store)
  if (existsSync(place)) {
    assert.deepStrictEqual(readdirSync(place).filter((name) => name !== "root"), [], "litter beside the target")
    if (existsSync(target)) assert.deepStrictEqual(Tree.diff(Tree.walk(target), whole), [], "half a root file system")
  }
  const second = existsSync(target) ? join(place, "again") : target
  assertDigest(yield* command("pull", ["-q", "--store", store, ...options, "--rootfs", second, reference]))
  assert.deepStrictEqual(ingests(store), [])
  assert.deepStrictEqual(Tree.diff(Tree.walk(second), whole), [])
  yield* assertSound(folder).pipe(Effect.provide(towline(folder)))
  return ended
}, Effect.scoped, (self, _, { call, nth }, how) =>
  Effect.mapError(Effect.sandbox(self), (cause) => new Error(`${how} at ${call} ${nth}`, { cause })))

/** The disk's calls of a whole pull. */
const traceOf = Effect.fnUntraced(function*(reference: string, options: ReadonlyArray<string>) {
  const folder = yield* temporary
  const trace = join(folder, "trace")
  const args = ["-q", "--store", join(folder, "store"), ...options, "--rootfs", join(folder, "place", "root"), reference]
  assertDigest(yield* command("pull", args, { under: traced(trace) }))
  return readFileSync(trace, "utf8")
}, Effect.scoped)

const wasHit = ({ code, signal }: Ended) => signal !== null || code === 130 || code === 137

describe("Killed at any step", () => {
  const name = "pull: SIGKILL and SIGTERM at renames, syncs, links, removals, new folders and writes (needs strace)"
  it.live.skipIf(missing && !required)(name, () => Effect.gen(function*() {
    assert.isFalse(missing, "strace is missing, or may not trace")
    const images = yield* shelf
    const runs: Array<Effect.Effect<Ended, Error>> = []
    for (const options of [["--unpack"], []]) {
      const text = yield* traceOf(images.reference, options)
      runs.push(...pointsIn(text, points(1)).map((point) => survives(images, point, "signal=KILL", options)))
      // Signals that can be handled have a suite of their own.
      if (options.length > 0 || thorough !== undefined) runs.push(...pointsIn(text, points(1)).map((point) => survives(images, point, "signal=TERM", options)))
    }
    const ended = yield* Effect.forEach(runs, (run) => run, { concurrency: 2 })
    assert.isAbove(ended.filter(wasHit).length, runs.length * 0.8, "most signals met their call")
  }).pipe(Effect.scoped), patience)

  it.live.skipIf(missing && !required)("pull: calls that fail with ENOSPC, EIO, EACCES or EMFILE (needs strace)", () => Effect.gen(function*() {
    assert.isFalse(missing, "strace is missing, or may not trace")
    const images = yield* shelf
    const text = yield* traceOf(images.reference, ["--unpack"])
    // Node itself writes to its own pipes, and ends where that fails.
    const calls = pointsIn(text, points(1)).filter(({ call }) => !kinds["write"]?.includes(call))
    yield* Effect.forEach(calls, Effect.fnUntraced(function*(point, at) {
      const { code, stderr } = yield* survives(images, point, `error=${["ENOSPC", "EIO", "EACCES", "EMFILE"][at % 4] ?? ""}`, ["--unpack"])
      if (code === 0) assert.strictEqual(stderr, "") // what only tidies up, or makes faster, may fail
      else {
        assert.strictEqual(code, 7, stderr)
        assert.match(stderr, /^pull: cannot [^\n]+\n$/)
      }
    }), { concurrency: 2 })
  }).pipe(Effect.scoped), patience)

  /** What each verb is run on: a store with the image, and what it is to do there. */
  const verbs: ReadonlyArray<readonly [verb: string, args: (reference: string) => ReadonlyArray<string>, prepare: (store: string, reference: string) => Effect.Effect<unknown>]> = [
    ["rm", (reference) => [reference], () => Effect.void],
    // The image loses its tag, and keeps it a while longer in the log.
    ["gc", () => ["--older-than", "0"], (store) => Effect.sync(() => {
      const db = new DatabaseSync(join(store, "graph.db"))
      db.exec("INSERT INTO tag_log (at, name, reference, old_image) SELECT 0, name, reference, image FROM tags; DELETE FROM tags")
      db.close()
    })],
    ["check", () => ["-q", "--repair"], (store) => Effect.sync(() => {
      for (const folder of ["blobs/sha256", "layers/sha256"]) {
        const [first = "", second = ""] = readdirSync(join(store, folder)).map((name) => join(store, folder, name))
        if (folder.startsWith("layers")) writeFileSync(join(first, "fs/more"), "")
        else for (const file of [first, second]) truncateSync(file, 1)
      }
    })]
  ]
  for (const [verb, args, prepare] of verbs) {
    it.live.skipIf(missing && !required)(`graph ${verb}: SIGKILL at renames, syncs, removals and writes (needs strace)`, () => Effect.gen(function*() {
      assert.isFalse(missing, "strace is missing, or may not trace")
      const { reference } = yield* shelf
      const pulled = Effect.gen(function*() {
        const folder = yield* temporary
        const store = join(folder, "store")
        assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
        yield* prepare(store, reference)
        return { folder, store, line: [verb, "--store", store, ...args(reference)] }
      })
      const first = yield* pulled
      const trace = join(first.folder, "trace")
      assert.strictEqual((yield* command("graph", first.line, { under: traced(trace) })).code, 0)
      yield* Effect.forEach(pointsIn(readFileSync(trace, "utf8"), points(1)), Effect.fnUntraced(function*(point) {
        const { folder, line, store } = yield* pulled
        yield* command("graph", line, { under: met(point, "signal=KILL") })
        // What was damaged before may be so still; what the kill left is not.
        const again = yield* command("graph", verb === "check" ? line : ["check", "-q", "--store", store])
        assert.strictEqual(again.code, 0, `${again.stdout}${again.stderr}`)
        assert.deepStrictEqual(ingests(store), [])
        assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
        yield* assertSound(folder).pipe(Effect.provide(towline(folder)))
      }, Effect.scoped), { concurrency: 2 })
    }).pipe(Effect.scoped), patience)
  }
})
