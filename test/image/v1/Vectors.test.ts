import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fixManifest } from "../../../scripts/vectors/FixManifest.ts"
import { imageIds } from "../../../scripts/vectors/ImageIds.ts"
import type { Kind } from "../../../scripts/vectors/Kind.ts"
import { references19 } from "../../../scripts/vectors/References.ts"
import { schema1 } from "../../../scripts/vectors/Schema1.ts"
import { store } from "../../../scripts/vectors/Store.ts"

const fixture = (file: string) => join(import.meta.dirname, "../../fixtures", file)
const lines = (file: string) => readFileSync(fixture(file), "utf8").trim().split("\n")

// schema1-keys: made and verified by libtrust itself, with every curve, several RSA sizes, and certificates.
const files: ReadonlyArray<readonly [file: string, kind: Kind]> = [
  ["image-ids.jsonl", imageIds], ["fix-manifest.jsonl", fixManifest], ["schema1.jsonl", schema1], ["schema1-keys.jsonl", schema1],
  ["references-1.9.jsonl", references19], ["store.jsonl", store]
]

for (const [file, kind] of files) {
  describe(`the vectors of ${file}`, () => {
    for (const text of lines(file)) {
      const line: unknown = JSON.parse(text)
      it(typeof line === "object" && line !== null && "case" in line ? String(line.case) : text.slice(0, 40), async () => {
        const { actual, expected } = await Option.getOrThrow(kind.read(line))()
        assert.deepStrictEqual(actual, expected)
      })
    }
  })
}

describe("npm run vectors", () => {
  const script = join(import.meta.dirname, "../../../scripts/vectors.ts")
  const run = (content: string) => {
    const folder = mkdtempSync(join(tmpdir(), "vectors-")), path = join(folder, "cases.jsonl")
    writeFileSync(path, content)
    const { status, stdout } = spawnSync(process.execPath, [script, path], { encoding: "utf8" })
    rmSync(folder, { recursive: true })
    return { status, lines: stdout.trimEnd().split("\n") }
  }

  it("tells the kind by the form of a line and counts", () => {
    const all = ["image-ids", "fix-manifest", "schema1", "references-1.9", "references-modern"].map((name) => lines(`${name}.jsonl`).slice(0, 3).join("\n"))
    const answer = run(all.join("\n\n"))
    assert.deepStrictEqual(answer, { status: 0, lines: ["image-ids", "fix-manifest", "schema1", "references-1.9", "references-modern"].map((name) => `${name} 3 passed, 0 failed`) })
  })

  it("shows what was expected and found, and fails", () => {
    const [good = ""] = lines("image-ids.jsonl")
    const answer = run(`${good}\n${good.replaceAll(/"strongID": ?"sha256:./g, "\"strongID\":\"sha256:x")}`)
    assert.strictEqual(answer.status, 1)
    assert.strictEqual(answer.lines.at(-1), "image-ids 1 passed, 1 failed")
    assert.isTrue(answer.lines.some((line) => line.startsWith("expected")) && answer.lines.some((line) => line.startsWith("actual")))
  })

  it("fails on what it cannot run", () => {
    assert.strictEqual(run("{\"case\":\"s\",\"steps\":[{\"do\":\"dance\"}],\"results\":[{\"ok\":true}]}").status, 1)
    assert.strictEqual(run("{\"case\":\"u\"}").status, 1)
  })
})
