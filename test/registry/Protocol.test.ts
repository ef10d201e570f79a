import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Descriptor, VerifyError } from "../../src/image/Descriptor.ts"
import { AnswerRefused, CredentialsError, NetworkError, NotFound, Unauthorized } from "../../src/registry/Errors.ts"
import * as Ping from "../../src/registry/route/Ping.ts"
import { plainTls } from "../../src/registry/route/Route.ts"
import * as Protocol from "../../src/registry/route/Protocol.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import { V1Server } from "../../src/testing/old/V1Server.ts"
import { client } from "./Client.ts"

const listed = (domain: string, mode: Protocol.Mode, more: Partial<Protocol.Where> = {}) =>
  Protocol.endpoints({ domain, mode, insecure: [], ...more }).map(({ mirror, trusted, url, version }) => `v${version} ${url}${trusted ? " trusted" : ""}${mirror ? " mirror" : ""}`)

describe("endpoints", () => {
  const rows: ReadonlyArray<readonly [string, Protocol.Mode, Partial<Protocol.Where>, ReadonlyArray<string>]> = [
    ["registry.example", "docker-1.9", {}, ["v2 https://registry.example", "v1 https://registry.example"]],
    ["registry.example", "safe", {}, ["v2 https://registry.example", "v1 https://registry.example"]],
    ["Registry.Example:5000", "docker-1.9", { insecure: ["registry.example:5000"] },
      ["v2 https://registry.example:5000", "v2 http://registry.example:5000", "v1 https://registry.example:5000", "v1 http://registry.example:5000"]],
    ["127.0.0.7:80", "safe", {}, ["v2 https://127.0.0.7:80", "v2 http://127.0.0.7:80", "v1 https://127.0.0.7:80", "v1 http://127.0.0.7:80"]],
    ["127.0.0.7:80", "safe", { legacy: false }, ["v2 https://127.0.0.7:80", "v2 http://127.0.0.7:80"]],
    ["registry.example", "docker-1.9", { mirrors: ["https://mirror"] }, ["v2 https://registry.example", "v1 https://registry.example"]],
    ["docker.io", "docker-1.9", {}, ["v2 https://registry-1.docker.io trusted", "v1 https://index.docker.io trusted"]],
    ["docker.io", "docker-1.9", { mirrors: ["https://a", "http://b:1/"] },
      ["v2 https://a/ trusted mirror", "v2 http://b:1/ trusted mirror", "v2 https://registry-1.docker.io trusted", "v1 https://index.docker.io trusted"]],
    ["docker.io", "docker-1.9", { legacy: false }, ["v2 https://registry-1.docker.io trusted"]],
    ["docker.io", "safe", { mirrors: ["https://a/"] }, ["v2 https://a trusted mirror", "v2 https://registry-1.docker.io trusted"]],
    ["index.docker.io", "safe", {}, ["v2 https://registry-1.docker.io trusted"]]
  ]
  for (const [domain, mode, more, expected] of rows) {
    it(`${domain} ${mode} ${JSON.stringify(more)}`, () => assert.deepStrictEqual(listed(domain, mode, more), expected))
  }
})

const bodyOf = (...entries: ReadonlyArray<object>) => JSON.stringify({ errors: entries })

describe("what 1.9.1 made of an answer", () => {
  const detail = { Tag: "latest" }
  const rows: ReadonlyArray<readonly [string, number, string, Protocol.Cause]> = [
    ["an object with a detail", 404, bodyOf({ code: "MANIFEST_UNKNOWN", message: "manifest unknown", detail }), { code: "MANIFEST_UNKNOWN" }],
    ["an object with a message of its own", 404, bodyOf({ code: "NAME_UNKNOWN", message: "no such thing" }), { code: "NAME_UNKNOWN" }],
    ["the code's own message and no detail", 404, bodyOf({ code: "NAME_UNKNOWN", message: "repository name not known to registry" }), "bare-code"],
    ["no message, detail null", 403, bodyOf({ code: "DENIED", message: "", detail: null }), "bare-code"],
    ["a code alone", 400, bodyOf({ code: "NAME_INVALID" }), "bare-code"],
    ["an unknown code", 429, bodyOf({ code: "TOOMANYREQUESTS", message: "slow down" }), { code: "UNKNOWN" }],
    ["an unknown code alone", 429, bodyOf({ code: "TOOMANYREQUESTS" }), "bare-code"],
    ["no code", 400, bodyOf({ message: "odd", detail: 1 }), { code: "UNKNOWN" }],
    ["the first of several decides", 400, bodyOf({ code: "DENIED", message: "no", detail }, { code: "UNAUTHORIZED", detail }), { code: "DENIED" }],
    ["an empty list", 404, bodyOf(), "no-codes"],
    ["no list", 404, "{}", "no-codes"],
    ["no JSON", 404, "<html>", "unparsable"],
    ["a list of something else", 404, `{"errors":[1]}`, "unparsable"],
    ["401 without JSON", 401, "no", "unauthorized"],
    ["401 with an object", 401, bodyOf({ code: "UNAUTHORIZED", message: "authentication required", detail }), { code: "UNAUTHORIZED" }],
    ["5xx is not read", 500, bodyOf({ code: "DENIED", message: "x", detail }), "server"]
  ]
  for (const [name, status, body, expected] of rows) it(name, () => assert.deepStrictEqual(Protocol.read(status, Buffer.from(body)), expected))
  it.prop("nothing makes it fail", [Schema.Natural, Schema.Uint8Array], ([status, bytes]) => { Protocol.read(status % 600, bytes) })
})

