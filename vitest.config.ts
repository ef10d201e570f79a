import { build } from "esbuild"
import { pathToFileURL } from "node:url"
import { defineConfig, type Plugin } from "vitest/config"

// Threads run a bundle, as they do in dist/: sources would have their types stripped by WebAssembly in every thread, which costs
// seconds, and of which V8 may die where threads end (nodejs/node issue 64500). It stands where `koffi` is found from.
const bundle = new URL("node_modules/.vitest/layer-worker.js", import.meta.url)
const source = '"./worker.ts"'
const threads: Plugin = {
  name: "threads-bundled",
  buildStart: async () => {
    await build({
      entryPoints: ["src/layer/worker.ts"], outfile: bundle.pathname, bundle: true, platform: "node", format: "esm", target: "node22.19",
      external: ["koffi"], sourcemap: "inline", logLevel: "warning"
    })
  },
  transform: (code, id) => {
    if (!id.endsWith("/src/layer/Workers.ts")) return undefined
    if (!code.includes(source)) throw new Error(`${id} does not start ${source}`)
    return { code: code.replace(source, JSON.stringify(pathToFileURL(bundle.pathname).href)), map: null }
  }
}

// Two workers fit two cores; tests that start servers or processes bring their own time limits. One that fails is tried once
// more, and the report says so: the suite keeps both cores busy, and some tests meet real time, signals and full disks.
export default defineConfig({
  plugins: [threads],
  test: { include: ["test/**/*.test.ts"], setupFiles: ["test/setup.ts"], pool: "forks", maxWorkers: 2, testTimeout: 60_000, retry: 1, hookTimeout: 60_000 }
})
