import { Effect, Fiber, FiberSet, type Scope } from "effect"
import { randomUUID } from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { deliver, json, type Answer, type Headers } from "../server/Answer.ts"
import { selfSigned } from "../server/Certificate.ts"
import { meets, picks, Script, type Match, type Rule } from "../server/Fault.ts"
import type { V1Image } from "./LegacyImage.ts"
import { send, type Progress } from "../server/Send.ts"
import * as Source from "../Source.ts"
import { broken, listening, portOf, shows, type LoggedRequest } from "../server/TestRegistry.ts"
import { basic } from "../server/TokenServer.ts"
import { target, V1Content, type V1Forms, type V1Target } from "./V1Content.ts"

/** How a v1 server is started. What is left out is as docker's own registry of 2014 did it, without any accounts. */
export interface V1ServerOptions extends V1Forms {
  /**
   * `standalone`: index and registry in one; `index`: only lists images and names `registries`; `registry`: has no list; `storage`:
   * serves what its registries redirect to. Default: standalone.
   */
  readonly role?: "standalone" | "index" | "registry" | "storage"
  /** X-Docker-Endpoints of an index, in order: servers of the kit, which then hold what is put here and take its tokens, or any text. */
  readonly registries?: ReadonlyArray<V1Server | string>
  /** Where layers are redirected to, by an address with a signature. It refuses any Authorization or Cookie. */
  readonly storage?: V1Server
  /** User name to password; with any, the index asks for Basic. */
  readonly users?: Readonly<Record<string, string>>
  /**
   * Whether tokens are handed out and asked for. `prefixed`: after the word Token; `twice`: two at a time, both asked for;
   * `single`: good for one request, after which a session cookie does. Default: none, and `plain` with users.
   */
  readonly tokens?: "none" | "plain" | "prefixed" | "twice" | "single"
  /** X-Docker-Registry-Standalone of `_ping`; null: no such header. Default: what `role` says. */
  readonly standaloneHeader?: string | null
  /** The form of error bodies. Default: json, `{"error":".."}`. */
  readonly errors?: "json" | "string" | "text" | "html"
  /** What `/v2/` and everything below is answered with, to show that v2 is absent. Default: 404. */
  readonly v2?: number
  /** HTTPS with a certificate made on the spot, or with yours (PEM). With `clientCa` a client must show a certificate that this one signed. */
  readonly tls?: boolean | { readonly key: string; readonly cert: string; readonly clientCa?: string }
  /** The faults to begin with; `script` replaces them. */
  readonly script?: ReadonlyArray<Rule>
}

type Entry = LoggedRequest & Progress & { digest: string | undefined }

/**
 * An in-process server of the Docker Registry API before 2.0 over real HTTP on a loopback port of its own, for pulls: an index, a
 * registry, both, or the storage behind one. Everything in it can be changed while it serves, and every request is logged.
 */
export class V1Server {
  /** `127.0.0.1:PORT`, as it stands in a reference. */
  readonly host: string
  /** `http://127.0.0.1:PORT`, or `https:`. */
  readonly url: string
  /** The PEM certificate it serves with: what a client must trust. undefined without TLS. */
  readonly certificate: string | undefined
  private readonly options: V1ServerOptions
  private readonly content: V1Content
  private log: Array<Entry> = []
  private playing: Script
  private readonly tokens = new Set<string>()
  private readonly sessions = new Set<string>()
  /** Every token and cookie that was ever given out for this server. */
  private readonly issued = new Set<string>()
  private readonly strange: Array<LoggedRequest> = []

  private constructor(url: string, certificate: string | undefined, options: V1ServerOptions) {
    this.url = url
    this.host = new URL(url).host
    this.certificate = certificate
    this.options = options
    this.content = new V1Content(options)
    this.playing = new Script(options.script ?? [])
  }

  /** Starts a server. The end of the scope closes its port and destroys every connection. */
  static readonly make = (options: V1ServerOptions = {}): Effect.Effect<V1Server, never, Scope.Scope> => Effect.gen(function*() {
    const fork = yield* FiberSet.makeRuntime()
    const tls = options.tls === true ? selfSigned() : options.tls === false ? undefined : options.tls
    let made: V1Server | undefined
    const listener = yield* listening(tls, (request, response) => {
      if (made === undefined) return
      const fiber = fork(made.serve(request, response).pipe(Effect.tapCause((cause) => broken(response, cause))))
      response.on("close", () => fork(Fiber.interrupt(fiber)))
    })
    made = new V1Server(`${tls === undefined ? "http" : "https"}://127.0.0.1:${portOf(listener)}`, tls?.cert, options)
    return made
  })

