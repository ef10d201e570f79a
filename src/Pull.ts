import { type Cause, Effect, Exit, Fiber, Option, Queue, Stream } from "effect"
import { dirname, resolve } from "node:path"
import type { Bundled } from "./Bundle.ts"
import * as Documents from "./Documents.ts"
import { type DownloadError, Downloads } from "./Download.ts"
import { Durability } from "./Durability.ts"
import * as Fallback from "./Fallback.ts"
import * as Held from "./Held.ts"
import { type ImageConfig } from "./image/ImageConfig.ts"
import * as Config from "./image/ImageConfig.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import type { Digest } from "./image/Digest.ts"
import type { ManifestRefused } from "./image/Manifest.ts"
import type { InvalidPlatform, NoPlatform } from "./image/Platform.ts"
import * as Reference from "./image/Reference.ts"
import type { Unset } from "./layer/Job.ts"
import type { OwnerMap } from "./layer/merge/Owners.ts"
import { Workers } from "./layer/Workers.ts"
import { type LayerError, Layers, type Wanted } from "./Layers.ts"
import { Hub } from "./progress/Hub.ts"
import { keyOf, type PullEvent } from "./progress/PullEvent.ts"
import * as Notices from "./Notices.ts"
import * as OldPull from "./OldPull.ts"
import * as Origin from "./Origin.ts"
import * as Pools from "./Pools.ts"
import * as PullPlan from "./PullPlan.ts"
import * as PullWhole from "./PullWhole.ts"
import type { ImageRefused } from "./Register.ts"
import * as RootFs from "./RootFs.ts"
import type { Schema1Refused } from "./Schema1Plan.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { checked, type NoFileSystem } from "./StoreImages.ts"
import { unsetSentence } from "./Unset.ts"
import * as V1Plan from "./V1Plan.ts"
import * as V1Pull from "./V1Pull.ts"

export { Durability } from "./Durability.ts"

/** Everything a pull can fail with. */
export type PullError =
  | Reference.InvalidReference | InvalidPlatform | NoPlatform | ManifestRefused | Schema1Refused | ImageRefused | DownloadError | LayerError
  | RootFs.TargetNotEmpty | NoFileSystem

/** How to pull. */
export interface PullOptions {
  /** `os/arch[/variant]`, or `all` for every image and artifact of an index; the host's by default. */
  readonly platform?: string
  /** Whether layers are unpacked into the store. By default they are, unless `rootfs` is given. */
  readonly unpack?: boolean
  /** A folder to write the image's root file system to; it must not exist, or be empty. */
  readonly rootfs?: string
  /** Whether layers that are unpacked already are needed in their compressed form too, as for an image layout. */
  readonly blobs?: boolean
  /** How files of layers that stay in the store get into `rootfs`; `auto` by default. */
  readonly link?: RootFs.Link
  /** Who owns what in `rootfs`; as the layers say unless told otherwise. */
  readonly owners?: OwnerMap
}

/** An image that was pulled: verified, and complete in the store. */
export interface PulledImage {
  /** The normalised reference it was asked for by. */
  readonly reference: string
  /** What the reference points at: the digest to pin. */
  readonly target: Descriptor
  readonly manifest: Descriptor
  /** Hex digits of the config's digest. */
  readonly id: string
  /** The image's own platform. */
  readonly platform: string
  /** What to run and how, and the config blob it is written in. */
  readonly config: { readonly descriptor: Descriptor; readonly image: ImageConfig }
  /** Bottom first; none of an artifact. */
  readonly layers: ReadonlyArray<Wanted>
  /** Of an artifact, whose `config.image` says nothing: what it is, and its blobs after the config. It is stored whole and not unpacked. */
  readonly artifact?: { readonly type: string; readonly blobs: ReadonlyArray<Descriptor> }
  /** Where every image of an index was asked for: the index, and all of them. This one is the one for this host, or the first. */
  readonly whole?: { readonly index: Descriptor; readonly members: ReadonlyArray<Bundled & { readonly id: string; readonly platform: string }> }
  /** Whether anything was not there before. */
  readonly changed: boolean
}

/** Resolves a reference to one image and says what pulling it would do; writes nothing. v1 is asked where a pull would ask it. */
export const plan = (reference: string, options: { readonly platform?: string } = {}) =>
  Origin.named(reference, (name) => Effect.flatMap(Effect.fromResult(Reference.parse(name)), (parsed) => Fallback.either(parsed, {
    plan: PullPlan.make(name, options), run: (plan) => Effect.succeed<Effect.Success<ReturnType<typeof PullPlan.make>> | V1Plan.V1Plan>(plan),
    v1: (index) => V1Plan.make(name, options, index)
  })))

/**
 * Pulls one image; its events go to `hub`, for whoever reads it. Who asks for what is being pulled already joins that pull.
 * What the image needs stays in the store until the scope closes, whoever tidies up there.
 */
export const held = (hub: Hub<PullEvent>, text: string, options: PullOptions = {}) =>
  Origin.named(text, (name) => Pools.pull(hub, name, options, (hub) =>
    Effect.flatMap(Effect.scope, (scope) => Effect.provideService(pullAlone(hub, name, options), Held.Held, scope))))

/** The same, for who needs nothing to stay. */
export const pullWith = (hub: Hub<PullEvent>, text: string, options: PullOptions = {}) => Effect.scoped(held(hub, text, options))

const pullAlone = Effect.fn("Pull.pull")(function*(hub: Hub<PullEvent>, text: string, options: PullOptions) {
  if (options.rootfs !== undefined) yield* RootFs.vacant(options.rootfs)
  const reference = yield* Effect.fromResult(Reference.parse(text))
  yield* Notices.heard(hub, text)
  const planned = PullPlan.make(text, options).pipe(Effect.provideService(Documents.Keep, true), warmed(text))
  const run = (plan: Effect.Success<typeof planned>): Effect.Effect<PulledImage, PullError, RunServices> => plan.kind === "schema1" ? OldPull.schema1(hub, plan, options)
    : plan.kind === "artifact" || plan.kind === "index" ? PullWhole.execute(hub, plan, options) : execute(hub, plan, options)
  return yield* Fallback.either(reference, {
    plan: planned, run, v1: (index) => Effect.map(V1Pull.pull(hub, text, options, index), (image): PulledImage => image)
  })
}, Effect.scoped)

type RunServices = Effect.Services<ReturnType<typeof OldPull.schema1>> | Effect.Services<ReturnType<typeof PullWhole.execute>> | Effect.Services<ReturnType<typeof execute>>

/** Starts the workers while a reference is resolved that is not in the store yet. */
const warmed = (text: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const known = yield* Effect.option(Effect.flatMap(Graph, (graph) => graph.resolve(text)))
    if (Option.isSome(known)) return yield* self
    const workers = yield* Workers
    const [value] = yield* Effect.all([self, workers.warm], { concurrency: 2 })
    return value
  })

const execute = Effect.fn("Pull.execute")(function*(hub: Hub<PullEvent>, plan: PullPlan.PullPlan, options: PullOptions) {
  const { reference, repository } = plan
  const graph = yield* Graph
  const durability = yield* Durability
  const unpack = options.unpack ?? options.rootfs === undefined
  hub.publish({ _tag: "resolved", reference, digest: plan.target.digest, mediaType: plan.target.mediaType, endpoint: plan.endpoint })
  yield* Held.hold([
    ...plan.documents.map(({ descriptor }) => descriptor.digest), ...plan.layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])
  ])
  const layers = yield* PullPlan.states(plan.layers)
  if (!plan.fits) hub.publish({ _tag: "warning", reference, message: `the image is for ${plan.platform}, and runs on ${plan.wanted} only by emulation` })
  const sizes = new Map(layers.map(({ blob }) => [blob.digest, blob.size]))
  const lacking = new Map(layers.filter(({ state }) => state !== "unpacked" || options.blobs === true).map(({ blob, have }) => [blob.digest, blob.size - have]))
  const sum = (numbers: Iterable<number>) => [...numbers].reduce((a, b) => a + b, 0)
  hub.publish({
    _tag: "planned", reference, manifest: plan.manifest.digest, platform: plan.platform, total: sum(sizes.values()), missing: sum(lacking.values()),
    layers: layers.map(({ blob, state }) => ({ layer: blob.digest, size: blob.size, state }))
  })
  const wanted: ReadonlyArray<Wanted> = layers.map(({ blob, diffId }) => ({ blob, diffId, repository }))
  const before = yield* graph.find(plan.target.digest, plan.wanted)
  const tag = { name: `${repository.domain}/${repository.path}`, reference: plan.name }
  const current = yield* graph.resolve(`${tag.name}${plan.name.includes(":") ? "@" : ":"}${plan.name}`).pipe(
    Effect.asSome, Effect.catchTags({ ImageNotFound: () => Effect.succeedNone, AmbiguousName: () => Effect.succeedNone }))
  const tagged = Option.filter(current, ({ tags }) => tags.some(({ name, reference }) => name === tag.name && reference === tag.reference))
  // Two manifests can describe one image: the tag must be of this one.
  const named = Option.exists(before, ({ manifest }) => manifest.digest === plan.manifest.digest)
    && Option.exists(tagged, ({ manifest }) => manifest.digest === plan.manifest.digest)
  const unsets: Array<Unset> = []
  /** Layers that are complete with the root file system they go into, and not before. */
  const awaited = options.rootfs !== undefined && !unpack ? new Set<Digest>() : undefined

  /** One layer into the store: its blob, and its files if they are wanted there. */
  const storeLayer = Effect.fnUntraced(function*(layer: PullPlan.PlannedLayer) {
    const { blob, diffId, state, stored } = layer
    if ((state === "unpacked" && (stored || options.blobs !== true)) || (stored && !unpack && options.rootfs === undefined)) {
      hub.publish({ _tag: "exists", reference, layer: blob.digest })
      return false
    }
    const download = yield* (yield* Downloads).get(blob, repository)
    yield* download.events.observe((event) => hub.publish({ ...event, reference }))
    if (unpack && state !== "unpacked") {
      const { unpacked } = yield* Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get({ blob, diffId, repository })))
      if (Option.isSome(unpacked)) unsets.push(unpacked.value.unset)
    } else {
      yield* download.done
      // The files are there from another blob: this one must hold the same.
      if (state === "unpacked") yield* checked(blob, diffId, yield* download.opened)
    }
    if (awaited === undefined) hub.publish({ _tag: "committed", reference, layer: blob.digest })
    else awaited.add(blob.digest)
    return !stored || (unpack && state !== "unpacked")
  })
  // What is unpacked for the root file system is heard of until that is there.
  const store = (layer: PullPlan.PlannedLayer) => awaited === undefined ? Effect.scoped(storeLayer(layer)) : storeLayer(layer)
  const largestFirst = [...new Map(layers.map((layer) => [`${layer.blob.digest} ${layer.diffId}`, layer])).values()]
    .sort((a, b) => b.blob.size - a.blob.size)
  const storeLayers = Effect.forEach(largestFirst, store, { concurrency: "unbounded" })
  const storeDocuments = Effect.flatMap(BlobStore, (blobs) =>
    Effect.forEach(plan.documents, ({ descriptor, raw }) => blobs.put(descriptor, raw), { concurrency: 2, discard: true }))
  const assemble = Effect.suspend(() => options.rootfs === undefined
    ? Effect.succeed(undefined)
    : RootFs.assemble(wanted, options.rootfs, options.link ?? "auto", options.owners))

  const durable = durability === "safe"
  const layerStore = yield* LayerStore
  // What is written is sent to the disk while more comes, so that the last sync has little left to wait for.
  const written = unpack || options.rootfs === undefined ? undefined : dirname(resolve(options.rootfs))
  const writeback = durable && (unpack || options.rootfs !== undefined) && layers.some(({ state }) => state !== "unpacked")
    ? yield* Effect.ignore(layerStore.sync(written)).pipe(Effect.delay("200 millis"), Effect.forever, Effect.forkScoped)
    : undefined

  const [root, stored] = unpack
    ? yield* Effect.gen(function*() {
      const [stored] = yield* Effect.all([storeLayers, storeDocuments], { concurrency: 2 })
      return [yield* assemble, stored] as const
    })
    : yield* Effect.all([assemble, storeLayers, storeDocuments], { concurrency: 3 })

  const moved = stored.some((changed) => changed)
  if (writeback !== undefined) yield* Fiber.interrupt(writeback)
  // Also what a pull that was stopped, or did not wait, has left.
  const unsynced = durable && unpack
    && (yield* Effect.forEach(layers, ({ diffId }) => layerStore.find(diffId))).some(Option.exists(({ state }) => state === "unsynced"))
  if (unsynced) yield* layerStore.sync()
  if (durable && root !== undefined) yield* layerStore.sync(root.path)
  if (moved || !named || unsynced) {
    yield* graph.register({
      kind: plan.kind, config: plan.config, configBytes: configBytes(plan), platform: plan.platform,
      ...(plan.created === undefined ? {} : { created: plan.created }),
      manifest: plan.manifest, layers: layers.map(({ blob, diffId }) => ({ blob, diffId })),
      also: plan.documents.slice(0, -2).map(({ descriptor }) => descriptor),
      target: plan.target.digest, wanted: plan.wanted, tags: [tag],
      ...(plan.endpoint === "store" ? {} : { origin: { repository: tag.name, endpoint: plan.endpoint } }), synced: unsynced
    })
    if (!named) hub.publish({ _tag: "tagged", reference, digest: plan.target.digest, ...(Option.isSome(tagged) ? { moved: true } : {}) })
  }
  if (root !== undefined) {
    yield* root.publish
    for (const layer of awaited ?? []) hub.publish({ _tag: "committed", reference, layer })
  }
  const warning = unsetSentence(root?.unset ?? unsets)
  if (warning !== undefined) hub.publish({ _tag: "warning", reference, message: warning })
  const config = yield* Effect.fromResult(Config.decode(configBytes(plan)))
  const changed = moved || !named
  const id = plan.config.digest.slice(plan.config.digest.indexOf(":") + 1)
  hub.publish({ _tag: "done", reference, digest: plan.target.digest, image: id, changed })
  const image: PulledImage = {
    reference, target: plan.target, manifest: plan.manifest, id, platform: plan.platform, config: { descriptor: plan.config, image: config }, layers: wanted, changed
  }
  return image
}, Effect.scoped)

const configBytes = (plan: PullPlan.PullPlan): Uint8Array => plan.documents.at(-1)?.raw ?? new Uint8Array()

/** Pulls an image into the store: every byte verified, layers fetched and unpacked in parallel, the tag last. */
export const pull = (reference: string, options: PullOptions = {}) =>
  Effect.suspend(() => pullWith(new Hub<PullEvent>(keyOf), reference, options))

/** Pulls an image and tells what happens; the stream ends when the pull has, and interrupts it when its reader leaves. */
export const events = (reference: string, options: PullOptions = {}) =>
  Stream.unwrap(Effect.gen(function*() {
    const hub = new Hub<PullEvent>(keyOf)
    const outcome = yield* Queue.unbounded<never, PullError | Cause.Done>()
    yield* pullWith(hub, reference, options).pipe(
      Effect.exit,
      Effect.flatMap((exit) => Effect.sync(() => {
        hub.end()
        if (Exit.isFailure(exit)) Queue.failCauseUnsafe(outcome, exit.cause)
        else Queue.endUnsafe(outcome)
      })),
      Effect.forkScoped
    )
    return Stream.concat(hub.stream, Stream.fromQueue(outcome))
  }))
