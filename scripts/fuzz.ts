// Mutates good and hostile input and watches what comes of it: npm run fuzz -- --target tar|apply|gzip|manifest|json|schema1 --seconds N [--seed S]
// Anything but a refusal or a sound result is a find: it is written to test/fuzz/fixtures, and the exit code is 1.
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { Fuzz } from "../test/fuzz/Fuzz.ts"
import { targets } from "../test/fuzz/targets.ts"

const { values } = parseArgs({
  options: { target: { type: "string", default: "tar" }, seconds: { type: "string", default: "60" }, seed: { type: "string", default: String(Date.now() % 2 ** 31) } }
})
const packed = (tool: string, input: Uint8Array) => {
  try {
    return [execFileSync(tool, ["-c"], { input: Buffer.from(input), maxBuffer: 2 ** 28 })]
  } catch {
    return [] // the tool is not there
  }
}
const temp = mkdtempSync(join(tmpdir(), "towline-fuzz-"))
const all = targets(temp, (input) => [gzipSync(input), zstdCompressSync(input), ...packed("bzip2", input), ...packed("xz", input)])
const make = all[values.target]
if (make === undefined) throw new Error(`--target is one of ${Object.keys(all).join(", ")}`)
const target = make()
const fixtures = new URL("../test/fuzz/fixtures/", import.meta.url).pathname
const fuzz = new Fuzz(target, Number(values.seed))
const end = performance.now() + Number(values.seconds) * 1000
const began = performance.now()
while (performance.now() < end) await fuzz.turn()
for (const { input, problem } of fuzz.finds) {
  mkdirSync(fixtures, { recursive: true })
  const name = `${values.target}-${createHash("sha256").update(input).digest("hex").slice(0, 16)}`
  writeFileSync(join(fixtures, name), input)
  process.stdout.write(`${name}: ${problem}\n`)
}
const seconds = Math.round((performance.now() - began) / 1000)
process.stdout.write(`${JSON.stringify({ target: values.target, seconds, executions: fuzz.executions, refused: fuzz.refused, seed: Number(values.seed), finds: fuzz.finds.length })}\n`)
target.close()
rmSync(temp, { recursive: true, force: true })
process.exitCode = fuzz.finds.length > 0 ? 1 : 0
