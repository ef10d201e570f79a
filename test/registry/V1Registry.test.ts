import { assert, describe, it } from "@effect/vitest"
import { Effect, Pull, Result, Schedule, Stream } from "effect"
import type { NetworkError, RegistryFailure } from "../../src/registry/Errors.ts"
import * as RetryPolicy from "../../src/registry/RetryPolicy.ts"
import { V1Registry, type V1Endpoint, type V1Session } from "../../src/registry/V1Registry.ts"
import { selfSigned } from "../../src/testing/server/Certificate.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { legacy, type V1Image } from "../../src/testing/old/LegacyImage.ts"
import { noise } from "../../src/testing/ImageBuilder.ts"
import { V1Server, type V1ServerOptions } from "../../src/testing/old/V1Server.ts"
import { payloadChecksum } from "../../src/testing/old/V1Content.ts"
import { client, type Setup } from "./Client.ts"

const { images } = legacy({
  steps: [
    { tar: [{ path: "base", contents: noise("base", 30_000) }] }, { stored: "none" },
    { tar: [{ path: "top", contents: noise("top", 5_000) }], stored: "none" }
  ]
})
const none: V1Image = { id: "", parent: undefined, json: new Uint8Array(), layer: new Uint8Array(), diffId: legacy({ steps: [{}] }).schema2.config.descriptor.digest }
const [base = none, , top = none] = images
const server = (options: V1ServerOptions = {}) => Effect.map(V1Server.make(options), (made) => made.put("team/app", "v1", images))
const on = (kind: Fault.Kind, ...actions: ReadonlyArray<Fault.Action>): ReadonlyArray<Fault.Rule> => [{ match: { kind }, do: actions }]

const open = (made: V1Server, path = "team/app") => Effect.gen(function*() {
  const registry = yield* V1Registry
  return yield* registry.session({ domain: made.host, path }, yield* registry.ping({ domain: made.host, path: "team/app" }))
})
const first = (session: V1Session): V1Endpoint => session.endpoints[0] ?? assert.fail("no endpoint")

/** A layer's bytes, as a pull would fetch them: continued after failures, and from 0 where the server says so. */
const fetch = Effect.fnUntraced(function*(endpoint: V1Endpoint, id: string, size: number | undefined) {
  let had = Buffer.alloc(0), etag: string | undefined, resumable = false, best = 0
  let again = yield* Schedule.toStepWithSleep(RetryPolicy.legacyLayer)
  for (;;) {
    const result = yield* Effect.result(Effect.scoped(Effect.gen(function*() {
      const answer = yield* endpoint.layer(id, { from: resumable ? had.byteLength : 0, size, etag })
      resumable = answer.resumable
      etag = answer.etag
      had = had.subarray(0, answer.from)
      yield* Stream.runForEach(answer.body, (bytes) => Effect.sync(() => { had = Buffer.concat([had, bytes]) }))
      return answer.total
    })))
    if (Result.isSuccess(result) && (result.success === undefined || had.byteLength >= result.success)) return had
    const error: RegistryFailure | undefined = Result.isFailure(result) ? result.failure : undefined
    if (error !== undefined && error._tag !== "NetworkError") return yield* error
    if (had.byteLength > best) again = yield* Schedule.toStepWithSleep(RetryPolicy.legacyLayer)
    best = Math.max(best, had.byteLength)
    if (error !== undefined) yield* again(error).pipe(Pull.catchDone(() => Effect.fail<NetworkError>(error)))
  }
})

