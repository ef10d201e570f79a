import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { ImageBuilder } from "../../src/testing/index.ts"
import { command } from "../command.ts"
import { assertDigest, assertFailed, mayMount, mounted, setting } from "./setting.ts"

const { image } = ImageBuilder
const base = [{ path: "etc", type: "dir" as const }, { path: "etc/name", contents: "base\n", mode: 0o4755 }, { path: "etc/old", contents: "old" }, { path: "l", type: "symlink" as const, linkpath: "etc" }]
const one = image({ layers: [base, [{ path: "one", contents: "1" }]], config: { Cmd: ["/one"], Env: ["A=1", "B=2"], Labels: { kind: "one" } } })
const two = image({ layers: [base, [{ path: "etc/name", contents: "two\n", mode: 0o755 }, { path: "etc/.wh.old", contents: "" }]], config: { Cmd: ["/two"], Env: ["A=1", "B=3"] }, platform: { os: "linux", architecture: "arm64" } })

/** A store with two images over one layer, in a folder that may be mounted. */
const stored = (disk?: string) => Effect.gen(function*() {
  const { folder, registry } = yield* setting()
  registry.put("one", "1", one).put("two", "1", two)
  const place = disk === undefined ? folder : join(folder, disk)
  const remount = disk === undefined ? undefined : yield* mounted(place, "size=64m")
  const store = join(place, "store")
  assertDigest(yield* command("pull", ["-q", "--store", store, `${registry.host}/one:1`]), one.manifest.descriptor.digest)
  assertDigest(yield* command("pull", ["-q", "--store", store, `${registry.host}/two:1`, "--platform", "linux/arm64"]), two.manifest.descriptor.digest)
  return { remount, host: registry.host, graph: (verb: string, ...args: ReadonlyArray<string>) => command("graph", [verb, "--store", store, ...args]) }
})

const idOf = ({ config }: typeof one) => config.descriptor.digest.slice(7)

