import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, realpathSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { ImageBuilder } from "../../src/testing/index.ts"
import { built, program, root } from "../command.ts"
import { assertDigest, setting } from "./setting.ts"

const { digest } = ImageBuilder.demo().manifest.descriptor

const consumer = `
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer } from "effect"
import { Pull, Towline } from "towline"
import { ImageBuilder, TestRegistry } from "towline/testing"

const program = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.demo())
  const image = yield* Pull.pull(registry.host + "/app:1", { platform: "linux/amd64" })
  return image.target.digest
})
const services = Towline.layer({ store: "./store" }).pipe(Layer.provideMerge(NodeServices.layer))
console.log(await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(services))))
`

describe("The packed tarball", () => {
  it.live("installed into an empty folder, its commands and its library work", () => Effect.gen(function*() {
    yield* built
    const { folder, reference } = yield* setting()
    const npm = (cwd: string, ...args: ReadonlyArray<string>) => program("npm", args, {
      // All of the environment: how a registry is reached (proxies, authorities) is said there.
      cwd, env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`, npm_config_update_notifier: "false" }
    })
    const packed = yield* npm(root, "pack", "--ignore-scripts", "--pack-destination", folder)
    assert.strictEqual(packed.code, 0, packed.stderr)
    const tarball = join(folder, packed.stdout.trim().split("\n").at(-1) ?? "")
    const list = spawnSync("tar", ["-tzf", tarball], { encoding: "utf8" }).stdout.split("\n").filter((name) => name !== "")
    for (const name of ["package.json", "bin/pull", "bin/graph", "bin/launch.sh", "dist/pull.js", "dist/layer-worker.js", "dist/types/index.d.ts", "dist/types/testing/index.d.ts"]) {
      assert.include(list, `package/${name}`)
    }
    assert.deepStrictEqual(list.filter((name) => !/^package\/(?:bin|dist)\/|^package\/[^/]+\.(?:json|md)$|^package\/LICENSE$/.test(name)), [])

    const home = join(folder, "home")
    mkdirSync(home)
    writeFileSync(join(home, "package.json"), "{ \"private\": true, \"type\": \"module\" }")
    const installed = yield* npm(home, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", tarball)
    assert.strictEqual(installed.code, 0, installed.stderr)
    assert.isFalse(existsSync(join(realpathSync(join(home, "node_modules", "towline")), "src")))
    const bin = (name: string, ...args: ReadonlyArray<string>) => program(join(home, "node_modules", ".bin", name), args, { cwd: home })
    assert.match((yield* bin("towline-pull", "--version")).stdout, /^pull v\d/)
    assertDigest(yield* bin("towline-pull", "-q", "--store", "pulled", "--rootfs", "root", reference))
    assert.includeMembers(readdirSync(join(home, "root")), ["bin", "etc", "usr"])
    assert.strictEqual((yield* bin("towline-graph", "check", "--store", "pulled")).stdout, "no damage found\n")

    writeFileSync(join(home, "consumer.ts"), consumer)
    const ran = yield* program(process.execPath, ["--disable-warning=ExperimentalWarning", "consumer.ts"], { cwd: home })
    assert.deepStrictEqual([ran.stdout, ran.code], [`${digest}\n`, 0], ran.stderr)
  }).pipe(Effect.scoped), 180_000)
})
