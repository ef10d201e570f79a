import { Effect, Option, Result } from "effect"
import * as Reference from "./image/Reference.ts"
import * as Pull from "./Pull.ts"
import { Graph } from "./store/Graph.ts"
import { type Earlier, History } from "./store/names/History.ts"

/** What a rollback did: the tag names `image` by `digest` again. */
export interface RolledBack {
  readonly reference: string
  readonly digest: string
  readonly manifest: string
  readonly image: string
}

/**
 * Pulls what a tag was, by digest, from where it came, else from the tag's own repository. Of an image of before schema2 the registry knows what
 * the tag led to, and not the manifest that was made of it. Gives the name that the image has by that alone, if it got one.
 */
const again = Effect.fnUntraced(function*(own: string, { manifest, target }: Earlier, options: Pull.PullOptions) {
  const names = new Set([...yield* (yield* History).sources(manifest), own])
  const ways = [...names].flatMap((name) => [...new Set([manifest, target])].map((reference) => ({ name, reference })))
  let [failure]: Array<Pull.PullError> = []
  for (const way of ways) {
    const known = yield* (yield* Graph).targetOf(way)
    const tried = yield* Effect.result(Pull.pull(`${way.name}@${way.reference}`, options))
    if (Result.isSuccess(tried)) return known === undefined ? way : undefined
    failure ??= tried.failure
    if (tried.failure._tag !== "NotFound") break
  }
  if (failure !== undefined) return yield* Effect.fail(failure)
})

/**
 * Lets a tag point at what it pointed at before; once more goes one further back. What the store has no more is pulled again,
 * by its digest, from where it came. Nothing is asked for otherwise.
 */
export const rollback = Effect.fn("Rollback.rollback")(function*(text: string, options: Pull.PullOptions = {}) {
  const reference = yield* Effect.fromResult(Reference.parse(text))
  const tag = { name: Reference.name(reference), reference: reference.tag ?? "latest" }
  const history = yield* History
  const value = yield* history.earlier(tag)
  const known = yield* (yield* Graph).byManifest(value.manifest)
  const instead = Option.isNone(known) || known.value.missing.length > 0 ? yield* again(tag.name, value, options) : undefined
  yield* history.restore(tag, value, instead)
  const done: RolledBack = { reference: `${tag.name}:${tag.reference}`, digest: value.target, manifest: value.manifest, image: value.image }
  return done
})
