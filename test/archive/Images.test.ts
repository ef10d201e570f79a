import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Images from "../../src/archive/Images.ts"
import type { LegacyArchive } from "../../src/archive/LegacyImages.ts"
import type { Item } from "../../src/testing/Archive.ts"
import * as ImageBuilder from "../../src/testing/ImageBuilder.ts"
import * as SavedArchive from "../../src/testing/old/SavedArchive.ts"
import { refusalOf, tree } from "./Opened.ts"

const ids = ["a", "b", "c", "d"].map((digit) => digit.repeat(64))
const [a = "", b = "", c = "", d = ""] = ids
const layer = Buffer.from("layer")
const saved = (id: string, parent?: string, more: object = {}): SavedArchive.LegacySaved => ({ id, json: JSON.stringify({ id, ...(parent === undefined ? {} : { parent }), ...more }), layer })

const legacy = (items: ReadonlyArray<Item>) => Effect.map(tree(items), (tree): LegacyArchive => {
  const images = Images.of(tree)
  return images.kind === "legacy" ? images.archive : assert.fail(images.kind)
})
const order = (items: ReadonlyArray<Item>, known: ReadonlyArray<string> = []) => Effect.map(legacy(items), (archive) => {
  const { failure, images } = archive.order(new Set(known))
  return [images.map(({ id }) => id[0]).join(""), failure?.entry, failure?.rule] as const
})
const refused = (items: ReadonlyArray<Item>) => Effect.map(tree(items), (tree) => refusalOf(() => {
  const images = Images.of(tree)
  return images.kind === "legacy" ? images.archive.tags : images
}))

const demo = ImageBuilder.demo()
const config = `${demo.config.descriptor.digest.slice(7)}.json`
const changed = (items: ReadonlyArray<Item>, path: string, contents: string | undefined): ReadonlyArray<Item> => items.flatMap((item): ReadonlyArray<Item> =>
  !("path" in item) || item.path !== path ? [item] : contents === undefined ? [] : [{ ...item, contents }])
const withManifest = (manifest: unknown) => changed(SavedArchive.docker([{ image: demo, names: ["demo:1"] }]), "manifest.json", typeof manifest === "string" ? manifest : JSON.stringify(manifest))

describe("Images of archives of Docker 1.9 and before", () => {
  it.effect("come in the folders' order, parents first, each once", Effect.fnUntraced(function*() {
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([saved(d), saved(a, c), saved(b, a), saved(c, d)])), ["dcab", undefined, undefined])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([saved(a, c), saved(b, a)]), [c]), ["ab", undefined, undefined])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([saved(a, c), saved(b, a), saved(c)]), [a]), ["bc", undefined, undefined])
  }))

  it.effect("may be in folders of other names", Effect.fnUntraced(function*() {
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([{ ...saved(a), folder: "some-name" }])), ["a", undefined, undefined])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([{ ...saved(a), folder: c }, saved(b, c)])),
      ["a", `${b}/json`, `its parent ${c} is not what is in the folder of that name`])
  }))

  it.effect("that are their own ancestors, or lack a part, end the order after those before them", Effect.fnUntraced(function*() {
    const rest = [saved(a), { ...saved(b) }]
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, saved(c, c)])), ["ab", `${c}/json`, "the image is its own parent"])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, saved(c, d), saved(d, c)])), ["ab", `${c}/json`, "the image is one of its own ancestors"])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, saved(c, d)])), ["ab", `${d}/json`, "it is missing"])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, { id: c, json: JSON.stringify({ id: c }) }])), ["ab", `${c}/layer.tar`, "it is missing"])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, { ...saved("C"), folder: c }])), ["ab", `${c}/json`, "image ID 'C' is invalid"])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([...rest, saved(c, "../../etc")])), ["ab", `${c}/json`, "its parent '../../etc' is no image ID"])
    for (const json of ["", "{", "[]", "7", "{\"id\":7}"]) {
      const [images, entry] = yield* order(SavedArchive.legacy([...rest, { id: c, json, layer }]))
      assert.deepStrictEqual([images, entry], ["ab", `${c}/json`], json)
    }
    const [images, entry, rule] = yield* order(SavedArchive.legacy([...rest, { id: c, json: " ".repeat(5 << 20), layer }]))
    assert.deepStrictEqual([images, entry, rule], ["ab", `${c}/json`, "it has 5242880 bytes, and at most 4194304 are taken"])
  }))

  it.effect("may have many ancestors and not too many, and links as layers only in the archive", Effect.fnUntraced(function*() {
    const idAt = (n: number) => n.toString(16).padStart(64, "0")
    const line = Array.from({ length: 1000 }, (_, n) => saved(idAt(n), n === 999 ? undefined : idAt(n + 1)))
    assert.deepStrictEqual((yield* legacy(SavedArchive.legacy(line))).order(new Set()).images.length, 1000)
    const longer = Array.from({ length: 1100 }, (_, n) => saved(idAt(n), n === 1099 ? undefined : idAt(n + 1)))
    assert.strictEqual((yield* order(SavedArchive.legacy(longer)))[2], "it has more than 1024 ancestors")
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([saved(a), { ...saved(b, a), layer: `../${a}/layer.tar` }])), ["ab", undefined, undefined])
    assert.deepStrictEqual(yield* order(SavedArchive.legacy([{ ...saved(a), layer: "../../../etc/shadow" }])), ["", `${a}/layer.tar`, "a symbolic link of it leads outside"])
  }), 20_000)

  it.effect("have tags by 1.9's grammar", Effect.fnUntraced(function*() {
    const archive = yield* legacy(SavedArchive.legacy([saved(a)], { busybox: { latest: a }, "localhost:5000/x": { "": a }, UPPER: { x: a } }))
    assert.deepStrictEqual(archive.tags, [
      { name: "busybox", canonical: "docker.io/library/busybox", tag: "latest", address: a },
      { name: "localhost:5000/x", canonical: "localhost:5000/x", tag: "latest", address: a },
      { name: "UPPER", canonical: "docker.io/library/UPPER", tag: "x", address: a }
    ])
    for (const repositories of [{ "../x": { a } }, { "a b": { a } }, { "": { a } }, { scratch: { a } }, { x: { "a/b": a } }, { x: { "../../t": a } }, { "http://x/y": { a } }, { [a]: { t: a } }]) {
      assert.strictEqual((yield* refused(SavedArchive.legacy([saved(a)], repositories)))?.[0], "repositories", JSON.stringify(repositories))
    }
    for (const text of ["[]", "{\"x\":7}", "{\"x\":{\"t\":7}}", "{\"__proto__\":{\"t\":\"x\"}}", "{\"x\":{},\"x\":{}}", "nonsense", ""]) {
      assert.strictEqual((yield* refused([{ path: "repositories", contents: text }]))?.[0], "repositories", text)
    }
  }))
})

