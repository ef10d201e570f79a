import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Descriptor } from "../../src/image/Descriptor.ts"
import { PlannedLayer, PullPlan } from "../../src/PullPlan.ts"
import * as Pull from "../../src/Pull.ts"
import { Fault, ImageBuilder, LegacyImage, TestRegistry, V1Server } from "../../src/testing/index.ts"
import { command } from "../command.ts"
import { temporary, towline } from "../harness.ts"
import { assertFailed, setting } from "./setting.ts"

/** Files in the folder of a setting. */
const put = (folder: string, files: Readonly<Record<string, string>>): void => {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
}

describe("pull --explain", () => {
  it.live("endpoints with their rules, credentials without the secret, candidates, layers; nothing is fetched but documents", () => Effect.gen(function*() {
    const { folder, pull, registry } = yield* setting({ auth: { kind: "basic", users: { ada: "hush" } } })
    const arm = ImageBuilder.image({ layers: [[{ path: "arm", contents: "" }]], platform: { os: "linux", architecture: "arm64" } })
    registry.put("team/app", "1", ImageBuilder.index([ImageBuilder.demo(), arm]))
    const env = { DOCKER_CONFIG: join(folder, "docker"), XDG_CONFIG_HOME: join(folder, "config") }
    put(folder, {
      "docker/config.json": JSON.stringify({ auths: { [`${registry.host}/team`]: { auth: Buffer.from("ada:hush").toString("base64") } } }),
      "config/containers/registries.conf": `[[registry]]\nprefix = "example.com/x"\nlocation = "${registry.host}/team"\n[[registry.mirror]]\nlocation = "127.0.0.1:1/m"\n`
    })
    const args = ["--explain", "--platform", "linux/amd64", "example.com/x/app:1"]
    const shown = yield* pull(args, { env })
    assert.deepStrictEqual([shown.code, shown.stderr], [0, ""])
    // A word that is longer stands alone.
    for (const line of shown.stdout.trimEnd().split("\n")) if (/ \S+ \S/.test(line.slice(12).trim())) assert.isAtMost(line.length, 60, line)
    const text = shown.stdout
    assert.match(text, /^reference {3}example\.com\/x\/app:1\nendpoints {3}1\. https:\/\/127\.0\.0\.1:1\/v2\/m\/app\n {15}by\s+.*registries\.conf:4\n {15}mirror, left out: the connection was refused\n/)
    assert.match(text, /2\. http:\/\/127\.0\.0\.1:\d+\/v2\/team\/app\n {15}by\s+.*registries\.conf:1\n {15}answered\n/)
    assert.match(text, new RegExp(`credentials .*docker/config\\.json\\s+\\("${registry.host}/team"\\)`))
    assert.match(text, /protocol {4}v2, OCI\n/)
    assert.match(text, /candidates {2}\w{12} linux\/amd64: chosen\n {12}\w{12} linux\/arm64: .+\n/)
    assert.match(text, /download {4}(\S+ \S+) of \1\n$/)
    assert.notInclude(text, "hush")
    const json: unknown = JSON.parse((yield* pull([...args, "--json"], { env })).stdout)
    assert.nestedPropertyVal(json, "endpoints[1].chosen", true)
    assert.nestedPropertyVal(json, "endpoints[0].aside", "the connection was refused")
    assert.nestedPropertyVal(json, "layers[0].state", "missing")
    assert.nestedProperty(json, "candidates[1].lost")
    const layers = ImageBuilder.demo().layers.map(({ digest }) => digest)
    assert.strictEqual(registry.requests.filter(({ name }) => layers.some((digest) => digest === name)).length, 0)
    yield* pull(["-q", ...args.slice(1)], { env })
    const after: unknown = JSON.parse((yield* pull([...args, "--json"], { env })).stdout)
    assert.nestedPropertyVal(after, "layers[0].state", "unpacked")
    assert.nestedPropertyVal(after, "download", 0)
  }).pipe(Effect.scoped), 60_000)
})

