import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result, Schema } from "effect"
import { decodeToken } from "../../../src/registry/auth/Auth.ts"
import type { RegistryFailure } from "../../../src/registry/Errors.ts"
import { Registry } from "../../../src/registry/Registry.ts"
import * as Fault from "../../../src/testing/server/Fault.ts"
import { TestRegistry, type TestRegistryOptions } from "../../../src/testing/server/TestRegistry.ts"
import { bytesOf, client, descriptorOf, type Setup } from "../Client.ts"

const layer = Buffer.from("layer bytes")
const users = { ada: "hush" }

/** A registry with one image's worth of bytes in a/b and c/d. */
const registry = (options: TestRegistryOptions) => Effect.map(TestRegistry.make(options), (made) => {
  for (const repository of ["a/b", "c/d"]) {
    made.addBlob(repository, layer)
    made.addManifest(repository, "latest", Buffer.from("{}"), "application/vnd.oci.image.manifest.v1+json")
  }
  return made
})
const manifest = (made: TestRegistry, path = "a/b") => Registry.use((client) => client.manifest({ domain: made.host, path }, "latest"))
const blob = (made: TestRegistry, path = "a/b") => Effect.scoped(Registry.use((client) => client.blob({ domain: made.host, path }, descriptorOf(layer), 0)).pipe(
  Effect.flatMap((answer) => bytesOf(answer.body))))
const ada = (made: TestRegistry, setup: Setup = {}) => client({ ...setup, credentials: { [made.host]: { username: "ada", password: "hush" } } })
const kinds = (made: TestRegistry) => made.requests.map(({ kind, status }) => `${kind} ${status}`)
const unauthorized = (error: RegistryFailure) => error._tag === "Unauthorized" ? error : assert.fail(error.message)