describe("Images of manifest.json", () => {
  it.effect("must be whole, and configs what their names say", Effect.fnUntraced(function*() {
    const items = SavedArchive.docker([{ image: demo, names: ["demo:1"] }])
    assert.deepStrictEqual(yield* refused(changed(items, config, undefined)), ["manifest.json", `the config "${config}" is not in the archive`])
    assert.strictEqual((yield* refused(changed(items, config, "{}")))?.[0], config)
    for (const [manifest, rule] of [
      ["nonsense", /expected a value/], [{}, /array/i], [[{}], /Config/], [[{ Config: 7 }], /Config/], [[{ Config: config, Layers: [7] }], /Layers/],
      [[{ Config: "../../etc/passwd" }], /leads? outside|outside/], [[{ Config: config, Layers: ["../x"] }], /outside/],
      [[{ Config: config, RepoTags: ["../x:1"] }], /not an image reference/], [[{ Config: config, Layers: Array.from({ length: 4097 }, () => "layer.tar") }], /has 4097 layers, and at most 4096 are taken/], [[{ Config: config, RepoTags: [`x@sha256:${a}`] }], /no name and tag/],
      ["[{\"Config\":\"a\",\"Config\":\"b\"}]", /second time/], ["[{\"__proto__\":{}}]", /__proto__/], [`${"[".repeat(200)}`, /nested deeper/]
    ] as const) {
      assert.match((yield* refused(withManifest(manifest)))?.[1] ?? "", rule, JSON.stringify(manifest))
    }
  }))
})

describe("Images of an OCI layout", () => {
  it.effect("must have a known version, an index, and names that are some", Effect.fnUntraced(function*() {
    const items = SavedArchive.oci([{ image: demo, names: ["demo:1"] }])
    const entryOf = (items: ReadonlyArray<Item>) => Effect.map(refused(items), (refusal) => refusal?.[0])
    assert.strictEqual(yield* entryOf(changed(items, "oci-layout", `{"imageLayoutVersion":"2.0.0"}`)), "oci-layout")
    assert.strictEqual(yield* entryOf(changed(items, "index.json", "{}")), "index.json")
    assert.strictEqual(yield* entryOf(changed(items, "index.json", Buffer.from(demo.manifest.raw).toString())), "index.json")
    assert.strictEqual(yield* entryOf(SavedArchive.oci([{ image: demo, names: ["../../x:1"] }])), "index.json")
    const images = Images.of(yield* tree(SavedArchive.oci([{ image: demo, names: ["12", "a/b:1"] }])))
    assert.deepStrictEqual(images.kind === "oci" ? images.images.map(({ label, names }) => [label, names]) : [], [
      ["12", []], [undefined, [{ name: "docker.io/a/b", tag: "1" }]]
    ])
  }))
})