/** Everything of an image, base last, and its layers' bytes. */
const walk = (session: V1Session, tag = "v1") => Effect.gen(function*() {
  const id = yield* session.tag(tag)
  return yield* session.first((endpoint) => Effect.gen(function*() {
    const chain = yield* endpoint.ancestry(id)
    return yield* Effect.forEach(chain, (id) => Effect.gen(function*() {
      const json = yield* endpoint.json(id)
      return { id, json, layer: yield* fetch(endpoint, id, json.size) }
    }))
  }))
})
const expectWalk = (pulled: Effect.Success<ReturnType<typeof walk>>, sized = true) => {
  assert.deepStrictEqual(pulled.map(({ id }) => id), images.map(({ id }) => id).reverse())
  for (const [index, { json, layer }] of pulled.toReversed().entries()) {
    const image = images[index] ?? none
    assert.isTrue(Buffer.from(image.json).equals(json.raw), "json verbatim")
    assert.isTrue(Buffer.from(image.layer).equals(layer), `layer ${index}: ${layer.byteLength} bytes`)
    assert.strictEqual(json.size, sized ? image.layer.byteLength : undefined)
  }
}
const pull = (made: V1Server, setup: Setup = {}) => Effect.flatMap(open(made), walk).pipe(Effect.provide(client(setup)))
const credentials = (made: V1Server): Setup => ({
  credentials: { [made.host]: { username: "ann", password: "s3:cret" } }, options: { authorities: made.certificate === undefined ? [] : [made.certificate] }
})
const secrets = (made: V1Server) => made.requests.filter(({ headers }) => headers["authorization"] !== undefined || headers["cookie"] !== undefined).map(({ path }) => path)
const users = { ann: "s3:cret" }

describe("a pull", () => {
  it.live("of a standalone registry: in the old order, everything verbatim", () => Effect.gen(function*() {
    const made = yield* server()
    const pulled = yield* pull(made)
    expectWalk(pulled)
    assert.deepStrictEqual(pulled.map(({ json }) => json.payloadChecksums), images.map((image) => [payloadChecksum(image)]).reverse())
    assert.deepStrictEqual(made.requests.slice(0, 4).map(({ path }) => path), [
      "/v1/_ping", "/v1/repositories/team/app/images", "/v1/repositories/team/app/tags/v1", `/v1/images/${top.id}/ancestry`
    ])
    assert.strictEqual(made.requests[1]?.headers["x-docker-token"], "true")
    assert.deepStrictEqual(secrets(made), [])
  }))
  it.live("without sizes, ranges and checksums", () => Effect.gen(function*() {
    const made = yield* server({ sizes: false, ranges: false, checksums: "none" })
    const pulled = yield* pull(made)
    expectWalk(pulled, false)
    assert.deepStrictEqual(pulled.flatMap(({ json }) => json.payloadChecksums), [])
  }))
  it.live("of an index with another registry: the scheme is the index's, the token the registry's", () => Effect.gen(function*() {
    for (const tokens of ["plain", "prefixed", "twice", "single"] as const) {
      const registry = yield* V1Server.make({ role: "registry", tokens })
      const index = yield* server({ role: "index", registries: [registry], tokens, users })
      expectWalk(yield* pull(index, credentials(index)))
      const basic = `Basic ${Buffer.from("ann:s3:cret").toString("base64")}`
      assert.deepStrictEqual(index.requests.map(({ headers, path }) => [path, headers["authorization"]]), [["/v1/_ping", undefined], ["/v1/repositories/team/app/images", basic]])
      const sent = new Set(registry.requests.map(({ headers }) => headers["authorization"]))
      assert.strictEqual(sent.size, 1)
      assert.match([...sent][0] ?? "", /^Token signature=[a-f0-9]{32},repository="team\/app",access=read(,signature=|$)/)
      if (tokens === "single") assert.match(registry.requests.at(-1)?.headers["cookie"] ?? "", /^session="[a-f0-9-]{36}\?a=b&c=d,e"$/)
    }
  }))
  it.live("a token for a public repository is handed out and used too", () => Effect.gen(function*() {
    const made = yield* server({ tokens: "plain" })
    expectWalk(yield* pull(made))
    assert.match(made.requests.at(-1)?.headers["authorization"] ?? "", /^Token signature=/)
  }))
  it.live("of a standalone registry by https: Basic with every request", () => Effect.gen(function*() {
    const made = yield* server({ tls: true, users })
    expectWalk(yield* pull(made, credentials(made)))
    assert.deepStrictEqual(new Set(made.requests.slice(1).map(({ headers }) => headers["authorization"]?.slice(0, 6))), new Set(["Basic "]))
    assert.isUndefined(made.requests[0]?.headers["authorization"])
  }))
  it.live("Basic goes to no endpoint of another origin, whatever the index says it is", () => Effect.gen(function*() {
    const tls = selfSigned()
    const registry = yield* V1Server.make({ role: "registry", tokens: "plain", tls })
    const index = yield* server({ role: "index", standaloneHeader: "true", registries: [registry], users, tls })
    expectWalk(yield* pull(index, credentials(index)))
    assert.deepStrictEqual(new Set(registry.requests.map(({ headers }) => headers["authorization"]?.slice(0, 6))), new Set(["Token "]))
  }))
  it.live("a token that ends is replaced once by entering again", () => Effect.gen(function*() {
    const made = yield* server({ tokens: "plain", users })
    yield* Effect.gen(function*() {
      const session = yield* open(made)
      made.revoke()
      expectWalk(yield* walk(session))
      assert.strictEqual(made.find({ kind: "images" }).length, 2)
      made.script(on("images", Fault.status(403)))
      made.revoke()
      const error = yield* Effect.flip(session.tag("v1"))
      assert.strictEqual(error._tag, "Unauthorized")
      assert.include(error.message, "the index gives no other")
    }).pipe(Effect.provide(client(credentials(made))))
  }))
  it.live("redirects of layers carry no token and no cookie, to whatever origin", () => Effect.gen(function*() {
    for (const tls of [false, selfSigned()]) {
      const storage = yield* V1Server.make({ role: "storage", tls })
      const registry = yield* V1Server.make({ role: "registry", tokens: "single", storage, tls })
      const index = yield* server({ role: "index", registries: [registry], tokens: "single", users, tls })
      expectWalk(yield* pull(index, credentials(index)))
      assert.strictEqual(storage.requests.length, images.length)
      assert.deepStrictEqual(secrets(storage), [])
    }
    const same = yield* server({ tokens: "plain", script: [{ match: { kind: "layer", nth: [1, 3, 5] }, do: Fault.redirect("/elsewhere{url}", 302) }] })
    yield* Effect.flip(pull(same))
    assert.isUndefined(same.find({ kind: "page" })[0]?.headers["authorization"])
  }))
  it.live("never from https to http", () => Effect.gen(function*() {
    const storage = yield* V1Server.make({ role: "storage" })
    const made = yield* server({ tls: true, storage })
    const error = yield* Effect.flip(pull(made, { options: { authorities: [made.certificate ?? ""] } }))
    assert.include(error.message, "from https to plain HTTP")
    assert.strictEqual(storage.requests.length, 0)
  }))
})

