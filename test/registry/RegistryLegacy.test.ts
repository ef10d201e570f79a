import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import type * as Digest from "../../src/image/Digest.ts"
import * as SignedManifest from "../../src/image/v1/SignedManifest.ts"
import { contentOf } from "../../src/registry/answer/Contents.ts"
import * as Jws from "../../src/registry/Jws.ts"
import { Registry } from "../../src/registry/Registry.ts"
import * as TagList from "../../src/registry/answer/TagList.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { digestOf } from "../../src/testing/ImageBuilder.ts"
import { legacy } from "../../src/testing/old/LegacyImage.ts"
import { signer } from "../../src/testing/old/Signature.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import { client } from "./Client.ts"

const image = legacy({ steps: [{ tar: [{ path: "a", contents: "a" }] }, {}, { tar: [{ path: "b", contents: "b" }] }] })
const signers = [signer("ES256"), signer("RS256")]
const signed = image.schema1({ repository: "a/b", tag: "old", signers })
const plain = image.schema1({ repository: "a/b", tag: "plain" })
const on = (kind: Fault.Kind, ...actions: ReadonlyArray<Fault.Action>): ReadonlyArray<Fault.Rule> => [{ match: { kind }, do: actions }]
const registry = (script: ReadonlyArray<Fault.Rule> = []) => Effect.map(TestRegistry.make({ script }), (made) => made.put("a/b", "old", signed).put("a/b", "plain", plain))
const ask = (made: TestRegistry) => ({ domain: made.host, path: "a/b" })
const manifest = (made: TestRegistry, ref: string) => Registry.use((client) => client.manifest(ask(made), ref)).pipe(Effect.provide(client()))
const tags = (made: TestRegistry, path = "a/b") => Registry.use((client) => client.tags({ domain: made.host, path })).pipe(Effect.provide(client()))
const size = (made: TestRegistry, digest: Digest.Digest) => Registry.use((client) => client.size(ask(made), digest)).pipe(Effect.provide(client()))

describe("schema1", () => {
  it.live("by tag and by the digest of its payload, whatever type it is given as", () => Effect.gen(function*() {
    for (const mediaType of [undefined, "application/json", "application/json; charset=utf-8", "text/plain"]) {
      for (const one of [signed, plain]) {
        const { digest } = one.manifest.descriptor
        const made = yield* TestRegistry.make()
        made.addManifest("a/b", "t", one.manifest.raw, mediaType ?? one.manifest.descriptor.mediaType, digest)
        for (const ref of ["t", digest]) {
          const answer = yield* manifest(made, ref)
          assert.strictEqual(answer.digest, digest)
          assert.isTrue(Buffer.from(one.manifest.raw).equals(answer.raw))
          assert.strictEqual(answer.contentType, (mediaType ?? one.manifest.descriptor.mediaType).split(";")[0])
        }
        assert.match(made.requests[0]?.headers["accept"] ?? "", /manifest\.v2\+json.*manifest\.v1\+prettyjws, application\/vnd\.docker\.distribution\.manifest\.v1\+json$/)
      }
    }
  }))
  it.live("damaged in what is signed: refused; in the signatures alone: the digest holds", () => Effect.gen(function*() {
    const at = Buffer.from(signed.manifest.raw).indexOf("amd64")
    const made = yield* registry(on("manifest", Fault.flip(at)))
    const error = yield* Effect.flip(manifest(made, signed.manifest.descriptor.digest))
    assert.deepInclude(error, { _tag: "VerifyError", size: signed.manifest.descriptor.size })
    assert.strictEqual(made.requests.length, 2)
    const { raw } = signed.manifest, signature = Buffer.from(raw).indexOf("\"signature\": \"") + 20
    const other = yield* registry(on("manifest", Fault.flip(signature)))
    assert.strictEqual((yield* manifest(other, signed.manifest.descriptor.digest)).digest, signed.manifest.descriptor.digest)
  }))
  it("only what is schema1 has a payload", () => {
    const content = (raw: Uint8Array, type?: string) => Result.map(contentOf(raw, type), digestOf)
    const whole = digestOf(signed.manifest.raw), payload = signed.manifest.descriptor.digest
    assert.deepStrictEqual(content(signed.manifest.raw, "application/vnd.oci.image.manifest.v1+json"), Result.succeed(whole))
    assert.deepStrictEqual(content(signed.manifest.raw), Result.succeed(payload))
    const two = Buffer.from(Buffer.from(signed.manifest.raw).toString().replace(`"schemaVersion": 1`, `"schemaVersion": 2`))
    assert.deepStrictEqual(content(two, "application/json"), Result.succeed(digestOf(two)))
    assert.deepStrictEqual(content(Buffer.from("junk")), Result.succeed(digestOf(Buffer.from("junk"))))
  })
  it("what the kit signs verifies, in libtrust's layout", () => {
    const document = Result.getOrThrow(SignedManifest.decode(signed.manifest.raw, Jws.hash))
    const envelope = Result.getOrThrow(document.envelope)
    assert.deepStrictEqual(Result.getOrThrow(Jws.verify(envelope)), signers.map(({ keyId }) => keyId))
    assert.strictEqual(Result.getOrThrow(SignedManifest.digest(document, Jws.hash)), signed.manifest.descriptor.digest)
  })
})

