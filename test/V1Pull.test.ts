import { assert, layer as suite } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Layer, Option, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Pull from "../src/Pull.ts"
import { Graph } from "../src/store/Graph.ts"
import { Collector } from "../src/store/upkeep/Collector.ts"
import * as Archive from "../src/testing/Archive.ts"
import { Fault, LegacyImage, V1Server, type V1ServerOptions } from "../src/testing/index.ts"
import type { Rule } from "../src/testing/server/Fault.ts"
import { assertSound, temporary, towline } from "./harness.ts"
import { limits } from "./outcome.ts"

const platform = "linux/amd64"
const noise = (seed: number) => Buffer.from(Array.from({ length: 60_000 }, (_, at) => (at * at * (seed + 3) + (at >> 3)) % 251))
const { images } = LegacyImage.legacy({ steps: [{ tar: [{ path: "a", contents: noise(1) }] }, {}, { tar: [{ path: "b", contents: noise(2) }], stored: "none" }] })
const [base, , top] = images
const topId = top?.id ?? ""

const setting = <A, E>(options: V1ServerOptions, run: (server: V1Server, folder: string) => Effect.Effect<A, E, Layer.Success<ReturnType<typeof towline>>>) => Effect.scoped(Effect.gen(function*() {
  const folder = yield* temporary
  const server = yield* V1Server.make(options)
  server.put("team/app", "1", images)
  return yield* run(server, folder).pipe(Effect.tap(() => assertSound(folder)), Effect.provide(towline(folder, { limits })))
}))
const pulled = (server: V1Server, tag = "1") => Pull.pull(`${server.host}/team/app:${tag}`, { platform })
const text = (body: string): Fault.Action => Fault.status(200, { "content-type": "application/json" }, body)

/** A fault that a pull gets over, and one it does not. */
const met = (server: V1Server, folder: string, rules: ReadonlyArray<Rule>) => Effect.gen(function*() {
  server.script(rules)
  const image = yield* pulled(server)
  assert.strictEqual(image.id, topId)
  for (const [at, { diffId }] of image.layers.entries()) {
    if (at === 1) continue // Docker's empty layer
    assert.deepStrictEqual(readFileSync(join(folder, "store/layers/sha256", diffId.slice(7), "fs", at === 0 ? "a" : "b")), noise(at === 0 ? 1 : 2))
  }
})
const refused = (server: V1Server, rules: ReadonlyArray<Rule>, tags: ReadonlyArray<string>, title: string) => Effect.gen(function*() {
  server.script(rules)
  const began = performance.now()
  const error = yield* Effect.flip(pulled(server))
  assert.include(tags, error._tag, `${title}: ${error.message}`)
  assert.isBelow(performance.now() - began, 10_000, title)
  assert.deepStrictEqual(yield* (yield* Graph).list, [], title)
})

