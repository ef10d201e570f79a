// Type check, lint and all tests; the last line is `N passed, N failed`, with `, N skipped` where a peer is missing.
// TOWLINE_INTEROP=required makes a missing peer a failure.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

process.chdir(new URL("..", import.meta.url).pathname)
const node = process.execPath
const step = (name: string, script: string, ...args: ReadonlyArray<string>): number => {
  const { status } = spawnSync(node, [script, ...args], { stdio: "inherit" })
  process.stdout.write(`${name}: ${status === 0 ? "ok" : "failed"}\n`)
  return status === 0 ? 0 : 1
}

let failed = step("type check", "node_modules/typescript/bin/tsc", "-p", ".")
failed += step("lint", "node_modules/oxlint/bin/oxlint", "--deny-warnings")
let passed = 2 - failed
let skipped = 0

const folder = mkdtempSync(join(tmpdir(), "towline-test-"))
const report = join(folder, "report.json")
const { status } = spawnSync(node, [
  "--disable-warning=ExperimentalWarning", "node_modules/vitest/vitest.mjs", "run", "--reporter=default", "--reporter=json",
  `--outputFile.json=${report}`, ...process.argv.slice(2)
], { stdio: "inherit" })
try {
  const counts: unknown = JSON.parse(readFileSync(report, "utf8"))
  const count = (key: string): number => {
    const value = typeof counts === "object" && counts !== null ? Object.entries(counts).find(([name]) => name === key)?.[1] : undefined
    return typeof value === "number" ? value : 0
  }
  passed += count("numPassedTests")
  const failedTests = count("numFailedTests")
  skipped = count("numPendingTests") + count("numTodoTests")
  failed += failedTests === 0 && status !== 0 ? Math.max(1, count("numFailedTestSuites")) : failedTests
} catch {
  failed++
}
rmSync(folder, { recursive: true, force: true })
process.stdout.write(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`)
process.exitCode = failed > 0 ? 1 : 0
