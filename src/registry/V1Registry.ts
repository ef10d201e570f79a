import { Context, Effect, Layer, Result, type Scope, type Stream } from "effect"
import * as GoText from "../image/v1/go/GoText.ts"
import * as V1Image from "../image/v1/V1Image.ts"
import { printable } from "../image/Printable.ts"
import { bounded, collect } from "./answer/Body.ts"
import * as Coding from "./answer/Coding.ts"
import { Credentials } from "./auth/Credentials.ts"
import { hubNames, RegistryOptions } from "./route/Endpoint.ts"
import { AnswerRefused, NetworkError, type RegistryFailure } from "./Errors.ts"
import { isDeaf } from "./route/Protocol.ts"
import { refusal, type Subject } from "./answer/Refusal.ts"
import * as RetryPolicy from "./RetryPolicy.ts"
import { direct, type Repository, Routes } from "./route/Route.ts"
import { type Answer, Transport } from "./Transport.ts"
import * as Access from "./v1/Access.ts"
import * as Documents from "./v1/Documents.ts"
import * as Endpoints from "./v1/Endpoints.ts"
import * as LayerRange from "./v1/LayerRange.ts"

/** A v1 index that answered, and whether it is a registry too (then there is no other). */
export interface V1Index {
  /** Scheme and host. */
  readonly url: string
  readonly standalone: boolean
}

/** An image's json: the bytes as sent, the layer's size as stored (undefined: not told), and the payload checksums of which one must be right. */
export interface V1Json {
  readonly raw: Uint8Array
  readonly size: number | undefined
  /** Each `sha256:` and hex, over the json, a new line and the layer as stored. Empty: none was given. */
  readonly payloadChecksums: ReadonlyArray<string>
}

/** A layer's bytes on their way: the first belongs at offset `from`. */
export interface V1Layer {
  readonly from: number
  /** Bytes of the whole layer, if known: at most one more comes. If not, the reader must set a limit. */
  readonly total: number | undefined
  /** Whether a lost body can be continued by a request from an offset: else it begins again at 0. */
  readonly resumable: boolean
  /** For `Part.etag` of the next request. */
  readonly etag: string | undefined
  readonly body: Stream.Stream<Uint8Array, NetworkError>
}

/** One registry of a session. What it answers is only good with other answers of the same one. */
export interface V1Endpoint {
  /** Scheme and host; of a mirror also the path before `/v1`. */
  readonly url: string
  /** Whether it stands in for the hub's registries, without its token. Its failures are passed over. */
  readonly mirror: boolean
  /** What put it there, and whether its certificate is checked. */
  readonly why: string
  readonly verified: boolean
  /** `images/ID/ancestry`: the image's chain of IDs, itself first, the base last. Retries by itself. */
  readonly ancestry: (id: string) => Effect.Effect<ReadonlyArray<string>, RegistryFailure>
  /** `images/ID/json`, also checked to be an image's json with this ID. Retries by itself. */
  readonly json: (id: string) => Effect.Effect<V1Json, RegistryFailure>
  /**
   * One GET of `images/ID/layer`, from `part.from` on where that is more than 0 and the size is known. The answer's `from` is 0 where
   * the server did not continue exactly there. Retry it by `RetryPolicy.legacyLayer`, counted afresh when bytes came.
   */
  readonly layer: (id: string, part: LayerRange.Part) => Effect.Effect<V1Layer, RegistryFailure, Scope.Scope>
}

