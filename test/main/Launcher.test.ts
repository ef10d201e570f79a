import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { cpSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { built, program, root } from "../command.ts"
import { temporary } from "../harness.ts"

/** A copy of the launchers in a folder of its own; `dist/pull.js` prints what ran it. */
const checkout = Effect.gen(function*() {
  const folder = yield* temporary
  cpSync(join(root, "bin"), join(folder, "bin"), { recursive: true })
  mkdirSync(join(folder, "dist"))
  mkdirSync(join(folder, "src", "main"), { recursive: true })
  mkdirSync(join(folder, "path"))
  writeFileSync(join(folder, "src", "main", "pull.ts"), "")
  writeFileSync(join(folder, "dist", "pull.js"), "console.log(process.execPath, process.pid, process.argv.slice(2).join(' '))")
  writeFileSync(join(folder, "package.json"), "{ \"type\": \"module\" }")
  utimesSync(join(folder, "src", "main", "pull.ts"), 1000, 1000)
  const fake = (version: string, path = join(folder, "path", "node")) =>
    writeFileSync(path, `#!/bin/sh\n[ "$1" = --version ] && { echo ${version}; exit; }\necho "not fit to run $*"\nexit 99\n`, { mode: 0o755 })
  // What the launcher uses, and no Node.
  const tools = join(folder, "tools")
  mkdirSync(tools)
  for (const tool of ["sh", "dirname", "readlink", "find"]) symlinkSync((yield* program("sh", ["-c", `command -v ${tool}`])).stdout.trim(), join(tools, tool))
  return { folder, fake, tools, run: (PATH: string, ...args: ReadonlyArray<string>) => program(join(folder, "bin", "pull"), args, { env: { PATH } }) }
})

describe("bin/pull finds what to run", () => {
  it.live("the Node on PATH if it is new enough, as the same process, from any link to it", () => Effect.gen(function*() {
    const { fake, folder, run, tools } = yield* checkout
    const node = process.execPath
    const path = join(folder, "path")
    symlinkSync(node, join(path, "node"))
    const ended = yield* run(`${path}:${tools}`, "a b", "--c")
    assert.match(ended.stdout, new RegExp(`^${node} \\d+ a b --c\n$`))
    symlinkSync("../bin/pull", join(path, "there"))
    symlinkSync(join(path, "there"), join(path, "towline-pull"))
    const linked = yield* program("sh", ["-c", "echo $$; exec towline-pull x"], { env: { PATH: `${path}:${tools}` } })
    const [shell, line] = linked.stdout.split("\n")
    assert.strictEqual(line, `${node} ${shell ?? ""} x`, "one pid from the shell to Node")

    mkdirSync(join(folder, "node_modules", ".bin"), { recursive: true })
    const other = join(folder, "older")
    mkdirSync(other)
    for (const version of ["v20.20.2", "v22.18.0", "v8.0.0", "nonsense"]) {
      fake(version, join(other, "node"))
      const none = yield* run(`${other}:${tools}`)
      assert.deepStrictEqual([none.code, none.stdout], [1, ""], version)
      assert.match((yield* run(`${other}:${path}:${tools}`)).stdout, /^\/.* \d+ \n$/, "the next one on PATH")
      assert.match(none.stderr, new RegExp(`^pull: needs Node\\.js 22\\.19 or newer on PATH \\(found: ${version}\\); install .*\n$`))
    }
    const without = yield* run(tools)
    assert.strictEqual(without.code, 1)
    assert.match(without.stderr, /^pull: needs Node\.js 22\.19 or newer on PATH \(found: none\); install .*\n$/)
    symlinkSync(node, join(folder, "node_modules", ".bin", "node"))
    assert.match((yield* run(`${other}:${tools}`)).stdout, /^\/.* \d+ \n$/, "the project's own")
    for (const version of ["v22.19.0", "v24.0.0", "v100.1.0"]) {
      fake(version, join(other, "node"))
      assert.match((yield* run(`${other}:${tools}`, "x")).stdout, /^not fit to run .*pull\.js x\n$/, `${version} is new enough to be asked`)
    }
  }).pipe(Effect.scoped), 120_000)

  it.live("refuses in a checkout what was built from older sources, and says what to do where nothing was built", () => Effect.gen(function*() {
    const { folder, run, tools } = yield* checkout
    const path = `${dirname(process.execPath)}:${tools}`
    assert.strictEqual((yield* run(path)).code, 0)
    writeFileSync(join(folder, "src", "New.ts"), "")
    utimesSync(join(folder, "dist", "pull.js"), 2000, 2000)
    const old = yield* run(path)
    assert.deepStrictEqual([old.code, old.stdout], [1, ""])
    assert.match(old.stderr, /^pull: dist\/ is older than src\/; build it again with 'npm run build' in .*\n$/)
    const none = yield* program(join(folder, "bin", "graph"), [], { env: { PATH: path } })
    assert.deepStrictEqual([none.code, none.stdout], [1, ""])
    assert.match(none.stderr, /^graph: .*dist\/graph\.js is not there; build it with 'npm ci' .*\n$/)
  }).pipe(Effect.scoped), 120_000)

  it.live("runs from a folder with spaces, and needs no environment", () => Effect.gen(function*() {
    yield* built
    const folder = join(yield* temporary, "a folder\tof mine")
    for (const part of ["bin", "dist", "package.json"]) cpSync(join(root, part), join(folder, part), { recursive: true })
    const ended = yield* program(join(folder, "bin", "graph"), ["ls", "--store", "a store"], { cwd: folder, env: { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, HOME: undefined } })
    assert.deepStrictEqual([ended.code, ended.stderr], [0, ""])
  }).pipe(Effect.scoped), 120_000)
})
