// Many rounds of pulls, gc, rm, rollbacks and checks on one store, with kills at random moments and a disk that is full now
// and then (as root, on a small tmpfs). After every round the store must be sound, and at the end nothing may be left over.
//   npm run soak -- [--rounds 1000] [--seed 1]
import { Console, Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"

const { values } = parseArgs({ options: { rounds: { type: "string", default: "1000" }, seed: { type: "string", default: "1" } } })
const bin = (name: string) => new URL(`../bin/${name}`, import.meta.url).pathname

/** A sequence of numbers from 0 to 1 that only depends on the seed. */
let state = Number(values.seed) >>> 0
const random = () => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return state / 2 ** 32
}
const pick = <A>(list: ReadonlyArray<A>): A | undefined => list[Math.floor(random() * list.length)]

interface Ended { readonly code: number | null; readonly text: string }
/** Runs a command; after `patience` ms, if any, it is killed. */
const run = (name: string, args: ReadonlyArray<string>, patience?: number) => Effect.callback<Ended>((resume) => {
  const child = spawn(bin(name), args, { stdio: ["ignore", "pipe", "pipe"] })
  let text = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => { text += String(chunk) })
  const timer = patience === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), patience)
  child.on("close", (code) => {
    clearTimeout(timer)
    resume(Effect.succeed({ code, text }))
  })
})

const soak = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-soak-"))), (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))
  const disk = join(folder, "disk")
  mkdirSync(disk)
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", disk], { stdio: "ignore" }).status === 0
  yield* Effect.addFinalizer(() => Effect.sync(() => { if (mounted) spawnSync("umount", [disk]) }))
  const store = join(disk, "store")
  const registry = yield* TestRegistry.make()
  const { image, layer, noise } = ImageBuilder
  const shared = layer([{ path: "base", contents: noise("base", 300_000) }])
  const tags = ["a", "b", "c", "d"]
  const push = (tag: string, turn: number) => registry.put("app", tag, image({ layers: [shared, layer([{ path: tag, contents: noise(`${tag}${turn}`, 200_000) }])] }))
  for (const tag of tags) push(tag, 0)
  const from = ["--store", store]
  const platform = ["--platform", "linux/amd64", "-q"]
  const job = (round: number): readonly [string, ReadonlyArray<string>] => {
    const tag = pick(tags) ?? "a"
    const reference = `${registry.host}/app:${tag}`
    const kind = random()
    if (random() < 0.2) push(tag, round)
    if (kind < 0.5) return ["pull", [...from, ...platform, "--durability", "fast", reference]]
    if (kind < 0.6) return ["pull", [...from, ...platform, "--rootfs", join(disk, `root${round}-${Math.floor(random() * 1e6)}`), reference]]
    if (kind < 0.7) return ["graph", ["rm", ...from, reference]]
    if (kind < 0.75) return ["pull", [...from, "--rollback", reference]]
    if (kind < 0.8) return ["graph", ["check", "-q", "--repair", ...from]]
    return ["graph", ["gc", ...from, ...random() < 0.5 ? ["--older-than", "0"] : ["--keep-last", "2"]]]
  }
  const fill = () => {
    const { bavail, bsize } = statfsSync(disk)
    writeFileSync(join(disk, "ballast"), Buffer.alloc(Math.max(0, bavail * bsize - Math.floor(random() * 400_000))))
  }
  let killed = 0
  let refused = 0
  for (let round = 0; round < Number(values.rounds); round++) {
    const full = mounted && random() < 0.1
    if (full) fill()
    const ends = yield* Effect.forEach(Array.from({ length: 1 + Math.floor(random() * 4) }, () => job(round)), ([name, args]) =>
      run(name, args, random() < 0.4 ? random() * 1500 : undefined), { concurrency: 4 })
    rmSync(join(disk, "ballast"), { force: true })
    for (const { code, text } of ends) {
      if (code === null) killed++
      else if (code !== 0) refused++
      // Not found (rm, rollback), or local (the disk): nothing else is an honest end here.
      if (code !== null && ![0, 3, 7].includes(code)) return yield* Effect.die(new Error(`round ${round}: exit code ${code}: ${text}`))
    }
    for (const name of readdirSync(disk).filter((name) => name.startsWith("root"))) rmSync(join(disk, name), { recursive: true, force: true })
    const { code, text } = yield* run("graph", ["check", "-q", ...from])
    if (code !== 0) return yield* Effect.die(new Error(`round ${round}: the store is not sound: ${text}`))
    const litter = readdirSync(disk).filter((name) => name !== "store")
    if (litter.length > 0) return yield* Effect.die(new Error(`round ${round}: left beside the store: ${litter.join(", ")}`))
    if (round % 50 === 49) yield* Console.log(`${round + 1} rounds, ${killed} killed, ${refused} refused, ${readdirSync(join(store, "ingest")).length} ingests`)
  }
  yield* run("graph", ["gc", ...from, "--older-than", "0"])
  const left = readdirSync(join(store, "ingest"))
  if (left.length > 0) return yield* Effect.die(new Error(`left over: ${left.join(", ")}`))
  yield* Console.log(`${values.rounds} rounds, ${killed} killed, ${refused} refused; sound after each`)
}).pipe(Effect.scoped)

await Effect.runPromise(soak)
