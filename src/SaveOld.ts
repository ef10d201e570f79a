import { Effect, Option, Stream } from "effect"
import { ArchiveFile, attempt } from "./archive/ArchiveFile.ts"
import * as Layouts from "./archive/Layouts.ts"
import * as TarWriter from "./archive/TarWriter.ts"
import * as Compatibility from "./image/v1/Compatibility.ts"
import * as GoText from "./image/v1/go/GoText.ts"
import * as LegacyReference from "./image/v1/LegacyReference.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import { NoOldImage } from "./History.ts"
import { isCompressed } from "./layer/inflate/Inflate.ts"
import * as Register from "./Register.ts"
import { blobOf } from "./Bundle.ts"
import { BlobDamaged, BlobStore } from "./store/BlobStore.ts"
import { Graph, type Image, ImageNotFound, type Node } from "./store/Graph.ts"
import { Leases } from "./store/Leases.ts"

/** A tar without entries: two blocks of zeros. */
const emptyTar = new Uint8Array(1024)

/** The image that `text` stands for by Docker 1.9's rules: a name with its tag, else an ID or the beginning of one (TagStore.LookupImage). */
export const lookUp = Effect.fn("SaveOld.lookUp")(function*(text: string): Effect.fn.Return<Image, Effect.Error<ReturnType<Graph["Service"]["resolve"]>>, Graph> {
  const graph = yield* Graph
  const { repository, tag } = LegacyReference.split(text)
  const name = LegacyReference.canonicalOf(LegacyReference.normalizeLocalName(repository))
  const named = yield* graph.named({ name, reference: tag === "" ? "latest" : tag })
  if (Option.isSome(named)) return named.value
  return /^[0-9a-f]+$/.test(text) ? yield* graph.resolve(text) : yield* new ImageNotFound({ name: text })
})

/** An image's layer as a plain tar, and how long it is. */
const tarOf = Effect.fnUntraced(function*(node: Node) {
  const { own } = node
  if (own === undefined || !node.layers.includes(own)) return emptyTar
  const blobs = yield* BlobStore
  const { digest } = yield* blobOf(own)
  if (!(yield* blobs.verify(digest))) return yield* new BlobDamaged({ digest })
  const { fd, path, size } = yield* blobs.open(digest)
  const head = yield* attempt(path, () => new ArchiveFile(path, own.blob.digest, size, { path }).slice(0, 16))
  const plain = isCompressed(head) ? yield* Register.inflated({ fd, size }, own.blob.digest) : { path, size }
  return { size: plain.size, bytes: new ArchiveFile(plain.path, own.blob.digest, plain.size, { path: plain.path }).stream() }
})

/** An image and all it stands on. */
const lineOf = Effect.fnUntraced(function*({ id, kind }: Image) {
  const graph = yield* Graph
  const nodes: Array<Node> = []
  for (let next: string | undefined = id; next !== undefined;) {
    const node: Option.Option<Node> = yield* graph.node(next)
    if (Option.isNone(node)) return yield* new NoOldImage({ name: id, kind })
    nodes.push(node.value)
    next = node.value.parent
  }
  return nodes
})

const written = Effect.fnUntraced(function*(node: Node) {
  const { id, json, parent = "", size } = node
  const text = GoText.decode(json)
  const { created } = yield* Effect.fromResult(V1Image.decode(text.toWellFormed()))
  return { id, created, json: yield* Effect.fromResult(Compatibility.marshal(text, { id, parent, size })), layer: yield* tarOf(node) }
})

/** The images that `names` mean, with all they stand on, and the names they get. */
const chosen = Effect.fnUntraced(function*(names: ReadonlyArray<string>) {
  const graph = yield* Graph
  const tags = yield* graph.list
  const nodes = new Map<string, Node>()
  const repositories = new Map<string, Map<string, string>>()
  const add = Effect.fnUntraced(function*(image: Image, local?: string, reference?: string) {
    if (local !== undefined && reference !== undefined) {
      const repository = repositories.get(local) ?? new Map<string, string>()
      repositories.set(local, repository.set(reference, image.id))
    }
    for (const node of yield* lineOf(image)) nodes.set(node.id, node)
  })
  for (const given of names) {
    const local = LegacyReference.normalizeLocalName(given)
    const own = tags.filter(({ name }) => name === LegacyReference.canonicalOf(local))
    for (const { id, reference } of own) yield* add(yield* graph.resolve(id), local, reference)
    if (own.length > 0) continue
    const { repository, tag } = LegacyReference.split(given)
    const image = yield* lookUp(given)
    yield* tag === "" ? add(image) : add(image, LegacyReference.normalizeLocalName(repository), tag)
  }
  return { nodes: [...nodes.values()], repositories }
})

/** The layers that the archive of these images needs. */
export const layers = Effect.fn("SaveOld.layers")(function*(names: ReadonlyArray<string>) {
  const { nodes } = yield* chosen(names)
  return nodes.flatMap(({ layers, own }) => own === undefined || !layers.includes(own) ? [] : [own])
})

/**
 * The entries of an archive as Docker 1.9's `save` wrote it (graph/export.go): images of kinds schema1 and v1 with all they
 * stand on. A repository's bare name saves all its tags and digests. Files they need last as long as the scope.
 */
export const members = Effect.fn("SaveOld.members")(function*(names: ReadonlyArray<string>) {
  const { nodes, repositories } = yield* chosen(names)
  yield* (yield* Leases).hold(nodes.flatMap(({ layers }) => layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])))
  return Layouts.legacy(yield* Effect.forEach(nodes, written), repositories)
})

/** The bytes of that archive: the same for the same images and names. What it reads is held while the stream is. */
export const stream = (names: ReadonlyArray<string>) => Stream.unwrap(Effect.map(members(names), TarWriter.stream))
