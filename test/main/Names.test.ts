import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ImageBuilder, LegacyImage, V1Server } from "../../src/testing/index.ts"
import { assertFailed, setting } from "./setting.ts"

/** Images whose ids begin with the same digit, and that digit. */
const alike = (() => {
  const byDigit = new Map<string, Array<ImageBuilder.BuiltImage>>()
  for (let n = 0;; n++) {
    const image = ImageBuilder.image({ layers: [[{ path: "n", contents: String(n) }]] })
    const digit = image.config.descriptor.digest.slice(7, 8)
    const all = [...byDigit.get(digit) ?? [], image]
    if (all.length === 3) return { digit, images: all }
    byDigit.set(digit, all)
  }
})()
const idOf = ({ config }: ImageBuilder.BuiltImage) => config.descriptor.digest.slice(7)

describe("Names, by the commands", () => {
  it.live("pull -a takes every tag, from v2 and v1 registries; images are called by the beginning of their ids, and conflicts are named", () => Effect.gen(function*() {
    const { graph, pull, registry } = yield* setting()
    const v1 = yield* V1Server.make()
    const old = LegacyImage.legacy({ steps: [{ tar: [{ path: "base", contents: "base" }] }, { tar: [{ path: "top", contents: "top" }] }] }).images
    v1.put("old", "below", old.slice(0, 1)).put("old", "whole", old)
    for (const [at, image] of alike.images.entries()) registry.put("many", `t${at}`, image)
    const all = yield* pull(["-a", "--progress", "plain", `${registry.host}/many`, `${v1.host}/old`])
    assert.deepStrictEqual([all.code, all.stdout.trimEnd().split("\n").map((line) => line.split(" ")[0]).sort()], [0, [
      ...alike.images.map((_, at) => `${registry.host}/many:t${at}`), `${v1.host}/old:below`, `${v1.host}/old:whole`].sort()], all.stderr)
    assertFailed(yield* pull(["-a", `${registry.host}/many:t0`]), 2, /can't be used with --all-tags/)
    assertFailed(yield* pull(["-a", "-q", `${registry.host}/none`]), 3)

    const [first = "", second = ""] = alike.images.map(idOf)
    assertFailed(yield* graph("show", [alike.digit]), 2, new RegExp(`fits more than one image \\((?=.*${first.slice(0, 19)})(?=.*${second.slice(0, 19)}).*give more of the id`))
    assert.strictEqual(JSON.parse((yield* graph("show", ["--json", first.slice(0, 12)])).stdout)[0].id, first)
    assertFailed(yield* graph("rm", [alike.digit]), 2, /fits more than one image/)
    assert.strictEqual((yield* graph("rm", [second.slice(0, 12)])).stdout.split("\n")[0], `untagged ${registry.host}/many:t1`)
    assertFailed(yield* graph("show", [second]), 3)

    const base = old[0]?.id ?? "", top = old[1]?.id ?? ""
    const stays = yield* graph("rm", [`${v1.host}/old:below`])
    assert.deepStrictEqual([stays.stdout, stays.stderr, stays.code], [`untagged ${v1.host}/old:below\n`, "graph: the image stays: another stands on it\n", 0])
    assertFailed(yield* graph("rm", [base.slice(0, 12)]), 2, new RegExp(`${base.slice(0, 12)} is what ${top.slice(0, 12)} stands on: remove that one first`))
    assert.match((yield* graph("rm", [top])).stdout, new RegExp(`removed ${top.slice(0, 12)}`))
    assertFailed(yield* graph("show", [base]), 3)
  }).pipe(Effect.scoped), 120_000)
})
