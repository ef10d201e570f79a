import { Effect, Layer, Option, Result, Stream } from "effect"
import { ArchiveRefused } from "./archive/Fault.ts"
import { attempt } from "./archive/ArchiveFile.ts"
import type { DockerImage } from "./archive/DockerImages.ts"
import type { ImageName } from "./archive/Document.ts"
import * as Images from "./archive/Images.ts"
import type { LegacyArchive, LegacyImage } from "./archive/LegacyImages.ts"
import type { OciImage } from "./archive/OciImages.ts"
import type { Tree } from "./archive/Tree.ts"
import * as ArchiveInput from "./ArchiveInput.ts"
import * as ArchiveRegistry from "./ArchiveRegistry.ts"
import { Downloads } from "./Download.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import { Durability } from "./Durability.ts"
import { type Digest, parts } from "./image/Digest.ts"
import * as ImageConfig from "./image/ImageConfig.ts"
import * as ImageId from "./image/ImageId.ts"
import * as Reference from "./image/Reference.ts"
import { Control } from "./layer/Control.ts"
import type { Unset } from "./layer/Job.ts"
import { Layers, Native, perform } from "./Layers.ts"
import { Pools } from "./Pools.ts"
import { Hub } from "./progress/Hub.ts"
import { keyOf, type LayerEvent, type PullEvent } from "./progress/PullEvent.ts"
import * as PullPlan from "./PullPlan.ts"
import * as Register from "./Register.ts"
import { Registry } from "./registry/Registry.ts"
import * as SaveOld from "./SaveOld.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph, type Registration, type TagName } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import { unsetSentence } from "./Unset.ts"

/** How to load. */
export interface LoadOptions {
  /** Which image of a multi-platform one, as `os/arch[/variant]`; the host's by default. */
  readonly platform?: string
  /** Whether layers of images of today are unpacked into the store: by default they are. Those of old images always are. */
  readonly unpack?: boolean
}

/** A tag that now names another image; `id` is the one it named, which may have no name left. */
export interface Renamed extends TagName {
  readonly id: string
}

/** An image that was loaded. */
export interface LoadedImage {
  readonly id: string
  /** The digest its names point at: of an image of Docker 1.9 or before, its generated manifest's. */
  readonly digest: Digest
  readonly platform: string
  readonly names: ReadonlyArray<TagName>
  /** Whether anything was not there before. */
  readonly changed: boolean
}

/** What a load did. */
export interface Loaded {
  readonly kind: Images.Images["kind"]
  readonly images: ReadonlyArray<LoadedImage>
  readonly renamed: ReadonlyArray<Renamed>
}

/** What Docker 1.9 says of a tag that was moved by a load. */
export const renamedSentence = ({ id, name, reference }: Renamed): string =>
  `The image ${familiar(name)}:${reference} already exists, renaming the old one with ID ${id.slice(0, 12)} to empty string`

const familiar = (name: string): string =>
  Result.match(Reference.parseNormalized(name), { onFailure: () => name.replace(/^docker\.io\/(?:library\/)?/, ""), onSuccess: Reference.familiar })

const tagName = ({ name, tag }: ImageName): TagName => ({ name, reference: tag })

const found = (image: ReturnType<typeof SaveOld.lookUp>) => image.pipe(
  Effect.asSome, Effect.catchTags({ ImageNotFound: () => Effect.succeedNone, AmbiguousName: () => Effect.succeedNone }))

/** What the store calls so; a prefix that fits several is none. */
const lookUp = (text: string) => found(Effect.flatMap(Graph, (graph) => graph.resolve(text)))

const named = ({ name, reference }: TagName) => lookUp(`${name}:${reference}`)

/** One image of an archive with the digest it is planned by. */
interface Wanted {
  readonly target: Digest
  readonly names: ReadonlyArray<TagName>
  readonly label: string | undefined
}

/** A planned image of the archive, and where its names lead now. */
interface Planned extends Wanted {
  readonly plan: PullPlan.PullPlan
  readonly reference: string
}

/** Images under one digest are one, with all their names. */
const merged = (images: ReadonlyArray<Wanted>): ReadonlyArray<Wanted> => {
  const all = new Map<Digest, Wanted>()
  for (const image of images) {
    const there = all.get(image.target)
    all.set(image.target, there === undefined ? image : { ...there, names: [...there.names, ...image.names] })
  }
  return [...all.values()]
}

const ofOci = ({ label, names, target }: OciImage): Wanted => ({ target: target.digest, label, names: names.map(tagName) })