describe("graph, reading", () => {
  it.live("files, cat and diff see the layers merged", () => Effect.gen(function*() {
    const { graph, host } = yield* stored()
    const [first, second] = [`${host}/one:1`, `${host}/two:1`]
    const files = yield* graph("files", second)
    assert.deepStrictEqual(files.stdout.trimEnd().split("\n").map((line) => line.replace(/ +/g, " ")), [
      "drwxr-xr-x 0:0 0 /", "drwxr-xr-x 0:0 0 /etc", "-rwxr-xr-x 0:0 4 /etc/name", "lrwxrwxrwx 0:0 0 /l -> etc"
    ])
    assert.match((yield* graph("files", first, "/etc/name", "--hash")).stdout, /^-rwsr-xr-x {2}0:0 {2}5 {2}[0-9a-f]{64} {2}\/etc\/name\n$/)
    const listed = JSON.parse((yield* graph("files", first, "etc", "--json")).stdout) as ReadonlyArray<{ readonly path: string; readonly layer: string }>
    assert.deepStrictEqual(listed.map(({ layer, path }) => [path, layer]), ["/etc", "/etc/name", "/etc/old"].map((path) => [path, one.diffIds[0]]))
    assert.strictEqual((yield* graph("cat", second, "/l/name")).stdout, "two\n")
    assert.strictEqual((yield* graph("cat", first, "etc/name")).stdout, "base\n")
    assertFailed(yield* graph("cat", second, "/etc/old"), 3, /has no \/etc\/old/)
    assertFailed(yield* graph("cat", second, "/etc"), 3, /is a folder/)
    assertFailed(yield* graph("files", second, "/nowhere"), 3, /has no \/nowhere/)
    assert.deepStrictEqual((yield* graph("diff", first, second)).stdout.trimEnd().split("\n").filter((line) => !line.includes("layer ")), [
      "layers 1 shared, 1 removed, 1 added", "- architecture: amd64", "+ architecture: arm64", `- config.Cmd: ["/one"]`, `+ config.Cmd: ["/two"]`,
      "- config.Env: B=2", "+ config.Env: B=3", "- config.Labels.kind: one", "C /etc/name (content, mode)", "D /etc/old", "D /one"
    ])
    assert.strictEqual((yield* graph("diff", first, first)).stdout, "layers 2 shared\n")
  }).pipe(Effect.scoped), 120_000)

  it.live("ls filters, and tree draws what stands on what", () => Effect.gen(function*() {
    const { graph, host } = yield* stored()
    const names = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
      const listed = JSON.parse((yield* graph("ls", "--json", ...args)).stdout) as ReadonlyArray<{ readonly name: string }>
      return listed.map(({ name }) => name.slice(name.indexOf("/") + 1))
    })
    assert.deepStrictEqual(yield* names(), ["one", "two"])
    for (const args of [[`${host}/one`], [`${host}/one:1`], [`${host}/o*`], ["--label", "kind"], ["--label", "kind=one"], ["--platform", "linux/amd64"]]) {
      assert.deepStrictEqual([args, yield* names(...args)], [args, ["one"]])
    }
    for (const args of [["*/x*"], ["--label", "kind=two"], ["--untagged"], ["--older-than", "1h"]]) assert.deepStrictEqual([args, yield* names(...args)], [args, []])
    assert.deepStrictEqual(yield* names("--newer-than", "1h", "--no-untagged"), ["one", "two"])
    assert.include((yield* graph("ls", "--digests")).stdout, one.manifest.descriptor.digest)
    const [entry] = JSON.parse((yield* graph("ls", "--json")).stdout) as ReadonlyArray<Record<string, number>>
    assert.strictEqual(entry?.["unique"], (entry?.["blobs"] ?? 0) + (entry?.["layers"] ?? 0) - (entry?.["shared"] ?? 0))
    assert.isAbove(entry?.["shared"] ?? 0, one.layers[0]?.size ?? 0)
    assert.strictEqual((yield* graph("tree")).stdout, [
      `(layers up to ${one.diffIds[0]?.slice(7, 19) ?? ""})  1 layer, 8 B`,
      `├─ ${host}/one:1  ${idOf(one).slice(0, 12)}  1 layer, 1 B`, `└─ ${host}/two:1  ${idOf(two).slice(0, 12)}  1 layer, 4 B`, ""
    ].join("\n"))
  }).pipe(Effect.scoped), 120_000)

  it.live.skipIf(!mayMount)("all of it works on a store that is mounted read-only", () => Effect.gen(function*() {
    const { graph, host, remount } = yield* stored("disk")
    const verbs = [
      ["ls"], ["ls", "--json", "*"], ["tree"], ["show", `${host}/one:1`], ["files", `${host}/two:1`], ["cat", `${host}/one:1`, "/one"], ["diff", `${host}/one:1`, `${host}/two:1`],
      ["du"], ["log"], ["history", `${host}/one:1`], ["gc", "--dry-run"], ["check", "-q"], ["rootfs", `${host}/two:1`, "tar:-"]
    ] as const
    // What is unpacked alone is read as well.
    assert.strictEqual((yield* graph("gc", "-q", "--drop-blobs")).code, 0)
    const before = yield* Effect.forEach(verbs, ([verb, ...args]) => graph(verb, ...args))
    remount?.("ro")
    const after = yield* Effect.forEach(verbs, ([verb, ...args]) => graph(verb, ...args))
    // A log that is open counts too.
    const bare = (text: string) => text.replace(/^database.*$/m, "")
    assert.deepStrictEqual(after.map(({ code, stderr, stdout }) => [code, stderr, bare(stdout)]), before.map(({ stdout }) => [0, "", bare(stdout)]))
    assertFailed(yield* graph("rm", `${host}/one:1`), 7, /read-only|writable/)
  }).pipe(Effect.scoped), 120_000)
})