suite(Layer.empty, { excludeTestServices: true })("Pull from v1 registries", (it) => {
  const cut = { match: { kind: "layer", name: topId, nth: [1, 2] }, do: Fault.cutAt(20_000) } as const
  const survived: ReadonlyArray<readonly [string, V1ServerOptions, ReadonlyArray<Rule>]> = [
    ["cut bodies, with ranges", {}, [cut]],
    ["cut bodies, without ranges", { ranges: false }, [cut]],
    ["a wrong first byte", {}, [cut, { match: { kind: "layer", ranged: true }, do: Fault.wrongRange("lie-start") }]],
    ["another part's bytes under the right range", {}, [cut, { match: { kind: "layer", ranged: true, nth: 1 }, do: Fault.wrongRange("lie-bytes") }]],
    ["no word of the range", {}, [cut, { match: { kind: "layer", ranged: true }, do: Fault.wrongRange("no-header") }]],
    ["200 to a range", {}, [cut, { match: { kind: "layer", ranged: true }, do: Fault.wrongRange("ignore") }]],
    ["one damaged byte, once", {}, [{ match: { kind: "layer", name: topId, nth: 1 }, do: Fault.flip(700) }]],
    ["no json, twice", {}, [{ match: { kind: "json", name: base?.id ?? "", nth: [1, 2] }, do: text("{") }]],
    ["checksums of which one is right", { checksums: "list" }, []],
    ["no sizes, no checksums", { sizes: false, checksums: "none" }, []],
    ["a cut tar nobody vouches for, once", { sizes: false, checksums: "none", ranges: false }, [{ match: { kind: "layer", name: topId, nth: 1 }, do: [Fault.truncateLength(30_000)] }]]
  ]
  for (const [title, options, rules] of survived) {
    it.effect(`get over ${title}`, () => setting(options, (server, folder) => met(server, folder, rules)), 20_000)
  }

  it.effect("refuse what is not as it should be, and leave nothing", () => setting({}, Effect.fnUntraced(function*(server, folder) {
    const ids = images.map(({ id }) => id)
    const ancestry = (list: unknown): ReadonlyArray<Rule> => [{ match: { kind: "ancestry" }, do: text(typeof list === "string" ? list : JSON.stringify(list)) }]
    const cases: ReadonlyArray<readonly [string, ReadonlyArray<Rule>, ReadonlyArray<string>]> = [
      ["a bad id", ancestry([topId, "../x"]), ["AnswerRefused"]],
      ["another head", ancestry([ids[0]]), ["AnswerRefused"]],
      ["a loop", ancestry([topId, ids[1], topId]), ["AnswerRefused"]],
      ["none", ancestry([]), ["AnswerRefused"]],
      ["HTML", ancestry("<html>"), ["AnswerRefused", "NetworkError"]],
      ["a parent left out", ancestry([topId, ids[0]]), ["AnswerRefused"]],
      ["a damaged layer", [{ match: { kind: "layer", name: topId }, do: Fault.flip(700) }], ["AnswerRefused"]],
      ["a json of another image", [{ match: { kind: "json", name: topId }, do: text(Buffer.from(base?.json ?? "").toString()) }], ["AnswerRefused"]],
      ["a json that is HTML", [{ match: { kind: "json", name: topId }, do: Fault.html }], ["AnswerRefused", "NetworkError"]],
      ["a layer that is HTML", [{ match: { kind: "layer", name: topId }, do: Fault.html }], ["AnswerRefused", "LayerRefused", "NetworkError"]],
      ["a layer that is longer than told", [{ match: { kind: "layer", name: topId }, do: Fault.extraBytes(5000) }], ["AnswerRefused", "NetworkError"]],
      ["no tag", [{ match: { kind: "tags" }, do: Fault.status(404, {}, "") }], ["NotFound"]]
    ]
    for (const [title, rules, tags] of cases) yield* refused(server, rules, tags, title)
    server.script([])
    assert.strictEqual((yield* Effect.flip(pulled(server, "none")))._tag, "NotFound")
    yield* met(server, folder, [])
  })), 60_000)

  it.effect("leave nothing when interrupted", () => setting({}, Effect.fnUntraced(function*(server, folder) {
    const began = yield* Deferred.make<void>()
    server.script([{ match: { kind: "layer", name: topId }, do: Fault.drip(5000) }])
    const fiber = yield* Effect.forkChild(Effect.andThen(Deferred.succeed(began, undefined), pulled(server)))
    yield* Deferred.await(began)
    for (let n = 0; n < 200 && !server.requests.some(({ kind }) => kind === "layer"); n++) yield* Effect.sleep("20 millis")
    yield* Fiber.interrupt(fiber)
    assert.deepStrictEqual(yield* (yield* Graph).list, [])
    yield* met(server, folder, [])
  })), 20_000)

  it.effect("that were stopped go on with the layers that came, as long as the registry tells the same of them", () => setting({}, Effect.fnUntraced(function*(server: V1Server, folder: string) {
    const db = (statement: string) => Effect.sync(() => {
      const db = new DatabaseSync(join(folder, "store/graph.db"))
      const rows = db.prepare(statement).all()
      db.close()
      return rows
    })
    const names = db("SELECT image FROM v1_layers")
    const baseId = base?.id ?? ""
    /** A pull that ends when the lowest layer is there, with the answer to the highest still to come: whether the lowest was asked for. */
    const stopped = Effect.gen(function*() {
      server.script([{ match: { kind: "layer", name: topId }, do: Fault.stall("headers", Infinity) }])
      server.forget()
      const there = yield* Pull.events(`${server.host}/team/app:1`, { platform }).pipe(
        Stream.filter((event) => (event._tag === "committed" || event._tag === "exists") && event.layer === baseId), Stream.runHead)
      server.script([])
      const asked = server.find({ kind: "layer", name: baseId }).length > 0
      assert.deepStrictEqual(Option.map(there, ({ _tag }) => _tag), Option.some(asked ? "committed" : "exists"))
      return asked
    })
    assert.isTrue(yield* stopped)
    assert.deepInclude(yield* names, { image: baseId })
    assert.isFalse(yield* stopped, "it is not fetched again")
    // Its files are gone: they are made of what is kept.
    rmSync(join(folder, "store/layers/sha256", base?.diffId.slice(7) ?? ""), { recursive: true })
    assert.isFalse(yield* stopped)
    yield* db("UPDATE v1_layers SET told = 'something else'")
    assert.isTrue(yield* stopped, "another JSON, length or checksum")
    yield* db("UPDATE v1_layers SET repository = 'other'")
    assert.isTrue(yield* stopped, "another repository")
    yield* db("UPDATE v1_layers SET at = at - 3600000")
    assert.isTrue(yield* stopped, "too long ago")
    const blob = String((yield* db(`SELECT blob FROM v1_layers WHERE image = '${baseId}'`))[0]?.["blob"])
    const file = join(folder, "store/blobs/sha256", blob.slice(7))
    writeFileSync(file, Buffer.alloc(statSync(file).size))
    rmSync(join(folder, "store/layers/sha256", base?.diffId.slice(7) ?? ""), { recursive: true })
    assert.isTrue(yield* stopped, "damaged here")
    assert.deepStrictEqual(server.requests.filter(({ path }) => path.includes("/blobs/")), [], "and nobody is asked for a digest")

    yield* (yield* Collector).collect({ olderThan: Duration.zero })
    assert.deepStrictEqual([yield* names, readdirSync(join(folder, "store/blobs/sha256"))], [[], []])
    assert.isTrue(yield* stopped)
    const other = yield* V1Server.make()
    other.put("team/app", "1", images)
    yield* pulled(other)
    assert.isAbove(other.find({ kind: "layer", name: baseId }).length, 0, "another endpoint")
    assert.deepStrictEqual(yield* names, [], "what is registered is known by its own row")
    assert.strictEqual((yield* pulled(server)).id, topId)
  }, Effect.scoped)), 60_000)

  it.effect("take layers in plain tar, gzip, bzip2 and xz", () => setting({}, Effect.fnUntraced(function*(server, folder) {
    const tar = Archive.archive([{ path: "c", contents: "c" }])
    const packed = (program: string) => {
      const { status, stdout } = spawnSync(program, ["-c"], { input: tar })
      return status === 0 ? stdout : undefined
    }
    const forms = ["none" as const, "gzip" as const, packed("bzip2"), packed("xz")].flatMap((stored) => stored === undefined ? [] : [stored])
    const chain = LegacyImage.legacy({ seed: "forms", steps: forms.map((stored) => ({ tar, stored })) }).images
    server.put("team/app", "forms", chain)
    const { layers } = yield* pulled(server, "forms")
    assert.deepStrictEqual([layers.length, new Set(layers.map(({ diffId }) => diffId)).size], [forms.length, 1])
    assert.strictEqual(readdirSync(join(folder, "store/layers/sha256")).length, 1)
  })), 20_000)

  it.effect("ask the next endpoint where one is dead", () => Effect.scoped(Effect.gen(function*() {
    const folder = yield* temporary
    const dead = yield* V1Server.make({ role: "registry", script: [{ match: {}, do: Fault.status(500, {}, "") }] })
    const live = yield* V1Server.make({ role: "registry" })
    const server = yield* V1Server.make({ role: "index", registries: ["127.0.0.1:1", dead, live] })
    server.put("team/app", "1", images)
    yield* met(server, folder, []).pipe(Effect.tap(() => assertSound(folder)), Effect.provide(towline(folder, { limits })))
  })), 20_000)
})
