import { Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { Downloads } from "./Download.ts"
import { Descriptor } from "./image/Descriptor.ts"
import { Digest, parts } from "./image/Digest.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { type Source, Upkeep } from "./store/upkeep/Upkeep.ts"

/** The store has no such blob, and no registry is remembered that gave it. */
export class NoSource extends Schema.TaggedError<NoSource>()("NoSource", { digest: Digest }) {
  override get message() {
    return `the store has no blob ${this.digest}, and does not know where it came from: pull or load its image again`
  }
}

/** A repository from its normalised name. */
export const repositoryOf = (name: string): Repository => {
  const slash = name.indexOf("/")
  return { domain: name.slice(0, slash), path: name.slice(slash + 1) }
}

const digestAs = (digest: Digest, bytes: Uint8Array) => {
  const { algorithm } = parts(digest)
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`
}

/** Puts a blob that is not there into the store again, from one of the places it came from. Gives which, in words. */
const once = Effect.fnUntraced(function*(digest: Digest, { media_type: mediaType, repository: name, role, size }: Source) {
  const blob = new Descriptor({ mediaType, digest, size })
  const blobs = yield* BlobStore
  if (role === "config") {
    const bytes = yield* (yield* Upkeep).configOf(digest)
    if (bytes !== undefined && digestAs(digest, bytes) === digest) {
      yield* blobs.put(blob, bytes)
      return "written again from the image's row"
    }
  }
  if (name === null) return yield* new NoSource({ digest })
  const repository = repositoryOf(name)
  if (role === "manifest" || role === "index") {
    const { endpoint, raw } = yield* (yield* Registry).manifest(repository, digest)
    yield* blobs.put(blob, raw)
    return `fetched again from ${endpoint}`
  }
  yield* Effect.scoped(Effect.flatMap(Downloads, (downloads) => Effect.flatMap(downloads.get(blob, repository), ({ done }) => done)))
  return `fetched again from ${name}`
})

/** Puts a blob into the store again, from the first of the places that has it; fails as the last one did. Gives which, in words. */
export const from = Effect.fn("Refetch.from")(function*(digest: Digest, sources: ReadonlyArray<Source>): Effect.fn.Return<
  string, Effect.Error<ReturnType<typeof once>>, Effect.Services<ReturnType<typeof once>>
> {
  let failure: Effect.Error<ReturnType<typeof once>> = new NoSource({ digest })
  for (const source of sources) {
    const tried = yield* Effect.result(once(digest, source))
    if (Result.isSuccess(tried)) return tried.success
    // What a registry answered says more than that another image's origin is not known.
    if (failure._tag === "NoSource" || tried.failure._tag !== "NoSource") failure = tried.failure
  }
  return yield* Effect.fail(failure)
})

/** Layers as an image lists them. */
type Listed = ReadonlyArray<{ readonly blob: Descriptor; readonly diffId: Digest }>

/** Of the layers those that are in no blob of the store. */
export const lacking = Effect.fn("Refetch.lacking")(function*(layers: Listed) {
  const blobs = yield* BlobStore
  const store = yield* LayerStore
  return yield* Effect.filter(layers, Effect.fnUntraced(function*({ blob, diffId }) {
    return Option.isNone(yield* blobs.find(blob.digest)) && (yield* store.blobsOf(diffId)).length === 0
  }))
})

/** Fetches the blobs of layers that are in no blob of the store, from where their images came. Lease them first. */
export const layers = Effect.fn("Refetch.layers")(function*(all: Listed) {
  const upkeep = yield* Upkeep
  const distinct = new Set((yield* lacking(all)).map(({ blob }) => blob.digest))
  yield* Effect.forEach(distinct, (digest) => Effect.flatMap(upkeep.sources(digest), (sources) => from(digest, sources)), { concurrency: 4, discard: true })
})
