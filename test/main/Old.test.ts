import { assert, layer as suite } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import * as Archive from "../../src/testing/Archive.ts"
import { LegacyImage, Signature } from "../../src/testing/index.ts"
import { command } from "../command.ts"
import { assertChecked, assertFailed, setting } from "./setting.ts"

const [a, b] = ["a".repeat(64), "b".repeat(64)] as const
const tar = gzipSync(Archive.archive([{ path: "etc/" }, { path: "etc/name", contents: "knot" }]))
const image = LegacyImage.legacy({ steps: [{ tar: [{ path: "f", contents: "f" }] }, {}] })

suite(Layer.empty, { excludeTestServices: true })("Commands for old images", (it) => {
  it.effect("set, history, tag and save", () => Effect.scoped(Effect.gen(function*() {
    const { folder, graph, store } = yield* setting()
    const file = (name: string, contents: string | Uint8Array) => {
      writeFileSync(join(folder, name), contents)
      return join(folder, name)
    }
    const layer = file("layer.tar.gz", tar)
    const json = (id: string, parent?: string) => file(`${id}.json`, JSON.stringify({ id, ...(parent === undefined ? {} : { parent }), created: "2015-09-08T21:30:30Z", container_config: { Cmd: ["/bin/sh", "-c", `make ${id.slice(0, 2)}`] } }))
    const set = (input: string, ...args: ReadonlyArray<string>) =>
      command("graph", ["set", "--store", store, "--durability", "fast", ...args], { under: ["sh", "-c", `exec "$@" < "$0"`, input] })
    const made = yield* set(layer, a, "--json", json(a))
    assert.deepStrictEqual([made.stdout, made.stderr, made.code], [`${a}\n`, "", 0])
    assert.strictEqual((yield* set("/dev/null", b, "--json", json(b, a))).stdout, `${b}\n`)
    assert.match((yield* set("/dev/null", b, "--json", json(b, a))).stderr, /is in the graph already/)
    assertFailed(yield* set(layer, "abc", "--json", json(a)), 6, /image ID 'abc' is invalid/)
    assert.strictEqual((yield* graph("tag", [b.slice(0, 12), "old/app:1"])).code, 0)
    const conflict = yield* graph("tag", [a, "old/app:1"])
    assert.match(conflict.stderr, new RegExp(`Conflict: Tag old/app:1 is already set to image ${b.slice(0, 12)}, if you want to replace it, please use -f option`))
    assert.isAbove(conflict.code ?? 0, 0)
    assert.strictEqual((yield* graph("tag", ["-f", a, "old/app:2"])).code, 0)
    const steps: unknown = JSON.parse((yield* graph("history", ["--v1", "--json", "old/app:1"])).stdout)
    assert.deepStrictEqual(steps, [b, a].map((id) => ({ id, v1: id, created: "2015-09-08T21:30:30Z", createdBy: `/bin/sh -c make ${id.slice(0, 2)}`, comment: "", size: id === a ? 4 : 0 })))
    assert.match((yield* graph("history", ["old/app:1"])).stdout, /CREATED BY.*IMAGE.*\n\/bin\/sh -c make bb/)
    const archive = join(folder, "saved.tar")
    assert.strictEqual((yield* graph("save", ["--format", "docker-1.9", "old/app", "-o", archive])).code, 0)
    const again = yield* command("graph", ["load", "-q", "--durability", "fast", "--store", join(folder, "other"), archive])
    assert.strictEqual(again.code, 0, again.stderr)
    const listed = yield* command("graph", ["ls", "--json", "--store", join(folder, "other")])
    assert.deepStrictEqual([...listed.stdout.matchAll(/"reference":"(\w)"/g)].map(([, tag]) => tag), ["1", "2"])
    yield* assertChecked(store)
  })), 60_000)

  it.effect("pull with trusted keys, and as docker 1.9 did", () => Effect.scoped(Effect.gen(function*() {
    const { folder, pull, registry } = yield* setting()
    const [known, other] = [Signature.signer(), Signature.signer()]
    registry.put("old", "1", image.schema1({ repository: "old", tag: "1", signers: [known] }))
    const key = (name: string, { publicKey }: Signature.Signer) => {
      writeFileSync(join(folder, name), publicKey.export({ type: "spki", format: "pem" }))
      return ["--trust-key", join(folder, name)]
    }
    const reference = `${registry.host}/old:1`
    assertFailed(yield* pull(["-q", ...key("other.pem", other), reference]), 6, /is signed by .*--trust-key asks for/)
    const good = yield* pull(["-q", "--durability", "fast", ...key("known.pem", known), reference])
    assert.deepStrictEqual([good.stderr, good.code], ["", 0])
    assert.strictEqual((yield* pull(["-q", "--docker-1.9", reference])).code, 0)
  })), 60_000)
})
