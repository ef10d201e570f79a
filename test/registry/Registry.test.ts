import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import { createServer } from "node:http"
import type { Descriptor } from "../../src/image/Descriptor.ts"
import * as Digest from "../../src/image/Digest.ts"
import { NetworkError, type RegistryFailure } from "../../src/registry/Errors.ts"
import { type BlobAnswer, manifestCap, Registry } from "../../src/registry/Registry.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import { bytesOf, client, descriptorOf, type Setup } from "./Client.ts"

const bytes = Buffer.from(Array.from({ length: 5000 }, (_, at) => at * 31 % 251))
const whole = descriptorOf(bytes)
const raw = Buffer.from(`{"schemaVersion":2}`)
const type = "application/vnd.oci.image.manifest.v1+json"
const hash = (algorithm: "sha256" | "sha512", of: Uint8Array) => Digest.Digest.make(`${algorithm}:${createHash(algorithm).update(of).digest("hex")}`)

const registry = (script: ReadonlyArray<Fault.Rule> = [], tls = false) => Effect.map(TestRegistry.make({ script, tls }), (made) => {
  made.addBlob("a/b", bytes)
  made.addManifest("a/b", "latest", raw, type)
  return made
})
const on = (kind: Fault.Kind, ...actions: ReadonlyArray<Fault.Action>): ReadonlyArray<Fault.Rule> => [{ match: { kind }, do: actions }]
const manifest = (made: { readonly host: string }, ref = "latest", path = "a/b") => Registry.use((client) => client.manifest({ domain: made.host, path }, ref))
const blob = <A, E>(made: TestRegistry, of: Descriptor, from: number, use: (answer: BlobAnswer) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(Registry.use((client) => client.blob({ domain: made.host, path: "a/b" }, of, from)), use))
const read = (made: TestRegistry, from = 0, of = whole) => blob(made, of, from, (answer) => Effect.map(bytesOf(answer.body), (body) => ({ from: answer.from, body })))
const collectInto = (body: Stream.Stream<Uint8Array, NetworkError>, pieces: Array<Uint8Array>) =>
  Stream.runForEach(body, (piece) => Effect.sync(() => { pieces.push(piece) }))
/** Fails briefly: a listing of thousands of bytes helps nobody. */
const same = (actual: Uint8Array, expected: Uint8Array, message = "") =>
  assert.isTrue(Buffer.from(expected).equals(actual), `${message}: ${actual.byteLength} bytes where ${expected.byteLength} were expected, or others`)
const kinds = (made: TestRegistry) => made.requests.map(({ kind, status }) => `${kind} ${status}`)

