import { Effect, Option, Schema, type Scope } from "effect"
import { Descriptor } from "./image/Descriptor.ts"
import { type Digest, is } from "./image/Digest.ts"
import { type LayerError, Layers } from "./Layers.ts"
import { repositoryOf } from "./Refetch.ts"
import { NotInStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import { type AmbiguousName, Graph, type ImageNotFound } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import { Upkeep } from "./store/upkeep/Upkeep.ts"

/** An unpacked layer: it stays in the store until the scope it was opened in closes. It is for reading only. */
export interface OpenLayer {
  readonly diffId: Digest
  /** The folder with its files: nothing else is in it. */
  readonly files: string
  /** A file that says what they cannot: whiteouts, opaque folders, and what this host could not set. */
  readonly journal: string
  /** The sum of its tar's header sizes in bytes, and its tar's entries. */
  readonly size: number
  readonly entries: number
}

/** The image has no layers at all. */
export class NoLayer extends Schema.TaggedError<NoLayer>()("NoLayer", { image: Schema.String }) {
  override get message() {
    return `the image ${this.image} has no layers: there is none to open`
  }
}

/** What opening layers needs: the whole of `Towline.layer`, and a scope. */
type Needs = Graph | LayerStore | Layers | Leases | Upkeep | Scope.Scope

/** Unpacks a layer of which only the blob is here, as after `pull --no-unpack`. */
const unpacked = Effect.fnUntraced(function*(diffId: Digest, blob: Digest) {
  const stored = (yield* (yield* Upkeep).blobsOf(diffId)).find(({ stored }) => stored)
  if (stored === undefined) return yield* new NotInStore({ digest: blob })
  const { digest, media_type: mediaType, repository, size } = stored
  const wanted = { blob: new Descriptor({ mediaType, digest, size }), diffId, repository: repositoryOf(repository ?? "localhost/unknown") }
  yield* Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get(wanted)))
})

const open = Effect.fnUntraced(function*(diffId: Digest, blob: Digest) {
  const store = yield* LayerStore
  yield* (yield* Leases).hold([diffId, blob])
  if (Option.isNone(yield* store.find(diffId))) yield* unpacked(diffId, blob)
  const there = yield* store.find(diffId)
  if (Option.isNone(there)) return yield* new NotInStore({ digest: blob })
  const { entries, folder, size } = there.value
  return { diffId, files: `${folder}/fs`, journal: `${folder}/meta`, size, entries } satisfies OpenLayer as OpenLayer
})

/**
 * Opens the unpacked layers of an image, lowest first. `text` is a name, a digest, an id or the beginning of one, as for `graph show`. They are
 * pinned, in all processes, until the scope closes: neither `rm` nor `gc` takes them. A layer of which only the blob is here is unpacked;
 * nobody is asked for one that is not here (`NotInStore`).
 */
export const layers = Effect.fn("Store.layers")(function*(text: string): Effect.fn.Return<
  ReadonlyArray<OpenLayer>, StoreError | ImageNotFound | AmbiguousName | NotInStore | LayerError, Needs
> {
  const image = yield* (yield* Graph).resolve(text)
  return yield* Effect.forEach(image.layers, ({ blob, diffId }) => open(diffId, blob.digest))
})

/** Opens one unpacked layer, as `layers`: by its diff ID, by the digest of a blob it came in, or the topmost of an image. */
export const layer = Effect.fn("Store.layer")(function*(ref: string): Effect.fn.Return<
  OpenLayer, StoreError | ImageNotFound | AmbiguousName | NotInStore | NoLayer | LayerError, Needs
> {
  if (is(ref)) {
    const [store, upkeep] = [yield* LayerStore, yield* Upkeep]
    const listed = (yield* upkeep.sources(ref)).find(({ diff_id }) => diff_id !== null)?.diff_id ?? Option.getOrUndefined(yield* store.diffIdOf(ref))
    if (listed !== undefined) return yield* open(listed, ref)
    const [known] = yield* upkeep.blobsOf(ref)
    if (known !== undefined || Option.isSome(yield* store.find(ref))) return yield* open(ref, known?.digest ?? ref)
  }
  const top = (yield* (yield* Graph).resolve(ref)).layers.at(-1)
  return top === undefined ? yield* new NoLayer({ image: ref }) : yield* open(top.diffId, top.blob.digest)
})