const pull = (cause: Protocol.Cause, v2 = true): Protocol.Outcome => ({ step: "pull", cause, v2 })
const ping = (cause: Protocol.Cause, v2 = false): Protocol.Outcome => ({ step: "ping", cause, v2 })

/** Where a walk goes: what is tried, and how it ends. `at 1` after an outcome: the endpoint of that place is next. */
const walk = (mode: Protocol.Mode, list: ReadonlyArray<Protocol.Endpoint>, outcomes: ReadonlyArray<Protocol.Outcome>, begin = 0) => {
  const said: Array<string> = []
  let now: Protocol.Walk = { ...Protocol.start, at: begin }
  for (const outcome of outcomes) {
    const step = Protocol.next(mode, list, now, outcome)
    if (step._tag === "Final") return [...said, "final"].join(", ")
    said.push(`${step.walk.at}${step.remember ? "" : " forgotten"}`)
    now = step.walk
  }
  return said.join(", ")
}

describe("docker-1.9", () => {
  const list = Protocol.endpoints({ domain: "127.0.0.1:1", mode: "docker-1.9", insecure: [] })
  const v2: ReadonlyArray<readonly [Protocol.Outcome, string]> = [
    [ping("deaf"), "1"], [ping("network"), "1"], [ping("absent"), "1"], [ping("unavailable"), "1"], [ping({ code: "DENIED" }, true), "1"],
    [pull({ code: "UNAUTHORIZED" }), "1"], [pull({ code: "MANIFEST_UNKNOWN" }), "1"],
    [pull({ code: "NAME_UNKNOWN" }), "final"], [pull({ code: "DENIED" }), "final"], [pull({ code: "UNKNOWN" }), "final"],
    [pull("bare-code"), "1"], [pull("no-codes"), "1"], [pull("unparsable"), "1"], [pull("unauthorized"), "1"], [pull("server"), "1"], [pull("unavailable"), "1"],
    [pull("network"), "1"], [pull("content"), "1"], [pull("local"), "1"]
  ]
  for (const [outcome, expected] of v2) it(`v2 ${JSON.stringify(outcome)}`, () => assert.strictEqual(walk("docker-1.9", list, [outcome]), expected))
  const v1: ReadonlyArray<readonly [Protocol.Outcome, string]> = [
    [ping("deaf"), "3"], [ping("network"), "3"], [ping("local"), "3"], [pull("by-digest", false), "3"],
    [pull("unparsable", false), "final"], [pull("unauthorized", false), "final"], [pull("network", false), "final"], [pull("server", false), "final"]
  ]
  for (const [outcome, expected] of v1) it(`v1 ${JSON.stringify(outcome)}`, () => assert.strictEqual(walk("docker-1.9", list, [outcome], 2), expected))
  it("a digest reference at v1 yields to any other error met", () => {
    assert.strictEqual(walk("docker-1.9", list, [ping("deaf"), pull("server"), pull("by-digest"), pull("by-digest")]), "1, 2, 3 forgotten, 4 forgotten")
    const only = list.slice(2)
    assert.strictEqual(walk("docker-1.9", only, [pull("by-digest"), pull("by-digest")]), "1, 2")
    assert.strictEqual(walk("docker-1.9", only, [pull("by-digest"), ping("deaf")]), "1, 2")
  })
  it("no endpoint at all is the end", () => assert.strictEqual(walk("docker-1.9", [], [ping("deaf")]), "final"))
})

