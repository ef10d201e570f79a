import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readdirSync } from "node:fs"
import { ImageBuilder } from "../../src/testing/index.ts"
import { dockerRegistry, type Lab, lab, withPeers } from "./peers.ts"
import { assertSame, directory, umociTree } from "./trees.ts"

const { image, index, layer } = ImageBuilder

/** An image whose one file says its name. */
const named = (name: string, architecture = "amd64") =>
  image({ layers: [layer([{ path: "etc/" }, { path: "etc/name", contents: name }])], platform: { os: "linux", architecture } })

const push = (lab: Lab, built: ImageBuilder.Built, to: string, ...options: ReadonlyArray<string>) =>
  lab.copy(`dir:${directory(lab.path(to.replaceAll(/[^a-z0-9]/g, "-")), built)}`, `docker://${to}`, ...options)

withPeers("docker-registry, without a password", ["docker-registry", "skopeo"], () => {
  it.live("by tag, digest, both, and the default tag; an unchanged tag costs one request", () => Effect.gen(function*() {
    const one = yield* lab
    const { host, requests } = yield* dockerRegistry(one)
    const [app, other] = [named("app"), named("other")]
    yield* push(one, app, `${host}/team/app:1.0`)
    yield* push(one, other, `${host}/team/app:latest`)
    const [digest, latest] = [app.manifest.descriptor.digest, other.manifest.descriptor.digest]
    assert.strictEqual(yield* one.pulled("-q", `${host}/team/app:1.0`), digest)
    const before = requests().length
    assert.strictEqual(yield* one.pulled("-q", `${host}/team/app:1.0`), digest)
    assert.deepStrictEqual(requests().slice(before), ["GET /v2/team/app/manifests/1.0 200"])
    assert.strictEqual(yield* one.pulled("-q", `${host}/team/app@${latest}`), latest)
    // A tag beside a digest says nothing about which image it is.
    assert.strictEqual(yield* one.pulled("-q", `${host}/team/app:1.0@${latest}`), latest)
    assert.strictEqual(yield* one.pulled("-q", `${host}/team/app`), latest)
    assert.strictEqual(yield* one.pulled("-q", `localhost:${host.split(":")[1]}/team/app:1.0`), digest)
  }), 60_000)

  it.live("several references in one call: each is tried, the first failure gives the exit code", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const images = ["a", "b", "c"].map((name) => named(name))
    for (const [at, built] of images.entries()) yield* push(one, built, `${host}/${"abc"[at]}:1`)
    const digests = images.map(({ manifest }) => manifest.descriptor.digest)
    assert.strictEqual(yield* one.pulled("-q", ...["a", "b", "c"].map((name) => `${host}/${name}:1`)), digests.join("\n"))
    const ran = yield* one.pull("-q", `${host}/a:1`, `${host}/b:missing`, `${host}/nowhere:1`, `${host}/c:1`)
    assert.deepStrictEqual([ran.code, ran.stdout.trim().split("\n")], [3, [digests[0], digests[2]]])
    for (const words of ["b:missing", "nowhere"]) assert.include(ran.stderr, words)
    yield* one.sound()
  }), 60_000)

  it.live("Docker's schema2, an index and a manifest list, zstd and plain layers", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const arm = image({
      layers: [layer([{ path: "zstd", contents: "z" }], { compression: "zstd" }), layer([{ path: "plain", contents: "p" }], { compression: "none" })],
      platform: { os: "linux", architecture: "arm64" }
    })
    const schema2 = image({ layers: [[{ path: "docker", contents: "d" }]], format: "docker" })
    const both = index([named("amd"), arm, ImageBuilder.attestation(arm)])
    const list = index([schema2, image({ layers: [[{ path: "i386" }]], format: "docker", platform: { os: "linux", architecture: "386" } })], { format: "docker" })
    yield* push(one, schema2, `${host}/docker:1`)
    yield* push(one, both, `${host}/index:1`, "--all", "--preserve-digests")
    yield* push(one, list, `${host}/list:1`, "--all", "--preserve-digests")
    for (const [name, built, platform, file] of [
      ["docker", schema2, "linux/amd64", "docker"], ["index", both, "linux/arm64", "zstd"], ["index", both, "linux/amd64", "etc/name"],
      ["list", list, "linux/386", "i386"], ["list", list, "linux/amd64", "docker"]
    ] as const) {
      const root = one.path(`${name}-${platform.replace("/", "-")}`)
      assert.strictEqual(yield* one.pulled("-q", "--platform", platform, "--rootfs", root, `${host}/${name}:1`), built.manifest.descriptor.digest)
      assert.isTrue(existsSync(`${root}/${file}`), file)
    }
    const ran = yield* one.pull("--platform", "linux/riscv64", "--rootfs", one.path("none"), `${host}/index:1`)
    assert.strictEqual(ran.code, 3)
    for (const words of ["linux/riscv64", "linux/arm64", "linux/amd64"]) assert.include(ran.stderr, words)
    assert.isFalse(existsSync(one.path("none")))
  }), 60_000)
})

