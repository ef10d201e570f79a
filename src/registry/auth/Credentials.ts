import { Config, ConfigProvider, Context, Effect, FileSystem, Layer, Option } from "effect"
import * as AuthFile from "../config/AuthFile.ts"
import * as Helper from "../config/Helper.ts"
import { hostOf } from "../route/Endpoint.ts"
import { CredentialsError, type HelperError } from "../Errors.ts"

export type { Found } from "../config/AuthFile.ts"

/** A file of credentials, where it was looked for. */
interface Source {
  readonly path: string
  readonly file: AuthFile.AuthFile
}

const variable = (name: string) => Effect.map(Config.option(Config.String(name)), Option.getOrElse(() => ""))

/** The name by which helpers know Docker Hub. */
const hubKey = "https://index.docker.io/v1/"

/**
 * The user's credentials for registries. Looked for in this order; in the first place that has some for the host, the search ends:
 * 1. `$DOCKER_AUTH_CONFIG`: the text of a config.json in the environment, as CI systems give it
 * 2. `$REGISTRY_AUTH_FILE`, which must be there; where it is set, no other file is read
 * 3. `$DOCKER_CONFIG/config.json`, if that is set
 * 4. `$XDG_RUNTIME_DIR/containers/auth.json`
 * 5. `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config/containers/auth.json`)
 * 6. `~/.docker/config.json`, unless `$DOCKER_CONFIG` is set
 *
 * Within a file: the helper that `credHelpers` names for the host; `auths` keys with a path, the longest that fits the repository
 * first; the helper of `credsStore`; the `auths` key of the host. A helper is asked for one host, once, and only when a registry
 * wants credentials. One that has nothing lets the search go on; one that fails ends it.
 */
export class Credentials extends Context.Service<Credentials, {
  /** Those for a reference's domain (and path in it), if any. Each file is read once, when first needed; a missing one means nothing. */
  readonly find: (domain: string, path?: string) => Effect.Effect<Option.Option<AuthFile.Found>, CredentialsError | HelperError>
}>()("registry/Credentials") {
  /** From the environment and the files it names. */
  static readonly layer: Layer.Layer<Credentials, never, FileSystem.FileSystem> = Layer.effect(Credentials, Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const provider = yield* ConfigProvider.ConfigProvider
    const read = Effect.fnUntraced(function*(path: string, required: boolean) {
      const content = yield* fs.readFileString(path).pipe(
        Effect.asSome,
        Effect.catchReason("PlatformError", "NotFound", (reason) => required ? Effect.fail(reason) : Effect.succeedNone),
        Effect.mapError((error) => new CredentialsError({
          path, problem: `it cannot be read (${"reason" in error ? error.reason._tag : error._tag})${required ? "; REGISTRY_AUTH_FILE names it" : ""}`
        }))
      )
      return Option.isNone(content) ? [] : [{ path, file: yield* Effect.fromResult(AuthFile.decode(path, content.value)) }]
    })
    const load = Effect.gen(function*() {
      const sources: Array<Source> = []
      const given = yield* variable("DOCKER_AUTH_CONFIG")
      if (given !== "") sources.push({ path: "$DOCKER_AUTH_CONFIG", file: yield* Effect.fromResult(AuthFile.decode("$DOCKER_AUTH_CONFIG", given)) })
      const named = yield* variable("REGISTRY_AUTH_FILE")
      if (named !== "") return [...sources, ...yield* read(named, true)]
      const [docker, home, runtime, config] = yield* Effect.all([variable("DOCKER_CONFIG"), variable("HOME"), variable("XDG_RUNTIME_DIR"), variable("XDG_CONFIG_HOME")])
      const folder = config !== "" ? config : home === "" ? "" : `${home}/.config`
      for (const path of [
        docker === "" ? "" : `${docker}/config.json`, runtime === "" ? "" : `${runtime}/containers/auth.json`,
        folder === "" ? "" : `${folder}/containers/auth.json`, docker !== "" || home === "" ? "" : `${home}/.docker/config.json`
      ]) if (path !== "") sources.push(...yield* read(path, false))
      return sources
    })
    const environment = <A, E>(self: Effect.Effect<A, E | Config.ConfigError>) => self.pipe(
      Effect.catchTag("ConfigError", () => Effect.fail(new CredentialsError({ path: "the environment", problem: "a variable cannot be read" }))),
      Effect.provideService(ConfigProvider.ConfigProvider, provider))
    const all = yield* Effect.cached(environment(load))
    const searched = yield* Effect.cached(environment(variable("PATH")))
    const asked = new Map<string, Effect.Effect<Option.Option<AuthFile.Found>, HelperError>>()
    const helper = Effect.fnUntraced(function*(name: string, host: string, from: string) {
      const key = `${name} ${host}`
      const path = yield* searched
      const known = asked.get(key) ?? (yield* Effect.cached(Helper.get(name, host === hostOf("docker.io") ? hubKey : host, from, path === "" ? undefined : path)))
      asked.set(key, known)
      return yield* known
    })
    const find = Effect.fnUntraced(function*(domain: string, path = "") {
      const host = hostOf(domain)
      for (const { file, path: from } of yield* all) {
        const own = file.helpers.get(host)
        const told = own === undefined ? Option.none<AuthFile.Found>() : yield* helper(own, host, `credHelpers in ${from}`)
        if (Option.isSome(told)) return told
        for (const key of AuthFile.keys(host, path)) {
          if (key === host && own === undefined && file.store !== undefined) {
            const stored = yield* helper(file.store, host, `credsStore in ${from}`)
            if (Option.isSome(stored)) return stored
          }
          const found = file.auths.get(key)
          if (found !== undefined) return Option.some(found)
        }
      }
      return Option.none<AuthFile.Found>()
    })
    return Credentials.of({ find })
  }))

  /** Nobody has credentials: for tests and for asking anonymously. */
  static readonly anonymous = Layer.succeed(Credentials, { find: () => Effect.succeedNone })
}
