import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Layer, Option, Redacted, Result } from "effect"
import { existsSync, readFileSync, rmSync, statSync } from "node:fs"
import * as AuthFile from "../../../src/registry/config/AuthFile.ts"
import * as Helper from "../../../src/registry/config/Helper.ts"
import * as Credentials from "../../../src/registry/auth/Credentials.ts"

const base64 = (text: string) => Buffer.from(text).toString("base64")
const plain = (found: AuthFile.Found | undefined) => found && [
  found.username, Redacted.value(found.password), ...found.identityToken === undefined ? [] : [Redacted.value(found.identityToken)]
]
const decoded = (auths: unknown) => Result.match(AuthFile.decode("/x/config.json", JSON.stringify({ auths, credsStore: "none", HttpHeaders: {} })), {
  onFailure: (error) => error.problem,
  onSuccess: ({ auths }) => Object.fromEntries([...auths].map(([host, one]) => [host, plain(one)]))
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
    [{ "r.example/some/repo": { auth: base64("u:p") } }, { "r.example/some/repo": ["u", "p"] }],
    [{ "docker.io/library": { auth: base64("u:p") } }, { "registry-1.docker.io/library": ["u", "p"] }],
    [{ "https://r.example/some/repo": { auth: base64("u:p") } }, { "r.example": ["u", "p"] }]
  ])("%j", (auths, expected) => { assert.deepStrictEqual(decoded(auths), expected) })

  it("refuses what is malformed, without showing it", () => {
    for (const auths of [[], "x", { r: "secret" }, { r: { auth: 7 } }, { r: { auth: "secret!" } }, { r: { auth: base64("secret") } }])
      assert.isString(decoded(auths), JSON.stringify(auths))
    for (const text of ["", "{", `{"auths":{"r":{"auth":"secret`]) {
      const problem = Result.getOrThrow(Result.flip(AuthFile.decode("/x/config.json", text)))
      assert.include(problem.message, "/x/config.json")
      assert.notInclude(problem.message, "secret")
    }
  })

  it("shows no secret when printed", () => {
    const found = Result.getOrThrow(AuthFile.decode("/x/config.json", JSON.stringify({ auths: { r: { auth: base64("u:hush"), identitytoken: "hush" } } })))
    assert.notInclude(JSON.stringify([...found.auths]) + String(found.auths.get("r")?.password), "hush")
  })
})

/** What is found for a repository with this environment, in a folder with `files`. */
const find = (files: Record<string, string>, environment: (folder: string) => Record<string, string>, ...repositories: ReadonlyArray<string>) => Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  for (const [name, text] of Object.entries(files)) {
    yield* fs.makeDirectory(`${folder}/${name.slice(0, Math.max(0, name.lastIndexOf("/")))}`, { recursive: true })
    yield* fs.writeFileString(`${folder}/${name}`, text.replaceAll("FOLDER", folder))
    if (text.startsWith("#!")) yield* fs.chmod(`${folder}/${name}`, 0o755)
  }
  const found = yield* Effect.forEach(repositories.length === 0 ? ["docker.io/library/x"] : repositories, (name) => {
    const [domain = "", path = ""] = name.split(/\/(.*)/)
    return Effect.map(Credentials.Credentials.use((credentials) => credentials.find(domain, path)), (found) => [
      plain(Option.getOrUndefined(found)), Option.getOrUndefined(found)?.source.replaceAll(folder, "")
    ])
  }).pipe(Effect.provide(Credentials.Credentials.layer.pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(environment(folder)))))))
  const log = existsSync(`${folder}/log`) ? readFileSync(`${folder}/log`, "utf8") : ""
  return { found: repositories.length === 0 ? found[0] : found, log }
}).pipe(Effect.provide(NodeFileSystem.layer), Effect.scoped)

const file = (user: string) => JSON.stringify({ auths: { "https://index.docker.io/v1/": { auth: base64(`${user}:p`) } } })

