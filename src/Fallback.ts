import { Effect, Result } from "effect"
import * as Reference from "./image/Reference.ts"
import * as Policy from "./Policy.ts"
import { NetworkError, type RegistryFailure } from "./registry/Errors.ts"
import * as Protocol from "./registry/route/Protocol.ts"
import { Registry } from "./registry/Registry.ts"
import { type V1Index, V1Registry } from "./registry/V1Registry.ts"

const tags: ReadonlySet<string> = new Set(["NetworkError", "Unauthorized", "NotFound", "AnswerRefused", "CredentialsError", "HelperError", "ConfigError", "Blocked", "VerifyError"])

/** Whether an error is a registry client's. */
export const isRegistryFailure = (error: { readonly _tag: string }): error is RegistryFailure => tags.has(error._tag)

/** What a failed pull means to the table of decisions. */
const causeOf = (error: { readonly _tag: string }): Protocol.Cause =>
  isRegistryFailure(error) ? Protocol.causeOf(error) : error._tag === "StoreError" ? "local" : "content"

/**
 * After a v2 registry did not give `reference`: the v1 endpoint to try, where what answers there shows that it does not speak
 * v2. Undefined: the failure stands. `Protocol.next` decides; the v2 endpoints are pinged, which only a failure costs.
 */
export const legacyOrigin = Effect.fn("Pull.legacyOrigin")(function*(reference: Reference.Reference, error: RegistryFailure) {
  const registry = yield* Registry
  const cause = causeOf(error)
  if (reference.digest !== undefined || cause === "local") return undefined
  const repository = { domain: reference.domain, path: reference.path }
  const list = yield* registry.endpoints(repository, "safe")
  if (!list.some(({ version }) => version === 1)) return undefined
  let walk = Protocol.start
  for (const [at, endpoint] of list.entries()) {
    if (endpoint.version === 1) break
    const pinged = yield* Effect.result(registry.ping(repository, endpoint.url))
    const outcome: Protocol.Outcome = Result.isSuccess(pinged)
      ? { step: "pull", cause, v2: pinged.success.v2 } : { step: "ping", cause: causeOf(pinged.failure), v2: false }
    const step = Protocol.next("safe", list, { ...walk, at }, outcome)
    if (step._tag === "Final") return undefined
    walk = step.walk
    const next = list[walk.at]
    if (next?.version === 1) return next.url
  }
  return undefined
})

/** How to pull from an endpoint of each version. */
export interface Ways<A, E, R, R1> {
  readonly v2: Effect.Effect<A, E, R>
  readonly v1: (index: V1Index) => Effect.Effect<A, E, R1>
}

/** The walk of Docker 1.9.1 along a reference's endpoints (graph/pull.go): whatever fails may lead to the next, by its table. */
export const historical = Effect.fn("Pull.historical")(function*<A, E extends { readonly _tag: string }, R, R1>(
  reference: Reference.Reference, ways: Ways<A, E, R, R1>
) {
  const registry = yield* Registry
  const legacy = yield* V1Registry
  const repository = { domain: reference.domain, path: reference.path, ...(reference.digest === undefined ? {} : { pinned: true }) }
  const list = yield* registry.endpoints(repository, "docker-1.9")
  const byDigest = new NetworkError({ host: reference.domain, reason: "protocol", transient: false, detail: "Cannot pull by digest with v1 registry" })
  let last: E | RegistryFailure = new NetworkError({
    host: reference.domain, reason: "protocol", transient: false, detail: `no endpoints found for ${Reference.name(reference)}`
  })
  let walk = Protocol.start
  for (;;) {
    const endpoint = list[walk.at]
    if (endpoint === undefined) return yield* Effect.fail(last)
    const ping = (error: RegistryFailure | NetworkError, cause: Protocol.Cause = causeOf(error)) =>
      ({ error, outcome: { step: "ping", cause, v2: false } satisfies Protocol.Outcome })
    const failed = yield* Effect.gen(function*() {
      if (endpoint.version === 1 && reference.digest !== undefined) return ping(byDigest, "by-digest")
      const index = endpoint.version === 1 ? yield* Effect.result(legacy.ping(repository, endpoint.url)) : undefined
      if (index !== undefined && Result.isFailure(index)) return ping(index.failure)
      const pinged = index !== undefined || endpoint.trusted ? undefined : yield* Effect.result(registry.ping(repository, endpoint.url))
      if (pinged !== undefined && Result.isFailure(pinged)) return ping(pinged.failure)
      if (pinged !== undefined && !pinged.success.v2) {
        return ping(new NetworkError({ host: reference.domain, reason: "protocol", transient: false, detail: `${endpoint.url}/v2/: endpoint does not support v2 API` }), "absent")
      }
      const done = yield* index === undefined ? Effect.result(ways.v2) : Effect.result(ways.v1(index.success))
      return Result.isSuccess(done) ? done
        : { error: done.failure, outcome: { step: "pull", cause: causeOf(done.failure), v2: pinged !== undefined } satisfies Protocol.Outcome }
    })
    if ("success" in failed) return failed.success
    const { error, outcome } = failed
    const step = Protocol.next("docker-1.9", list, walk, outcome)
    if (step._tag === "Final") return yield* Effect.fail(error)
    if (step.remember) last = error
    walk = step.walk
  }
})

/** `run` of a v2 plan, or `v1` where policy leads there: after a plan that shows that v2 is absent, or as Docker 1.9.1 walked. */
export const either = Effect.fnUntraced(function*<P, A, B, E extends { readonly _tag: string }, E1 extends { readonly _tag: string }, E2 extends { readonly _tag: string }, R, R1, R2>(
  reference: Reference.Reference,
  ways: { readonly plan: Effect.Effect<P, E, R>; readonly run: (plan: P) => Effect.Effect<A, E1, R1>; readonly v1: (index: V1Index) => Effect.Effect<B, E2, R2> }
) {
  if ((yield* Policy.Protocol) === "docker-1.9") return yield* historical<A | B, E | E1 | E2, R | R1, R2>(reference, { v2: Effect.flatMap(ways.plan, ways.run), v1: ways.v1 })
  const planned = yield* Effect.result(ways.plan)
  if (Result.isSuccess(planned)) return yield* ways.run(planned.success)
  const error = planned.failure
  const origin = isRegistryFailure(error) ? yield* legacyOrigin(reference, error) : undefined
  if (origin === undefined) return yield* Effect.fail(error)
  return yield* ways.v1(yield* (yield* V1Registry).ping({ domain: reference.domain, path: reference.path }, origin))
})
