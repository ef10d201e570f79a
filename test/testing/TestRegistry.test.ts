import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { get } from "node:https"
import { selfSigned } from "../../src/testing/server/Certificate.ts"
import { execFileSync } from "node:child_process"
import { writeFileSync, mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Certificate, Fault, ImageBuilder, TestRegistry, type TestRegistryOptions } from "../../src/testing/index.ts"
import { ask } from "./Client.ts"

const image = ImageBuilder.image({ layers: [[{ path: "file", contents: "hello world" }]] })
const types = ImageBuilder.mediaTypes.oci
const accept = { accept: `${types.manifest}, ${types.index}` }
const blob = Buffer.from("0123456789abcdef")
const unknown = `sha256:${"0".repeat(64)}`

describe("TestRegistry", () => {
  it.effect("serves an image by tag and digest, whole", Effect.fnUntraced(function*() {
    const registry = (yield* TestRegistry.make()).put("library/x", "v1", image)
    const { digest } = image.manifest.descriptor
    for (const name of ["v1", digest]) {
      const seen = yield* ask(`${registry.url}/v2/library/x/manifests/${name}`, { headers: accept })
      assert.deepStrictEqual([seen.status, seen.headers["content-type"], seen.headers["docker-content-digest"]], [200, types.manifest, digest])
      assert.isTrue(seen.body.equals(image.manifest.raw))
      const head = yield* ask(`${registry.url}/v2/library/x/manifests/${name}`, { headers: accept, method: "HEAD" })
      assert.deepStrictEqual([head.status, head.headers["content-length"], head.body.length], [200, String(image.manifest.raw.byteLength), 0])
    }
    for (const [digest, body] of image.blobs) {
      const seen = yield* ask(`${registry.url}/v2/library/x/blobs/${digest}`)
      assert.deepStrictEqual([seen.status, seen.body, seen.whole], [200, Buffer.from(body as Uint8Array), true])
    }
    const refused = yield* ask(`${registry.url}/v2/library/x/manifests/v1`, { headers: { accept: "application/json" } })
    assert.strictEqual(refused.status, 404)
    assert.deepStrictEqual(registry.requests.map(({ method, kind, repository, status, finished }) => [method, kind, repository, status, finished]), [
      ["GET", "manifest", "library/x", 200, true], ["HEAD", "manifest", "library/x", 200, true], ["GET", "manifest", "library/x", 200, true],
      ["HEAD", "manifest", "library/x", 200, true], ["GET", "blob", "library/x", 200, true], ["GET", "blob", "library/x", 200, true],
      ["GET", "manifest", "library/x", 404, true]
    ])
    assert.deepStrictEqual(registry.find({ kind: "blob" }).map((request) => request.bytesSent), [...image.blobs.values()].map((body) => (body as Uint8Array).byteLength))
  }))

  it.effect("serves blobs from files, changes while it runs, and lists tags in pages", Effect.fnUntraced(function*() {
    const registry = yield* TestRegistry.make()
    const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-kit-"))), (path) => Effect.sync(() => rmSync(path, { recursive: true })))
    const large = ImageBuilder.noise("large", 3_000_001)
    writeFileSync(join(folder, "blob"), large)
    const digest = registry.addBlob("x", { file: join(folder, "blob") })
    assert.strictEqual(digest, ImageBuilder.digestOf(large))
    const whole = yield* ask(`${registry.url}/v2/x/blobs/${digest}`)
    assert.isTrue(whole.body.equals(large))
    const part = yield* ask(`${registry.url}/v2/x/blobs/${digest}`, { headers: { range: "bytes=2999990-" } })
    assert.deepStrictEqual([part.status, part.body], [206, Buffer.from(large.subarray(2_999_990))])
    rmSync(join(folder, "blob"))
    assert.strictEqual((yield* ask(`${registry.url}/v2/x/blobs/${digest}`)).status, 500)
    registry.remove("x", digest)
    assert.strictEqual((yield* ask(`${registry.url}/v2/x/blobs/${digest}`)).status, 404)
    for (const tag of ["c", "a", "b"]) registry.put("x", tag, image)
    const page = yield* ask(`${registry.url}/v2/x/tags/list?n=2`)
    assert.deepStrictEqual([JSON.parse(page.body.toString()), page.headers.link], [{ name: "x", tags: ["a", "b"] }, "</v2/x/tags/list?last=b&n=2>; rel=\"next\""])
    assert.deepStrictEqual(JSON.parse((yield* ask(`${registry.url}/v2/x/tags/list?last=b&n=2`)).body.toString()), { name: "x", tags: ["c"] })
    registry.remove("x")
    assert.strictEqual((yield* ask(`${registry.url}/v2/x/tags/list`)).status, 404)
  }))

  it.effect("asks for basic credentials", Effect.fnUntraced(function*() {
    const registry = (yield* TestRegistry.make({ auth: { kind: "basic", users: { me: "se:cret" } } })).put("x", "v1", image)
    registry.script([{ match: {}, do: Fault.status(418) }])
    const with_ = (text: string) => ask(`${registry.url}/v2/`, { headers: { authorization: `Basic ${Buffer.from(text).toString("base64")}` } })
    const none = yield* ask(`${registry.url}/v2/x/manifests/v1`)
    assert.deepStrictEqual([none.status, none.headers["www-authenticate"]], [401, "Basic realm=\"towline test registry\""])
    assert.deepStrictEqual(JSON.parse(none.body.toString()), {
      errors: [{ code: "UNAUTHORIZED", message: "authentication required", detail: [{ Type: "repository", Class: "", Name: "x", Action: "pull" }] }]
    })
    assert.deepStrictEqual([(yield* with_("me:wrong")).status, (yield* with_("toString:x")).status, registry.runs], [401, 401, [0]])
    assert.deepStrictEqual([(yield* with_("me:se:cret")).status, registry.runs], [418, [1]])
  }))

  it.effect("speaks TLS with a certificate made on the spot, and with one that was given", Effect.fnUntraced(function*() {
    const registry = yield* TestRegistry.make({ tls: true })
    assert.strictEqual((yield* ask(`${registry.url}/v2/`, { ca: registry.certificate })).status, 200)
    assert.strictEqual((yield* ask(`${registry.url.replace("127.0.0.1", "localhost")}/v2/`, { ca: registry.certificate })).status, 200)
    assert.strictEqual((yield* ask(`${registry.url}/v2/`)).error, "DEPTH_ZERO_SELF_SIGNED_CERT")
    const elsewhere = yield* TestRegistry.make({ tls: Certificate.selfSigned({ names: ["registry.example.com"] }) })
    assert.strictEqual((yield* ask(`${elsewhere.url}/v2/`, { ca: elsewhere.certificate })).error, "ERR_TLS_CERT_ALTNAME_INVALID")
    const past = yield* TestRegistry.make({ tls: Certificate.selfSigned({ notAfter: "210101000000Z" }) })
    assert.strictEqual((yield* ask(`${past.url}/v2/`, { ca: past.certificate })).error, "CERT_HAS_EXPIRED")
  }))

  it.effect("is gone with its scope: port closed, connections destroyed, answers ended", Effect.fnUntraced(function*() {
    const scope = yield* Scope.make()
    const registry = yield* Scope.provide(TestRegistry.make({ script: [{ match: {}, do: Fault.stall("headers", Infinity) }] }), scope)
    const fiber = yield* Effect.forkChild(ask(`${registry.url}/v2/`), { startImmediately: true })
    const idle = connect(Number(registry.host.split(":")[1]), "127.0.0.1")
    const closed = yield* Deferred.make<void>()
    idle.on("error", () => {}).on("close", () => Deferred.doneUnsafe(closed, Exit.void))
    yield* registry.seen({ kind: "ping" })
    yield* Scope.close(scope, Exit.void)
    assert.strictEqual((yield* Fiber.join(fiber)).error, "ECONNRESET")
    yield* Deferred.await(closed)
    assert.strictEqual((yield* ask(`${registry.url}/v2/`)).error, "ECONNREFUSED")
  }))

  it.effect("lets a test wait for requests, and counts blobs under way", Effect.fnUntraced(function*() {
    const registry = yield* TestRegistry.make()
    const digest = registry.addBlob("x", blob)
    registry.script([{ match: { kind: "blob" }, do: Fault.stall(4, Infinity) }])
    const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ask(`${registry.url}/v2/x/blobs/${digest}`)))
    yield* registry.seen({ kind: "blob", digest }, 3)
    assert.deepStrictEqual([registry.peakBlobs, registry.requests.length], [3, 3])
    for (const fiber of fibers) yield* Fiber.interrupt(fiber)
    registry.script([])
    assert.strictEqual((yield* ask(`${registry.url}/v2/x/blobs/${digest}`)).status, 200)
    assert.deepStrictEqual(registry.requests.map((request) => request.finished), [false, false, false, true])
    registry.forget()
    assert.deepStrictEqual([registry.requests, registry.peakBlobs], [[], 0])
  }))
})

