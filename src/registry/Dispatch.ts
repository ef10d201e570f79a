import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Redacted, Scope } from "effect"
import type { HttpClient } from "effect/http"
import { createSecureContext, getCACertificates, type SecureContextOptions } from "node:tls"
import * as Proxy from "./config/Proxy.ts"
import { isListed, RegistryOptions } from "./route/Endpoint.ts"
import { NetworkError } from "./Errors.ts"
import { Limits } from "./RetryPolicy.ts"
import { Routes, type Tls } from "./route/Route.ts"

/** HTTP clients, one for each way of speaking TLS, each with a pool for each origin. */
export interface Dispatch {
  /** The client for `tls`; `host` is named where it cannot be made. `wide`: it trusts what `Routes.trust` names too. */
  readonly client: (tls: Tls, host: string, wide: boolean) => Effect.Effect<HttpClient.HttpClient, NetworkError>
  /** Whether authorities have been read that Node's own are without (`Routes.trust`): then clients are to be wide. */
  readonly widened: () => boolean
  /** Reads them. Whether there are any: then it is worth asking again. It takes as long as a whole connection, and is seldom needed. */
  readonly widen: (host: string) => Effect.Effect<boolean, NetworkError>
  /** The proxy that requests to a URL go through, if any: its `host[:port]`. */
  readonly proxy: (url: URL) => string | undefined
}

const keyOf = ({ ca, client, connect, verify }: Tls, wide: boolean) => JSON.stringify([wide, ca, client.map(({ cert, key }) => [cert, Redacted.value(key)]), verify, connect])

/** Clients over undici: HTTP/1.1, proxies as the environment says. They live as long as the scope. */
export const make = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const { authorities, insecure } = yield* RegistryOptions
  const limits = yield* Limits
  const { trust } = yield* Routes
  const proxies = yield* Proxy.fromEnvironment
  // undici is only loaded when something is pulled: it is a third of the start-up time.
  const undici = yield* Effect.promise(() => import("@effect/platform-node/Undici"))
  const clients = new Map<string, HttpClient.HttpClient>()
  let more: ReadonlyArray<string> = []
  const unusable = (host: string, detail: string) => new NetworkError({ host, reason: "tls", phase: "connect", transient: false, detail })

  const widen = Effect.fnUntraced(function*(host: string) {
    const all = yield* Effect.mapError(trust, ({ path, problem }) => unusable(host, `${path} cannot be used: ${problem}`))
    const known = new Set(getCACertificates("default").map((pem) => pem.trim()))
    more = [...new Set([...all.authorities, ...all.keychain ? getCACertificates("system") : []])].filter((pem) => !known.has(pem.trim()))
    return more.length > 0
  })

  const open = Effect.fnUntraced(function*(tls: Tls, host: string, wide: boolean) {
    const ca = [...authorities, ...wide ? more : [], ...tls.ca]
    const options: SecureContextOptions = {
      ...ca.length > 0 && { ca: [...getCACertificates("default"), ...ca] },
      ...tls.client.length > 0 && { cert: tls.client.map(({ cert }) => cert), key: tls.client.map(({ key }) => Redacted.value(key)) }
    }
    const secureContext = Object.keys(options).length === 0 ? undefined : yield* Effect.try({
      try: () => createSecureContext(options),
      catch: (error) => unusable(host, `a certificate or key that is configured for it cannot be used (${error instanceof Error && "code" in error ? String(error.code) : "no PEM"})`)
    })
    const timeout = tls.connect ?? Duration.toMillis(limits.connect)
    const dispatcher = yield* Scope.provide(NodeHttpClient.makeDispatcherOptions({
      pipelining: 1,
      allowH2: false,
      factory: (origin, options) => {
        const open = !tls.verify || isListed(new URL(origin).host, insecure)
        const connect = { timeout, ...secureContext !== undefined && { secureContext }, ...open && { rejectUnauthorized: false } }
        const proxy = Proxy.choose(proxies, String(origin))
        if (proxy === undefined) {
          const connector = undici.buildConnector({ ...connect, allowH2: false })
          return new undici.Pool(origin, {
            ...options,
            connect: (to, done) => connector(to, (...result) => {
              // What a server says in TLS after the handshake (such as that it wants a certificate) is the cause; undici would put the
              // end of the connection, which follows, in its place.
              const [error, socket] = result
              socket?.once("error", () => socket.destroy())
              if (error === null) done(null, socket)
              else done(error, null)
            })
          })
        }
        return new undici.ProxyAgent({
          uri: proxy.href, pipelining: 1, allowH2: false, connectTimeout: timeout, requestTls: connect,
          ...ca.length > 0 && { proxyTls: { ca: [...getCACertificates("default"), ...ca] } }
        })
      }
    }), scope)
    return yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, dispatcher)
  })

  const client = Effect.fnUntraced(function*(tls: Tls, host: string, wide: boolean) {
    const key = keyOf(tls, wide)
    const known = clients.get(key)
    if (known !== undefined) return known
    const made = yield* Effect.uninterruptible(open(tls, host, wide))
    const other = clients.get(key) // made meanwhile
    if (other !== undefined) return other
    clients.set(key, made)
    return made
  })
  return { client, widened: () => more.length > 0, widen, proxy: (url) => Proxy.choose(proxies, url.href)?.host } satisfies Dispatch
})
