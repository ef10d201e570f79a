import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Result, Stream } from "effect"
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import { Graph } from "../src/store/Graph.ts"
import { Fault, ImageBuilder, TestRegistry, Tree } from "../src/testing/index.ts"
import { assertSound, openPaths, temporary, towline, planned } from "./harness.ts"

const { image, index, layer, noise } = ImageBuilder
const platform = "linux/amd64"

/** A registry with the demo image as app:1, and a folder for a store. */
const setting = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.demo())
  return { registry, folder: yield* temporary, reference: `${registry.host}/app:1` }
})
const blobRequests = (registry: TestRegistry) => registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300)

/** One layer of noise with an awkward size, as an image of its own. */
const noisy = (seed: string, size: number) => image({ layers: [layer([{ path: "noise", contents: noise(seed, size) }], { compression: "none" })] })

describe("Pull", () => {
  it.live("pulls an image: verified, unpacked, tagged; an unchanged tag costs one request", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    yield* Effect.gen(function*() {
      const pulled = yield* Pull.pull(reference, { platform })
      const demo = ImageBuilder.demo()
      assert.strictEqual(pulled.target.digest, demo.manifest.descriptor.digest)
      assert.isTrue(pulled.changed)
      assert.deepStrictEqual(pulled.config.image.config?.Cmd, ["/bin/greet"])
      assert.strictEqual(blobRequests(registry).length, demo.layers.length + 1)
      registry.forget()
      assert.isFalse((yield* Pull.pull(reference, { platform })).changed)
      assert.deepStrictEqual(registry.requests.filter(({ status }) => status > 0).map(({ kind }) => kind), ["manifest"])
      assert.strictEqual((yield* (yield* Graph).resolve(reference)).id, pulled.id)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder, { durability: "safe" })))
    registry.forget()
    yield* Effect.gen(function*() {
      const digest = ImageBuilder.demo().manifest.descriptor.digest
      yield* Pull.pull(`${registry.host}/app@${digest}`, { platform })
      assert.strictEqual(registry.requests.length, 0, "a digest that is there needs nobody")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("docker's and OCI's words, nested indexes, every compression and platform choice", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const arch = (architecture: string, variant?: string) => image({
      layers: (["none", "gzip", "zstd"] as const).map((compression) => layer([{ path: `${architecture}-${compression}`, contents: compression }], { compression })),
      platform: { os: "linux", architecture, ...(variant === undefined ? {} : { variant }) }
    })
    const amd = arch("amd64")
    const docker = image({ layers: [[{ path: "docker", contents: "d" }]], format: "docker", platform: { os: "linux", architecture: "s390x" } })
    const nested = index([index([arch("arm64", "v8"), ImageBuilder.attestation(amd)]), amd, ImageBuilder.attestation(amd)])
    registry.put("many", "1", nested).put("list", "1", index([docker], { format: "docker" }))
    yield* Effect.gen(function*() {
      for (const [wanted, name] of [["linux/amd64", "amd64"], ["linux/arm64", "arm64"]] as const) {
        const plan = yield* Pull.plan(`${registry.host}/many:1`, { platform: wanted })
        assert.deepStrictEqual(yield* Pull.plan(`${registry.host}/many:1`, { platform: wanted }), plan, "a plan changes nothing")
        const root = join(folder, name)
        yield* Pull.pull(`${registry.host}/many:1`, { platform: wanted, rootfs: root })
        assert.deepStrictEqual(readdirSync(root).sort(), ["gzip", "none", "zstd"].map((each) => `${name}-${each}`))
      }
      assert.strictEqual((yield* Pull.pull(`${registry.host}/list:1`, { platform: "linux/s390x" })).manifest.mediaType, ImageBuilder.mediaTypes.docker.manifest)
      const missing = yield* Effect.flip(Pull.pull(`${registry.host}/many:1`, { platform: "linux/riscv64" }))
      assert.strictEqual(missing._tag, "NoPlatform")
      for (const there of ["linux/amd64", "linux/arm64"]) assert.include(missing.message, there)
      assert.notInclude(missing.message, "unknown/unknown")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("40 cuts, each a little further, end in success without fetching anything twice; 5 without a byte do not", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const size = 400_000
    const built = noisy("cuts", size)
    const digest = built.layers[0]?.digest ?? ""
    registry.put("cut", "1", built)
    registry.script([{ match: { kind: "blob", digest, nth: [...Array(40).keys()].map((n) => n + 1) }, do: Fault.cutEach(10_000) }])
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${registry.host}/cut:1`, { platform })
      const sent = registry.requests.filter((request) => request.digest === digest).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
      assert.isBelow(sent, (built.layers[0]?.size ?? 0) * 1.05)
      yield* assertSound(folder)
      const stuck = noisy("stuck", size)
      registry.put("stuck", "1", stuck)
      registry.forget()
      registry.script([{ match: { kind: "blob", digest: stuck.layers[0]?.digest ?? "" }, do: Fault.cutAt(0) }])
      const error = yield* Effect.flip(Pull.pull(`${registry.host}/stuck:1`, { platform }))
      assert.strictEqual(error._tag, "NetworkError")
      assert.strictEqual(registry.requests.filter((request) => request.digest === stuck.layers[0]?.digest).length, 5)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a flipped byte in the first try, wherever it is, ends as an ordinary success with one refetch", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const entries = (seed: string) => [...Array(40).keys()].map((n) => ({ path: `d${n % 5}/f${n}`, contents: noise(`${seed}${n}`, 1500) }))
    yield* Effect.gen(function*() {
      for (const compression of ["gzip", "none", "zstd"] as const) {
        // Another image each time, of about the same size: one store and its workers take them all.
        for (let at = 0, size = 1; at < size; at += 4096) {
          const built = image({ layers: [layer(entries(`${compression}${at}`), { compression })] })
          const digest = built.layers[0]?.digest ?? ""
          size = built.layers[0]?.size ?? 0
          registry.put(compression, String(at), built)
          registry.forget()
          registry.script([{ match: { kind: "blob", digest, nth: 1 }, do: Fault.flip(Math.min(at, size - 1), at % 8) }])
          yield* Pull.pull(`${registry.host}/${compression}:${at}`, { platform })
          assert.strictEqual(registry.requests.filter((request) => request.digest === digest).length, 2)
          assert.deepStrictEqual(readdirSync(join(folder, "store", "ingest")), [])
        }
      }
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 120_000)

  it.live("what stays damaged is refused, and nothing of it is visible", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const good = ImageBuilder.demo()
    const bad = image({ layers: good.layers.length > 0 ? [layer([{ path: "a", contents: "a" }])] : [], configFields: { rootfs: { type: "layers", diff_ids: [`sha256:${"0".repeat(64)}`] } } })
    const escape = image({ layers: [layer([{ path: "ok", contents: "ok" }, { path: "dir/", type: "dir" }, { path: "l", type: "link", linkpath: "dir" }])] })
    registry.put("bad", "1", bad).put("escape", "1", escape).put("flip", "1", noisy("flip", 100_000))
    registry.script([{ match: { kind: "blob", repository: "flip" }, do: Fault.flip(50_000) }])
    yield* Effect.gen(function*() {
      for (const [name, tag] of [["bad", "LayerRefused"], ["escape", "LayerRefused"], ["flip", "VerifyError"]] as const) {
        const error = yield* Effect.flip(Pull.pull(`${registry.host}/${name}:1`, { platform, ...(name === "bad" ? { rootfs: join(folder, "root") } : {}) }))
        assert.strictEqual(error._tag, tag, error.message)
        assert.strictEqual((yield* Effect.flip((yield* Graph).resolve(`${registry.host}/${name}:1`)))._tag, "ImageNotFound")
      }
      assert.isFalse(existsSync(join(folder, "root")))
      assert.deepStrictEqual(readdirSync(folder), ["store"])
      yield* Effect.sleep("50 millis")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("100 callers of one image fetch each blob once; the work ends with the last of them", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    registry.script([{ match: { kind: "blob" }, do: Fault.stall(100, 100) }])
    yield* Effect.gen(function*() {
      const fibers = yield* Effect.forEach([...Array(100).keys()], () => Effect.forkChild(Pull.pull(reference, { platform })))
      yield* Effect.sleep("80 millis")
      yield* Effect.forEach(fibers.slice(1), Fiber.interrupt, { concurrency: "unbounded" })
      yield* Fiber.join(fibers[0] ?? Effect.runFork(Effect.never))
      const layers = ImageBuilder.demo().layers.map(({ digest }) => digest)
      for (const digest of layers) assert.strictEqual(blobRequests(registry).filter((request) => request.digest === digest).length, 1)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("the root file system is the same moved, copied from the store, and made in a scope", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting
    const [moved, copied] = [join(folder, "moved"), join(folder, "deep", "copied")]
    yield* Effect.gen(function*() {
      yield* Pull.pull(reference, { platform, rootfs: moved })
      const pulled = yield* Pull.pull(reference, { platform, unpack: true, rootfs: copied })
      assert.deepStrictEqual(Tree.diff(Tree.walk(moved), Tree.walk(copied)), [])
      assert.isAbove(Tree.walk(moved).length, 10)
      const path = yield* Effect.scoped(Effect.gen(function*() {
        const root = yield* RootFs.make(pulled, { place: folder })
        assert.deepStrictEqual(Tree.diff(Tree.walk(root), Tree.walk(copied)), [])
        return root
      }))
      assert.isFalse(existsSync(path))
      assert.strictEqual((yield* Effect.flip(Pull.pull(reference, { platform, rootfs: moved })))._tag, "TargetNotEmpty")
      writeFileSync(join(folder, "file"), "")
      assert.strictEqual((yield* Effect.flip(Pull.pull(reference, { platform, rootfs: join(folder, "file") })))._tag, "TargetNotEmpty")
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(readdirSync(folder).sort(), ["deep", "file", "moved", "store"])
  }).pipe(Effect.scoped))

  it.live("events tell the story in order and end with the pull, or with its error", () => Effect.gen(function*() {
    const { folder, reference, registry } = yield* setting
    yield* Effect.gen(function*() {
      const tags = (yield* Stream.runCollect(Pull.events(reference, { platform }))).map(({ _tag }) => _tag)
      assert.deepStrictEqual([tags[0], tags[1], tags.at(-1)], ["resolved", "planned", "done"])
      assert.strictEqual(tags.filter((tag) => tag === "committed").length, 3)
      assert.isBelow(tags.indexOf("verified"), tags.indexOf("tagged"))
      const failed = yield* Effect.result(Stream.runCollect(Pull.events(`${registry.host}/nothing:1`, { platform })))
      assert.isTrue(Result.isFailure(failed) && failed.failure._tag === "NotFound")
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  for (const native of [true, false]) {
    it.live(`200 cancelled pulls leave no descriptor open (native calls: ${native})`, () => Effect.gen(function*() {
      const { folder, registry } = yield* setting
      const entries = [...Array(300).keys()].map((n) => ({ path: `f${n}`, contents: noise(`c${n}`, 3000) }))
      const built = image({ layers: [layer(entries), layer([{ path: "x", contents: noise("x", 300_000) }])] })
      registry.put("cancel", "1", built)
      yield* Effect.gen(function*() {
        const round = Effect.fnUntraced(function*(n: number) {
          const fiber = yield* Effect.forkChild(Pull.pull(`${registry.host}/cancel:1`, { platform, rootfs: join(folder, `root${n}`) }))
          yield* Effect.sleep(`${n % 40} millis`)
          yield* Fiber.interrupt(fiber)
        })
        for (let n = 0; n < 40; n++) yield* round(n)
        // Connections stay open for the next request, both ends of each: not more than a pull makes. Each thread that is kept, or on
        // its way out, has an event loop's handful of its own. Of files there is not one more.
        const open = () => {
          const [files, others] = [openPaths().filter((path) => path.startsWith("/")), openPaths().filter((path) => !path.startsWith("/"))]
          const sockets = others.filter((path) => path.startsWith("socket:")).length
          return { files: files.length, sockets, loops: others.length - sockets }
        }
        const before = open()
        for (let n = 0; n < 200; n++) yield* round(n)
        for (let n = 0; n < 60 && open().files > before.files; n++) yield* Effect.sleep("50 millis")
        assert.isAtMost(open().files, before.files)
        assert.isAtMost(open().loops, before.loops + 24)
        assert.isAtMost(open().sockets, 18)
        // What came of blobs is kept for a pull that goes on: one partial a blob, and nothing else after 240 pulls, in the store or beside it.
        const left = () => readdirSync(join(folder, "store", "ingest"), { withFileTypes: true })
        const beside = () => readdirSync(folder).filter((name) => name !== "store" && !/^root\d+$/.test(name))
        for (let n = 0; n < 100 && (beside().length > 0 || left().some((entry) => entry.isDirectory())); n++) yield* Effect.sleep("50 millis")
        assert.isAtMost(left().length, built.layers.length + 2)
        assert.deepStrictEqual(left().filter((entry) => !entry.isFile()), [])
        assert.deepStrictEqual(beside(), [])
        assert.deepStrictEqual(yield* (yield* Graph).check(), [], "each is in a row")
        yield* Pull.pull(`${registry.host}/cancel:1`, { platform })
      }).pipe(Effect.provide(towline(folder, { native })))
      yield* assertSound(folder).pipe(Effect.provide(towline(folder)), Effect.catchDefect((defect) => Effect.die(defect)))
    }).pipe(Effect.scoped), 120_000)
  }

  it.live("an interrupted pull keeps what was fetched, and the next one fetches only the rest", () => Effect.gen(function*() {
    const { folder, registry } = yield* setting
    const built = noisy("half", 1_000_000)
    const digest = built.layers[0]?.digest ?? ""
    registry.put("half", "1", built)
    registry.script([{ match: { kind: "blob", digest, nth: 1 }, do: Fault.stall(700_000, Infinity) }])
    yield* Effect.gen(function*() {
      const reached = yield* Deferred.make<void>()
      const fiber = yield* Stream.runForEach(Pull.events(`${registry.host}/half:1`, { platform }), (event) =>
        event._tag === "downloading" && event.bytes >= 600_000 ? Deferred.succeed(reached, undefined) : Effect.void).pipe(Effect.forkChild)
      yield* Deferred.await(reached)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* (yield* Graph).check(), [])
    }).pipe(Effect.provide(towline(folder)))
    registry.forget()
    yield* Effect.gen(function*() {
      const plan = yield* planned(`${registry.host}/half:1`, platform)
      assert.strictEqual(plan.layers[0]?.state, "partial")
      yield* Pull.pull(`${registry.host}/half:1`, { platform })
      const sent = registry.requests.filter((request) => request.digest === digest).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
      assert.isBelow(sent, 450_000)
      yield* assertSound(folder)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))

  it.live("interrupted at any moment, nothing half-made is visible and the next pull succeeds", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting
    for (let wait = 0; wait < 60; wait += 3) {
      const store = join(folder, String(wait))
      mkdirSync(store)
      yield* Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Pull.pull(reference, { platform, unpack: true, rootfs: join(store, "root") }))
        yield* Effect.sleep(`${wait} millis`)
        const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        if (Exit.isFailure(exit)) assert.isFalse(existsSync(join(store, "root")))
        assert.deepStrictEqual(yield* (yield* Graph).check(), [])
        if (Exit.isFailure(exit)) yield* Pull.pull(reference, { platform, unpack: true, rootfs: join(store, "root") })
        yield* Effect.sleep("20 millis")
        yield* assertSound(store)
        assert.deepStrictEqual(readdirSync(store).sort(), ["root", "store"])
      }).pipe(Effect.provide(towline(store)))
    }
  }).pipe(Effect.scoped), 60_000)

  it.live("the store is private", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting
    yield* Pull.pull(reference, { platform }).pipe(Effect.provide(towline(folder)))
    for (const [path, mode] of [["store", 0o700], ["store/layers", 0o700], ["store/ingest", 0o700], ["store/graph.db", 0o600]] as const) {
      assert.strictEqual(lstatSync(join(folder, path)).mode & 0o777, mode, path)
    }
    assert.isAbove(readFileSync(join(folder, "store/graph.db")).byteLength, 0)
  }).pipe(Effect.scoped))
})
