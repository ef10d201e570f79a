import { Effect, Option, Schema } from "effect"
import { ImageId } from "./image/ImageId.ts"
import * as Platform from "./image/Platform.ts"
import * as Reference from "./image/Reference.ts"
import * as GoText from "./image/v1/go/GoText.ts"
import * as OciForm from "./image/v1/OciForm.ts"
import * as V1Image from "./image/v1/V1Image.ts"
import * as Origin from "./Origin.ts"
import { DefaultPlatform } from "./PullPlan.ts"
import { AnswerRefused } from "./registry/Errors.ts"
import { type V1Endpoint, type V1Index, V1Registry } from "./registry/V1Registry.ts"
import { Graph, type Node } from "./store/Graph.ts"

/** Images whose JSON is fetched at a time. */
const fanOut = 4

/** An image of the chain: whether the graph has it, else how many bytes its layer has as stored, if its registry says so. */
export class V1PlannedImage extends Schema.Class<V1PlannedImage>("V1PlannedImage")({
  id: ImageId, state: Schema.Literals(["unpacked", "missing"]), size: Schema.optionalKey(Schema.Natural)
}) {}

/** What a pull from a v1 registry will do, as plain data. Nothing there has a content digest. */
export class V1Plan extends Schema.Class<V1Plan>("V1Plan")({
  kind: Schema.Literal("v1"),
  repository: Schema.Struct({ domain: Schema.String, path: Schema.String }),
  /** Who lists the repository: scheme and host. `endpoint` is the registry that gave the chain, `name` the tag. */
  index: Schema.String,
  ...Origin.fields,
  /** What goes with the requests: a token that the index gave, the credentials themselves, or nothing. */
  grant: Schema.Literals(["token", "basic", "none"]),
  wanted: Schema.String,
  platform: Schema.String,
  fits: Schema.Boolean,
  /** Bottom first; the last is the one the tag names. */
  images: Schema.Array(V1PlannedImage)
}) {}

/** An image's record, checked to stand on `below`. */
export const recordOf = (id: string, raw: Uint8Array, below: string | undefined, endpoint: V1Endpoint) =>
  Effect.fromResult(V1Image.decode(GoText.decode(raw))).pipe(
    Effect.mapError(({ message }) => new AnswerRefused({ host: new URL(endpoint.url).host, subject: `the json of the image ${id}`, rule: message })),
    Effect.filterOrFail(({ parent }) => parent === (below ?? ""), ({ parent }) => new AnswerRefused({
      host: new URL(endpoint.url).host, subject: `the json of the image ${id}`,
      rule: `Invalid parent ID. Expected ${below ?? "none"}, got ${parent === "" ? "none" : parent}.`
    })))

/** An image's chain as `endpoint` tells it, bottom first, and those of it that the graph has. */
export const chainOf = Effect.fnUntraced(function*(endpoint: V1Endpoint, id: ImageId) {
  const graph = yield* Graph
  const refuse = (rule: string) => new AnswerRefused({ host: new URL(endpoint.url).host, subject: `the ancestry of the image ${id}`, rule })
  const chain = (yield* endpoint.ancestry(id)).map((id) => ImageId.make(id)).reverse()
  if (chain.length > OciForm.maxDepth) return yield* refuse(`it names ${chain.length} images, at most ${OciForm.maxDepth} are taken`)
  const nodes = new Map<string, Node>()
  for (const id of chain) {
    const node = yield* graph.node(id)
    if (Option.isSome(node)) nodes.set(id, node.value)
  }
  const gap = chain.findIndex((id) => !nodes.has(id))
  const misplaced = gap < 0 ? undefined : chain.slice(gap).find((id) => nodes.has(id))
  if (misplaced !== undefined) return yield* refuse(`the store has ${misplaced} already, on other images: remove it first with \`graph rm ${misplaced.slice(0, 12)}\``)
  return { chain, nodes }
})

/** The platform of the image with the JSON `raw` on `below`, which must be the one asked for; `fits`: whether it is the one wanted. */
export const platformOf = Effect.fnUntraced(function*(
  id: string, raw: Uint8Array, below: string | undefined, endpoint: V1Endpoint, asked: { readonly reference: string; readonly platform?: string | undefined }
) {
  const record = yield* recordOf(id, raw, below, endpoint)
  const word = (text: string, other: string) => /^[a-z0-9_.-]+$/i.test(text) ? text : other
  const own = yield* Effect.fromResult(Platform.parse(`${word(record.string("os"), "linux")}/${word(record.string("architecture"), "amd64")}`))
  const wanted = yield* Effect.fromResult(Platform.parse(asked.platform ?? (yield* DefaultPlatform)))
  const fits = Platform.distance(wanted, own) !== undefined
  const told = { platform: Platform.print(own), wanted: Platform.print(wanted), fits }
  return fits || asked.platform === undefined ? told
    : yield* new Platform.NoPlatform({ reference: asked.reference, wanted: told.wanted, available: [told.platform] })
})

/** Says what a pull of `text` from the v1 registry at `index` would do. It fetches documents alone, and writes nothing. */
export const make = Effect.fn("V1Plan.make")(function*(text: string, options: { readonly platform?: string }, index: V1Index) {
  const parsed = yield* Effect.fromResult(Reference.parse(text))
  const reference = Reference.print(parsed)
  const repository = { domain: parsed.domain, path: parsed.path }
  const name = parsed.tag ?? "latest"
  const session = yield* (yield* V1Registry).session(repository, index)
  const id = ImageId.make(yield* session.tag(name))
  const { endpoint, ...found } = yield* session.first((endpoint) => Effect.gen(function*() {
    const { chain, nodes } = yield* chainOf(endpoint, id)
    const missing = new Map(yield* Effect.forEach(chain.filter((id) => !nodes.has(id)), (id) => Effect.map(endpoint.json(id), (json) => [id, json] as const), { concurrency: fanOut }))
    const told = yield* platformOf(id, missing.get(id)?.raw ?? nodes.get(id)?.json ?? new Uint8Array(), chain.at(-2), endpoint, { reference, platform: options.platform })
    const images = chain.map((id) => {
      const size = missing.get(id)?.size
      return new V1PlannedImage({ id, state: nodes.has(id) ? "unpacked" : "missing", ...size === undefined ? {} : { size } })
    })
    return { ...told, images, endpoint }
  }), ({ _tag }) => _tag === "StoreError")
  return new V1Plan({
    kind: "v1", reference, repository, name, index: index.url, endpoint: endpoint.url, credentials: session.credentials, grant: session.grant(), ...found,
    endpoints: session.endpoints.map(({ mirror, url, verified, why }) =>
      ({ url: `${url}/v1/`, why, mirror, tags: !mirror, content: true, verified, chosen: url === endpoint.url }))
  })
})
