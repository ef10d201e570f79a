import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

const root = resolve(import.meta.dirname, "..")
const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts")).map((path) => `src/${path}`)
const imports = (file: string): ReadonlyArray<string> =>
  [...readFileSync(join(root, file), "utf8").matchAll(/(?:from|import\()\s*"([^"]+)"|^import\s+"([^"]+)"/gm)].map(([, from, bare]) => from ?? bare ?? "")
const ours = (file: string) => imports(file).filter((from) => from.startsWith(".")).map((from) => relative(root, resolve(root, dirname(file), from)))
const folder = (file: string) => file.split("/").length > 2 ? file.split("/")[1] ?? "" : "top"

/** What each folder may import of ours besides itself (the design's arrows). */
const arrows: Readonly<Record<string, ReadonlyArray<string>>> = {
  image: [], registry: ["image"], layer: ["image"], store: ["image"], progress: ["image"],
  // An archive is a tar file that is read in place: the layers' tar reader reads its headers.
  archive: ["image", "layer"],
  testing: ["image", "layer", "store"], top: ["image", "registry", "layer", "store", "progress", "archive"],
  main: ["image", "registry", "layer", "store", "progress", "archive", "top"]
}

/** What each folder inside src/layer may import of the others; beside them are the worker and what all of them use. */
const inLayer: Readonly<Record<string, ReadonlyArray<string>>> = { table: [], tar: [], inflate: [], tree: ["table"], apply: ["tar", "tree", "table"], merge: ["apply", "tar", "tree", "table"], sums: ["apply", "merge", "table", "tree"], view: ["inflate", "table", "tar", "tree"] }
const topic = (file: string) => /^src\/layer\/([^/]+)\//.exec(file)?.[1]

describe("imports", () => {
  it("finds the sources", () => assert.isAbove(files.length, 30))
  for (const file of files) {
    it(`${file} keeps to the arrows`, () => {
      const from = folder(file)
      for (const target of ours(file).filter((target) => target.startsWith("src/"))) {
        assert.isTrue(folder(target) === from || (arrows[from] ?? []).includes(folder(target)), `${file} imports ${target}`)
        const [own, theirs] = [topic(file), topic(target)]
        if (own !== undefined && theirs !== undefined) assert.isTrue(own === theirs || (inLayer[own] ?? []).includes(theirs), `${file} imports ${target}`)
      }
      const foreign = imports(file).filter((name) => !name.startsWith("."))
      if (from === "image") assert.deepStrictEqual(foreign.filter((name) => name.startsWith("node:")), [], "portable")
      if (from !== "testing" && file !== "src/registry/Transport.ts" && file !== "src/registry/Dispatch.ts") {
        // What the operating system trusts is configuration, and Node's to tell.
        const own = file === "src/registry/config/Load.ts" ? ["node:tls"] : []
        assert.deepStrictEqual(foreign.filter((name) => !own.includes(name) && /^(effect\/http|undici|node:(http|https|net|tls)|@effect\/platform-node\/(NodeHttpClient|Undici))$/.test(name)), [], "HTTP is Transport's")
      }
      if (!["archive", "layer", "store", "testing", "main"].includes(from)) {
        assert.deepStrictEqual(foreign.filter((name) => name === "node:fs" || name === "fs"), [], "files are the store's, the layer's and the archive's")
      }
      assert.notInclude(foreign, "@effect/platform-node", "its barrel is slow to load")
    })
  }
  it("the worker loads no effect", () => {
    const seen = new Set<string>()
    const visit = (file: string): void => {
      if (seen.has(file)) return
      seen.add(file)
      for (const [line] of readFileSync(join(root, file), "utf8").matchAll(/^import(?! type)[\s\S]*?from\s+"[^"]+"/gm)) {
        const from = /from\s+"([^"]+)"/.exec(line)?.[1] ?? ""
        assert.isFalse(from === "effect" || from.startsWith("effect/"), `${file} imports ${from}`)
        if (from.startsWith(".")) visit(relative(root, resolve(root, dirname(file), from)))
      }
    }
    visit("src/layer/worker.ts")
    assert.isAbove(seen.size, 5)
  })
})
