import { Context, Effect, Layer, Result, type Scope, Stream } from "effect"
import { createHash } from "node:crypto"
import { Descriptor, VerifyError } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import { accept } from "../image/MediaType.ts"
import { printable } from "../image/Printable.ts"
import * as Auth from "./auth/Auth.ts"
import { bounded, collect } from "./answer/Body.ts"
import * as Coding from "./answer/Coding.ts"
import type { Credentials } from "./auth/Credentials.ts"
import { contentOf } from "./answer/Contents.ts"
import { RegistryOptions } from "./route/Endpoint.ts"
import * as Foreign from "./route/Foreign.ts"
import { holdsFrom } from "./answer/Range.ts"
import { AnswerRefused, NetworkError, NotFound, type RegistryFailure } from "./Errors.ts"
import * as Protocol from "./route/Protocol.ts"
import * as Ping from "./route/Ping.ts"
import { lowLimit } from "./Politeness.ts"
import { problem, refusal } from "./answer/Refusal.ts"
import * as RetryPolicy from "./RetryPolicy.ts"
import { direct, type Repository, type Route, Routes, urlOf } from "./route/Route.ts"
import * as TagList from "./answer/TagList.ts"
import { type Answer, Transport } from "./Transport.ts"
import * as Walk from "./route/Walk.ts"

export type { Repository } from "./route/Route.ts"

/** A manifest exactly as sent: its bytes, their digest (of the algorithm asked for, else sha256; of a schema1 manifest that of its payload), Content-Type without parameters, and the endpoint that sent it (`https://host:port`). */
export interface ManifestAnswer {
  readonly raw: Uint8Array
  readonly contentType: string | undefined
  readonly digest: Digest.Digest
  readonly endpoint: string
  /** The route it came by (`Route.urlOf`), and where the credentials that were sent come from, or "anonymous". */
  readonly route?: string
  readonly credentials?: string
}

/** A blob's bytes on their way: the first belongs at offset `from`. At most one byte more than the descriptor's size comes. */
export interface BlobAnswer {
  readonly from: number
  readonly body: Stream.Stream<Uint8Array, NetworkError>
  /** What the server calls these bytes (a strong ETag), and the URL it was asked at. */
  readonly validator?: Validator | undefined
  /** To be run when the blob turns out damaged. true: it came from a mirror, which is left out from now on, and another is asked. */
  readonly distrust?: Effect.Effect<boolean>
}

/** By what a blob's bytes are continued only while they still are the same (RFC 9110, 13.1.5): their ETag, where it was asked for. */
export interface Validator {
  readonly etag: string
  readonly from: string
}

/** The longest manifest that is read, in bytes. */
export const manifestCap = 4 << 20

/** A v2/OCI registry client (distribution-spec 1.1, "Pull"). Each request goes to the first of the repository's routes that answers it. */
export class Registry extends Context.Service<Registry, {
  /** The manifest of a tag or digest, schema1 only where there is no other, at most 4 MiB, checked against the digest asked for and Docker-Content-Digest. Retries by itself. */
  readonly manifest: (repository: Repository, ref: string) => Effect.Effect<ManifestAnswer, RegistryFailure>
  /**
   * One GET of a blob from offset `from` (an expired token is renewed), of the bytes that `validator` names if it is asked for there again.
   * The answer's `from` is 0 where the server did not honour the range. Errors of the body are transient `NetworkError`s. A `VerifyError` before any byte: the registry has another size for it.
   */
  readonly blob: (repository: Repository, blob: Descriptor, from: number, validator?: Validator) => Effect.Effect<BlobAnswer, RegistryFailure, Scope.Scope>
  /** All tags, in the registry's order, read page by page (distribution-spec, "Listing Tags"). `NotFound` of the repository where it has none. Retries by itself. */
  readonly tags: (repository: Repository) => Effect.Effect<ReadonlyArray<string>, RegistryFailure>
  /** How many bytes a blob has, asked for by HEAD, else by a GET of its first byte: schema1 manifests do not say. Retries by itself. */
  readonly size: (repository: Repository, digest: Digest.Digest) => Effect.Effect<number, RegistryFailure>
  /** The routes to a repository in the order they are tried, and why one is left out now. */
  readonly routes: Walk.Walk["routes"]
  /** The names that a name without a registry may stand for by the configuration, in the order they are tried. */
  readonly names: Routes["names"]
  /** Hears what users should know, such as that a mirror is left out, until the scope closes; it stays left out for that time. */
  readonly listen: Walk.Walk["listen"]
  /**
   * Where a repository's registry may speak either protocol, in the order of `Protocol.endpoints`: at the last of its routes, by the
   * schemes that are allowed there. No v1 where that route has a path of its own.
   */
  readonly endpoints: (repository: Repository, mode: Protocol.Mode) => Effect.Effect<ReadonlyArray<Protocol.Endpoint>, RegistryFailure>
  /** How one of a repository's endpoints (`https://host`) answers the v2 ping; asked once, without credentials. */
  readonly ping: (repository: Repository, origin: string) => Effect.Effect<Ping.Pinged, RegistryFailure>
}>()("registry/Registry") {
  /** Keeps per host which scheme answered and what was granted; `RegistryOptions` and `Limits` are read when it is built. */
  static readonly layer: Layer.Layer<Registry, never, Transport | Credentials> = Layer.effect(Registry, Effect.suspend(() => make))
}

