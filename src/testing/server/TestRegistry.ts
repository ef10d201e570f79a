import type { Scope } from "effect"
import { Cause, Effect, Fiber, FiberSet } from "effect"
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http"
import { createServer as createTlsServer } from "node:https"
import type { Socket } from "node:net"
import { TLSSocket } from "node:tls"
import type { Digest } from "../../image/Digest.ts"
import { deliver, error, type Answer } from "./Answer.ts"
import { selfSigned } from "./Certificate.ts"
import { Content, target, type Target } from "../Content.ts"
import { meets, picks, Script, type Kind, type Match, type Rule } from "./Fault.ts"
import type { Body, Built } from "../ImageBuilder.ts"
import { send, type Progress } from "./Send.ts"
import { basic, TokenServer, type TokenServerOptions } from "./TokenServer.ts"

/** Who may read. `basic`: user name to password. `bearer`: tokens from a token server of the kit. */
export type Auth =
  | { readonly kind: "anonymous" }
  | { readonly kind: "basic"; readonly users: Readonly<Record<string, string>> }
  | ({ readonly kind: "bearer" } & TokenServerOptions)

/** How a registry is started. */
export interface TestRegistryOptions {
  /** Default: anonymous. */
  readonly auth?: Auth
  /**
   * HTTPS: with a certificate for 127.0.0.1 and localhost made on the spot, or with yours (PEM).
   * With `clientCa` a client must show a certificate that this one signed.
   */
  readonly tls?: boolean | { readonly key: string; readonly cert: string; readonly clientCa?: string }
  /** The faults to begin with; `script` replaces them. */
  readonly script?: ReadonlyArray<Rule>
}

/** One request as it was served; `status`, `bytesSent` and `finished` grow while it is. */
export interface LoggedRequest {
  readonly method: string
  /** Path and query, as sent. */
  readonly url: string
  readonly path: string
  readonly kind: Kind
  readonly repository: string | undefined
  /** Tag or digest in the path. */
  readonly name: string | undefined
  /** Lower-case names. A header sent several times is joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
  /** The Range header. */
  readonly range: string | undefined
  /** Digest of the object it named; undefined: no such object, or not allowed to see it. */
  readonly digest: string | undefined
  /** 0: no answer was begun. */
  readonly status: number
  /** Body bytes handed to the socket. */
  readonly bytesSent: number
  /** Whether the whole answer was handed over: false when cut, dropped, left by the client, or still going on. */
  readonly finished: boolean
}

type Entry = LoggedRequest & Progress & { digest: string | undefined }

/** The body of a POST, up to 64 KiB; the rest is left unread. */
const bodyOf = (request: IncomingMessage): Effect.Effect<string> => Effect.callback((resume) => {
  let text = ""
  request.setEncoding("utf8")
  request.on("data", (piece: string) => {
    text += piece
    if (text.length > 65_536) resume(Effect.succeed(text))
  })
  request.on("end", () => resume(Effect.succeed(text)))
})

/** The port a server listens on. */
export const portOf = (server: Server): number => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

/**
 * An in-process registry: the pull side of the distribution specification over real HTTP on a loopback port of its own.
 * It answers as distribution's registry (2.8) does, errors included, except that a manifest is never converted: one whose
 * media type the Accept header does not name is MANIFEST_UNKNOWN. Everything in it can be changed while it serves.
 * Requests refused for want of credentials are logged but meet no rule of the script.
 */
export class TestRegistry {
  /** `127.0.0.1:PORT`, as it stands in a reference. */
  readonly host: string
  /** `http://127.0.0.1:PORT`, or `https:`. */
  readonly url: string
  /** The PEM certificate it serves with: what a client must trust. undefined without TLS. */
  readonly certificate: string | undefined
  /** Its token server, when `auth` is bearer. */
  readonly tokens: TokenServer | undefined
  private readonly auth: Auth
  private readonly clientCa: boolean
  private readonly content = new Content()
  private log: Array<Entry> = []
  private playing: Script
  private readonly watchers = new Set<() => void>()
  private blobs = 0
  private peak = 0
  private readonly strange: Array<LoggedRequest> = []
  /** Whether the script asked for credentials: then nobody here knows which are right. */
  private challenged = false

  private constructor(url: string, certificate: string | undefined, tokens: TokenServer | undefined, options: TestRegistryOptions) {
    this.url = url
    this.host = new URL(url).host
    this.certificate = certificate
    this.tokens = tokens
    this.auth = options.auth ?? { kind: "anonymous" }
    this.clientCa = typeof options.tls === "object" && options.tls.clientCa !== undefined
    this.playing = new Script(options.script ?? [])
  }

