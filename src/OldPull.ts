import { Effect, Option } from "effect"
import { Downloads } from "./Download.ts"
import { Durability } from "./Durability.ts"
import * as Held from "./Held.ts"
import { Descriptor } from "./image/Descriptor.ts"
import * as Config from "./image/ImageConfig.ts"
import * as MediaType from "./image/MediaType.ts"
import type { Unset } from "./layer/Job.ts"
import { Layers } from "./Layers.ts"
import type { Hub } from "./progress/Hub.ts"
import type { PullEvent } from "./progress/PullEvent.ts"
import type { PulledImage, PullOptions } from "./Pull.ts"
import * as Register from "./Register.ts"
import type { Repository } from "./registry/Registry.ts"
import * as RootFs from "./RootFs.ts"
import type { Schema1Plan } from "./Schema1Plan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import { Graph, type Image, type TagName } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { unsetSentence } from "./Unset.ts"

/** Bytes a generated config may have. */
const configCap = 16 * 1024 * 1024
/** An image of the old graph that a pull has registered. */
export interface Outcome {
  readonly reference: string
  readonly repository: Repository
  readonly image: Image
  readonly target: Image["manifest"]
  readonly changed: boolean
  readonly unsets: ReadonlyArray<Unset>
}

/** What follows once an image of the old graph is registered: its root file system, if one is asked for, and the last events. */
export const finish = Effect.fnUntraced(function*(hub: Hub<PullEvent>, options: PullOptions, { changed, image, reference, repository, target, unsets }: Outcome) {
  yield* Held.hold([image.manifest.digest, image.config.digest, ...image.layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])])
  const layers = image.layers.map((layer) => ({ ...layer, repository }))
  const root = options.rootfs === undefined ? undefined : yield* RootFs.assemble(layers, options.rootfs, options.link ?? "auto", options.owners)
  if (root !== undefined) {
    if ((yield* Durability) === "safe") yield* (yield* LayerStore).sync(root.path)
    yield* root.publish
  }
  const warning = unsetSentence(root?.unset ?? unsets)
  if (warning !== undefined) hub.publish({ _tag: "warning", reference, message: warning })
  const raw = yield* (yield* BlobStore).read(image.config.digest, configCap)
  const config = yield* Effect.fromResult(Config.decode(raw))
  hub.publish({ _tag: "done", reference, digest: target.digest, image: image.id, changed })
  return {
    reference, target, manifest: image.manifest, id: image.id, platform: image.platform, config: { descriptor: image.config, image: config }, layers, changed
  } satisfies PulledImage
})

/** The image a name has now. */
export const named = Effect.fnUntraced(function*({ name, reference }: TagName) {
  const found = yield* (yield* Graph).resolve(`${name}${reference.includes(":") ? "@" : ":"}${reference}`).pipe(
    Effect.asSome, Effect.catchTags({ ImageNotFound: () => Effect.succeedNone, AmbiguousName: () => Effect.succeedNone }))
  return Option.filter(found, ({ tags }) => tags.some((tag) => tag.name === name && tag.reference === reference))
})

/** The blob with the media type that its bytes show, where they are in the store: schema1 says nothing of it. */
const typed = Effect.fnUntraced(function*(blob: Descriptor) {
  const blobs = yield* BlobStore
  if (Option.isNone(yield* blobs.find(blob.digest))) return blob
  let head = new Uint8Array(0)
  const { fd, path } = yield* blobs.open(blob.digest)
  yield* Disk.forEachPiece(fd, 8, path, (piece) => { head = Uint8Array.from(piece) })
  const compression = MediaType.compressionOf(head)
  return compression === "bzip2" || compression === "xz" ? blob : new Descriptor({ ...blob, mediaType: MediaType.layerOf(compression) })
}, Effect.scoped)