describe("manifest", () => {
  it.live("by tag and by digest, with what it is and where it came from", () => Effect.gen(function*() {
    const made = yield* registry()
    for (const ref of ["latest", hash("sha256", raw)]) {
      const answer = yield* manifest(made, ref).pipe(Effect.provide(client()))
      assert.deepStrictEqual({ ...answer, raw: Buffer.from(answer.raw) }, { raw, contentType: type, digest: hash("sha256", raw), endpoint: made.url, route: `${made.url}/v2/a/b`, credentials: "anonymous" })
    }
    assert.include(made.requests[0]?.headers["accept"], "application/vnd.docker.distribution.manifest.list.v2+json")
    assert.deepStrictEqual([made.requests[0]?.url, made.requests[0]?.headers["accept-encoding"]], ["/v2/a/b/manifests/latest", "identity"])
  }))
  it.live("by sha512", () => Effect.gen(function*() {
    const made = yield* registry()
    const digest = made.addManifest("a/b", undefined, raw, type, hash("sha512", raw))
    assert.strictEqual((yield* manifest(made, digest).pipe(Effect.provide(client()))).digest, digest)
  }))
  it.live("survives faults that pass", () => Effect.gen(function*() {
    const faults = [Fault.drop, Fault.cutAt(3), Fault.cutAt(3, { reset: true }), Fault.status(500), Fault.status(503), Fault.status(429, { "retry-after": "0" }),
      Fault.stall("headers", 2000), Fault.stall(5, 2000), Fault.claimLength(9999), Fault.flip(2), Fault.chunked(false), Fault.truncateLength(7)]
    for (const fault of faults) {
      const made = yield* registry([{ match: { kind: "manifest", nth: 1 }, do: fault }])
      const answer = yield* manifest(made, hash("sha256", raw)).pipe(Effect.provide(client()))
      assert.deepStrictEqual(Buffer.from(answer.raw), raw, JSON.stringify(fault))
    }
  }))
  it.live("gives up after five tries", () => Effect.gen(function*() {
    const made = yield* registry(on("manifest", Fault.status(502)))
    const error = yield* Effect.flip(manifest(made)).pipe(Effect.provide(client()))
    assert.strictEqual(made.requests.length, 5)
    assert.include(error.message, "it answered 502")
  }))
  it.live("refuses at once what no retry helps", () => Effect.gen(function*() {
    const cases: ReadonlyArray<readonly [Fault.Action, RegistryFailure["_tag"], string]> = [
      [Fault.html, "AnswerRefused", "HTML page"],
      [Fault.extraBytes(manifestCap), "AnswerRefused", "longer than 4194304 bytes"],
      [Fault.extraBytes(Infinity), "AnswerRefused", "longer than 4194304 bytes"],
      [Fault.truncateLength(0), "AnswerRefused", "empty"],
      [Fault.setHeaders({ "content-encoding": "rot13" }), "AnswerRefused", "Content-Encoding rot13"],
      [Fault.contentEncoding("gzip", false), "AnswerRefused", "not gzip"],
      [Fault.status(403), "Unauthorized", "denies access to a/b"],
      [Fault.status(429, { "retry-after": "61" }), "NetworkError", "asks to wait 1m 1s"],
      [Fault.status(503, { "retry-after": "Fri, 02 Jan 2099 03:04:05 GMT" }), "NetworkError", "asks to wait"],
      [Fault.status(418), "NetworkError", "418"]
    ]
    for (const [action, tag, text] of cases) {
      const made = yield* registry(on("manifest", action))
      const error = yield* Effect.flip(manifest(made)).pipe(Effect.provide(client()))
      assert.strictEqual(error._tag, tag, JSON.stringify(action))
      assert.include(error.message, text)
      assert.strictEqual(made.requests.length, 1)
    }
  }))
  it.live("decodes what was encoded unasked", () => Effect.gen(function*() {
    for (const coding of ["gzip", "deflate", "br"] as const) {
      const made = yield* registry(on("manifest", Fault.contentEncoding(coding)))
      assert.deepStrictEqual(Buffer.from((yield* manifest(made).pipe(Effect.provide(client()))).raw), raw)
    }
  }))
  it.live("is checked against the digest asked for and Docker-Content-Digest, and fetched once more", () => Effect.gen(function*() {
    const lies = [
      [on("manifest", Fault.flip(3)), hash("sha256", raw)], [on("manifest", Fault.flip(3)), "latest"],
      [on("manifest", Fault.setHeaders({ "docker-content-digest": hash("sha512", bytes) })), "latest"]
    ] as const
    for (const [script, ref] of lies) {
      const made = yield* registry(script)
      const error = yield* Effect.flip(manifest(made, ref)).pipe(Effect.provide(client()))
      assert.strictEqual(error._tag, "VerifyError")
      assert.strictEqual(made.requests.length, 2)
    }
    const odd = yield* registry(on("manifest", Fault.setHeaders({ "docker-content-digest": "md5:abc" })))
    yield* manifest(odd).pipe(Effect.provide(client()))
  }))
  it.live("tells a missing repository from a missing tag", () => Effect.gen(function*() {
    const made = yield* registry()
    const what = (ref: string, path?: string) => Effect.flip(manifest(made, ref, path)).pipe(Effect.map((error) => error._tag === "NotFound" && [error.what, error.name]), Effect.provide(client()))
    assert.deepStrictEqual(yield* what("nope"), ["manifest", "nope"])
    assert.deepStrictEqual(yield* what("latest", "no/such"), ["repository", "latest"])
  }))
})

