import { Clock, Duration, Effect, Result, type Scope } from "effect"
import { RegistryOptions } from "./Endpoint.ts"
import { AnswerRefused, NetworkError, NotFound, type RegistryFailure, type Tried, Unauthorized } from "../Errors.ts"
import { type Repository, type Route, Routes, urlOf } from "./Route.ts"

/** Something the user should know of a registry, though requests go on. */
export interface Notice {
  /** The registry's domain, as references write it. */
  readonly domain: string
  readonly message: string
}

/**
 * A mirror that failed is left out for this long, and for less where a tag is resolved again: then a new pull begins. It is left out for
 * longer while one lasts that had begun by then.
 */
const absence = Duration.minutes(10)
const shortAbsence = Duration.seconds(30)

/** A body that breaks this often, mirror by mirror, is asked for elsewhere. */
const patience = 3

interface Mark { readonly reason: string; readonly since: number }

const short = (error: RegistryFailure): string => {
  if (error._tag === "NetworkError") return error.detail
  if (error._tag === "VerifyError") return "what it sent has another digest or size"
  if (error._tag === "NotFound") return error.what === "repository" ? "it has no such repository" : "not found there"
  if (error._tag === "Unauthorized") return `${error.denied ? "access denied" : "not authorised"} (credentials: ${error.credentials})`
  if (error._tag === "AnswerRefused") return error.rule
  return error.message
}

/** The same error, with what else was tried. Those that are of this machine or of the content stay as they are. */
const after = (error: RegistryFailure, tried: ReadonlyArray<typeof Tried.Type>): RegistryFailure => {
  switch (error._tag) {
    case "NetworkError": return new NetworkError({ ...error, tried })
    case "NotFound": return new NotFound({ ...error, tried })
    case "Unauthorized": return new Unauthorized({ ...error, tried })
    case "AnswerRefused": return new AnswerRefused({ ...error, tried })
    default: return error
  }
}

/** What was learned of mirrors, for all pulls of a process. */
export interface Walk {
  /** Asks the routes that may `need` in order, until one answers; a mirror's failure is passed over, the last route's is the error. */
  readonly first: <A, R>(
    repository: Repository, need: "tags" | "content", ask: (route: Route) => Effect.Effect<A, RegistryFailure, R>
  ) => Effect.Effect<A, RegistryFailure, R>
  /** What a route sent is not what was asked for: whether there is another to ask, since this one is a mirror and is left out from now on. */
  readonly distrust: (repository: Repository, route: Route) => Effect.Effect<boolean>
  /** A body from this route broke. */
  readonly broke: (repository: Repository, route: Route, error: NetworkError) => Effect.Effect<void>
  /** The routes to a repository, and why one is left out now. */
  readonly routes: (repository: Repository) => Effect.Effect<ReadonlyArray<{ readonly route: Route; readonly aside: string | undefined }>, RegistryFailure>
  /** Tells the listeners, once for each key. */
  readonly tell: (repository: Repository, key: string, message: string) => Effect.Effect<void>
  /** Hears of mirrors that are left out and of what else is told, until the scope closes: a pull does for all its time. What is left out meanwhile is not asked again before its end. */
  readonly listen: (listener: (notice: Notice) => void) => Effect.Effect<void, never, Scope.Scope>
}

