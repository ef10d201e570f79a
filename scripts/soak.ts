// Thousands of rounds of pulls (of today's images, schema1 and v1), loads, root file systems, gc, rm, rollbacks and repairs on
// one small disk, up to four at a time: most in this process, on services that live as long as the soak, some interrupted at
// a random moment; some as real processes, of which some are killed. Now and then the disk is full (as root, on a tmpfs).
// After every round the next opening must find a sound store, with no litter in it or beside it; every twentieth compares all
// files. Descriptors, memory and what is in the folder for temporary files must not grow: the last fifth of the run against the
// second one. What is made once was made by then.
//   npm run soak -- [--rounds 2000] [--seed 1]
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, ConfigProvider, Console, Duration, Effect, Exit, Fiber, Layer } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { getHeapStatistics, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Check from "../src/Check.ts"
import * as Syscalls from "../src/layer/Syscalls.ts"
import { Workers } from "../src/layer/Workers.ts"
import * as Load from "../src/Load.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as RetryPolicy from "../src/registry/RetryPolicy.ts"
import * as Repair from "../src/Repair.ts"
import * as Rollback from "../src/Rollback.ts"
import * as RootFs from "../src/RootFs.ts"
import { Graph } from "../src/store/Graph.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import * as Archive from "../src/testing/Archive.ts"
import { ImageBuilder, LegacyImage, TestRegistry, V1Server } from "../src/testing/index.ts"
import * as SavedArchive from "../src/testing/old/SavedArchive.ts"
import * as Towline from "../src/Towline.ts"

const { values } = parseArgs({ options: { rounds: { type: "string", default: "2000" }, seed: { type: "string", default: "1" } } })
const rounds = Number(values.rounds)
const bin = (name: string) => new URL(`../bin/${name}`, import.meta.url).pathname

/** A sequence of numbers from 0 to 1 that only depends on the seed. */
let state = Number(values.seed) >>> 0
const random = () => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return state / 2 ** 32
}
const pick = <A>(list: readonly [A, ...ReadonlyArray<A>]): A => list[Math.floor(random() * list.length)] ?? list[0]

setFlagsFromString("--expose-gc")
const collectGarbage: unknown = runInNewContext("gc")

interface Ended { readonly code: number | null; readonly text: string }
/** Runs a command; after `patience` ms, if any, it is killed. */
const run = (name: string, args: ReadonlyArray<string>, patience: number | undefined, temporary: string) => Effect.callback<Ended>((resume) => {
  const child = spawn(bin(name), args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, DOCKER_CONFIG: "/nonexistent", TMPDIR: temporary } })
  let text = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => { text += String(chunk) })
  const timer = patience === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), patience)
  child.on("close", (code) => {
    clearTimeout(timer)
    resume(Effect.succeed({ code, text }))
  })
})

const { trim } = Syscalls.load()

/**
 * What the process holds after a collection and a trim (what was freed but is kept for later differs by 100 MiB from one moment to
 * the next): descriptors, bytes of heap, and of all memory but what the heap keeps for later.
 */
