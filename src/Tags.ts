import { Effect, Result } from "effect"
import * as Fallback from "./Fallback.ts"
import * as Reference from "./image/Reference.ts"
import { Registry } from "./registry/Registry.ts"
import { V1Registry } from "./registry/V1Registry.ts"

/** The tags of a repository, and who was asked. */
export interface Tags {
  /** The repository, normalised: `docker.io/library/debian`. */
  readonly name: string
  readonly protocol: "v1" | "v2"
  readonly tags: ReadonlyArray<string>
}

/** All tags of the repository that `text` names; a tag in it does not matter. v1 is asked where v2 is absent. */
export const list = Effect.fn("Tags.list")(function*(text: string) {
  const reference = yield* Effect.fromResult(Reference.parse(text))
  const repository = { domain: reference.domain, path: reference.path }
  const name = `${repository.domain}/${repository.path}`
  const found = yield* Effect.result((yield* Registry).tags(repository))
  if (Result.isSuccess(found)) return { name, protocol: "v2", tags: found.success } satisfies Tags as Tags
  const origin = yield* Fallback.legacyOrigin(reference, found.failure)
  if (origin === undefined) return yield* found.failure
  const registry = yield* V1Registry
  const session = yield* registry.session(repository, yield* registry.ping(repository, origin))
  return { name, protocol: "v1", tags: [...(yield* session.tags).keys()] } satisfies Tags as Tags
})
