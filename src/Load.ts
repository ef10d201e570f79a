import { Effect, Layer, Option, Result, Stream } from "effect"
import { ArchiveRefused } from "./archive/Fault.ts"
import { attempt } from "./archive/ArchiveFile.ts"
import type { DockerImage } from "./archive/DockerImages.ts"
import type { ImageName } from "./archive/Document.ts"
import * as Images from "./archive/Images.ts"
import type { LegacyArchive, LegacyImage } from "./archive/LegacyImages.ts"
import type { OciImage } from "./archive/OciImages.ts"
import type { Tree } from "./archive/Tree.ts"
import type { ArtifactPlan } from "./ArtifactPlan.ts"
import * as ArchiveInput from "./ArchiveInput.ts"
import * as ArchiveRegistry from "./ArchiveRegistry.ts"
import * as Documents from "./Documents.ts"
import { Downloads } from "./Download.ts"
import type { Digest } from "./image/Digest.ts"
import * as ImageConfig from "./image/ImageConfig.ts"
import * as ImageId from "./image/ImageId.ts"
import * as Reference from "./image/Reference.ts"
import { Layers } from "./Layers.ts"
import { Pools } from "./Pools.ts"
import { Hub } from "./progress/Hub.ts"
import { keyOf, type LayerEvent, type PullEvent } from "./progress/PullEvent.ts"
import * as PullPlan from "./PullPlan.ts"
import * as Register from "./Register.ts"
import { Registry } from "./registry/Registry.ts"
import * as SaveOld from "./SaveOld.ts"
import { Graph, type TagName } from "./store/Graph.ts"
import * as StoreImages from "./StoreImages.ts"
import { unsetSentence } from "./Unset.ts"

/** How to load. */
export interface LoadOptions {
  /** Which image of a multi-platform one, as `os/arch[/variant]`, or `all`; the host's by default. */
  readonly platform?: string
  /** Whether layers of images of today are unpacked into the store: by default they are. Those of old images always are. */
  readonly unpack?: boolean
}

/** An image or artifact that was loaded. */
export interface LoadedImage {
  readonly id: string
  /** What it is, if it is an artifact: it is stored whole and not unpacked. */
  readonly artifact?: string
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
  readonly renamed: ReadonlyArray<StoreImages.Renamed>
}

/** What Docker 1.9 says of a tag that was moved by a load. */
export const renamedSentence = ({ id, name, reference }: StoreImages.Renamed): string =>
  `The image ${familiar(name)}:${reference} already exists, renaming the old one with ID ${id.slice(0, 12)} to empty string`

const familiar = (name: string): string =>
  Result.match(Reference.parseNormalized(name), { onFailure: () => name.replace(/^docker\.io\/(?:library\/)?/, ""), onSuccess: Reference.familiar })

const tagName = ({ name, tag }: ImageName): TagName => ({ name, reference: tag })

const found = (image: ReturnType<typeof SaveOld.lookUp>) => image.pipe(
  Effect.asSome, Effect.catchTags({ ImageNotFound: () => Effect.succeedNone, AmbiguousName: () => Effect.succeedNone }))

/** What the store calls so; a prefix that fits several is none. */
const lookUp = (text: string) => found(Effect.flatMap(Graph, (graph) => graph.resolve(text)))

/** One image of an archive with the digest it is planned by. */
interface Wanted {
  readonly target: Digest
  readonly names: ReadonlyArray<TagName>
  readonly label: string | undefined
}

/** A planned image of the archive, and where its names lead now. */
interface Planned extends Wanted {
  readonly plan: PullPlan.PullPlan | ArtifactPlan | PullPlan.IndexPlan
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

/** Tells what became of an image that is visible now. */
const finish = (hub: Hub<PullEvent>, { changed, id, planned: { names, plan, reference } }: StoreImages.Stored, label: string | undefined) => {
  const { digest } = plan.target
  if (names.length === 0 && label !== undefined) {
    hub.publish({ _tag: "warning", reference, message: `the archive calls it "${label}", which names no repository: it has no tag, and is found by its id ${id.slice(0, 12)}` })
  }
  hub.publish({ _tag: "done", reference, digest, image: id, changed })
  const image: LoadedImage = { id, ...plan.kind === "artifact" ? { artifact: plan.type } : {}, digest, platform: plan.platform, names, changed }
  return image
}

/** The manifests and configs of a plan, held until they are stored. */
const documentsOf = (plan: Planned["plan"]) => plan.kind === "index" ? plan.images.flatMap(({ documents }) => documents) : plan.documents

const layersOf = (plan: Planned["plan"]): number =>
  plan.kind === "index" ? plan.images.reduce((sum, image) => sum + layersOf(image), 0) : plan.kind === "artifact" ? plan.blobs.length : plan.layers.length

/** Images of today: all their parts first, then their rows and names. */
const modern = Effect.fnUntraced(function*(hub: Hub<PullEvent>, tree: Tree, images: Exclude<Images.Images, { readonly kind: "legacy" }>, options: LoadOptions) {
  const archive = ArchiveRegistry.make(tree, images.kind === "oci" ? images.images.map(({ target }) => target) : [])
  const wanted = merged(images.kind === "oci" ? images.images.map(ofOci) : yield* Effect.forEach(images.images, (image) => ofDocker(archive, image)))
  // Downloads of their own: those of a registry ask that registry.
  const services = Layer.fresh(Layers.layer.pipe(Layer.provideMerge(Downloads.layer), Layer.provideMerge(Layer.succeed(Registry, archive.registry))))
  return yield* Effect.gen(function*() {
    const planned: Array<StoreImages.Planned & Pick<Wanted, "label">> = []
    const held = new Set<Digest>()
    const hold = Documents.holder((rule) => new ArchiveRefused({ archive: tree.archive, entry: "", rule }))
    for (const image of wanted) {
      const { label, names, plan, reference } = yield* planImage(tree.archive, image, options)
      yield* hold(0, layersOf(plan))
      for (const { descriptor: { digest }, raw } of documentsOf(plan)) {
        if (!held.has(digest)) yield* hold(raw.byteLength, 0)
        held.add(digest)
      }
      planned.push(...StoreImages.expanded(plan, reference, names).map((one) => ({ ...one, label: one.reference === reference ? label : undefined })))
    }
    const stored = yield* StoreImages.store(hub, planned, { unpack: options.unpack ?? true, blobs: true, remote: false })
    const result: Loaded = {
      kind: images.kind, images: stored.map((one, index) => finish(hub, one, planned[index]?.label)), renamed: stored.flatMap(({ renamed }) => renamed)
    }
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
  const renamed: Array<StoreImages.Renamed> = []
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
