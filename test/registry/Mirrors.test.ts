import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Digest from "../../src/image/Digest.ts"
import type { RegistryFailure } from "../../src/registry/Errors.ts"
import { Registry, type Repository } from "../../src/registry/Registry.ts"
import { urlOf } from "../../src/registry/route/Route.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { TestRegistry, type TestRegistryOptions } from "../../src/testing/server/TestRegistry.ts"
import { temporary } from "../harness.ts"
import { bytesOf, descriptorOf } from "./Client.ts"
import { configured } from "./Configured.ts"

const layer = Buffer.from("layer bytes of some length")
const raw = Buffer.from(`{"schemaVersion":2}`)
const mediaType = "application/vnd.oci.image.manifest.v1+json"

/** A registry that has the image under these paths. */
const serving = (paths: ReadonlyArray<string>, options: TestRegistryOptions = {}) => Effect.map(TestRegistry.make(options), (made) => {
  for (const path of paths) {
    made.addBlob(path, layer)
    made.addManifest(path, "1", raw, mediaType)
  }
  return made
})

const manifest = (repository: Repository, ref = "1") => Registry.use((client) => client.manifest(repository, ref))
const blob = (repository: Repository) => Effect.scoped(Registry.use((client) => client.blob(repository, descriptorOf(layer), 0)).pipe(
  Effect.flatMap((answer) => Effect.map(bytesOf(answer.body), (bytes) => ({ bytes, distrust: answer.distrust ?? Effect.succeed(false) })))))
const routes = (repository: Repository) => Registry.use((client) => Effect.map(client.routes(repository), (all) => all.map(({ route }) => [urlOf(route), route.why.replace(/^.*\/(?=[^/]*:)/, "")])))
const asked = (made: TestRegistry) => made.requests.map(({ kind, status }) => `${kind} ${status}`)
const listening = Effect.gen(function*() {
  const told: Array<string> = []
  yield* Registry.use((client) => client.listen(({ message }) => told.push(message)))
  return told
})
const digest = Digest.Digest.make(descriptorOf(raw).digest)

