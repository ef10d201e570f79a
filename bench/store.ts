// Whether the store's size matters: the same commands on an empty store and on one with many images (generated rows, four
// layers each, the lowest shared: 100,000 images have 301,000 layers), each several times in turn. Printed: the shortest times in
// milliseconds, and their ratio. Then what has to look at all images, on a quarter, a half and all of them: is it linear?
//   npm run bench:store -- [--images 100000] [--rounds 5]
import { Console, Effect } from "effect"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { parseArgs } from "node:util"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"

const { values } = parseArgs({ options: { images: { type: "string", default: "100000" }, rounds: { type: "string", default: "5" } } })
const bin = (name: string) => new URL(`../bin/${name}`, import.meta.url).pathname
const digest = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`

const run = (name: string, args: ReadonlyArray<string>) => Effect.callback<number>((resume) => {
  const begun = performance.now()
  const child = spawn(bin(name), args, { stdio: ["ignore", "ignore", "inherit"] })
  child.on("close", (code) => resume(code === 0 ? Effect.succeed(performance.now() - begun) : Effect.die(new Error(`${name} ${args.join(" ")} failed`))))
})

/** Rows as pulls would have left them; there are no files. */
const grow = (store: string, from: number, images: number) => {
  const db = new DatabaseSync(join(store, "graph.db"))
  db.exec("PRAGMA synchronous=OFF; BEGIN")
  const into = (table: string, columns: string) => db.prepare(`INSERT OR IGNORE INTO ${table} (${columns}) VALUES (${columns.split(",").map(() => "?").join(",")})`)
  const blob = into("blobs", "digest,size,state,since"), layer = into("layers", "diff_id,size,entries,state,boot,since"), chain = into("chains", "chain_id,parent,diff_id")
  const image = into("images", "id,kind,config_digest,config_type,config,chain,manifest,platform,since"), manifest = into("manifests", "digest,media_type,size,image")
  const part = into("manifest_blobs", "manifest,role,position,digest,media_type,size,diff_id"), tag = into("tags", "name,reference,image,manifest,target,since")
  const chained = db.prepare("UPDATE images SET chain = ? WHERE id = ?")
  const log = into("tag_log", "at,name,reference,new_image,manifest"), held = into("layer_blobs", "blob,diff_id,media_type,size"), origin = into("origins", "digest,repository,endpoint,at")
  for (let n = from; n < images; n++) {
    const config = `{"n":${n}}`
    const [id, own] = [digest(config), digest(`manifest ${n}`)]
    let below: string | null = null
    image.run(id.slice(7), "oci", id, "application/vnd.oci.image.config.v1+json", Buffer.from(config), null, own, "linux/amd64", n)
    manifest.run(own, "application/vnd.oci.image.manifest.v1+json", 500, id.slice(7))
    for (const [role, what, size] of [["manifest", own, 500], ["config", id, config.length]] as const) {
      blob.run(what, size, "ready", n)
      part.run(own, role, 0, what, role, size, null)
    }
    for (let at = 0; at < 4; at++) {
      const name = at === 0 ? `base ${n % 1000}` : `layer ${n} ${at}`
      const [what, diff] = [digest(`blob ${name}`), digest(`diff ${name}`)]
      blob.run(what, 1000, "ready", n)
      layer.run(diff, 3000, 5, "durable", "", n)
      held.run(what, diff, "layer", 1000)
      const id: string = below === null ? diff : digest(`${below} ${diff}`)
      chain.run(id, below, diff)
      below = id
      part.run(own, "layer", at, what, "layer", 1000, diff)
    }
    chained.run(below, id.slice(7))
    tag.run(`docker.io/many/repo${n % 5000}`, `v${n}`, id.slice(7), own, own, n)
    log.run(n, `docker.io/many/repo${n % 5000}`, `v${n}`, id.slice(7), own)
    origin.run(own, `docker.io/many/repo${n % 5000}`, "https://registry-1.docker.io", n)
  }
  db.exec("COMMIT; ANALYZE")
  db.close()
}

/** What disturbs a run makes it longer. */
const least = (all: ReadonlyArray<number>) => Math.min(...all)

const bench = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-bench-"))), (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))
  const registry = yield* TestRegistry.make()
  const platform = ["--platform", "linux/amd64"]
  const [small, large] = [join(folder, "small"), join(folder, "large")]
  registry.put("app", "1", ImageBuilder.demo())
  for (const store of [small, large]) yield* run("pull", ["-q", "--store", store, ...platform, `${registry.host}/app:1`])
  const images = Number(values.images)
  const whole: ReadonlyArray<ReadonlyArray<string>> = [["ls", "--json"], ["ls", "*/repo7:*"], ["tree"], ["du", "--json"], ["gc", "--dry-run", "--json"]]
  const linear: Array<Array<number>> = whole.map(() => [])
  for (const [from, to] of [[0, images / 4], [images / 4, images / 2], [images / 2, images]] as const) {
    grow(large, from, to)
    for (const [at, [verb = "", ...rest]] of whole.entries()) linear[at]?.push(yield* run("graph", [verb, "--store", large, ...rest]))
  }
  yield* Console.log(`seconds for ${images / 4}, ${images / 2} and ${images} images`)
  for (const [at, args] of whole.entries()) yield* Console.log(`${args.join(" ").padEnd(20)} ${(linear[at] ?? []).map((time) => (time / 1000).toFixed(2).padStart(7)).join(" ")}`)
  const fresh = (n: number) => registry.put("fresh", String(n), ImageBuilder.image({ layers: [[{ path: `file${n}`, contents: `content ${n}` }]] }))
  const tasks: ReadonlyArray<readonly [name: string, command: string, args: (n: number) => ReadonlyArray<string>]> = [
    ["start-up (--help)", "graph", () => ["ls", "--help"]],
    ["pull, unchanged", "pull", () => ["-q", ...platform, `${registry.host}/app:1`]],
    ["pull, new", "pull", (n) => ["-q", "--durability", "fast", ...platform, `${registry.host}/fresh:${n}`]],
    ["ls with a name", "graph", () => ["ls", `${registry.host}/app`]],
    ["show", "graph", () => ["show", `${registry.host}/app:1`]],
    ["tag", "graph", (n) => ["tag", `${registry.host}/app:1`, `${registry.host}/app:t${n}`]],
    ["log of a tag", "graph", () => ["log", `${registry.host}/app:1`]],
    ["rm", "graph", (n) => ["rm", `${registry.host}/app:t${n}`]]
  ]
  for (const [name, command, args] of tasks) {
    const times: Record<string, Array<number>> = { [small]: [], [large]: [] }
    for (let round = 0; round < Number(values.rounds); round++) {
      fresh(round)
      for (const store of [small, large]) {
        const [verb = "", ...rest] = args(round)
        times[store]?.push(yield* run(command, command === "graph" ? [verb, "--store", store, ...rest] : ["--store", store, verb, ...rest]))
      }
    }
    const [few, many] = [least(times[small] ?? []), least(times[large] ?? [])]
    yield* Console.log(`${name.padEnd(20)} ${few.toFixed(0).padStart(6)} ${many.toFixed(0).padStart(6)}  ${(many / few).toFixed(2)}`)
  }
}).pipe(Effect.scoped)

await Effect.runPromise(bench)
