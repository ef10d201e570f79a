// How fast a plain tar becomes files, beside GNU tar, bsdtar and umoci, in interleaved runs.
//   npm run bench:untar -- [--rounds N] [--work DIR]
// Three archives: many small files, few large ones, deep folders. Each run writes a fresh folder that is removed outside the
// timing, after a sync. towline is timed twice: as a process of its own, Node's start and the loading of TypeScript included,
// and applying alone, as in a pull, whose workers run already. umoci also hashes, and reads its image from a layout.
import { spawnSync } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Apply } from "../src/layer/apply/Apply.ts"
import * as Syscalls from "../src/layer/Syscalls.ts"
import { TarReader } from "../src/layer/tar/Tar.ts"
import type { Archive } from "../src/testing/index.ts"

const { values } = parseArgs({ options: { rounds: { type: "string", default: "3" }, work: { type: "string", default: tmpdir() }, apply: { type: "string" }, into: { type: "string" } } })

/** Applies a tar file, and says how many seconds it took. */
const applied = (tar: string, into: string): void => {
  const syscalls = Syscalls.load()
  const began = performance.now()
  mkdirSync(join(into, "fs"), { recursive: true, mode: 0o700 })
  const apply = new Apply(join(into, "fs"), join(into, "meta"), { syscalls })
  const reader = new TarReader(apply)
  const piece = Buffer.allocUnsafeSlow(1 << 20)
  const fd = openSync(tar, "r")
  for (let size = readSync(fd, piece); size > 0; size = readSync(fd, piece)) reader.write(piece.subarray(0, size))
  reader.end()
  apply.finish()
  process.stdout.write(String((performance.now() - began) / 1000))
}

type Entries = () => Generator<Archive.EntrySpec>
const kindsOf = (large: Buffer): Readonly<Record<string, Entries>> => ({
  small: function*() {
    for (let n = 0; n < 30_000; n++) yield { path: `usr/share/d${n % 600}/f${n}`, contents: large.subarray(n, n + 200 + n % 4000) }
  },
  large: function*() {
    for (let n = 0; n < 8; n++) yield { path: `opt/large${n}`, contents: large }
  },
  deep: function*() {
    for (let n = 0; n < 300; n++) for (let depth = 1; depth <= 40; depth += 2) yield { path: `d${n}/${"deeper/".repeat(depth)}file`, contents: large.subarray(n, n + 100) }
  }
})

const has = (tool: string) => spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0
const median = (numbers: ReadonlyArray<number>) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN

const bench = async (work: string): Promise<void> => {
  // Not needed by the process that is timed.
  const { Archive, ImageBuilder } = await import("../src/testing/index.ts")
  const kinds = kindsOf(Buffer.from(ImageBuilder.noise("large", 64 * 2 ** 20)))
  process.stdout.write(`${availableParallelism()} cores, Node ${process.version}\n`)
  for (const [kind, entries] of Object.entries(kinds)) {
    const tar = join(work, `${kind}.tar`)
    const fd = openSync(tar, "w")
    let [files, bytes] = [0, 0]
    for (const entry of entries()) {
      files++
      bytes += entry.contents?.length ?? 0
      writeSync(fd, Archive.blocks([entry]))
    }
    writeSync(fd, Archive.endMark)
    closeSync(fd)
    const layout = join(work, `${kind}-layout`)
    const umoci = has("umoci") && spawnSync("sh", ["-c", `umoci init --layout ${layout} && umoci new --image ${layout}:1 && umoci raw add-layer --image ${layout}:1 ${tar}`]).status === 0
    const contenders: ReadonlyArray<readonly [name: string, command: string]> = [
      ["GNU tar", `tar -xpf ${tar} --numeric-owner -C $OUT`], ...has("bsdtar") ? [["bsdtar", `bsdtar -xpf ${tar} --numeric-owner -C $OUT`] as const] : [],
      ...umoci ? [["umoci", `umoci raw unpack --image ${layout}:1 $OUT/root`] as const] : [],
      ["towline", `${process.execPath} --disable-warning=ExperimentalWarning ${import.meta.filename} --apply ${tar} --into $OUT`]
    ]
    const times = new Map<string, Array<number>>()
    const cpus = new Map<string, Array<number>>()
    const add = (name: string, seconds: number) => times.set(name, [...times.get(name) ?? [], seconds])
    for (let round = 0; round <= Number(values.rounds); round++) {
      for (const [name, command] of contenders) {
        const out = mkdtempSync(join(work, "out-"))
        spawnSync("sync")
        const began = performance.now()
        const { status, stderr, stdout } = spawnSync("/usr/bin/time", ["-q", "-o", `${out}.time`, "-f", "%U %S", "sh", "-c", command], { env: { ...process.env, OUT: out }, encoding: "utf8" })
        const seconds = (performance.now() - began) / 1000
        const cpu = readFileSync(`${out}.time`, "utf8").trim().split(" ").reduce((sum, one) => sum + Number(one), 0)
        rmSync(out, { recursive: true })
        if (status !== 0) throw new Error(`${name} failed: ${stderr}`)
        if (round === 0) continue // warms up
        add(name, seconds)
        cpus.set(name, [...cpus.get(name) ?? [], cpu])
        if (name === "towline") add("towline, applying", Number(stdout))
      }
    }
    process.stdout.write(`${kind}: ${files} files, ${(bytes / 2 ** 20).toFixed(0)} MiB\n`)
    for (const [name, list] of times) {
      const time = median(list)
      const ratio = median(list.map((one, round) => one / (times.get("bsdtar")?.[round] ?? NaN)))
      process.stdout.write(`  ${name.padEnd(18)} ${time.toFixed(2).padStart(6)} s ${Math.round(files / time).toString().padStart(8)} files/s ${(bytes / time / 2 ** 20).toFixed(0).padStart(6)} MiB/s  ${ratio.toFixed(2)} of bsdtar${cpus.has(name) ? `, ${median(cpus.get(name) ?? []).toFixed(2)} s of CPU` : ""}\n`)
    }
  }
}

if (values.apply !== undefined && values.into !== undefined) applied(values.apply, values.into)
else {
  const work = mkdtempSync(join(values.work, "towline-untar-"))
  try {
    writeFileSync(join(work, "about"), "made by bench/untar.ts")
    await bench(work)
  } finally {
    rmSync(work, { recursive: true })
  }
}
