import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Clock, Context, Duration, Effect, Exit, Layer, Redacted, Scope, Semaphore, Stream } from "effect"
import { HttpClient, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { guarded } from "./answer/Body.ts"
import type { Jar } from "./auth/Cookies.ts"
import * as Dispatch from "./Dispatch.ts"
import { RegistryOptions } from "./route/Endpoint.ts"
import { NetworkError } from "./Errors.ts"
import { fault, isUnknownAuthority } from "./Fault.ts"
import * as Politeness from "./Politeness.ts"
import { Limits } from "./RetryPolicy.ts"
import { plainTls, type Tls } from "./route/Route.ts"

/** One request: GET, HEAD, or POST of `form` (`application/x-www-form-urlencoded`, may be secret) which follows no redirects. */
export interface Request {
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent to the origin of `url` only, whatever it redirects to. */
  readonly authorization?: Redacted.Redacted | undefined
  readonly form?: Redacted.Redacted
  /** Default: GET, or POST where there is a form. */
  readonly method?: "HEAD"
  /** Sends each origin its own cookies, and keeps those it sets. */
  readonly cookies?: Jar
  /** `authorization` goes with the first request alone: not even to the same origin once it redirects. */
  readonly once?: boolean
  /** How the origin of `url` is spoken to by TLS; of it only the authorities go along where that redirects to. */
  readonly tls?: Tls
  /** More headers for the origin of `url` only, such as those of a configuration; `authorization` replaces theirs. */
  readonly own?: Readonly<Record<string, Redacted.Redacted>>
}

/** An answer whose headers are there. */
export interface Answer {
  readonly status: number
  /** Lower-case names; headers sent twice are joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
  /** `host[:port]` that gave it: not that of the request's URL if `moved`. */
  readonly host: string
  /** Whether another origin than the one asked answered. */
  readonly moved: boolean
  /** Bytes as sent, held to the idle time and the minimum rate. Reading it to the end, or leaving it, closes the answer. */
  readonly body: Stream.Stream<Uint8Array, NetworkError>
  /** Gives the connection back (a short rest of the body is read for that, else it is cut). So does the end of the scope. */
  readonly close: Effect.Effect<void>
}

/** HTTP as registries need it. Redirects are followed here, the rest is told as it is: any status is an answer. */
export class Transport extends Context.Service<Transport, {
  /** Fails if there is no answer: with `NetworkError` of every reason but "rate-limited", "server" and "body". */
  readonly send: (request: Request) => Effect.Effect<Answer, NetworkError, Scope.Scope>
}>()("registry/Transport") {
  /** Effect's HttpClient over undici: HTTP/1.1, a pool for each origin, no cookies, no trace headers, proxies of the environment. */
  static readonly layer = Layer.effect(Transport, Effect.suspend(() => make))
}

const maximumRedirects = 10
const redirects = new Set([301, 302, 303, 307, 308])
const drainCap = 1 << 16

/** Puts the cookies an answer sets into the jar, values as they were sent. */
const keep = (jar: Jar, url: URL, response: HttpClientResponse.HttpClientResponse, now: number): void => {
  for (const { name, options, valueEncoded } of Object.values(response.cookies.cookies)) {
    const lifetime = options?.maxAge === undefined ? undefined : now + Duration.toMillis(Duration.fromInputUnsafe(options.maxAge))
    jar.take(url, { name, value: valueEncoded, path: options?.path, secure: options?.secure === true, expires: lifetime ?? options?.expires?.getTime() }, now)
  }
}

const make = Effect.gen(function*() {
  const dispatch = yield* Dispatch.make
  const polite = yield* Politeness.make
  const { connections } = yield* RegistryOptions
  const limits = yield* Limits
  const slots = new Map<string, Semaphore.Semaphore>()
  const slotsOf = (origin: string) => {
    const slot = slots.get(origin) ?? Semaphore.makeUnsafe(connections)
    slots.set(origin, slot)
    return slot
  }
  const ask = Effect.fnUntraced(function*(request: Request, url: URL, trusted: boolean, now: number) {
    const tls = request.tls === undefined ? plainTls : trusted ? request.tls : { ...plainTls, ca: request.tls.ca }
    const wide = dispatch.widened()
    const client = (wide: boolean) => Effect.map(dispatch.client(tls, url.host, wide), HttpClient.withScope)
    const http = yield* client(wide)
    const own = Object.entries(trusted ? request.own ?? {} : {}).map(([name, value]) => [name, Redacted.value(value)])
    const secret = trusted ? request.authorization : undefined
    const cookie = request.cookies?.header(url, now)
    const headers = {
      "user-agent": "towline", "accept-encoding": "identity", ...request.headers, ...Object.fromEntries(own),
      ...secret !== undefined && { authorization: Redacted.value(secret) },
      ...cookie !== undefined && { cookie }
    }
    const plain = request.form === undefined
      ? HttpClientRequest.make(request.method ?? "GET")(url, { headers })
      : HttpClientRequest.post(url, { headers }).pipe(HttpClientRequest.bodyText(Redacted.value(request.form), "application/x-www-form-urlencoded"))
    return yield* http.execute(plain).pipe(
      // Nothing was sent yet; the authority may be one that only this machine knows.
      Effect.catch((cause) => wide || !isUnknownAuthority(cause) ? Effect.fail(cause) : Effect.flatMap(dispatch.widen(url.host), (found) =>
        found ? Effect.flatMap(client(true), (http) => http.execute(plain)) : Effect.fail(cause))),
      Effect.mapError((cause) => {
        if (cause instanceof NetworkError) return cause
        const error = fault(url.host, cause, "headers", dispatch.proxy(url))
        // Some that speak TLS only say so, most hang up.
        return error.reason !== "reset" || url.protocol === "https:" ? error
          : new NetworkError({ ...error, detail: `${error.detail} before an answer to plain HTTP (it may speak TLS only)` })
      }),
      Effect.timeoutOrElse({
        duration: limits.headers,
        orElse: () => Effect.fail(new NetworkError({
          host: url.host, reason: "timeout", transient: true, phase: "headers", detail: `no answer in ${Duration.format(Duration.fromInputUnsafe(limits.headers))}`
        }))
      }),
      Effect.provideService(NodeHttpClient.UndiciOptions, { highWaterMark: polite.piece }),
      Effect.provideService(HttpClient.TracerPropagationEnabled, false),
      // A span of it would carry the URL, and those of redirects hold signatures.
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true)
    )
  })
  const toAnswer = (response: HttpClientResponse.HttpClientResponse, url: URL, moved: boolean, scope: Scope.Closeable): Answer => {
    const abort = Scope.close(scope, Exit.void)
    const body = polite.slowed(guarded(response.stream, { host: url.host, limits, abort, fault: (error) => fault(url.host, error, "body") }))
    const close = Effect.suspend(() => {
      let left = drainCap
      return Stream.runForEachArray(Stream.takeWhile(body, () => left > 0), (chunks) => Effect.sync(() => { for (const chunk of chunks) left -= chunk.byteLength }))
    }).pipe(Effect.timeoutOption(limits.settle), Effect.ignore, Effect.andThen(abort))
    return { status: response.status, headers: response.headers, host: url.host, moved, body, close: Number(response.headers["content-length"] ?? 0) > drainCap ? abort : close }
  }
  const send = Effect.fnUntraced(function*(request: Request) {
    const outer = yield* Effect.scope
    const refuse = (url: URL, detail: string) => new NetworkError({ host: url.host, reason: "protocol", phase: "headers", transient: false, detail })
    if (!URL.canParse(request.url))
      return yield* new NetworkError({ host: request.url.split("/")[2] ?? "", reason: "unknown-host", phase: "connect", transient: false, detail: "this is no usable host and port" })
    const first = new URL(request.url)
    let url = first
    let trusted = true
    for (let hop = 0;; hop++) {
      const scope = yield* Scope.fork(outer)
      const response = yield* Scope.provide(scope)(Effect.gen(function*() {
        yield* polite.turn(url.host)
        yield* Semaphore.takeScoped(slotsOf(url.origin), 1)
        return yield* ask(request, url, trusted, yield* Clock.currentTimeMillis)
      })).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
      yield* polite.heard(url.host, response.status, response.headers)
      if (request.cookies !== undefined) keep(request.cookies, url, response, yield* Clock.currentTimeMillis)
      const answer = toAnswer(response, url, url.origin !== first.origin, scope)
      const location = response.headers["location"]
      if (!redirects.has(response.status) || location === undefined || request.form !== undefined) return answer
      yield* answer.close
      if (!URL.canParse(location, url.href)) return yield* refuse(url, "it redirects to something that is no URL")
      const next = new URL(location, url)
      if (hop === maximumRedirects) return yield* refuse(url, `it redirects more than ${maximumRedirects} times`)
      if (next.protocol !== "https:" && next.protocol !== "http:") return yield* refuse(url, "it redirects to something that is neither https nor http")
      if (url.protocol === "https:" && next.protocol === "http:") return yield* refuse(url, "it redirects from https to plain HTTP, which is not followed")
      if (next.origin !== url.origin || request.once === true) trusted = false
      url = next
    }
  })
  return Transport.of({ send })
})
