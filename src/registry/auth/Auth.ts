import { Clock, Effect, Option, Redacted, Result, Schema, Semaphore } from "effect"
import { printable } from "../../image/Printable.ts"
import { collect } from "../answer/Body.ts"
import * as Challenge from "./Challenge.ts"
import * as Coding from "../answer/Coding.ts"
import { Credentials, type Found } from "./Credentials.ts"
import { RegistryOptions } from "../route/Endpoint.ts"
import { AnswerRefused, NetworkError, type RegistryFailure, Unauthorized } from "../Errors.ts"
import * as Realm from "./Realm.ts"
import { documentCap, problem, refusal } from "../answer/Refusal.ts"
import { Limits, unread } from "../RetryPolicy.ts"
import { plainTls, type Tls } from "../route/Route.ts"
import { type Answer, type Request, Transport } from "../Transport.ts"

/** What one request asks for and where. */
export interface Wanted {
  /** `https://host[:port]` of the registry. */
  readonly origin: string
  readonly domain: string
  /** Repository path. */
  readonly path: string
  /** What stands before it, where that is not `/v2`, and how the registry is spoken to by TLS. */
  readonly prefix?: string
  readonly tls?: Tls
}

/** A value for the Authorization header, and what is known of it. */
export interface Grant {
  readonly header: Redacted.Redacted
  readonly scheme: "basic" | "bearer"
  /** Where the credentials behind it come from, or "anonymous". */
  readonly credentials: string
  /** A realm that was asked without the credentials there are, because they are not for it. */
  readonly withheld: string | undefined
  /** Monotonic time (ns) from which it is no longer used. */
  readonly expires: bigint | undefined
}

/** Authorization for one registry client: keeps what was granted, and answers challenges. */
export interface Auth {
  /** What to send with a request at once, if anything was granted before and has not expired. */
  readonly known: (wanted: Wanted) => Effect.Effect<Grant | undefined>
  /** Answers the 401 of a request that was sent with `tried` (`fresh`: how many grants newer than the request it has used up by now). */
  readonly answer: (wanted: Wanted, refused: Answer, tried: Grant | undefined, fresh: number) => Effect.Effect<Grant, RegistryFailure>
}

/** How long a token lives that does not say so (distribution, spec/auth/token.md), in seconds, and the longest any is kept. */
const defaultLifetime = 60
const longestLifetime = 24 * 60 * 60

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))
const TokenBody = Schema.fromJsonString(Schema.Struct({ token: Text, access_token: Text, expires_in: Schema.optionalKey(Schema.Unknown) }))

/** The token in a token server's answer (`token`, else `access_token`) and its lifetime in seconds. undefined: there is none that can be sent. */
export const decodeToken = (raw: Uint8Array): { readonly token: Redacted.Redacted; readonly lifetime: number } | undefined => {
  const body = Option.getOrUndefined(Schema.decodeUnknownOption(TokenBody)(new TextDecoder().decode(raw)))
  const token = body?.token || body?.access_token
  if (!token || !/^[\x21-\x7e]+$/.test(token)) return undefined
  const said = body?.expires_in
  const claimed = typeof said === "number" || typeof said === "string" ? Number(said) : defaultLifetime
  return { token: Redacted.make(token), lifetime: claimed >= 1 ? Math.min(claimed, longestLifetime) : defaultLifetime }
}

const basic = (user: string, password: Redacted.Redacted) =>
  Redacted.make(`Basic ${Buffer.from(`${user}:${Redacted.value(password)}`).toString("base64")}`)