describe("the network's flags", () => {
  it.live("--retries and --timeout, or their variables, bound a pull; mistakes are usage errors", () => Effect.gen(function*() {
    const { pull, reference, registry } = yield* setting()
    registry.script([{ match: {}, do: Fault.status(503) }])
    assertFailed(yield* pull(["--retries", "2", reference]), 5, /it answered 503/)
    assert.strictEqual(registry.find({ kind: "manifest" }).length, 2)
    registry.forget()
    assertFailed(yield* pull([reference], { env: { TOWLINE_RETRIES: "1" } }), 5, /503/)
    assert.strictEqual(registry.find({ kind: "manifest" }).length, 1)
    registry.script([{ match: {}, do: Fault.stall("headers", Infinity) }])
    assertFailed(yield* pull(["--retries", "1", "--timeout", "300ms", reference]), 5, /no answer in 300ms/)
    for (const args of [["--retries", "0"], ["--timeout", "soon"], ["--bandwidth", "fast"]]) assert.strictEqual((yield* pull([...args, reference])).code, 2)
  }).pipe(Effect.scoped), 60_000)

  it.live("and those of check --repair and --rollback", () => Effect.gen(function*() {
    const { folder, pull, reference, registry, store } = yield* setting()
    const graph = (args: ReadonlyArray<string>, env = {}) => command("graph", [...args, "--store", store], { env })
    assert.strictEqual((yield* pull(["-q", reference])).code, 0)
    const { digest = "" } = ImageBuilder.demo().layers[0] ?? {}
    writeFileSync(join(store, "blobs/sha256", digest.slice(7)), "damaged")
    registry.script([{ match: {}, do: Fault.status(503) }])
    const tries = (name: string) => registry.find({ name }).length
    registry.forget()
    assert.strictEqual((yield* graph(["check", "--repair", "-q", "--retries", "1"])).code, 6)
    assert.isBelow(tries(digest), 5, "one try a round")
    registry.script([])
    assert.strictEqual((yield* graph(["check", "--repair", "-q"])).code, 0)
    registry.put("app", "1", ImageBuilder.image({ layers: [[{ path: "new", contents: "" }]] }))
    yield* pull(["-q", reference], { cwd: folder })
    yield* graph(["gc", "--older-than", "0"])
    registry.script([{ match: {}, do: Fault.status(503) }])
    registry.forget()
    assertFailed(yield* pull(["--rollback", reference], { env: { TOWLINE_RETRIES: "3" } }), 5, /it answered 503/)
    assert.strictEqual(tries(ImageBuilder.demo().manifest.descriptor.digest), 3)
  }).pipe(Effect.scoped), 60_000)

  it.live("--bandwidth", () => Effect.gen(function*() {
    const { folder, pull, registry } = yield* setting()
    const layer = ImageBuilder.layer([{ path: "noise", contents: ImageBuilder.noise("slow", 300_000) }], { compression: "none" })
    registry.put("slow", "1", ImageBuilder.image({ layers: [layer] }))
    const began = performance.now()
    assert.strictEqual((yield* pull(["-q", "--durability", "fast", "--bandwidth", "200k", `${registry.host}/slow:1`], { cwd: folder })).code, 0)
    assert.isAbove(performance.now() - began, 1400)
  }).pipe(Effect.scoped), 60_000)

  it.live("a short name is looked for where registries.conf says; when none has it, each is named", () => Effect.gen(function*() {
    const { folder, pull, registry } = yield* setting()
    const other = yield* TestRegistry.make()
    put(folder, { "config/containers/registries.conf": `unqualified-search-registries = ["${other.host}", "${registry.host}"]\n` })
    const env = { XDG_CONFIG_HOME: join(folder, "config") }
    assert.strictEqual((yield* pull(["app:1", "--progress", "quiet"], { env })).stdout, `${registry.host}/app:1 ${ImageBuilder.demo().manifest.descriptor.digest}\n`)
    const failed = yield* pull(["none:1", "--progress", "quiet"], { env })
    assert.strictEqual(failed.code, 3)
    assert.match(failed.stderr, new RegExp(`^pull: ${registry.host} has no repository none; check the name\n  1\\. ${other.host}/none:1 \\(.*registries\\.conf:1\\): ${other.host} has no repository none`))
  }).pipe(Effect.scoped), 60_000)
})