/** A walk that has learned nothing yet. `known`: a route as it is known by now, for those who are told of it. */
export const make = Effect.fnUntraced(function*(known: (route: Route) => Route = (route) => route) {
  const { of } = yield* Routes
  const options = yield* RegistryOptions
  const marks = new Map<string, Mark>()
  const breaks = new Map<string, number>()
  const told = new Set<string>()
  /** Each with the time at which it began to listen. */
  const listeners = new Map<(notice: Notice) => void, number>()

  const leaveOut = Effect.fnUntraced(function*(repository: Repository, route: Route, error: RegistryFailure) {
    const whole = error._tag === "NetworkError" && (error.phase === "connect" || error.reason === "timeout")
    const key = whole ? route.host : urlOf(route)
    const reason = short(error)
    const before = marks.has(key)
    marks.set(key, { reason, since: yield* Clock.currentTimeMillis })
    breaks.delete(key)
    if (before) return
    for (const listener of listeners.keys()) listener({ domain: repository.domain, message: `the mirror ${urlOf(known(route))} (${route.why}) is left out from now on: ${reason}` })
  })

  const markOf = (route: Route, now: number, begins: boolean): Mark | undefined => {
    const still = (key: string) => {
      const mark = marks.get(key)
      if (mark === undefined || now - mark.since < Duration.toMillis(begins ? shortAbsence : absence)) return mark
      if ([...listeners.values()].some((began) => began <= mark.since)) return mark
      marks.delete(key)
      return undefined
    }
    return still(route.host) ?? still(urlOf(route))
  }

  const first = <A, R>(repository: Repository, need: "tags" | "content", ask: (route: Route) => Effect.Effect<A, RegistryFailure, R>): Effect.Effect<A, RegistryFailure, R> =>
    Effect.gen(function*() {
      const all = yield* of(repository, options)
      const able = all.filter((route) => route[need])
      const tried: Array<typeof Tried.Type> = []
      const now = yield* Clock.currentTimeMillis
      for (const [index, route] of able.entries()) {
        const last = index === able.length - 1
        const mark = last ? undefined : markOf(route, now, need === "tags")
        const told = (reason: string) => tried.push({ endpoint: urlOf(known(route)), why: route.why, reason })
        if (mark !== undefined) {
          told(`left out: ${mark.reason}`)
          continue
        }
        const result = yield* Effect.result(ask(route))
        if (Result.isSuccess(result)) return result.success
        const error = result.failure
        told(short(error))
        if (last) return yield* Effect.fail(able.length === 1 ? error : after(error, tried))
        if (error._tag !== "NotFound") yield* leaveOut(repository, route, error)
      }
      return yield* new NetworkError({
        host: repository.domain, reason: "protocol", transient: false,
        detail: `none of its endpoints may be asked for ${need === "tags" ? "tags" : "content"} (${all.map(({ why }) => why).join(", ")})`
      })
    })

  const distrust = Effect.fnUntraced(function*(repository: Repository, route: Route) {
    if (!route.mirror) return false
    marks.delete(urlOf(route))
    yield* leaveOut(repository, route, new AnswerRefused({ host: route.host, subject: "", rule: "what it sent has another digest or size than was asked for" }))
    return true
  })

  const broke = Effect.fnUntraced(function*(repository: Repository, route: Route, error: NetworkError) {
    if (!route.mirror) return
    const key = urlOf(route)
    const times = (breaks.get(key) ?? 0) + 1
    breaks.set(key, times)
    if (error.reason === "timeout" || times >= patience) yield* leaveOut(repository, route, new NetworkError({ ...error, reason: "reset" }))
  })

  const routes = Effect.fnUntraced(function*(repository: Repository): Effect.fn.Return<ReadonlyArray<{ readonly route: Route; readonly aside: string | undefined }>, RegistryFailure> {
    const now = yield* Clock.currentTimeMillis
    return (yield* of(repository, options)).map((route) => ({ route, aside: route.mirror ? markOf(route, now, false)?.reason : undefined }))
  })

  const tell = (repository: Repository, key: string, message: string) => Effect.sync(() => {
    if (told.has(key)) return
    told.add(key)
    for (const listener of listeners.keys()) listener({ domain: repository.domain, message })
  })

  const listen = (listener: (notice: Notice) => void) => Effect.asVoid(Effect.acquireRelease(
    Effect.map(Clock.currentTimeMillis, (now) => listeners.set(listener, now)), () => Effect.sync(() => listeners.delete(listener))))

  return { first, distrust, broke, routes, tell, listen } satisfies Walk
})

