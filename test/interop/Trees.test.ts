import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { lstatSync, mkdirSync, writeFileSync } from "node:fs"
import { ImageBuilder, Tree } from "../../src/testing/index.ts"
import { dockerRegistry, type Lab, lab, withPeers } from "./peers.ts"
import { assertSame, first, layout, reference, second } from "./trees.ts"

const { image, layer } = ImageBuilder

/** Pushes the image of a layout to docker-registry, and compares what bin/pull makes of it, whatever the way, with umoci's tree. */
const compare = Effect.fnUntraced(function*(lab: Lab, from: string) {
  const { host } = yield* dockerRegistry(lab)
  const [plain, zstd] = [`${host}/tree:gzip`, `${host}/tree:zstd`]
  yield* lab.copy(`oci:${from}`, `docker://${plain}`)
  yield* lab.copy(`oci:${from}`, `oci:${lab.path("zstd-layout")}:1`, "--dest-compress", "--dest-compress-format", "zstd")
  yield* lab.copy(`oci:${lab.path("zstd-layout")}:1`, `docker://${zstd}`)
  const theirs = yield* reference(lab, plain, "tree")

  yield* lab.pulled("--rootfs", lab.path("moved"), plain)
  assertSame(lab.path("moved"), theirs)
  yield* lab.pulled("--unpack", "--rootfs", lab.path("copied"), plain)
  assertSame(lab.path("copied"), theirs)
  // umoci reads no zstd; the files are the same ones.
  assert.include(yield* lab.must("skopeo", ["inspect", "--raw", "--tls-verify=false", `docker://${zstd}`]), "tar+zstd")
  const other = ["--store", lab.path("zstd-store")]
  yield* lab.must("bin/pull", [...other, "--rootfs", lab.path("zstd"), zstd])
  yield* lab.sound(lab.path("zstd-store"))
  assertSame(lab.path("zstd"), theirs)
  return theirs
})

/** What the two scripts are about is in the tree: without it the comparison would say nothing. */
const assertRich = (tree: ReadonlyArray<Tree.TreeRecord>): void => {
  const at = (path: string) => tree.find((record) => record.path === path)
  for (const type of ["file", "dir", "symlink", "char", "fifo"]) assert.isTrue(tree.some((record) => record.type === type), type)
  assert.deepStrictEqual([at("lib")?.linkTarget, at("usr/lib/foo")?.size, at("usr/lib/gone"), at("swap-dir")?.type], ["usr/lib", 4, undefined, "file"])
  assert.deepStrictEqual([at("usr/bin/su")?.mode, at("srv/a")?.uid, at("etc/attr")?.uid], [0o4755, 33, 4_000_000_000])
  assert.match(at("usr/bin/ping")?.xattrs.join() ?? "", /^security\.capability=.*00/)
  assert.isAbove(Math.max(...tree.map(({ path }) => path.length)), 600)
  assert.isTrue(tree.some(({ path }) => path === "srv/\xff\xfe/\x80"))
}

