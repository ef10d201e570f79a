import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Tree } from "../../src/testing/index.ts"
import { debian, dockerRegistry, type Lab, lab, root, withPeers } from "./peers.ts"
import * as Strace from "./strace.ts"
import { assertSame, reference } from "./trees.ts"

/** Run in the userland by its own shell: what an image build does to the layers below. */
const inside = `
set -eu
rm -r /usr/share/doc; mkdir /usr/share/doc; echo gone >/usr/share/doc/README
ln /usr/bin/chsh /usr/sbin/chsh-too; chmod u-s /usr/bin/newgrp; mv /etc/skel /etc/skeleton; rm /usr/bin/yes
ln -s /usr/bin/env /bin/env-too; chown -h 1000:1000 /bin/env-too; chown -R 7:7 /var/local; touch -d @1234567890.123456789 /usr/lib/os-release
mkdir -p /srv; mkdir -m 2770 /srv/shared; mkfifo /srv/shared/pipe; : >/lib/through-the-link
`

/** A Debian userland as three layers of real tools, in docker-registry, and its tree as umoci unpacks it. */
class Userland extends Context.Service<Userland, { readonly lab: Lab; readonly image: string; readonly theirs: ReadonlyArray<Tree.TreeRecord> }>()("test/Userland") {
  static readonly layer = Layer.effect(Userland, Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const image = `${host}/debian:12`
    const base = `${one.path("base")}:1`
    yield* one.must("umoci", ["init", "--layout", one.path("base")])
    yield* one.must("umoci", ["new", "--image", base])
    yield* one.must("umoci", ["raw", "add-layer", "--image", base, yield* debian(one)])
    yield* one.copy(`oci:${base}`, `docker://${host}/debian:base`)

    writeFileSync(one.path("policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
    const buildah = (...args: ReadonlyArray<string>) =>
      one.must("buildah", ["--root", one.path("buildah"), "--runroot", one.path("buildah-run"), "--storage-driver", "vfs", ...args])
    const policy = ["--signature-policy", one.path("policy.json"), "--tls-verify=false"]
    const commit = (container: string, to: string) => buildah("commit", ...policy, "--format", "docker", "-q", container, `docker://${to}`)
    const first = yield* buildah("from", ...policy, `docker://${host}/debian:base`)
    yield* buildah("run", "--isolation", "chroot", first, "/bin/sh", "-c", inside)
    yield* commit(first, `${host}/debian:next`)
    const second = yield* buildah("from", ...policy, `docker://${host}/debian:next`)
    const mount = yield* buildah("mount", second)
    yield* one.must("setcap", ["cap_net_raw+ep", `${mount}/usr/bin/env`])
    yield* one.must("sh", ["-c", "rm -r usr/share/man usr/share/doc/README; touch usr/share/doc/.kept; chmod 700 etc/skeleton"], { cwd: mount })
    yield* commit(second, image)
    return { lab: one, image, theirs: yield* reference(one, image, "debian") }
  }))
}

withPeers("A Debian userland", ["root", "docker-registry", "skopeo", "umoci", "buildah", "mmdebstrap", "setcap", "strace", "chroot"], () => {
  layer(Userland.layer, { timeout: "90 seconds", excludeTestServices: true })("pulled from docker-registry", (it) => {
    it.effect("is umoci's tree, moved into place, and its programs run", () => Effect.gen(function*() {
      const { image, lab, theirs } = yield* Userland
      assert.isAbove(theirs.length, 1000)
      assert.isTrue(theirs.some(({ path, xattrs }) => path === "usr/bin/env" && xattrs.length > 0))
      assert.strictEqual(theirs.find(({ path }) => path === "usr/lib/through-the-link")?.type, "file")
      assert.isUndefined(theirs.find(({ path }) => path === "usr/share/doc/README"))
      yield* lab.pulled("--rootfs", lab.path("moved"), image)
      assertSame(lab.path("moved"), theirs)
      yield* lab.must("chroot", [lab.path("moved"), "/bin/true"])
      assert.strictEqual(yield* lab.must("chroot", [lab.path("moved"), "/bin/sh", "-c", "echo $((6*7)) from $(/bin/cat /etc/debian_version)"]), `42 from ${yield* lab.must("cat", [lab.path("debian-umoci", "etc", "debian_version")])}`)
    }), 60_000)

    it.effect("is umoci's tree, copied from the store's layers; the image can be removed again", () => Effect.gen(function*() {
      const { image, lab, theirs } = yield* Userland
      const store = ["--store", lab.path("unpacked")]
      yield* lab.must("bin/pull", [...store, "--unpack", "--rootfs", lab.path("copied"), image])
      yield* lab.sound(lab.path("unpacked"))
      assertSame(lab.path("copied"), theirs)
      yield* lab.must("bin/pull", [...store, "--rootfs", lab.path("again"), image])
      assertSame(lab.path("again"), theirs)
      yield* lab.must("bin/graph", ["rm", ...store, image])
      yield* lab.sound(lab.path("unpacked"))
      for (const folder of ["layers", "blobs"]) assert.deepStrictEqual(readdirSync(lab.path("unpacked", folder, "sha256")), [])
    }), 60_000)

    it.effect("opens nothing for writing but the store, the target, its neighbour and the temporary folder", () => Effect.gen(function*() {
      const { image, lab } = yield* Userland
      mkdirSync(lab.path("traced", "out"), { recursive: true })
      const [store, target, log] = [lab.path("traced", "store"), lab.path("traced", "out", "debian"), lab.path("traced", "log")]
      yield* lab.must("strace", [
        ...Strace.options, "-o", log, `${root}/bin/pull`, "--store", store, "--unpack", "--rootfs", target, "--output", `oci:${lab.path("traced", "oci")}`, image
      ], { env: { UV_USE_IO_URING: "0" } })
      const paths = [...Strace.changed(yield* lab.must("cat", [log]), root)]
      const inside = (folder: string) => (path: string) => path === folder || path.startsWith(`${folder}/`)
      const allowed = [
        inside(store), inside(target), inside(lab.path("traced", "oci")), inside(lab.path("tmp")),
        // Node keeps what it compiled beside the code.
        inside(join(root, "dist/cache")),
        // The target's parent is made if it has to be; the staging folder stands in it.
        (path: string) => [lab.path("traced"), lab.path("traced", "out"), "/dev/null"].includes(path),
        (path: string) => path.startsWith(lab.path("traced", "out", ".towline-debian."))
      ]
      assert.deepStrictEqual(paths.filter((path) => !allowed.some((allows) => allows(path))), [])
      assert.isAbove(paths.length, 2000)
      for (const seen of [target, `${store}/graph.db`]) assert.include(paths, seen)
      assert.deepStrictEqual(readdirSync(lab.path("traced", "out")), ["debian"])
      assert.strictEqual(lstatSync(store).mode & 0o777, 0o700)
    }), 60_000)
  })
})