describe("schemes", () => {
  it.live("https where it is spoken; plain HTTP for loopback where it is not; and that from then on", () => Effect.gen(function*() {
    const secure = yield* registry([], true)
    assert.strictEqual((yield* manifest(secure).pipe(Effect.provide(client({ options: { authorities: [secure.certificate ?? ""] } })))).endpoint, secure.url)
    let greetings = 0
    const made = yield* Effect.acquireRelease(Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((_, response) => response.setHeader("content-type", type).end(raw)).on("clientError", (_, socket) => { greetings++; socket.destroy() })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }), (server) => Effect.sync(() => { server.closeAllConnections(); server.close() }))
    const address = made.address()
    const host = `localhost:${typeof address === "object" && address?.port}`
    yield* Effect.gen(function*() {
      for (let turn = 0; turn < 3; turn++) assert.strictEqual((yield* manifest({ host })).endpoint, `http://${host}`)
    }).pipe(Effect.provide(client()))
    assert.strictEqual(greetings, 1)
  }))
  it.live("a certificate that is not trusted is no reason for plain HTTP", () => Effect.gen(function*() {
    const secure = yield* registry([], true)
    const error = yield* Effect.flip(manifest(secure)).pipe(Effect.provide(client()))
    assert.strictEqual(error instanceof NetworkError && error.reason, "tls")
    assert.deepStrictEqual(secure.requests, [])
  }))
  it.live("where nobody listens, that is what is said", () => Effect.gen(function*() {
    const error = yield* Effect.flip(manifest({ host: "127.0.0.1:1" })).pipe(Effect.provide(client()))
    assert.deepInclude(error instanceof NetworkError && { ...error }, { host: "127.0.0.1:1", reason: "refused", phase: "connect" })
  }))
})