withPeers("Root file systems against umoci's", ["root", "docker-registry", "skopeo", "umoci", "setcap", "setfattr"], () => {
  it.live("an image that umoci made", () => Effect.gen(function*() {
    const one = yield* lab
    const [bundle, made] = [one.path("bundle"), `${one.path("made")}:1`]
    yield* one.must("umoci", ["init", "--layout", one.path("made")])
    yield* one.must("umoci", ["new", "--image", made])
    for (const script of [first, second]) {
      yield* one.must("umoci", ["unpack", "--image", made, bundle])
      yield* one.must("sh", ["-c", script], { cwd: `${bundle}/rootfs` })
      yield* one.must("umoci", ["repack", "--refresh-bundle", "--image", made, bundle])
      yield* one.must("rm", ["-rf", bundle])
    }
    const tree = yield* compare(one, made)
    assertRich(tree)
  }), 60_000)

  it.live("archives of GNU tar: long names, sparse files, its own formats", () => Effect.gen(function*() {
    const one = yield* lab
    const made = `${one.path("made")}:1`
    mkdirSync(one.path("files"))
    yield* one.must("sh", ["-c", first], { cwd: one.path("files") })
    yield* one.must("umoci", ["init", "--layout", one.path("made")])
    yield* one.must("umoci", ["new", "--image", made])
    const xattrs = ["--xattrs", "--xattrs-include=*"]
    const formats = [
      ["gnu", "--format=gnu"], ["posix", "--format=posix", "--sparse", ...xattrs],
      ["older", "--format=posix", "--sparse", "--sparse-version=0.1", ...xattrs], ["oldest", "--format=posix", "--sparse", "--sparse-version=0.0"]
    ]
    for (const [name = "", ...options] of formats) {
      yield* one.must("tar", [...options, "-cf", one.path(`${name}.tar`), "-C", one.path("files"), "--transform", `s,^\\.,${name},rSh`, "."])
      yield* one.must("umoci", ["raw", "add-layer", "--image", made, one.path(`${name}.tar`)])
    }
    const tree = yield* compare(one, made)
    assert.strictEqual(tree.filter(({ path, size }) => path.endsWith("srv/sparse") && size === 3 << 20).length, formats.length)
    // umoci does not know the GNU format's own sparse files: GNU tar is the peer.
    const { host } = yield* dockerRegistry(one)
    yield* one.must("tar", ["--format=gnu", "--sparse", "-cf", one.path("sparse.tar"), "-C", one.path("files"), "."])
    yield* one.must("umoci", ["new", "--image", `${one.path("made")}:sparse`])
    yield* one.must("umoci", ["raw", "add-layer", "--image", `${one.path("made")}:sparse`, one.path("sparse.tar")])
    yield* one.copy(`oci:${one.path("made")}:sparse`, `docker://${host}/sparse`)
    mkdirSync(one.path("tar"))
    yield* one.must("tar", ["-xpf", one.path("sparse.tar"), "--numeric-owner", "-C", one.path("tar")])
    yield* one.pulled("--rootfs", one.path("sparse"), `${host}/sparse`)
    assertSame(one.path("sparse"), Tree.walk(one.path("tar")))
    assert.isBelow(lstatSync(one.path("sparse", "srv", "sparse")).blocks * 512, 1 << 20)
  }), 60_000)

  it.live("whatever a lower layer laid down: a parent that is a link, a hard link, whiteouts, opaque folders", () => Effect.gen(function*() {
    const one = yield* lab
    const capability = Buffer.from("0100000200200000000000000000000000000000", "hex")
    const built = image({ layers: [
      layer([
        { path: "usr/", mode: 0o755, mtime: [1_600_000_000, 123_456_789] },
        { path: "usr/lib/", mode: 0o711, mtime: 1_600_000_001 },
        { path: "lib", type: "symlink", linkpath: "usr/lib" },
        { path: "usr/lib/base", contents: "base", mode: 0o640, uid: 3, gid: 4 },
        { path: "usr/lib/gone", contents: "gone" },
        { path: "usr/lib/folder/", mode: 0o711, uid: 9 },
        { path: "usr/lib/folder/old", contents: "old" },
        { path: "opaque/", mode: 0o700 }, { path: "opaque/old", contents: "o" }, { path: "opaque/sub/" }, { path: "opaque/sub/old", contents: "o" },
        { path: "absolute", type: "symlink", linkpath: "/usr/../usr/lib/folder" },
        { path: "climbing", type: "symlink", linkpath: "../../../usr/lib" },
        { path: "turn", contents: "a file that becomes a folder" }, { path: "back/" }, { path: "back/in", contents: "a folder that becomes a file" },
        { path: "capable", contents: "#!", mode: 0o4755, xattrs: { "security.capability": capability, "user.bytes": Buffer.from([0, 255, 10, 61]) } }
      ]),
      layer([
        { path: "lib/foo", contents: "foo" },
        { path: "lib/alias", type: "link", linkpath: "lib/base" },
        { path: "lib/.wh.gone" },
        { path: "lib/folder/new", contents: "new" },
        { path: "absolute/through", contents: "through" },
        { path: "climbing/high", contents: "not outside" },
        { path: "opaque/" }, { path: "opaque/.wh..wh..opq" }, { path: "opaque/new", contents: "n" },
        { path: "turn/" }, { path: "turn/in", contents: "in" }, { path: "back", contents: "file" },
        { path: "other/", mode: 0o3775, mtime: [-5, 500_000_000] }, { path: "other/capable", type: "link", linkpath: "capable" },
        { path: "made/for/a/child", contents: "child" }
      ], { compression: "none" }),
      layer([
        { path: "other/.wh.capable" }, { path: ".wh.made" }, { path: "made/again", contents: "later" },
        { path: "usr/lib/", mode: 0o755, mtime: 1_700_000_009 }, { path: "usr/lib/folder/.wh.old" }, { path: "not/there/.wh.nothing" }
      ], { members: 3 })
    ] })
    const tree = yield* compare(one, layout(one.path("made"), "1", built))
    const at = (path: string) => tree.find((record) => record.path === path)
    assert.deepStrictEqual(["lib", "usr/lib/foo", "usr/lib/gone", "usr/lib/alias", "usr/lib/folder/new", "usr/lib/folder"].map((path) => at(path)?.type), ["symlink", "file", undefined, "file", "file", "dir"])
    assert.deepStrictEqual([at("usr/lib/alias")?.hardLinkGroup, at("usr/lib/folder")?.mode, at("opaque/old"), at("opaque/new")?.size], ["usr/lib/alias", 0o711, undefined, 1])
  }), 60_000)
})

withPeers("Root file systems of images buildah made, against umoci's", ["root", "docker-registry", "skopeo", "umoci", "buildah", "setcap", "setfattr"], () => {
  it.live("two commits", () => Effect.gen(function*() {
    const one = yield* lab
    const buildah = (...args: ReadonlyArray<string>) =>
      one.must("buildah", ["--root", one.path("buildah"), "--runroot", one.path("buildah-run"), "--storage-driver", "vfs", ...args])
    const made = one.path("made")
    writeFileSync(one.path("policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
    const commit = ["commit", "--signature-policy", one.path("policy.json"), "--format"]
    const base = yield* buildah("from", "scratch")
    yield* one.must("sh", ["-c", first], { cwd: yield* buildah("mount", base) })
    yield* buildah(...commit, "docker", base, "localhost/base:1")
    const next = yield* buildah("from", "--signature-policy", one.path("policy.json"), "--pull=never", "localhost/base:1")
    yield* one.must("sh", ["-c", second], { cwd: yield* buildah("mount", next) })
    yield* buildah(...commit, "oci", next, `oci:${made}:1`)
    const tree = yield* compare(one, `${made}:1`)
    assertRich(tree)
  }), 60_000)
})