const distribution = (() => {
  try {
    return execFileSync("docker-registry", ["--version"], { stdio: ["ignore", "pipe", "ignore"] }).toString().includes("2.8")
  } catch { return false }
})()

/** Starts the real registry on a free port, empty. */
const real = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-kit-"))), (path) => Effect.sync(() => rmSync(path, { recursive: true })))
  const { spawn } = yield* Effect.promise(() => import("node:child_process"))
  const probe = yield* Effect.scoped(TestRegistry.make())
  writeFileSync(join(folder, "config.yml"), `version: 0.1\nstorage: { filesystem: { rootdirectory: ${folder}/data } }\nhttp: { addr: ${probe.host} }\nlog: { level: error }\n`)
  yield* Effect.acquireRelease(
    Effect.sync(() => spawn("docker-registry", ["serve", join(folder, "config.yml")], { stdio: "ignore" })),
    (child) => Effect.callback<void>((resume) => { child.on("exit", () => resume(Effect.void)).kill("SIGKILL") }))
  for (let up = false; !up;) {
    up = (yield* ask(`${probe.url}/v2/`)).status === 200
    if (!up) yield* Effect.sleep("20 millis")
  }
  return probe.url
})

describe.runIf(distribution)("TestRegistry beside docker-registry", () => {
  it.live("gives the same answers", Effect.fnUntraced(function*() {
    const url = yield* real
    const registry = yield* TestRegistry.make()
    registry.put("x", "v1", image)
    for (const body of image.blobs.values()) {
      const begun = yield* ask(`${url}/v2/x/blobs/uploads/`, { method: "POST" })
      const place = begun.headers.location ?? ""
      yield* ask(`${place}&digest=${ImageBuilder.digestOf(body as Uint8Array)}`, { method: "PUT", body: Buffer.from(body as Uint8Array), headers: { "content-type": "application/octet-stream" } })
    }
    yield* ask(`${url}/v2/x/manifests/v1`, { method: "PUT", body: Buffer.from(image.manifest.raw), headers: { "content-type": types.manifest } })
    const { digest } = image.manifest.descriptor
    const [layer] = image.layers
    const paths: ReadonlyArray<readonly [path: string, headers?: Record<string, string>]> = [
      ["/v2/"], ["/nothing"], ["/v2/x/manifests/v1", accept], [`/v2/x/manifests/${digest}`, accept], ["/v2/x/manifests/v2", accept],
      [`/v2/x/manifests/${unknown}`, accept], ["/v2/y/manifests/v1", accept], [`/v2/x/blobs/${layer?.digest}`], [`/v2/x/blobs/${unknown}`], ["/v2/x/blobs/junk"],
      ["/v2/x/tags/list"], ["/v2/y/tags/list"], ["/v2/X/tags/list"],
      ...["bytes=3-5", "bytes=3-", "bytes=-3", "bytes=0-99999", "bytes=99999-", "bytes=5-2", "bytes=junk"].map((range) => [`/v2/x/blobs/${layer?.digest}`, { range }] as const)
    ]
    const compared = ["content-type", "content-length", "docker-content-digest", "docker-distribution-api-version", "content-range", "etag", "link"]
    for (const method of ["GET", "HEAD"]) {
      for (const [path, headers = {}] of paths) {
        if (method === "HEAD" && path.endsWith("/tags/list")) continue // 405 there, and nobody asks
        const pick = ({ status, headers: got, body }: Effect.Success<ReturnType<typeof ask>>) => {
          const isText = String(got["content-type"]).startsWith("text/") // Go's own sentences
          return {
            path, headers, status,
            body: isText ? "" : body.toString("latin1").trim(),
            got: compared.flatMap((name) => isText && (name === "content-type" || name === "content-length") || name === "content-length" && got["content-type"]?.includes("json") === true ? [] : [[name, got[name]]])
          }
        }
        assert.deepStrictEqual(pick(yield* ask(registry.url + path, { method, headers })), pick(yield* ask(url + path, { method, headers })))
      }
    }
  }))
})

