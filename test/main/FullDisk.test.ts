import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { closeSync, openSync, readdirSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import * as Archive from "../../src/testing/Archive.ts"
import { ImageBuilder } from "../../src/testing/index.ts"
import * as SavedArchive from "../../src/testing/old/SavedArchive.ts"
import { command, type Ended } from "../command.ts"
import { assertChecked, assertDigest, assertFailed, ingests, mayMount, mounted, setting } from "./setting.ts"

const demo = ImageBuilder.demo()
const blobs = demo.layers.map(({ digest }) => digest)

/** Takes all the space there is. */
const fill = (file: string) => {
  const fd = openSync(file, "w")
  try {
    for (const size of [1 << 20, 1 << 12]) for (let full = false; !full;) {
      try {
        writeSync(fd, Buffer.alloc(size))
      } catch {
        full = true
      }
    }
  } finally {
    closeSync(fd)
  }
}

describe("A full and a read-only disk, whatever is written", () => {
  it.live.skipIf(!mayMount)("where a root file system or an archive goes: nothing is left there, and it works when there is space", () => Effect.gen(function*() {
    const { folder, pull, reference, store } = yield* setting()
    const disk = join(folder, "disk")
    const remount = yield* mounted(disk, "size=1m")
    assertDigest(yield* pull(["-q", reference]))
    const graph = (verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args])
    const ways: Readonly<Record<string, (name: string) => Effect.Effect<Ended>>> = {
      rootfs: (name) => graph("rootfs", reference, join(disk, name)),
      "rootfs as tar": (name) => graph("rootfs", reference, `tar:${join(disk, name)}`),
      save: (name) => graph("save", reference, "-o", join(disk, name)),
      "save as layout": (name) => graph("save", "--format", "oci-archive", "-o", join(disk, name), reference),
      "pull --rootfs": (name) => pull(["-q", "--rootfs", join(disk, name), reference]),
      "pull --output oci-archive": (name) => pull(["-q", "--output", `oci-archive:${join(disk, name)}`, reference]),
      "pull --output docker-archive": (name) => pull(["-q", "--output", `docker-archive:${join(disk, name)}`, reference]),
      "pull --output tar": (name) => pull(["-q", "--output", `tar:${join(disk, name)}`, reference])
    }
    for (const [title, run] of Object.entries(ways)) {
      assertFailed(yield* run("made"), 7, new RegExp(`cannot .*${disk}`), /disk is full; free some space/)
      assert.deepStrictEqual(readdirSync(disk), [], title)
    }
    remount("size=64m")
    for (const [at, [title, run]] of Object.entries(ways).entries()) {
      const ended = yield* run(`made${at}`)
      assert.deepStrictEqual([ended.code, ended.stderr], [0, ""], title)
    }
    assert.deepStrictEqual(readdirSync(disk).sort(), Object.keys(ways).map((_, at) => `made${at}`))
    remount("ro")
    for (const run of Object.values(ways)) assertFailed(yield* run("more"), 7, new RegExp(`cannot .*${disk}`), /file system is read-only; name a writable folder/)
    remount("rw")
    assert.strictEqual(readdirSync(disk).length, Object.keys(ways).length)
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 240_000)

  it.live.skipIf(!mayMount)("where the store is: of a load nothing is visible, and it works when there is space", () => Effect.gen(function*() {
    const { folder } = yield* setting()
    const archive = join(folder, "archive.tar")
    writeFileSync(archive, Archive.archive(SavedArchive.docker([{ image: demo, names: ["app:1"] }])))
    const disk = join(folder, "disk")
    const remount = yield* mounted(disk, "size=3m")
    const store = join(disk, "store")
    const graph = (verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args])
    assertFailed(yield* graph("load", "-q", "--platform", "linux/amd64", archive), 7, new RegExp(`cannot .*${disk}`), /disk is full; free some space/)
    assert.deepStrictEqual(readdirSync(join(store, "layers", "sha256")), [])
    remount("size=64m")
    assert.strictEqual((yield* graph("ls", "--json")).stdout, "[]\n")
    yield* assertChecked(store)
    remount("ro")
    assertFailed(yield* graph("load", "-q", "--platform", "linux/amd64", archive), 7, new RegExp(`cannot .*${store}`), /read-only; name a writable folder/)
    remount("rw")
    assert.strictEqual((yield* graph("load", "-q", "--platform", "linux/amd64", archive)).code, 0)
    yield* assertChecked(store)
    assert.deepStrictEqual(ingests(store), [])
  }).pipe(Effect.scoped), 240_000)

  it.live.skipIf(!mayMount)("where the store is: what cannot be compared is said, and neither believed nor given up", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting()
    const disk = join(folder, "disk")
    yield* mounted(disk, "size=24m")
    const store = join(disk, "store")
    const graph = (verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args])
    assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
    const [plug, spare] = [join(disk, "plug"), join(disk, "spare")]
    writeFileSync(spare, Buffer.alloc(256 * 1024))
    fill(plug)
    for (const verb of ["check", "ls"]) assertFailed(yield* graph(verb, ...verb === "check" ? ["-q"] : []), 7, new RegExp(`cannot .*${store}.*the disk is full; free some space`))
    // Room for the database, and not for a layer.
    rmSync(spare)
    const checked = yield* graph("check", "-q")
    assert.deepStrictEqual([checked.code, checked.stderr], [6, ""])
    for (const line of checked.stdout.trimEnd().split("\n")) assert.match(line, new RegExp(`^layer-unverified {2}\\S+ {2}it cannot be unpacked once more to be compared: cannot .*${store}.*disk is full`))
    const dropped = yield* graph("gc", "-q", "--drop-blobs")
    assert.deepStrictEqual([dropped.code, dropped.stderr], [0, ""])
    assert.match(dropped.stdout, /kept .*cannot be unpacked once more to be compared: .*disk is full[^]*kept that of 3\n/)
    assert.includeMembers(readdirSync(join(store, "blobs/sha256")), blobs.map((digest) => digest.slice(7)))
    rmSync(plug)
    yield* assertChecked(store)
    assert.match((yield* graph("gc", "-q", "--drop-blobs")).stdout, /gave up the compressed form of 3 layers/)
    yield* assertChecked(store)
    assert.deepStrictEqual(ingests(store), [])
  }).pipe(Effect.scoped), 240_000)
})