describe("bearer", () => {
  it.live("anonymous: one token a repository, for all its requests", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer" } })
    yield* Effect.gen(function*() {
      yield* manifest(made)
      assert.deepStrictEqual(kinds(made), ["manifest 401", "token 200", "manifest 200"])
      assert.deepStrictEqual(yield* blob(made), layer)
      yield* manifest(made)
      assert.deepStrictEqual(kinds(made).slice(3), ["blob 200", "manifest 200"])
      yield* manifest(made, "c/d")
    }).pipe(Effect.provide(client()))
    assert.deepStrictEqual(made.tokens?.issued.map(({ user, scopes }) => [user, scopes]), [[undefined, ["repository:a/b:pull"]], [undefined, ["repository:c/d:pull"]]])
    assert.isTrue(made.find({ kind: "token" }).every(({ headers }) => headers["authorization"] === undefined))
    assert.include(made.find({ kind: "token" })[0]?.url, "service=towline-test&scope=repository%3Aa%2Fb%3Apull")
  }))
  it.live("with credentials, which go to the token server alone", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", users, anonymous: false } })
    yield* manifest(made).pipe(Effect.provide(ada(made)))
    assert.deepStrictEqual(made.tokens?.issued.map(({ user }) => user), ["ada"])
    assert.isTrue(made.find({ kind: "manifest" }).every(({ headers }) => !headers["authorization"]?.startsWith("Basic")))
    assert.include(made.find({ kind: "token" })[0]?.url, "account=ada")
  }))
  it.live("token and access_token", () => Effect.gen(function*() {
    for (const field of ["token", "access_token", "both"] as const) {
      const made = yield* registry({ auth: { kind: "bearer", field } })
      yield* manifest(made).pipe(Effect.provide(client()))
      assert.strictEqual(kinds(made).length, 3)
    }
  }))
  it.live("a token that expires is fetched anew, for many requests once", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", expiresIn: 1, claimExpiresIn: 300 } })
    yield* Effect.gen(function*() {
      yield* manifest(made)
      yield* Effect.sleep("1100 millis")
      made.forget()
      yield* Effect.forEach([1, 2, 3, 4], () => blob(made), { concurrency: 4 })
      assert.deepStrictEqual(kinds(made).sort(), ["blob 200", "blob 200", "blob 200", "blob 200", "blob 401", "blob 401", "blob 401", "blob 401", "token 200"])
    }).pipe(Effect.provide(client()))
  }))
  it.live("a token past its stated life is not sent", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", expiresIn: 300, claimExpiresIn: 1, issuedAt: "2001-01-01T00:00:00Z" } })
    yield* Effect.gen(function*() {
      yield* manifest(made)
      yield* Effect.sleep("1 second")
      made.forget()
      yield* blob(made)
      assert.isUndefined(made.requests[0]?.headers["authorization"])
      assert.deepStrictEqual(kinds(made), ["blob 401", "token 200", "blob 200"])
    }).pipe(Effect.provide(client()))
  }))
  it.live("an identity token is exchanged by POST", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", users, identityTokens: { "idtoken-hush": "ada" }, anonymous: false } })
    yield* manifest(made).pipe(Effect.provide(client({ credentials: { [made.host]: { identityToken: "idtoken-hush" } } })))
    assert.deepStrictEqual(made.find({ kind: "token" }).map(({ method, url }) => [method, url]), [["POST", "/token"]])
    assert.deepStrictEqual(made.tokens?.issued.map(({ user, scopes }) => [user, scopes]), [["ada", ["repository:a/b:pull"]]])
  }))
  it.live("stops after two fresh tokens that are refused", () => Effect.gen(function*() {
    const challenge = (made: TestRegistry, more = "") => ({ "www-authenticate": `Bearer realm="${made.url}/token",service="x"${more}` })
    const made = yield* registry({ auth: { kind: "bearer" } })
    made.script([{ match: { kind: "manifest" }, do: Fault.status(401, challenge(made)) }])
    const error = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(client())))
    assert.strictEqual(error.credentials, "anonymous")
    assert.deepStrictEqual(kinds(made), ["manifest 401", "token 200", "manifest 401", "token 200", "manifest 401"])
    made.forget()
    made.script([{ match: { kind: "manifest" }, do: Fault.status(401, challenge(made, `,error="insufficient_scope"`)) }])
    yield* Effect.flip(manifest(made)).pipe(Effect.provide(client()))
    assert.deepStrictEqual(kinds(made), ["manifest 401", "token 200", "manifest 401"])
  }))
  it.live("wrong credentials, no credentials, a repository that is not allowed", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", users, anonymous: false, allow: (_, repository) => repository === "a/b" } })
    const wrong = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(client({ credentials: { [made.host]: { username: "ada", password: "hush!" } } }))))
    assert.include(wrong.message, "check the credentials from /home/x/.docker/config.json")
    assert.notInclude(JSON.stringify(wrong) + wrong.message + String(wrong.stack), "hush")
    const none = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(client())))
    assert.include(none.message, "docker login")
    const other = unauthorized(yield* Effect.flip(manifest(made, "c/d")).pipe(Effect.provide(ada(made))))
    assert.strictEqual(other.repository, "c/d")
  }))
  it.live("a realm elsewhere is asked without credentials, and the error says so; unless the user allows it", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", users, anonymous: false, ownPort: true } })
    const error = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(ada(made))))
    const realm = new URL(made.tokens?.url ?? "").host
    assert.include(error.message, `${realm} is not a token server your credentials for this registry are for`)
    assert.isTrue(made.requests.every(({ headers }) => headers["authorization"] === undefined))
    yield* manifest(made).pipe(Effect.provide(ada(made, { options: { realms: [realm] } })))
    assert.deepStrictEqual(made.tokens?.issued.map(({ user }) => user), ["ada"])
  }))
  it.live("a malicious realm is not asked at all", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer", realm: "file:///etc/passwd" }, tls: true })
    const trusting = client({ options: { authorities: [made.certificate ?? ""] } })
    assert.include(unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(trusting))).message, "its scheme is neither https nor http")
    const plain = yield* registry({ auth: { kind: "bearer", realm: "http://127.0.0.1:1/token" }, tls: true })
    const error = yield* Effect.flip(manifest(plain)).pipe(Effect.provide(client({ options: { authorities: [plain.certificate ?? ""] } })))
    assert.include(unauthorized(error).message, "plain HTTP")
  }))
  it.live("faults of the token server", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "bearer" } })
    const outcome = (...actions: ReadonlyArray<Fault.Action>) => Effect.gen(function*() {
      made.script(actions.map((action, at) => ({ match: { kind: "token", nth: at + 1 }, do: action })))
      const result = yield* Effect.result(manifest(made)).pipe(Effect.provide(client()))
      return Result.isSuccess(result) ? "ok" : result.failure._tag
    })
    assert.strictEqual(yield* outcome(Fault.status(503), Fault.drop, Fault.stall("headers", 2000), Fault.stall(3, 2000)), "ok")
    assert.strictEqual(yield* outcome(Fault.html, Fault.html), "AnswerRefused")
    assert.strictEqual(yield* outcome(Fault.status(200, {}, `{"token":""}`), Fault.html), "AnswerRefused")
    assert.strictEqual(yield* outcome(Fault.status(200, {}, `{"token":"a\\r\\nx: y"}`), Fault.html), "AnswerRefused")
    assert.strictEqual(yield* outcome(Fault.extraBytes(Infinity), Fault.extraBytes(Infinity)), "AnswerRefused")
    assert.strictEqual(yield* outcome(Fault.status(429, { "retry-after": "3600" })), "NetworkError")
    assert.strictEqual(yield* outcome(Fault.status(404)), "NetworkError")
  }))
  it.effect.prop("reads any token answer without throwing", { body: Schema.String, lifetime: Schema.Json }, ({ body, lifetime }) => Effect.sync(() => {
    decodeToken(Buffer.from(body))
    const token = decodeToken(Buffer.from(JSON.stringify({ token: "t", expires_in: lifetime })))
    assert.isTrue(token !== undefined && token.lifetime >= 1 && token.lifetime <= 86_400)
  }))
  it("keeps a minute what does not say how long it lives", () => {
    const life = (body: string) => decodeToken(Buffer.from(body))?.lifetime
    assert.deepStrictEqual([`{"token":"t"}`, `{"token":"t","expires_in":null}`, `{"token":"t","expires_in":0}`, `{"token":"t","expires_in":-5}`,
      `{"access_token":"t","expires_in":90}`, `{"token":null,"access_token":"t","expires_in":"90"}`, `{"token":"t","expires_in":1e99}`].map(life), [60, 60, 60, 60, 90, 90, 86_400])
    assert.strictEqual(Redacted.value(decodeToken(Buffer.from(`{"token":"a","access_token":"b"}`))?.token ?? Redacted.make("")), "a")
  })
})

