// Builds dist/: a bundle for each command, the layer worker, and the library with its types.
import { build, type BuildOptions, type Plugin } from "esbuild"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

const root = new URL("..", import.meta.url).pathname
process.chdir(root)
rmSync("dist", { recursive: true, force: true })

const common = {
  bundle: true, platform: "node", format: "esm", target: "node22.19", legalComments: "none", logLevel: "warning", external: ["koffi"], define: { "process.env.NODE_ENV": '"production"' }
} as const satisfies BuildOptions
const outdir = "dist"
// What is bundled from CommonJS asks for node's modules by require().
const banner = { js: 'import { createRequire as __towlineRequire } from "node:module"; const require = __towlineRequire(import.meta.url);' }

// undici is large, CommonJS, and only needed when something is fetched: a file of its own with named exports, so that `--help`
// does not wait for it and esbuild's splitting need not understand it.
const undiciNames = Object.keys(createRequire(import.meta.url)("undici")).filter((name) => name !== "default")
const apart: Plugin = {
  name: "undici-apart",
  setup: ({ onResolve }) => { onResolve({ filter: /^undici$/ }, () => ({ path: "./undici.js", external: true })) }
}

await Promise.all([
  build({
    ...common, outdir, banner, minify: true, splitting: true, chunkNames: "part-[hash]", plugins: [apart],
    define: { ...common.define, "Intl.Segmenter": "LazySegmenter" }, inject: ["scripts/LazySegmenter.ts"],
    entryPoints: { "pull-main": "src/main/pull.ts", "graph-main": "src/main/graph.ts" }
  }),
  build({
    ...common, banner, minify: true, outfile: "dist/undici.js",
    stdin: { contents: `import undici from "undici"; export const { ${undiciNames.join(", ")} } = undici; export default undici`, resolveDir: "." }
  }),
  build({ ...common, outdir, banner, minify: true, entryPoints: { "layer-worker": "src/layer/worker.ts" } }),
  // The library shares its effect with the program that composes it.
  // In shared parts, so that what the test kit makes (a store) is of the classes the library knows.
  build({ ...common, outdir, packages: "external", sourcemap: true, splitting: true, chunkNames: "lib-[hash]", entryPoints: { index: "src/index.ts", testing: "src/testing/index.ts" } })
])
// What is run first asks Node to keep what it compiles, then loads the rest. Made last: where it is, all is.
await Promise.all(["pull", "graph"].map((name) => build({
  ...common, minify: true, outfile: `dist/${name}.js`, external: ["./*"],
  stdin: { contents: `import { enableCompileCache } from "node:module"; enableCompileCache(new URL("cache", import.meta.url).pathname); import("./${name}-main.js")` }
})))
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })

// Fills the compile cache by using what there is to use: a pull that finds nobody (it loads most), then the rest. Where the
// package is installed for others it stays as it is; a Node or user it was not made by fills one of its own if it may write there.
const place = mkdtempSync(join(tmpdir(), "towline-build-"))
const store = ["--store", join(place, "store")]
const warm = (name: string, ...args: ReadonlyArray<string>) =>
  spawnSync(`bin/${name}`, args, { stdio: "ignore", env: { PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`, HOME: place } })
warm("pull", "-q", ...store, "127.0.0.1:1/warm:1")
for (const verb of ["ls", "gc", "check"]) warm("graph", verb, ...store)
for (const name of ["pull", "graph"]) warm(name, "--help")
rmSync(place, { recursive: true, force: true })
