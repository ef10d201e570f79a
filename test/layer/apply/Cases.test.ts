import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { type LayerCase, layerCases } from "../../../src/testing/LayerCases.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { applyTar, described, fingerprint } from "./cases.ts"
import { descriptors, inTemp, privileged } from "./Entries.ts"

const check = ({ expect, name }: LayerCase, outcome: { readonly refused?: string; readonly tree?: ReadonlyArray<string> }) => {
  if ("refused" in expect) assert.include(outcome.refused ?? "taken", expect.refused, name)
  else assert.deepStrictEqual(outcome, { tree: [...expect.tree].sort() }, name)
}

const canaried = (run: (temp: string) => void) => inTemp((temp) => {
  const canary = join(temp, "canary")
  mkdirSync(canary, { mode: 0o755 })
  writeFileSync(join(canary, "file"), "untouched", { mode: 0o644 })
  const before = fingerprint(canary)
  run(temp)
  assert.strictEqual(fingerprint(canary), before)
})

describe("Every case of a layer", () => {
  for (const native of [true, false]) {
    it(native ? "comes out as it must" : "does so without native calls", canaried((temp) => {
      const syscalls = Syscalls.load({ native })
      const before = descriptors()
      for (const one of layerCases) {
        for (const size of native ? [1 << 20, 512, 37] : [4096]) {
          const place = join(temp, "case")
          const refused = applyTar(one.tar, place, syscalls, size)
          check(one, refused === undefined ? { tree: described(place, "tree" in one.expect ? one.expect.tree : [], { owners: privileged, exact: native }) } : { refused })
          assert.strictEqual(descriptors(), before, one.name)
          removeTree(place)
        }
      }
    }))

    it.runIf(privileged)(`does so as an ordinary user${native ? "" : ", without native calls"}`, canaried((temp) => {
      chmodSync(temp, 0o755)
      const work = join(temp, "work")
      mkdirSync(work)
      chmodSync(work, 0o777)
      // The case's folder is one deeper here: what leads up so far must not reach the canary either.
      const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", join(import.meta.dirname, "CasesAsUser.ts"), work, native ? "native" : "plain"], { encoding: "utf8", maxBuffer: 2 ** 26 })
      assert.strictEqual(stderr, "")
      const { leaked, outcomes } = JSON.parse(stdout)
      assert.strictEqual(leaked, 0)
      layerCases.forEach((one, index) => check(one, outcomes[index]))
    }))
  }
})