/** An image that is in the store whole keeps its manifest: another one for the same config would be another digest. */
const ofDocker = Effect.fnUntraced(function*(archive: ArchiveRegistry.ArchiveRegistry, image: DockerImage) {
  const config = yield* Effect.fromResult(ImageConfig.decode(image.config))
  const there = yield* lookUp(image.id)
  const complete = Option.filter(there, ({ id, missing }) => id === image.id && missing.length === 0)
  const target = Option.isSome(complete) ? complete.value.manifest.digest : yield* archive.addDocker(image, config.rootfs.diffIds)
  return { target, label: undefined, names: image.names.map(tagName) }
})

/** The name that events and errors give an image, as a reference to its digest. */
const referenceOf = ({ names, target }: Wanted): string => `${names[0]?.name ?? "localhost/archive"}@${target}`

const planImage = Effect.fnUntraced(function*(archive: string, wanted: Wanted, options: { readonly platform?: string }): Effect.fn.Return<
  Planned, Effect.Error<ReturnType<typeof PullPlan.make>> | ArchiveRefused, Effect.Services<ReturnType<typeof PullPlan.make>>
> {
  const plan = yield* PullPlan.make(referenceOf(wanted), options)
  if (plan.kind === "schema1") return yield* new ArchiveRefused({ archive, entry: wanted.target, rule: "it is a schema1 manifest, which only registries have" })
  const [first] = wanted.names
  return { ...wanted, plan, reference: first === undefined ? wanted.target : `${first.name}:${first.reference}` }
})

/** Layers inflate to so many bytes at most, as when they are unpacked: 256 GiB. */
const layerCap = 256 * 2 ** 30

/** Checks that a blob, open as `fd`, is this layer. */
const checked = Effect.fnUntraced(function*(blob: Descriptor, diffId: Digest, fd: number) {
  const job = { kind: "inflate", fd, size: blob.size, into: undefined, limit: layerCap, diffId, native: yield* Native } as const
  yield* perform<"inflate">(job, blob.digest, new Control()).pipe(Effect.catchTag("JobStopped", Effect.die))
})