describe("the table", () => {
  it("fits a terminal of 60 columns, whatever the names are", async () => {
    const { table } = await import("../../src/main/commands/ExplainCommand.ts")
    const built = ImageBuilder.demo()
    const descriptor = new Descriptor(built.manifest.descriptor)
    const long = "very-long-name/".repeat(9)
    const plan = new PullPlan({
      reference: `registry.example/${long}x:1`, repository: { domain: "registry.example", path: `${long}x` }, name: "1", endpoint: "https://registry.example",
      endpoints: [{ url: `https://registry.example/v2/${long}x`, why: `/etc/${long}hosts.toml:4`, mirror: true, tags: false, content: true, verified: false, chosen: true, aside: "nothing came for 30 seconds in the middle of the body, and so on" }],
      credentials: `docker-credential-x (credHelpers in /home/${long}config.json)`, target: descriptor, wanted: "linux/amd64", platform: "linux/arm64", fits: false,
      candidates: [{ digest: descriptor.digest, platform: "linux/arm64", lost: `for another platform: ${"x".repeat(90)}` }], kind: "oci", manifest: descriptor, config: descriptor,
      layers: [new PlannedLayer({ blob: descriptor, diffId: descriptor.digest, state: "partial", have: 5, stored: false })], documents: []
    })
    for (const columns of [60, 80, 200]) for (const line of table(plan, columns).split("\n")) assert.isAtMost(line.length, columns, line)
    assert.include(table(plan, undefined), `/etc/${long}hosts.toml:4`)
  })

  it.live("of an image in a v1 registry: index, token, ancestry; of a schema1 manifest: who signed it, and each layer's image", () => Effect.gen(function*() {
    const { facts, table } = yield* Effect.promise(() => import("../../src/main/commands/ExplainCommand.ts"))
    const folder = yield* temporary
    const { images } = LegacyImage.legacy({ steps: [{ tar: [{ path: "a", contents: "a" }] }, {}, { tar: [{ path: "b", contents: "b" }] }] })
    const server = yield* V1Server.make({ users: { ada: "hush" }, tokens: "plain" })
    server.put("team/app", "1", images.slice(0, 2)).put("team/app", "2", images)
    put(folder, { "no-config/config.json": JSON.stringify({ auths: { [server.host]: { auth: Buffer.from("ada:hush").toString("base64") } } }) })
    const signed = LegacyImage.legacy({ steps: [{ tar: [{ path: "x", contents: "x" }] }] }).schema1({ repository: "old", tag: "1" })
    const registry = yield* TestRegistry.make()
    registry.put("old", "1", signed)
    yield* Effect.gen(function*() {
      yield* Pull.pull(`${server.host}/team/app:1`, { platform: "linux/amd64" })
      server.forget()
      const plan = yield* Pull.plan(`${server.host}/team/app:2`, { platform: "linux/amd64" })
      const size = images[2]?.layer.byteLength ?? 0
      assert.deepInclude(JSON.parse(JSON.stringify(facts(plan))), {
        protocol: "v1", grant: "token", index: server.url, endpoint: server.url, image: images[2]?.id ?? "", download: size, unsized: 0,
        images: images.map(({ id }, at) => ({ id, state: at < 2 ? "unpacked" : "missing", ...at < 2 ? {} : { size } }))
      })
      const text = table(plan, undefined)
      assert.match(text, new RegExp(`endpoints   1\\. ${server.url}/v1/\n +by the registry of the\\s+reference\n +answered\n`))
      assert.match(text, /credentials .*no-config\/config\.json[^;]*;[^;]*token/s)
      assert.match(text, new RegExp(`ancestry    ${images[0]?.id.slice(0, 12)} +present\n +${images[1]?.id.slice(0, 12)} +present\n +${images[2]?.id.slice(0, 12)} .*missing\n`))
      assert.notInclude(text + JSON.stringify(facts(plan)), "hush")
      assert.deepStrictEqual(server.find({ kind: "layer" }), [])
      const old = yield* Pull.plan(`${registry.host}/old:1`, { platform: "linux/amd64" })
      assert.match(table(old, undefined), /protocol    v2, signed schema1\nsigned by   nobody/)
      assert.match(table(old, undefined), /missing, image [0-9a-f]{12}/)
      assert.nestedProperty(facts(old), "layers[0].image")
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped))
})
