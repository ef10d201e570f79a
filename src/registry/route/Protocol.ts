import { Option, Schema } from "effect"
import { hubNames, schemes } from "./Endpoint.ts"
import type { NetworkError, RegistryFailure } from "../Errors.ts"

/** How the protocol is chosen: `safe` tries v1 only where v2 is absent, `docker-1.9` does what Docker 1.9.1 did. */
export type Mode = "safe" | "docker-1.9"

/** One place an image may be pulled from. */
export interface Endpoint {
  readonly version: 1 | 2
  /** Scheme and host. In docker-1.9 mode a mirror's ends in `/`, as it did there. */
  readonly url: string
  /** Known to speak its version: a v2 ping need not show the header. */
  readonly trusted: boolean
  readonly mirror: boolean
}

/** What the list of endpoints depends on. */
export interface Where {
  /** A reference's domain. */
  readonly domain: string
  readonly mode: Mode
  /** As in `RegistryOptions`. */
  readonly insecure: ReadonlyArray<string>
  /** Origins of the hub's v2 mirrors. Default: none. */
  readonly mirrors?: ReadonlyArray<string>
  /** false: no v1 at all (Docker's `--disable-legacy-registry`). Default: true. */
  readonly legacy?: boolean
}

/** The hosts of the hub for each version. */
const hub = { 2: "https://registry-1.docker.io", 1: "https://index.docker.io" }

/**
 * The endpoints of a registry in the order they are tried (docker 1.9.1: registry/service_v1.go, service_v2.go). The hub's v2
 * exists, so that a safe pull has no v1 endpoint there. Other hosts: v2 by https, v2 by http where that is allowed, then v1 the same.
 */