/** The request that asks `realm` for a token: POST with an identity token (spec/auth/oauth.md), else GET with Basic or anonymous (spec/auth/token.md). */
const tokenRequest = (realm: URL, service: string | undefined, scopes: ReadonlyArray<string>, found: Found | undefined): Request => {
  if (found?.identityToken !== undefined) {
    const form = new URLSearchParams({ grant_type: "refresh_token", client_id: "towline", refresh_token: Redacted.value(found.identityToken) })
    if (service !== undefined) form.set("service", service)
    form.set("scope", scopes.join(" "))
    return { url: realm.href, headers: { accept: "application/json" }, form: Redacted.make(form.toString()) }
  }
  const url = new URL(realm)
  url.hash = ""
  if (service !== undefined) url.searchParams.set("service", service)
  for (const scope of scopes) url.searchParams.append("scope", scope)
  if (found !== undefined) url.searchParams.set("account", found.username)
  return {
    url: url.href, headers: { accept: "application/json" },
    ...found !== undefined && { authorization: basic(found.username, found.password) }
  }
}

/** What a grant is kept for: the whole origin, or one repository of it. */
const keyOf = (wanted: Wanted, reach: "origin" | "repository") => reach === "origin" ? wanted.origin : `${wanted.origin}${wanted.prefix ?? "/v2"} ${wanted.path}`