describe("ping", () => {
  const standalone = (options: V1ServerOptions, script: ReadonlyArray<Fault.Rule> = []) => Effect.gen(function*() {
    const made = yield* server({ ...options, script })
    return (yield* V1Registry.use((registry) => registry.ping({ domain: made.host, path: "team/app" })).pipe(Effect.provide(client()))).standalone
  })
  it.live("the header says whether it is standalone, else the body, else it is", () => Effect.gen(function*() {
    const said = []
    for (const standaloneHeader of ["1", "true", "TRUE", "mirror", "0", "false", null]) said.push(yield* standalone({ standaloneHeader }))
    assert.deepStrictEqual(said, [true, true, true, false, false, false, true])
    const body = (text: string) => standalone({ standaloneHeader: null }, on("ping", Fault.status(200, {}, text)))
    assert.deepStrictEqual([yield* body(`{"standalone":false}`), yield* body("junk"), yield* body(`""`)], [false, true, true])
    assert.isFalse(yield* standalone({}, on("ping", Fault.status(404, { "x-docker-registry-standalone": "no" }))))
  }))
  it.live("the hub's index is known; an origin by http is not asked; plain HTTP needs leave", () => Effect.gen(function*() {
    const made = yield* server()
    const ping = (domain: string, origin?: string) => V1Registry.use((registry) => registry.ping({ domain, path: "x" }, origin)).pipe(Effect.provide(client()))
    assert.deepStrictEqual(yield* ping("docker.io"), { url: "https://index.docker.io", standalone: false })
    assert.deepStrictEqual(yield* ping(made.host, made.url), { url: made.url, standalone: true })
    assert.strictEqual(made.requests.length, 0)
    const error = yield* Effect.flip(ping(made.host, `https://${made.host}`))
    assert.include(error.message, "does not speak it")
  }))
})