describe("hosts.toml", () => {
  it.live("a mirror that may only pull is not asked for tags; ns says whose mirror it is", () => Effect.gen(function*() {
    const origin = yield* serving(["team/app"])
    const mirror = yield* serving(["team/app"])
    const [host, port] = origin.host.split(":")
    const { context } = yield* configured({ [`etc/containerd/certs.d/${host}_${port}_/hosts.toml`]: `server = "${origin.url}"\n[host."${mirror.url}"]\ncapabilities = ["pull"]\n` })
    const repository = { domain: origin.host, path: "team/app" }
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* manifest(repository)).endpoint, origin.url)
      assert.strictEqual((yield* manifest(repository, digest)).endpoint, mirror.url)
      assert.deepStrictEqual((yield* blob(repository)).bytes, layer)
      assert.deepStrictEqual(yield* routes(repository), [[`${mirror.url}/v2/team/app`, "hosts.toml:2"], [`${origin.url}/v2/team/app`, "hosts.toml:1"]])
    }).pipe(Effect.provide(context))
    assert.deepStrictEqual([asked(origin), asked(mirror)], [["manifest 200"], ["manifest 200", "blob 200"]])
    assert.deepStrictEqual(mirror.requests.map(({ url }) => url.slice(url.indexOf("?"))), [`?ns=${encodeURIComponent(origin.host)}`, `?ns=${encodeURIComponent(origin.host)}`])
    assert.isFalse(origin.requests[0]?.url.includes("?"))
  }).pipe(Effect.scoped))

  it.live("override_path, headers that go to their host alone, also where it redirects, and _default", () => Effect.gen(function*() {
    const storage = yield* serving(["library/x"])
    const mirror = yield* serving(["proxy/library/x"], { auth: { kind: "basic", users: { ada: "hush" } }, script: [{ match: { kind: "blob" }, do: Fault.redirect(`${storage.url}/v2/library/x/blobs/${descriptorOf(layer).digest}`) }] })
    const { context } = yield* configured({
      "user/containerd/certs.d/_default/hosts.toml": `[host."${mirror.url}/v2/proxy"]\noverride_path = true\n[host."${mirror.url}/v2/proxy".header]\nAuthorization = "Basic YWRhOmh1c2g="\nx-team = ["a", "b"]\n`
    })
    yield* Effect.gen(function*() {
      yield* manifest({ domain: "registry.example", path: "library/x" })
      assert.deepStrictEqual((yield* blob({ domain: "registry.example", path: "library/x" })).bytes, layer)
    }).pipe(Effect.provide(context))
    assert.deepStrictEqual(mirror.requests.map(({ headers, path }) => [path.split("/").slice(0, 5).join("/"), headers["authorization"], headers["x-team"]]), [
      ["/v2/proxy/library/x", "Basic YWRhOmh1c2g=", "a, b"], ["/v2/proxy/library/x", "Basic YWRhOmh1c2g=", "a, b"]
    ])
    assert.deepStrictEqual(storage.requests.map(({ headers }) => [headers["authorization"], headers["x-team"]]), [[undefined, undefined]])
  }).pipe(Effect.scoped))

  it.live("ca, skip_verify, and a certificate that is not there", () => Effect.gen(function*() {
    const mirror = yield* serving(["x"], { tls: true })
    const other = yield* serving(["x"], { tls: true })
    const file = (body: string) => ({ "etc/containerd/certs.d/registry.example/hosts.toml": `[host."${mirror.url}"]\n${body}\n`, "etc/containerd/certs.d/registry.example/ca.pem": mirror.certificate ?? "" })
    const get = Effect.fnUntraced(function*(body: string) {
      const { context } = yield* configured(file(body))
      return yield* Effect.provide(manifest({ domain: "registry.example", path: "x" }), context)
    }, Effect.scoped)
    yield* get(`ca = "ca.pem"`)
    yield* get("skip_verify = true")
    const missing = yield* Effect.flip(get(`client = ["none.pem"]`))
    assert.match(missing.message, /hosts\.toml:1 cannot be used: the file .*none\.pem that it names is not there/)
    // What is trusted for one is not for another.
    const { context } = yield* configured(file(`ca = "ca.pem"`))
    const error = yield* Effect.flip(Effect.andThen(manifest({ domain: "registry.example", path: "x" }), manifest({ domain: other.host, path: "x" }))).pipe(Effect.provide(context))
    assert.include(error.message, "certificate is self-signed")
  }).pipe(Effect.scoped))
})

