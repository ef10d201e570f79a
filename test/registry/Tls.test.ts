import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
import type { Tls } from "../../src/registry/route/Route.ts"
import { plainTls } from "../../src/registry/route/Route.ts"
import { Transport } from "../../src/registry/Transport.ts"
import { Registry } from "../../src/registry/Registry.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { TestRegistry } from "../../src/testing/index.ts"
import { temporary } from "../harness.ts"
import { client } from "./Client.ts"

const failure = (url: string, tls: Tls = plainTls) => Effect.flip(Effect.scoped(Transport.use((transport) => transport.send({ url, tls })))).pipe(Effect.provide(client({ limits: { headers: "5 seconds" } })))
const status = (url: string, tls: Tls) => Effect.scoped(Transport.use((transport) => Effect.map(transport.send({ url, tls }), (answer) => answer.status))).pipe(Effect.provide(client()))

/** An authority of its own, and certificates that it signed, made by openssl: `server`, `expired`, `wrong`, `user`, and `stranger` by another. */
const certificates = Effect.map(temporary, (folder) => {
  const openssl = (...args: ReadonlyArray<string>) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" })
  const key = (name: string) => openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", `${name}.key`)
  const authority = (name: string) => {
    key(name)
    openssl("req", "-new", "-x509", "-key", `${name}.key`, "-subj", `/CN=${name}`, "-days", "3650", "-out", `${name}.pem`)
  }
  const signed = (name: string, by: string, names: string, days: ReadonlyArray<string> = ["-days", "3650"]) => {
    key(name)
    openssl("req", "-new", "-key", `${name}.key`, "-subj", `/CN=${name}`, "-out", `${name}.csr`)
    writeFileSync(join(folder, `${name}.ext`), `subjectAltName=${names}\n`)
    openssl("x509", "-req", "-in", `${name}.csr`, "-CA", `${by}.pem`, "-CAkey", `${by}.key`, "-CAcreateserial", "-extfile", `${name}.ext`, ...days, "-out", `${name}.pem`)
  }
  authority("ca")
  authority("other")
  signed("server", "ca", "IP:127.0.0.1,DNS:localhost")
  signed("expired", "ca", "IP:127.0.0.1", ["-days", "-1"])
  signed("wrong", "ca", "DNS:other.example")
  signed("user", "ca", "DNS:user")
  signed("stranger", "other", "DNS:stranger")
  const pem = (name: string) => readFileSync(join(folder, `${name}.pem`), "utf8")
  const secret = (name: string) => readFileSync(join(folder, `${name}.key`), "utf8")
  const tls = (user?: string): Tls => ({ ...plainTls, ca: [pem("ca")], client: user === undefined ? [] : [{ cert: pem(user), key: Redacted.make(secret(user)) }] })
  return { folder, tls, server: (name: string) => ({ cert: pem(name), key: secret(name) }) }
})

/** openssl's server on a free port, with these options. */
const opensslServer = (folder: string, ...args: ReadonlyArray<string>) => Effect.map(Effect.acquireRelease(
  Effect.callback<{ readonly port: string; readonly end: () => void }>((resume) => {
    const child = spawn("openssl", ["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", "server.pem", "-key", "server.key", ...args], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] })
    let said = ""
    child.stdout.on("data", (chunk: Buffer) => {
      said += String(chunk)
      const port = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(said)?.[1]
      if (port !== undefined) resume(Effect.succeed({ port, end: () => child.kill("SIGKILL") }))
    })
    child.on("error", (error) => resume(Effect.die(error)))
  }), ({ end }) => Effect.sync(end)), ({ port }) => `https://127.0.0.1:${port}/`)

const here = spawnSync("openssl", ["version"]).status === 0

