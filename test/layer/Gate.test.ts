import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { Gate, Stopped } from "../../src/layer/Control.ts"

/** Starts threads that load native calls and ends them at moments all over the load; an abort would end the process. */
const script = `
import { Worker } from "node:worker_threads"
import { setTimeout as pause } from "node:timers/promises"
const { Gate } = await import("${new URL("../../src/layer/Control.ts", import.meta.url).href}")
const thread = \`
  const { workerData, parentPort } = require("node:worker_threads")
  Promise.all(["Control", "Syscalls"].map((name) => import("${new URL("../../src/layer/", import.meta.url).href}" + name + ".ts"))).then(([{ Gate }, { load }]) => {
    new Gate(workerData).through(() => { parentPort.postMessage(0); load() })
    setInterval(() => {}, 1000)
  })
\`
for (let n = 0; n < 60; n++) {
  const gate = new Gate()
  const worker = new Worker(thread, { eval: true, execArgv: [], workerData: gate.buffer })
  await new Promise((resolve) => worker.once("message", resolve))
  await pause(n % 20)
  while (!gate.shut()) await pause(1)
  await worker.terminate()
}
`

describe("Gate", () => {
  it("is shut for good, but not while a thread is inside", () => {
    const gate = new Gate()
    const other = new Gate(gate.buffer)
    assert.strictEqual(gate.through(() => other.shut() ? "shut" : "inside"), "inside")
    assert.throws(() => gate.through(() => { throw new Error("not there") }), "not there")
    assert.isTrue(other.shut())
    assert.isTrue(other.shut())
    assert.throws(() => gate.through(() => 0), Stopped)
  })
  it("threads that load native calls can be ended at any moment", () => {
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", timeout: 50_000 })
    assert.strictEqual(status, 0, stderr)
  }, 60_000)
})
