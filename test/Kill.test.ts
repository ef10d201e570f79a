import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { Tree } from "../src/testing/index.ts"
import { command, type Ended } from "./command.ts"
import { assertSound, towline } from "./harness.ts"
import { ingests } from "./main/setting.ts"
import { type Prepared, type Scenario, scenarios, Shelf } from "./scenarios.ts"
import { injected, type Kind, met, missing, type Point, pointsIn, traced } from "./strace.ts"

// Every command that changes a store is traced once, then run again and again, each time stopped or refused at another of its
// calls. TOWLINE_KILL=25 tries 25 of each kind of call instead of a few of all, and TOWLINE_KILL=all every one; TOWLINE_ONLY
// names the scenarios.
const { TOWLINE_INTEROP, TOWLINE_KILL: thorough, TOWLINE_ONLY: only } = process.env
const patience = thorough === undefined ? 300_000 : 24 * 3_600_000
const required = TOWLINE_INTEROP === "required"

/** What a disk says no with, by what is asked of it. */
const refusals: Readonly<Record<Kind, ReadonlyArray<string>>> = {
  rename: ["ENOSPC", "EACCES", "EDQUOT", "EROFS", "EIO"], fsync: ["EIO", "ENOSPC", "EDQUOT"], link: ["EDQUOT", "EROFS", "ENOSPC"],
  unlink: ["EROFS", "EACCES", "EIO"], mkdir: ["EDQUOT", "EACCES", "ENOSPC", "EROFS", "EMFILE"], write: ["ENOSPC", "EDQUOT", "EIO"],
  mode: ["EROFS", "EIO"], open: ["EMFILE", "EROFS", "EACCES", "EDQUOT", "ENOSPC"], read: ["EIO"]
}

const run = ([name, ...args]: Prepared["line"], under?: ReadonlyArray<string>) => command(name, args, under === undefined ? {} : { under })

/** The points to try: a few of all kinds, others for each scenario. */
const chosen = (text: string, folder: string, { kinds }: Scenario, few: number, offset: number): ReadonlyArray<Point> => {
  if (thorough !== undefined) return pointsIn(text, folder, kinds, thorough === "all" ? Infinity : Number(thorough))
  const turned = kinds.map((_, at) => kinds[(at + offset) % kinds.length] ?? "write")
  return pointsIn(text, folder, turned.slice(0, few), 1)
}

/** Bytes of the blobs that a store has, whole or in part. */
const bytesThere = (store: string, blobs: NonNullable<Prepared["blobs"]>["all"]): number => {
  const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0
  return blobs.reduce((sum, { digest, size }) => {
    const hex = digest.slice(digest.indexOf(":") + 1)
    const partial = readdirSync(join(store, "ingest")).find((name) => name.startsWith(hex.slice(0, 12)))
    return sum + Math.min(size, Math.max(sizeOf(join(store, "blobs", "sha256", hex)), partial === undefined ? 0 : sizeOf(join(store, "ingest", partial))))
  }, 0)
}

/** No half root file system; nothing beside it. */
const assertPlace = (place: string, whole: ReadonlyArray<Tree.TreeRecord>) => {
  if (!existsSync(place)) return
  assert.deepStrictEqual(readdirSync(place).filter((name) => name !== "root"), [], "litter beside the target")
  if (existsSync(join(place, "root"))) assert.deepStrictEqual(Tree.diff(Tree.walk(join(place, "root")), whole), [], "half a root file system")
}

/** After a run that met something: the store is sound but for what had been damaged before, and the same command works, on what was there. */
const recovers = Effect.fnUntraced(function*({ blobs, done, folder, line, place, store }: Prepared) {
  const { whole } = yield* Shelf
  const services = towline(folder)
  // The next opening removes what its owner left; what is left are partial blobs.
  if (!line.includes("--repair") && existsSync(join(store, "ingest"))) {
    yield* Effect.gen(function*() {
      yield* assertSound(folder, { partials: true })
    }).pipe(Effect.provide(services))
    for (const name of ingests(store)) assert.isTrue(statSync(join(store, "ingest", name)).isFile(), `only partial blobs stay: ${name}`)
    if (place !== undefined) assertPlace(place, whole)
  }
  const there = blobs === undefined || !existsSync(join(store, "ingest")) ? 0 : bytesThere(store, blobs.all)
  const before = blobs?.sent() ?? 0
  const [last = ""] = line.slice(-1)
  const again = place !== undefined && existsSync(join(place, "root")) ? line.map((part) => part === join(place, "root") ? join(place, "again") : part) : line
  assert.strictEqual(again.at(-1)?.replace(/again$/, "root"), last)
  const [name, ...args] = again
  const ended = yield* command(name === "graph" ? "graph" : "pull", args)
  done(ended)
  if (blobs !== undefined) {
    const total = blobs.all.reduce((sum, { size }) => sum + size, 0)
    // Headers of answers are counted too.
    assert.isAtMost(blobs.sent() - before, total - 0.9 * there + 1000 * blobs.all.length, `of ${total} bytes ${there} were there`)
  }
  if (place !== undefined) {
    const made = readdirSync(place)
    for (const name of made) assert.deepStrictEqual(Tree.diff(Tree.walk(join(place, name)), whole), [])
    assert.isAbove(made.length, 0)
  }
  yield* assertSound(folder).pipe(Effect.provide(services))
})

