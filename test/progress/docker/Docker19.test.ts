import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Digest } from "../../../src/image/Digest.ts"
import { ImageId } from "../../../src/image/ImageId.ts"
import * as Docker19 from "../../../src/progress/docker/Docker19.ts"
import type { LayerEvent, LayerKey, PullEvent } from "../../../src/progress/PullEvent.ts"

const hex = (letter: string) => letter.repeat(64)
const digest = (letter: string) => Schema.decodeSync(Digest)(`sha256:${hex(letter)}`)
const id = (letter: string) => Schema.decodeSync(ImageId)(hex(letter))
const short = (letter: string) => letter.repeat(12)
const still = (letter: string, status: string) => `{"status":"${status}","progressDetail":{},"id":"${short(letter)}"}`
/** A message with a bar: `share` of the 50 cells. */
const moving = (letter: string, status: string, current: number, total: number, share: number, text: string) =>
  `{"status":"${status}","progressDetail":{${current === 0 ? "" : `"current":${current},`}"total":${total}},"progress":"[${"=".repeat(share)}\\u003e${" ".repeat(50 - share)}] ${text}","id":"${short(letter)}"}`
const line = (status: string, of?: string) => `{"status":"${status}"${of === undefined ? "" : `,"id":"${of}"`}}\r\n`

const reference = "registry.example:5000/team/app:1"
const of = (event: LayerEvent, text = reference): PullEvent => ({ ...event, reference: text })
const downloading = (layer: LayerKey, bytes: number, total?: number): LayerEvent => ({ _tag: "downloading", layer, bytes, ...(total === undefined ? {} : { total }) })
const extracting = (layer: LayerKey, bytes: number, total: number): LayerEvent => ({ _tag: "extracting", layer, bytes, total })
const simple = (_tag: "waiting" | "verified" | "committed" | "exists", layer: LayerKey): LayerEvent => ({ _tag, layer })
const resolved: PullEvent = { _tag: "resolved", reference, digest: digest("f"), mediaType: "m", endpoint: "https://registry.example:5000" }
const done = (changed: boolean): PullEvent => ({ _tag: "done", reference, digest: digest("f"), image: hex("1"), changed })

const chunks = (events: ReadonlyArray<PullEvent>, options?: Docker19.Options) => Effect.map(
  Stream.runCollect(Docker19.render(Stream.fromIterable(events), options)), (all) => [...all])

