import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { createServer, type RequestListener, type Server } from "node:http"
import { createServer as createTcpServer, type Socket } from "node:net"
import { collect } from "../../src/registry/answer/Body.ts"
import type { NetworkError } from "../../src/registry/Errors.ts"
import { Transport } from "../../src/registry/Transport.ts"
import { selfSigned } from "../../src/testing/server/Certificate.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { client, type Setup } from "./Client.ts"

/** A server with this behaviour, at the `host:port` given; it goes with the scope. */
const serve = (handler: RequestListener) => Effect.acquireRelease(
  Effect.callback<Server>((resume) => {
    const server = createServer(handler).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.sync(() => { server.closeAllConnections(); server.close() })
).pipe(Effect.map(hostOf))

/** The same over bare TCP. */
const serveTcp = (handler: (socket: Socket) => void) => Effect.acquireRelease(
  Effect.callback<{ readonly server: ReturnType<typeof createTcpServer>; readonly sockets: Set<Socket> }>((resume) => {
    const sockets = new Set<Socket>()
    const server = createTcpServer((socket) => { sockets.add(socket.on("error", () => {})); handler(socket) })
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, sockets })))
  }),
  ({ server, sockets }) => Effect.sync(() => { for (const socket of sockets) socket.destroy(); server.close() })
).pipe(Effect.map(({ server }) => hostOf(server)))

const hostOf = (server: { address(): unknown }) => {
  const address = server.address()
  return `127.0.0.1:${typeof address === "object" && address !== null && "port" in address ? String(address.port) : ""}`
}

const get = (url: string, headers: Record<string, string> = {}, authorization?: string) => Transport.use((transport) => transport.send({
  url, headers, ...authorization !== undefined && { authorization: Redacted.make(authorization) }
}))
const text = (url: string, headers?: Record<string, string>, authorization?: string) => Effect.scoped(Effect.gen(function*() {
  const answer = yield* get(url, headers, authorization)
  return `${answer.status} ${Buffer.from((yield* collect(answer.body, 1 << 20)) ?? []).toString()}`
}))
const failure = (url: string, setup: Setup = {}) => Effect.flip(text(url)).pipe(Effect.provide(client(setup)))
const facts = ({ reason, phase, transient }: NetworkError) => [reason, phase, transient]