/** A repository of a v1 registry, opened: its token and cookies live with it. */
export interface V1Session {
  readonly index: V1Index
  /** The index's list, in its order. */
  readonly images: ReadonlyArray<Documents.ListedImage>
  /** Where the credentials that the index was shown come from, or "anonymous". */
  readonly credentials: string
  /** What goes with requests by now: a token of the index, the credentials themselves, or nothing. */
  readonly grant: () => "token" | "basic" | "none"
  /** The registries that have it, in the order they are tried; before the hub's its mirrors, which are asked for images alone. */
  readonly endpoints: ReadonlyArray<V1Endpoint>
  /** All tags and the images they name, of the first endpoint that tells. */
  readonly tags: Effect.Effect<ReadonlyMap<string, string>, RegistryFailure>
  /** The image a tag names, as the first endpoint that knows the repository says: `NotFound` is final. */
  readonly tag: (name: string) => Effect.Effect<string, RegistryFailure>
  /**
   * `use` with each endpoint in turn until it succeeds, or fails with an error that no other endpoint can help (`final`). If none does:
   * the last failure that is not the network's, else a `NetworkError` that tells all of them.
   */
  readonly first: <A, E extends { readonly _tag: string }, R>(
    use: (endpoint: V1Endpoint) => Effect.Effect<A, E | RegistryFailure, R>, final?: (error: E | RegistryFailure) => boolean
  ) => Effect.Effect<A, E | RegistryFailure, R>
}

/** A v1 registry client (the Docker Registry API before 2.0), for pulls. Nothing it gives has a content digest. */
export class V1Registry extends Context.Service<V1Registry, {
  /**
   * Finds a repository's v1 index: `_ping` by https, then by http where that is allowed, or at `origin` alone. The hub's is known, and an
   * `origin` with http is not asked, as Docker 1.9.1 did not.
   */
  readonly ping: (repository: Repository, origin?: string) => Effect.Effect<V1Index, RegistryFailure>
  /** Asks the index for a repository: its images, endpoints and a token. `NotFound` where it has none. */
  readonly session: (repository: Repository, index: V1Index) => Effect.Effect<V1Session, RegistryFailure>
}>()("registry/V1Registry") {
  static readonly layer: Layer.Layer<V1Registry, never, Transport | Credentials> = Layer.effect(V1Registry, Effect.suspend(() => make))
}

/** The longest body of a `_ping` that is looked at, in bytes. */
const pingCap = 1 << 16

