// Runs files of cases with expected results (one JSON object a line), whose kind is told by the form of each line, through the
// public functions the commands use. Prints `KIND N passed, N failed` and, of each failed case, what was expected and found.
import { Option } from "effect"
import { readFileSync } from "node:fs"
import { inspect } from "node:util"
import { fixManifest } from "./vectors/FixManifest.ts"
import { imageIds } from "./vectors/ImageIds.ts"
import { type Kind, passed } from "./vectors/Kind.ts"
import { references19, referencesModern } from "./vectors/References.ts"
import { schema1 } from "./vectors/Schema1.ts"
import { store } from "./vectors/Store.ts"

const kinds: ReadonlyArray<Kind> = [imageIds, fixManifest, schema1, references19, referencesModern, store]

const show = (value: unknown) => inspect(value, { depth: Infinity, maxStringLength: 2000, breakLength: 160 })
const say = (text: string) => process.stdout.write(`${text}\n`)

/** Runs one line: the kind it is of, and what there is to say if it failed. */
const check = async (line: unknown): Promise<{ readonly kind: string; readonly fault?: string }> => {
  for (const { name, read } of kinds) {
    const run = Option.getOrUndefined(read(line))
    if (run === undefined) continue
    const outcome = await run()
    return passed(outcome) ? { kind: name } : { kind: name, fault: `expected ${show(outcome.expected)}\nactual   ${show(outcome.actual)}` }
  }
  return { kind: "unknown", fault: `no kind of case has this form: ${show(line)}` }
}

const files = process.argv.slice(2)
if (files.length === 0) say("usage: npm run vectors -- FILE...")
process.exitCode = files.length === 0 ? 2 : 0

for (const file of files) {
  const counts = new Map<string, { passed: number; failed: number }>()
  for (const [index, text] of readFileSync(file, "utf8").split("\n").entries()) {
    if (text.trim() === "") continue
    const line: unknown = JSON.parse(text)
    const { kind, fault } = await check(line)
    const count = counts.get(kind) ?? { passed: 0, failed: 0 }
    counts.set(kind, count)
    if (fault === undefined) {
      count.passed++
      continue
    }
    count.failed++
    process.exitCode = 1
    const name = typeof line === "object" && line !== null && "case" in line ? String(line.case) : `line ${index + 1}`
    say(`${kind} ${name} failed\n${fault}`)
  }
  for (const [kind, { passed, failed }] of counts) say(`${kind} ${passed} passed, ${failed} failed`)
}
