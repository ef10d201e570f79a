import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder } from "../../src/testing/index.ts"
import { command } from "../command.ts"
import { missing } from "../strace.ts"
import { assertChecked, assertDigest, assertFailed, ingests, mayMount, mounted, setting } from "./setting.ts"

describe("A disk that refuses (exit code 7)", () => {
  it.live.skipIf(!mayMount)("full: no half layer, and when there is space again the next pull goes on from what came", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting()
    const disk = join(folder, "disk")
    const remount = yield* mounted(disk, "size=3m")
    const store = join(disk, "store")
    assertFailed(yield* command("pull", ["-q", "--store", store, reference]), 7, new RegExp(disk), /disk is full; free some space/)
    assert.deepStrictEqual(readdirSync(join(store, "layers", "sha256")), [])
    // Parts of layers, and those that were whole before the disk was full.
    const whole = ImageBuilder.demo().layers.filter(({ digest }) => existsSync(join(store, "blobs", "sha256", digest.slice(7))))
    const came = ingests(store).reduce((sum, name) => sum + statSync(join(store, "ingest", name)).size, 0) + whole.reduce((sum, { size }) => sum + size, 0)
    assert.isAbove(came, 0)

    remount("size=64m")
    // Not before: to read, too, the database needs a page of its own beside it.
    assertFailed(yield* command("graph", ["show", "--store", store, reference]), 3, /no image called/)
    yield* assertChecked(store)
    registry.forget()
    assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
    const fetched = registry.find({ kind: "blob", method: "GET" }).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
    const total = ImageBuilder.demo().layers.reduce((sum, { size }) => sum + size, 0)
    assert.isAtMost(fetched, total - came + 2000, "what had come was not fetched again (the config may be)")
    yield* assertChecked(store)
    assert.deepStrictEqual(ingests(store), [])
  }).pipe(Effect.scoped), 120_000)

  it.live.skipIf(!mayMount)("full where the root file system goes: nothing is left there, the store is whole", () => Effect.gen(function*() {
    const { folder, pull, reference, store } = yield* setting()
    const disk = join(folder, "disk")
    const remount = yield* mounted(disk, "size=1m")
    for (const unpack of [["--unpack"], []]) {
      assertFailed(yield* pull(["-q", ...unpack, "--rootfs", join(disk, "root"), reference]), 7, /disk is full/)
      assert.deepStrictEqual(readdirSync(disk), [])
    }
    remount("size=64m")
    assertDigest(yield* pull(["-q", "--rootfs", join(disk, "root"), reference]))
    assert.deepStrictEqual(readdirSync(disk), ["root"])
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live.skipIf(!mayMount)("read-only: a new store, and one that was there", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting()
    const disk = join(folder, "disk")
    const remount = yield* mounted(disk, "size=64m")
    const store = join(disk, "store")
    assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
    remount("ro")
    assertFailed(yield* command("pull", ["-q", "--store", join(disk, "new"), reference]), 7, /read-only; name a writable folder/)
    for (const args of [["pull", "-q", "--store", store, reference], ["graph", "gc", "--store", store], ["graph", "rm", "--store", store, reference]] as const) {
      const [name, ...rest] = args
      assertFailed(yield* command(name, rest), 7, new RegExp(store), /writable/)
    }
    remount("rw")
    assertDigest(yield* command("pull", ["-q", "--store", store, reference]))
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live.skipIf(missing)("a blob, and a file of an unpacked layer, that cannot be read: named, and nothing is given up for it (needs strace)", () => Effect.gen(function*() {
    const { folder, graph, pull, reference, store } = yield* setting()
    assertDigest(yield* pull(["-q", reference]))
    const demo = ImageBuilder.demo()
    const blob = join(store, "blobs/sha256", (demo.layers[0]?.digest ?? "").slice(7))
    const layer = join(store, "layers/sha256", (demo.diffIds[0] ?? "").slice(7))
    const file = realpathSync(join(layer, "fs/bin/greet"))
    const broken = (path: string, verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args], {
      under: ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "trace=read,pread64,copy_file_range,sendfile", "-e", "inject=read,pread64,copy_file_range,sendfile:error=EIO"]
    })
    for (const args of [["gc", "-q", "--drop-blobs"], ["save", "-o", join(folder, "out.tar"), reference]] as const) {
      const [verb, ...rest] = args
      assertFailed(yield* broken(blob, verb, ...rest), 7, new RegExp(`cannot read ${blob}: the disk reported a read or write error.*EIO`))
    }
    assertFailed(yield* broken(file, "rootfs", reference, join(folder, "root")), 7, new RegExp(`cannot read ${file}: .*EIO`))
    assert.isFalse(existsSync(join(folder, "root")) || existsSync(join(folder, "out.tar")))
    const kept = yield* broken(file, "gc", "-q", "--drop-blobs")
    assert.deepStrictEqual([kept.code, kept.stderr], [0, ""])
    assert.match(kept.stdout, /kept {5}.*run `graph check --repair` first\n[^]*gave up the compressed form of 2 layers, kept that of 1/)
    assert.isTrue(existsSync(blob))
    assert.strictEqual((yield* broken(blob, "check", "-q")).stdout.split("\n")[0]?.slice(0, 83), `blob-digest  ${demo.layers[0]?.digest ?? ""}`.slice(0, 83))
    assert.strictEqual((yield* graph("check", ["-q"])).code, 0)
  }).pipe(Effect.scoped), 120_000)

  it.live.skipIf(missing)("without locks: a new store and one that was there are refused, whatever the file system says instead (needs strace)", () => Effect.gen(function*() {
    const { folder, store } = yield* setting()
    const log = join(folder, "log")
    const gc = (place: string, ...options: ReadonlyArray<string>) =>
      command("graph", ["gc", "--store", place], options.length === 0 ? {} : { under: ["strace", "-f", "-qq", "-o", log, "-e", "trace=fcntl", ...options] })
    const refused = Effect.fnUntraced(function*(place: string, ...options: ReadonlyArray<string>) {
      const began = performance.now()
      assertFailed(yield* gc(place, ...options), 7, new RegExp(`${place}/graph\\.db`), /does not lock files.*--store/)
      assert.isBelow(performance.now() - began, 20_000, "it is not waited for")
      assert.deepStrictEqual(readdirSync(join(place, "ingest")), [])
    })
    for (const [at, error] of ["EOPNOTSUPP", "EINVAL", "ENOSYS", "EPERM"].entries()) {
      const place = at % 2 === 0 ? join(folder, `new${at}`) : store
      yield* refused(place, "-P", `${place}/graph.db`, "-e", `inject=fcntl:error=${error}`)
      yield* gc(store)
    }
    // ENOLCK is tried seven times, in case somebody else has the lock, and then once on a file that nobody else knows. What
    // comes before the first is Node's own, as is what comes as it ends.
    assert.strictEqual((yield* gc(join(folder, "traced"), "-y")).code, 0)
    const lines = readFileSync(log, "utf8").split("\n")
    const [thread = ""] = lines.find((line) => line.includes("F_SETLK"))?.split(" ") ?? []
    const first = 1 + lines.filter((line) => line.startsWith(`${thread} `) && line.includes(" fcntl(")).findIndex((line) => line.includes("F_SETLK"))
    yield* refused(join(folder, "new"), "-e", `inject=fcntl:error=ENOLCK:when=${first}..${first + 7}`)
    assert.strictEqual((yield* gc(store)).code, 0)
  }).pipe(Effect.scoped), 120_000)

  it.live("a store that others may look into is refused with the chmod to run", () => Effect.gen(function*() {
    const { graph, pull, reference, store } = yield* setting()
    assertDigest(yield* pull(["-q", reference]))
    for (const [path, mode] of [[store, 0o755], [join(store, "layers"), 0o711], [join(store, "graph.db"), 0o640]] as const) {
      const right = statSync(path).mode & 0o777
      chmodSync(path, mode)
      const sentence = new RegExp(`run: chmod ${right.toString(8)} '${path}'`)
      assertFailed(yield* pull(["-q", reference]), 7, sentence)
      assertFailed(yield* graph("check"), 7, sentence)
      chmodSync(path, right)
    }
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live("a store where a file is, and a database that is none", () => Effect.gen(function*() {
    const { folder, pull, reference, store } = yield* setting()
    writeFileSync(join(folder, "file"), "")
    assertFailed(yield* command("pull", ["-q", "--store", join(folder, "file"), reference]), 7, /file/)
    mkdirSync(store, { mode: 0o700 })
    writeFileSync(join(store, "graph.db"), "not a database, but long enough to look at, and that for some hundred bytes ".repeat(20), { mode: 0o600 })
    assertFailed(yield* pull(["-q", reference]), 7, /graph\.db/, /not a towline database; name another folder/)
    assert.isTrue(existsSync(join(store, "graph.db")))
  }).pipe(Effect.scoped), 120_000)
})