  /** Starts a registry. The end of the scope closes its port and destroys every connection. A host without loopback is a defect. */
  static readonly make = (options: TestRegistryOptions = {}): Effect.Effect<TestRegistry, never, Scope.Scope> =>
    Effect.gen(function*() {
      const fork = yield* FiberSet.makeRuntime()
      const tls = options.tls === true ? selfSigned() : options.tls === false ? undefined : options.tls
      let registry: TestRegistry | undefined
      const listen = Effect.suspend(() => listening(tls, (request, response) => {
        if (registry === undefined) return
        const fiber = fork(registry.serve(request, response).pipe(Effect.tapCause((cause) => broken(response, cause))))
        response.on("close", () => fork(Fiber.interrupt(fiber)))
      }))
      const scheme = tls === undefined ? "http" : "https"
      const url = `${scheme}://127.0.0.1:${portOf(yield* listen)}`
      const auth = options.auth ?? { kind: "anonymous" }
      const tokenPort = auth.kind === "bearer" && auth.ownPort === true ? portOf(yield* listen) : undefined
      const tokens = auth.kind === "bearer"
        ? new TokenServer(tokenPort === undefined ? `${url}/token` : `${scheme}://127.0.0.1:${tokenPort}/token`, auth)
        : undefined
      registry = new TestRegistry(url, tls?.cert, tokens, options)
      return registry
    })

  /** Every request so far, in order of arrival, token requests included. */
  get requests(): ReadonlyArray<LoggedRequest> { return this.log }

  /**
   * Requests that carried a secret which is not for this registry, over its whole life: cookies (it sets none), credentials where it
   * asks for none, a user it does not know, a token it did not give out, a password sent to it rather than to its token server, what is
   * a proxy's, and a client certificate where none is needed (over TLS it asks for one, so that it sees who would show it).
   */
  get strangers(): ReadonlyArray<LoggedRequest> { return this.strange }

  /** How often each rule of the script has acted, in the script's order. */
  get runs(): ReadonlyArray<number> { return this.playing.runs }

  /** The most blob requests that were being answered at one time. */
  get peakBlobs(): number { return this.peak }

  /** Makes an image or index, with all it is made of, readable in `repository`: by its digests, and by `tag`. */
  put(repository: string, tag: string | undefined, built: Built): this {
    this.content.put(repository, tag, built)
    return this
  }

  /** Makes one blob readable in `repository`, by its digest (computed unless given: give a wrong one to lie). */
  addBlob(repository: string, body: Body, digest?: Digest): Digest {
    return this.content.addBlob(repository, body, digest)
  }

  /** Makes any bytes readable as a manifest in `repository`, by digest (computed unless given) and by `tag`, with this Content-Type. */
  addManifest(repository: string, tag: string | undefined, raw: Uint8Array, mediaType: string, digest?: Digest): Digest {
    return this.content.addManifest(repository, tag, raw, mediaType, digest)
  }

  /** Forgets a tag, manifest or blob of `repository`; without `name` the whole repository. */
  remove(repository: string, name?: string): void { this.content.remove(repository, name) }

  /** Replaces the faults; their counters begin at 0. Answers that are under way keep theirs. */
  script(rules: ReadonlyArray<Rule>): void { this.playing = new Script(rules) }

  /** Empties the log, and `peakBlobs` with it. */
  forget(): void {
    this.log = []
    this.peak = this.blobs
  }

  /** The logged requests that match; `nth` picks among them. */
  find(match: Match): ReadonlyArray<LoggedRequest> {
    return this.log.filter((entry) => meets(match, entry)).filter((_, at) => picks(match, at + 1))
  }

  /** Waits until `count` requests that match have met the script, those before the call included. Uses no clock. */
  readonly seen = (match: Match, count = 1): Effect.Effect<void> => Effect.callback((resume) => {
    const look = () => {
      if (this.find(match).length < count) return
      this.watchers.delete(look)
      resume(Effect.void)
    }
    this.watchers.add(look)
    look()
    return Effect.sync(() => this.watchers.delete(look))
  })