/** The `host` that answered at `endpoint`, and how to say who asked. */
interface Reached { readonly answer: Answer; readonly endpoint: string; readonly credentials: string }

/** What is said of a manifest that may have been cut on its way: no digest tells. */
const unreadable = "it is no JSON document, and nothing says what its digest is"

/** A number of bytes as headers write it. */
const naturalOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined

const digestOf = (algorithm: "sha256" | "sha512", raw: Uint8Array) => Digest.Digest.make(`${algorithm}:${createHash(algorithm).update(raw).digest("hex")}`)

const make = Effect.gen(function*() {
  const transport = yield* Transport
  const auth = yield* Auth.make
  const { names, of } = yield* Routes
  const options = yield* RegistryOptions
  const limits = yield* RetryPolicy.Limits
  const spoken = new Map<string, "https" | "http">()

  /** A route as it is known by now: with the scheme that its host has spoken. */
  const known = (route: Route): Route => {
    const scheme = spoken.get(route.host)
    return scheme === undefined || !route.schemes.includes(scheme) ? route : { ...route, schemes: [scheme] }
  }
  const walk = yield* Walk.make(known)

  /** One request, and what its 401s take: the last answer, whatever it is. */
  const authorized = Effect.fnUntraced(function*(route: Route, origin: string, path: string, headers: Readonly<Record<string, string>>, head: boolean) {
    const wanted: Auth.Wanted = { origin, domain: route.domain, path: route.path, prefix: route.prefix, tls: route.tls }
    const url = `${origin}${path}${route.query === "" ? "" : path.includes("?") ? "&" : "?"}${route.query}`
    let grant = yield* auth.known(wanted)
    for (let fresh = 0;; fresh++) {
      const answer = yield* transport.send({ url, headers, authorization: grant?.header, tls: route.tls, own: route.headers, ...head && { method: "HEAD" } })
      if (answer.status !== 401 || answer.moved) return { answer, endpoint: origin, credentials: grant?.credentials ?? "anonymous" }
      grant = yield* auth.answer(wanted, answer, grant, fresh)
    }
  })

  /** The path of something in a repository. */
  const pathTo = (route: Route, rest: string) => `${route.prefix}/${route.path}/${rest}`

  /** The same by the scheme that answered before, else https, else http where that is allowed and https was not understood. */
  const request = Effect.fnUntraced(function*(
    route: Route, path: string, headers: Readonly<Record<string, string>>, head = false
  ): Effect.fn.Return<Reached, RegistryFailure, Scope.Scope> {
    const { host, schemes } = route
    const past = spoken.get(host)
    const allowed = past === undefined || !schemes.includes(past) ? schemes : [past]
    const by = (scheme: "https" | "http") => Effect.tap(authorized(route, `${scheme}://${host}`, path, headers, head), () =>
      Effect.sync(() => { spoken.set(host, scheme) }))
    if (!allowed.includes("http") || !allowed.includes("https")) return yield* by(allowed[0] ?? "https")
    const first = yield* Effect.result(by("https"))
    if (Result.isSuccess(first)) return first.success
    const error = first.failure
    if (error._tag !== "NetworkError" || error.host !== host || !Protocol.isDeaf(error)) return yield* error
    // A mirror that is silent costs one wait, not two.
    if (route.mirror && error.reason === "timeout") return yield* error
    return yield* Effect.mapError(by("http"), (second) =>
      error.reason !== "plain-http" && second._tag === "NetworkError" && second.reason === "refused" ? error : second)
  })

  /** Whether a registry says that it has no such repository at all. For a manifest many only say that it is not there. */
  const lacks = (route: Route) => request(route, pathTo(route, "tags/list?n=1"), {}).pipe(
    Effect.flatMap(({ answer }) => answer.status === 404 ? Effect.map(problem(answer, limits), ({ codes }) => codes.includes("NAME_UNKNOWN")) : Effect.succeed(false)),
    Effect.orElseSucceed(() => false),
    Effect.scoped
  )

  const manifestOnce = Effect.fnUntraced(function*(repository: Repository, route: Route, ref: string) {
    const { answer, endpoint, credentials } = yield* request(route, pathTo(route, `manifests/${ref}`), { accept })
    const { host } = answer
    if (answer.status !== 200) {
      const error = yield* Effect.flip(refusal(answer, { what: "manifest", repository: repository.path, name: ref, credentials }, limits))
      return yield* error._tag === "NotFound" && error.what === "manifest" && (yield* lacks(route)) ? new NotFound({ ...error, what: "repository" }) : error
    }
    const low = lowLimit(answer.headers)
    if (low !== undefined) yield* walk.tell(repository, `limit of ${host}`, `${host} allows ${low} before it refuses; log in for a higher limit`)
    const refuse = (rule: string) => new AnswerRefused({ host, subject: `the manifest ${ref} of ${repository.path}`, rule })
    const contentType = answer.headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
    if (contentType === "text/html" || contentType === "application/xhtml+xml") return yield* refuse("it is an HTML page, not a manifest")
    const coding = Coding.codingOf(answer.headers["content-encoding"])
    if (Result.isFailure(coding)) return yield* refuse(`its Content-Encoding ${printable(coding.failure)} is unknown`)
    const sent = yield* collect(answer.body, manifestCap)
    if (sent === undefined) return yield* refuse(`it is longer than ${manifestCap} bytes`)
    const raw = coding.success === undefined ? sent : Coding.undo(sent, coding.success, manifestCap)
    if (raw === undefined) return yield* refuse(`it is not ${coding.success}, as its Content-Encoding says, or longer than ${manifestCap} bytes`)
    if (raw.byteLength === 0) return yield* refuse("it is empty")
    const content = yield* Effect.mapError(Effect.fromResult(contentOf(raw, contentType)), refuse)
    const digest = digestOf(Digest.is(ref) ? Digest.parts(ref).algorithm : "sha256", content)
    const claimed = answer.headers["docker-content-digest"]?.trim()
    if (!Digest.is(ref) && !Digest.is(claimed) && Result.isFailure(Result.try((): unknown => JSON.parse(new TextDecoder().decode(raw))))) return yield* refuse(unreadable)
    for (const expected of [ref, claimed]) {
      if (!Digest.is(expected)) continue
      const actual = digestOf(Digest.parts(expected).algorithm, content)
      if (actual === expected) continue
      const size = content.byteLength
      return yield* new VerifyError({ expected: new Descriptor({ mediaType: contentType ?? "", digest: expected, size }), size, actual })
    }
    return { raw, contentType, digest, endpoint, route: urlOf(known(route)), credentials }
  }, Effect.scoped)

  /** The route to what stands for the registry itself. */
  const lastOf = (repository: Repository) => Effect.map(of(repository, options), (routes) => routes.at(-1) ?? direct(repository, options.insecure))

  /** Tries again where nobody else can be asked; what a mirror does not give, the next may. */
  const patiently = (route: Route) => <A, R>(self: Effect.Effect<A, RegistryFailure, R>) => route.mirror ? self : Effect.retry(self, RetryPolicy.transient)

  const manifest = Effect.fn("Registry.manifest")((repository: Repository, ref: string) =>
    walk.first(repository, Digest.is(ref) ? "content" : "tags", (route) => manifestOnce(repository, route, ref).pipe(
      patiently(route),
      Effect.retry({ schedule: RetryPolicy.damaged, while: (error) => !route.mirror && (error._tag === "VerifyError" || (error._tag === "AnswerRefused" && error.rule === unreadable)) })
    )))

  /** What an answer calls its bytes, where that is a strong validator. */
  const validatorOf = (from: string, answer: Answer): Validator | undefined => {
    const etag = answer.headers["etag"]?.trim()
    return etag !== undefined && etag.length <= 1024 && /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag) ? { etag, from } : undefined
  }

  const blob = Effect.fn("Registry.blob")((repository: Repository, blob: Descriptor, from: number, validator?: Validator) => {
    const urls = repository.foreign?.[blob.digest]
    const found = walk.first(repository, "content", (route) => Effect.map(blobAt(repository, route, blob, from, validator), (answer): BlobAnswer => ({
      ...answer, body: Stream.tapError(answer.body, (error) => walk.broke(repository, route, error)), distrust: walk.distrust(repository, route)
    })))
    return urls === undefined ? found : Effect.catchTag(found, "NotFound", (error) =>
      options.foreign === true ? Foreign.blob(urls, blob, from, error, { transport, limits }) : Effect.fail(new NotFound({ ...error, foreign: true })))
  })

  const blobAt = Effect.fnUntraced(function*(
    repository: Repository, route: Route, blob: Descriptor, from: number, known: Validator | undefined
  ): Effect.fn.Return<Omit<BlobAnswer, "distrust">, RegistryFailure, Scope.Scope> {
    const at = urlOf(route)
    const get = (headers: Readonly<Record<string, string>>) => request(route, pathTo(route, `blobs/${blob.digest}`), { accept: "*/*", ...headers })
    const ranged = from === 0 ? undefined : yield* get({ range: `bytes=${from}-`, ...known?.from === at && { "if-range": known.etag } })
    if (ranged?.answer.status === 206 && holdsFrom(ranged.answer, from, blob.size))
      return { from, validator: validatorOf(at, ranged.answer), body: bounded(ranged.answer.body, blob.size - from, limits.settle) }
    // Whatever else a range request gives but 200 or a refusal, is not continued: it is asked again for the whole.
    const restart = ranged !== undefined && (ranged.answer.status === 206 || ranged.answer.status === 416)
    if (restart) yield* ranged.answer.close
    const { answer, credentials } = ranged === undefined || restart ? yield* get({}) : ranged
    if (answer.status === 206 && !holdsFrom(answer, 0, blob.size))
      return yield* new NetworkError({ host: answer.host, reason: "protocol", transient: true, phase: "headers", status: 206, detail: "it sent a part that was not asked for" })
    if (answer.status !== 200 && answer.status !== 206)
      return yield* refusal(answer, { what: "blob", repository: repository.path, name: blob.digest, credentials }, limits)
    const length = answer.headers["content-length"]
    const coding = Coding.codingOf(answer.headers["content-encoding"])
    // The type of a gzipped layer is often sent as its coding: where the length is the blob's, the bytes are the blob.
    const plain = Result.isSuccess(coding) && coding.success === undefined || Number(length) === blob.size && length !== undefined
    if (plain) {
      // It is asked a second time and still has another size: no cut body, but another blob.
      if (restart && length !== undefined && Number(length) !== blob.size) {
        yield* answer.close
        return yield* new VerifyError({ expected: blob, size: Math.min(Number(length), Number.MAX_SAFE_INTEGER) })
      }
      return { from: 0, validator: validatorOf(at, answer), body: bounded(answer.body, blob.size, limits.settle) }
    }
    if (Result.isFailure(coding)) {
      yield* answer.close
      return yield* new AnswerRefused({ host: answer.host, subject: `the blob ${blob.digest}`, rule: `its Content-Encoding ${printable(coding.failure)} is unknown` })
    }
    if (coding.success === undefined) return { from: 0, body: bounded(answer.body, blob.size, limits.settle) }
    return { from: 0, body: bounded(Coding.undone(answer.body, coding.success, answer.host), blob.size, limits.settle) }
  })

  const tagsOnce = Effect.fnUntraced(function*(repository: Repository, route: Route) {
    const path = pathTo(route, "tags/list")
    const found = new Set<string>()
    let next: string | undefined = path
    for (let page = 0; next !== undefined; page++) {
      const { answer, credentials, endpoint }: Reached = yield* request(route, next, { accept: "application/json" })
      const refuse = (rule: string) => new AnswerRefused({ host: answer.host, subject: `the tags of ${repository.path}`, rule })
      if (answer.status !== 200) return yield* refusal(answer, { what: "repository", repository: repository.path, name: "", credentials }, limits)
      if (page === TagList.maximumPages) return yield* refuse(`it has more than ${page} pages`)
      const raw = yield* collect(answer.body, TagList.pageCap)
      if (raw === undefined) return yield* refuse(`it is longer than ${TagList.pageCap} bytes`)
      const before = found.size
      for (const tag of yield* Effect.mapError(Effect.fromResult(TagList.decode(Coding.readable(raw, answer.headers["content-encoding"], TagList.pageCap))), refuse)) found.add(tag)
      next = yield* Effect.mapError(Effect.fromResult(TagList.nextPage(answer.headers["link"], endpoint, path)), refuse)
      if (next !== undefined && found.size === before) return yield* refuse("a page with another after it has no new tag")
    }
    return [...found]
  }, Effect.scoped)

  const sizeOnce = Effect.fnUntraced(function*(repository: Repository, route: Route, digest: Digest.Digest) {
    const path = pathTo(route, `blobs/${digest}`)
    const subject = { what: "blob", repository: repository.path, name: digest } as const
    const head = yield* request(route, path, { accept: "*/*" }, true)
    const said = head.answer.headers["content-length"]
    const told = head.answer.status === 200 && (head.answer.headers["content-encoding"] ?? "identity") === "identity" && !head.answer.headers["content-type"]?.startsWith("text/html")
    if (told && naturalOf(said) !== undefined) return naturalOf(said) ?? 0
    // Some know no HEAD, some tell no length, and storage often refuses a HEAD by an address signed for GET.
    const { answer, credentials } = yield* request(route, path, { accept: "*/*", range: "bytes=0-0" })
    const refuse = (rule: string) => new AnswerRefused({ host: answer.host, subject: `the size of the blob ${digest}`, rule })
    if (answer.status !== 200 && answer.status !== 206 && answer.status !== 416) return yield* refusal(answer, { ...subject, credentials }, limits)
    yield* answer.close
    const [, range, total] = /^bytes (0-0|\*)\/(\d+)$/i.exec(answer.headers["content-range"]?.trim() ?? "") ?? []
    if (answer.status === 200) return naturalOf(answer.headers["content-encoding"] === undefined ? answer.headers["content-length"] : undefined) ?? (yield* refuse("no Content-Length tells it"))
    return naturalOf((range === "*") === (answer.status === 416) ? total : undefined) ?? (yield* refuse("its Content-Range does not tell it"))
  }, Effect.scoped)

  return Registry.of({
    manifest, blob, names,
    routes: (repository) => Effect.map(walk.routes(repository), (all) => all.map(({ aside, route }) => ({ aside, route: known(route) }))),
    listen: walk.listen,
    endpoints: (repository, mode) => Effect.map(lastOf(repository), ({ host, prefix, schemes }) =>
      Protocol.endpoints({ domain: host, mode, insecure: schemes.includes("http") ? [host] : [], legacy: prefix === "/v2" })),
    ping: (repository, origin) => Effect.flatMap(lastOf(repository), ({ tls }) => Effect.provideService(Ping.v2(origin, tls), Transport, transport)),
    tags: Effect.fn("Registry.tags")((repository: Repository) => walk.first(repository, "tags", (route) => patiently(route)(route.mirror ? tagsOnce(repository, route) : Effect.retry(tagsOnce(repository, route), RetryPolicy.unread)))),
    size: Effect.fn("Registry.size")((repository: Repository, digest: Digest.Digest) =>
      walk.first(repository, "content", (route) => patiently(route)(sizeOnce(repository, route, digest))))
  })
})
