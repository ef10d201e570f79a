// Builds dist/: a bundle for each command, the layer worker, and the library with its types.
import { build, type BuildOptions } from "esbuild"
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"

const root = new URL("..", import.meta.url).pathname
process.chdir(root)
rmSync("dist", { recursive: true, force: true })

const common: BuildOptions = {
  bundle: true, platform: "node", format: "esm", target: "node22.19", legalComments: "none", logLevel: "warning",
  outdir: "dist", external: ["koffi"], define: { "process.env.NODE_ENV": '"production"' }
}
// What is bundled from CommonJS asks for node's modules by require().
const banner = { js: 'import { createRequire as __towlineRequire } from "node:module"; const require = __towlineRequire(import.meta.url);' }

await Promise.all([
  build({ ...common, banner, minify: true, keepNames: false, entryPoints: { pull: "src/main/pull.ts", graph: "src/main/graph.ts" } }),
  build({ ...common, banner, entryPoints: { "layer-worker": "src/layer/worker.ts" } }),
  // The library shares its effect with the program that composes it.
  build({ ...common, packages: "external", sourcemap: true, entryPoints: { index: "src/index.ts", testing: "src/testing/index.ts" } })
])
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], { stdio: "inherit" })
