import { Effect, Option, Result, Schema, Stream } from "effect"
import { resolve } from "node:path"
import { ArchiveFile, attempt } from "./archive/ArchiveFile.ts"
import * as Layouts from "./archive/Layouts.ts"
import * as TarWriter from "./archive/TarWriter.ts"
import * as Reference from "./image/Reference.ts"
import * as Compatibility from "./image/v1/Compatibility.ts"
import * as GoText from "./image/v1/GoText.ts"
import * as LegacyReference from "./image/v1/LegacyReference.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import { Control } from "./layer/Control.ts"
import { isCompressed } from "./layer/inflate/Inflate.ts"
import { Native, perform } from "./Layers.ts"
import { blobOf } from "./Save.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Files from "./store/Files.ts"
import { Graph, type Node } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"

/** Only images of Docker's old graph, of which each is one layer, have the form of Docker 1.9. */
export class NotOld extends Schema.TaggedError<NotOld>()("NotOld", { name: Schema.String }) {
  override get message() {
    return `${this.name} is no image of Docker's old graph: save it with --format docker-archive, which docker, podman and skopeo load`
  }
}

/** Layers may inflate to so many bytes, as when they were unpacked: 256 GiB. */
const inflatedCap = 256 * 2 ** 30

/** An image and all it stands on. */
const lineOf = Effect.fnUntraced(function*(name: string, id: string) {
  const graph = yield* Graph
  const nodes: Array<Node> = []
  for (let next: string | undefined = id; next !== undefined;) {
    const node: Option.Option<Node> = yield* graph.node(next)
    if (Option.isNone(node)) return yield* new NotOld({ name })
    nodes.push(node.value)
    next = node.value.parent
  }
  return nodes
})

/** A layer's plain tar: the blob, or what it inflates to, in a file of `folder`. An image without a layer has an empty one. */
const tarOf = Effect.fnUntraced(function*(node: Node, folder: string) {
  const own = node.layers.at(-1)
  if (node.layer === undefined || own === undefined) return new Uint8Array(1024)
  const blob = yield* (yield* BlobStore).open((yield* blobOf(own)).digest)
  const file = new ArchiveFile(blob.path, own.diffId, blob.size, { path: blob.path })
  if (!isCompressed(yield* attempt(blob.path, () => file.slice(0, 16)))) return { size: blob.size, bytes: file.stream() }
  const path = `${folder}/${node.id}`
  const into = yield* Files.fresh(path)
  const { size } = yield* perform<"inflate">(
    { kind: "inflate", fd: blob.fd, size: blob.size, into, limit: inflatedCap, diffId: own.diffId, native: yield* Native }, own.diffId, new Control()
  ).pipe(Effect.catchTag("JobStopped", Effect.die))
  return { size, bytes: new ArchiveFile(path, own.diffId, size, { path }).stream() }
}, Effect.scoped)

const written = Effect.fnUntraced(function*(node: Node, folder: string) {
  const text = GoText.decode(node.json)
  const place = { id: node.id, parent: node.parent ?? "", size: node.size }
  const json = yield* Effect.fromResult(Compatibility.marshal(text, place))
  const { created } = yield* Effect.fromResult(V1Image.decode(text.toWellFormed()))
  return { id: node.id, json, created, layer: yield* tarOf(node, folder) }
})

/**
 * The bytes of an archive as Docker 1.9 saved these images (graph/export.go): each with all it stands on, and the tags they
 * were called by. Layers that are compressed in the store are inflated into files of the store first.
 */
export const stream = (names: ReadonlyArray<string>) => Stream.unwrap(Effect.gen(function*() {
  const graph = yield* Graph
  const nodes = new Map<string, Node>()
  const repositories = new Map<string, Map<string, string>>()
  for (const name of names) {
    const image = yield* graph.resolve(name)
    for (const node of yield* lineOf(name, image.id)) nodes.set(node.id, node)
    const read = Result.getOrUndefined(Reference.parse(name))
    if (read?.tag === undefined || !image.tags.some((tag) => tag.name === `${read.domain}/${read.path}` && tag.reference === read.tag)) continue
    const local = LegacyReference.normalizeLocalName(`${read.domain}/${read.path}`)
    repositories.set(local, (repositories.get(local) ?? new Map<string, string>()).set(read.tag, image.id))
  }
  yield* (yield* Leases).hold([...nodes.values()].flatMap(({ layers }) => layers.flatMap(({ blob, diffId }) => [blob.digest, diffId])))
  const { path } = yield* (yield* LayerStore).staging({ kind: "layer" })
  const images = yield* Effect.forEach(nodes.values(), (node) => written(node, path))
  return TarWriter.stream(Layouts.legacy(images, repositories))
}))

/** Writes that archive to a file, which is there once it is whole and durable, in place of an older one. */
export const write = Effect.fn("SaveOld.write")((names: ReadonlyArray<string>, path: string) => Files.write(resolve(path), stream(names)))
