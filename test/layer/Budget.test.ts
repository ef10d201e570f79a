import { assert, describe, it } from "@effect/vitest"
import { Worker } from "node:worker_threads"
import { Budget } from "../../src/layer/Control.ts"

const mib = 2 ** 20
/** Holds what it is told to and does nothing more. */
const holder = `
const { parentPort, workerData: { budget, bytes, share, url } } = require("node:worker_threads")
import(url).then(({ Budget }) => {
  new Budget(budget, share).hold(bytes)
  parentPort.postMessage("held")
  setInterval(() => {}, 1000)
})
`

describe("Budget", () => {
  const refusing = (looks: number) => {
    let left = looks
    return () => { if (left-- === 0) throw new Error("asked to stop") }
  }
  it("lets small windows pass, and large ones wait for each other", () => {
    const budget = new Budget(128 * mib)
    const other = new Budget(budget.buffer)
    budget.hold(100 * mib)
    other.hold(8 * mib)
    assert.throws(() => other.hold(64 * mib, refusing(1)), "asked to stop")
    budget.hold(64 * mib)
    other.hold(64 * mib)
    assert.throws(() => new Budget(budget.buffer).hold(9 * mib, refusing(1)), "asked to stop")
    other.hold(0)
    budget.hold(128 * mib)
  })
  it("gets back what a thread held that was ended", async () => {
    const budget = new Budget(128 * mib)
    const share = new Budget(budget.buffer)
    const url = new URL("../../src/layer/Control.ts", import.meta.url).href
    const thread = new Worker(holder, { eval: true, execArgv: [], workerData: { budget: share.buffer, share: share.share, bytes: 128 * mib, url } })
    await new Promise((resolve) => thread.once("message", resolve))
    await thread.terminate()
    assert.throws(() => budget.hold(128 * mib, refusing(1)), "asked to stop")
    share.hold(0)
    budget.hold(128 * mib)
  }, 20_000)
})