describe("endpoints", () => {
  it.live("dead ones are passed over, by tags, tag and images", () => Effect.gen(function*() {
    const registry = yield* V1Server.make({ role: "registry" })
    const broken = yield* V1Server.make({ role: "registry", script: on("tags", Fault.status(500)) })
    const index = yield* server({ role: "index", registries: ["127.0.0.1:1", broken, registry] })
    yield* Effect.gen(function*() {
      const session = yield* open(index)
      assert.deepStrictEqual(session.endpoints.map(({ url }) => url), ["http://127.0.0.1:1", broken.url, registry.url])
      assert.deepStrictEqual([...yield* session.tags], [["v1", top.id]])
      expectWalk(yield* walk(session))
    }).pipe(Effect.provide(client()))
    assert.isAbove(broken.find({ kind: "tags" }).length, 0)
  }))
  it.live("an error that no other endpoint can help ends it", () => Effect.gen(function*() {
    const registries = [yield* V1Server.make({ role: "registry" }), yield* V1Server.make({ role: "registry" })]
    const index = yield* server({ role: "index", registries })
    const used: Array<string> = []
    yield* Effect.gen(function*() {
      const session = yield* open(index)
      const use = ({ url }: V1Endpoint) => Effect.suspend(() => { used.push(url); return Effect.fail({ _tag: "DiskFull", url }) })
      assert.deepStrictEqual(yield* Effect.flip(session.first(use, ({ _tag }) => _tag === "DiskFull")), { _tag: "DiskFull", url: registries[0]?.url ?? "" })
      assert.deepStrictEqual(yield* Effect.flip(session.first(use)), { _tag: "DiskFull", url: registries[1]?.url ?? "" })
    }).pipe(Effect.provide(client()))
    assert.deepStrictEqual(used, [0, 0, 1].map((at) => registries[at]?.url))
  }))
  it.live("if all are dead each is named with its reason", () => Effect.gen(function*() {
    const broken = yield* V1Server.make({ role: "registry", script: on("tags", Fault.status(500)) })
    const index = yield* server({ role: "index", registries: ["127.0.0.1:1", broken] })
    const error = yield* Effect.flip(pull(index))
    for (const part of ["http://127.0.0.1:1: the connection was refused", `${broken.url}: it answered 500`, "team/app"]) assert.include(error.message, part)
  }))
  it.live("what is no host, is not allowed or private is refused before any request", () => Effect.gen(function*() {
    for (const header of ["host/path", "http://127.0.0.1", "user@127.0.0.1", "127.0.0.1:99999", "a b", "..", "[::1", "registry.example", "127.0.0.1, -x", "127.0.0.1:1\u00e9"]) {
      const index = yield* server({ role: "index", registries: [header] })
      const error = yield* Effect.flip(open(index).pipe(Effect.provide(client())))
      assert.strictEqual(error._tag, "AnswerRefused", header)
      assert.include(error.message, "X-Docker-Endpoints")
    }
  }))
})