const make = Effect.gen(function*() {
  const transport = yield* Transport
  const credentials = yield* Credentials
  const options = yield* RegistryOptions
  const { host: reach, of } = yield* Routes
  const limits = yield* RetryPolicy.Limits

  /** What stands for the repository's registry (the last of its routes, as for v2), and the hub's mirrors: Docker 1.9's were spoken to as it was, below `/v1`. */
  const placesOf = Effect.fnUntraced(function*(repository: Repository) {
    const routes = yield* of(repository, options)
    const place = routes.at(-1) ?? direct(repository, options.insecure)
    const mirrors = !hubNames.includes(place.host) ? [] : routes.filter(({ mirror, path, prefix, query }) => mirror && path === place.path && query === "" && prefix.endsWith("/v2"))
    return { place, mirrors: new Map(mirrors.map((route) => [`${route.schemes[0] ?? "https"}://${route.host}${route.prefix.slice(0, -"/v2".length)}`, route])) }
  })

  /** How an origin is spoken to: as the route says whose host it is, else as any host. */
  const speaking = ({ mirrors, place }: Effect.Success<ReturnType<typeof placesOf>>) => Effect.fnUntraced(function*(origin: string) {
    const route = mirrors.get(origin) ?? (new URL(origin).host === place.host ? place : undefined)
    return route === undefined ? { tls: (yield* reach(new URL(origin).host, options)).tls } : { tls: route.tls, own: route.headers, stranger: route.mirror }
  })

  const pingOnce = Effect.fnUntraced(function*(repository: Repository, url: string) {
    const { own, tls } = yield* speaking(yield* placesOf(repository))(url)
    const answer = yield* transport.send({ url: `${url}/v1/_ping`, tls, ...own !== undefined && { own } })
    const header = answer.headers["x-docker-registry-standalone"]?.trim().toLowerCase()
    const raw = header === undefined ? yield* collect(answer.body, pingCap) : undefined
    yield* answer.close
    const standalone = header === undefined ? Documents.standalone(raw ?? new Uint8Array()) ?? true : header === "1" || header === "true"
    return { url, standalone }
  }, Effect.scoped)

  const deaf = (error: RegistryFailure): error is NetworkError => error._tag === "NetworkError" && isDeaf(error)

  const ping = Effect.fn("V1Registry.ping")(function*(repository: Repository, origin?: string): Effect.fn.Return<V1Index, RegistryFailure> {
    const { place: { host, schemes } } = yield* placesOf(repository)
    if (hubNames.includes(host)) return { url: origin ?? "https://index.docker.io", standalone: false }
    if (origin !== undefined) return origin.startsWith("http:") ? { url: origin, standalone: true } : yield* Effect.retry(pingOnce(repository, origin), { schedule: RetryPolicy.legacyMetadata, while: (error) => !deaf(error) })
    const either = Effect.gen(function*() {
      const [only, plain] = schemes
      const first = yield* Effect.result(pingOnce(repository, `${only ?? "https"}://${host}`))
      if (Result.isSuccess(first)) return first.success
      const { failure } = first
      if (!deaf(failure) || plain === undefined) return yield* failure
      return yield* Effect.mapError(pingOnce(repository, `${plain}://${host}`), (second) =>
        failure.reason !== "plain-http" && second._tag === "NetworkError" && second.reason === "refused" ? failure : second)
    })
    return yield* Effect.retry(either, RetryPolicy.legacyMetadata)
  })

  const session = Effect.fn("V1Registry.session")(function*(repository: Repository, index: V1Index): Effect.fn.Return<V1Session, RegistryFailure> {
    const places = yield* placesOf(repository)
    const speak = speaking(places)
    const path = `/v1/repositories/${places.place.path}`
    const found = yield* Effect.map(credentials.find(places.place.domain, places.place.path), (option) => option._tag === "Some" ? option.value : undefined)
    const access = yield* Access.make({ transport, index, path: `${path}/images`, repository: repository.path, found, speak })
    const subjectOf = (what: Subject["what"], name: string): Subject => ({ what, name, repository: repository.path, credentials: access.credentials })

    /** The body of an answer with 200, read whole, and what it means; anything else is the failure it means. */
    const document = Effect.fnUntraced(function*<A>(answer: Answer, subject: Subject, title: string, decode: (raw: Uint8Array) => Result.Result<A, string>) {
      if (answer.status !== 200) return yield* refusal(answer, subject, limits)
      const refuse = (rule: string) => new AnswerRefused({ host: answer.host, subject: `${title} of ${repository.path}`, rule })
      const coding = yield* Effect.mapError(Effect.fromResult(Coding.codingOf(answer.headers["content-encoding"])), (name) => refuse(`its Content-Encoding ${printable(name)} is unknown`))
      const sent = yield* collect(answer.body, Documents.documentCap)
      if (sent === undefined) return yield* refuse(`it is longer than ${Documents.documentCap} bytes`)
      const raw = coding === undefined ? sent : Coding.undo(sent, coding, Documents.documentCap)
      if (raw === undefined) return yield* refuse(`it is not ${coding}, as its Content-Encoding says, or longer than ${Documents.documentCap} bytes`)
      return yield* Effect.mapError(Effect.fromResult(decode(raw)), refuse)
    })

    const entered = yield* Effect.retry(Effect.scoped(Effect.gen(function*() {
      const answer = yield* access.enter
      const images = yield* document(answer, subjectOf("repository", ""), "the list of images", Documents.images)
      const named = answer.headers["x-docker-endpoints"]
      const open = yield* Effect.filter(Endpoints.hosts(named), (host) => Effect.map(reach(host, options), ({ tls }) => !tls.verify))
      const urls = yield* Effect.mapError(Effect.fromResult(Endpoints.parse(named, index.url, [...options.insecure, ...open])), (rule) =>
        new AnswerRefused({ host: answer.host, subject: `the endpoints of ${repository.path}`, rule }))
      return { images, urls }
    })), RetryPolicy.legacyMetadata).pipe(Effect.retry(RetryPolicy.unread))

    const endpointOf = Effect.fnUntraced(function*(url: string, mirror: boolean) {
      const { tls: { verify: verified } } = yield* speak(url)
      const why = places.mirrors.get(url)?.why ?? (url === index.url ? places.place.why : `X-Docker-Endpoints of ${index.url}`)
      const json = Effect.fnUntraced(function*(id: string) {
        const answer = yield* access.get(url, `/v1/images/${id}/json`, { accept: "application/json" })
        const title = `the json of the image ${id}`
        const refuse = (rule: string) => new AnswerRefused({ host: answer.host, subject: `${title} of ${repository.path}`, rule })
        const raw = yield* document(answer, subjectOf("image", id), title, Result.succeed)
        const image = yield* Effect.mapError(Effect.fromResult(V1Image.decode(GoText.decode(raw))), ({ message }) =>
          // It may be that the transfer was damaged: 1.9 asked again too.
          new NetworkError({ host: answer.host, reason: "body", transient: true, phase: "body", status: 200, detail: `${title} cannot be read: ${printable(message)}` }))
        if (image.id !== id) return yield* refuse(`id: it is the json of ${image.id === "" ? "no image" : `"${printable(image.id, 80)}"`}`)
        return {
          raw, size: yield* Effect.mapError(Effect.fromResult(Documents.size(answer.headers["x-docker-size"])), refuse),
          payloadChecksums: yield* Effect.mapError(Effect.fromResult(Documents.payloadChecksums(answer.headers["x-docker-checksum-payload"])), refuse)
        }
      }, Effect.scoped)

      const ancestry = Effect.fnUntraced(function*(id: string) {
        const answer = yield* access.get(url, `/v1/images/${id}/ancestry`, { accept: "application/json" })
        return yield* document(answer, subjectOf("image", id), `the ancestry of the image ${id}`, (raw) => Documents.ancestry(raw, id))
      }, Effect.scoped)

      return {
        url, mirror, why, verified,
        json: (id) => Effect.retry(json(id), RetryPolicy.legacyMetadata).pipe(Effect.retry(RetryPolicy.unread)),
        ancestry: (id) => Effect.retry(ancestry(id), RetryPolicy.legacyMetadata).pipe(Effect.retry(RetryPolicy.unread)),
        layer: Effect.fn("V1Registry.layer")((id, part) => layer(url, id, part))
      } satisfies V1Endpoint
    })

    const layer = Effect.fnUntraced(function*(url: string, id: string, part: LayerRange.Part): Effect.fn.Return<V1Layer, RegistryFailure, Scope.Scope> {
      const { from } = part
      // Nothing stored is no layer: 1.9 took such a size for an unknown one.
      const size = part.size === 0 ? undefined : part.size
      const get = (headers: Readonly<Record<string, string>>) => access.get(url, `/v1/images/${id}/layer`, { accept: "*/*", ...headers })
      const ranged = from > 0 && size !== undefined && from < size ? yield* get({ range: LayerRange.rangeOf(from, size) }) : undefined
      if (size !== undefined && ranged?.status === 206 && LayerRange.continues(ranged.headers, part))
        return { from, total: size, resumable: true, etag: LayerRange.etagOf(ranged.headers) ?? part.etag, body: bounded(ranged.body, size - from, limits.settle) }
      // Whatever else a range request gives but 200 or a refusal, is not continued: it is asked again for the whole.
      const restart = ranged !== undefined && (ranged.status === 206 || ranged.status === 416)
      if (restart) yield* ranged.close
      const answer = ranged === undefined || restart ? yield* get({}) : ranged
      if (answer.status !== 200) return yield* refusal(answer, subjectOf("layer", id), limits)
      const refuse = Effect.fnUntraced(function*(rule: string) {
        yield* answer.close
        return yield* new AnswerRefused({ host: answer.host, subject: `the layer of the image ${id} of ${repository.path}`, rule })
      })
      if (/^(?:text\/html|application\/xhtml\+xml)\b/i.test(answer.headers["content-type"] ?? "")) return yield* refuse("it is an HTML page")
      const coding = Coding.codingOf(answer.headers["content-encoding"])
      if (Result.isFailure(coding)) return yield* refuse(`its Content-Encoding ${printable(coding.failure)} is unknown`)
      const length = LayerRange.lengthOf(answer.headers)
      const told = { etag: LayerRange.etagOf(answer.headers) }
      // Where the length is the layer's, or nothing tells it and layers are gzipped anyway, the coding is only the type of what is stored.
      const gzipped = coding.success === "gzip" || coding.success === "x-gzip"
      if (coding.success !== undefined && !(size === undefined ? gzipped : length === size)) {
        const body = Coding.undone(answer.body, coding.success, answer.host)
        return { ...told, from: 0, total: size, resumable: false, body: size === undefined ? body : bounded(body, size, limits.settle) }
      }
      if (size !== undefined && length !== undefined && length !== size) return yield* refuse(`it has ${length} bytes, and X-Docker-Size of its image's json says ${size}`)
      const total = size ?? length
      return {
        ...told, from: 0, total, resumable: total !== undefined && total > 0 && LayerRange.acceptsRanges(answer.headers),
        body: total === undefined ? answer.body : bounded(answer.body, total, limits.settle)
      }
    })

    const own = yield* Effect.forEach(entered.urls, (url) => endpointOf(url, false))
    const endpoints = [...yield* Effect.forEach(places.mirrors.keys(), (url) => endpointOf(url, true)), ...own]
    const firstOf = (list: ReadonlyArray<V1Endpoint>): V1Session["first"] => <A, E extends { readonly _tag: string }, R>(
      use: (endpoint: V1Endpoint) => Effect.Effect<A, E | RegistryFailure, R>, final: (error: E | RegistryFailure) => boolean = () => false
    ) => Effect.gen(function*() {
      const failed: Array<Failed<E>> = []
      for (const endpoint of list) {
        const result = yield* Effect.result(use(endpoint))
        if (Result.isSuccess(result)) return result.success
        if (final(result.failure)) return yield* Effect.fail(result.failure)
        if (!endpoint.mirror) failed.push({ url: endpoint.url, error: result.failure })
      }
      return yield* Effect.fail(failure(repository.path, index, failed))
    })

    /** A document of the first endpoint that answers; that the repository or tag is unknown there is final. */
    const one = <A>(path: string, subject: Subject, title: string, decode: (raw: Uint8Array) => Result.Result<A, string>): Effect.Effect<A, RegistryFailure> =>
      firstOf(own)(({ url }) => access.get(url, path, { accept: "application/json" }).pipe(
        Effect.flatMap((answer) => document(answer, subject, title, decode)),
        Effect.scoped,
        Effect.retry(RetryPolicy.legacyMetadata),
        Effect.retry(RetryPolicy.unread)
      ), (error) => error._tag === "NotFound")

    return {
      index, images: entered.images, endpoints, credentials: access.credentials, grant: access.grant, first: firstOf(endpoints),
      tags: one(`${path}/tags`, subjectOf("repository", ""), "the tags", (raw) => Documents.tags(raw, entered.images.map(({ id }) => id))),
      tag: (name) => one(`${path}/tags/${encodeURIComponent(name)}`, subjectOf("tag", name), `the tag ${name}`, Documents.tag)
    }
  })

  return V1Registry.of({ ping, session })
})

/** An endpoint that failed, and why. */
interface Failed<E> { readonly url: string; readonly error: E | RegistryFailure }

/** The failure of all of several endpoints: one that says something about the image comes before the network's. */
const failure = <E extends { readonly _tag: string }>(repository: string, index: V1Index, failed: ReadonlyArray<Failed<E>>): E | RegistryFailure => {
  const [only] = failed
  const telling = failed.length === 1 ? only : failed.findLast(({ error }) => !(error instanceof NetworkError))
  if (telling !== undefined) return telling.error
  const network = failed.flatMap(({ error, url }) => error instanceof NetworkError ? [{ url, error }] : [])
  return new NetworkError({
    host: new URL(index.url).host, reason: network.at(-1)?.error.reason ?? "protocol", transient: false,
    detail: `no endpoint of ${repository} could be used: ${network.map(({ error, url }) => `${url}: ${error.detail}`).join("; ")}`
  })
}