withPeers("docker-registry, with a password", ["docker-registry", "skopeo", "htpasswd"], () => {
  it.live("credentials are those of Docker's config; wrong or missing ones are exit code 4", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one, { sailor: "s3cret:with colon", other: "b" })
    const good = { [host]: "sailor:s3cret:with colon" }
    one.login(good)
    const built = named("locked")
    yield* push(one, built, `${host}/locked:1`)
    assert.strictEqual(yield* one.pulled("-q", `${host}/locked:1`), built.manifest.descriptor.digest)

    for (const users of [{ [host]: "sailor:wr0ng" }, {}]) {
      one.login(users)
      const ran = yield* one.pull("--store", one.path("other"), `${host}/locked:1`)
      assert.strictEqual(ran.code, 4, ran.stderr)
      assert.include(ran.stderr, host)
      for (const secret of ["wr0ng", Buffer.from("sailor:wr0ng").toString("base64")]) assert.notInclude(ran.stdout + ran.stderr, secret)
    }
    yield* one.sound(one.path("other"))
    one.login(good)
    const ran = yield* one.pull("-q", `${host}/locked:none`, `${host}/absent`)
    assert.strictEqual(ran.code, 3, ran.stderr)
  }), 60_000)
})

withPeers("--output oci: against skopeo and umoci", ["root", "docker-registry", "skopeo", "umoci"], () => {
  it.live("skopeo inspects and copies the layout, umoci unpacks it to the same tree", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const built = ImageBuilder.demo()
    const gzip = image({ layers: [layer([{ path: "usr/" }, { path: "usr/a", contents: "a" }]), layer([{ path: "usr/b", type: "link", linkpath: "usr/a" }])] })
    const schema2 = image({ layers: [[{ path: "docker", contents: "d" }]], format: "docker" })
    yield* push(one, built, `${host}/demo:1`)
    yield* push(one, gzip, `${host}/gzip:2`)
    yield* push(one, schema2, `${host}/docker:3`)
    const out = one.path("out")
    yield* one.pulled("--output", `oci:${out}`, "--rootfs", one.path("ours"), `${host}/gzip:2`)
    yield* one.pulled("--output", `oci:${out}`, `${host}/demo:1`, `${host}/docker:3`)
    assert.deepStrictEqual(readdirSync(out).sort(), ["blobs", "index.json", "oci-layout"])

    const inspect = (tag: string, ...more: ReadonlyArray<string>) => one.must("skopeo", ["inspect", ...more, `oci:${out}:${tag}`])
    assert.strictEqual(yield* inspect("1", "--format", "{{.Digest}}"), built.manifest.descriptor.digest)
    assert.strictEqual(yield* inspect("2", "--raw"), Buffer.from(gzip.manifest.raw).toString())
    assert.strictEqual(yield* inspect("3", "--config", "--raw"), Buffer.from(schema2.config.raw).toString())
    for (const tag of ["1", "2", "3"]) yield* one.copy(`oci:${out}:${tag}`, `oci:${one.path(`again-${tag}`)}:${tag}`)
    assertSame(one.path("ours"), yield* umociTree(one, `${out}:2`, one.path("umoci")))
    assert.include(yield* one.must("umoci", ["list", "--layout", out]), "3")
    yield* umociTree(one, `${out}:3`, one.path("umoci-3"))
    assert.isTrue(existsSync(one.path("umoci-3", "docker")))
  }), 60_000)
})
