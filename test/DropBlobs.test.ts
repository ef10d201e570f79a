import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Check from "../src/Check.ts"
import { dropBlobs } from "../src/DropBlobs.ts"
import * as ImageFiles from "../src/ImageFiles.ts"
import * as OciLayout from "../src/OciLayout.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as Refetch from "../src/Refetch.ts"
import * as Repair from "../src/Repair.ts"
import * as Save from "../src/Save.ts"
import * as SaveOld from "../src/SaveOld.ts"
import * as Disk from "../src/store/disk/Disk.ts"
import { Leases } from "../src/store/Leases.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import { Fault, ImageBuilder, LegacyImage, TestRegistry, Tree, V1Server } from "../src/testing/index.ts"
import { command, startCommand } from "./command.ts"
import { assertSound, temporary, towline } from "./harness.ts"
import { assertFailed } from "./main/setting.ts"

const platform = "linux/amd64"
const demo = ImageBuilder.demo()

/** A store with the demo image, unpacked. */
const pulled = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", demo)
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Pull.pull(reference, { platform }).pipe(Effect.provide(towline(folder)))
  registry.forget()
  return { registry, folder, reference, store: join(folder, "store"), fetched: () => registry.requests.filter(({ kind, status }) => kind === "blob" && status < 300).length }
})
const blobFile = (store: string, digest: string) => join(store, "blobs/sha256", digest.slice(7))
const layerFolder = (store: string, digest: string | undefined) => join(store, "layers/sha256", (digest ?? "").slice(7))
const kinds = Effect.map(Check.check(), (findings) => findings.map(({ kind }) => kind).sort())
const flip = (path: string, bit: number) => {
  const bytes = readFileSync(path)
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  writeFileSync(path, bytes)
}
const alter = (store: string, statement: string) => {
  const db = new DatabaseSync(join(store, "graph.db"))
  db.exec(statement)
  db.close()
}

