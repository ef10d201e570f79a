import { assert, describe, it } from "@effect/vitest"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { Fuzz, Random, type Target } from "./Fuzz.ts"
import { targets } from "./targets.ts"

const fixtures = join(import.meta.dirname, "fixtures")
const found = existsSync(fixtures) ? readdirSync(fixtures) : []

const on = async (name: string, work: (target: Target) => Promise<void>) => {
  const temp = mkdtempSync(join(tmpdir(), "towline-fuzz-"))
  const target = targets(temp, (input) => [gzipSync(input), zstdCompressSync(input)])[name]?.()
  try {
    if (target === undefined) throw new Error(`no target is called ${name}`)
    await work(target)
  } finally {
    target?.close()
    rmSync(temp, { recursive: true, force: true })
  }
}

describe("The fuzzer", () => {
  for (const [name, turns] of [["tar", 600], ["apply", 60], ["gzip", 60], ["manifest", 300], ["json", 300], ["schema1", 300]] as const) {
    it(`finds nothing in a few turns of ${name}, which take and refuse some`, () => on(name, async (target) => {
      const fuzz = new Fuzz(target, 7)
      for (let n = 0; n < turns; n++) await fuzz.turn()
      assert.deepStrictEqual(fuzz.finds, [])
      assert.isAbove(fuzz.refused, 0)
      assert.isBelow(fuzz.refused, fuzz.executions)
    }))
  }

  it("notices what goes wrong, and gives the same for the same seed", async () => {
    const fragile: Target = {
      corpus: [Buffer.from("good"), Buffer.from("better")], words: [Buffer.from("!")], mend: (input) => input, close: () => {},
      run: (input) => {
        if (input.includes(0x21)) throw new Error("it broke")
        return false
      }
    }
    const finds = await Promise.all([1, 1, 2].map(async (seed) => {
      const fuzz = new Fuzz(fragile, seed)
      for (let n = 0; n < 200; n++) await fuzz.turn()
      return fuzz.finds.map(({ input }) => input.toString("latin1"))
    }))
    assert.isAbove(finds[0]?.length ?? 0, 0)
    assert.deepStrictEqual(finds[1], finds[0])
    assert.notDeepEqual(finds[2], finds[0])
  })

  for (const file of found) {
    it(`what it found before is right now: ${file}`, () => on(file.split("-")[0] ?? "", async (target) => {
      await target.run(readFileSync(join(fixtures, file)), new Random(1))
    }))
  }
})
