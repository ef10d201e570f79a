import { Effect, Option, Result, Schema } from "effect"
import * as Config from "./image/ImageConfig.ts"
import * as Compatibility from "./image/v1/Compatibility.ts"
import * as GoText from "./image/v1/go/GoText.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph, type Node } from "./store/Graph.ts"
import { withFiles } from "./StoreImages.ts"

/** Only images of Docker's old graph (kinds schema1 and v1) have v1 IDs and the form of Docker 1.9. */
export class NoOldImage extends Schema.TaggedError<NoOldImage>()("NoOldImage", { name: Schema.String, kind: Schema.String }) {
  override get message() {
    return `"${this.name}" is an image of kind ${this.kind}, not of Docker's old graph (schema1, v1): leave --v1 out of history, and save it with --format docker-archive`
  }
}

/** One step of an image's history. */
export interface Step {
  /** The image it made, where each step made one (schema1, v1). */
  readonly id?: string
  /** Its v1 compatibility ID, where it was asked for (docker 1.9: getV1ID). */
  readonly v1?: string
  /** RFC 3339. */
  readonly created: string | undefined
  readonly createdBy: string
  readonly comment: string
  /** Sum of the layer's header sizes, where it is known; 0 for a step without a layer. */
  readonly size: number | undefined
}

const nodesOf = Effect.fnUntraced(function*(id: string) {
  const graph = yield* Graph
  const nodes: Array<Node> = []
  for (let next: string | undefined = id; next !== undefined;) {
    const node: Option.Option<Node> = yield* graph.node(next)
    if (Option.isNone(node)) break
    nodes.push(node.value)
    next = node.value.parent
  }
  return nodes
})

const ofNode = (node: Node): Step => {
  const text = node.kind === "schema1" && node.compatibility !== undefined ? node.compatibility : GoText.decode(node.json)
  const image = Result.getOrUndefined(V1Image.decode(text.toWellFormed()))
  return {
    id: node.id, created: image?.created, createdBy: (image?.containerConfig.list("Cmd") ?? []).join(" "),
    comment: image?.string("comment") ?? "", size: node.size
  }
}

const configCap = 16 * 1024 * 1024

/**
 * How an image was made, newest first (docker: history). With `v1`, each step has the v1 ID that a push to a v1 registry gives
 * it, from a v1Compatibility text that is made and kept where there is none (docker 1.9: GenerateV1CompatibilityChain).
 */
export const of = Effect.fn("History.of")(function*(name: string, options: { readonly v1?: boolean } = {}) {
  const graph = yield* Graph
  const image = yield* graph.resolve(name)
  if (image.kind === "schema1" || image.kind === "v1") {
    const nodes = yield* nodesOf(image.id)
    return yield* Effect.forEach(nodes, Effect.fnUntraced(function*(node) {
      if (options.v1 !== true) return ofNode(node)
      const text = yield* graph.compatibility(node.id)
      const v1 = text === undefined ? "" : yield* Effect.fromResult(Compatibility.idOf(text))
      return { ...ofNode(node), v1 }
    }))
  }
  yield* withFiles(image, name)
  if (options.v1 === true) return yield* new NoOldImage({ name, kind: image.kind })
  const config = yield* Effect.fromResult(Config.decode(yield* (yield* BlobStore).read(image.config.digest, configCap)))
  const sizes = image.layers.map(({ blob }) => blob.size)
  let layer = 0
  return config.history.map(({ comment = "", created, createdBy = "", emptyLayer }): Step =>
    ({ created, createdBy, comment, size: emptyLayer ? 0 : sizes[layer++] })).reverse()
})
