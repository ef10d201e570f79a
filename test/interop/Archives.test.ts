import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { Archive, ImageBuilder, SavedArchive } from "../../src/testing/index.ts"
import { lab, root, withPeers, type Lab } from "./peers.ts"

const graph = (one: Lab, ...args: ReadonlyArray<string>) => one.must(join(root, "bin", "graph"), args)
const demo = ImageBuilder.image({ format: "docker", platform: { os: "linux", architecture: "amd64" }, layers: [
  ImageBuilder.layer([{ path: "etc/" }, { path: "etc/one", contents: "one" }], { compression: "none" }),
  ImageBuilder.layer([{ path: "etc/two", contents: "two" }]), ImageBuilder.layer([{ path: "etc/three", contents: "three" }], { compression: "zstd" })
] })
const id = demo.config.descriptor.digest.slice(7)
const diffIds = (shown: string): ReadonlyArray<string> =>
  (JSON.parse(shown) as ReadonlyArray<{ readonly layers: ReadonlyArray<{ readonly diffId: string }> }>).flatMap(({ layers }) => layers.map(({ diffId }) => diffId))

withPeers("Archives and skopeo", ["skopeo"], () => {
  it.live("each loads what the other wrote, and finds the same image", () => Effect.gen(function*() {
    const one = yield* lab
    const skopeo = (from: string, to: string) => one.must("skopeo", ["copy", "-q", "--insecure-policy", from, to])
    writeFileSync(one.path("made.tar"), Archive.archive(SavedArchive.docker([{ image: demo, names: ["team/made:1"] }])))
    yield* skopeo(`docker-archive:${one.path("made.tar")}`, `docker-archive:${one.path("docker.tar")}:team/made:2`)
    yield* skopeo(`docker-archive:${one.path("made.tar")}`, `oci-archive:${one.path("oci.tar")}:docker.io/team/made:3`)
    for (const file of ["made.tar", "docker.tar", "oci.tar"]) yield* graph(one, "load", "-q", "--durability", "fast", one.path(file))
    const shown = yield* graph(one, "show", "--json", ...["1", "2", "3"].map((tag) => `team/made:${tag}`))
    assert.deepStrictEqual(diffIds(shown), [...demo.diffIds, ...demo.diffIds, ...demo.diffIds])
    assert.strictEqual(shown.split(`"id":"${id}"`).length, 3)
    yield* graph(one, "save", "team/made:1", "team/made:3", "-o", one.path("ours-docker.tar"))
    yield* graph(one, "save", "--format", "oci-archive", "team/made:1", "-o", one.path("ours-oci.tar"))
    for (const from of [`docker-archive:${one.path("ours-docker.tar")}:team/made:1`, `oci-archive:${one.path("ours-oci.tar")}`]) {
      const config = JSON.parse(yield* one.must("skopeo", ["inspect", "--config", from])) as { readonly rootfs: { readonly diff_ids: ReadonlyArray<string> } }
      assert.deepStrictEqual(config.rootfs.diff_ids, demo.diffIds, from)
      const inspected = JSON.parse(yield* one.must("skopeo", ["inspect", from])) as { readonly Layers: ReadonlyArray<string> }
      assert.strictEqual(inspected.Layers.length, 3)
    }
    yield* skopeo(`docker-archive:${one.path("ours-docker.tar")}:team/made:1`, `dir:${one.path("dir")}`)
    yield* skopeo(`oci-archive:${one.path("ours-oci.tar")}:1`, `dir:${one.path("dir2")}`)
    yield* one.sound()
  }), 120_000)
})

withPeers("Archives and buildah", ["buildah", "root"], () => {
  it.live("each takes what the other wrote", () => Effect.gen(function*() {
    const one = yield* lab
    const buildah = (...args: ReadonlyArray<string>) => one.must("buildah", ["--root", one.path("buildah"), "--runroot", one.path("run"), "--storage-driver", "vfs", ...args])
    writeFileSync(one.path("made.tar"), Archive.archive(SavedArchive.docker([{ image: demo, names: ["team/made:1"] }])))
    yield* graph(one, "load", "-q", "--durability", "fast", one.path("made.tar"))
    yield* graph(one, "save", "team/made:1", "-o", one.path("ours.tar"))
    yield* buildah("pull", "-q", "--signature-policy", policy(one), `docker-archive:${one.path("ours.tar")}`)
    yield* buildah("push", "-q", "--signature-policy", policy(one), "docker.io/team/made:1", `docker-archive:${one.path("theirs.tar")}:docker.io/team/made:2`)
    yield* buildah("push", "-q", "--signature-policy", policy(one), "docker.io/team/made:1", `oci-archive:${one.path("theirs-oci.tar")}:docker.io/team/made:3`)
    for (const file of ["theirs.tar", "theirs-oci.tar"]) yield* graph(one, "load", "-q", "--durability", "fast", one.path(file))
    assert.deepStrictEqual(diffIds(yield* graph(one, "show", "--json", "team/made:2", "team/made:3")), [...demo.diffIds, ...demo.diffIds])
  }), 120_000)
})

const policy = (one: Lab): string => {
  writeFileSync(one.path("policy.json"), `{"default":[{"type":"insecureAcceptAnything"}]}`)
  return one.path("policy.json")
}

withPeers("An archive larger than memory may be", [], () => {
  it.live("is loaded with flat memory, from a file and from stdin", () => Effect.gen(function*() {
    const one = yield* lab
    const size = 400 << 20
    const file = one.path("big.tar")
    const zeros = (yield* one.must("sh", ["-c", `(head -c 512 "$0"; head -c ${size + 1024} /dev/zero) | sha256sum`, headerFile(one, size)])).slice(0, 64)
    const config = Buffer.from(JSON.stringify({ os: "linux", architecture: "amd64", rootfs: { type: "layers", diff_ids: [`sha256:${zeros}`] } }))
    const parts = [
      Archive.blocks([{ path: "config.json", contents: config }, { path: "manifest.json", contents: `[{"Config":"config.json","RepoTags":["big:1"],"Layers":["layer.tar"]}]` }]),
      Archive.header({ path: "layer.tar" }, size + 1536), Archive.header({ path: "zeros" }, size)
    ]
    const fd = openSync(file, "wx")
    writeSync(fd, Buffer.concat(parts))
    ftruncateSync(fd, Buffer.concat(parts).byteLength + size + 2048)
    closeSync(fd)
    const ran = yield* one.run(join(root, "bin", "graph"), ["load", "-q", "--no-unpack", file], { measure: true })
    assert.strictEqual(ran.code, 0, ran.stderr)
    assert.isAbove(ran.peak, 30 << 20)
    assert.isBelow(ran.peak, 256 << 20)
    // `exec` keeps the process: the one that is measured is the command, fed through a FIFO.
    yield* one.must("mkfifo", [one.path("fifo")])
    const [piped] = yield* Effect.all([
      one.run("sh", ["-c", `exec "$0" load -q --no-unpack --store "$1" - < "$2"`, join(root, "bin", "graph"), one.path("second"), one.path("fifo")], { measure: true }),
      one.must("sh", ["-c", `gzip -1 < "$0" > "$1"`, file, one.path("fifo")])
    ], { concurrency: 2 })
    assert.strictEqual(piped.code, 0, piped.stderr)
    assert.isBelow(piped.peak, 256 << 20)
    yield* one.sound(one.path("second"))
  }), 120_000)
})

const headerFile = (one: Lab, size: number): string => {
  writeFileSync(one.path("header"), Archive.header({ path: "zeros" }, size))
  return one.path("header")
}
