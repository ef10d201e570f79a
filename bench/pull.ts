// How long a pull takes beside its peers on the same image, in interleaved runs.
//   npm run bench -- [--rounds N] [--work DIR] [--group unpack|blobs|rootfs] [REFERENCE]
// REFERENCE is an image on a loopback registry; without one, an image is generated and served by the test kit. Every round runs
// each command once, in turn, each in a fresh folder that is removed outside the timing, after a sync. Printed: medians of wall
// time, CPU time of the command and peak memory of its largest process, and the median of the per-round ratios to the first.
import { Console, Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs"
import { cpus, tmpdir, totalmem } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "3" }, work: { type: "string", default: tmpdir() }, group: { type: "string", default: "unpack" } }
})
const here = new URL(".", import.meta.url).pathname
const pull = join(here, "../bin/pull")
const has = (tool: string) => spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0

interface Contender { readonly name: string; readonly needs: ReadonlyArray<string>; readonly run: string; readonly after?: string }
/** What is compared; `$REF` and `$OUT` are set for each run. */
const groups: Readonly<Record<string, ReadonlyArray<Contender>>> = {
  unpack: [
    { name: "native", needs: ["curl", "openssl", "igzip", "jq", "tar"], run: `${here}native.sh "$REF" "$OUT"` },
    { name: "towline", needs: [], run: `${pull} -q --store "$OUT/s" "$REF"` },
    { name: "towline fast", needs: [], run: `${pull} -q --durability fast --store "$OUT/s" "$REF"` },
    { name: "podman", needs: ["podman"], run: `podman --root "$OUT/s" --runroot "$OUT/r" --storage-driver overlay pull -q --tls-verify=false "$REF"`, after: `umount -q "$OUT/s/overlay"` }
  ],
  blobs: [
    { name: "skopeo", needs: ["skopeo"], run: `skopeo copy -q --src-tls-verify=false "docker://$REF" "oci:$OUT/oci:1"` },
    { name: "towline", needs: [], run: `${pull} -q --no-unpack --store "$OUT/s" "$REF"` },
    { name: "towline oci:", needs: [], run: `${pull} -q --no-unpack --store "$OUT/s" --output "oci:$OUT/oci" "$REF"` }
  ],
  rootfs: [
    { name: "skopeo+umoci", needs: ["skopeo", "umoci"], run: `skopeo copy -q --src-tls-verify=false "docker://$REF" "oci:$OUT/oci:1" && umoci unpack --image "$OUT/oci:1" "$OUT/b"` },
    { name: "towline", needs: [], run: `${pull} -q --rootfs "$OUT/root" --store "$OUT/s" "$REF"` },
    { name: "towline fast", needs: [], run: `${pull} -q --durability fast --rootfs "$OUT/root" --store "$OUT/s" "$REF"` }
  ]
}

interface Sample { readonly wall: number; readonly cpu: number; readonly memory: number }
/** One run under GNU time; fails the bench if the command fails. */
const measure = ({ after, name, run }: Contender, reference: string) => Effect.callback<Sample>((resume) => {
  const out = mkdtempSync(join(values.work, "towline-bench-"))
  spawnSync("sync")
  const child = spawn("/usr/bin/time", ["-o", `${out}/time`, "-f", "%e %U %S %M", "bash", "-c", run], {
    env: { ...process.env, REF: reference, OUT: out }, stdio: ["ignore", "ignore", "pipe"]
  })
  let errors = ""
  child.stderr.on("data", (chunk: Buffer) => { errors += String(chunk) })
  child.on("close", (code) => {
    const [wall = 0, user = 0, system = 0, memory = 0] = code === 0 ? readFileSync(`${out}/time`, "utf8").trim().split(" ").map(Number) : []
    if (after !== undefined) spawnSync("bash", ["-c", after], { env: { ...process.env, OUT: out } })
    rmSync(out, { recursive: true, force: true })
    resume(code === 0 ? Effect.succeed({ wall, cpu: user + system, memory: memory / 1024 }) : Effect.die(new Error(`${name} failed: ${errors}`)))
  })
})

const median = (numbers: ReadonlyArray<number>): number => {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] ?? 0 : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

/** Microseconds to create a file in the work folder: what decides a comparison of unpackers more than any of them. */
const createCost = (): number => {
  const folder = mkdtempSync(join(values.work, "towline-creates-"))
  const begin = process.hrtime.bigint()
  for (let n = 0; n < 2000; n++) closeSync(openSync(`${folder}/${n}`, "wx"))
  const cost = Number(process.hrtime.bigint() - begin) / 2000 / 1000
  rmSync(folder, { recursive: true })
  return cost
}

const generated = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  const layers = [...Array(8).keys()].map((n) => ImageBuilder.layer([...Array(800).keys()].map((m) => ({
    path: `usr/lib/part${n}/folder${m % 40}/file${m}`,
    contents: Buffer.from(Buffer.from(ImageBuilder.noise(`${n} ${m}`, 8000)).toString("base64").repeat(1 + m % 6))
  }))))
  registry.put("bench", "1", ImageBuilder.image({ layers }))
  return `${registry.host}/bench:1`
})

const bench = Effect.gen(function*() {
  const reference = positionals[0] ?? (yield* generated)
  mkdirSync(values.work, { recursive: true })
  const all = groups[values.group] ?? []
  const there = all.filter(({ needs }) => needs.every(has))
  for (const { name } of all.filter((one) => !there.includes(one))) yield* Console.log(`left out, not installed: ${name}`)
  const cost = createCost()
  yield* Console.log(`${values.group} ${reference}; ${cpus().length} cores (${cpus()[0]?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}; creating a file takes ${cost.toFixed(0)} us`)
  if (cost > 60) yield* Console.log("warning: files are created slowly here (a file system without a journal after large deletes?): take another --work folder")
  const samples = new Map(there.map(({ name }) => [name, new Array<Sample>()]))
  for (let round = 0; round <= Number(values.rounds); round++) { // round 0 warms up and is not counted
    for (const contender of there) {
      const sample = yield* measure(contender, reference)
      if (round > 0) samples.get(contender.name)?.push(sample)
    }
  }
  const base = samples.get(there[0]?.name ?? "") ?? []
  yield* Console.log("command          wall s    cpu s  peak MiB  ratio (min..max)")
  for (const [name, list] of samples) {
    const ratios = list.map(({ wall }, round) => wall / (base[round]?.wall ?? wall))
    yield* Console.log([
      name.padEnd(14), median(list.map(({ wall }) => wall)).toFixed(2).padStart(8), median(list.map(({ cpu }) => cpu)).toFixed(2).padStart(8),
      median(list.map(({ memory }) => memory)).toFixed(0).padStart(9), ` ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}..${Math.max(...ratios).toFixed(2)})`
    ].join(" "))
  }
}).pipe(Effect.scoped)

await Effect.runPromise(bench)