  /** Every request so far, in order of arrival. */
  get requests(): ReadonlyArray<LoggedRequest> { return this.log }

  /**
   * Requests that carried a secret which is not for this server, over its whole life: a user it does not know, a password where only
   * tokens are taken, a token or cookie that was not given out for it, what is a proxy's, and a client certificate where none is needed.
   */
  get strangers(): ReadonlyArray<LoggedRequest> { return this.strange }

  /** How often each rule of the script has acted. */
  get ruleRuns(): ReadonlyArray<number> { return this.playing.runs }

  /** Puts a chain of images, base first, here, at the registries of an index and in the storage; `tag` names the last. */
  put(repository: string, tag: string | undefined, images: ReadonlyArray<V1Image>): this {
    this.content.put(repository, tag, images)
    for (const other of [...this.options.registries ?? [], this.options.storage]) if (other instanceof V1Server) other.put(repository, tag, images)
    return this
  }

  /** Replaces the faults; their counters begin at 0. */
  script(rules: ReadonlyArray<Rule>): void { this.playing = new Script(rules) }

  /** Empties the log. */
  forget(): void { this.log = [] }

  /** From now on every token and session cookie given out so far is refused here. */
  revoke(): void {
    this.tokens.clear()
    this.sessions.clear()
  }

  /** The logged requests that match; `nth` picks among them. */
  find(match: Match): ReadonlyArray<LoggedRequest> {
    return this.log.filter((entry) => meets(match, entry)).filter((_, at) => picks(match, at + 1))
  }

  private readonly serve = Effect.fnUntraced({ self: this }, function*(this: V1Server, request: IncomingMessage, response: ServerResponse) {
    const url = request.url ?? ""
    const named = target(url)
    const headers = Object.fromEntries(Object.entries(request.headersDistinct).map(([name, values]) => [name, (values ?? []).join(", ")]))
    const [path = ""] = url.split("?", 1)
    const method = request.method ?? "GET"
    const entry: Entry = { ...named, method, url, path, headers, range: headers["range"], digest: undefined, status: 0, bytesSent: 0, finished: false }
    this.log.push(entry)
    const { tls } = this.options
    if (shows(request, typeof tls === "object" && tls.clientCa !== undefined) || this.isStrange(headers)) this.strange.push(entry)
    const refusal = this.refusal(named, headers)
    const answer = refusal ?? this.answer(named, path, headers)
    const delivery = deliver(answer, refusal === undefined ? this.playing.take(entry) : [], entry)
    yield* send(response, delivery, method === "HEAD", entry)
  })

  private answer(named: V1Target, path: string, headers: Readonly<Record<string, string>>): Answer {
    const { kind, name = "", repository } = named
    const { registries, role = "standalone", storage } = this.options
    if (path.startsWith("/v2/")) return this.error(this.options.v2 ?? 404, "page not found")
    if (kind === "ping") {
      const said = this.options.standaloneHeader === undefined ? String(role === "standalone") : this.options.standaloneHeader
      return json(200, true, { "x-docker-registry-version": "0.9.1", ...said !== null && { "x-docker-registry-standalone": said } })
    }
    const mine = role === "storage" ? kind === "storage" : kind === "images" ? role !== "registry" : kind !== "storage" && role !== "index"
    const found = mine ? this.content.answer(named) : undefined
    if (found === undefined) return this.error(404, kind === "tags" && name !== "" ? "Tag not found" : kind === "images" ? "no such repository" : "Image not found")
    const cookies = this.session(headers)
    if (kind === "layer" && storage !== undefined) {
      return { ...found, status: 302, headers: { location: `${storage.url}/storage/${name}?Expires=1448057600&Signature=a%2Bb%3D`, ...cookies }, body: Source.bytes(new Uint8Array()), ranges: false }
    }
    if (kind !== "images") return { ...found, headers: { ...found.headers, ...cookies } }
    const grant: Headers = headers["x-docker-token"] === "true" && this.mode !== "none" ? { "x-docker-token": this.grant(repository ?? "") } : {}
    const endpoints: Headers = registries === undefined ? {} : { "x-docker-endpoints": registries.map((one) => typeof one === "string" ? one : one.host).join(", ") }
    return { ...found, headers: { ...found.headers, ...grant, ...endpoints } }
  }