describe("docker-1.9: a v2 pull", () => {
  it.effect("announces what is missing base first, downloads at once, unpacks in order", Effect.fnUntraced(function*() {
    const [base, top] = [digest("a"), digest("b")]
    const said = yield* chunks([
      resolved,
      { _tag: "verified", reference, by: ["ABCD:EFGH"] },
      {
        _tag: "planned", reference, manifest: digest("f"), platform: "linux/amd64", total: 350, missing: 350, layers: [
          { layer: digest("c"), size: 50, state: "unpacked", image: { id: id("3"), known: true } },
          { layer: base, size: 200, state: "missing", image: { id: id("1"), known: false } },
          { layer: top, size: 100, state: "missing", image: { id: id("2"), known: false } }
        ]
      },
      of(simple("exists", digest("c"))),
      of(simple("waiting", base)), of(simple("waiting", top)),
      of(downloading(top, 0, 100)), of(downloading(top, 100, 100)), of(extracting(top, 60, 100)), of(simple("verified", top)), of(extracting(top, 80, 100)), of(simple("committed", top)),
      of(downloading(base, 1, 200)), of(downloading(base, 4, 200)), of(extracting(base, 3, 200)), of(downloading(base, 199, 200)), of(simple("verified", base)),
      of(extracting(base, 150, 200)), of(simple("committed", base)),
      { _tag: "tagged", reference, digest: digest("f") },
      { _tag: "warning", reference, message: "goes to the daemon's log" },
      done(true)
    ])
    assert.deepStrictEqual(said, [
      line("Pulling from team/app", "1"),
      still("1", "Pulling fs layer"),
      still("2", "Pulling fs layer"),
      moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"),
      moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"),
      moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"),
      still("2", "Verifying Checksum"),
      still("2", "Download complete"),
      moving("1", "Downloading", 4, 200, 1, "     4 B/200 B"),
      moving("1", "Downloading", 199, 200, 49, "   199 B/200 B"),
      moving("1", "Downloading", 200, 200, 50, "   200 B/200 B"),
      moving("1", "Downloading", 200, 200, 50, "   200 B/200 B"),
      still("1", "Verifying Checksum"),
      still("1", "Download complete"),
      moving("1", "Extracting", 3, 200, 0, "     3 B/200 B"),
      moving("1", "Extracting", 150, 200, 37, "   150 B/200 B"),
      moving("1", "Extracting", 200, 200, 50, "   200 B/200 B"),
      moving("1", "Extracting", 200, 200, 50, "   200 B/200 B"),
      moving("1", "Extracting", 200, 200, 50, "   200 B/200 B"),
      still("1", "Pull complete"),
      moving("2", "Extracting", 80, 100, 40, "    80 B/100 B"),
      moving("2", "Extracting", 100, 100, 50, "   100 B/100 B"),
      moving("2", "Extracting", 100, 100, 50, "   100 B/100 B"),
      moving("2", "Extracting", 100, 100, 50, "   100 B/100 B"),
      still("2", "Pull complete"),
      line(`Digest: ${digest("f")}`),
      line("Status: Downloaded newer image for registry.example:5000/team/app:1")
    ])
  }))

  it.effect("images that share a blob have lines of their own; one in the graph has none", Effect.fnUntraced(function*() {
    const blob = digest("a")
    const said = yield* chunks([
      resolved,
      {
        _tag: "planned", reference, manifest: digest("f"), platform: "linux/amd64", total: 32, missing: 32, layers: ["1", "2", "3"].map((letter) =>
          ({ layer: blob, size: 32, state: "missing" as const, image: { id: id(letter), known: letter === "2" } }))
      },
      of(simple("waiting", blob)), of(downloading(blob, 32, 32)), of(simple("verified", blob)), of(simple("committed", blob)), done(true)
    ])
    const status = (letter: string) => said.filter((text) => text.includes(short(letter))).map((text) => /"status":"([^"]*)"/.exec(text)?.[1])
    const each = ["Pulling fs layer", "Downloading", "Downloading", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Extracting", "Extracting", "Pull complete"]
    assert.deepStrictEqual([status("1"), status("2"), status("3")], [each, [], each])
    assert.deepStrictEqual(said.filter((text) => text.includes("Pull complete")), [still("1", "Pull complete"), still("3", "Pull complete")])
  }))

  it.effect("blobs stand for images that have none; what the store had needs no download", Effect.fnUntraced(function*() {
    const hub = "docker.io/library/busybox:latest"
    const said = yield* chunks([
      { ...resolved, reference: hub },
      { _tag: "planned", reference: hub, manifest: digest("f"), platform: "linux/amd64", total: 20, missing: 0, layers: [
        { layer: digest("a"), size: 0, state: "unpacked" }, { layer: digest("b"), size: 0, state: "stored" }, { layer: digest("c"), size: 9, state: "missing" }
      ] },
      of(simple("exists", digest("a")), hub), of(simple("committed", digest("b")), hub), of(simple("exists", digest("c")), hub), { ...done(false), reference: hub }
    ])
    assert.deepStrictEqual(said, [
      line("Pulling from library/busybox", "latest"), still("b", "Pulling fs layer"), still("c", "Pulling fs layer"),
      still("b", "Download complete"), still("b", "Extracting"), still("b", "Extracting"), still("b", "Pull complete"),
      still("c", "Download complete"), still("c", "Pull complete"),
      line(`Digest: ${digest("f")}`), line("Status: Downloaded newer image for busybox:latest")
    ])
  }))

  it.effect("newer: a layer came, or the tag is new; a tag that moved to what was there is up to date", Effect.fnUntraced(function*() {
    const last = (events: ReadonlyArray<PullEvent>) => Effect.map(chunks([resolved, ...events]), (said) => said.at(-1))
    const newer = line("Status: Downloaded newer image for registry.example:5000/team/app:1")
    const upToDate = line("Status: Image is up to date for registry.example:5000/team/app:1")
    assert.strictEqual(yield* last([done(false)]), upToDate)
    assert.strictEqual(yield* last([{ _tag: "tagged", reference, digest: digest("f") }, done(true)]), newer)
    assert.strictEqual(yield* last([{ _tag: "tagged", reference, digest: digest("f"), moved: true }, done(true)]), upToDate)
    const byDigest = `registry.example:5000/team/app@${digest("f")}`
    assert.deepStrictEqual(yield* chunks([{ ...resolved, reference: byDigest }, { ...done(false), reference: byDigest }]), [
      line("Pulling from team/app", digest("f")), line(`Digest: ${digest("f")}`), line(`Status: Image is up to date for ${byDigest}`)
    ])
  }))

  it.effect("all tags of a repository end with one status; a failure with the error alone", Effect.fnUntraced(function*() {
    const name = "registry.example:5000/team/app"
    const said = yield* chunks([
      { _tag: "repository", reference: name, name, protocol: "v2", tags: ["1", "2"] }, resolved, done(false),
      { ...resolved, reference: `${name}:2` }, { _tag: "tagged", reference: `${name}:2`, digest: digest("f") }, { ...done(true), reference: `${name}:2` },
      { _tag: "done", reference: name, changed: true }
    ])
    assert.deepStrictEqual(said, [
      line("Pulling from team/app", "1"), line(`Digest: ${digest("f")}`), line("Pulling from team/app", "2"), line(`Digest: ${digest("f")}`),
      line(`Status: Downloaded newer image for ${name}`)
    ])
    assert.deepStrictEqual((yield* chunks([resolved, { _tag: "failed", reference, message: `no <tag> "x"`, code: 404 }])).at(-1),
      String.raw`{"errorDetail":{"message":"no \u003ctag\u003e \"x\""},"error":"no \u003ctag\u003e \"x\""}` + "\r\n")
  }))

  it.effect("a narrow terminal has no bars", Effect.fnUntraced(function*() {
    const said = yield* chunks([
      { _tag: "planned", reference, manifest: digest("f"), platform: "linux/amd64", total: 100, missing: 100, layers: [{ layer: digest("a"), size: 100, state: "missing" }] },
      of(downloading(digest("a"), 50, 100))
    ], { columns: 80 })
    assert.strictEqual(said.at(-1), `{"status":"Downloading","progressDetail":{"current":50,"total":100},"progress":"    50 B/100 B","id":"${short("a")}"}`)
  }))
})