describe("Credentials", () => {
  it.effect("reads DOCKER_CONFIG, else ~/.docker", () => Effect.gen(function*() {
    const files = { "config.json": file("named"), ".docker/config.json": file("home") }
    assert.deepStrictEqual((yield* find(files, (at) => ({ DOCKER_CONFIG: at, HOME: at }))).found, [["named", "p"], `/config.json ("https://index.docker.io/v1/")`])
    assert.deepStrictEqual((yield* find(files, (at) => ({ HOME: at }))).found, [["home", "p"], `/.docker/config.json ("https://index.docker.io/v1/")`])
    assert.deepStrictEqual((yield* find(files, (at) => ({ DOCKER_CONFIG: "", HOME: at }))).found, [["home", "p"], `/.docker/config.json ("https://index.docker.io/v1/")`])
  }))
  it.effect("is anonymous without a file, or without a home", () => Effect.gen(function*() {
    assert.deepStrictEqual((yield* find({}, (at) => ({ HOME: at }))).found, [undefined, undefined])
    assert.deepStrictEqual((yield* find({}, (at) => ({ DOCKER_CONFIG: `${at}/none` }))).found, [undefined, undefined])
    assert.deepStrictEqual((yield* find({}, () => ({}))).found, [undefined, undefined])
  }))
  it.effect("names the file it cannot use", () => Effect.gen(function*() {
    const malformed = yield* Effect.flip(find({ ".docker/config.json": "{" }, (at) => ({ HOME: at })))
    assert.include(malformed.message, "/.docker/config.json cannot be used: it is not JSON")
    const folder = yield* Effect.flip(find({}, (at) => ({ DOCKER_CONFIG: at, HOME: at })).pipe(Effect.andThen(
      find({ "config.json": "" }, (at) => ({ DOCKER_CONFIG: `${at}/config.json` })))))
    assert.strictEqual(folder._tag, "CredentialsError")
  }))
  const auths = (entries: Record<string, string>) => JSON.stringify({ auths: Object.fromEntries(Object.entries(entries).map(([key, user]) => [key, { auth: base64(`${user}:p`) }])) })
  const users = (found: unknown) => Array.isArray(found) ? found.map((one: unknown) => Array.isArray(one) && Array.isArray(one[0]) ? String(one[0][0]) : undefined) : []

  it.effect("the environment first, then the named file alone, then Docker's, containers' and home", () => Effect.gen(function*() {
    const files = {
      "named.json": auths({ "r.example": "named" }), "docker/config.json": auths({ "r.example": "docker" }), "run/containers/auth.json": auths({ "r.example": "run" }),
      "config/containers/auth.json": auths({ "r.example": "config" }), ".config/containers/auth.json": auths({ "r.example": "dot" }), ".docker/config.json": auths({ "r.example": "home", "h.example": "home" })
    }
    const steps = (at: string): ReadonlyArray<readonly [string, Record<string, string>]> => [
      ["env", { DOCKER_AUTH_CONFIG: auths({ "r.example": "env" }), REGISTRY_AUTH_FILE: `${at}/named.json`, DOCKER_CONFIG: `${at}/docker` }],
      ["named", { DOCKER_AUTH_CONFIG: auths({ "s.example": "env" }), REGISTRY_AUTH_FILE: `${at}/named.json`, DOCKER_CONFIG: `${at}/docker` }],
      ["docker", { DOCKER_CONFIG: `${at}/docker`, XDG_RUNTIME_DIR: `${at}/run` }],
      ["run", { DOCKER_CONFIG: `${at}/none`, XDG_RUNTIME_DIR: `${at}/run`, XDG_CONFIG_HOME: `${at}/config` }],
      ["config", { XDG_RUNTIME_DIR: `${at}/none`, XDG_CONFIG_HOME: `${at}/config` }],
      ["dot", {}]
    ]
    for (const [index, [expected]] of steps("").entries()) {
      const { found } = yield* find(files, (at) => ({ HOME: at, ...steps(at)[index]?.[1] }), "r.example/a", "h.example/a")
      assert.deepStrictEqual(users(found), [expected, expected === "dot" || expected === "config" ? "home" : undefined], expected)
    }
  }))
  it.effect("REGISTRY_AUTH_FILE that is not there is an error", () => Effect.gen(function*() {
    const error = yield* Effect.flip(find({}, (at) => ({ HOME: at, REGISTRY_AUTH_FILE: `${at}/none.json` })))
    assert.match(error.message, /none\.json cannot be used: it cannot be read \(NotFound\); REGISTRY_AUTH_FILE names it/)
  }))
  it.effect("the key with the longest path that fits", () => Effect.gen(function*() {
    const files = { "a.json": auths({ "r.example/team/app": "app", "r.example": "host", "r.example/team": "team", "quay.io/me": "me", "docker.io/library": "lib" }) }
    const { found } = yield* find(files, (at) => ({ REGISTRY_AUTH_FILE: `${at}/a.json` }),
      "r.example/team/app", "r.example/team/app/x", "r.example/team/application", "r.example/team", "r.example/teams/app", "quay.io/me/x", "quay.io/you", "docker.io/library/alpine", "docker.io/me/x")
    assert.deepStrictEqual(users(found), ["app", "app", "team", "team", "host", "me", undefined, "lib", undefined])
    assert.include(JSON.stringify(found), `/a.json (\\"r.example/team/app\\")`)
  }))

  const script = (body: string) => `#!/bin/sh\nread -r host\necho "$1 $host" >> FOLDER/log\n${body}\n`
  const answers = (user: string) => script(`echo '{"ServerURL":"x","Username":"${user}","Secret":"hush"}'`)
  const helped = (files: Record<string, string>, config: object, ...repositories: ReadonlyArray<string>) => find(
    { ...files, "config.json": JSON.stringify(config) }, (at) => ({ DOCKER_CONFIG: at, PATH: `${at}/bin:${process.env["PATH"] ?? ""}` }), ...repositories)

  it.live("helpers are asked for the one host, once, by the name they know it by", () => Effect.gen(function*() {
    const files = { "bin/docker-credential-one": answers("one"), "bin/docker-credential-two": answers("<token>") }
    const config = { credHelpers: { "r.example": "one", "other.example": "one" }, credsStore: "two", auths: { "r.example": { auth: base64("file:p") }, "s.example/ns": { auth: base64("ns:p") } } }
    const { found, log } = yield* helped(files, config, "r.example/a", "r.example/b", "docker.io/library/x", "s.example/ns/x", "s.example/x")
    assert.deepStrictEqual(found, [
      [["one", "hush"], "docker-credential-one (credHelpers in /config.json)"], [["one", "hush"], "docker-credential-one (credHelpers in /config.json)"],
      [["", "", "hush"], "docker-credential-two (credsStore in /config.json)"],
      [["ns", "p"], `/config.json ("s.example/ns")`], [["", "", "hush"], "docker-credential-two (credsStore in /config.json)"]
    ])
    assert.strictEqual(log, "get r.example\nget https://index.docker.io/v1/\nget s.example\n")
  }))
  it.live("a helper that has nothing lets the file speak", () => Effect.gen(function*() {
    const files = { "bin/docker-credential-none": script(`echo "credentials not found in native keychain"; exit 1`) }
    const { found } = yield* helped(files, { credsStore: "none", auths: { "r.example": { auth: base64("file:p") } } }, "r.example/a", "q.example/a")
    assert.deepStrictEqual(users(found), ["file", undefined])
  }))
  it.live("a helper that hangs, crashes, is missing, or prints rubbish is named; what it printed is not shown", () => Effect.gen(function*() {
    const bin = {
      "bin/docker-credential-hang": script("sleep 600 & echo $! > FOLDER/pid; wait"), "bin/docker-credential-crash": script("kill -9 $$"),
      "bin/docker-credential-exit": script("echo 'the keyring is locked'; exit 3"), "bin/docker-credential-rubbish": script(`echo '{"Username":"u","Secret":"hush"'`),
      "bin/docker-credential-list": script(`echo '["hush"]'`), "bin/docker-credential-much": script("yes hush"), "bin/docker-credential-secret": script(`echo '{"Secret":"hush"}'; exit 1`)
    }
    const problem = (name: string) => Effect.flip(helped(bin, { credsStore: name }, "r.example/a")).pipe(
      Effect.provideService(Helper.Patience, name === "hang" ? "300 millis" : "9 seconds"),
      Effect.map((error) => {
        assert.strictEqual(error._tag, "HelperError")
        assert.include(error.message, `docker-credential-${name} failed for r.example`)
        assert.notInclude(error.message, "hush")
        return error._tag === "HelperError" ? error.problem : ""
      }))
    assert.strictEqual(yield* problem("hang"), "it did not answer in 300ms")
    assert.strictEqual(yield* problem("crash"), "it ended with SIGKILL")
    assert.strictEqual(yield* problem("exit"), "it ended with exit code 3: the keyring is locked")
    assert.strictEqual(yield* problem("missing"), "it is not in PATH")
    assert.strictEqual(yield* problem("rubbish"), "what it wrote is not JSON with a Username and a Secret")
    assert.strictEqual(yield* problem("list"), "what it wrote is not JSON with a Username and a Secret")
    assert.strictEqual(yield* problem("much"), "it wrote more than 65536 bytes")
    assert.strictEqual(yield* problem("secret"), "it ended with exit code 1")
    const strange = yield* Effect.flip(helped(bin, { credsStore: "../bin/x" }, "r.example/a"))
    assert.include(strange.message, "no name of a helper")
  }))
  it.live("a helper that hangs takes its children with it, and one that leaves an agent behind is not waited for", () => Effect.gen(function*() {
    const files = { "bin/docker-credential-agent": script(`sleep 3 & echo '{"ServerURL":"x","Username":"u","Secret":"s"}'`) }
    const began = performance.now()
    assert.deepStrictEqual(users((yield* helped(files, { credsStore: "agent" }, "r.example/a")).found), ["u"])
    assert.isBelow(performance.now() - began, 2500)
    const hang = { "bin/docker-credential-hang": script("sleep 600 & echo $! >> PIDS; wait").replace("PIDS", "/tmp/towline-helper-$PPID") }
    yield* Effect.flip(helped(hang, { credsStore: "hang" }, "r.example/a")).pipe(Effect.provideService(Helper.Patience, "400 millis"))
    const path = `/tmp/towline-helper-${process.pid}`
    const pid = Number(readFileSync(path, "utf8"))
    rmSync(path)
    yield* Effect.sleep("100 millis")
    assert.isUndefined(statSync(`/proc/${pid}/exe`, { throwIfNoEntry: false }))
  }))
})