describe("what is not there or not allowed", () => {
  const failing = (options: V1ServerOptions, path = "team/app", tag = "v1", setup: Setup = {}) => Effect.gen(function*() {
    const made = yield* server(options)
    const error = yield* Effect.flip(Effect.flatMap(open(made, path), (session) => walk(session, tag))).pipe(Effect.provide(client(setup)))
    return { made, error }
  })
  it.live("404 of the repository and of a tag, in every form of error body", () => Effect.gen(function*() {
    for (const errors of ["json", "string", "text", "html"] as const) {
      const { error: repository } = yield* failing({ errors }, "no/such")
      assert.deepInclude(repository, { _tag: "NotFound", what: "repository", repository: "no/such" })
      const { error: tag, made } = yield* failing({ errors }, "team/app", "nope")
      assert.deepInclude(tag, { _tag: "NotFound", what: "tag", name: "nope" })
      assert.include(tag.message, "Tag nope not found in repository team/app")
      assert.strictEqual(made.find({ kind: "tags" }).length, 1)
    }
  }))
  it.live("a tag that the first endpoint does not know is not looked for at the next", () => Effect.gen(function*() {
    const registries = [yield* V1Server.make({ role: "registry" }), yield* V1Server.make({ role: "registry" })]
    const { error } = yield* failing({ role: "index", registries }, "team/app", "nope")
    assert.strictEqual(error._tag, "NotFound")
    assert.deepStrictEqual(registries.map(({ requests }) => requests.length), [1, 0])
  }))
  it.live("401 and 403, with what the server said", () => Effect.gen(function*() {
    for (const [errors, said] of [["json", "Requires authorization"], ["string", "Requires authorization"], ["html", "it answered 401"]] as const) {
      const { error, made } = yield* failing({ users, errors })
      assert.deepInclude(error, { _tag: "Unauthorized", denied: false, credentials: "anonymous" })
      assert.include(error.message, said)
      assert.strictEqual(made.find({ kind: "images" }).length, 1)
    }
    const { error } = yield* failing({ script: on("images", Fault.status(403, {}, `{"error":"Account is Inactive"}`)) })
    assert.deepInclude(error, { _tag: "Unauthorized", denied: true, detail: "Account is Inactive" })
    const { error: missing } = yield* failing({ script: on("layer", Fault.status(404, {}, `{"error":"Image not found"}`)) })
    assert.deepInclude(missing, { _tag: "NotFound", what: "layer" })
  }))
  it.live("documents that are damaged, too long or of something else", () => Effect.gen(function*() {
    const cases: ReadonlyArray<readonly [Fault.Kind, Fault.Action, string]> = [
      ["images", Fault.status(200, {}, `[{"id":"../x"}]`), "[0].id: expected 64"],
      ["images", Fault.html, "no acceptable JSON"],
      ["images", Fault.extraBytes(Infinity), "longer than 4194304 bytes"],
      ["images", Fault.setHeaders({ "content-encoding": "rot13" }), "Content-Encoding rot13"],
      ["tags", Fault.status(200, {}, `{"a":1}`), "expected 64 lower-case hexadecimal digits, found an object"],
      ["tags", Fault.status(200, {}, `"abc"`), "expected 64"],
      ["ancestry", Fault.status(200, {}, `["${base.id}"]`), "[0]: expected"],
      ["ancestry", Fault.status(200, {}, `["${top.id}","${top.id}"]`), "a second time"],
      ["json", Fault.status(200, {}, `{"id":"${"0".repeat(64)}"}`), "id: it is the json of"],
      ["json", Fault.status(200, {}, "{"), "cannot be read"],
      ["json", Fault.setHeaders({ "x-docker-size": "many" }), "X-Docker-Size: expected a number"],
      ["json", Fault.setHeaders({ "x-docker-size": "9007199254740993" }), "X-Docker-Size: expected a number"],
      ["json", Fault.setHeaders({ "x-docker-size": "7" }), "X-Docker-Size of its image's json says 7"],
      ["json", Fault.setHeaders({ "x-docker-checksum-payload": "sha256:zz" }), "X-Docker-Checksum-Payload: expected"],
      ["layer", Fault.html, "HTML page"]
    ]
    for (const [kind, action, text] of cases) {
      const { error } = yield* failing({ script: on(kind, action) })
      assert.include(error.message, text, JSON.stringify(action))
      assert.strictEqual(error._tag, text === "cannot be read" ? "NetworkError" : "AnswerRefused")
    }
  }))
})