/** One layer into the store, its blob too, which nobody else may have; true if one of them was not there. */
const storeLayer = Effect.fnUntraced(function*(hub: Hub<PullEvent>, { plan, reference }: Planned, layer: PullPlan.PlannedLayer, unpack: boolean, unsets: Array<Unset>) {
  const { blob, diffId, state, stored } = layer
  if (stored && (state === "unpacked" || !unpack)) {
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

/** Everything of one image but its row and its names: nothing of it can be seen yet. True if anything was not there. */
const storeImage = Effect.fnUntraced(function*(hub: Hub<PullEvent>, planned: Planned, unpack: boolean) {
  const { plan, reference } = planned
  const blobs = yield* BlobStore
  const layers = yield* PullPlan.states(plan.layers)
  hub.publish({ _tag: "resolved", reference, digest: plan.target.digest, mediaType: plan.target.mediaType, endpoint: plan.endpoint })
  if (!plan.fits) hub.publish({ _tag: "warning", reference, message: `the image is for ${plan.platform}, and runs on ${plan.wanted} only by emulation` })
  hub.publish({
    _tag: "planned", reference, manifest: plan.manifest.digest, platform: plan.platform,
    total: layers.reduce((sum, { blob }) => sum + blob.size, 0),
    missing: layers.reduce((sum, { blob, have }) => sum + blob.size - have, 0),
    layers: layers.map(({ blob, state }) => ({ layer: blob.digest, size: blob.size, state }))
  })
  const unsets: Array<Unset> = []
  const once = [...new Map(layers.map((layer) => [`${layer.blob.digest} ${layer.diffId}`, layer])).values()].sort((a, b) => b.blob.size - a.blob.size)
  const moved = yield* Effect.forEach(once, (layer) => storeLayer(hub, planned, layer, unpack, unsets), { concurrency: "unbounded" })
  yield* Effect.forEach(plan.documents, ({ descriptor, raw }) => blobs.put(descriptor, raw), { discard: true })
  const warning = unsetSentence(unsets)
  if (warning !== undefined) hub.publish({ _tag: "warning", reference, message: warning })
  return moved.some((changed) => changed)
})

/** What is to become visible of a stored image, if anything is, and what it takes names from. */
const registration = Effect.fnUntraced(function*({ names, plan }: Planned, moved: boolean, synced: boolean) {
  const graph = yield* Graph
  const known = yield* graph.byManifest(plan.manifest.digest)
  const fresh: Array<TagName> = []
  const renamed: Array<Renamed> = []
  for (const name of names) {
    const current = yield* named(name)
    if (Option.exists(current, ({ manifest }) => manifest.digest === plan.manifest.digest)) continue
    fresh.push(name)
    // The same image in another manifest keeps its name.
    if (Option.isSome(current) && current.value.id !== parts(plan.config.digest).hex) renamed.push({ ...name, id: current.value.id })
  }
  const changed = moved || fresh.length > 0 || Option.isNone(known)
  const row: Registration = {
    kind: plan.kind, config: plan.config, configBytes: plan.documents.at(-1)?.raw ?? new Uint8Array(), platform: plan.platform,
    ...(plan.created === undefined ? {} : { created: plan.created }),
    manifest: plan.manifest, layers: plan.layers.map(({ blob, diffId }) => ({ blob, diffId })),
    also: plan.documents.slice(0, -2).map(({ descriptor }) => descriptor),
    target: plan.target.digest, wanted: plan.wanted, tags: fresh, synced
  }
  return { row, changed, write: changed || synced, renamed }
})

/** Tells what became of an image that is visible now. */
const finish = Effect.fnUntraced(function*(hub: Hub<PullEvent>, { label, names, plan, reference }: Planned, { changed, row }: { readonly changed: boolean; readonly row: Registration }) {
  const found = yield* (yield* Graph).byManifest(plan.manifest.digest)
  const id = Option.isSome(found) ? found.value.id : parts(plan.config.digest).hex
  const { digest } = plan.target
  if (row.tags.length > 0) hub.publish({ _tag: "tagged", reference, digest })
  if (names.length === 0 && label !== undefined) {
    hub.publish({ _tag: "warning", reference, message: `the archive calls it "${label}", which names no repository: it has no tag, and is found by its id ${id.slice(0, 12)}` })
  }
  hub.publish({ _tag: "done", reference, digest, image: id, changed })
  const image: LoadedImage = { id, digest, platform: plan.platform, names, changed }
  return image
})

/** Manifests and configs of one archive's images, which are held until they are stored: 64 MiB. */
const documentsCap = 64 * 1024 * 1024

/** Images of today: all their parts first, then their rows and names. */
const modern = Effect.fnUntraced(function*(hub: Hub<PullEvent>, tree: Tree, images: Exclude<Images.Images, { readonly kind: "legacy" }>, options: LoadOptions) {
  const archive = ArchiveRegistry.make(tree)
  const unpack = options.unpack ?? true
  const wanted = merged(images.kind === "oci" ? images.images.map(ofOci) : yield* Effect.forEach(images.images, (image) => ofDocker(archive, image)))
  // Downloads of their own: those of a registry ask that registry.
  const services = Layer.fresh(Layers.layer.pipe(Layer.provideMerge(Downloads.layer), Layer.provideMerge(Layer.succeed(Registry, archive.registry))))
  return yield* Effect.gen(function*() {
    const store = yield* LayerStore
    const planned: Array<Planned> = []
    let held = 0
    for (const image of wanted) {
      const next = yield* planImage(tree.archive, image, options)
      held += next.plan.documents.reduce((sum, { raw }) => sum + raw.byteLength, 0)
      if (held > documentsCap) {
        return yield* new ArchiveRefused({ archive: tree.archive, entry: image.target, rule: `the manifests and configs of its images have more than ${documentsCap} bytes` })
      }
      planned.push(next)
    }
    yield* (yield* Leases).hold(planned.flatMap(({ plan }) => [
      ...plan.documents.map(({ descriptor }) => descriptor.digest), ...plan.layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])
    ]))
    const moved = yield* Effect.forEach(planned, (image) => storeImage(hub, image, unpack), { concurrency: 4 })
    const diffIds = new Set(planned.flatMap(({ plan }) => plan.layers.map(({ diffId }) => diffId)))
    const unsynced = unpack && (yield* Durability) === "safe"
      && (yield* Effect.forEach(diffIds, store.find)).some(Option.exists(({ state }) => state === "unsynced"))
    if (unsynced) yield* store.sync()
    const rows = yield* Effect.forEach(planned, (image, index) => registration(image, moved[index] ?? false, unsynced))
    yield* (yield* Graph).registerAll(rows.flatMap(({ row, write }) => write ? [row] : []))
    const loaded: Array<LoadedImage> = []
    for (const [index, image] of planned.entries()) {
      const row = rows[index]
      if (row !== undefined) loaded.push(yield* finish(hub, image, row))
    }
    const result: Loaded = { kind: images.kind, images: loaded, renamed: rows.flatMap(({ renamed }) => renamed) }
    return result
  }).pipe(Effect.scoped, Effect.provide(services), archive.refusal)
})

/** One image of Docker 1.9 or before into the graph. */
const registerOld = Effect.fnUntraced(function*(hub: Hub<PullEvent>, { id, json, layer, parent }: LegacyImage) {
  const key = ImageId.ImageId.make(id)
  const event = { reference: id, layer: key }
  hub.publish({ _tag: "planned", reference: id, total: layer.size, missing: layer.size, layers: [{ layer: key, size: layer.size, state: "missing", image: { id: key, known: false } }] })
  const events = new Hub<LayerEvent>(keyOf)
  yield* events.observe((event) => hub.publish({ ...event, reference: id }))
  // Loads of one image at once read its layer once (1.9's pool key).
  const received = (yield* Pools).archived.hold({ text: `layer:${id}`, settings: Buffer.from(json).toString("latin1") }, events, (events) => {
    let bytes = 0
    return Register.receive(id, Register.from(Stream.mapArray(layer.stream(), (pieces) => {
      for (const piece of pieces) bytes += piece.byteLength
      events.publish({ _tag: "downloading", layer: key, bytes, total: layer.size })
      return pieces
    })))
  })
  const { added, node, unset } = yield* Register.registerWith({ id, kind: "v1", parent, json }, received)
  hub.publish({ _tag: added ? "committed" : "exists", ...event })
  const warning = unset === undefined ? undefined : unsetSentence([unset])
  if (warning !== undefined) hub.publish({ _tag: "warning", reference: id, message: warning })
  hub.publish({ _tag: "done", reference: id, digest: node.manifest, image: id, changed: added })
  return added
})

/** Images of Docker 1.9 and before, as its load did: each is registered as it comes, what ends the load comes after them. */
const legacy = Effect.fnUntraced(function*(hub: Hub<PullEvent>, archive: LegacyArchive) {
  const graph = yield* Graph
  const addresses = yield* attempt(archive.tree.archive, () => archive.addresses)
  const known = new Set<string>()
  for (const address of addresses) if (Option.isSome(yield* found(SaveOld.lookUp(address)))) known.add(address)
  const { failure, images } = yield* attempt(archive.tree.archive, () => archive.order(known))
  const changed = new Map<string, boolean>()
  for (const image of images) changed.set(image.id, yield* registerOld(hub, image))
  if (failure !== undefined) return yield* failure
  const renamed: Array<Renamed> = []
  const names = new Map<string, Array<TagName>>(images.map(({ id }) => [id, []]))
  for (const { address, canonical, tag } of yield* attempt(archive.tree.archive, () => archive.tags)) {
    const image = yield* SaveOld.lookUp(address)
    const name = { name: canonical, reference: tag }
    const old = yield* graph.tag(image, name, { force: true })
    if (old !== undefined) renamed.push({ ...name, id: old })
    names.set(image.id, [...names.get(image.id) ?? [], name])
  }
  const loaded = yield* Effect.forEach(names, Effect.fnUntraced(function*([id, names]) {
    const { manifest, platform } = yield* graph.resolve(id)
    const image: LoadedImage = { id, digest: manifest.digest, platform, names, changed: changed.get(id) ?? false }
    return image
  }))
  const result: Loaded = { kind: "legacy", images: loaded, renamed }
  return result
})

/**
 * Loads all images of an archive (docker save's of any age, or OCI), or of a layout's folder, and gives them their names,
 * taking those from whatever had them. Every digest is checked; of images of today nothing can be seen before all of them
 * are whole, those of Docker 1.9 and before enter the graph one by one, as its load had them. Loading twice changes nothing.
 */
export const load = Effect.fn("Load.load")(function*(hub: Hub<PullEvent>, source: ArchiveInput.Source, options: LoadOptions = {}) {
  const tree = yield* ArchiveInput.open(source)
  const images = yield* attempt(tree.archive, () => Images.of(tree))
  return images.kind === "legacy" ? yield* legacy(hub, images.archive) : yield* modern(hub, tree, images, options)
}, Effect.scoped)

/** Everything a load can fail with. */
export type LoadError = Effect.Error<ReturnType<typeof load>>
