import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Load from "../src/Load.ts"
import * as Policy from "../src/Policy.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import * as Pull from "../src/Pull.ts"
import * as RootFs from "../src/RootFs.ts"
import { Graph } from "../src/store/Graph.ts"
import { Archive, Fault, ImageBuilder, LegacyImage, SavedArchive, Signature, TestRegistry, Tree, V1Server } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const { noise } = ImageBuilder
const image = LegacyImage.legacy({
  config: { Cmd: ["/bin/greet"], Env: ["A=b"] },
  steps: [
    { tar: [{ path: "etc/" }, { path: "etc/motd", contents: "gone\n" }, { path: "bin/" }, { path: "bin/greet", mode: 0o755, contents: noise("greet", 200_000) }] },
    {},
    { tar: [{ path: "etc/.wh.motd" }, { path: "etc/hosts", contents: "127.0.0.1 localhost\n" }, { path: "bin/ahoy", type: "link", linkpath: "bin/greet" }], stored: "none" },
    { tar: [{ path: "data/" }, { path: "data/.wh..wh..opq" }, { path: "data/x", contents: noise("x", 50_000) }] }
  ]
})

describe("one image of every generation", () => {
  it.live("gives one tree, and its layers are stored once", () => Effect.gen(function*() {
    const folder = yield* temporary
    const modern = yield* TestRegistry.make()
    modern.put("app", "oci", image.oci).put("app", "schema2", image.schema2)
      .put("app", "schema1", image.schema1({ repository: "app", tag: "schema1", signers: [Signature.signer()], twice: [1, 3] }))
    const registry = yield* V1Server.make({ role: "registry", tokens: "single", script: [{ match: { kind: "layer", nth: 1 }, do: Fault.cutAt(1000) }] })
    const old = (yield* V1Server.make({ role: "index", registries: ["127.0.0.1:1", registry], tokens: "single" })).put("team/app", "v1", image.images)
    yield* Effect.gen(function*() {
      const trees = []
      for (const reference of [`${modern.host}/app:oci`, `${modern.host}/app:schema2`, `${modern.host}/app:schema1`, `${old.host}/team/app:v1`]) {
        const rootfs = join(folder, `root-${trees.length}`)
        const pulled = yield* Pull.pull(reference, { platform, rootfs })
        assert.deepStrictEqual(pulled.config.image.config?.Cmd, ["/bin/greet"])
        trees.push(Tree.walk(rootfs))
      }
      for (const tree of trees.slice(1)) assert.deepStrictEqual(Tree.diff(trees[0] ?? [], tree), [])
      assert.deepStrictEqual(trees[0]?.map(({ path }) => path), ["", "bin", "bin/ahoy", "bin/greet", "data", "data/x", "etc", "etc/hosts"])
      assert.deepStrictEqual(readdirSync(join(folder, "store", "layers", "sha256")).sort(), [...new Set(image.images.map(({ diffId }) => diffId.slice(7)))].sort())
      yield* assertSound(folder)
      const other = join(folder, "other"), archive = join(folder, "saved.tar"), top = image.images.at(-1)?.id ?? ""
      writeFileSync(archive, Archive.archive(SavedArchive.legacy(
        image.images.map(({ id, json, layer }) => ({ id, json: Buffer.from(json).toString(), layer })), { "team/app": { saved: top } })))
      const loaded = yield* Effect.scoped(Effect.gen(function*() {
        yield* Load.load(new Hub<PullEvent>(keyOf), archive)
        const { id, layers } = yield* (yield* Graph).resolve("team/app:saved")
        const repository = { domain: "docker.io", path: "team/app" }
        const root = yield* RootFs.make({ reference: "team/app:saved", layers: layers.map((layer) => ({ ...layer, repository })) }, { place: folder })
        return { id, tree: Tree.walk(root) }
      })).pipe(Effect.provide(towline(other)))
      assert.strictEqual(loaded.id, top)
      assert.deepStrictEqual(Tree.diff(trees[0] ?? [], loaded.tree), [])
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})

describe("where v1 is tried", () => {
  const { images } = LegacyImage.legacy({ steps: [{ tar: [{ path: "a", contents: "a" }] }] })
  const header = { "docker-distribution-api-version": "registry/2.0" }
  const answer = (status: number, body: string, v2: boolean): ReadonlyArray<Fault.Rule> => [
    ...v2 ? [{ match: { kind: "ping" }, do: Fault.setHeaders(header) } as const] : [],
    { match: { kind: "page" }, do: [Fault.status(status, {}, body), ...v2 ? [Fault.setHeaders(header)] : []] }
  ]
  const errors = (...entries: ReadonlyArray<object>) => JSON.stringify({ errors: entries })
  const denied = { code: "DENIED", message: "not for you" }
  const v1 = "v1", final = "final"
  const rows: ReadonlyArray<readonly [string, ReadonlyArray<Fault.Rule>, safe: string, docker: string]> = [
    ["v2 absent", [], v1, v1],
    ["v2 absent, and everything is 401", answer(401, "no", false), v1, v1],
    ["a v2 registry lacks the manifest", answer(404, errors({ code: "MANIFEST_UNKNOWN", message: "manifest unknown", detail: { Tag: "v1" } }), true), final, v1],
    ["it asks for a login", answer(401, errors({ code: "UNAUTHORIZED", message: "authentication required", detail: [] }), true), final, v1],
    ["it denies", answer(403, errors(denied), true), final, final],
    ["it denies by a bare code", answer(403, errors({ code: "DENIED" }), true), final, v1],
    ["its list of errors is empty", answer(404, errors(), true), final, v1],
    ["it answers with a page", answer(404, "<html>", true), final, v1],
    ["it breaks down", answer(500, "oops", true), final, v1],
    ["what it sends is no manifest", answer(200, "{}", true), final, v1]
  ]
  for (const mode of ["safe", "docker-1.9"] as const) {
    it.live(mode, () => Effect.gen(function*() {
      const folder = yield* temporary
      yield* Effect.gen(function*() {
        for (const [name, script, safe, docker] of rows) {
          const server = (yield* V1Server.make({ script })).put("team/app", "v1", images)
          const exit = yield* Effect.exit(Pull.pull(`${server.host}/team/app:v1`, { platform }))
          const expected = mode === "safe" ? safe : docker
          assert.deepStrictEqual([server.find({ kind: "images" }).length > 0 ? v1 : final, exit._tag], [expected, expected === v1 ? "Success" : "Failure"], name)
        }
        const server = (yield* V1Server.make()).put("team/app", "v1", images)
        yield* Effect.flip(Pull.pull(`${server.host}/team/app@sha256:${"0".repeat(64)}`, { platform }))
        assert.strictEqual(server.find({ kind: "images" }).length, 0, "never for a digest")
      }).pipe(Effect.provide(towline(folder)), Effect.provideService(Policy.Protocol, mode))
    }).pipe(Effect.scoped))
  }
})
