import { Effect, Redacted, type Scope, Semaphore } from "effect"
import { Jar } from "../auth/Cookies.ts"
import type { ConfigError } from "../config/ConfigError.ts"
import type { Found } from "../auth/Credentials.ts"
import { type NetworkError, Unauthorized } from "../Errors.ts"
import type { Answer, Request, Transport } from "../Transport.ts"

/** What a session is opened with. */
export interface Opening {
  readonly transport: Transport["Service"]
  /** Scheme and host of the index, and whether it is the only registry. */
  readonly index: { readonly url: string; readonly standalone: boolean }
  /** The index's path for the repository's images: asking for it gives a token. */
  readonly path: string
  readonly repository: string
  readonly found: Found | undefined
  /** How an origin is spoken to, and whether it is a stranger to the session: a mirror gets no token, and its word on tokens does not count. */
  readonly speak: (origin: string) => Effect.Effect<Pick<Request, "tls" | "own"> & { readonly stranger?: boolean }, ConfigError>
}

/** Authorization in one v1 session: the token and cookies it was given, and the credentials of the index. */
export interface Access {
  /** Where the credentials come from, or "anonymous". */
  readonly credentials: string
  /** What goes with requests by now. */
  readonly grant: () => "token" | "basic" | "none"
  /** Asks the index for the repository's images and a token, with Basic if there are credentials. */
  readonly enter: Effect.Effect<Answer, NetworkError | ConfigError, Scope.Scope>
  /** GET from the index or an endpoint it named. A token that is refused is replaced once, by entering again. */
  readonly get: (origin: string, path: string, headers?: Readonly<Record<string, string>>) => Effect.Effect<Answer, NetworkError | ConfigError | Unauthorized, Scope.Scope>
}

/**
 * The token of an answer's X-Docker-Token, several joined by `,`: their own commas are followed by no space, while the header's
 * values come joined by `, `. The word Token before one is dropped. undefined: none that can be sent.
 */
export const tokenOf = (header: string | undefined): Redacted.Redacted | undefined => {
  const said = header ?? ""
  const values = said.split(said.includes("=") ? /,\s+(?=token\s|signature=)/i : /,\s+/).map((value) => value.trim().replace(/^token\s+/i, ""))
  const joined = values.filter((value) => value !== "" && value.toLowerCase() !== "token").join(",")
  return joined !== "" && /^[\x20-\x7e]+$/.test(joined) ? Redacted.make(joined) : undefined
}

/**
 * A session with nothing granted yet. Basic goes to the index alone: with the request that asks for a token, and with every request
 * where a standalone registry is asked by https. All else carries the newest token. No redirect carries either.
 */
export const make = Effect.fnUntraced(function*({ found, index, path, repository, speak, transport }: Opening) {
  const jar = new Jar()
  const lock = yield* Semaphore.make(1)
  let token: Redacted.Redacted | undefined
  const credentials = found === undefined || found.username === "" ? undefined : found
  const basic = credentials && Redacted.make(`Basic ${Buffer.from(`${credentials.username}:${Redacted.value(credentials.password)}`).toString("base64")}`)
  const always = basic !== undefined && index.standalone && index.url.startsWith("https:")
  const source = credentials?.source ?? "anonymous"

  const send = Effect.fnUntraced(function*(origin: string, path: string, headers: Readonly<Record<string, string>>, authorization: Redacted.Redacted | undefined) {
    const { stranger = false, ...way } = yield* speak(origin)
    const answer = yield* transport.send({ url: `${origin}${path}`, headers, authorization: stranger ? undefined : authorization, cookies: jar, once: true, ...way })
    // What another origin says after a redirect is no grant.
    if (!answer.moved && !stranger) token = tokenOf(answer.headers["x-docker-token"]) ?? token
    return answer
  })
  const enter = send(index.url, path, { accept: "application/json", "x-docker-token": "true" }, basic)

  /** Whether there is another token than `used`, after asking for one if need be. */
  const renewed = (used: Redacted.Redacted) => lock.withPermits(1)(Effect.gen(function*() {
    if (token !== used) return true
    const answer = yield* enter
    yield* answer.close
    return answer.status === 200 && token !== used
  }).pipe(Effect.scoped))

  const get = Effect.fnUntraced(function*(origin: string, path: string, headers: Readonly<Record<string, string>> = {}) {
    const used = token
    const byToken = used && Redacted.make(`Token ${Redacted.value(used)}`)
    const answer = yield* send(origin, path, headers, always && origin === index.url ? basic : byToken)
    if (answer.status !== 401 || answer.moved || used === undefined || (yield* speak(origin)).stranger === true || (always && origin === index.url)) return answer
    yield* answer.close
    if (!(yield* renewed(used))) {
      return yield* new Unauthorized({ host: answer.host, repository, denied: false, credentials: source, detail: "it refuses its token, and the index gives no other" })
    }
    return yield* send(origin, path, headers, token && Redacted.make(`Token ${Redacted.value(token)}`))
  })
  return { credentials: source, grant: () => always ? "basic" : token === undefined ? "none" : "token", enter, get } satisfies Access
})
