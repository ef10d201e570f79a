import { Effect, Option, Result, Schema, Scope, Stream } from "effect"
import { Durability } from "./Durability.ts"
import type { Descriptor, VerifyError } from "./image/Descriptor.ts"
import { Digest } from "./image/Digest.ts"
import * as Config from "./image/ImageConfig.ts"
import * as MediaType from "./image/MediaType.ts"
import * as Platform from "./image/Platform.ts"
import { isImageId } from "./image/v1/FixManifest.ts"
import * as GoText from "./image/v1/go/GoText.ts"
import * as LegacyDigest from "./image/v1/LegacyDigest.ts"
import * as OciForm from "./image/v1/OciForm.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import { Control } from "./layer/Control.ts"
import type { Unset } from "./layer/Job.ts"
import { Limits, Native, perform } from "./Layers.ts"
import { hash } from "./registry/Jws.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { Graph, type Image, type Node, type Registration, type TagName } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import type { Receipt } from "./store/Receipt.ts"

/** An image cannot enter the graph: `rule` says why, `id` is its own. */
export class ImageRefused extends Schema.TaggedError<ImageRefused>()("ImageRefused", {
  id: Schema.String,
  rule: Schema.Literals(["id", "parent", "json", "taken"]),
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** An image's own layer, in the store: its blob, its diff ID, and the sum of its tar's header sizes in bytes. */
export interface OwnLayer {
  readonly blob: Descriptor
  readonly diffId: Digest
  readonly size: number
}

/** An image of Docker's old graph: its ID there, the ID of the image below, and its JSON, byte for byte. */
export interface OldImage {
  readonly id: string
  readonly kind: "schema1" | "v1"
  readonly parent: string | undefined
  readonly json: Uint8Array
  /** The v1Compatibility text it came as (schema1), and the digest its manifest gave for its layer. */
  readonly compatibility?: string
  readonly checksum?: string
}

/** An image with its own layer, if it has one. */
export interface LayeredImage extends OldImage {
  readonly layer: OwnLayer | undefined
}

/** What the last of several images is to be called, and what it came as. */
export interface Top {
  readonly tags: ReadonlyArray<TagName>
  /** The digest its reference led to; without one, that of its generated manifest. */
  readonly target?: Digest
  /** The platform that was asked for. */
  readonly wanted?: string
  /** Documents to keep with it. */
  readonly also?: ReadonlyArray<Descriptor>
  readonly origin?: { readonly repository: string; readonly endpoint: string }
}

/**
 * What receiving a layer gives: it in the store, and what of it could not be set on this host, if it was unpacked now; `kept`: it was
 * received before. No bytes are no layer.
 */
export type Received = { readonly layer: OwnLayer; readonly unset: Unset | undefined; readonly kept: boolean } | undefined

/** Fills a receipt with a layer's bytes; it may start again from the first one. */
export type Fill<E, R> = (receipt: Receipt) => Effect.Effect<void, E, R>

/** Fills a receipt from a stream. */
export const from = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Fill<E | Disk.StoreError | VerifyError, R> => (receipt) =>
  Stream.runForEachArray(bytes, (chunks) => Disk.attempt(() => { for (const chunk of chunks) receipt.append(chunk) }))

/** What bytes in a file inflate to, in a file that goes with the scope. They were unpacked before: what could be wrong with them is known not to be. */
export const inflated = Effect.fnUntraced(function*({ fd, size }: Pick<Receipt, "fd" | "size">, subject: string) {
  const plain = yield* (yield* BlobStore).receive
  const job = { kind: "inflate", fd, size, into: plain.fd, limit: Number.MAX_SAFE_INTEGER, native: yield* Native } as const
  yield* perform<"inflate">(job, subject, new Control()).pipe(Effect.catchTag("JobStopped", Effect.die))
  yield* Disk.forEachPiece(plain.fd, Number.MAX_SAFE_INTEGER, plain.path, (piece) => plain.count(piece))
  return plain
})

/**
 * Brings a layer of unknown digest into the store: receives all of it, unpacks it, and then makes blob and layer visible. A
 * failure leaves nothing. No bytes are no layer: undefined. Both are leased until the scope closes. `subject` is for errors;
 * `note` is told what they are before they are visible.
 */
export const receive = Effect.fn("Register.receive")(function*<E, R>(
  subject: string, fill: Fill<E, R>, note: (layer: Pick<OwnLayer, "blob" | "diffId">) => Effect.Effect<void, Disk.StoreError> = () => Effect.void
) {
  const blobs = yield* BlobStore
  const store = yield* LayerStore
  const native = yield* Native
  const limits = yield* Limits
  const leases = yield* Leases
  const outer = yield* Effect.scope
  return yield* Effect.scoped(Effect.gen(function*() {
    const receipt = yield* blobs.receive
    yield* fill(receipt)
    if (receipt.size === 0) return undefined
    const compression = MediaType.compressionOf(receipt.head)
    const staging = yield* store.staging({ kind: "layer" })
    const folder = `${staging.path}/0`
    yield* Files.makeFolder(folder, 0o700)
    const control = new Control()
    yield* Effect.sync(() => control.advance(receipt.size))
    const { entries, size, unset, ...unpacked } = yield* perform<"unpack">(
      { kind: "unpack", fd: receipt.fd, size: receipt.size, folder, diffId: undefined, native, limits }, subject, control
    ).pipe(Effect.catchTag("JobStopped", Effect.die))
    const diffId = Digest.make(unpacked.diffId)
    // Today's images have no name for these two: what is kept is the tar.
    const odd = compression === "bzip2" || compression === "xz"
    const kept = odd ? yield* inflated(receipt, subject) : receipt
    const mediaType = MediaType.layerOf(odd ? "none" : compression)
    const described = kept.describe(mediaType)
    yield* Scope.provide(leases.hold([described.digest, diffId]), outer)
    yield* note({ blob: described, diffId })
    const blob = yield* kept.commit(mediaType)
    yield* store.commit({ ...staging, path: folder }, { diffId, blob: blob.digest, mediaType, blobSize: blob.size, size, entries })
    const received: Received = { layer: { blob, diffId, size }, unset, kept: false }
    return received
  }))
})

/** The steps below and of an image that is in the graph, bottom first. */
const stepsOf = Effect.fnUntraced(function*(id: string) {
  const graph = yield* Graph
  const nodes: Array<Node> = []
  for (let next: string | undefined = id; next !== undefined && nodes.length <= OciForm.maxDepth;) {
    const node: Option.Option<Node> = yield* graph.node(next)
    if (Option.isNone(node)) return undefined
    nodes.push(node.value)
    next = node.value.parent
  }
  return nodes.reverse().map((node): OciForm.Step => ({ id: node.id, json: textOf(node), layer: node.own }))
})

/** The old JSON an image is understood by. That of a schema1 image is its v1Compatibility: its own lacks what the strong ID leaves out. */
const textOf = ({ compatibility, json, kind }: OldImage): string =>
  kind === "schema1" && compatibility !== undefined ? compatibility : GoText.decode(json)

const refuse = (id: string, rule: ImageRefused["rule"], reason: string) => new ImageRefused({ id, rule, reason })

const taken = (id: string) =>
  refuse(id, "taken", `the ID ${id} belongs to another image of the store: remove that one first with \`graph rm ${id.slice(0, 12)}\``)

/** Docker's `parent` file: written where `parent_id` is a digest and does not name the parent. */
const parentRefOf = (image: OldImage, decoded: V1Image.V1Image): string | undefined => {
  const stated = decoded.string("parent_id")
  return LegacyDigest.is(stated) && stated.slice(stated.indexOf(":") + 1) !== (image.parent ?? "") ? image.parent ?? "" : undefined
}

/** What the graph is told of one image, and the documents that were generated for it. */
const registration = (image: LayeredImage, form: OciForm.OciForm, top: Top | undefined): Result.Result<Registration, ImageRefused> =>
  Result.gen(function*() {
    const decoded = yield* Result.mapError(V1Image.decode(GoText.decode(image.json).toWellFormed()), ({ message }) => refuse(image.id, "json", message))
    const config = yield* Result.mapError(Config.decode(form.config.raw), ({ message }) => refuse(image.id, "json", message))
    const parentRef = parentRefOf(image, decoded)
    return {
      kind: image.kind, config: form.config.descriptor, configBytes: form.config.raw, manifest: form.manifest.descriptor, layers: form.layers,
      platform: Platform.print(config.platform), ...(config.created === undefined ? {} : { created: config.created }),
      old: {
        id: image.id, parent: image.parent, json: image.json,
        ...(image.compatibility === undefined ? {} : { compatibility: image.compatibility }),
        ...(image.checksum === undefined ? {} : { checksum: image.checksum }), ...(parentRef === undefined ? {} : { parentRef }),
        layer: image.layer === undefined ? undefined : { diffId: image.layer.diffId, size: image.layer.size }
      },
      target: top?.target ?? form.manifest.descriptor.digest, wanted: top?.wanted ?? Platform.print(config.platform),
      tags: top?.tags ?? [], synced: false,
      ...(top?.also === undefined ? {} : { also: top.also }), ...(top?.origin === undefined ? {} : { origin: top.origin })
    }
  })

/** The modern forms of a stack of images on what is in the graph, and what the graph is to be told of each: all that can be wrong with them is found here. */
const formsOf = Effect.fnUntraced(function*(images: ReadonlyArray<LayeredImage>, top: Top | undefined) {
  const graph = yield* Graph
  const [first] = images, last = images.at(-1)
  if (first === undefined || last === undefined) return yield* Effect.die(new Error("no image to enroll"))
  for (const { id } of images) {
    if ((yield* graph.exists(id)) && Option.isNone(yield* graph.node(id))) return yield* taken(id)
  }
  const below = first.parent === undefined ? [] : yield* stepsOf(first.parent)
  if (below === undefined) {
    return yield* refuse(first.id, "parent", `the image ${first.id} stands on ${first.parent}, which is not in the graph: load or pull that one first`)
  }
  const steps = [...below, ...images.map((image): OciForm.Step => ({ id: image.id, json: textOf(image), layer: image.layer }))]
  const forms = yield* Effect.fromResult(Result.mapError(OciForm.chain(steps, hash), ({ message }) => refuse(last.id, "json", `the image ${last.id} cannot be used: ${message}`)))
  return yield* Effect.forEach(images, (image, at) => {
    const form = forms[below.length + at]
    return form === undefined ? Effect.die(new Error("an image without its form"))
      : Effect.map(Effect.fromResult(registration(image, form, image === last ? top : undefined)), (entry) => ({ form, entry }))
  })
})

/**
 * Puts a stack of images, bottom first, on the image `images[0].parent` that is in the graph (or on nothing): their layers
 * must be in the store. All become visible in one transaction, the names of the last one with it. Those that are there
 * already stay as they are. Gives the last one.
 */
export const enroll = Effect.fn("Register.enroll")(function*(images: ReadonlyArray<LayeredImage>, top: Top = { tags: [] }) {
  const graph = yield* Graph
  const blobs = yield* BlobStore
  const prepared = yield* formsOf(images, top)
  yield* Effect.forEach(prepared.flatMap(({ form: { config, manifest } }) => [config, manifest]), ({ descriptor, raw }) => blobs.put(descriptor, raw), { concurrency: 4, discard: true })
  const safe = (yield* Durability) === "safe"
  if (safe && images.some(({ layer }) => layer !== undefined)) yield* (yield* LayerStore).sync()
  yield* graph.registerAll(prepared.map(({ entry }) => ({ ...entry, synced: safe })))
  const last = prepared.at(-1)
  const found = last === undefined ? Option.none<Image>() : yield* graph.byManifest(last.form.manifest.descriptor.digest)
  return yield* Option.match(found, { onNone: () => taken(images.at(-1)?.id ?? ""), onSome: Effect.succeed })
})

/** Fails unless `id` can be an image's (docker: image.ValidateID). */
export const checkId = (id: string): Effect.Effect<void, ImageRefused> =>
  isImageId(id) ? Effect.void : Effect.fail(refuse(id, "id", `image ID '${id}' is invalid: 64 lower-case hexadecimal digits are needed`))

/** The parent that an image's JSON names, if any; its other contents are checked too. */
export const parentOf = (id: string, json: Uint8Array): Effect.Effect<string | undefined, ImageRefused> =>
  Effect.fromResult(Result.mapBoth(V1Image.decode(GoText.decode(json).toWellFormed()), {
    onFailure: ({ message }) => refuse(id, "json", `the image ${id} cannot be used: ${message}`),
    onSuccess: ({ parent }) => parent === "" ? undefined : parent
  }))

/**
 * Adds one image to the graph (docker 1.9: Graph.Register). Its ID is checked; an image that is there already is a success,
 * and its layer is not read; without a layer, or with an empty one, its size is 0. A failure leaves nothing. What it uses is
 * leased until the scope closes. Gives what could not be set on this host, too.
 */
export const register = Effect.fn("Register.register")(function*<E = never, R = never>(image: OldImage, fill?: Fill<E, R>) {
  return yield* registerWith(image, fill === undefined ? Effect.succeed<Received>(undefined) : receive(image.id, fill))
})

/** The same with a layer that is received in some other way, which is only run where it is wanted. */
export const registerWith = Effect.fn("Register.registerWith")(function*<E, R>(image: OldImage, layer: Effect.Effect<Received, E, R>) {
  yield* checkId(image.id)
  const graph = yield* Graph
  const there = yield* graph.node(image.id)
  if (Option.isSome(there)) return { node: there.value, added: false, unset: undefined as Unset | undefined }
  // Before the layer is read: what cannot be registered in the end is not worth its bytes, and would leave them.
  yield* formsOf([{ ...image, layer: undefined }], undefined)
  const received = yield* layer
  yield* enroll([{ ...image, layer: received?.layer }])
  const node = yield* graph.node(image.id)
  if (Option.isNone(node)) return yield* taken(image.id)
  return { node: node.value, added: true, unset: received?.unset }
})