describe("blob", () => {
  it.live("whole, and from where it was left", () => Effect.gen(function*() {
    const made = yield* registry()
    yield* Effect.gen(function*() {
      for (const from of [0, 1, 2500, 4999]) {
        const answer = yield* read(made, from)
        assert.strictEqual(answer.from, from)
        same(answer.body, bytes.subarray(from))
      }
    }).pipe(Effect.provide(client()))
    assert.deepStrictEqual(made.requests.map(({ range, status }) => [range, status]), [[undefined, 200], ["bytes=1-", 206], ["bytes=2500-", 206], ["bytes=4999-", 206]])
  }))
  it.live("begins again where a range is ignored, refused or false", () => Effect.gen(function*() {
    for (const how of ["ignore", "lie-start", "lie-total", "no-header", "416", "multipart"] as const) {
      const made = yield* registry(on("blob", Fault.wrongRange(how)))
      const answer = yield* read(made, 2000).pipe(Effect.provide(client()))
      assert.strictEqual(answer.from, 0, how)
      same(answer.body, bytes, how)
      assert.deepStrictEqual(made.requests.map(({ range }) => range), how === "ignore" ? ["bytes=2000-"] : ["bytes=2000-", undefined], how)
    }
    const short = yield* read(yield* registry(on("blob", Fault.wrongRange("short"))), 2000).pipe(Effect.provide(client()))
    assert.strictEqual(short.from, 2000)
    same(short.body, bytes.subarray(2000, 2000 + short.body.byteLength))
  }))
  it.live("keeps bytes that came before a failure, which is transient", () => Effect.gen(function*() {
    const faults = [Fault.cutAt(1000), Fault.cutAt(1000, { reset: true }), Fault.stall(1000, 5000), [Fault.truncateLength(1000), Fault.claimLength(5000)], [Fault.truncateLength(1000), Fault.chunked(false)]]
    for (const fault of faults) {
      const made = yield* registry([{ match: { kind: "blob" }, do: fault }])
      const pieces: Array<Uint8Array> = []
      const error = yield* Effect.flip(blob(made, whole, 0, (answer) => collectInto(answer.body, pieces))).pipe(Effect.provide(client()))
      assert.isTrue(error instanceof NetworkError && error.transient && error.phase === "body", JSON.stringify(fault))
      same(Buffer.concat(pieces), bytes.subarray(0, 1000))
    }
  }))
  it.live("stops at one byte too many, however many come", () => Effect.gen(function*() {
    for (const extra of [1, 1 << 20, Infinity]) {
      const made = yield* registry(on("blob", Fault.extraBytes(extra)))
      const answer = yield* read(made).pipe(Effect.provide(client()))
      assert.strictEqual(answer.body.byteLength, 5001)
    }
  }))
  it.live("is whole when all of it came, however it ends", () => Effect.gen(function*() {
    for (const fault of [Fault.claimLength(6000), Fault.chunked(false), Fault.chunked(true), Fault.stall(5000, 9000)]) {
      const made = yield* registry(on("blob", fault))
      same((yield* read(made).pipe(Effect.provide(client()))).body, bytes, JSON.stringify(fault))
    }
  }))
  it.live("an asked-for size that is not the blob's is said, once a range has shown it", () => Effect.gen(function*() {
    for (const size of [4000, 6000]) {
      const made = yield* registry()
      const error = yield* Effect.flip(read(made, 1000, descriptorOf(bytes, size))).pipe(Effect.provide(client()))
      assert.strictEqual(error._tag, "VerifyError")
      assert.include(error.message, `expected ${size} bytes`)
      assert.include(error.message, "received 5000")
    }
  }))
  it.live("decodes what was encoded unasked, unless the length is the blob's", () => Effect.gen(function*() {
    for (const coding of ["gzip", "deflate", "br"] as const) for (const applied of [true, false]) for (const from of [0, 100]) {
      const made = yield* registry(on("blob", Fault.contentEncoding(coding, applied)))
      const answer = yield* read(made, from).pipe(Effect.provide(client()))
      same(answer.body, bytes.subarray(answer.from), `${coding} ${applied} ${from}`)
    }
    const damaged = yield* registry(on("blob", Fault.contentEncoding("gzip", false), Fault.chunked()))
    const error = yield* Effect.flip(read(damaged)).pipe(Effect.provide(client()))
    assert.strictEqual(error instanceof NetworkError && error.reason, "body")
    const unknown = yield* registry(on("blob", Fault.setHeaders({ "content-encoding": "rot13" }), Fault.chunked()))
    assert.strictEqual((yield* Effect.flip(read(unknown)).pipe(Effect.provide(client())))._tag, "AnswerRefused")
  }))
  it.live("follows to another host with its range, without secrets", () => Effect.gen(function*() {
    const store = yield* registry()
    const made = yield* TestRegistry.make({ auth: { kind: "bearer" }, script: on("blob", Fault.redirect(`${store.url}{url}`)) })
    made.addBlob("a/b", bytes)
    const answer = yield* read(made, 3000).pipe(Effect.provide(client()))
    assert.strictEqual(answer.from, 3000)
    same(answer.body, bytes.subarray(3000))
    assert.deepStrictEqual(store.requests.map(({ range, headers }) => [range, headers["authorization"]]), [["bytes=3000-", undefined]])
    store.script(on("blob", Fault.status(403)))
    const error = yield* Effect.flip(read(made)).pipe(Effect.provide(client()))
    assert.deepInclude(error instanceof NetworkError && { ...error }, { host: store.host, reason: "server", transient: true })
  }))
  it.live("fails as manifests do, and does not retry by itself", () => Effect.gen(function*() {
    const made = yield* registry(on("blob", Fault.status(500)))
    const error = yield* Effect.flip(read(made)).pipe(Effect.provide(client()))
    assert.isTrue(error instanceof NetworkError && error.transient)
    assert.deepStrictEqual(kinds(made), ["blob 500"])
    made.script([])
    const missing = yield* Effect.flip(read(made, 0, descriptorOf(Buffer.from("not there")))).pipe(Effect.provide(client()))
    assert.deepInclude(missing._tag === "NotFound" && { ...missing }, { what: "blob", repository: "a/b" })
  }))
  it.live("an answer nobody reads gives its connection back", () => Effect.gen(function*() {
    const made = yield* registry(on("blob", Fault.stall(100, 60_000)))
    const setup: Setup = { options: { connections: 1 } }
    yield* Effect.gen(function*() {
      for (let turn = 0; turn < 3; turn++) yield* blob(made, whole, 0, () => Effect.void)
    }).pipe(Effect.provide(client(setup)))
    assert.strictEqual(made.requests.length, 3)
  }))
  it.live.each([1, 2, 3])("comes whole in spite of cuts, resumed by hand (%i)", (step) => Effect.gen(function*() {
    const made = yield* registry(on("blob", Fault.cutEach(step * 700)))
    const pieces: Array<Uint8Array> = []
    const length = () => pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
    yield* Effect.gen(function*() {
      while (length() < whole.size) {
        yield* Effect.result(blob(made, whole, length(), (answer) => {
          assert.strictEqual(answer.from, length())
          return collectInto(answer.body, pieces)
        }))
      }
    }).pipe(Effect.provide(client()))
    same(Buffer.concat(pieces), bytes)
  }))
})
