import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import { connect, type Socket } from "node:net"
import { V1Registry, type V1Session } from "../../src/registry/V1Registry.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { selfSigned } from "../../src/testing/server/Certificate.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { legacy } from "../../src/testing/old/LegacyImage.ts"
import { V1Server, type V1ServerOptions } from "../../src/testing/old/V1Server.ts"
import { configured } from "./Configured.ts"

const { images } = legacy({ steps: [{ tar: [{ path: "base", contents: "base" }] }, { tar: [{ path: "top", contents: "top" }] }] })
const top = images.at(-1)?.id ?? ""
const server = (options: V1ServerOptions = {}, path = "team/app") => Effect.map(V1Server.make(options), (made) => made.put(path, "1", images))

/** The image's chain, as a pull asks for it: the ping where v2 is absent, the session, the tag, the ancestry. */
const chain = (domain: string, path: string, mode: "safe" | "docker-1.9" = "safe", scheme = "https:") => Effect.gen(function*() {
  const repository = { domain, path }
  const registry = yield* V1Registry
  const list = yield* Registry.use((registry) => registry.endpoints(repository, mode))
  const url = list.find(({ url, version }) => version === 1 && url.startsWith(scheme))?.url ?? assert.fail("no v1 endpoint")
  yield* Registry.use((registry) => registry.ping(repository, url))
  const session: V1Session = yield* registry.session(repository, yield* registry.ping(repository, url))
  const id = yield* session.tag("1")
  return yield* session.first((endpoint) => endpoint.ancestry(id))
})