describe("basic", () => {
  it.live("is asked for once, then sent at once, to every repository", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "basic", users } })
    yield* Effect.gen(function*() {
      yield* manifest(made)
      yield* blob(made)
      yield* manifest(made, "c/d")
    }).pipe(Effect.provide(ada(made)))
    assert.deepStrictEqual(kinds(made), ["manifest 401", "manifest 200", "blob 200", "manifest 200"])
  }))
  it.live("wrong or missing credentials", () => Effect.gen(function*() {
    const made = yield* registry({ auth: { kind: "basic", users } })
    const wrong = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(client({ credentials: { [made.host]: { username: "ada", password: "x" } } }))))
    assert.deepStrictEqual(kinds(made), ["manifest 401", "manifest 401"])
    assert.include(wrong.message, "the user name or password is wrong")
    const none = unauthorized(yield* Effect.flip(manifest(made)).pipe(Effect.provide(client())))
    assert.include(none.message, "asks for a user name and password")
  }))
})

describe("challenges", () => {
  const outcome = (headers: Record<string, string | ReadonlyArray<string>>) => Effect.gen(function*() {
    const tokens = yield* registry({ auth: { kind: "bearer" } })
    const real = tokens.tokens?.url ?? ""
    const filled = Object.entries(headers).map(([name, value]) =>
      [name, typeof value === "string" ? value.replaceAll("REALM", real) : value.map((one) => one.replaceAll("REALM", real))])
    const made = yield* registry({ script: [{ match: { nth: 1 }, do: [Fault.status(401), Fault.setHeaders(Object.fromEntries(filled))] }] })
    const result = yield* Effect.result(manifest(made)).pipe(Effect.provide(ada(made)))
    return Result.isSuccess(result) ? tokens.tokens?.issued.map(({ scopes }) => scopes.join(" ")).join() ?? "" : result.failure.message
  })
  it.live("Bearer is preferred, in one header or several", () => Effect.gen(function*() {
    assert.strictEqual(yield* outcome({ "www-authenticate": `Basic realm="x", bearer realm="REALM"` }), "repository:a/b:pull")
    assert.strictEqual(yield* outcome({ "www-authenticate": [`Basic realm="x"`, `Negotiate`, `Bearer realm="REALM",scope="repository:a/b:pull"`] }), "repository:a/b:pull")
  }))
  it.live("none, one that cannot be read, one that is not known", () => Effect.gen(function*() {
    assert.include(yield* outcome({ "www-authenticate": [] }), "without saying how to log in")
    assert.include(yield* outcome({ "www-authenticate": `Bearer realm="` }), "cannot be read: the parameter realm has no value")
    assert.include(yield* outcome({ "www-authenticate": `Negotiate, Digest realm="x"` }), "not supported (negotiate, digest)")
    assert.include(yield* outcome({ "www-authenticate": `Bearer service="x"` }), "it is not a URL")
    assert.include(yield* outcome({ "www-authenticate": `Bearer realm="REALM${"x".repeat(9000)}"` }), "longer than 8192")
  }))
})