  private isStrange({ authorization, cookie = "" }: Readonly<Record<string, string>>): boolean {
    const { role = "standalone", users = {} } = this.options
    const [, token] = /^Token (.+)$/.exec(authorization ?? "") ?? []
    const [user = ""] = basic(authorization) ?? []
    const known = token === undefined ? role !== "registry" && role !== "storage" && Object.hasOwn(users, user)
      : token.split(/,(?=signature=)/).every((one) => this.issued.has(one))
    return (authorization !== undefined && !known) || (cookie !== "" && !cookie.split("; ").every((one) => this.issued.has(one)))
  }

  private get mode() { return this.options.tokens ?? (this.options.users === undefined ? "none" : "plain") }

  /** A new token, known to the registries too. */
  private grant(repository: string): string | ReadonlyArray<string> {
    const make = () => {
      const token = `signature=${randomUUID().replaceAll("-", "")},repository="${repository}",access=read`
      for (const one of [this, ...this.options.registries ?? []]) if (one instanceof V1Server) {
        one.tokens.add(token)
        one.issued.add(token)
      }
      return token
    }
    const { mode } = this
    return mode === "twice" ? [make(), make()] : mode === "prefixed" ? `Token ${make()}` : make()
  }

  /** The cookie that takes over from a token which is good for one request; its value is as awkward as real ones. */
  private session(headers: Readonly<Record<string, string>>): Headers {
    if (this.mode !== "single" || headers["authorization"] === undefined) return {}
    const value = `"${randomUUID()}?a=b&c=d,e"`
    this.sessions.add(value)
    this.issued.add(`session=${value}`)
    return { "set-cookie": [`session=${value}; Path=/v1/; HttpOnly`, "gone=; Max-Age=0"] }
  }

  /** The answer to a request without the right credentials; undefined: it may go on. */
  private refusal({ kind, repository }: V1Target, headers: Readonly<Record<string, string>>): Answer | undefined {
    const { authorization, cookie } = headers
    const { role = "standalone", users } = this.options
    if (kind === "storage") return authorization === undefined && cookie === undefined ? undefined : this.error(400, "Only one auth mechanism allowed")
    if (kind === "ping" || kind === "page") return undefined
    const unauthorized = (challenge: string) => this.error(401, "Requires authorization", { "www-authenticate": challenge })
    const [user = "", password] = basic(authorization) ?? []
    const known = users !== undefined && Object.hasOwn(users, user) && users[user] === password
    if (kind === "images") return users === undefined || known ? undefined : unauthorized(`Basic realm="Registry",Token`)
    if (this.mode === "none" || role === "standalone" && known && this.url.startsWith("https:")) return undefined
    if (/(?:^|; )session=([^;]+)/.exec(cookie ?? "")?.slice(1).some((value) => this.sessions.has(value))) return undefined
    const [, sent = ""] = /^Token (.+)$/.exec(authorization ?? "") ?? []
    const given = sent.split(/,(?=signature=)/)
    const good = given.every((token) => this.tokens.has(token) && (repository === undefined || token.includes(`repository="${repository}"`))) && given.length === (this.mode === "twice" ? 2 : 1)
    if (good && this.mode === "single") for (const token of given) this.tokens.delete(token)
    return good ? undefined : unauthorized("Token")
  }

  private error(status: number, message: string, headers: Headers = {}): Answer {
    const { errors = "json" } = this.options
    if (errors === "json") return json(status, { error: message }, headers)
    if (errors === "string") return json(status, message, headers)
    const [type, body] = errors === "html" ? ["text/html", `<html><body><h1>${status} ${message}</h1></body></html>\n`] as const : ["text/plain", `${message}\n`] as const
    return { status, headers: { "content-type": `${type}; charset=utf-8`, ...headers }, body: Source.bytes(Buffer.from(body)), digest: undefined, ranges: false }
  }
}
