import { Config, ConfigProvider, Context, Effect, FileSystem, Layer, Option, Redacted, Result, Schema } from "effect"
import { hostOf } from "./Endpoint.ts"
import { CredentialsError } from "./Errors.ts"

/** What a user has for one registry, and the file it comes from. */
export interface Found {
  readonly username: string
  readonly password: Redacted.Redacted
  /** An OAuth2 refresh token, used instead of the password where a token server is asked. */
  readonly identityToken?: Redacted.Redacted
  readonly source: string
}

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))
const Entry = Schema.Struct({ auth: Text, username: Text, password: Text, identitytoken: Text })
const DockerConfig = Schema.Struct({ auths: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.NullOr(Entry)))) })

/** The `host[:port]` a key of `auths` stands for: the host alone, or with a scheme and `/`, `/v1/` or `/v2/`. undefined: a key for something else. */
export const hostOfKey = (key: string): string | undefined => {
  const match = /^(?:https?:\/\/)?([^/]+)(?:\/(?:v[12]\/?)?)?$/i.exec(key)
  return match?.[1] === undefined ? undefined : hostOf(match[1])
}

/** The user and password of an `auths` entry's `auth`: base64 of `user:password` (NULs at the end, as old clients padded, are dropped). */
const userOf = (auth: string): readonly [user: string, password: string] | undefined => {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(auth)) return undefined
  const [, user, password] = /^([^:]*):([^]*)$/.exec(Buffer.from(auth, "base64").toString("utf8")) ?? []
  return user === undefined || password === undefined ? undefined : [user, password.replace(/\0+$/, "")]
}

/**
 * The credentials for each host in the text of a Docker `config.json`, from `auths` alone; `path` is named in errors and results.
 * An exact key wins over one with a scheme or path; entries that hold nothing (their secret is in a helper) are left out.
 */
export const decode = (path: string, text: string): Result.Result<ReadonlyMap<string, Found>, CredentialsError> => {
  const problem = (problem: string) => Result.fail(new CredentialsError({ path, problem }))
  const json = Result.try(() => JSON.parse(text) as unknown)
  if (Result.isFailure(json)) return problem("it is not JSON")
  const decoded = Schema.decodeUnknownOption(DockerConfig)(json.success)
  if (Option.isNone(decoded)) return problem("its `auths` is not an object of objects with texts in them")
  const found = new Map<string, Found>()
  const entries = Object.entries(decoded.value.auths ?? {}).sort(([a], [b]) => Number(hostOfKey(b) === b) - Number(hostOfKey(a) === a))
  for (const [key, entry] of entries) {
    const host = hostOfKey(key)
    if (host === undefined || entry === null || found.has(host)) continue
    const pair = entry.auth ? userOf(entry.auth) : entry.username ? [entry.username, entry.password ?? ""] as const : undefined
    if (entry.auth && pair === undefined) return problem(`the \`auth\` of ${JSON.stringify(key)} is not base64 of user:password`)
    const [username, password] = pair ?? ["", ""]
    if (username === "" && !entry.identitytoken) continue
    found.set(host, {
      username, password: Redacted.make(password), source: path,
      ...entry.identitytoken && { identityToken: Redacted.make(entry.identitytoken) }
    })
  }
  return Result.succeed(found)
}

/** The user's credentials for registries. */
export class Credentials extends Context.Service<Credentials, {
  /** Those for a reference's domain, if any. The file is read once, when first needed; a missing one means anonymous. */
  readonly find: (domain: string) => Effect.Effect<Option.Option<Found>, CredentialsError>
}>()("registry/Credentials") {
  /** From `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. */
  static readonly layer: Layer.Layer<Credentials, never, FileSystem.FileSystem> = Layer.effect(Credentials, Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const provider = yield* ConfigProvider.ConfigProvider
    const load = Effect.gen(function*() {
      const folder = Option.getOrElse(yield* Config.option(Config.String("DOCKER_CONFIG")), () => "")
      const home = Option.getOrElse(yield* Config.option(Config.String("HOME")), () => "")
      if (folder === "" && home === "") return new Map<string, Found>()
      const path = folder === "" ? `${home}/.docker/config.json` : `${folder}/config.json`
      const content = yield* fs.readFileString(path).pipe(
        Effect.asSome,
        Effect.catchReason("PlatformError", "NotFound", () => Effect.succeedNone),
        Effect.mapError((error) => new CredentialsError({ path, problem: `it cannot be read (${error.reason._tag})` }))
      )
      return Option.isNone(content) ? new Map<string, Found>() : yield* Effect.fromResult(decode(path, content.value))
    })
    const all = yield* load.pipe(
      Effect.catchTag("ConfigError", () => Effect.fail(new CredentialsError({ path: "$DOCKER_CONFIG", problem: "the variable cannot be read" }))),
      Effect.provideService(ConfigProvider.ConfigProvider, provider),
      Effect.cached
    )
    return Credentials.of({ find: (domain) => Effect.map(all, (found) => Option.fromUndefinedOr(found.get(hostOf(domain)))) })
  }))

  /** Nobody has credentials: for tests and for asking anonymously. */
  static readonly anonymous = Layer.succeed(Credentials, { find: () => Effect.succeedNone })
}