export const endpoints = ({ domain, insecure, legacy = true, mirrors = [], mode }: Where): ReadonlyArray<Endpoint> => {
  const host = domain.toLowerCase()
  if (hubNames.includes(host)) {
    const v2 = mirrors.map((url): Endpoint => ({ version: 2, url: mode === "safe" ? url.replace(/\/+$/, "") : url.replace(/\/*$/, "/"), trusted: true, mirror: true }))
    const last: ReadonlyArray<Endpoint> = [{ version: 2, url: hub[2], trusted: true, mirror: false }, { version: 1, url: hub[1], trusted: true, mirror: false }]
    return [...v2, ...last.slice(0, legacy && mode === "docker-1.9" ? 2 : 1)]
  }
  const versions: ReadonlyArray<1 | 2> = legacy ? [2, 1] : [2]
  return versions.flatMap((version) => schemes(host, insecure).map((scheme): Endpoint => ({ version, url: `${scheme}://${host}`, trusted: false, mirror: false })))
}

/**
 * Why an endpoint did not give the image:
 * - `deaf`: nobody listens there, or what does speaks no TLS; `network`: any other failure without an answer
 * - `absent`: it answered the v2 ping without the header; `unavailable`: so too, but with 429, 502, 503 or 504, which say nothing about v2
 * - an error document: `{ code }` of its first object; `bare-code`: the first is a code alone; `no-codes`: an empty list
 * - `unparsable`: a 4xx without an error document; `unauthorized`: a 401 without one; `server`: another status that is not 200
 * - `content`: a digest or a validation; `local`: this machine's disk or files
 * - `by-digest`: v1 cannot pull by digest
 */
export type Cause =
  | "deaf" | "network" | "absent" | "unavailable" | "bare-code" | "no-codes" | "unparsable" | "unauthorized" | "server" | "content"
  | "local" | "by-digest" | { readonly code: string }

/** What happened at one endpoint. */
export interface Outcome {
  /** `ping`: before anything was asked for (building the client, the v1 `_ping` or session, the v2 ping). */
  readonly step: "ping" | "pull"
  readonly cause: Cause
  /** Whether an answer carried the v2 header. */
  readonly v2: boolean
}

/** A walk along the endpoints: which is tried now, and what was learned on the way. */
export interface Walk {
  readonly at: number
  /** Origins nobody can be talked to at. */
  readonly deaf: ReadonlyArray<string>
  /** The host has spoken TLS. */
  readonly tls: boolean
  /** An error of another kind than `by-digest` has been seen. */
  readonly other: boolean
}

/** Where every walk begins. */
export const start: Walk = { at: 0, deaf: [], tls: false, other: false }

/** What comes after a failure: the end, with this failure; or the endpoint at `walk.at` (past the list: the end, with the last failure to remember). */
export type Step =
  | { readonly _tag: "Final" }
  | { readonly _tag: "FallBack"; readonly walk: Walk; readonly remember: boolean }

const final: Step = { _tag: "Final" }

/** Codes of error objects that a pull of 1.9 did not end at. */
const passing = new Set(["UNAUTHORIZED", "MANIFEST_UNKNOWN"])

/** Docker 1.9.1's decision (graph/pull.go, pull_v1.go, pull_v2.go; registry/registry.go: ContinueOnError): whether to go on. */
const continued = (endpoint: Endpoint, { cause, step }: Outcome): boolean =>
  cause === "by-digest" || step === "ping" || (endpoint.version === 2 && (typeof cause === "string" || passing.has(cause.code)))

/** Whether a cause is a v2 registry's own word, header or not. */
const isWord = (cause: Cause) => typeof cause === "object" || cause === "bare-code"

/** The safe decision: which of the later endpoints may still be tried. */
const open = (endpoint: Endpoint, { cause, v2 }: Outcome, walk: Walk) => (later: Endpoint): boolean => {
  if (cause === "by-digest") return later.version === 2
  // A mirror is there to be passed over: by any failure but one of this machine's.
  if (endpoint.mirror) return later.version === 2 && cause !== "local"
  const scheme = !(walk.tls && later.url.startsWith("http:")) && !walk.deaf.includes(later.url)
  if (cause === "deaf") return scheme
  return endpoint.version === 2 && later.version === 1 && scheme && !v2 && !endpoint.trusted && !isWord(cause)
    && (cause === "absent" || cause === "no-codes" || cause === "unparsable" || cause === "unauthorized")
}

/**
 * The decision table: what to do after `outcome` at `list[walk.at]`.
 *
 * docker-1.9: on to the next endpoint after any failure before the pull itself, after a v2 failure that is not an error object with a
 * code other than UNAUTHORIZED or MANIFEST_UNKNOWN, and after a digest reference at v1; all else is final.
 *
 * safe: a host that has shown the v2 header, or given a v2 error, gets no v1 try, and one that has spoken TLS no plain HTTP try;
 * v1 is tried where an answer shows that v2 is absent. Where nothing can be heard, only another scheme is tried. All else is final.
 *
 * `remember`: keep this failure as the walk's own, in place of earlier ones. A `by-digest` gives way to any other.
 */
export const next = (mode: Mode, list: ReadonlyArray<Endpoint>, walk: Walk, outcome: Outcome): Step => {
  const endpoint = list[walk.at]
  if (endpoint === undefined) return final
  const other = walk.other || outcome.cause !== "by-digest"
  const learned: Walk = {
    at: walk.at + 1, other,
    deaf: outcome.cause === "deaf" ? [...walk.deaf, endpoint.url] : walk.deaf,
    tls: walk.tls || (endpoint.url.startsWith("https:") && outcome.cause !== "deaf" && outcome.cause !== "network" && outcome.cause !== "by-digest")
  }
  const remember = outcome.cause !== "by-digest" || !walk.other
  if (mode === "docker-1.9") return continued(endpoint, outcome) ? { _tag: "FallBack", walk: learned, remember } : final
  const may = open(endpoint, outcome, learned)
  const at = list.findIndex((later, index) => index > walk.at && may(later))
  if (at >= 0) return { _tag: "FallBack", walk: { ...learned, at }, remember }
  return remember ? final : { _tag: "FallBack", walk: { ...learned, at: list.length }, remember }
}

/** Whether https failed in a way plain HTTP may not: nobody listens there, or what listens does not speak TLS (some are silent then, or hang up). */
export const isDeaf = ({ phase, reason }: NetworkError): boolean =>
  phase === "connect" && (reason === "plain-http" || reason === "refused" || reason === "timeout" || reason === "reset")

const busy = new Set([429, 502, 503, 504])

/** What a registry client's failure means to the table. */
export const causeOf = (error: RegistryFailure): Cause => {
  if (error._tag === "AnswerRefused" || error._tag === "VerifyError") return "content"
  if (error._tag === "CredentialsError" || error._tag === "HelperError" || error._tag === "ConfigError" || error._tag === "Blocked") return "local"
  if (error.code !== undefined) return { code: error.code }
  if (error._tag === "NotFound") return "unparsable"
  if (error._tag === "Unauthorized") return error.denied ? "unparsable" : "unauthorized"
  if (error.status === undefined) return isDeaf(error) ? "deaf" : "network"
  return busy.has(error.status) ? "unavailable" : error.status >= 400 && error.status < 500 ? "unparsable" : "server"
}

/** The codes Docker 1.9.1 knew, with the messages it took for none (distribution of 2015: errcode/register.go, api/v2/errors.go). */
const messages: ReadonlyMap<string, string> = new Map(Object.entries({
  UNKNOWN: "unknown error",
  UNSUPPORTED: "The operation is unsupported.",
  UNAUTHORIZED: "authentication required",
  DENIED: "requested access to the resource is denied",
  UNAVAILABLE: "service unavailable",
  DIGEST_INVALID: "provided digest did not match uploaded content",
  SIZE_INVALID: "provided length did not match content length",
  NAME_INVALID: "invalid repository name",
  TAG_INVALID: "manifest tag did not match URI",
  NAME_UNKNOWN: "repository name not known to registry",
  MANIFEST_UNKNOWN: "manifest unknown",
  MANIFEST_INVALID: "manifest invalid",
  MANIFEST_UNVERIFIED: "manifest failed signature verification",
  MANIFEST_BLOB_UNKNOWN: "blob unknown to registry",
  BLOB_UNKNOWN: "blob unknown to registry",
  BLOB_UPLOAD_UNKNOWN: "blob upload unknown to registry",
  BLOB_UPLOAD_INVALID: "blob upload invalid"
}))

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))
const ErrorDocument = Schema.fromJsonString(Schema.Struct({
  errors: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({ code: Text, message: Text, detail: Schema.optionalKey(Schema.Unknown) }))))
}))

/**
 * What Docker 1.9.1 made of a v2 answer that was not 200 (registry/client/errors.go, errcode/errors.go). An entry without a detail and
 * with an empty or the code's own message was a bare code to it; an unknown code became UNKNOWN; of several entries the first decides.
 */
export const read = (status: number, body: Uint8Array): Cause => {
  if (status < 400 || status > 499) return "server"
  const document = Option.getOrUndefined(Schema.decodeUnknownOption(ErrorDocument)(new TextDecoder().decode(body)))
  if (document === undefined) return status === 401 ? "unauthorized" : "unparsable"
  const [first] = document.errors ?? []
  if (first === undefined) return "no-codes"
  const code = messages.has(first.code ?? "") ? first.code ?? "" : "UNKNOWN"
  const bare = (first.detail ?? null) === null && (!first.message || first.message === messages.get(code))
  return bare ? "bare-code" : { code }
}

/** The code of the error object that decides, if there is one. */
export const codeOf = (status: number, body: Uint8Array): string | undefined => {
  const cause = read(status, body)
  return typeof cause === "object" ? cause.code : undefined
}
