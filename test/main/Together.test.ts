import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Fault, ImageBuilder, TestRegistry } from "../../src/testing/index.ts"
import { command, startCommand } from "../command.ts"
import { temporary } from "../harness.ts"
import { assertChecked, assertDigest, ingests } from "./setting.ts"

const { image, layer, noise } = ImageBuilder
const layers = ["a", "b", "c"].map((name) => layer([{ path: name, contents: noise(name, 400_000) }], { compression: "none" }))
const built = image({ layers })
const digest = built.manifest.descriptor.digest
const platform = ["--platform", "linux/amd64"]

/** A registry that sends its blobs slowly, so that everyone comes while they are on their way. */
const slow = Effect.gen(function*() {
  const registry = yield* TestRegistry.make({ script: [{ match: { kind: "blob" }, do: Fault.drip(300_000) }] })
  registry.put("app", "1", built)
  const folder = yield* temporary
  return { registry, folder, store: join(folder, "store"), reference: `${registry.host}/app:1` }
})

const unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
const mayUnshare = spawnSync("unshare", [...unshare.slice(1), "true"]).status === 0

const isLocked = (store: string): boolean => {
  const db = new DatabaseSync(join(store, "graph.db"), { timeout: 200 })
  try {
    db.exec("BEGIN IMMEDIATE; ROLLBACK")
    return false
  } catch {
    return true
  } finally {
    db.close()
  }
}

describe("Several processes", () => {
  for (const [where, under] of [["beside each other", []], ["each in a PID namespace of its own", unshare]] as const) {
    it.live.skipIf(under.length > 0 && !mayUnshare)(`8 pulls of one image, ${where}: each blob is fetched once, and those who wait show how far it is`, () => Effect.gen(function*() {
      const { reference, registry, store } = yield* slow
      const pulls = yield* Effect.forEach(Array.from({ length: 8 }), () =>
        command("pull", ["--progress", "events", "--json", "--store", store, ...platform, reference], { under }), { concurrency: 8 })
      /** By layer, who heard of it on its way: of one process that fetches it, and of those that wait. */
      const heard = new Map<string, number>()
      for (const { code, stderr, stdout } of pulls) {
        assert.strictEqual(code, 0, stderr)
        assert.strictEqual(JSON.parse(stdout).digest, digest)
        const seen = stderr.trim().split("\n").map((line) => JSON.parse(line) as { readonly _tag: string; readonly layer?: string; readonly bytes?: number; readonly total?: number })
        const coming = new Set(seen.filter(({ _tag, bytes = 0, total = 0 }) => _tag === "downloading" && bytes > 0 && bytes < total).map(({ layer = "" }) => layer))
        for (const layer of coming) heard.set(layer, (heard.get(layer) ?? 0) + 1)
        assert.isTrue(seen.some(({ _tag }) => _tag === "downloading" || _tag === "exists"), stderr)
      }
      assert.isAbove(Math.max(...heard.values()), 1, "those who wait hear how far it is")
      assert.strictEqual(registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length, layers.length + 1)
      yield* assertChecked(store)
      assert.deepStrictEqual(ingests(store), [])
    }).pipe(Effect.scoped), 240_000)
  }

  it.live("a stopped owner is not waited for longer than its heartbeat, and does no harm when it wakes up", () => Effect.gen(function*() {
    const { reference, registry, store } = yield* slow
    const first = yield* startCommand("pull", ["-q", "--store", store, ...platform, reference])
    while (!registry.requests.some(({ kind }) => kind === "blob")) yield* Effect.sleep("20 millis")
    // Stopped inside a transaction it keeps the database's lock, which the system breaks for dead processes only.
    for (yield* first.kill("SIGSTOP"); isLocked(store); yield* first.kill("SIGSTOP")) {
      yield* first.kill("SIGCONT")
      yield* Effect.sleep("50 millis")
    }
    assertDigest(yield* command("pull", ["-q", "--store", store, ...platform, reference]), digest)
    yield* first.kill("SIGCONT")
    const { code, stderr } = yield* first.ended
    assert.isTrue(code === 0 || (code === 7 && /another process took this work over/.test(stderr)), `${code} ${stderr}`)
    yield* assertChecked(store)
    assert.deepStrictEqual(ingests(store), [])
  }).pipe(Effect.scoped), 240_000)
})