describe("tags", () => {
  it.live("all, page by page", () => Effect.gen(function*() {
    const made = yield* registry()
    assert.deepStrictEqual(yield* tags(made), ["old", "plain"])
    const page = (names: ReadonlyArray<string>, link?: string) => [Fault.status(200, link === undefined ? {} : { link }, JSON.stringify({ name: "a/b", tags: names }))]
    const paged = yield* registry([
      { match: { kind: "tags", nth: 1 }, do: page(["a", "b"], `</v2/a/b/tags/list?last=b&n=2>; rel="next"`) },
      { match: { kind: "tags", nth: 2 }, do: page(["c"], `<list?last=c>; rel=next`) }, { match: { kind: "tags", nth: 3 }, do: page([]) }
    ])
    assert.deepStrictEqual(yield* tags(paged), ["a", "b", "c"])
    assert.deepStrictEqual(paged.requests.map(({ url }) => url), ["/v2/a/b/tags/list", "/v2/a/b/tags/list?last=b&n=2", "/v2/a/b/tags/list?last=c"])
  }))
  it.live("not there, lies and loops", () => Effect.gen(function*() {
    const missing = yield* Effect.flip(tags(yield* registry(), "no/such"))
    assert.deepInclude(missing, { _tag: "NotFound", what: "repository", repository: "no/such" })
    const say = (body: string, link?: string) => on("tags", Fault.status(200, link === undefined ? {} : { link }, body))
    const cases: ReadonlyArray<readonly [ReadonlyArray<Fault.Rule>, string]> = [
      [say("<html>"), "no acceptable JSON"], [say(`{"tags":["../x"]}`), `tags[0]: "../x" is no tag`], [say(`{"tags":{}}`), "tags: it is no list"], [say("[]"), "no JSON object"],
      [say(`{"tags":["a"]}`, `<http://127.0.0.2/v2/a/b/tags/list?n=1>; rel="next"`), "leads somewhere else"],
      [say(`{"tags":["a"]}`, `</v2/other/tags/list?n=1>; rel="next"`), "leads somewhere else"],
      [say(`{"tags":["a"]}`, `</v2/a/b/tags/list?n=1>; rel="next"`), "no new tag"],
      [on("tags", Fault.extraBytes(Infinity)), "longer than"]
    ]
    for (const [script, text] of cases) {
      const error = yield* Effect.flip(tags(yield* registry(script)))
      assert.strictEqual(error._tag, "AnswerRefused")
      assert.include(error.message, text)
    }
    assert.deepStrictEqual(yield* tags(yield* registry(say(`{"tags":null}`))), [])
  }))
  it.live("survives what passes", () => Effect.gen(function*() {
    for (const action of [Fault.drop, Fault.status(503), Fault.cutAt(3)]) {
      assert.deepStrictEqual(yield* tags(yield* registry([{ match: { kind: "tags", nth: 1 }, do: action }])), ["old", "plain"])
    }
  }))
  it("links", () => {
    const next = (link: string) => TagList.nextPage(link, "https://r", "/v2/a/tags/list")
    assert.deepStrictEqual(next(`</v2/a/tags/list?x=1>; title="t, <u>"; REL="last next"`), Result.succeed("/v2/a/tags/list?x=1"))
    assert.deepStrictEqual(next(`</x>; rel="prev"; title="rel=next", <y>`), Result.succeed(undefined))
    assert.deepStrictEqual(next(`</x>; rel="prev", </v2/a/tags/list?x=1>; rel="next"`), Result.succeed("/v2/a/tags/list?x=1"))
    assert.deepStrictEqual(next(`<https://r/v2/a/tags/list?n=1#f>;rel=next`), Result.succeed("/v2/a/tags/list?n=1"))
  })
})

describe("size", () => {
  const bytes = Buffer.alloc(1234, 7)
  it.live("by HEAD, else by the first byte", () => Effect.gen(function*() {
    const ways: ReadonlyArray<readonly [ReadonlyArray<Fault.Rule>, ReadonlyArray<string>]> = [
      [[], ["HEAD"]], [[{ match: { kind: "blob", method: "HEAD" }, do: Fault.status(405) }], ["HEAD", "GET"]],
      [[{ match: { kind: "blob", method: "HEAD" }, do: Fault.chunked(true) }], ["HEAD", "GET"]],
      [[{ match: { kind: "blob", method: "HEAD" }, do: Fault.setHeaders({ "content-encoding": "gzip" }) }], ["HEAD", "GET"]],
      [[{ match: { kind: "blob", method: "HEAD" }, do: Fault.status(403) }, { match: { kind: "blob", method: "GET" }, do: Fault.wrongRange("ignore") }], ["HEAD", "GET"]],
      [[{ match: { kind: "blob", nth: 1 }, do: Fault.drop }], ["HEAD", "HEAD"]]
    ]
    for (const [script, methods] of ways) {
      const made = yield* registry(script)
      assert.strictEqual(yield* size(made, made.addBlob("a/b", bytes)), 1234)
      assert.deepStrictEqual(made.requests.map(({ method }) => method), methods)
    }
    const empty = yield* registry([{ match: { kind: "blob", method: "HEAD" }, do: Fault.status(405) }])
    assert.strictEqual(yield* size(empty, empty.addBlob("a/b", new Uint8Array())), 0)
  }))
  it.live("typed errors where nothing tells it", () => Effect.gen(function*() {
    const made = yield* registry()
    assert.deepInclude(yield* Effect.flip(size(made, digestOf(bytes))), { _tag: "NotFound", what: "blob" })
    const untold = [Fault.chunked(true), Fault.wrongRange("ignore")]
    for (const actions of [untold, [...untold, Fault.html], [Fault.wrongRange("no-header"), Fault.chunked(true)], [Fault.wrongRange("multipart"), Fault.chunked(true)]]) {
      const silent = yield* registry(on("blob", ...actions))
      assert.strictEqual((yield* Effect.flip(size(silent, silent.addBlob("a/b", bytes))))._tag, "AnswerRefused")
    }
  }))
})
