import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import { mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder } from "../src/testing/index.ts"
import { command, type Ended } from "./command.ts"
import { temporary } from "./harness.ts"
import { type Call, callsIn, faults, options, type Places } from "./interop/order.ts"
import { assertDigest, setting } from "./main/setting.ts"
import { scenarios, Shelf } from "./scenarios.ts"
import { missing } from "./strace.ts"

const required = process.env["TOWLINE_INTEROP"] === "required"
const demo = ImageBuilder.demo()

/** The blobs of the demo image's layers, and what stands for each once it was given up. */
const given = (store: string): NonNullable<Places["given"]> => demo.layers.map(({ digest }, at) => {
  const sums = join(store, "layers/sha256", (demo.diffIds[at] ?? "").slice(7), "sums")
  return { blob: join(store, "blobs/sha256", digest.slice(7)), sums, hash: createHash("sha256").update(readFileSync(sums)).digest("hex") }
})

/** Runs a command traced; fails where a power loss could hurt, at `places` and what they are found to be afterwards. Gives its calls. */
const ordered = Effect.fnUntraced(function*(
  line: readonly ["pull" | "graph", ...ReadonlyArray<string>], places: Places, done: (ended: Ended) => void, found: () => Partial<Places> = () => ({})
) {
  const trace = join(yield* temporary, "trace")
  const [name, ...args] = line
  done(yield* command(name, args, { under: ["strace", "-qq", "-o", trace, ...options] }))
  const calls = callsIn(readFileSync(trace, "utf8"))
  assert.deepStrictEqual([line, faults(calls, { ...places, ...found() })], [line, []])
  return (folder: string) => new Set(calls.filter(({ name, to }) => name === "rename" && to.startsWith(folder)).map(({ to }) => to)).size
})

layer(Shelf.layer.pipe(Layer.orDie), { excludeTestServices: true })("Power loss", (it) => {
  it.effect.skipIf(missing && !required)("everything is on the disk before what names it, whatever is written (needs strace)", () => Effect.gen(function*() {
    assert.isFalse(missing, "strace is missing, or may not trace")
    const { folder, reference } = yield* setting()
    // Its row has the name and the tag one after the other.
    const tagOf = (reference = "") => reference.replace(/:([^:/]*)$/, "$1")
    for (const [index, args] of [["--no-unpack"], ["--output", "oci:out/layout", "--output", "oci-archive:out/oci.tar", "--output", "docker-archive:out/docker.tar", "--output", "tar:out/root.tar"]].entries()) {
      const place = join(folder, String(index))
      const [store, out] = [join(place, "store"), join(place, "out")]
      mkdirSync(out, { recursive: true })
      const given = args.map((arg) => arg.replace(":out/", `:${out}/`))
      const renamed = yield* ordered(["pull", "-q", "--store", store, ...given, reference], { store, tag: tagOf(reference), outputs: [out] }, assertDigest)
      assert.strictEqual(renamed(`${store}/blobs/`), demo.layers.length + 2)
      // The layout's marker, its blobs with a config and a manifest, its index.
      if (index > 0) assert.deepStrictEqual([renamed(`${out}/layout/`), renamed(`${out}/`)], [demo.layers.length + 4, demo.layers.length + 7])
    }
    const { archive, reference: shelved, store } = yield* Shelf
    const saved = join(folder, "saved.tar")
    assert.strictEqual((yield* ordered(["graph", "save", "--store", store, "-o", saved, shelved], { store, outputs: [saved] }, ({ code }) => assert.strictEqual(code, 0)))(saved), 1)
    assert.isNotEmpty(archive)
    for (const { name, prepare } of scenarios) {
      const { done, line, place, store } = yield* prepare
      const root = place === undefined ? undefined : join(place, "root")
      const tag = name === "graph load" ? tagOf("docker.io/library/app:1") : name.startsWith("pull") ? tagOf(line.at(-1)) : undefined
      const dropping = line.includes("--drop-blobs")
      const renamed = yield* ordered(line, { store, ...tag === undefined ? {} : { tag }, ...root === undefined ? {} : { root } }, done, () => dropping ? { given: given(store) } : {})
      if (dropping) assert.strictEqual(renamed(`${store}/layers/`), demo.layers.length)
      else if (name === "graph gc" || name === "graph rm") assert.isAbove(renamed(`${store}/ingest/`), 0, `${name} removes layers`)
      else if (name === "graph check --repair") assert.isAbove(renamed(`${store}/quarantine/`), 2)
      else if (name !== "graph rootfs") assert.isAbove(renamed(`${store}/blobs/`), 3, name)
    }
  }).pipe(Effect.scoped), 300_000)
})