  private readonly serve = Effect.fnUntraced({ self: this }, function*(this: TestRegistry, request: IncomingMessage, response: ServerResponse) {
    const method = request.method ?? "GET"
    const url = request.url ?? ""
    const named = target(url)
    const headers = Object.fromEntries(Object.entries(request.headersDistinct).map(([name, values]) => [name, (values ?? []).join(", ")]))
    const [path = ""] = url.split("?", 1)
    const { kind, repository, name } = named
    const entry: Entry = { method, url, path, kind, repository, name, headers, range: headers["range"], digest: undefined, status: 0, bytesSent: 0, finished: false }
    this.log.push(entry)
    if (headers["cookie"] !== undefined || shows(request, this.clientCa) || this.isStrange(kind, headers["authorization"])) this.strange.push(entry)
    if (kind === "blob") {
      this.peak = Math.max(this.peak, ++this.blobs)
      response.on("close", () => this.blobs--)
    }
    const text = method === "POST" ? yield* bodyOf(request) : ""
    const refusal = this.refusal(named, headers["authorization"])
    const answer = refusal ?? (kind === "token" && this.tokens !== undefined
      ? this.tokens.answer({ method, query: named.query, headers, body: text })
      : this.content.answer(method, named, headers["accept"] ?? ""))
    entry.digest = answer.digest
    const delivery = deliver(answer, refusal === undefined ? this.playing.take(entry) : [], entry)
    if (delivery.status === 401 && refusal === undefined) this.challenged = true
    delivery.headers["docker-distribution-api-version"] ??= "registry/2.0"
    for (const look of this.watchers) look()
    yield* send(response, delivery, method === "HEAD", entry)
  })

  private isStrange(kind: Kind, authorization: string | undefined): boolean {
    if (authorization === undefined || this.challenged) return false
    const [, token] = /^bearer +(.+)$/i.exec(authorization) ?? []
    if (this.auth.kind === "anonymous") return true
    if (token !== undefined) return this.auth.kind === "basic" || kind === "token" || !(this.tokens?.issued.some((issued) => issued.token === token) ?? false)
    const [user = ""] = basic(authorization) ?? []
    return (this.auth.kind === "bearer" && kind !== "token") || !Object.hasOwn(this.auth.users ?? {}, user)
  }

  /** The 401 for a request without the right credentials. */
  private refusal({ kind, repository }: Target, authorization: string | undefined): Answer | undefined {
    if (this.auth.kind === "anonymous" || kind === "token" || kind === "page") return undefined
    const detail = repository === undefined ? null : [{ Type: "repository", Class: "", Name: repository, Action: "pull" }]
    const refuse = (challenge: string) => error(401, "UNAUTHORIZED", "authentication required", detail, { "www-authenticate": challenge })
    if (this.auth.kind === "basic") {
      const [user = "", password] = basic(authorization) ?? []
      const known = Object.hasOwn(this.auth.users, user) && this.auth.users[user] === password
      return known ? undefined : refuse("Basic realm=\"towline test registry\"")
    }
    const problem = this.tokens?.judge(authorization, repository) ?? ""
    return problem === "" ? undefined : refuse(this.tokens?.challenge(repository, problem === "missing" ? undefined : problem) ?? "")
  }
}

/** A fault of the kit or of what it was given (a file that is gone, a header that cannot be sent): said, not left to hang. */
export const broken = (response: ServerResponse, cause: Cause.Cause<never>): Effect.Effect<void> => Effect.sync(() => {
  if (response.headersSent || Cause.hasInterruptsOnly(cause)) response.destroy()
  else response.writeHead(500, { "content-type": "text/plain; charset=utf-8" }).end(`test kit: ${Cause.pretty(cause)}\n`)
})

/** Whether a request shows what is for nobody here: a proxy's credentials, or a client certificate where none is `wanted`. */
export const shows = ({ headers, socket }: IncomingMessage, wanted: boolean): boolean =>
  headers["proxy-authorization"] !== undefined || (!wanted && socket instanceof TLSSocket && Object.keys(socket.getPeerCertificate()).length > 0)

/** A server on a loopback port of its own, until the scope ends. */
export const listening = (tls: { readonly key: string; readonly cert: string; readonly clientCa?: string } | undefined, listener: RequestListener) => {
  const sockets = new Set<Socket>() // also those that never got as far as a request
  return Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      const server: Server = tls === undefined
        ? createServer(listener)
        : createTlsServer({ key: tls.key, cert: tls.cert, requestCert: true, ...tls.clientCa === undefined ? { rejectUnauthorized: false } : { ca: tls.clientCa } }, listener)
      server.keepAliveTimeout = 60_000
      server.requestTimeout = 0
      server.on("connection", (socket: Socket) => {
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket))
      })
      server.on("error", (cause) => resume(Effect.die(cause)))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
      for (const socket of sockets) socket.destroy()
    })
  )
}
