import { randomUUID } from "node:crypto"
import { error, json, type Answer, type Headers } from "./Answer.ts"

/** How tokens are given out. */
export interface TokenServerOptions {
  /** User name to password. Default: none, so that every request with credentials is refused. */
  readonly users?: Readonly<Record<string, string>>
  /** Whether a request without credentials gets a token. Default: true without `users`, else false. */
  readonly anonymous?: boolean
  /** Seconds until a token is refused (fractions allowed), and what `expires_in` says. Default 300. */
  readonly expiresIn?: number
  /** What `expires_in` says instead (any JSON; null: left out); the real lifetime stays `expiresIn`. */
  readonly claimExpiresIn?: unknown
  /** What `issued_at` says (any JSON; null: left out). Default: now. */
  readonly issuedAt?: unknown
  /** Which field holds the token. Default: `token` for GET, `access_token` for POST. */
  readonly field?: "token" | "access_token" | "both"
  /** Whether a user (undefined: anonymous) may pull a repository. Default: all may. */
  readonly allow?: (user: string | undefined, repository: string) => boolean
  /** Listens on a port of its own instead of `/token` of the registry. Default false. */
  readonly ownPort?: boolean
  /** The realm the challenge names instead of the true one: any text, to see that a client refuses it. */
  readonly realm?: string
  /** The service name. Default `towline-test`. */
  readonly service?: string
  /** Identity tokens (OAuth2 refresh tokens) to user names; POST with `grant_type=refresh_token` takes them. */
  readonly identityTokens?: Readonly<Record<string, string>>
}

/** One token that was given out. */
export interface IssuedToken {
  readonly token: string
  /** undefined: anonymous. */
  readonly user: string | undefined
  /** The scopes that were granted: `repository:NAME:pull`. */
  readonly scopes: ReadonlyArray<string>
}

/** User and password of a Basic Authorization header. */
export const basic = (authorization: string | undefined): readonly [user: string, password: string] | undefined => {
  const [, encoded] = /^basic +([A-Za-z0-9+/=]+)$/i.exec(authorization ?? "") ?? []
  if (encoded === undefined) return undefined
  const text = Buffer.from(encoded, "base64").toString()
  const colon = text.indexOf(":")
  return colon < 0 ? undefined : [text.slice(0, colon), text.slice(colon + 1)]
}

/** The challenge of a 401 for a scope (undefined: none). */
export const bearerChallenge = (realm: string, service: string, scope: string | undefined, problem: string | undefined): string =>
  [`Bearer realm="${realm}"`, `service="${service}"`, ...scope === undefined ? [] : [`scope="${scope}"`],
    ...problem === undefined ? [] : [`error="${problem}"`]].join(",")

const refused = error(401, "UNAUTHORIZED", "authentication required", null, { "www-authenticate": "Basic realm=\"token server\"" })

/**
 * A token server (distribution, docs/spec/auth: token.md for GET, oauth.md for POST). It is made by `TestRegistry.make`; its
 * requests are in the registry's log, with kind `token`.
 */
export class TokenServer {
  /** Where it really is: `scheme://127.0.0.1:PORT/token`. */
  readonly url: string
  private readonly options: TokenServerOptions
  private readonly tokens = new Map<string, IssuedToken & { readonly until: number }>()
  private revoked = new Set<string>()

  constructor(url: string, options: TokenServerOptions) {
    this.url = url
    this.options = options
  }

  /** Every token given out so far, oldest first. */
  get issued(): ReadonlyArray<IssuedToken> {
    return [...this.tokens.values()].map(({ token, user, scopes }) => ({ token, user, scopes }))
  }

  /** From now on every token given out so far is refused, as when it expired. */
  revoke(): void {
    this.revoked = new Set(this.tokens.keys())
  }

  /** What the registry's 401 says to who wants `repository` (undefined: only to know whether v2 is spoken). */
  challenge(repository: string | undefined, problem: string | undefined): string {
    const scope = repository === undefined ? undefined : `repository:${repository}:pull`
    return bearerChallenge(this.options.realm ?? this.url, this.options.service ?? "towline-test", scope, problem)
  }

  /** What is wrong with an Authorization header for pulling `repository`: nothing (""), its absence, or an RFC 6750 error code. */
  judge(authorization: string | undefined, repository: string | undefined): "" | "missing" | "invalid_token" | "insufficient_scope" {
    const [, token] = /^bearer +(.+)$/i.exec(authorization ?? "") ?? []
    if (token === undefined) return "missing"
    const known = this.tokens.get(token)
    if (known === undefined || known.until <= performance.now() || this.revoked.has(token)) return "invalid_token"
    return repository === undefined || known.scopes.includes(`repository:${repository}:pull`) ? "" : "insufficient_scope"
  }

  /** Answers one token request. */
  answer(request: { readonly method: string; readonly query: URLSearchParams; readonly headers: Headers; readonly body: string }): Answer {
    const post = request.method === "POST"
    const fields = post ? new URLSearchParams(request.body) : request.query
    const { authorization } = request.headers
    const who = post ? this.granted(fields) : this.named(typeof authorization === "string" ? authorization : undefined)
    if (who === undefined) return refused
    const wanted = fields.getAll("scope").flatMap((text) => text.split(" ")).filter((text) => text !== "")
    const scopes = wanted.flatMap((scope) => {
      const [, repository, actions] = /^repository:(.+):([a-z,*]+)$/.exec(scope) ?? []
      if (repository === undefined || actions === undefined || !actions.split(",").includes("pull")) return []
      return this.options.allow?.(who.user, repository) ?? true ? [`repository:${repository}:pull`] : []
    })
    const token = `t-${randomUUID()}`
    const { expiresIn = 300, claimExpiresIn = expiresIn, issuedAt = new Date().toISOString() } = this.options
    this.tokens.set(token, { token, user: who.user, scopes, until: performance.now() + expiresIn * 1000 })
    const field = this.options.field ?? (post ? "access_token" : "token")
    return json(200, {
      token: field === "access_token" ? undefined : token,
      access_token: field === "token" ? undefined : token,
      scope: post ? scopes.join(" ") : undefined,
      expires_in: claimExpiresIn ?? undefined,
      issued_at: issuedAt ?? undefined,
      refresh_token: who.refresh
    })
  }

  /** GET: nobody, or a user by Basic credentials. */
  private named(authorization: string | undefined): Who | undefined {
    const { users = {}, anonymous = Object.keys(users).length === 0 } = this.options
    if (authorization === undefined) return anonymous ? { user: undefined, refresh: undefined } : undefined
    return this.checked(basic(authorization))
  }

  /** POST: by identity token, or by user name and password. */
  private granted(form: URLSearchParams): Who | undefined {
    if (form.get("grant_type") === "password") return this.checked([form.get("username") ?? "", form.get("password") ?? ""])
    const refresh = form.get("refresh_token") ?? ""
    const identities = this.options.identityTokens ?? {}
    return form.get("grant_type") === "refresh_token" && Object.hasOwn(identities, refresh) ? { user: identities[refresh], refresh } : undefined
  }

  private checked(credentials: readonly [user: string, password: string] | undefined): Who | undefined {
    if (credentials === undefined) return undefined
    const [user, password] = credentials
    const users = this.options.users ?? {}
    return Object.hasOwn(users, user) && users[user] === password ? { user, refresh: undefined } : undefined
  }
}

interface Who {
  readonly user: string | undefined
  readonly refresh: string | undefined
}
