import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Fault, ImageBuilder, TestRegistry, type TokenServerOptions } from "../../src/testing/index.ts"
import { ask, type Ask } from "./Client.ts"

const Answer = Schema.fromJsonString(Schema.Struct({
  token: Schema.optionalKey(Schema.String),
  access_token: Schema.optionalKey(Schema.String),
  expires_in: Schema.optionalKey(Schema.Unknown),
  issued_at: Schema.optionalKey(Schema.Unknown),
  refresh_token: Schema.optionalKey(Schema.String),
  scope: Schema.optionalKey(Schema.String)
}))
const image = ImageBuilder.image({ layers: [[{ path: "file" }]] })
const accept = ImageBuilder.mediaTypes.oci.manifest
const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString("base64")}` })

/** A registry that wants tokens, and what one does with it. */
const make = Effect.fnUntraced(function*(options: TokenServerOptions = {}) {
  const registry = (yield* TestRegistry.make({ auth: { kind: "bearer", ...options } })).put("a/x", "v1", image)
  const manifest = (token?: string) => ask(`${registry.url}/v2/a/x/manifests/v1`, { headers: { accept, ...token === undefined ? {} : { authorization: `Bearer ${token}` } } })
  const token = Effect.fnUntraced(function*(query: string, request?: Ask) {
    const seen = yield* ask(`${registry.tokens?.url}?${query}`, request)
    const answer: typeof Answer.Type = seen.status === 200 ? yield* Schema.decodeEffect(Answer)(seen.body.toString()) : {}
    return Object.assign({ status: seen.status }, answer)
  })
  return { registry, manifest, token }
})
const post = (form: Record<string, string>): Ask =>
  ({ method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" }, body: new URLSearchParams(form).toString() })
const pull = "scope=repository:a/x:pull&service=towline-test"

describe("TokenServer", () => {
  it.effect("challenges as distribution does, and takes the token it gave", Effect.fnUntraced(function*() {
    const { registry, manifest, token } = yield* make()
    const realm = `Bearer realm="${registry.url}/token",service="towline-test"`
    const refused = yield* manifest()
    assert.deepStrictEqual([refused.status, refused.headers["www-authenticate"]], [401, `${realm},scope="repository:a/x:pull"`])
    assert.strictEqual((yield* ask(`${registry.url}/v2/`)).headers["www-authenticate"], realm)
    assert.strictEqual((yield* manifest("made-up")).headers["www-authenticate"], `${realm},scope="repository:a/x:pull",error="invalid_token"`)
    const given = yield* token(pull)
    assert.deepInclude(given, { status: 200, expires_in: 300 })
    assert.notProperty(given, "access_token")
    assert.strictEqual((yield* manifest(given.token)).status, 200)
    const other = yield* token("scope=repository:a/y:pull")
    assert.strictEqual((yield* manifest(other.token)).headers["www-authenticate"], `${realm},scope="repository:a/x:pull",error="insufficient_scope"`)
    assert.deepStrictEqual(registry.tokens?.issued.map(({ user, scopes }) => [user, scopes]), [[undefined, ["repository:a/x:pull"]], [undefined, ["repository:a/y:pull"]]])
    assert.strictEqual(registry.find({ kind: "token" }).length, 2)
    registry.tokens?.revoke()
    assert.strictEqual((yield* manifest(given.token)).status, 401)
  }))

  it.effect("checks credentials, and who may pull what", Effect.fnUntraced(function*() {
    const { registry, manifest, token } = yield* make({ users: { me: "pw" }, allow: (user, repository) => user === "me" && repository === "a/x", field: "access_token" })
    assert.strictEqual((yield* token(pull)).status, 401)
    assert.strictEqual((yield* token(pull, { headers: basic("me:no") })).status, 401)
    const given = yield* token("scope=repository:a/x:pull,push&scope=repository:b:pull", { headers: basic("me:pw") })
    assert.notProperty(given, "token")
    assert.deepStrictEqual(registry.tokens?.issued, [{ token: given.access_token ?? "", user: "me", scopes: ["repository:a/x:pull"] }])
    assert.strictEqual((yield* manifest(given.access_token)).status, 200)
  }))

  it.effect("speaks OAuth2 by POST", Effect.fnUntraced(function*() {
    const { token } = yield* make({ users: { me: "pw" }, identityTokens: { "identity-1": "me" } })
    const form = { service: "towline-test", client_id: "test", scope: "repository:a/x:pull" }
    const given = yield* token("", post({ ...form, grant_type: "refresh_token", refresh_token: "identity-1" }))
    assert.deepInclude(given, { status: 200, refresh_token: "identity-1", scope: "repository:a/x:pull" })
    assert.notProperty(given, "token")
    assert.strictEqual((yield* token("", post({ ...form, grant_type: "refresh_token", refresh_token: "constructor" }))).status, 401)
    assert.strictEqual((yield* token("", post({ ...form, grant_type: "password", username: "me", password: "pw" }))).status, 200)
    assert.strictEqual((yield* token("", post(form))).status, 401)
  }))

  it.live("lets tokens expire, and says what it likes about that", Effect.fnUntraced(function*() {
    const { manifest, token } = yield* make({ expiresIn: 0.15, claimExpiresIn: null, issuedAt: "1999-01-01T00:00:00Z", field: "both" })
    const given = yield* token(pull)
    assert.notProperty(given, "expires_in")
    assert.deepInclude(given, { issued_at: "1999-01-01T00:00:00Z" })
    const text = given.token ?? ""
    assert.strictEqual(given.access_token, text)
    assert.strictEqual((yield* manifest(text)).status, 200)
    yield* Effect.sleep("200 millis")
    assert.strictEqual((yield* manifest(text)).status, 401)
  }))

  it.effect("has a port of its own, a realm that lies, and faults", Effect.fnUntraced(function*() {
    const { registry, manifest, token } = yield* make({ ownPort: true, realm: "file:///etc/passwd" })
    assert.notStrictEqual(new URL(registry.tokens?.url ?? "").host, registry.host)
    assert.match(String((yield* manifest()).headers["www-authenticate"]), /^Bearer realm="file:\/\/\/etc\/passwd",/)
    assert.strictEqual((yield* token(pull)).status, 200)
    registry.script([{ match: { kind: "token", nth: 1 }, do: Fault.status(503) }])
    assert.deepStrictEqual([(yield* token(pull)).status, (yield* token(pull)).status], [503, 200])
  }))
})