/** An Auth with nothing granted yet. */
export const make: Effect.Effect<Auth, never, Transport | Credentials> = Effect.gen(function*() {
  const transport = yield* Transport
  const credentials = yield* Credentials
  const { realms } = yield* RegistryOptions
  const limits = yield* Limits
  const grants = new Map<string, Grant>()
  const locks = new Map<string, Semaphore.Semaphore>()
  const lockOf = (key: string) => {
    const lock = locks.get(key) ?? Semaphore.makeUnsafe(1)
    locks.set(key, lock)
    return lock
  }
  const known = (wanted: Wanted) => Effect.map(Clock.monotonicTimeNanos, (now) => {
    const grant = grants.get(keyOf(wanted, "repository")) ?? grants.get(keyOf(wanted, "origin"))
    return grant?.expires !== undefined && grant.expires <= now ? undefined : grant
  })
  const fetchToken = Effect.fnUntraced(function*(wanted: Wanted, realm: URL, trusted: boolean, challenge: Challenge.Challenge) {
    const all = Option.getOrUndefined(yield* credentials.find(wanted.domain, wanted.path))
    const found = trusted ? all : undefined
    const source = found?.source ?? "anonymous"
    const scopes = (challenge.parameters.get("scope") || `repository:${wanted.path}:pull`).split(" ").filter((scope) => scope !== "")
    const began = yield* Clock.monotonicTimeNanos
    const answer = yield* transport.send({
      ...tokenRequest(realm, challenge.parameters.get("service"), scopes, found),
      ...wanted.tls !== undefined && { tls: realm.origin === wanted.origin ? wanted.tls : { ...plainTls, ca: wanted.tls.ca } }
    })
    if (answer.status === 400 || answer.status === 401 || answer.status === 403) {
      const { text } = yield* problem(answer, limits)
      return yield* new Unauthorized({
        host: realm.host, repository: wanted.path, denied: answer.status === 403, credentials: source,
        detail: `the token server answered ${answer.status}${text === "" ? "" : `: ${text}`}${withheldText(trusted || all === undefined ? undefined : realm.host)}`
      })
    }
    if (answer.status !== 200) {
      const error = yield* Effect.flip(refusal(answer, { what: "manifest", repository: wanted.path, name: "token", credentials: source }, limits))
      return yield* error._tag === "NotFound"
        ? new NetworkError({ host: realm.host, reason: "server", phase: "headers", status: answer.status, transient: false, detail: `the token server answered ${answer.status}` })
        : error
    }
    const raw = yield* collect(answer.body, documentCap)
    const token = raw === undefined ? undefined : decodeToken(Coding.readable(raw, answer.headers["content-encoding"], documentCap))
    if (token === undefined) {
      const rule = raw === undefined ? `it is longer than ${documentCap} bytes` : "it is no JSON object with a usable `token` or `access_token`"
      return yield* new AnswerRefused({ host: realm.host, subject: `a token for ${wanted.path}`, rule })
    }
    const grant: Grant = {
      header: Redacted.make(`Bearer ${Redacted.value(token.token)}`), scheme: "bearer", credentials: source,
      withheld: trusted || all === undefined ? undefined : realm.host,
      // A tenth is left for the request it is sent with.
      expires: began + BigInt(Math.floor(token.lifetime * 0.9 * 1e9))
    }
    return grant
  }, Effect.scoped)
  const bearer = Effect.fnUntraced(function*(wanted: Wanted, challenge: Challenge.Challenge, tried: Grant | undefined) {
    const realm = challenge.parameters.get("realm") ?? ""
    const verdict = Realm.judge(wanted.origin, realm, realms)
    if (verdict._tag === "Refuse")
      return yield* unauthorized(wanted, tried, `its token server ${JSON.stringify(printable(realm))} is refused: ${verdict.rule}`)
    const key = keyOf(wanted, "repository")
    return yield* lockOf(key).withPermits(1)(Effect.gen(function*() {
      const current = grants.get(key)
      const now = yield* Clock.monotonicTimeNanos
      // Another request was faster.
      if (current !== undefined && current !== tried && (current.expires === undefined || current.expires > now)) return current
      const grant = yield* Effect.retry(fetchToken(wanted, verdict.url, verdict.credentials, challenge), unread)
      grants.set(key, grant)
      return grant
    }))
  })
  const answer = Effect.fnUntraced(function*(wanted: Wanted, refused: Answer, tried: Grant | undefined, fresh: number) {
    const { text } = yield* problem(refused, limits)
    const said = text === "" ? "" : `: ${text}`
    const header = refused.headers["www-authenticate"]
    if (header === undefined) return yield* unauthorized(wanted, tried, `it answered 401 without saying how to log in${said}`)
    const challenges = Challenge.parse(header)
    if (Result.isFailure(challenges)) return yield* unauthorized(wanted, tried, `its WWW-Authenticate cannot be read: ${challenges.failure}`)
    const asked = (scheme: string) => challenges.success.find((challenge) => challenge.scheme === scheme)
    const byToken = asked("bearer")
    if (byToken !== undefined) {
      const final = fresh >= 2 || (fresh === 1 && byToken.parameters.get("error") === "insufficient_scope")
      if (final) return yield* unauthorized(wanted, tried, `its own token server's token is not enough${said}`)
      return yield* bearer(wanted, byToken, tried)
    }
    if (asked("basic") === undefined) {
      const schemes = printable(challenges.success.map((challenge) => challenge.scheme).join(", "))
      return yield* unauthorized(wanted, tried, `it asks for a way of logging in that is not supported (${schemes || "none"})`)
    }
    const found = Option.getOrUndefined(yield* credentials.find(wanted.domain, wanted.path))
    if (found === undefined || found.username === "") return yield* unauthorized(wanted, tried, `it asks for a user name and password${said}`)
    // Those of another namespace may have been sent.
    if (tried?.scheme === "basic" && tried.credentials === found.source) return yield* unauthorized(wanted, tried, `the user name or password is wrong${said}`)
    const grant: Grant = { header: basic(found.username, found.password), scheme: "basic", credentials: found.source, withheld: undefined, expires: undefined }
    grants.set(keyOf(wanted, found.partial === true ? "repository" : "origin"), grant)
    return grant
  })
  return { known, answer }
})

const withheldText = (realm: string | undefined) =>
  realm === undefined ? "" : ` (asked anonymously: ${printable(realm)} is not a token server your credentials for this registry are for)`

const unauthorized = (wanted: Wanted, tried: Grant | undefined, detail: string) =>
  new Unauthorized({
    host: new URL(wanted.origin).host, repository: wanted.path, denied: false, credentials: tried?.credentials ?? "anonymous",
    detail: `${detail}${withheldText(tried?.withheld)}`
  })
