import { Effect, Option } from "effect"
import * as Reference from "./image/Reference.ts"
import * as Pull from "./Pull.ts"
import { Graph } from "./store/Graph.ts"
import { History } from "./store/History.ts"

/** What a rollback did: the tag names `image` by `digest` again. */
export interface RolledBack {
  readonly reference: string
  readonly digest: string
  readonly manifest: string
  readonly image: string
}

/**
 * Lets a tag point at what it pointed at before; once more goes one further back. What the store has no more is pulled again,
 * by its digest, from the tag's repository. Nothing is asked for otherwise.
 */
export const rollback = Effect.fn("Rollback.rollback")(function*(text: string, options: Pull.PullOptions = {}) {
  const reference = yield* Effect.fromResult(Reference.parse(text))
  const tag = { name: Reference.name(reference), reference: reference.tag ?? "latest" }
  const history = yield* History
  const value = yield* history.earlier(tag)
  const known = yield* (yield* Graph).byManifest(value.manifest)
  if (Option.isNone(known) || known.value.missing.length > 0) yield* Pull.pull(`${tag.name}@${value.manifest}`, options)
  yield* history.restore(tag, value)
  const done: RolledBack = { reference: `${tag.name}:${tag.reference}`, digest: value.target, manifest: value.manifest, image: value.image }
  return done
})