/** Pulls a schema1 manifest's images: layers in parallel, then all images and the tag in one step. */
export const schema1 = Effect.fn("Pull.schema1")(function*(hub: Hub<PullEvent>, plan: Schema1Plan, options: PullOptions) {
  const { reference, repository, target } = plan
  const graph = yield* Graph
  hub.publish({ _tag: "resolved", reference, digest: target.digest, mediaType: target.mediaType, endpoint: plan.endpoint })
  if (plan.keys.length > 0) hub.publish({ _tag: "verified", reference, by: plan.keys })
  if (!plan.fits) hub.publish({ _tag: "warning", reference, message: `the image is for ${plan.platform}, and runs on ${plan.wanted} only by emulation` })
  yield* Held.hold([
    ...plan.documents.map(({ descriptor }) => descriptor.digest),
    ...plan.images.flatMap(({ blob, diffId }) => diffId === undefined ? [blob.digest] : [blob.digest, diffId])
  ])
  const distinct = [...new Map(plan.images.map((image) => [image.blob.digest, image])).values()]
  const wantsBlob = options.blobs === true
  const lacks = ({ state, stored }: (typeof distinct)[number]) => state !== "unpacked" || (wantsBlob && !stored)
  const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((a, b) => a + b, 0)
  hub.publish({
    _tag: "planned", reference, manifest: target.digest, platform: plan.platform, total: sum(distinct.map(({ blob }) => blob.size)),
    missing: sum(distinct.filter(lacks).map(({ blob, have }) => blob.size - have)),
    layers: plan.images.map(({ blob, id, known, state }) => ({ layer: blob.digest, size: blob.size, state, image: { id, known } }))
  })
  const tag = { name: `${repository.domain}/${repository.path}`, reference: plan.name }
  const unsets: Array<Unset> = []
  const own = new Map<string, Register.OwnLayer>()

  const store = Effect.fnUntraced(function*(image: (typeof distinct)[number]) {
    const { blob, diffId, state } = image
    const layers = yield* LayerStore
    if (!lacks(image)) hub.publish({ _tag: "exists", reference, layer: blob.digest })
    else {
      const download = yield* (yield* Downloads).get(blob, repository)
      yield* download.events.observe((event) => hub.publish({ ...event, reference }))
      if (state === "unpacked") yield* download.done
    }
    const made = yield* Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get({ blob, diffId, repository })))
    if (Option.isSome(made.unpacked)) unsets.push(made.unpacked.value.unset)
    const size = Option.isSome(made.unpacked) ? made.unpacked.value.size : Option.match(yield* layers.find(made.diffId), { onNone: () => 0, onSome: ({ size }) => size })
    if (lacks(image)) hub.publish({ _tag: "committed", reference, layer: blob.digest })
    own.set(blob.digest, { blob: yield* typed(blob), diffId: made.diffId, size })
  }, Effect.scoped)
  const documents = Effect.flatMap(BlobStore, (blobs) => Effect.forEach(plan.documents, ({ descriptor, raw }) => blobs.put(descriptor, raw), { discard: true }))
  const largestFirst = [...distinct].sort((a, b) => b.blob.size - a.blob.size)
  yield* Effect.all([Effect.forEach(largestFirst, store, { concurrency: "unbounded", discard: true }), documents], { concurrency: 2 })
  // One lease more, for what is known only now.
  yield* Held.hold([...own.values()].map(({ diffId }) => diffId))

  const images = plan.images.map((image): Register.LayeredImage => ({
    id: image.id, kind: "schema1", parent: image.parent, json: new TextEncoder().encode(image.config), compatibility: image.v1Compatibility,
    checksum: image.blob.digest, layer: own.get(image.blob.digest)
  }))
  const last = plan.images.at(-1)
  const current = yield* named(tag)
  const same = Option.filter(current, ({ id }) => id === last?.id)
  const extracted = plan.images.some(({ known }) => !known)
  if (Option.isSome(same) && !extracted && distinct.every((image) => !lacks(image))) {
    const found = yield* graph.find(target.digest, plan.wanted)
    if (Option.exists(found, ({ id }) => id === last?.id)) return yield* finish(hub, options, { reference, repository, image: same.value, target, changed: false, unsets })
  }
  const unknown = images.slice(Math.max(0, plan.images.findIndex(({ known }) => !known)))
  const image = yield* Register.enroll(extracted ? unknown : images.slice(-1), {
    tags: [tag], target: target.digest, wanted: plan.wanted, also: plan.documents.map(({ descriptor }) => descriptor),
    ...(plan.endpoint === "store" ? {} : { origin: { repository: tag.name, endpoint: plan.endpoint } })
  })
  if (Option.isNone(same)) hub.publish({ _tag: "tagged", reference, digest: target.digest, ...(Option.isSome(current) ? { moved: true } : {}) })
  return yield* finish(hub, options, { reference, repository, image, target, changed: true, unsets })
}, Effect.scoped)
