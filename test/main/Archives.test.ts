import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Archive, ImageBuilder, SavedArchive } from "../../src/testing/index.ts"
import { built, command, program, root } from "../command.ts"
import { assertFailed, setting } from "./setting.ts"

const demo = ImageBuilder.demo()
const { digest } = demo.manifest.descriptor
const id = demo.config.descriptor.digest.slice(7)
const sum = (file: string) => createHash("sha256").update(readFileSync(file)).digest("hex")

describe("Archives by command", () => {
  it.live("pull writes archives, the same bytes each time; load takes them back under their digest; save writes them again", () => Effect.gen(function*() {
    const { folder, pull, reference, registry } = yield* setting()
    registry.put("docker/app", "2", ImageBuilder.image({ format: "docker", layers: [[{ path: "two" }]] }))
    const two = `${registry.host}/docker/app:2`
    const files = ["oci-archive", "docker-archive"].map((kind) => ({ kind, file: join(folder, `${kind}.tar`) }))
    const outputs = files.flatMap(({ file, kind }) => ["--output", `${kind}:${file}`])
    const pulled = yield* pull(["-q", "--durability", "fast", ...outputs, reference, two])
    assert.strictEqual(pulled.code, 0, pulled.stderr)
    const digests = pulled.stdout.trim().split("\n")
    const first = files.map(({ file }) => sum(file))
    yield* pull(["--store", join(folder, "other"), "--no-unpack", "-q", ...outputs, reference, two])
    assert.deepStrictEqual(files.map(({ file }) => sum(file)), first)
    for (const { file, kind } of files) {
      const store = join(folder, `from-${kind}`)
      const loaded = yield* command("graph", ["load", "--store", store, "--durability", "fast", "-q", file])
      const lines = loaded.stdout.trim().split("\n")
      assert.strictEqual(lines[0], `${reference} ${digest}`, loaded.stderr)
      assert.strictEqual(lines[1]?.split(" ")[0], two)
      if (kind === "docker-archive") assert.strictEqual(lines[1]?.split(" ")[1], digests[1])
      const piped = yield* program("sh", ["-c", `"$0" save --store "$1" --format ${kind} "$2" "$3" | sha256sum`, join(root, "bin", "graph"), store, reference, two])
      assert.strictEqual(piped.stdout.slice(0, 64), sum(file), piped.stderr)
    }
    assert.deepStrictEqual(readdirSync(folder).filter((name) => name.includes(".tar.")), [])
  }).pipe(Effect.scoped), 120_000)

  it.live("save writes a file; an archive is written whole or not at all, and never over what is no file", () => Effect.gen(function*() {
    const { folder, pull, reference, registry } = yield* setting()
    const file = join(folder, "out.tar")
    const half = yield* pull(["-q", "--output", `oci-archive:${file}`, reference, `${registry.host}/none:1`])
    assert.deepStrictEqual([half.code, readdirSync(folder).includes("out.tar")], [3, false])
    const over = yield* pull(["-q", "--output", `docker-archive:${folder}`, reference])
    assert.deepStrictEqual([over.code, over.stderr], [7, `pull: cannot write ${folder}: what is there is no file; name another one\n`])
    const odd = yield* pull(["-q", "--output", "docker:x", reference])
    assert.deepStrictEqual([odd.code, odd.stderr], [2, "pull: --output docker:x is not of the form oci:DIR, oci-archive:FILE, docker-archive:FILE or tar:FILE; --help shows how\n"])
    const store = join(folder, "store")
    assert.strictEqual((yield* command("graph", ["save", "--store", store, "-o", join(folder, "saved.tar"), reference])).code, 0)
    const piped = yield* program("sh", ["-c", `"$0" save --store "$1" "$2" | cmp - "$3"`, join(root, "bin", "graph"), store, reference, join(folder, "saved.tar")])
    assert.strictEqual(piped.code, 0, piped.stdout)
    const none = yield* command("graph", ["save", "--store", join(folder, "empty"), "-o", file, "nothing"])
    assert.deepStrictEqual([none.code, readdirSync(folder).includes("out.tar")], [3, false])
  }).pipe(Effect.scoped), 120_000)

  it.live("save writes a layout, as pull does, and adds to it; what was done is told as JSON", () => Effect.gen(function*() {
    const { folder, graph, pull, reference, registry } = yield* setting()
    registry.put("docker/app", "2", ImageBuilder.image({ format: "docker", layers: [[{ path: "two" }]] }))
    const two = `${registry.host}/docker/app:2`
    const [pulled, saved] = [join(folder, "pulled"), join(folder, "saved")]
    assert.strictEqual((yield* pull(["-q", "--output", `oci:${pulled}`, reference, two])).code, 0)
    const json = ({ code, stderr, stdout }: { readonly code: number | null; readonly stderr: string; readonly stdout: string }) => {
      assert.deepStrictEqual([code, stderr], [0, ""])
      return JSON.parse(stdout)
    }
    const told = json(yield* graph("save", ["--format", "oci", "--json", "-o", saved, reference, two]))
    assert.deepInclude(told, { format: "oci", output: saved })
    assert.deepStrictEqual(told.images[0], { name: reference, image: id, manifest: digest, platform: "linux/amd64" })
    const blobs = (layout: string) => readdirSync(join(layout, "blobs/sha256")).map((name) => [name, sum(join(layout, "blobs/sha256", name))])
    assert.deepStrictEqual(blobs(saved), blobs(pulled))
    const manifests = () => JSON.parse(readFileSync(join(saved, "index.json"), "utf8")).manifests
    for (let time = 0; time < 2; time++) yield* graph("save", ["--format", "oci", "-o", saved, id.slice(0, 12)])
    assert.deepStrictEqual(manifests().map(({ annotations, digest }: { annotations?: Record<string, string>; digest: string }) => [annotations?.["org.opencontainers.image.ref.name"], digest === told.images[0].manifest]),
      [["1", true], ["2", false], [undefined, true]])
    const loaded = yield* command("graph", ["load", "-q", "--json", "--store", join(folder, "other"), saved])
    assert.strictEqual(JSON.parse(loaded.stdout).images[0].digest, digest)
    assertFailed(yield* graph("save", ["--format", "oci", reference]), 2, /a layout is a folder/)
    assertFailed(yield* graph("save", ["--json", reference]), 2, /name a file with --output/)
    assert.deepStrictEqual(json(yield* graph("tag", ["--json", reference, "mine:1"])), { name: "docker.io/library/mine:1", image: id })
    assert.deepStrictEqual(json(yield* graph("tag", ["--json", "-f", two, "mine:1"])).before, id)
    const root = json(yield* graph("rootfs", ["--json", reference, join(folder, "root")]))
    assert.deepStrictEqual([root.image, root.target, root.layers], [id, join(folder, "root"), demo.diffIds])
  }).pipe(Effect.scoped), 120_000)

  it.live("load reads stdin, tells what a tag was taken from, and says what is wrong in one line", () => Effect.gen(function*() {
    yield* built
    const { folder } = yield* setting()
    const file = join(folder, "saved.tar")
    const store = join(folder, "loaded")
    const other = ImageBuilder.image({ format: "docker", platform: { os: "linux", architecture: "amd64" }, layers: [[{ path: "x" }]] })
    const write = (image: ImageBuilder.BuiltImage) => { writeFileSync(file, Archive.archive(SavedArchive.docker([{ image, names: ["app:1"] }]))) }
    const load = (input: string) => program("sh", ["-c", `${input} | "$0" load --json --progress quiet --durability fast --store "$2" -`, join(root, "bin", "graph"), file, store])
    write(other)
    yield* load("cat \"$1\"")
    write(demo)
    const ended = yield* load("gzip -c \"$1\"")
    assert.strictEqual(ended.stderr, `The image app:1 already exists, renaming the old one with ID ${other.config.descriptor.digest.slice(7, 19)} to empty string\n`)
    const { images, kind } = JSON.parse(ended.stdout) as { readonly kind: string; readonly images: ReadonlyArray<{ readonly id: string; readonly names: ReadonlyArray<string> }> }
    assert.deepStrictEqual([kind, images.map(({ id, names }) => [id, names])], ["docker", [[id, ["docker.io/library/app:1"]]]])
    for (const [input, code, message] of [
      ["printf nonsense", 6, "graph: standard input is refused: the archive is truncated in a header; it must be saved again as a whole\n"],
      ["head -c 700 \"$1\"", 6, `graph: standard input is refused: entry "${id}.json": the archive is truncated in its data; it must be saved again as a whole\n`],
      ["true", 6, "graph: standard input is refused: it has no bytes; it must be saved again as a whole\n"]
    ] as const) {
      const refused = yield* load(input)
      assert.deepStrictEqual([refused.code, refused.stdout], [code, ""])
      assert.strictEqual(refused.stderr, message)
    }
    assert.strictEqual((yield* command("graph", ["load", "--store", store, join(folder, "none")])).code, 7)
    assert.strictEqual((yield* command("graph", ["check", "--store", store])).stdout, "no damage found\n")
  }).pipe(Effect.scoped), 120_000)
})
