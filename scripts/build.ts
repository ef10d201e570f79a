// Builds dist/: a bundle for each command, the layer worker, and the library with its types.
import { build, type BuildOptions, type Plugin } from "esbuild"
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { createRequire } from "node:module"

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
    entryPoints: { pull: "src/main/pull.ts", graph: "src/main/graph.ts" }
  }),
  build({
    ...common, banner, minify: true, outfile: "dist/undici.js",
    stdin: { contents: `import undici from "undici"; export const { ${undiciNames.join(", ")} } = undici; export default undici`, resolveDir: "." }
  }),
  build({ ...common, outdir, banner, entryPoints: { "layer-worker": "src/layer/worker.ts" } }),
  // The library shares its effect with the program that composes it.
  // In shared parts, so that what the test kit makes (a store) is of the classes the library knows.
  build({ ...common, outdir, packages: "external", sourcemap: true, splitting: true, chunkNames: "lib-[hash]", entryPoints: { index: "src/index.ts", testing: "src/testing/index.ts" } })
])
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })
