import { Effect, Option, Schema } from "effect"
import type { ArtifactPlan } from "./ArtifactPlan.ts"
import { Downloads } from "./Download.ts"
import { Durability } from "./Durability.ts"
import * as Held from "./Held.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import { type Digest, parts } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import type { Unset } from "./layer/Job.ts"
import { Layers, Limits, Native, perform } from "./Layers.ts"
import type { Hub } from "./progress/Hub.ts"
import type { PullEvent } from "./progress/PullEvent.ts"
import * as PullPlan from "./PullPlan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph, type Image, type Registration, type TagName } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { unsetSentence } from "./Unset.ts"

/** What was asked for needs a root file system, and an artifact has none. */
export class NoFileSystem extends Schema.TaggedError<NoFileSystem>()("NoFileSystem", { name: Schema.String, type: Schema.String }) {
  override get message() {
    return `${this.name} is an artifact of type ${this.type}: it has no layers that are file systems, and is only stored whole; write it out with pull --output oci:DIR, or graph save --format oci-archive`
  }
}

/** The image, or `NoFileSystem` if it is an artifact. */
export const withFiles = (image: Image, name: string) =>
  image.artifact === undefined ? Effect.succeed(image) : Effect.fail(new NoFileSystem({ name, type: image.artifact.type }))

/** A planned image or artifact, and the names it is to get. */
export interface Planned {
  readonly plan: PullPlan.PullPlan | ArtifactPlan
  /** What its events are told under. */
  readonly reference: string
  readonly names: ReadonlyArray<TagName>
  /** Its place among the images of an index that is stored whole. */
  readonly member?: number
}

/** The plans of an index's images, each under its own digest but the chosen one, which is told under the reference and gets the names. */
export const expanded = (plan: PullPlan.PullPlan | ArtifactPlan | PullPlan.IndexPlan, reference: string, names: ReadonlyArray<TagName>): ReadonlyArray<Planned> =>
  plan.kind !== "index" ? [{ plan, reference, names }] : plan.images.map((image, member) => member === plan.chosen
    ? { plan: image, reference, names, member }
    : { plan: image, reference: `${plan.repository.domain}/${plan.repository.path}@${image.manifest.digest}`, names: [], member })

/** How images are stored. */
export interface Storing {
  readonly unpack: boolean
  /** Whether the blobs of layers that are unpacked already are needed too. */
  readonly blobs: boolean
  /** Whether their endpoint is a registry that has them, and not a file. */
  readonly remote: boolean
}

/** Checks that a blob, open as `fd`, is this layer. */
export const checked = Effect.fnUntraced(function*(blob: Descriptor, diffId: Digest, fd: number) {
  const { bytes: limit } = yield* Limits
  const job = { kind: "inflate", fd, size: blob.size, into: undefined, limit, diffId, native: yield* Native } as const
  yield* perform<"inflate">(job, blob.digest, new Control()).pipe(Effect.catchTag("JobStopped", Effect.die))
})

/** One layer into the store, its blob too; true if one of them was not there. */
const storeLayer = Effect.fnUntraced(function*(
  hub: Hub<PullEvent>, { plan, reference }: Planned, layer: PullPlan.PlannedLayer, { blobs, unpack }: Storing, unsets: Array<Unset>
) {
  const { blob, diffId, state, stored } = layer
  if ((stored || !blobs) && state === "unpacked" || stored && !unpack) {
    hub.publish({ _tag: "exists", reference, layer: blob.digest })
    return false
  }
  const download = yield* (yield* Downloads).get(blob, plan.repository)
  yield* download.events.observe((event) => hub.publish({ ...event, reference }))
  if (unpack && state !== "unpacked") {
    const made = yield* Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get({ blob, diffId, repository: plan.repository })))
    if (Option.isSome(made.unpacked)) unsets.push(made.unpacked.value.unset)
  } else {
    yield* download.done
    // The files are there from another blob: this one must hold the same.
    if (state === "unpacked") yield* checked(blob, diffId, yield* download.opened)
  }
  hub.publish({ _tag: "committed", reference, layer: blob.digest })
  return true
}, Effect.scoped)

/** One blob of an artifact into the store, as it is; true if it was not there. */
const storeBlob = Effect.fnUntraced(function*(hub: Hub<PullEvent>, { plan, reference }: Planned, { blob, stored }: ArtifactPlan["blobs"][number]) {
  if (stored) {
    hub.publish({ _tag: "exists", reference, layer: blob.digest })
    return false
  }
  const download = yield* (yield* Downloads).get(blob, plan.repository)
  yield* download.events.observe((event) => hub.publish({ ...event, reference }))
  yield* download.done
  hub.publish({ _tag: "committed", reference, layer: blob.digest })
  return true
}, Effect.scoped)

const once = <A extends { readonly blob: Descriptor }>(items: ReadonlyArray<A>, key: (item: A) => string): ReadonlyArray<A> =>
  [...new Map(items.map((item) => [key(item), item])).values()].sort((a, b) => b.blob.size - a.blob.size)

/** Everything of one image but its row and its names: nothing of it can be seen yet. True if anything was not there. */
const storeImage = Effect.fnUntraced(function*(hub: Hub<PullEvent>, planned: Planned, storing: Storing) {
  const { plan, reference } = planned
  const blobs = yield* BlobStore
  const layers = plan.kind === "artifact" ? [] : yield* PullPlan.states(plan.layers)
  const items = plan.kind === "artifact" ? plan.blobs : layers
  hub.publish({ _tag: "resolved", reference, digest: plan.target.digest, mediaType: plan.target.mediaType, endpoint: plan.endpoint })
  if (!plan.fits) hub.publish({ _tag: "warning", reference, message: `the image is for ${plan.platform}, and runs on ${plan.wanted} only by emulation` })
  if (plan.kind === "artifact" && (planned.member === undefined || planned.names.length > 0)) {
    hub.publish({ _tag: "warning", reference, message: `it is an artifact of type ${plan.type}, not an image: it is stored whole and not unpacked` })
  }
  hub.publish({
    _tag: "planned", reference, manifest: plan.manifest.digest, platform: plan.platform,
    total: items.reduce((sum, { blob }) => sum + blob.size, 0),
    missing: items.reduce((sum, { blob, have }) => sum + blob.size - have, 0),
    layers: items.map(({ blob, state }) => ({ layer: blob.digest, size: blob.size, state }))
  })
  const unsets: Array<Unset> = []
  const moved = plan.kind === "artifact"
    ? yield* Effect.forEach(once(plan.blobs, ({ blob }) => `${blob.digest} ${blob.size}`), (blob) => storeBlob(hub, planned, blob), { concurrency: "unbounded" })
    : yield* Effect.forEach(once(layers, ({ blob, diffId }) => `${blob.digest} ${blob.size} ${diffId}`), (layer) => storeLayer(hub, planned, layer, storing, unsets), { concurrency: "unbounded" })
  yield* Effect.forEach(plan.documents, ({ descriptor, raw }) => blobs.put(descriptor, raw), { discard: true })
  const warning = unsetSentence(unsets)
  if (warning !== undefined) hub.publish({ _tag: "warning", reference, message: warning })
  return moved.some((changed) => changed)
})

/** A tag that now names another image; `id` is the one it named, which may have no name left. */
export interface Renamed extends TagName {
  readonly id: string
}

/** The image a name stands for now. */
const named = ({ name, reference }: TagName) => Effect.flatMap(Graph, (graph) => graph.resolve(`${name}${reference.includes(":") ? "@" : ":"}${reference}`)).pipe(
  Effect.map((image): Option.Option<Image> => image.tags.some((tag) => tag.name === name && tag.reference === reference) ? Option.some(image) : Option.none()),
  Effect.catchTags({ ImageNotFound: () => Effect.succeedNone, AmbiguousName: () => Effect.succeedNone }))

/** What is to become visible of a stored image, if anything is, and what it takes names from. */
const registration = Effect.fnUntraced(function*({ member, names, plan }: Planned, moved: boolean, synced: boolean, remote: boolean) {
  const graph = yield* Graph
  const known = yield* graph.byManifest(plan.manifest.digest)
  const id = parts((plan.kind === "artifact" ? plan.manifest : plan.config).digest).hex
  const fresh: Array<TagName> = []
  const renamed: Array<Renamed> = []
  for (const name of names) {
    const current = yield* named(name)
    const same = Option.exists(current, ({ manifest }) => manifest.digest === plan.manifest.digest)
    if (!same) {
      fresh.push(name)
        // The same image in another manifest keeps its name.
      if (Option.isSome(current) && current.value.id !== id) renamed.push({ ...name, id: current.value.id })
    } else if ((yield* graph.targetOf(name)) !== plan.target.digest) fresh.push(name)
  }
  const isMember = member === undefined || (yield* graph.members(plan.target.digest)).some(({ manifest }) => manifest.digest === plan.manifest.digest)
  const changed = moved || fresh.length > 0 || Option.isNone(known) || !isMember
  const { manifest, platform, target, wanted } = plan
  const row: Registration = {
    ...plan.kind === "artifact" ? {
      // An artifact is known by its manifest: many have the same empty config.
      kind: manifest.mediaType.startsWith("application/vnd.oci.") ? "oci" : "schema2", config: manifest, configBytes: plan.documents.at(-1)?.raw ?? new Uint8Array(),
      artifact: { type: plan.type, blobs: plan.blobs.map(({ blob }) => blob) }, layers: [], also: plan.documents.slice(0, -1).map(({ descriptor }) => descriptor)
    } : {
      kind: plan.kind, config: plan.config, configBytes: plan.documents.at(-1)?.raw ?? new Uint8Array(),
      ...(plan.created === undefined ? {} : { created: plan.created }),
      layers: plan.layers.map(({ blob, diffId }) => ({ blob, diffId })), also: plan.documents.slice(0, -2).map(({ descriptor }) => descriptor)
    },
    manifest, platform, target: target.digest, wanted, tags: fresh, synced, ...member === undefined ? {} : { member },
    ...remote && plan.endpoint !== "store" ? { origin: { repository: `${plan.repository.domain}/${plan.repository.path}`, endpoint: plan.endpoint } } : {}
  }
  return { row, changed, write: changed || synced, renamed }
})

/** An image that is stored and visible. */
export interface Stored {
  readonly planned: Planned
  readonly id: string
  readonly changed: boolean
  readonly renamed: ReadonlyArray<Renamed>
}

/** Stores images with all their parts; then, in one transaction, they and their names become visible. */
export const store = Effect.fn("StoreImages.store")(function*(hub: Hub<PullEvent>, all: ReadonlyArray<Planned>, storing: Storing) {
  const graph = yield* Graph
  const store = yield* LayerStore
  const diffIds = [...new Set(all.flatMap(({ plan }) => plan.kind === "artifact" ? [] : plan.layers.map(({ diffId }) => diffId)))]
  yield* Held.hold([...new Set(all.flatMap(({ plan }) => [
    ...plan.documents.map(({ descriptor }) => descriptor.digest), ...(plan.kind === "artifact" ? plan.blobs : plan.layers).map(({ blob }) => blob.digest)
  ])), ...diffIds])
  const moved = yield* Effect.forEach(all, (image) => storeImage(hub, image, storing), { concurrency: 4 })
  const unsynced = storing.unpack && (yield* Durability) === "safe"
    && (yield* Effect.forEach(diffIds, store.find)).some(Option.exists(({ state }) => state === "unsynced"))
  if (unsynced) yield* store.sync()
  const rows = yield* Effect.forEach(all, (image, index) => registration(image, moved[index] ?? false, unsynced, storing.remote))
  // Of two in an index for one platform the first is what a pull for that platform takes: it is written last.
  const first = (index: number) => index - (all[index]?.member ?? 0)
  const order = rows.map((row, index) => ({ ...row, index })).sort((a, b) => first(a.index) - first(b.index) || b.index - a.index)
  yield* graph.registerAll(order.flatMap(({ row, write }) => write ? [row] : []))
  return yield* Effect.forEach(all, Effect.fnUntraced(function*(planned, index) {
    const { names, plan, reference } = planned
    const known = yield* graph.byManifest(plan.manifest.digest)
    const id = Option.isSome(known) ? known.value.id : parts(plan.kind === "artifact" ? plan.manifest.digest : plan.config.digest).hex
    const { changed = false, renamed = [], row } = rows[index] ?? {}
    if (names.length > 0 && row !== undefined && row.tags.length > 0) {
      hub.publish({ _tag: "tagged", reference, digest: plan.target.digest, ...renamed.length > 0 ? { moved: true } : {} })
    }
    const stored: Stored = { planned, id, changed, renamed }
    return stored
  }))
})