describe("strangers", () => {
  it.live("are requests with a secret that is not for the registry", () => Effect.gen(function*() {
    const asked = Effect.fnUntraced(function*(options: TestRegistryOptions, headers: Record<string, string>, path = "/v2/") {
      const registry = yield* TestRegistry.make(options)
      yield* Effect.promise(() => fetch(`${registry.url}${path}`, { headers }).then((answer) => answer.text()))
      return registry.strangers.length
    }, Effect.scoped)
    const basic = (user: string) => ({ authorization: `Basic ${Buffer.from(`${user}:x`).toString("base64")}` })
    const users = { ada: "y" }
    assert.deepStrictEqual([
      yield* asked({}, {}), yield* asked({}, basic("ada")), yield* asked({}, { cookie: "a=b" }),
      yield* asked({ auth: { kind: "basic", users } }, basic("ada")), yield* asked({ auth: { kind: "basic", users } }, basic("eve")),
      yield* asked({ auth: { kind: "bearer", users } }, basic("ada")), yield* asked({ auth: { kind: "bearer", users } }, basic("ada"), "/token"),
      yield* asked({ auth: { kind: "bearer", users } }, { authorization: "Bearer t" }), yield* asked({}, { "proxy-authorization": "Basic YTpi" })
    ], [0, 1, 1, 0, 1, 1, 0, 1, 1])
    // Over TLS one that needs no client certificate sees who would show it; one that does takes it.
    const user = selfSigned()
    for (const [tls, strangers] of [[true, 1], [{ ...selfSigned(), clientCa: user.cert }, 0]] as const) {
      const registry = yield* TestRegistry.make({ tls })
      yield* Effect.callback<void>((resume) => {
        get(`${registry.url}/v2/`, { ...user, rejectUnauthorized: false, agent: false }, (answer) => answer.resume().on("end", () => resume(Effect.void)))
      })
      assert.deepStrictEqual([registry.requests.length, registry.strangers.length], [1, strangers])
    }
  }).pipe(Effect.scoped))
})
