// The main job in one go: a small image built on the spot, served by the test kit's registry over real HTTP, pulled by the
// real command into a temporary store, and written as a root file system.
import { Console, Effect } from "effect"
import { spawn } from "node:child_process"
import { lstatSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"

const pull = (args: ReadonlyArray<string>) => Effect.callback<{ readonly code: number; readonly out: string }>((resume) => {
  const child = spawn(new URL("../bin/pull", import.meta.url).pathname, args, { stdio: ["ignore", "pipe", "inherit"] })
  let out = ""
  child.stdout.on("data", (chunk: Buffer) => { out += String(chunk) })
  child.on("close", (code) => resume(Effect.succeed({ code: code ?? 1, out })))
  return Effect.sync(() => { child.kill() })
})

const tree = (folder: string, indent = ""): ReadonlyArray<string> =>
  readdirSync(folder).sort().flatMap((name) => {
    const path = join(folder, name)
    const stat = lstatSync(path)
    const mode = (stat.mode & 0o7777).toString(8).padStart(4, "0")
    const line = (tail: string) => `${mode} ${String(stat.uid).padStart(4)}  ${indent}${name}${tail}`
    if (stat.isDirectory()) return [line("/"), ...tree(path, `${indent}  `)]
    return [line(stat.isSymbolicLink() ? ` -> ${readlinkSync(path)}` : stat.nlink > 1 ? `  (${stat.size} bytes, ${stat.nlink} links)` : `  (${stat.size} bytes)`)]
  })

const demo = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-demo-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))
  const registry = yield* TestRegistry.make()
  registry.put("demo", "latest", ImageBuilder.demo())
  const reference = `${registry.host}/demo`
  const store = join(folder, "store")
  const rootfs = join(folder, "rootfs")
  yield* Console.log(`$ bin/pull --store STORE --unpack --rootfs ROOTFS ${reference}`)
  const first = yield* pull(["--platform", "linux/amd64", "--store", store, "--unpack", "--rootfs", rootfs, reference])
  if (first.code !== 0) return first.code
  yield* Console.log(`${first.out.trim()}\n\nThe root file system (mode, owner, name):\n${tree(rootfs).join("\n")}`)
  registry.forget()
  const second = yield* pull(["--platform", "linux/amd64", "--store", store, "-q", reference])
  yield* Console.log(`\n$ bin/pull --store STORE -q ${reference}\n${second.out.trim()}\nThe second pull made ${registry.requests.filter(({ status }) => status === 200).length} request: nothing had changed.`)
  return second.code
}).pipe(Effect.scoped)

process.exitCode = await Effect.runPromise(demo)
