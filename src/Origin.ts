import { Effect, Result, Schema } from "effect"
import * as Reference from "./image/Reference.ts"
import { NetworkError, NotFound, type Tried, Unauthorized } from "./registry/Errors.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import { urlOf } from "./registry/route/Route.ts"

/** A place that may serve the repository, in the order in which they are asked. */
export const PlannedEndpoint = Schema.Struct({
  /** The repository's URL there. */
  url: Schema.String,
  /** The rule that put it there: `file:line`, or a sentence. */
  why: Schema.String,
  mirror: Schema.Boolean,
  /** Whether it may say what a tag points at, and give content by digest. */
  tags: Schema.Boolean,
  content: Schema.Boolean,
  /** Whether its certificate is checked. */
  verified: Schema.Boolean,
  /** Whether it is the one that answered. */
  chosen: Schema.Boolean,
  /** Why it is left out, if it is. */
  aside: Schema.optionalKey(Schema.String)
})

/** What every plan says of what was asked for, and of where it comes from. */
export const fields = {
  /** The normalised reference. */
  reference: Schema.String,
  /** The tag or digest to record; a digest wins over a tag beside it. */
  name: Schema.String,
  /** Who answered (`https://host:port`), or `store` when a digest was there already. */
  endpoint: Schema.String,
  endpoints: Schema.optionalKey(Schema.Array(PlannedEndpoint)),
  /** Where the credentials came from that the endpoint wanted: a helper, a file and the key in it, the environment; `anonymous`: none. Never the secret. */
  credentials: Schema.optionalKey(Schema.String)
}

/** The endpoints of a repository, and which gave `answer` with what credentials. */
export const of = Effect.fn("Origin.of")(function*(repository: Repository, answer: { readonly route?: string; readonly credentials?: string }) {
  const routes = yield* (yield* Registry).routes(repository)
  return {
    endpoints: routes.map(({ aside, route }) => {
      const url = urlOf(route)
      return {
        url, why: route.why, mirror: route.mirror, tags: route.tags, content: route.content, verified: route.tls.verify, chosen: url === answer.route,
        ...aside === undefined ? {} : { aside }
      }
    }),
    ...answer.credentials === undefined ? {} : { credentials: answer.credentials }
  }
})

/** Whether another registry may have what this error says was not got. */
const elsewhere = (error: { readonly _tag: string }): error is NetworkError | NotFound | Unauthorized =>
  error instanceof NetworkError || error instanceof NotFound || error instanceof Unauthorized

const withTried = (error: NetworkError | NotFound | Unauthorized, tried: ReadonlyArray<typeof Tried.Type>) =>
  error instanceof NetworkError ? new NetworkError({ ...error, tried }) : error instanceof NotFound ? new NotFound({ ...error, tried }) : new Unauthorized({ ...error, tried })

/**
 * Does `ask` with each name that `text` may stand for by the configuration, until one has it: an alias, or the search list for names
 * without a registry. Where that says nothing, with `text` itself. When none has it, the error names each.
 */
export const named = <A, E extends { readonly _tag: string }, R>(text: string, ask: (name: string) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const candidates = yield* (yield* Registry).names(text)
    const tried: Array<typeof Tried.Type> = []
    for (const { name, why } of candidates.slice(0, -1)) {
      const result = yield* Effect.result(ask(name))
      if (Result.isSuccess(result)) return result.success
      if (!elsewhere(result.failure)) return yield* Effect.fail(result.failure)
      tried.push({ endpoint: Result.match(Reference.parse(name), { onFailure: () => name, onSuccess: Reference.print }), why, reason: result.failure.message.split("\n")[0] ?? "" })
    }
    return yield* Effect.mapError(ask(candidates.at(-1)?.name ?? text), (error) => tried.length > 0 && elsewhere(error) ? withTried(error, [...tried, ...error.tried ?? []]) : error)
  })