describe("faults", () => {
  const size = base.layer.byteLength
  it.live("a lost layer goes on where it ended, and is never spliced from anything else", () => Effect.gen(function*() {
    const cases: ReadonlyArray<readonly [Fault.RangeFault | undefined, boolean]> = [
      [undefined, true], ["lie-end", true], ["short", true], ["ignore", false], ["lie-start", false], ["lie-total", false], ["no-header", false],
      ["416", false], ["multipart", false]
    ]
    for (const [how, continued] of cases) {
      const wrong: ReadonlyArray<Fault.Rule> = how === undefined ? [] : [{ match: { kind: "layer", name: base.id }, do: Fault.wrongRange(how) }]
      const made = yield* server({ script: [{ match: { kind: "layer", name: base.id, nth: 1 }, do: Fault.cutAt(20_000) }, ...wrong] })
      expectWalk(yield* pull(made))
      const asked = made.find({ kind: "layer", name: base.id })
      assert.deepStrictEqual(asked.slice(1, 2).map(({ range }) => range), [`bytes=20000-${size}`])
      const bytes = asked.reduce((sum, { bytesSent }) => sum + bytesSent, 0)
      if (continued) assert.isBelow(bytes, size + 100, how)
      else assert.isAtLeast(bytes, size + 20_000, how)
    }
  }))
  it.live("without Accept-Ranges or a size it begins again", () => Effect.gen(function*() {
    for (const options of [{ ranges: false }, { sizes: false }]) {
      const made = yield* server({ ...options, script: [{ match: { kind: "layer", name: base.id, nth: 1 }, do: Fault.cutAt(20_000) }] })
      expectWalk(yield* pull(made), options.sizes ?? true)
      assert.deepStrictEqual(made.find({ kind: "layer", name: base.id }).map(({ range }) => range), [undefined, undefined])
    }
  }))
  it.live("another version of a layer is not joined to the first", () => Effect.gen(function*() {
    const made = yield* server({ script: [
      { match: { kind: "layer", name: base.id, nth: 1 }, do: [Fault.setHeaders({ etag: "\"one\"" }), Fault.cutAt(20_000)] },
      { match: { kind: "layer", name: base.id, nth: [2, 3] }, do: Fault.setHeaders({ etag: "\"two\"" }) }
    ] })
    expectWalk(yield* pull(made))
    assert.deepStrictEqual(made.find({ kind: "layer", name: base.id }).map(({ status }) => status), [200, 206, 200])
  }))
  it.live("survives what passes, anywhere", () => Effect.gen(function*() {
    const passing = [Fault.drop, Fault.status(500), Fault.status(503), Fault.status(429, { "retry-after": "0" }), Fault.stall("headers", 2000), Fault.chunked(false),
      Fault.claimLength(99_999), Fault.cutAt(3), Fault.cutAt(3, { reset: true }), Fault.stall(5, 2000)]
    yield* Effect.forEach(passing, (action) => Effect.gen(function*() {
      const script = (["images", "tags", "ancestry", "json", "layer"] as const).map((kind): Fault.Rule => ({ match: { kind, nth: 1 }, do: action }))
      // A layer that claims another length is refused, since nothing else could tell.
      const made = yield* server({ script: action.do === "claimLength" ? script.slice(0, 4) : script })
      expectWalk(yield* pull(made))
      assert.deepStrictEqual(made.ruleRuns, made.ruleRuns.map(() => 1), JSON.stringify(action))
    }), { concurrency: 3 })
  }))
  it.live("five tries and no more", () => Effect.gen(function*() {
    for (const kind of ["images", "tags", "ancestry", "json", "layer"] as const) {
      const made = yield* server({ script: on(kind, Fault.status(502)) })
      const error = yield* Effect.flip(pull(made))
      assert.deepInclude(error, { _tag: "NetworkError", status: 502 })
      assert.strictEqual(made.find({ kind }).length, 5, kind)
      made.forget()
      yield* Effect.flip(pull(made, { limits: { tries: 2 } }))
      assert.strictEqual(made.find({ kind }).length, 2, kind)
    }
    const damaged = yield* server({ script: on("json", Fault.status(200, {}, "{")) })
    yield* Effect.flip(pull(damaged))
    assert.strictEqual(damaged.find({ kind: "json" }).length, 5)
  }))
  it.live("a coded layer is the layer where its length says so, else it is decoded", () => Effect.gen(function*() {
    for (const action of [Fault.contentEncoding("gzip", false), Fault.contentEncoding("gzip", true), Fault.contentEncoding("br", true)]) {
      const made = yield* server({ script: on("layer", action) })
      expectWalk(yield* pull(made))
    }
    const unknown = yield* server({ sizes: false, script: on("layer", Fault.contentEncoding("gzip", false)) })
    expectWalk(yield* pull(unknown), false)
  }))
  it.live("an endless layer ends one byte after its size", () => Effect.gen(function*() {
    const made = yield* server({ script: on("layer", Fault.extraBytes(Infinity)) })
    const bytes = yield* Effect.scoped(Effect.gen(function*() {
      const answer = yield* first(yield* open(made)).layer(base.id, { from: 0, size })
      return yield* Stream.runFold(answer.body, () => 0, (sum, piece) => sum + piece.byteLength)
    })).pipe(Effect.provide(client()))
    assert.strictEqual(bytes, size + 1)
  }))
})