describe("mirrors that fail", () => {
  /** A registry, with these mirrors before it. */
  const behind = (origin: TestRegistry, mirrors: ReadonlyArray<string>) => configured({
    "etc/containers/registries.conf": `[[registry]]\nlocation = "${origin.host}"\n${mirrors.map((location) => `[[registry.mirror]]\nlocation = "${location}"\n`).join("")}`
  })
  it.live("a dead mirror costs one connection, one that lacks something a request each", () => Effect.gen(function*() {
    const origin = yield* serving(["a", "b"])
    const empty = yield* TestRegistry.make()
    const { context } = yield* behind(origin, ["127.0.0.1:1", empty.host])
    yield* Effect.gen(function*() {
      const told = yield* listening
      for (const path of ["a", "b", "a"]) {
        yield* manifest({ domain: origin.host, path })
        yield* blob({ domain: origin.host, path })
      }
      assert.strictEqual(told.length, 1)
      assert.match(told[0] ?? "", /^the mirror https:\/\/127\.0\.0\.1:1\/v2\/a \(.*registries\.conf:3\) is left out from now on: the connection was refused$/)
      assert.deepStrictEqual((yield* Registry.use((client) => client.routes({ domain: origin.host, path: "b" }))).map(({ aside }) => aside), ["the connection was refused", undefined, undefined])
    }).pipe(Effect.scoped, Effect.provide(context))
    assert.strictEqual(empty.find({ kind: "manifest" }).length, 3)
    assert.strictEqual(origin.find({ kind: "blob" }).length, 3)
  }).pipe(Effect.scoped))

  it.live("a lying mirror is passed over and left out, for manifests and for blobs", () => Effect.gen(function*() {
    const origin = yield* serving(["a"])
    const liar = yield* serving(["a"], { script: [{ match: { kind: "manifest" }, do: Fault.flip(3) }] })
    const { context } = yield* behind(origin, [liar.host])
    const repository = { domain: origin.host, path: "a" }
    yield* Effect.gen(function*() {
      const told = yield* listening
      assert.deepStrictEqual(Buffer.from((yield* manifest(repository, digest)).raw), raw)
      assert.match(told.join(), /left out from now on: what it sent has another digest or size/)
      liar.forget()
      yield* blob(repository)
      assert.deepStrictEqual(liar.requests, [])
    }).pipe(Effect.scoped, Effect.provide(context))
    const second = yield* behind(origin, [liar.host])
    yield* Effect.gen(function*() {
      const told = yield* listening
      const first = yield* blob(repository)
      assert.isTrue(yield* first.distrust)
      liar.forget()
      const next = yield* blob(repository)
      assert.isFalse(yield* next.distrust)
      assert.deepStrictEqual([told.length, liar.requests.length], [1, 0])
    }).pipe(Effect.scoped, Effect.provide(second.context))
  }).pipe(Effect.scoped))

  it.live("when all fail, the registry's own reason comes first, then each endpoint in order", () => Effect.gen(function*() {
    const origin = yield* TestRegistry.make()
    const busy = yield* TestRegistry.make({ script: [{ match: {}, do: Fault.status(503) }] })
    const locked = yield* serving(["a"], { auth: { kind: "basic", users: { ada: "hush" } } })
    const { context } = yield* behind(origin, [busy.host, locked.host, "127.0.0.1:1/deep"])
    const error: RegistryFailure = yield* Effect.flip(manifest({ domain: origin.host, path: "a" })).pipe(Effect.provide(context))
    assert.strictEqual(error._tag, "NotFound")
    const lines = error.message.split("\n")
    assert.match(lines[0] ?? "", /has no repository a; check the name$/)
    assert.deepStrictEqual(lines.slice(1).map((line) => line.replace(/\(.*?registries/, "(registries").replaceAll(/127\.0\.0\.1:\d{2,}/g, "HOST").replace("https://HOST", "http://HOST").replace("https://HOST", "http://HOST")), [
      "  1. http://HOST/v2/a (registries.conf:3): it answered 503: UNAVAILABLE: status 503 by script",
      "  2. http://HOST/v2/a (registries.conf:5): not authorised (credentials: anonymous)",
      "  3. https://127.0.0.1:1/v2/deep/a (registries.conf:7): the connection was refused",
      "  4. http://HOST/v2/a (registries.conf:1): it has no such repository"
    ])
  }).pipe(Effect.scoped))

  it.live("a body that stalls at a mirror goes on at the next", () => Effect.gen(function*() {
    const origin = yield* serving(["a"])
    const slow = yield* serving(["a"], { script: [{ match: { kind: "blob" }, do: Fault.stall(3, Infinity) }] })
    const { context } = yield* behind(origin, [slow.host])
    yield* Effect.gen(function*() {
      const told = yield* listening
      yield* Effect.flip(blob({ domain: origin.host, path: "a" }))
      assert.deepStrictEqual((yield* blob({ domain: origin.host, path: "a" })).bytes, layer)
      assert.include(told.join(), "nothing came for")
    }).pipe(Effect.scoped, Effect.provide(context))
    assert.strictEqual(slow.find({ kind: "blob" }).length, 1)
  }).pipe(Effect.scoped))
})

describe("registries.conf and daemon.json", () => {
  it.live("a rewrite, a mirror for digests alone, one for tags alone, and what is blocked", () => Effect.gen(function*() {
    const origin = yield* serving(["stored/app"])
    const digests = yield* serving(["d/app"])
    const tags = yield* serving(["t/app"])
    const { context } = yield* configured({ "user/containers/registries.conf": `
[[registry]]
prefix = "example.com/team"
location = "${origin.host}/stored"
[[registry.mirror]]
location = "${digests.host}/d"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "${tags.host}/t"
pull-from-mirror = "tag-only"
[[registry]]
location = "*.evil.example"
blocked = true
` })
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* manifest({ domain: "example.com", path: "team/app" })).endpoint, tags.url)
      assert.strictEqual((yield* manifest({ domain: "example.com", path: "team/app", pinned: true }, digest)).endpoint, digests.url)
      tags.remove("t/app")
      digests.remove("d/app")
      assert.strictEqual((yield* manifest({ domain: "example.com", path: "team/app" })).endpoint, origin.url)
      const error = yield* Effect.flip(manifest({ domain: "a.evil.example", path: "x" }))
      assert.match(error.message, /^pulling from a\.evil\.example\/x is blocked by .*registries\.conf:\d+;/)
    }).pipe(Effect.provide(context))
    assert.deepStrictEqual([asked(digests), asked(tags)], [["manifest 200"], ["manifest 200", "manifest 404", "tags 404"]])
  }).pipe(Effect.scoped))

  it.live("Docker's mirrors are for its hub alone, and asked for tags too", () => Effect.gen(function*() {
    const mirror = yield* serving(["library/x"])
    const { context } = yield* configured({ "etc/docker/daemon.json": JSON.stringify({ "registry-mirrors": [`${mirror.url}/`], "insecure-registries": ["10.0.0.0/8", "lan.example"] }) })
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* manifest({ domain: "docker.io", path: "library/x" })).endpoint, mirror.url)
      assert.deepStrictEqual((yield* blob({ domain: "docker.io", path: "library/x" })).bytes, layer)
      assert.deepStrictEqual(yield* routes({ domain: "docker.io", path: "library/x" }), [[`${mirror.url}/v2/library/x`, "daemon.json:1"], ["https://registry-1.docker.io/v2/library/x", "Docker Hub's registry"]])
      assert.deepStrictEqual(yield* routes({ domain: "quay.io", path: "x" }), [["https://quay.io/v2/x", "the registry of the reference"]])
      const schemes = (domain: string) => Registry.use((client) => Effect.map(client.routes({ domain, path: "x" }), ([one]) => [one?.route.schemes.join(), one?.route.tls.verify]))
      assert.deepStrictEqual(yield* schemes("10.1.2.3:5000"), ["https,http", false])
      assert.deepStrictEqual(yield* schemes("lan.example:80"), ["https,http", false])
      assert.deepStrictEqual(yield* schemes("11.1.2.3:5000"), ["https", true])
    }).pipe(Effect.provide(context))
    assert.isTrue(mirror.requests.every(({ url }) => !url.includes("ns=")))
  }).pipe(Effect.scoped))

  it.live("short names: aliases, then the search list; names with a registry are left alone", () => Effect.gen(function*() {
    const { context } = yield* configured({
      "etc/containers/registries.conf": `unqualified-search-registries = ["quay.io", "docker.io"]\n`, "etc/containers/registries.conf.d/1.conf": `[aliases]\n"tool" = "quay.io/t/tool"\n`
    })
    const names = (text: string) => Registry.use((client) => Effect.map(client.names(text), (all) => all.map(({ name }) => name))).pipe(Effect.provide(context))
    assert.deepStrictEqual(yield* names("app:1"), ["quay.io/app:1", "docker.io/app:1"])
    assert.deepStrictEqual(yield* names("me/app"), ["quay.io/me/app", "docker.io/me/app"])
    assert.deepStrictEqual(yield* names("tool:2"), ["quay.io/t/tool:2"])
    assert.deepStrictEqual(yield* names("tool@sha256:0"), ["quay.io/t/tool@sha256:0"])
    for (const text of ["localhost/app", "r.example/app", "r:5000/app", "docker.io/app"]) assert.deepStrictEqual(yield* names(text), [], text)
  }).pipe(Effect.scoped))

  it.live("a malformed file is an error that names it, and only where it matters", () => Effect.gen(function*() {
    const { context } = yield* configured({ "etc/containers/registries.conf": `[[registry]]\nlocation = "https://x"\n` })
    const error = yield* Effect.flip(manifest({ domain: "127.0.0.1:1", path: "x" })).pipe(Effect.provide(context))
    assert.match(error.message, /registries\.conf:1 cannot be used: invalid location/)
  }).pipe(Effect.scoped))
})