describe("failures", () => {
  it.live("unknown host", () => Effect.gen(function*() {
    const error = yield* failure("https://no-such-host.invalid/v2/")
    assert.strictEqual(error.reason, "unknown-host")
    assert.strictEqual(error.phase, "connect")
    assert.include(error.message, "no-such-host.invalid: the host name does not resolve")
  }))
  it.live("no host at all", () => Effect.gen(function*() {
    assert.deepStrictEqual(facts(yield* failure("https://localhost:99999/v2/")), ["unknown-host", "connect", false])
  }))
  it.live("refused", () => Effect.gen(function*() {
    const error = yield* failure("http://127.0.0.1:1/v2/")
    assert.deepStrictEqual(facts(error), ["refused", "connect", true])
    assert.include(error.message, "127.0.0.1:1: the connection was refused; check the host and port")
  }))
  it.live("connect: a port that says nothing to TLS", () => Effect.gen(function*() {
    const host = yield* serveTcp(() => {})
    assert.deepStrictEqual(facts(yield* failure(`https://${host}/`, { limits: { connect: "200 millis", headers: "5 seconds" } })), ["timeout", "connect", true])
  }))
  it.live("TLS to a plain port", () => Effect.gen(function*() {
    const host = yield* serve((_, response) => response.end("hello"))
    const error = yield* failure(`https://${host}/`)
    assert.deepStrictEqual(facts(error), ["plain-http", "connect", false])
    assert.include(error.message, "TLS was offered to a port that does not speak it")
    assert.include(error.message, "--insecure")
  }))
  it.live("TLS closed in the handshake", () => Effect.gen(function*() {
    const host = yield* serveTcp((socket) => socket.once("data", () => socket.end()))
    assert.deepStrictEqual(facts(yield* failure(`https://${host}/`)), ["reset", "connect", true])
  }))
  it.live("certificates: self-signed, expired, of another name; trusted, or not looked at, where the user says so", () => Effect.gen(function*() {
    const good = yield* TestRegistry.make({ tls: true })
    const expired = selfSigned({ notAfter: "210101000000Z" })
    const other = selfSigned({ names: ["other.example"] })
    const old = yield* TestRegistry.make({ tls: expired })
    const wrong = yield* TestRegistry.make({ tls: other })
    const untrusted = yield* failure(`${good.url}/v2/`)
    assert.deepStrictEqual(facts(untrusted), ["tls", "connect", false])
    assert.include(untrusted.message, "certificate is self-signed")
    assert.include((yield* failure(`${old.url}/v2/`, { options: { authorities: [expired.cert] } })).message, "has expired")
    assert.include((yield* failure(`${wrong.url}/v2/`, { options: { authorities: [other.cert] } })).message, "is for another name")
    assert.strictEqual(yield* text(`${good.url}/v2/`).pipe(Effect.provide(client({ options: { authorities: [good.certificate ?? ""] } }))), "200 {}")
    assert.strictEqual(yield* text(`${wrong.url}/v2/`).pipe(Effect.provide(client({ options: { insecure: [wrong.host] } }))), "200 {}")
  }))
  it.live("no headers in time, before and within them", () => Effect.gen(function*() {
    for (const begin of ["", "HTTP/1.1 200 OK\r\ncontent-"]) {
      const host = yield* serveTcp((socket) => socket.write(begin))
      const error = yield* failure(`http://${host}/`)
      assert.deepStrictEqual(facts(error), ["timeout", "headers", true])
      assert.include(error.message, "no answer in 400ms")
    }
  }))
  it.live("connections lost before an answer and in the body", () => Effect.gen(function*() {
    const drop = yield* serveTcp((socket) => socket.once("data", () => socket.resetAndDestroy()))
    assert.deepStrictEqual(facts(yield* failure(`http://${drop}/`)), ["reset", "headers", true])
    const heads = ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    for (const head of heads) for (const reset of [true, false]) {
      const host = yield* serveTcp((socket) => socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\n${head}`, () =>
        setTimeout(() => reset ? socket.resetAndDestroy() : socket.end(), 20))))
      assert.deepStrictEqual(facts(yield* failure(`http://${host}/`)), ["reset", "body", true], `${head} ${reset}`)
    }
  }))
  it.live("a body that stalls", () => Effect.gen(function*() {
    const host = yield* serve((_, response) => { response.writeHead(200, { "content-length": 10 }).write("abc") })
    const error = yield* failure(`http://${host}/`)
    assert.deepStrictEqual(facts(error), ["timeout", "body", true])
    assert.include(error.message, "nothing came for 300ms")
  }))
  it.live("a body that trickles", () => Effect.gen(function*() {
    const host = yield* serve((_, response) => {
      response.writeHead(200, { "content-length": 1000 })
      const timer = setInterval(() => response.write("a"), 50)
      response.on("close", () => clearInterval(timer))
    })
    assert.include((yield* failure(`http://${host}/`, { limits: { rateWindow: "400 millis" } })).message, "bytes a second")
  }))
  it.live("what is not HTTP, and headers without end", () => Effect.gen(function*() {
    const junk = yield* serveTcp((socket) => socket.once("data", () => socket.end("SSH-2.0-OpenSSH_9.6\r\n")))
    assert.strictEqual((yield* failure(`http://${junk}/`)).reason, "protocol")
    const long = yield* serveTcp((socket) => socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(100_000)}\r\n\r\n`)))
    assert.deepStrictEqual(facts(yield* failure(`http://${long}/`)), ["protocol", "headers", false])
  }))
})

describe("redirects", () => {
  const echo: RequestListener = (request, response) => response.end(JSON.stringify([request.url, request.headers.authorization ?? null, request.headers.cookie ?? null]))

  it.live("keep secrets within the origin and drop them for good beyond it", () => Effect.gen(function*() {
    const other = yield* serve((request, response) => {
      if (request.url?.startsWith("/back")) response.writeHead(307, { location: String(request.headers["x-back"]) }).end()
      else echo(request, response)
    })
    const host = yield* serve((request, response) => {
      if (request.url === "/same") response.writeHead(302, { location: "/end?a=%2F&b=c+d#x" }).end("moved")
      else if (request.url === "/other") response.writeHead(307, { location: `http://${other}/end?X-Sig=a%2Bb` }).end()
      else if (request.url === "/there-and-back") response.writeHead(308, { location: `http://${other}/back` }).end()
      else echo(request, response)
    })
    const ask = (path: string) => text(`http://${host}${path}`, { "x-back": `http://${host}/end` }, "Bearer hush")
    yield* Effect.gen(function*() {
      assert.strictEqual(yield* ask("/same"), `200 ["/end?a=%2F&b=c+d","Bearer hush",null]`)
      assert.strictEqual(yield* ask("/other"), `200 ["/end?X-Sig=a%2Bb",null,null]`)
      assert.strictEqual(yield* ask("/there-and-back"), `200 ["/end",null,null]`)
    }).pipe(Effect.provide(client()))
  }))
  it.live("are followed ten times, to http(s) only, never from https to http", () => Effect.gen(function*() {
    let hops = 0
    const host = yield* serve((request, response) => {
      const left = Number(request.url?.slice(1))
      hops++
      if (left === 0) response.end("done")
      else response.writeHead(301, { location: `/${left - 1}` }).end()
    })
    assert.strictEqual(yield* text(`http://${host}/10`).pipe(Effect.provide(client())), "200 done")
    hops = 0
    assert.include((yield* failure(`http://${host}/11`)).message, "redirects more than 10 times")
    assert.strictEqual(hops, 11)
    for (const location of ["file:///etc/passwd", "ftp://x/", "javascript:1", "http://[", "data:,x"]) {
      const bad = yield* serve((_, response) => response.writeHead(302, { location }).end())
      assert.deepStrictEqual(facts(yield* failure(`http://${bad}/`)), ["protocol", "headers", false], location)
    }
    const secure = yield* TestRegistry.make({ tls: true, script: [{ match: {}, do: Fault.redirect(`http://${host}/0`) }] })
    const down = yield* failure(`${secure.url}/v2/`, { options: { authorities: [secure.certificate ?? ""] } })
    assert.include(down.message, "from https to plain HTTP")
  }))
  it.live("without a Location are answers", () => Effect.gen(function*() {
    const host = yield* serve((_, response) => response.writeHead(307).end("lost"))
    assert.strictEqual(yield* text(`http://${host}/`).pipe(Effect.provide(client())), "307 lost")
  }))
  it.live("do not carry a form anywhere", () => Effect.gen(function*() {
    let reached = false
    const other = yield* serve((_, response) => { reached = true; response.end() })
    const host = yield* serve((_, response) => response.writeHead(307, { location: `http://${other}/` }).end())
    const status = yield* Transport.use((transport) => transport.send({ url: `http://${host}/`, form: Redacted.make("refresh_token=hush") })).pipe(
      Effect.map((answer) => answer.status), Effect.scoped, Effect.provide(client()))
    assert.deepStrictEqual([status, reached], [307, false])
  }))
})

describe("connections", () => {
  it.live("are used again after answers that were read, left with a short rest, or redirected", () => Effect.gen(function*() {
    const sockets = new Set<unknown>()
    const host = yield* serve((request, response) => {
      sockets.add(request.socket)
      if (request.url === "/moved") response.writeHead(302, { location: "/end" }).end("x".repeat(1000))
      else response.end("y".repeat(1000))
    })
    yield* Effect.gen(function*() {
      for (let turn = 0; turn < 20; turn++) {
        yield* text(`http://${host}/moved`)
        yield* Effect.scoped(Effect.flatMap(get(`http://${host}/unread`), (answer) => answer.close))
      }
    }).pipe(Effect.provide(client()))
    assert.isAtMost(sockets.size, 2)
  }))
  it.live("are given back by answers nobody reads, and are bounded for each origin", () => Effect.gen(function*() {
    let under = 0
    let peak = 0
    const host = yield* serve((_, response) => {
      peak = Math.max(peak, ++under)
      response.on("close", () => under--)
      response.writeHead(200, { "content-length": 1 << 20 }).write(Buffer.alloc(1000))
    })
    yield* Effect.forEach(Array.from({ length: 12 }), () => Effect.scoped(Effect.andThen(get(`http://${host}/`), Effect.sleep("20 millis"))), { concurrency: 12, discard: true }).pipe(
      Effect.provide(client({ options: { connections: 3 } })))
    assert.strictEqual(peak, 3)
  }))
  it.live("close when interrupted, while waiting for headers or in the body", () => Effect.gen(function*() {
    for (const begin of ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]) {
      const closed = Promise.withResolvers<void>()
      const asked = Promise.withResolvers<void>()
      const host = yield* serveTcp((socket) => {
        socket.on("close", () => closed.resolve())
        socket.once("data", () => { socket.write(begin); asked.resolve() })
      })
      const fiber = yield* text(`http://${host}/`).pipe(Effect.provide(client({ limits: { headers: "9 seconds", idle: "9 seconds" } })), Effect.forkChild)
      yield* Effect.promise(() => asked.promise)
      yield* Effect.sleep("30 millis")
      yield* Fiber.interrupt(fiber)
      yield* Effect.promise(() => closed.promise)
    }
  }))
  it.live("carry no trace headers, and no header of their own but these", () => Effect.gen(function*() {
    const host = yield* serve((request, response) => response.end(Object.keys(request.headers).sort().join(" ")))
    assert.strictEqual(yield* text(`http://${host}/`).pipe(Effect.withSpan("outer"), Effect.provide(client())), "200 accept-encoding connection host user-agent")
  }))
  it.live("close with the layer", () => Effect.gen(function*() {
    const closed = Promise.withResolvers<void>()
    const host = yield* serve((request, response) => { request.socket.on("close", () => closed.resolve()); response.end("x") })
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(client(), scope)
    assert.strictEqual(yield* text(`http://${host}/`).pipe(Effect.provideContext(context)), "200 x")
    yield* Scope.close(scope, Exit.void)
    yield* Effect.promise(() => closed.promise)
  }))
})
