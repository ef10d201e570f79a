import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { closeSync, lstatSync, openSync, readSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder } from "../../src/testing/index.ts"
import { dockerRegistry, lab, root, withPeers } from "./peers.ts"
import { layout } from "./trees.ts"

const gibibyte = 1 << 30

withPeers("A layer beyond 4 GiB", ["docker-registry", "skopeo"], () => {
  it.live("is pulled with flat memory", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const size = 4 * gibibyte + 123
    const huge = yield* ImageBuilder.hugeLayer({
      file: one.path("huge"), size, before: [{ path: "before", contents: "b" }], after: [{ path: "after", contents: "behind 4 GiB" }]
    })
    assert.isBelow(huge.size, 16 << 20)
    yield* one.copy(`oci:${layout(one.path("made"), "1", ImageBuilder.image({ layers: [huge] }))}`, `docker://${host}/huge:1`)
    const ran = yield* one.run(join(root, "bin", "pull"), ["--rootfs", one.path("tree"), `${host}/huge:1`], { measure: true })
    assert.strictEqual(ran.code, 0, ran.stderr)
    assert.strictEqual(lstatSync(one.path("tree", "big")).size, size)
    assert.strictEqual(yield* one.must("cat", [one.path("tree", "after")]), "behind 4 GiB")
    const fd = openSync(one.path("tree", "big"), "r")
    const end = Buffer.alloc(200, 1)
    assert.strictEqual(readSync(fd, end, 0, 200, size - 200), 200)
    closeSync(fd)
    assert.isTrue(end.every((byte) => byte === 0))
    assert.isAbove(ran.peak, 30 << 20)
    assert.isBelow(ran.peak, 256 << 20)
    yield* one.sound()
  }), 120_000)
})
