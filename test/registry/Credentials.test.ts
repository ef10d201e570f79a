import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Layer, Option, Redacted, Result } from "effect"
import * as Credentials from "../../src/registry/Credentials.ts"

const base64 = (text: string) => Buffer.from(text).toString("base64")
const plain = (found: Credentials.Found | undefined) => found && [
  found.username, Redacted.value(found.password), ...found.identityToken === undefined ? [] : [Redacted.value(found.identityToken)]
]
const decoded = (auths: unknown) => Result.match(Credentials.decode("/x/config.json", JSON.stringify({ auths, credsStore: "none", HttpHeaders: {} })), {
  onFailure: (error) => error.problem,
  onSuccess: (found) => Object.fromEntries([...found].map(([host, one]) => [host, plain(one)]))
})

describe("decode", () => {
  it.each<readonly [auths: unknown, expected: unknown]>([
    [undefined, {}], [null, {}], [{}, {}],
    [{ "r.example": { auth: base64("user:pass") } }, { "r.example": ["user", "pass"] }],
    [{ "r.example": { auth: base64("user:pa:ss\0\0") } }, { "r.example": ["user", "pa:ss"] }],
    [{ "r.example": { auth: base64("usér:") } }, { "r.example": ["usér", ""] }],
    [{ "r.example:5000": { username: "u", password: "p" } }, { "r.example:5000": ["u", "p"] }],
    [{ "https://r.example": { auth: base64("u:p") } }, { "r.example": ["u", "p"] }],
    [{ "https://R.example/v2/": { auth: base64("u:p") } }, { "r.example": ["u", "p"] }],
    [{ "http://localhost:5000/": { auth: base64("u:p") } }, { "localhost:5000": ["u", "p"] }],
    [{ "https://index.docker.io/v1/": { auth: base64("u:p") } }, { "registry-1.docker.io": ["u", "p"] }],
    [{ "docker.io": { auth: base64("u:p") } }, { "registry-1.docker.io": ["u", "p"] }],
    [{ "https://r.example/v1/": { auth: base64("old:p") }, "r.example": { auth: base64("new:p") } }, { "r.example": ["new", "p"] }],
    [{ "r.example": { auth: base64("u:"), identitytoken: "tok" } }, { "r.example": ["u", "", "tok"] }],
    [{ "r.example": { identitytoken: "tok" } }, { "r.example": ["", "", "tok"] }],
    [{ "r.example": {}, "s.example": null, "t.example": { auth: "" } }, {}],
    [{ "r.example/some/repo": { auth: base64("u:p") } }, {}]
  ])("%j", (auths, expected) => { assert.deepStrictEqual(decoded(auths), expected) })

  it("refuses what is malformed, without showing it", () => {
    for (const auths of [[], "x", { r: "secret" }, { r: { auth: 7 } }, { r: { auth: "secret!" } }, { r: { auth: base64("secret") } }])
      assert.isString(decoded(auths), JSON.stringify(auths))
    for (const text of ["", "{", `{"auths":{"r":{"auth":"secret`]) {
      const problem = Result.getOrThrow(Result.flip(Credentials.decode("/x/config.json", text)))
      assert.include(problem.message, "/x/config.json")
      assert.notInclude(problem.message, "secret")
    }
  })

  it("shows no secret when printed", () => {
    const found = Result.getOrThrow(Credentials.decode("/x/config.json", JSON.stringify({ auths: { r: { auth: base64("u:hush"), identitytoken: "hush" } } })))
    assert.notInclude(JSON.stringify([...found]) + String(found.get("r")?.password), "hush")
  })
})

/** What is found for docker.io with this environment, in a folder with `files`. */
const find = (files: Record<string, string>, environment: (folder: string) => Record<string, string>) => Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  yield* fs.makeDirectory(`${folder}/.docker`)
  for (const [name, text] of Object.entries(files)) yield* fs.writeFileString(`${folder}/${name}`, text)
  return yield* Credentials.Credentials.use((credentials) => credentials.find("docker.io")).pipe(
    Effect.map((found) => [plain(Option.getOrUndefined(found)), Option.getOrUndefined(found)?.source.replace(folder, "")]),
    Effect.provide(Credentials.Credentials.layer.pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(environment(folder))))))
  )
}).pipe(Effect.provide(NodeFileSystem.layer), Effect.scoped)

const file = (user: string) => JSON.stringify({ auths: { "https://index.docker.io/v1/": { auth: base64(`${user}:p`) } } })

describe("Credentials", () => {
  it.effect("reads DOCKER_CONFIG, else ~/.docker", () => Effect.gen(function*() {
    const files = { "config.json": file("named"), ".docker/config.json": file("home") }
    assert.deepStrictEqual(yield* find(files, (at) => ({ DOCKER_CONFIG: at, HOME: at })), [["named", "p"], "/config.json"])
    assert.deepStrictEqual(yield* find(files, (at) => ({ HOME: at })), [["home", "p"], "/.docker/config.json"])
    assert.deepStrictEqual(yield* find(files, (at) => ({ DOCKER_CONFIG: "", HOME: at })), [["home", "p"], "/.docker/config.json"])
  }))
  it.effect("is anonymous without a file, or without a home", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* find({}, (at) => ({ HOME: at })), [undefined, undefined])
    assert.deepStrictEqual(yield* find({}, (at) => ({ DOCKER_CONFIG: `${at}/none` })), [undefined, undefined])
    assert.deepStrictEqual(yield* find({}, () => ({})), [undefined, undefined])
  }))
  it.effect("names the file it cannot use", () => Effect.gen(function*() {
    const malformed = yield* Effect.flip(find({ ".docker/config.json": "{" }, (at) => ({ HOME: at })))
    assert.include(malformed.message, "/.docker/config.json cannot be used: it is not JSON")
    const folder = yield* Effect.flip(find({}, (at) => ({ DOCKER_CONFIG: at, HOME: at })).pipe(Effect.andThen(
      find({ "config.json": "" }, (at) => ({ DOCKER_CONFIG: `${at}/config.json` })))))
    assert.strictEqual(folder._tag, "CredentialsError")
  }))
})