const measure = () => {
  if (typeof collectGarbage === "function") for (let n = 0; n < 3; n++) collectGarbage()
  trim()
  const { total_physical_size: heapSize, used_heap_size: heap } = getHeapStatistics()
  return { descriptors: readdirSync("/proc/self/fd").length, heap, memory: process.memoryUsage.rss() - (heapSize - heap) }
}
type Measured = ReturnType<typeof measure>
/** What each may have more, on average, in the last fifth of the run than in the second one. */
const growth: ReadonlyArray<readonly [key: keyof Measured, most: number, shown: (value: number) => string]> = [
  ["descriptors", 4, (value) => value.toFixed(1)], ["heap", 12 * 2 ** 20, (value) => mib(value)], ["memory", 40 * 2 ** 20, (value) => mib(value)]
]
/** The heaps of the workers, which cannot be measured from here, grow in steps for hundreds of rounds: shorter runs tell nothing of a leak. */
const longEnough = 1000
const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`

/** A job: what it does in this process, and the command that does the same. */
interface Job {
  readonly here: Effect.Effect<unknown, { readonly _tag: string; readonly message: string }, Layer.Success<ReturnType<typeof Towline.layer>> | NodeServices.NodeServices>
  readonly command: readonly ["pull" | "graph", ...ReadonlyArray<string>]
}

/** Failures that are honest ends: nothing by that name (rm, rollback), and what a full disk refuses. */
const honest = new Set(["ImageNotFound", "AmbiguousName", "NoEarlierValue", "NotInStore"])

const soak = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-soak-"))), (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))
  const [disk, temporary] = [join(folder, "disk"), join(folder, "tmp")]
  for (const path of [disk, temporary]) mkdirSync(path)
  process.env["TMPDIR"] = temporary
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", disk], { stdio: "ignore" }).status === 0
  yield* Effect.addFinalizer(() => Effect.sync(() => { if (mounted) spawnSync("umount", ["-l", disk]) }))
  const store = join(disk, "store")
  const [registry, old] = [yield* TestRegistry.make(), yield* V1Server.make()]
  const { image, layer, noise } = ImageBuilder
  const shared = layer([{ path: "base", contents: noise("base", 300_000) }])
  const files = (seed: string) => layer([...Array(40).keys()].map((at) => ({ path: `${at}`, contents: noise(`${seed}${at}`, 5000) })))
  const tags = ["a", "b", "c", "d"] as const
  // Eight images a tag in all: a registry forgets nothing that was put into it, and this one is in this process.
  const turns = [0, 1, 2, 3, 4, 5, 6, 7] as const
  const push = (tag: string, turn: number) => registry.put("app", tag, image({ layers: [shared, files(`${tag}${turn}`)] }))
  for (const turn of turns.toReversed()) for (const tag of tags) push(tag, turn)
  const legacy = LegacyImage.legacy({ steps: [{ tar: [{ path: "old", contents: noise("old", 150_000) }] }, {}, { tar: [{ path: "older", contents: noise("older", 100_000) }] }] })
  registry.put("old", "1", legacy.schema1({ repository: "old", tag: "1" }))
  old.put("team/old", "1", legacy.images)
  const archive = join(folder, "archive.tar")
  writeFileSync(archive, Archive.archive(SavedArchive.docker([{ image: image({ format: "docker", layers: [shared, files("loaded")] }), names: ["loaded:1"] }])))

  const from = ["--store", store]
  const platform = "linux/amd64"
  const references = [`${registry.host}/old:1`, `${old.host}/team/old:1`, ...tags.map((tag) => `${registry.host}/app:${tag}`)] as const
  const job = (round: number): Job => {
    if (random() < 0.2) push(pick(tags), pick(turns))
    const reference = pick(references)
    const kind = random()
    const pull = ["pull", ...from, "--platform", platform, "-q"] as const
    const target = join(disk, `root${round}-${Math.floor(random() * 1e6)}`)
    if (kind < 0.4) return { here: Pull.pull(reference, { platform }), command: [...pull, "--durability", "fast", reference] }
    if (kind < 0.5) return { here: Pull.pull(reference, { platform, rootfs: target }), command: [...pull, "--rootfs", target, reference] }
    if (kind < 0.55) return { here: Effect.scoped(Effect.flatMap(Pull.pull(reference, { platform }), (image) => RootFs.make(image, { place: temporary }))), command: [...pull, "--unpack", "--rootfs", target, reference] }
    if (kind < 0.63) return { here: Load.load(new Hub<PullEvent>(keyOf), archive, { platform }), command: ["graph", "load", ...from, "-q", archive] }
    if (kind < 0.73) return { here: Effect.flatMap(Graph, (graph) => graph.remove(reference)), command: ["graph", "rm", ...from, reference] }
    if (kind < 0.78) return { here: Rollback.rollback(reference, { platform }), command: ["pull", ...from, "--rollback", reference] }
    if (kind < 0.82) return { here: Repair.repair(), command: ["graph", "check", "-q", "--repair", ...from] }
    const all = random() < 0.5
    return {
      here: Effect.flatMap(Collector, (collector) => collector.collect(all ? { olderThan: Duration.zero } : { keepLast: 2 })),
      command: ["graph", "gc", ...from, ...all ? ["--older-than", "0"] : ["--keep-last", "2"]]
    }
  }
  const fill = () => {
    const { bavail, bsize } = statfsSync(disk)
    writeFileSync(join(disk, "ballast"), Buffer.alloc(Math.max(0, bavail * bsize - Math.floor(random() * 600_000))))
  }
  const settings = Layer.mergeAll(
    NodeServices.layer, ConfigProvider.layer(ConfigProvider.fromEnvRecord({ DOCKER_CONFIG: "/nonexistent" })),
    Layer.effect(RetryPolicy.Limits, Effect.map(RetryPolicy.Limits, (limits) => ({ ...limits, pace: 0.01 }))))
  const count = { ran: 0, interrupted: 0, processes: 0, killed: 0, refused: 0, full: 0 }
  const services = yield* Layer.build(Towline.layer({ store }).pipe(Layer.provideMerge(settings)))
  const workers = yield* Layer.build(Workers.layer)

  const perform = Effect.fnUntraced(function*(round: number, full: boolean, { command: [name, ...args], here }: Job) {
    const [kills, wait] = [random() < 0.4, random()]
    if (random() < 0.05) {
      count.processes++
      const { code, text } = yield* run(name, args, kills ? wait * 1500 : undefined, temporary)
      if (code === null) count.killed++
      else if (code !== 0) count.refused++
      // Not found (rm, rollback), or local (the disk): nothing else is an honest end here.
      if (code !== null && code !== 0 && code !== 3 && !(code === 7 && full)) return yield* Effect.die(new Error(`round ${round}: ${name} ${args.join(" ")}: exit code ${code}: ${text}`))
      return
    }
    count.ran++
    const fiber = yield* Effect.forkChild(Effect.provide(here, services))
    if (kills) {
      yield* Effect.sleep(wait * wait * 150)
      yield* Fiber.interrupt(fiber)
    }
    const exit = yield* Fiber.await(fiber)
    if (Exit.isSuccess(exit)) return
    if (Cause.hasInterruptsOnly(exit.cause)) count.interrupted++
    else {
      count.refused++
      for (const reason of exit.cause.reasons) {
        if (Cause.isFailReason(reason)) {
          const { _tag, message } = reason.error
          if (!honest.has(_tag) && !(full && /disk is full/.test(message))) return yield* Effect.die(new Error(`round ${round}: ${name} ${args.join(" ")}: ${_tag}: ${message}`))
        } else if (Cause.isDieReason(reason)) return yield* Effect.die(reason.defect)
      }
    }
  })

  /** The next opening: what dead owners left is removed, the store is sound, and only partial blobs that a row knows are left. */
  const sound = (round: number) => Effect.gen(function*() {
    const findings = yield* round % 20 === 19 ? Check.check() : Effect.flatMap(Graph, (graph) => graph.check())
    if (findings.length > 0) return yield* Effect.die(new Error(`round ${round}: the store is not sound: ${JSON.stringify(findings)}`))
    // What the long-lived services remove in the background is given 5 s.
    const left = () => [
      ...readdirSync(disk).filter((name) => name !== "store").map((name) => `${name} beside the store`),
      ...readdirSync(temporary).map((name) => `${name} in the temporary folder`),
      ...readdirSync(join(store, "ingest")).filter((name) => statSync(join(store, "ingest", name), { throwIfNoEntry: false })?.isDirectory() === true)
    ]
    for (let n = 0; n < 100 && left().length > 0; n++) yield* Effect.sleep("50 millis")
    if (left().length > 0) return yield* Effect.die(new Error(`round ${round}: left over: ${left().join(", ")}`))
  }).pipe(Effect.provide(Towline.layerStore({ store })), Effect.provide(workers), Effect.provide(settings), Effect.scoped)

  const samples: Array<Measured> = []
  const began = performance.now()
  for (let round = 0; round < rounds; round++) {
    const full = mounted && random() < 0.1
    if (full) {
      fill()
      count.full++
    }
    yield* Effect.forEach(Array.from({ length: 1 + Math.floor(random() * 4) }, () => job(round)), (job) => perform(round, full, job), { concurrency: 4 })
    rmSync(join(disk, "ballast"), { force: true })
    for (const name of readdirSync(disk).filter((name) => name.startsWith("root"))) rmSync(join(disk, name), { recursive: true, force: true })
    yield* sound(round)
    registry.forget()
    old.forget()
    if (round % 10 === 9) samples.push(measure())
    const sample = samples.at(-1)
    if (round % 50 === 49 && sample !== undefined) {
      yield* Console.log(`${round + 1} rounds in ${Math.round((performance.now() - began) / 1000)} s: ${count.ran} jobs here, ${count.interrupted} interrupted; ${count.processes} processes, ${count.killed} killed; `
        + `${count.full} full disks, ${count.refused} refused; ${readdirSync(join(store, "ingest")).length} partials, ${sample.descriptors} descriptors, heap ${mib(sample.heap)}, ${mib(sample.memory)}`)
    }
  }
  const fifth = Math.floor(samples.length / 5)
  const mean = (part: ReadonlyArray<Measured>, key: keyof Measured) => part.reduce((sum, sample) => sum + sample[key], 0) / part.length
  if (fifth >= 4) for (const [key, most, shown] of growth) {
    const [before, after] = [mean(samples.slice(fifth, 2 * fifth), key), mean(samples.slice(-fifth), key)]
    yield* Console.log(`${key}: ${shown(before)} in the second fifth, ${shown(after)} in the last`)
    if (after > before + most && (key !== "memory" || rounds >= longEnough)) return yield* Effect.die(new Error(`${key} grew from ${shown(before)} to ${shown(after)}`))
  }
  yield* Effect.provide(Effect.flatMap(Collector, (collector) => collector.collect({ olderThan: Duration.zero })), services)
  yield* sound(rounds)
  for (let n = 0; n < 100 && readdirSync(join(store, "ingest")).length > 0; n++) yield* Effect.sleep("50 millis")
  const left = readdirSync(join(store, "ingest"))
  if (left.length > 0) return yield* Effect.die(new Error(`left over: ${left.join(", ")}`))
  yield* Console.log(`${rounds} rounds, ${count.killed} killed, ${count.interrupted} interrupted, ${count.refused} refused; sound after each`)
}).pipe(Effect.scoped)

await Effect.runPromise(soak)