/** A forward proxy that leads every CONNECT to `to`, and every plain request nowhere. */
const proxy = (to: () => string) => Effect.map(Effect.acquireRelease(
  Effect.callback<{ readonly asked: Array<string>; readonly port: number; readonly close: () => void }>((resume) => {
    const asked: Array<string> = []
    const sockets = new Set<Socket>()
    const made = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`)
      response.writeHead(502).end()
    })
    made.on("connect", (request, client: Socket) => {
      asked.push(`CONNECT ${request.url}`)
      const [host = "", port] = to().split(":")
      const far = connect(Number(port), host, () => client.write("HTTP/1.1 200 OK\r\n\r\n"))
      far.pipe(client).pipe(far)
      for (const socket of [far, client]) socket.on("error", () => socket.destroy())
      sockets.add(far).add(client)
    })
    made.listen(0, "127.0.0.1", () => {
      const address = made.address()
      resume(Effect.succeed({ asked, port: typeof address === "object" ? address?.port ?? 0 : 0, close: () => {
        for (const socket of sockets) socket.destroy()
        made.closeAllConnections()
        made.close()
      } }))
    })
  }), ({ close }) => Effect.sync(close)), ({ asked, port }) => ({ asked, url: `http://127.0.0.1:${port}` }))

describe("what is configured of hosts holds for v1", () => {
  it.live("authorities and client certificates of certs.d: of the index, and of a registry it names", () => Effect.gen(function*() {
    const user = selfSigned()
    const registry = yield* V1Server.make({ role: "registry", tls: { ...selfSigned(), clientCa: user.cert } })
    const made = yield* server({ role: "index", tls: true, registries: [registry] })
    const trusting = { [`etc/docker/certs.d/${made.host}/ca.crt`]: made.certificate ?? "", [`etc/docker/certs.d/${registry.host}/ca.crt`]: registry.certificate ?? "" }
    const right = yield* configured({ ...trusting, [`user/docker/certs.d/${registry.host}/me.cert`]: user.cert, [`user/docker/certs.d/${registry.host}/me.key`]: user.key })
    assert.strictEqual((yield* Effect.provide(chain(made.host, "team/app"), right.context))[0], top)
    const without = yield* configured(trusting)
    const refused = yield* Effect.flip(Effect.provide(chain(made.host, "team/app"), without.context))
    assert.match(refused.message, /client certificate, and none is configured|handshake/)
    const strange = yield* configured({})
    assert.include((yield* Effect.flip(Effect.provide(chain(made.host, "team/app"), strange.context))).message, "certificate is self-signed")
  }).pipe(Effect.scoped))

  it.live("insecure-registries of daemon.json, insecure of registries.conf, skip_verify and headers of hosts.toml", () => Effect.gen(function*() {
    const registry = yield* V1Server.make({ role: "registry", tls: true })
    const made = yield* server({ role: "index", tls: true, registries: [registry] })
    const [host, port] = made.host.split(":")
    for (const files of [
      { "etc/docker/daemon.json": JSON.stringify({ "insecure-registries": ["127.0.0.0/8"] }) },
      { "etc/docker/daemon.json": JSON.stringify({ "insecure-registries": [registry.host] }), "etc/containers/registries.conf": `[[registry]]\nlocation = "${made.host}"\ninsecure = true\n` },
      {
        "etc/docker/daemon.json": JSON.stringify({ "insecure-registries": [registry.host] }),
        [`etc/containerd/certs.d/${host}_${port}_/hosts.toml`]: `server = "${made.url}"\nskip_verify = true\n[header]\nx-team = "blue"\n`
      }
    ]) {
      const { context } = yield* configured(files)
      assert.strictEqual((yield* Effect.provide(chain(made.host, "team/app"), context))[0], top, JSON.stringify(files))
    }
    assert.isTrue(made.requests.slice(-2).every(({ headers }) => headers["x-team"] === "blue"), "its own headers")
    assert.isTrue(registry.requests.every(({ headers }) => headers["x-team"] === undefined), "no other host's")
  }).pipe(Effect.scoped))

  it.live("a location of registries.conf; what is blocked is not asked, by either protocol", () => Effect.gen(function*() {
    const made = yield* server({}, "stored/app")
    const { context } = yield* configured({ "etc/containers/registries.conf": `
[[registry]]
prefix = "old.example/team"
location = "${made.host}/stored"
[[registry]]
prefix = "${made.host}/stored/secret"
location = "${made.host}/stored/secret"
blocked = true
` })
    assert.strictEqual((yield* Effect.provide(chain("old.example", "team/app", "safe", "http:"), context))[0], top)
    const before = made.requests.length
    for (const mode of ["safe", "docker-1.9"] as const) {
      const error = yield* Effect.flip(Effect.provide(chain(made.host, "stored/secret/x", mode), context))
      assert.match(error.message, /^pulling from .*stored\/secret\/x is blocked by .*registries\.conf:5/)
    }
    assert.strictEqual(made.requests.length, before)
  }).pipe(Effect.scoped))

  it.live("the hub by docker-1.9: its mirrors first, without its token, in silence; all through the proxy", () => Effect.gen(function*() {
    const tls = selfSigned({ names: ["index.docker.io"] })
    const far = yield* V1Server.make({ tls, tokens: "plain" })
    far.put("library/app", "1", images)
    const dead = yield* V1Server.make({ role: "registry", script: [{ match: {}, do: Fault.status(500) }] })
    const mirror = yield* V1Server.make({ role: "registry", tokens: "none" })
    mirror.put("library/app", "1", images)
    const through = yield* proxy(() => far.host)
    const { context } = yield* configured(
      { "etc/docker/daemon.json": JSON.stringify({ "registry-mirrors": [dead.url, `${mirror.url}/`] }), "etc/docker/certs.d/index.docker.io/ca.crt": tls.cert }, { HTTPS_PROXY: through.url })
    const { endpoints, found } = yield* Effect.provide(Effect.gen(function*() {
      const registry = yield* V1Registry
      const repository = { domain: "docker.io", path: "library/app" }
      const session = yield* registry.session(repository, yield* registry.ping(repository, "https://index.docker.io"))
      const id = yield* session.tag("1")
      return { endpoints: session.endpoints.map(({ mirror, url }) => [url, mirror]), found: yield* session.first((endpoint) => Effect.as(endpoint.ancestry(id), endpoint.url)) }
    }), context)
    assert.deepStrictEqual(endpoints, [[dead.url, true], [mirror.url, true], ["https://index.docker.io", false]])
    assert.strictEqual(found, mirror.url)
    assert.isTrue(through.asked.length > 0 && through.asked.every((line) => line === "CONNECT index.docker.io:443"), through.asked.join())
    assert.deepStrictEqual(far.requests.map(({ kind }) => kind), ["images", "tags"], "tags are the hub's own word")
    assert.match(far.requests[1]?.headers["authorization"] ?? "", /^Token /)
    for (const { headers } of [...dead.requests, ...mirror.requests]) assert.notProperty(headers, "authorization")
  }).pipe(Effect.scoped))
})
