import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { expiry, identify, judge } from "../../src/store/disk/Owner.ts"

describe("judge", () => {
  const self = identify(1_000_000)
  const now = 1_000_000 + 2 * expiry

  it("knows a living process of the same boot and namespace, however long it is silent, and one that ended, at once", async () => {
    const child = spawn("sleep", ["60"])
    await once(child, "spawn")
    const pid = child.pid ?? 0
    const started = readFileSync(`/proc/${pid}/stat`, "latin1").split(" ")[21] ?? ""
    const owner = { ...self, token: "other", pid, started, beat: 0 }
    assert.strictEqual(judge(owner, self, now), "alive")
    assert.strictEqual(judge({ ...owner, started: "1" }, self, now), "gone") // its number was given to another since
    child.kill("SIGSTOP")
    while (!/\) T /.test(readFileSync(`/proc/${pid}/stat`, "latin1"))) await setTimeout(10)
    assert.deepStrictEqual([judge({ ...owner, beat: now - 1000 }, self, now), judge(owner, self, now)], ["alive", "expired"], "stopped")
    child.kill("SIGCONT")
    const ended = once(child, "exit")
    child.kill("SIGKILL")
    await ended
    assert.strictEqual(judge(owner, self, now), "gone")
  })

  it("judges another opening in this process by the heartbeat", () => {
    const at = (beat: number) => judge({ ...self, token: "other", beat }, self, now)
    assert.deepStrictEqual([at(now - 1000), at(0)], ["alive", "expired"])
  })

  it("judges what it cannot look at by the heartbeat", () => {
    for (const strange of [{ ...self, boot: "another" }, { ...self, namespace: "pid:[1]" }]) {
      const at = (beat: number) => judge({ ...strange, token: "other", pid: 1, beat }, self, now)
      assert.deepStrictEqual([at(now - 1000), at(now - expiry - 1), at(now + expiry + 1)], ["alive", "expired", "expired"])
    }
  })

  it("falls back to pid and heartbeat without /proc", () => {
    const bare = { ...self, started: "", boot: "", namespace: "" }
    const at = (pid: number, beat: number) => judge({ ...bare, token: "other", pid, beat }, bare, now)
    assert.deepStrictEqual([at(process.pid, now), at(process.pid, 0), at(2 ** 22 + 1, now)], ["alive", "expired", "gone"])
  })
})
