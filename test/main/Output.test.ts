import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { PullEvent } from "../../src/progress/PullEvent.ts"
import { ImageBuilder } from "../../src/testing/index.ts"
import { command, program, root } from "../command.ts"
import { assertChecked, assertDigest, setting } from "./setting.ts"

const demo = ImageBuilder.demo()
const { digest } = demo.manifest.descriptor
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { readonly version: string }
const lines = (text: string) => text.split("\n").filter((line) => line !== "")
const printable = /^[\x20-\x7e]*$/

describe("Results on stdout, the rest on stderr", () => {
  it.live("every command's --help has an example and goes to stdout; --version", () => Effect.gen(function*() {
    const graph = yield* command("graph", ["--help"])
    const verbs = [...graph.stdout.slice(graph.stdout.indexOf("SUBCOMMANDS")).matchAll(/^ {2}(\w+) /gm)].map(([, verb = ""]) => verb)
    assert.includeMembers(verbs, ["ls", "show", "rm", "check"])
    for (const [name, ...verb] of [["pull"], ...verbs.map((verb) => ["graph", verb])] as const) {
      const help = yield* command(name === "pull" ? "pull" : "graph", [...verb, "--help"])
      assert.deepStrictEqual([help.code, help.stderr], [0, ""])
      assert.match(help.stdout, new RegExp(`EXAMPLES\\n(?:.*\\n)* {2}${[name, ...verb].join(" ")}\\b`))
    }
    for (const name of ["pull", "graph"] as const) {
      assert.deepStrictEqual(yield* command(name, ["--version"]), { code: 0, signal: null, stdout: `${name} v${version}\n`, stderr: "" })
    }
  }), 120_000)

  it.live("a pipe gets plain lines, the result is one line; -q the digest alone; --json an object a reference", () => Effect.gen(function*() {
    const { pull, reference, registry } = yield* setting()
    const plain = yield* pull([reference])
    assert.strictEqual(plain.stdout, `${reference} ${digest}\n`)
    assert.isAtLeast(lines(plain.stderr).length, demo.layers.length + 2)
    for (const line of lines(plain.stderr)) assert.match(line, printable)
    assertDigest(yield* pull(["-q", reference]))
    assertDigest(yield* pull(["--quiet", "--progress", "plain", reference]))
    registry.put("app", "2", ImageBuilder.image({ layers: [[{ path: "two" }]] }))
    const json = yield* pull(["--json", "--progress", "quiet", reference, `${registry.host}/app:2`])
    const [first, second] = lines(json.stdout).map((line) => JSON.parse(line) as unknown)
    assert.deepStrictEqual(first, {
      reference, digest, manifest: digest, image: demo.config.descriptor.digest.slice(7), platform: "linux/amd64", changed: false,
      layers: demo.layers.map(({ digest, size }, at) => ({ digest, size, diffId: demo.diffIds[at] }))
    })
    assert.propertyVal(second, "changed", true)
    assert.strictEqual(json.stderr, "")
  }).pipe(Effect.scoped), 120_000)

  it.live("every kind of progress", () => Effect.gen(function*() {
    const { folder, reference } = yield* setting()
    const shown = (kind: string) => Effect.map(command("pull", ["--store", join(folder, kind), "--progress", kind, reference]), (ended) => {
      assert.deepStrictEqual([ended.code, ended.stdout], [0, `${reference} ${digest}\n`], ended.stderr)
      return ended.stderr
    })
    assert.strictEqual(yield* shown("quiet"), "")
    assert.match(yield* shown("plain"), /3 layers, .* to fetch/)
    const auto = lines(yield* shown("auto"))
    assert.match(auto.at(-1) ?? "", /: done$/)
    for (const line of auto) assert.match(line, printable, "no escapes in a pipe")

    const events = lines(yield* shown("events")).map((line) => Schema.decodeSync(Schema.fromJsonString(PullEvent))(line))
    assert.deepStrictEqual(events.map(({ _tag }) => _tag).filter((tag) => ["resolved", "planned", "tagged", "done"].includes(tag)), ["resolved", "planned", "tagged", "done"])
    for (const { digest } of demo.layers) {
      const tags = events.filter((event) => "layer" in event && event.layer === digest).map(({ _tag }) => _tag)
      assert.includeMembers(tags, ["downloading", "verified", "committed"])
      assert.strictEqual(tags.at(-1), "committed")
    }
    const docker = lines(yield* shown("json")).map((line) => JSON.parse(line) as { readonly status?: string; readonly id?: string })
    const complete = docker.filter(({ status }) => status === "Pull complete").map(({ id }) => id)
    assert.sameMembers(complete, demo.layers.map(({ digest }) => digest.slice(7, 19)))
    assert.include(docker.map(({ status }) => status), `Digest: ${digest}`)

    const tty = yield* shown("tty")
    for (const { digest } of demo.layers) assert.match(tty, new RegExp(`${digest.slice(7, 19)} done`))
    assert.match(tty, /3\/3 layers/)
    assert.isTrue(tty.endsWith("\n"))
  }).pipe(Effect.scoped), 120_000)

  it.live("a reader that leaves early, and a full disk behind stdout", () => Effect.gen(function*() {
    const { folder, pull, reference, store } = yield* setting()
    const shell = (script: string) => program("sh", ["-c", script, join(root, "bin/pull"), "--store", store, reference])
    yield* pull(["--version"]) // builds, if need be
    const headed = yield* shell(`"$0" "$@" --progress plain 2>&1 | head -n 1`)
    assert.match(headed.stdout, new RegExp(`^${reference}: ${digest} at http://.*\n$`))
    assert.strictEqual(headed.stderr, "")
    yield* assertChecked(store)
    const gone = yield* shell(`{ sleep 0.5; "$0" "$@" -q; echo "code $?" >"${folder}/code"; } | true`)
    assert.deepStrictEqual([gone.code, gone.stderr, readFileSync(join(folder, "code"), "utf8")], [0, "", "code 130\n"])
    const full = yield* shell(`"$0" "$@" -q >/dev/full`)
    assert.strictEqual(full.code, 7)
    assert.match(full.stderr, /^pull: the result could not be written to stdout: the disk is full; .*\n$/)
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live("graph ls, show, rm and check, for people and as JSON", () => Effect.gen(function*() {
    const { graph, pull, reference, registry, store } = yield* setting()
    const id = demo.config.descriptor.digest.slice(7)
    assert.match((yield* graph("ls")).stdout, /^IMAGE .*\n$/)
    assert.strictEqual((yield* graph("ls", ["--json"])).stdout, "[]\n")
    registry.put("app", "same", demo)
    yield* pull(["-q", reference, `${registry.host}/app:same`])
    const [, ...rows] = lines((yield* graph("ls")).stdout)
    assert.strictEqual(rows.length, 2)
    assert.match(rows[0] ?? "", new RegExp(`^${reference} +${id.slice(0, 12)} +linux/amd64 +\\d\\.\\d MB +\\d\\.\\d MB +0 min ago$`))
    const listed = JSON.parse((yield* graph("ls", ["--json"])).stdout) as ReadonlyArray<{ readonly id: string; readonly name: string; readonly reference: string }>
    assert.deepStrictEqual(listed.map(({ id, name, reference }) => `${id} ${name}:${reference}`), [`${id} ${reference}`, `${id} ${registry.host}/app:same`])

    for (const name of [reference, id, id.slice(0, 10), `${registry.host}/app@${digest}`, digest]) {
      const shown = yield* graph("show", [name])
      assert.strictEqual(shown.code, 0, `${name}: ${shown.stderr}`)
      for (const part of [id, reference, "linux/amd64", digest, "/bin/greet", ...demo.diffIds.map((diffId) => diffId.slice(7, 19))]) assert.include(shown.stdout, part)
    }
    const [facts] = JSON.parse((yield* graph("show", ["--json", id])).stdout) as ReadonlyArray<Readonly<Record<string, unknown>>>
    assert.deepInclude(facts, { id, platform: "linux/amd64", missing: [], tags: [reference, `${registry.host}/app:same`] })
    assert.deepStrictEqual(facts?.["configJson"], JSON.parse(Buffer.from(demo.config.raw).toString()))
    assert.strictEqual((yield* graph("check", ["--json"])).stdout, "[]\n")

    const untagged = yield* graph("rm", [`${registry.host}/app:same`])
    assert.deepStrictEqual([untagged.code, untagged.stdout], [0, `untagged ${registry.host}/app:same\n`])
    const removed = yield* graph("rm", ["--json", reference])
    const [report] = JSON.parse(removed.stdout) as ReadonlyArray<{ readonly image: string; readonly layers: ReadonlyArray<string>; readonly blobs: ReadonlyArray<string> }>
    assert.deepStrictEqual([report?.image, report?.layers.length, report?.blobs.length], [id, 3, 5])
    assert.strictEqual((yield* graph("rm", [reference])).code, 3)
    assert.strictEqual((yield* graph("ls", ["--json"])).stdout, "[]\n")
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live("graph check names what is wrong and ends with 6", () => Effect.gen(function*() {
    const { graph, pull, reference, store } = yield* setting()
    yield* pull(["-q", reference])
    const blob = demo.layers[0]?.digest.slice(7) ?? ""
    const path = join(store, "blobs", "sha256", blob)
    yield* program("sh", ["-c", `chmod 600 "$0" && printf x | dd of="$0" bs=1 seek=1000 conv=notrunc 2>&1`, path])
    const human = yield* graph("check")
    assert.strictEqual(human.code, 6)
    assert.match(human.stdout, new RegExp(`^blob-digest  sha256:${blob}  `))
    const json = yield* graph("check", ["--json"])
    assert.strictEqual(json.code, 6)
    assert.deepStrictEqual((JSON.parse(json.stdout) as ReadonlyArray<{ readonly kind: string }>).map(({ kind }) => kind), ["blob-digest", "layer-unverified"], "what its blob cannot tell of the layer")
  }).pipe(Effect.scoped), 120_000)
})