describe.skipIf(!here)("what is wrong with TLS, each in its own words", () => {
  it.live("a private authority, trusted or not; expired; another name", () => Effect.gen(function*() {
    const { server, tls } = yield* certificates
    const made = yield* TestRegistry.make({ tls: server("server") })
    assert.strictEqual(yield* status(`${made.url}/v2/`, tls()), 200)
    assert.match((yield* failure(`${made.url}/v2/`)).message, /its certificate comes from an authority that is not trusted here .*; put its authority, as ca\.crt, into ~\/\.config\/docker\/certs\.d\/127/)
    const expired = yield* TestRegistry.make({ tls: server("expired") })
    assert.match((yield* failure(`${expired.url}/v2/`, tls())).message, /its certificate has expired/)
    const wrong = yield* TestRegistry.make({ tls: server("wrong") })
    assert.match((yield* failure(`${wrong.url}/v2/`, tls())).message, /its certificate is for another name .*; check the host's name/)
    const self = yield* TestRegistry.make({ tls: true })
    assert.match((yield* failure(`${self.url}/v2/`, tls())).message, /its certificate is self-signed and not trusted here/)
    assert.strictEqual(yield* status(`${wrong.url}/v2/`, { ...plainTls, verify: false }), 200)
  }).pipe(Effect.scoped))

  it.live("client certificates: asked for, of an authority that is not trusted, right; by TLS 1.3 and 1.2", () => Effect.gen(function*() {
    const { folder, tls } = yield* certificates
    const url = yield* opensslServer(folder, "-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem")
    const none = yield* failure(url, tls())
    assert.match(none.message, /it asks for a client certificate, and none is configured for it/)
    assert.strictEqual(none.transient, false)
    assert.match((yield* failure(url, tls("stranger"))).message, /does not trust the authority of the client certificate/)
    assert.strictEqual(yield* status(url, tls("user")), 200)
    const old = yield* opensslServer(folder, "-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem", "-tls1_2")
    assert.match((yield* failure(old, tls())).message, /it may ask for a client certificate/)
    assert.strictEqual(yield* status(old, tls("user")), 200)
  }).pipe(Effect.scoped))

  it.live("client certificates are for the host they are configured for: a redirect to another does not get them", () => Effect.gen(function*() {
    const { folder, server, tls } = yield* certificates
    const url = yield* opensslServer(folder, "-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem")
    const first = yield* TestRegistry.make({ tls: { ...server("server"), clientCa: tls().ca.join() }, script: [{ match: {}, do: { do: "redirect", url, code: 307 } }] })
    assert.match((yield* failure(`${first.url}/v2/`, tls("user"))).message, /it asks for a client certificate, and none is configured/)
    // What asks for one and needs none does not see it either: every test's end looks for that.
    const second = yield* TestRegistry.make({ tls: server("server") })
    first.script([{ match: {}, do: Fault.redirect(`${second.url}/v2/`) }])
    assert.strictEqual(yield* status(`${first.url}/v2/`, tls("user")), 200)
    assert.strictEqual(second.requests.length, 1)
  }).pipe(Effect.scoped))

  it.live("TLS at a plain port, plain HTTP at a TLS port, and a key that does not fit", () => Effect.gen(function*() {
    const { folder, server, tls } = yield* certificates
    const plain = yield* TestRegistry.make()
    assert.match((yield* failure(plain.url.replace("http:", "https:"))).message, /TLS was offered to a port that does not speak it/)
    const secure = yield* opensslServer(folder)
    assert.match((yield* failure(secure.replace("https:", "http:"))).message, /before an answer to plain HTTP \(it may speak TLS only\)/)
    const go = yield* TestRegistry.make({ script: [{ match: {}, do: Fault.status(400, {}, "Client sent an HTTP request to an HTTPS server.\n") }] })
    const told = yield* Effect.flip(Registry.use((registry) => registry.manifest({ domain: go.host, path: "x" }, "1"))).pipe(Effect.provide(client()))
    assert.match(told.message, /plain HTTP was sent to a port that speaks TLS/)
    const broken = tls("user")
    const misfit = { ...broken, client: broken.client.map(({ cert }) => ({ cert, key: Redacted.make(server("server").key) })) }
    const error = yield* failure("https://127.0.0.1:1/", misfit)
    assert.match(error.message, /a certificate or key that is configured for it cannot be used/)
    assert.notInclude(JSON.stringify(error) + error.message, "PRIVATE")
  }).pipe(Effect.scoped))
})

describe("proxies of the environment", () => {
  it.live("carry requests to other hosts, and their refusals are told as theirs", () => Effect.gen(function*() {
    const asked: Array<string> = []
    const proxy = yield* Effect.acquireRelease(Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((request, response) => { asked.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"] ?? ""}`); response.end("{}") })
      server.on("connect", (request, socket) => { asked.push(`CONNECT ${request.url}`); socket.end("HTTP/1.1 403 Forbidden\r\n\r\n") })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }), (server) => Effect.sync(() => { server.closeAllConnections(); server.close() }))
    const address = proxy.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const env = { HTTP_PROXY: `http://user:hush@127.0.0.1:${port}`, https_proxy: `127.0.0.1:${port}`, NO_PROXY: "direct.invalid" }
    const setup = { environment: env }
    const send = (url: string) => Effect.scoped(Transport.use((transport) => Effect.map(transport.send({ url }), (answer) => answer.status))).pipe(Effect.provide(client(setup)))
    assert.strictEqual(yield* send("http://registry.invalid/v2/"), 200)
    const refused = yield* Effect.flip(send("https://registry.invalid/v2/"))
    assert.match(refused.message, /registry\.invalid: the proxy answered 403 instead of connecting to it/)
    assert.match((yield* Effect.flip(send("http://direct.invalid/"))).message, /does not resolve/)
    const made = yield* TestRegistry.make()
    assert.strictEqual(yield* send(`${made.url}/v2/`), 200)
    assert.deepStrictEqual(asked, [`GET http://registry.invalid/v2/ Basic ${Buffer.from("user:hush").toString("base64")}`, "CONNECT registry.invalid:443"])
    assert.notInclude(JSON.stringify(refused) + refused.message, "hush")
    const dead = yield* Effect.flip(Effect.scoped(Transport.use((transport) => transport.send({ url: "https://registry.invalid/" }))).pipe(Effect.provide(client({ environment: { HTTPS_PROXY: "http://127.0.0.1:1" } }))))
    assert.match(dead.message, /connection was refused \(through the proxy 127\.0\.0\.1:1 of the environment\)/)
  }).pipe(Effect.scoped))
})