describe("safe", () => {
  const list = Protocol.endpoints({ domain: "127.0.0.1:1", mode: "safe", insecure: [] })
  const hub = Protocol.endpoints({ domain: "docker.io", mode: "safe", insecure: [], mirrors: ["https://mirror"] })
  const rows: ReadonlyArray<readonly [string, ReadonlyArray<Protocol.Endpoint>, ReadonlyArray<Protocol.Outcome>, string]> = [
    ["v2 shown: no v1, whatever it says", list, [pull("unparsable")], "final"],
    ["v2 shown: not even for a missing manifest", list, [pull({ code: "MANIFEST_UNKNOWN" })], "final"],
    ["a v2 error without the header is v2 too", list, [pull({ code: "NAME_UNKNOWN" }, false)], "final"],
    ["a bare code too", list, [pull("bare-code", false)], "final"],
    ["v2 absent by https: v1 by https, no plain HTTP", list, [ping("absent")], "2"],
    ["and that v1 fails to answer: the end", list, [ping("absent"), ping("network")], "2, final"],
    ["v2 absent by https, v1 deaf: no http after TLS", list, [ping("absent"), ping("deaf")], "2, final"],
    ["https deaf: v2 by http", list, [ping("deaf")], "1"],
    ["https deaf, v2 absent by http: v1 by http alone", list, [ping("deaf"), ping("absent")], "1, 3"],
    ["https deaf, v2 shown by http", list, [ping("deaf"), pull({ code: "DENIED" })], "1, final"],
    ["https and http deaf: the end", list, [ping("deaf"), ping("deaf")], "1, final"],
    ["not heard is not absent", list, [ping("network")], "final"],
    ["a gateway that cannot reach it is not absence", list, [ping("unavailable")], "final"],
    ["a server's fault is not absence", list, [pull("server", false)], "final"],
    ["404 and 401 without the header are", list, [pull("unparsable", false)], "2"],
    ["401", list, [pull("unauthorized", false)], "2"],
    ["an empty list of errors", list, [pull("no-codes", false)], "2"],
    ["content that does not verify never is", list, [pull("content", false)], "final"],
    ["nor this machine's disk", list, [pull("local", false)], "final"],
    ["v1's own failures are final", list.slice(2), [pull("unauthorized", false)], "final"],
    ["a digest reference at v1 yields to what was met before", list, [ping("absent"), pull("by-digest", false)], "2, 4 forgotten"],
    ["a digest reference and nothing else", list.slice(2), [pull("by-digest", false)], "final"],
    ["a mirror is passed over", hub, [pull("content")], "1"],
    ["a mirror that is gone too", hub, [ping("network")], "1"],
    ["a mirror, but not for a full disk", hub, [pull("local")], "final"],
    ["the hub itself has no v1", hub.slice(1), [ping("absent")], "final"]
  ]
  for (const [name, from, outcomes, expected] of rows) it(name, () => assert.strictEqual(walk("safe", from, outcomes), expected))
})

describe("causes", () => {
  const network = (fields: Partial<ConstructorParameters<typeof NetworkError>[0]>) => Protocol.causeOf(new NetworkError({ host: "h", reason: "server", detail: "", transient: false, ...fields }))
  it("of a client's failures", () => {
    const digest = Descriptor.fields.digest.make(`sha256:${"0".repeat(64)}`)
    assert.deepStrictEqual([
      network({ reason: "refused", phase: "connect" }), network({ reason: "plain-http", phase: "connect" }), network({ reason: "tls", phase: "connect" }),
      network({ reason: "reset", phase: "body" }), network({ status: 503 }), network({ status: 429, reason: "rate-limited" }), network({ status: 500 }), network({ status: 418 }),
      network({ status: 400, code: "DENIED" }),
      Protocol.causeOf(new Unauthorized({ host: "h", repository: "r", denied: false, credentials: "", detail: "" })),
      Protocol.causeOf(new Unauthorized({ host: "h", repository: "r", denied: true, credentials: "", detail: "", code: "DENIED" })),
      Protocol.causeOf(new NotFound({ host: "h", what: "manifest", repository: "r", name: "t" })),
      Protocol.causeOf(new NotFound({ host: "h", what: "manifest", repository: "r", name: "t", code: "MANIFEST_UNKNOWN" })),
      Protocol.causeOf(new AnswerRefused({ host: "h", subject: "s", rule: "r" })),
      Protocol.causeOf(new VerifyError({ expected: new Descriptor({ mediaType: "", digest, size: 0 }), size: 0 })),
      Protocol.causeOf(new CredentialsError({ path: "p", problem: "x" }))
    ], [
      "deaf", "deaf", "network", "network", "unavailable", "unavailable", "server", "unparsable", { code: "DENIED" }, "unauthorized", { code: "DENIED" },
      "unparsable", { code: "MANIFEST_UNKNOWN" }, "content", "content", "local"
    ])
  })
})

describe("ping", () => {
  const pinged = (url: string) => Ping.v2(url, plainTls).pipe(Effect.provide(client()))
  it.live("looks at the header alone", () => Effect.gen(function*() {
    const made = yield* TestRegistry.make({ auth: { kind: "basic", users: { a: "b" } } })
    assert.deepStrictEqual(yield* pinged(made.url), { v2: true, status: 401 })
    const old = yield* V1Server.make()
    assert.deepStrictEqual(yield* pinged(old.url), { v2: false, status: 404 })
    const heads = [["registry/2.0", true], ["registry/2.1 registry/2.0", true], ["registry/2.01", false], ["", false]] as const
    for (const [header, v2] of heads) {
      const other = yield* TestRegistry.make({ script: [{ match: {}, do: [Fault.status(500), Fault.setHeaders({ "docker-distribution-api-version": header })] }] })
      assert.deepStrictEqual(yield* pinged(other.url), { v2, status: 500 })
    }
  }))
  it.live("fails where nobody answers", () => Effect.gen(function*() {
    assert.strictEqual((yield* Effect.flip(pinged("http://127.0.0.1:1"))).reason, "refused")
  }))
})