describe("docker-1.9: a v1 pull", () => {
  const name = "registry.example:5000/team/app"
  const image = (state: "pulling" | "failed" | "complete", more: { readonly from?: { readonly kind: "mirror" | "endpoint"; readonly url: string }; readonly cause?: string } = {}): PullEvent =>
    ({ _tag: "image", reference, image: id("3"), tag: "1", repository: name, state, ...more })
  const step = (layer: string, doing: "ancestry" | "metadata" | "request" | "unpack", attempt = 1, cause?: string): PullEvent =>
    ({ _tag: "step", reference, layer: id(layer), doing, attempt, ...(cause === undefined ? {} : { cause }) })
  const endpoint = (host: string) => ({ kind: "endpoint" as const, url: `https://${host}/v1/` })
  const plan: PullEvent = { _tag: "planned", reference, total: 0, missing: 0, layers: ["1", "2", "3"].map((letter) =>
    ({ layer: id(letter), state: "missing", image: { id: id(letter), known: letter === "1" } })) }
  const begin: PullEvent = { _tag: "repository", reference, name, protocol: "v1" }
  const end = [
    line("Status: Downloaded newer image for registry.example:5000/team/app:1"),
    line(`${name}: this image was pulled from a legacy registry.  Important: This registry version will not be supported in future versions of docker.`)
  ]

  it.effect("one layer after the other, from the base up, however they come", Effect.fnUntraced(function*() {
    const said = yield* chunks([
      begin, image("pulling"), image("pulling", { from: { kind: "mirror", url: "http://mirror/v1/" } }), image("failed", { from: { kind: "mirror", url: "http://mirror/v1/" }, cause: "gone" }),
      image("pulling", { from: endpoint("one") }), step("3", "ancestry"), plan,
      step("3", "metadata"), step("3", "request"), of(downloading(id("3"), 700_000)),
      step("2", "metadata"), step("2", "metadata", 2), step("2", "request"), of(downloading(id("2"), 3, 100)), step("2", "request", 2), of(downloading(id("2"), 100, 100)),
      of(simple("committed", id("3"))), of(simple("committed", id("2"))),
      image("complete"), { _tag: "tagged", reference, image: hex("3") }, { _tag: "done", reference, digest: digest("f"), image: hex("3"), changed: true }
    ])
    assert.deepStrictEqual(said, [
      line(`Pulling repository ${name}`),
      still("3", `Pulling image (1) from ${name}`), still("3", `Pulling image (1) from ${name}, mirror: http://mirror/v1/`),
      still("3", `Pulling image (1) from ${name}, endpoint: https://one/v1/`), still("3", "Pulling dependent layers"),
      still("1", "Download complete"),
      still("2", "Pulling metadata"), still("2", "Pulling fs layer"), moving("2", "Downloading", 3, 100, 1, "     3 B/100 B"), still("2", "Pulling fs layer [retries: 2]"),
      moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"), moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"), moving("2", "Downloading", 100, 100, 50, "   100 B/100 B"),
      still("2", "Download complete"),
      still("3", "Pulling metadata"), still("3", "Pulling fs layer"),
      ...Array<string>(3).fill(`{"status":"Downloading","progressDetail":{"current":700000,"total":-1},"progress":"  700 kB","id":"${short("3")}"}`),
      still("3", "Download complete"), still("3", "Download complete"),
      ...end
    ])
  }))

  it.effect("all tags: the repository is named once, and one status and one sentence end it", Effect.fnUntraced(function*() {
    const said = yield* chunks([
      { _tag: "repository", reference: name, name, protocol: "v1", tags: ["1"] }, begin, image("pulling"), step("3", "metadata"), plan,
      of(simple("exists", id("2"))), of(simple("exists", id("3"))), image("complete"),
      { _tag: "done", reference, digest: digest("f"), image: hex("3"), changed: false }, { _tag: "done", reference: name, changed: false }
    ])
    assert.deepStrictEqual(said, [
      line(`Pulling repository ${name}`), still("3", `Pulling image (1) from ${name}`), still("1", "Download complete"), still("2", "Download complete"),
      still("3", "Pulling metadata"), still("3", "Download complete"), still("3", "Download complete"),
      line(`Status: Image is up to date for ${name}`), end[1]
    ])
  }))

  it.effect("endpoints that fail, and the words for what failed", Effect.fnUntraced(function*() {
    const said = yield* chunks([
      begin, image("pulling"), image("pulling", { from: endpoint("one") }), step("3", "ancestry"), plan,
      step("2", "metadata"), step("2", "request"), step("3", "metadata"), step("2", "request", 1, "no such layer"), image("failed", { from: endpoint("one"), cause: "no such layer" }),
      image("pulling", { from: endpoint("two") }), step("3", "ancestry"), plan,
      step("2", "metadata"), step("2", "request"), of(downloading(id("2"), 1, 10)), step("2", "unpack", 1, "no tar"), image("failed", { from: endpoint("two"), cause: "no tar" }),
      image("failed", { cause: "no tar" }), { _tag: "failed", reference, message: "Authentication is required.", code: 401 }
    ])
    assert.deepStrictEqual(said, [
      line(`Pulling repository ${name}`), still("3", `Pulling image (1) from ${name}`),
      still("3", `Pulling image (1) from ${name}, endpoint: https://one/v1/`), still("3", "Pulling dependent layers"), still("1", "Download complete"),
      still("2", "Pulling metadata"), still("2", "Pulling fs layer"), still("2", "Error pulling dependent layers"),
      still("3", `Error pulling image (1) from ${name}, endpoint: https://one/v1/, no such layer`),
      still("3", `Pulling image (1) from ${name}, endpoint: https://two/v1/`), still("3", "Pulling dependent layers"), still("1", "Download complete"),
      still("2", "Pulling metadata"), still("2", "Pulling fs layer"), moving("2", "Downloading", 1, 10, 5, "     1 B/10 B"), still("2", "Error downloading dependent layers"),
      still("3", `Error pulling image (1) from ${name}, endpoint: https://two/v1/, no tar`), still("3", `Error pulling image (1) from ${name}, no tar`),
      `{"errorDetail":{"code":401,"message":"Authentication is required."},"error":"Authentication is required."}\r\n`
    ])
  }))

  it.effect("all is there: the layers say so, and the image is up to date", Effect.fnUntraced(function*() {
    const said = yield* chunks([
      begin, image("pulling"), of(simple("exists", id("1"))), of(simple("exists", id("3"))), image("complete"), { _tag: "done", reference, image: hex("3"), changed: false }
    ])
    assert.deepStrictEqual(said, [
      line(`Pulling repository ${name}`), still("3", `Pulling image (1) from ${name}`), still("1", "Download complete"), still("3", "Download complete"),
      still("3", "Download complete"), line("Status: Image is up to date for registry.example:5000/team/app:1"), end[1]
    ])
  }))
})