describe("The checker of the order", () => {
  it("notices each kind of wrong order", () => {
    const call = (name: string, path: string, to = "", text = ""): Call => ({ name, path, to, text })
    const [ingest, blob, layer, log] = ["/s/ingest/x", "/s/blobs/sha256/x", "/s/layers/sha256/y", "/s/graph.db-wal"]
    const right = [
      call("write", ingest), call("sync", ingest), call("rename", ingest, blob), call("sync", "/s/blobs/sha256"), call("write", log), call("sync", log),
      call("rename", "/s/ingest/l", layer), call("syncfs", "/s"), call("rename", "/s/../staging", "/r/root"), call("sync", "/r"), call("write", log, "", "the tag"), call("sync", log)
    ]
    const pulled = { store: "/s", tag: "the tag", root: "/r/root" }
    assert.deepStrictEqual(faults(right, pulled), [])
    for (const [left, said] of [[1, /bytes of/], [3, /name of .* was never/], [7, /files of/], [9, /name of \/r\/root/], [10, /no write of the tag/], [11, /tag itself/]] as const) {
      assert.match(faults(right.toSpliced(left, 1), pulled).join(), said, `without ${left}`)
    }
    const late = [...right.slice(0, 7), ...right.slice(8), right[7] ?? call("syncfs", "/s")]
    assert.match(faults(late, pulled).join(), /tag came before the files/)
    assert.match(faults([...right, call("write", `${layer}/meta`)], pulled).join(), /meta was written after/)
    const removal = [call("write", log), call("sync", log), call("rename", layer, "/s/ingest/removed"), call("unlink", blob)]
    assert.deepStrictEqual(faults(removal, { store: "/s" }), [])
    assert.deepStrictEqual(faults(removal.toSpliced(1, 1), { store: "/s" }).map((said) => said.replace(/ went.*/, "")), [layer, blob])
    const folders = [call("mkdir", "/s"), call("mkdir", "/s/blobs"), call("mkdir", "/s/blobs/sha256"), call("sync", "/"), call("sync", "/s"), call("sync", "/s/blobs")]
    assert.deepStrictEqual(faults([...folders, ...right], pulled), [])
    for (const left of [3, 4, 5]) {
      const said = faults([...folders.toSpliced(left, 1), ...right], pulled).join()
      assert.match(said, /name of the folder \/s.* was not on the disk .*blobs\/sha256\/x/, `without ${left}`)
    }
    assert.match(faults([...folders.slice(0, 5), ...right.slice(0, 6), call("sync", "/s/blobs"), ...right.slice(6)], pulled).join(), /folder \/s\/blobs\/sha256/, "after the row")
    const sums = `${layer}/sums`
    const up = [
      call("write", "/s/ingest/m/sums"), call("sync", "/s/ingest/m/sums"), call("rename", "/s/ingest/m/sums", sums), call("sync", layer), call("write", log, "", "abc"), call("sync", log),
      call("unlink", blob)
    ]
    const gone = { store: "/s", given: [{ blob, sums, hash: "abc" }] }
    assert.deepStrictEqual(faults(up, gone), [])
    for (const [left, said] of [[1, /bytes of/], [2, /never recorded/], [3, /never recorded/], [4, /never recorded/], [5, /went before/], [6, /went before/]] as const) {
      assert.match(faults(up.toSpliced(left, 1), gone).join(), said, `without ${left}`)
    }
    const swapped = (a: number, b: number) => faults(up.with(a, up[b] ?? call("sync", "")).with(b, up[a] ?? call("sync", "")), gone).join()
    assert.match(swapped(3, 4), /row of .*sums came before/)
    assert.match(swapped(5, 6), /x went before/)
    const file = [call("write", "/o/f.1"), call("sync", "/o/f.1"), call("rename", "/o/f.1", "/o/f"), call("sync", "/o")]
    for (const [left, said] of [[1, /bytes of/], [3, /name of/]] as const) assert.match(faults(file.toSpliced(left, 1), { store: "/s", outputs: ["/o/f"] }).join(), said)
    assert.deepStrictEqual(faults(file, { store: "/s", outputs: ["/o/f"] }), [])
    assert.match(faults(file.map((call) => ({ ...call, path: call.path.replace("/o", "/s"), to: call.to.replace("/o", "/s") })).slice(0, 3), { store: "/s" }).join(), /name of \/s\/f/)
  })
})
