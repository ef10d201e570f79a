import { assert } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ImageBuilder, TestRegistry, type TestRegistryOptions } from "../../src/testing/index.ts"
import { command, type Ended, type StartOptions } from "../command.ts"
import { temporary } from "../harness.ts"

/** A registry that serves the demo image as `app:1`, and a folder with a store to be. */
export const setting = (options?: TestRegistryOptions) => Effect.gen(function*() {
  const registry = yield* TestRegistry.make(options)
  registry.put("app", "1", ImageBuilder.demo())
  const folder = yield* temporary
  const store = join(folder, "store")
  return {
    registry, folder, store, reference: `${registry.host}/app:1`,
    pull: (args: ReadonlyArray<string>, options?: StartOptions) => command("pull", ["--store", store, ...args], options),
    graph: (verb: string, args: ReadonlyArray<string> = []) => command("graph", [verb, "--store", store, ...args])
  }
})

/** It failed with this code, nothing on stdout, and one sentence that matches: what is wrong, and what to do about it. */
export const assertFailed = (ended: Ended, code: number, ...sentences: ReadonlyArray<RegExp>): void => {
  assert.strictEqual(ended.code, code, ended.stderr)
  assert.strictEqual(ended.stdout, "")
  const said = ended.stderr.split("\n").filter((line) => /^(?:pull|graph)(?: \w+)?: /.test(line))
  assert.strictEqual(said.length, 1, ended.stderr)
  for (const sentence of sentences) assert.match(said[0] ?? "", sentence)
  assert.notMatch(ended.stderr, /^\s+at |internal error|\bError:/m, "no stack, no foreign words")
}

/** It succeeded, and said nothing but the digest. */
export const assertDigest = (ended: Ended, digest: string = ImageBuilder.demo().manifest.descriptor.digest): void => {
  assert.strictEqual(ended.stderr, "")
  assert.strictEqual(ended.stdout, `${digest}\n`)
  assert.strictEqual(ended.code, 0)
}

/** `graph check` finds nothing in the store; being a command, it has removed what a dead one left. */
export const assertChecked = (store: string): Effect.Effect<void> => Effect.map(command("graph", ["check", "-q", "--store", store]), (ended) => {
  assert.deepStrictEqual([ended.stdout, ended.stderr, ended.code], ["no damage found\n", "", 0])
})

/** What is in the store's ingest folder. */
export const ingests = (store: string): ReadonlyArray<string> => readdirSync(join(store, "ingest"))

const mount = (...args: ReadonlyArray<string>): boolean => spawnSync("mount", args, { stdio: "ignore" }).status === 0
const unmount = (path: string): boolean => spawnSync("umount", [path], { stdio: "ignore" }).status === 0

/** Whether this user may mount file systems here. */
export const mayMount: boolean = (() => {
  const path = mkdtempSync(join(tmpdir(), "towline-mount-"))
  const may = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", path)
  if (may) unmount(path)
  rmdirSync(path)
  return may
})()

/** A small file system of its own at `path` until the scope closes; gives what changes its options. */
export const mounted = (path: string, options: string): Effect.Effect<(options: string) => void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(path, { recursive: true })
      assert.isTrue(mount("-t", "tmpfs", "-o", `mode=700,${options}`, "tmpfs", path), "mount")
      return (options: string) => { assert.isTrue(mount("-o", `remount,${options}`, path), "remount") }
    }),
    () => Effect.sync(() => { assert.isTrue(unmount(path), "umount") })
  )
