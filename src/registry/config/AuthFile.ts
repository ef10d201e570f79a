import { Option, Redacted, Result, Schema } from "effect"
import { hostOf } from "../route/Endpoint.ts"
import { CredentialsError } from "../Errors.ts"

/** What a user has for one registry, or one part of it, and where it comes from: the file and the key in it, a helper, or the environment. */
export interface Found {
  readonly username: string
  readonly password: Redacted.Redacted
  /** An OAuth2 refresh token, used instead of the password where a token server is asked. */
  readonly identityToken?: Redacted.Redacted
  readonly source: string
  /** They are for a namespace or repository, not for all of the host. */
  readonly partial?: boolean
}

/** Docker's `config.json` or containers' `auth.json`. Hosts are `host[:port]` in lower case, Docker Hub's is registry-1.docker.io. */
export interface AuthFile {
  /** By host, or by `host/path` for a namespace or repository. */
  readonly auths: ReadonlyMap<string, Found>
  /** `credHelpers`: host to helper. */
  readonly helpers: ReadonlyMap<string, string>
  /** `credsStore`: the helper for every other host. */
  readonly store: string | undefined
}

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))
const Entry = Schema.Struct({ auth: Text, username: Text, password: Text, identitytoken: Text })
const File = Schema.Struct({
  auths: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.NullOr(Entry)))),
  credHelpers: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String))),
  credsStore: Text
})

/** The `host[:port]` a key of `auths` stands for: the host alone, with `/`, `/v1/` or `/v2/`, or with a scheme and any path. undefined: a key for something else. */
export const hostOfKey = (key: string): string | undefined => {
  const match = /^https?:\/\/([^/]+)(?:\/.*)?$/i.exec(key) ?? /^([^/]+)(?:\/(?:v[12]\/?)?)?$/.exec(key)
  return match?.[1] === undefined ? undefined : hostOf(match[1])
}

/** The `host/path` that a key without a scheme stands for (containers-auth.json(5)): a namespace or repository. */
const namespaceOfKey = (key: string): string | undefined => {
  const match = /^([^/]+)\/([^:]+?)\/?$/.exec(key)
  return match?.[1] === undefined || /^v[12]$/.test(match[2] ?? "") ? undefined : `${hostOf(match[1])}/${match[2]}`
}

/** The user and password of an `auths` entry's `auth`: base64 of `user:password` (NULs at the end, as old clients padded, are dropped). */
const userOf = (auth: string): readonly [user: string, password: string] | undefined => {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(auth)) return undefined
  const [, user, password] = /^([^:]*):([^]*)$/.exec(Buffer.from(auth, "base64").toString("utf8")) ?? []
  return user === undefined || password === undefined ? undefined : [user, password.replace(/\0+$/, "")]
}

/**
 * Reads the text of a Docker `config.json` or a containers `auth.json`; `path` is named in errors and sources. An exact key wins over
 * one with a scheme or path; entries that hold nothing (their secret is in a helper) are left out.
 */
export const decode = (path: string, text: string): Result.Result<AuthFile, CredentialsError> => {
  const problem = (problem: string) => Result.fail(new CredentialsError({ path, problem }))
  const json = Result.try(() => JSON.parse(text) as unknown)
  if (Result.isFailure(json)) return problem("it is not JSON")
  const decoded = Schema.decodeUnknownOption(File)(json.success)
  if (Option.isNone(decoded)) return problem("its `auths` is not an object of objects with texts in them, or `credHelpers` or `credsStore` are no texts")
  const auths = new Map<string, Found>()
  const entries = Object.entries(decoded.value.auths ?? {}).sort(([a], [b]) => Number(hostOfKey(b) === b) - Number(hostOfKey(a) === a))
  for (const [key, entry] of entries) {
    const place = hostOfKey(key) ?? namespaceOfKey(key)
    if (place === undefined || entry === null || auths.has(place)) continue
    const pair = entry.auth ? userOf(entry.auth) : entry.username ? [entry.username, entry.password ?? ""] as const : undefined
    if (entry.auth && pair === undefined) return problem(`the \`auth\` of ${JSON.stringify(key)} is not base64 of user:password`)
    const [username, password] = pair ?? ["", ""]
    if (username === "" && !entry.identitytoken) continue
    auths.set(place, {
      username, password: Redacted.make(password), source: `${path} (${JSON.stringify(key)})`, ...place.includes("/") && { partial: true },
      ...entry.identitytoken && { identityToken: Redacted.make(entry.identitytoken) }
    })
  }
  const helpers = new Map<string, string>()
  for (const [key, helper] of Object.entries(decoded.value.credHelpers ?? {})) {
    const host = hostOfKey(key)
    if (host !== undefined && (hostOf(key) === key || !helpers.has(host))) helpers.set(host, helper)
  }
  return Result.succeed({ auths, helpers, store: decoded.value.credsStore || undefined })
}

/** The keys of `auths` for a repository, the longest first: `host/a/b`, `host/a`, and last the host. */
export const keys = (host: string, path: string): ReadonlyArray<string> => {
  const parts = path === "" ? [] : path.split("/")
  return [...parts.map((_, index) => `${host}/${parts.slice(0, parts.length - index).join("/")}`), host]
}
