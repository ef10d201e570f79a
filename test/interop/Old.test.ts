import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { LegacyImage, Signature, TestRegistry, Tree, V1Server } from "../../src/testing/index.ts"
import { lab, withPeers } from "./peers.ts"

const image = LegacyImage.legacy({
  steps: [
    { tar: [{ path: "etc/" }, { path: "etc/one", contents: "one" }, { path: "etc/gone", contents: "gone" }, { path: "bin", type: "symlink", linkpath: "etc" }] }, {},
    { tar: [{ path: "etc/" }, { path: "etc/.wh.gone" }, { path: "etc/two", contents: "two" }, { path: "etc/three", type: "link", linkpath: "etc/two" }] }
  ]
})

withPeers("Old images as OCI layouts", ["skopeo", "umoci", "root"], () => {
  it.live("are copied by skopeo, and unpacked by umoci to the same tree", () => Effect.gen(function*() {
    const one = yield* lab
    const v1 = yield* V1Server.make()
    v1.put("team/app", "1", image.images)
    const v2 = yield* TestRegistry.make()
    v2.put("team/app", "2", image.schema1({ repository: "team/app", tag: "2", signers: [Signature.signer()] }))
    for (const [name, tag, host] of [["v1", "1", v1.host], ["schema1", "2", v2.host]] as const) {
      yield* one.pulled("-q", "--durability", "fast", "--platform", "linux/amd64", "--rootfs", one.path(`${name}-root`), "--output", `oci:${one.path(name)}`, `${host}/team/app:${tag}`)
      yield* one.copy(`oci:${one.path(name)}:${tag}`, `oci:${one.path(`${name}-copy`)}:app`)
      yield* one.must("umoci", ["unpack", "--image", `${one.path(`${name}-copy`)}:app`, one.path(`${name}-bundle`)])
      const ours = Tree.walk(one.path(`${name}-root`))
      assert.isAbove(ours.length, 4)
      assert.deepStrictEqual(Tree.diff(ours, Tree.walk(one.path(`${name}-bundle`, "rootfs"))), [])
    }
  }), 120_000)
})