describe("credentials of a namespace", () => {
  it.live("go with its requests alone, also where another's were used before", () => Effect.gen(function*() {
    const made = yield* serving(["team/app", "other/app"], { auth: { kind: "basic", users: { team: "x", all: "y" } } })
    const auth = (user: string) => ({ auth: Buffer.from(user).toString("base64") })
    const { context } = yield* configured({ "user/containers/auth.json": JSON.stringify({ auths: { [`${made.host}/team`]: auth("team:x"), [made.host]: auth("all:y") } }) })
    yield* Effect.gen(function*() {
      for (const path of ["team/app", "other/app", "team/app", "other/app"]) yield* manifest({ domain: made.host, path })
    }).pipe(Effect.provide(context))
    const users = made.find({ kind: "manifest" }).filter(({ status }) => status === 200).map(({ headers, repository }) => [repository, Buffer.from((headers["authorization"] ?? "").slice(6), "base64").toString()])
    assert.deepStrictEqual(users, [["team/app", "team:x"], ["other/app", "all:y"], ["team/app", "team:x"], ["other/app", "all:y"]])
  }).pipe(Effect.scoped))
})

describe("certs.d", () => {
  it.live("authorities and client certificates of a host; a key without its certificate", () => Effect.gen(function*() {
    const made = yield* serving(["x"], { tls: true })
    const { context } = yield* configured({ [`etc/docker/certs.d/${made.host}/ca.crt`]: made.certificate ?? "" })
    yield* Effect.provide(manifest({ domain: made.host, path: "x" }), context)
    const { context: broken } = yield* configured({ [`user/containers/certs.d/${made.host}/client.key`]: "" })
    const error = yield* Effect.flip(Effect.provide(manifest({ domain: made.host, path: "x" }), broken))
    assert.include(error.message, "missing client certificate client.cert for key client.key")
  }).pipe(Effect.scoped))
  it.live("authorities of the machine: its bundle, its folders, SSL_CERT_DIR; what is no certificate there does no harm", () => Effect.gen(function*() {
    const made = yield* serving(["x"], { tls: true })
    const pem = made.certificate ?? ""
    const junk = `# a comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`
    const twice = Effect.andThen(manifest({ domain: made.host, path: "x" }), manifest({ domain: made.host, path: "x" }))
    for (const [files, environment] of [
      [{ "etc/pki/tls/certs/ca-bundle.crt": `${junk}${pem}` }, {}], [{ "etc/ssl/certs/one.pem": pem, "etc/ssl/certs/junk": junk, "etc/ssl/certs/ca-certificates.crt": junk }, {}],
      [{ "more/a.crt": junk, "corp/b.crt": pem }, { SSL_CERT_DIR: "/nonexistent:FOLDER/more:FOLDER/corp" }]
    ] as const) {
      const { context } = yield* configured(files, environment)
      yield* Effect.provide(twice, context)
    }
    const { context } = yield* configured({ "etc/ssl/certs/one.pem": pem }, { SSL_CERT_DIR: "/nonexistent" })
    assert.include((yield* Effect.flip(Effect.provide(twice, context))).message, "certificate is self-signed and not trusted here")
  }).pipe(Effect.scoped))
  it.live("SSL_CERT_FILE", () => Effect.gen(function*() {
    const made = yield* serving(["x"], { tls: true })
    const folder = yield* temporary
    writeFileSync(join(folder, "bundle.pem"), made.certificate ?? "")
    const { context } = yield* configured({}, { SSL_CERT_FILE: join(folder, "bundle.pem") })
    yield* Effect.provide(manifest({ domain: made.host, path: "x" }), context)
    const { context: broken } = yield* configured({}, { SSL_CERT_FILE: join(folder, "none.pem") })
    assert.include((yield* Effect.flip(Effect.provide(manifest({ domain: made.host, path: "x" }), broken))).message, "$SSL_CERT_FILE cannot be used")
  }).pipe(Effect.scoped))
})
