import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { built, root } from "./command.ts"
import { temporary } from "./harness.ts"

const readme = readFileSync(join(root, "README.md"), "utf8")

describe("README", () => {
  it("shows the program that is tested here", () => {
    assert.include(readme, readFileSync(join(root, "test/example.ts"), "utf8"))
  })
  it.live("its program pulls an image and hands out a root file system that goes with its scope", () => Effect.gen(function*() {
    yield* built
    const registry = yield* TestRegistry.make()
    registry.put("demo", "1", ImageBuilder.demo())
    const folder = yield* temporary
    const { code, out } = yield* Effect.callback<{ readonly code: number | null; readonly out: string }>((resume) => {
      const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", join(root, "test/example.ts"), `${registry.host}/demo:1`], {
        cwd: folder, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, TMPDIR: folder }
      })
      let out = ""
      child.stdout.on("data", (chunk: Buffer) => { out += String(chunk) })
      child.on("close", (code) => resume(Effect.succeed({ code, out })))
      return Effect.sync(() => { child.kill("SIGKILL") })
    })
    assert.strictEqual(code, 0)
    assert.include(out, ImageBuilder.demo().manifest.descriptor.digest)
    assert.include(out, "runs /bin/greet")
    assert.deepStrictEqual(readdirSync(folder), ["store"])
  }).pipe(Effect.scoped), 60_000)
  it("names every exit code the commands have", () => {
    for (const code of [0, 1, 2, 3, 4, 5, 6, 7, 130]) assert.include(readme, `\n| ${code} |`)
  })
})