/** One trace of a whole run. */
const traceOf = Effect.fnUntraced(function*({ kinds, prepare }: Scenario) {
  const prepared = yield* prepare
  const trace = join(prepared.folder, "trace")
  prepared.done(yield* run(prepared.line, traced(trace, kinds)))
  return { text: readFileSync(trace, "utf8"), folder: prepared.folder }
}, Effect.scoped)

const told = (how: string, { call, nth }: Point) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.mapError(Effect.sandbox(self), (cause) => new Error(`${how} at ${call} ${nth}`, { cause }))

const killed = Effect.fnUntraced(function*({ prepare }: Scenario, point: Point, signal: "KILL" | "TERM") {
  return yield* Effect.gen(function*() {
    const prepared = yield* prepare
    const ended = yield* run(prepared.line, met(point, `signal=${signal}`))
    if (signal === "TERM" && ended.code === 130) assert.strictEqual(ended.stderr, "")
    yield* recovers(prepared)
    return ended
  }).pipe(Effect.scoped, told(signal, point))
})

const refused = Effect.fnUntraced(function*({ prepare }: Scenario, point: Point, error: string) {
  return yield* Effect.gen(function*() {
    const prepared = yield* prepare
    const { done, folder, line: [name, verb], partly = done, store } = prepared
    const log = join(folder, "log")
    const ended = yield* run(prepared.line, met(point, `error=${error}`, log))
    // Threads come to their calls in another order now and then: what was refused may be Node's own.
    const hits = injected(readFileSync(log, "utf8"))
    const hit = hits.find((line) => line.includes(folder) && !line.includes(log))
    if (hit === undefined) return yield* Effect.as(recovers(prepared), false)
    if (ended.code === 0) { // what only tidies up, or makes faster, may fail: then all is there
      assert.strictEqual(ended.stderr, "", hit)
      partly(ended)
    } else {
      assert.strictEqual(ended.code, prepared.line.includes("--repair") && ended.code === 6 ? 6 : 7, `${hit}: ${ended.stderr}`)
      // The launcher looks for newer sources; where that fails it says so, and goes on.
      const said = ended.stderr.replace(/^find: .*\n/gm, "")
      assert.match(said, new RegExp(`^${name}(?: ${verb ?? ""})?: cannot [^\\n]*${folder}[^\\n]*\\n$`), hit)
      // Each thread that comes to that call is refused: what is told may be what came of another's refusal.
      if (!hit.includes(`${store}/graph.db`) && ended.code === 7 && hits.length === 1) assert.include(said, error, hit)
      assert.strictEqual(ended.stdout, "")
    }
    yield* recovers(prepared)
    return true
  }).pipe(Effect.scoped, told(error, point))
})

const wasHit = ({ code, signal }: Ended) => signal !== null || code === 130 || code === 137

layer(Shelf.layer.pipe(Layer.orDie), { excludeTestServices: true })("Whatever is changed in a store", (it) => {
  for (const [index, scenario] of scenarios.entries()) {
    it.effect.skipIf((missing && !required) || (only !== undefined && !new RegExp(only).test(scenario.name)))(`${scenario.name}: killed, or refused by the disk, at any call (needs strace)`, () => Effect.gen(function*() {
      assert.isFalse(missing, "strace is missing, or may not trace")
      const { folder, text } = yield* traceOf(scenario)
      const kills = chosen(text, folder, { ...scenario, kinds: scenario.kinds.filter((kind) => kind !== "read") }, 2, index)
      const terms = thorough !== undefined || scenario.name === "pull with a root file system" ? kills.slice(0, thorough === undefined ? 1 : Infinity) : []
      const ended = yield* Effect.forEach([...kills.map((point) => ["KILL", point] as const), ...terms.map((point) => ["TERM", point] as const)], ([signal, point]) =>
        killed(scenario, point, signal), { concurrency: 2 })
      assert.isAtLeast(ended.filter(wasHit).length, ended.length * 0.5, "most signals met their call")
      const hits = yield* Effect.forEach(chosen(text, folder, scenario, 2, 3 + index), (point, at) => {
        const errors = refusals[point.kind]
        return refused(scenario, point, errors[(at + index) % errors.length] ?? "EIO")
      }, { concurrency: 2 })
      assert.isAtLeast(hits.filter((hit) => hit).length, hits.length * 0.3, "most errors met their call")
    }).pipe(Effect.scoped), patience)
  }
})