describe("DropBlobs", () => {
  it.live("gives up what is unpacked and can be fetched again; check goes by recorded digests, and a pull fetches only what it needs", () => Effect.gen(function*() {
    const { fetched, folder, reference, registry, store } = yield* pulled
    yield* Effect.gen(function*() {
      const planned = yield* dropBlobs({ dryRun: true })
      assert.deepStrictEqual(demo.layers.map(({ digest }) => existsSync(blobFile(store, digest))), [true, true, true])
      const { compressed } = yield* (yield* Collector).usage
      const { dropped, kept } = yield* dropBlobs()
      const total = demo.layers.reduce((sum, { size }) => sum + size, 0)
      assert.deepStrictEqual([planned.dropped, kept, compressed], [dropped, [], { count: 3, size: total }])
      assert.sameMembers(dropped.map(({ subject }): string => subject), demo.layers.map(({ digest }) => digest))
      assert.deepStrictEqual(demo.layers.map(({ digest }) => existsSync(blobFile(store, digest))), [false, false, false])
      const usage = yield* (yield* Collector).usage
      assert.deepStrictEqual([usage.compressed.count, usage.unpackedAlone], [0, { count: 3, size: total }])
      yield* assertSound(folder)
      assert.deepStrictEqual(yield* dropBlobs(), { dropped: [], kept: [] })
      yield* (yield* Collector).collect()
      assert.isFalse((yield* Pull.pull(reference, { platform })).changed)
      yield* Pull.pull(reference, { platform, rootfs: join(folder, "root") })
      assert.strictEqual(fetched(), 0)
      yield* Pull.pull(reference, { platform, blobs: true })
      assert.strictEqual(fetched(), 3)
      yield* assertSound(folder)
      // By the digests that are there already, nothing is unpacked once more.
      assert.strictEqual((yield* dropBlobs()).dropped.length, 3)
      registry.forget()
    }).pipe(Effect.provide(towline(folder)))
    assert.deepStrictEqual(yield* kinds.pipe(Effect.provide(towline(folder))), [], "by a later process")
  }).pipe(Effect.scoped), 60_000)

  it.live("finds every flip and deletion afterwards, and repair fetches what it needs", () => Effect.gen(function*() {
    const { fetched, folder, store } = yield* pulled
    const trees = demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs")))
    yield* Effect.gen(function*() {
      yield* dropBlobs()
      const [first = "", second = "", third = ""] = demo.diffIds.map((diffId) => layerFolder(store, diffId))
      for (let bit = 0; bit < readFileSync(join(first, "sums")).byteLength * 8; bit += 997) {
        flip(join(first, "sums"), bit)
        assert.deepStrictEqual(yield* kinds, ["layer-sums-wrong", "layer-unverified"], `bit ${bit}`)
        flip(join(first, "sums"), bit)
      }
      assert.deepStrictEqual(yield* kinds, [])
      rmSync(join(first, "sums"))
      writeFileSync(join(second, "fs/extra"), "")
      flip(join(third, "meta"), 9)
      assert.deepStrictEqual(yield* kinds, ["layer-damaged", "layer-damaged", "layer-sums-wrong", "layer-unverified"])
      const { actions, left } = yield* Repair.repair()
      assert.deepStrictEqual([left, actions.every(({ outcome }) => outcome === "mended")], [[], true], JSON.stringify(actions))
      assert.strictEqual(fetched(), 3)
      assert.deepStrictEqual(demo.diffIds.map((diffId) => Tree.walk(join(layerFolder(store, diffId), "fs"))), trees)
      assert.deepStrictEqual(readdirSync(join(store, "quarantine")), [])
      alter(store, "UPDATE layers SET entries = entries + 1")
      assert.deepStrictEqual(yield* kinds, ["layer-row-wrong", "layer-row-wrong", "layer-row-wrong"])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("keeps what is leased, what nobody knows the origin of, and what is damaged, and says why", () => Effect.gen(function*() {
    const { folder, store } = yield* pulled
    const [first, second, third] = demo.layers
    yield* Effect.gen(function*() {
      const reasons = Effect.map(dropBlobs(), ({ kept }) => kept.map(({ reason }) => reason).sort())
      yield* Effect.scoped(Effect.gen(function*() {
        yield* (yield* Leases).hold([...demo.layers.map(({ digest }) => digest).slice(0, 2), ...demo.diffIds.slice(2)])
        assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "a running command holds it"))
      }))
      alter(store, "CREATE TABLE spare AS SELECT * FROM origins; DELETE FROM origins")
      assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "nobody knows where it could be fetched again"))
      alter(store, "INSERT INTO origins SELECT * FROM spare; DROP TABLE spare; UPDATE images SET kind = 'v1'")
      assert.deepStrictEqual(yield* reasons, Array.from({ length: 3 }, () => "nobody knows where it could be fetched again"))
      alter(store, "UPDATE images SET kind = 'oci'")
      writeFileSync(join(layerFolder(store, demo.diffIds[0]), "fs/extra"), "")
      flip(blobFile(store, second?.digest ?? ""), 800)
      const { dropped, kept } = yield* dropBlobs()
      assert.deepStrictEqual(dropped.map(({ subject }): string => subject), [third?.digest ?? ""])
      assert.sameMembers(kept.map(({ subject }): string => subject), [first?.digest ?? "", second?.digest ?? ""])
      for (const { reason } of kept) assert.match(reason, /run `graph check --repair` first/)
      assert.isFalse(existsSync(join(layerFolder(store, demo.diffIds[0]), "sums")))
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("files are read from unpacked layers, and an archive is the same, its blobs fetched again", () => Effect.gen(function*() {
    const { fetched, folder, reference, store } = yield* pulled
    yield* Effect.gen(function*() {
      const image = yield* ImageFiles.imageOf(reference)
      const look = Effect.gen(function*() {
        const bare = (yield* Effect.scoped(Effect.flatMap(ImageFiles.list(image, { hash: true }), ({ entries }) => Stream.runCollect(entries)))).map((entry) => ({ ...entry, entry: 0 }))
        const name = bare.findLast(({ size, type }) => type === "file" && size > 0)?.name ?? ""
        return [bare, name, Buffer.concat(yield* Stream.runCollect(ImageFiles.file(image, name)))] as const
      })
      const bytes = Effect.map(Effect.flatMap(Save.find([reference]), (images) => Stream.runCollect(Save.stream(images, "docker-archive"))), (chunks) => Buffer.concat(chunks))
      const [before, archive] = [yield* look, yield* bytes]
      assert.isAbove(before[2].byteLength, 0)
      yield* dropBlobs()
      assert.deepStrictEqual(yield* look, before)
      assert.strictEqual((yield* Effect.flip(bytes))._tag, "NotSavable")
      alter(store, "CREATE TABLE spare AS SELECT * FROM origins; DELETE FROM origins")
      assert.strictEqual((yield* Effect.flip(Refetch.layers(image.layers)))._tag, "NoSource")
      alter(store, "INSERT INTO origins SELECT * FROM spare; DROP TABLE spare")
      yield* Refetch.layers(image.layers)
      assert.deepStrictEqual([(yield* bytes).equals(archive), fetched()], [true, 3])
      rmSync(layerFolder(store, demo.diffIds[1]), { recursive: true })
      rmSync(blobFile(store, demo.layers[1]?.digest ?? ""))
      assert.strictEqual((yield* Effect.flip(Effect.scoped(ImageFiles.list(image))))._tag, "NotInStore")
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("by the commands", () => Effect.gen(function*() {
    const { folder, reference, registry, store } = yield* pulled
    const graph = (verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args])
    assert.strictEqual((yield* graph("save", "-o", join(folder, "before.tar"), reference)).code, 0)
    const gone = yield* graph("gc", "-q", "--drop-blobs", "--json")
    assert.deepStrictEqual([JSON.parse(gone.stdout).dropped.length, JSON.parse(gone.stdout).kept, gone.stderr], [3, [], ""])
    assert.match((yield* graph("cat", reference, "/etc/os-release")).stdout, /VERSION_ID=2\n/)
    registry.script([{ match: { kind: "blob" }, do: Fault.status(404) }])
    assertFailed(yield* graph("save", "-o", join(folder, "after.tar"), reference), 3, /has no /)
    assert.isFalse(existsSync(join(folder, "after.tar")))
    registry.script([])
    assert.strictEqual((yield* graph("save", "-o", join(folder, "after.tar"), reference)).code, 0)
    assert.isTrue(readFileSync(join(folder, "after.tar")).equals(readFileSync(join(folder, "before.tar"))))
  }).pipe(Effect.scoped), 120_000)

  it.live("what a pull gave stays while it is held, and what was asked for together until all of it is written", () => Effect.gen(function*() {
    const { folder, reference, store } = yield* pulled
    const elsewhere = <A, E>(work: Effect.Effect<A, E, Layer.Success<ReturnType<typeof towline>>>) => Effect.provide(work, Layer.fresh(towline(folder)))
    yield* Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const image = yield* Pull.held(new Hub<PullEvent>(keyOf), reference, { platform, blobs: true })
        assert.deepStrictEqual((yield* elsewhere(dropBlobs())).dropped, [])
        yield* OciLayout.write(image, join(folder, "layout"), "1")
      }))
      assert.strictEqual((yield* elsewhere(dropBlobs())).dropped.length, 3)
    }).pipe(Effect.provide(towline(folder)))

    const other = ImageBuilder.image({ layers: [[{ path: "other", contents: "other" }]] })
    const second = yield* TestRegistry.make()
    second.put("other", "1", other)
    // It answers as one that is busy until it is told otherwise.
    const busy = { match: { repository: "other", kind: "blob", digest: other.layers[0]?.digest ?? "" }, do: Fault.status(429, { "retry-after": "12" }) } as const
    second.script([busy])
    const archive = join(folder, "both.tar")
    const running = yield* startCommand("pull", ["--progress", "events", "--no-unpack", "--store", store, "--output", `oci-archive:${archive}`, reference, `${second.host}/other:1`], {
      under: ["sh", "-c", `exec "$@" 2>'${join(folder, "events")}'`, "sh"]
    })
    // One pull has ended, the other waits.
    while (!Disk.unlessAbsent(() => readFileSync(join(folder, "events"), "utf8"))?.includes(`"_tag":"done"`)) yield* Effect.sleep("50 millis")
    yield* command("graph", ["gc", "-q", "--drop-blobs", "--store", store])
    second.script([])
    const { code } = yield* running.ended
    assert.deepStrictEqual([code, existsSync(archive)], [0, true], readFileSync(join(folder, "events"), "utf8"))
  }).pipe(Effect.scoped), 120_000)

  it.live("old images: what a v2 registry gave as schema1 is given up and fetched again, what a v1 registry gave is kept", () => Effect.gen(function*() {
    const folder = yield* temporary
    const [registry, v1] = [yield* TestRegistry.make(), yield* V1Server.make()]
    const old = LegacyImage.legacy({ steps: [{ tar: [{ path: "base", contents: "base" }] }, { json: { throwaway: true } }, { tar: [{ path: "top", contents: "top" }] }] })
    registry.put("old", "1", old.schema1({ repository: "old", tag: "1" }))
    v1.put("v1", "1", LegacyImage.legacy({ seed: "v1", steps: [{ tar: [{ path: "v", contents: "v" }] }] }).images)
    const name = `${registry.host}/old:1`
    yield* Effect.gen(function*() {
      for (const reference of [name, `${v1.host}/v1:1`]) yield* Pull.pull(reference, { platform: "linux/amd64" })
      const bytes = Effect.map(Stream.runCollect(SaveOld.stream([name])), (chunks) => Buffer.concat(chunks))
      const before = yield* bytes
      const { dropped, kept } = yield* dropBlobs()
      assert.deepStrictEqual([dropped.length, kept.map(({ reason }) => reason)], [2, ["nobody knows where it could be fetched again"]])
      yield* assertSound(folder)
      assert.strictEqual((yield* Effect.flip(bytes))._tag, "NotSavable")
      yield* Refetch.layers(yield* SaveOld.layers([name]))
      assert.isTrue((yield* bytes).equals(before))
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)
})
