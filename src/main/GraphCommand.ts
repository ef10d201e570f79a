import { Effect, Layer } from "effect"
import { short } from "../image/Digest.ts"
import { Workers } from "../layer/Workers.ts"
import * as Format from "../progress/Format.ts"
import { Graph, type Image, type TagName } from "../store/Graph.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"
import { reading } from "./Reading.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}
interface Named extends Flags {
  readonly names: ReadonlyArray<string>
}

const inStore = (flags: Flags) => Effect.provide(Towline.layerStore({ store: flags.store }).pipe(Layer.provide(Workers.layer)))

const nameOf = ({ name, reference }: TagName): string => `${name}${reference.includes(":") ? "@" : ":"}${reference}`

const facts = (image: Image & { readonly configBytes: Uint8Array }) => ({
  id: image.id, kind: image.kind, platform: image.platform, created: image.created, tags: image.tags.map(nameOf),
  manifest: image.manifest, config: image.config, chain: image.chain, layers: image.layers, missing: image.missing,
  configJson: JSON.parse(Buffer.from(image.configBytes).toString()) as unknown
})

const describe = (image: Image): string => [
  `image     ${image.id}`,
  ...image.tags.map((tag) => `tag       ${Format.printable(nameOf(tag))}`),
  `kind      ${image.kind}`,
  `platform  ${Format.printable(image.platform)}`,
  ...(image.created === undefined ? [] : [`created   ${Format.printable(image.created)}`]),
  `manifest  ${image.manifest.digest}`,
  ...(image.chain === undefined ? [] : [`chain     ${image.chain}`]),
  ...image.layers.map(({ blob, diffId }, index) => `layer ${String(index).padEnd(3)} ${short(blob.digest)} ${Format.bytes(blob.size).padStart(8)}  diff ID ${short(diffId)}`),
  ...image.missing.map((digest) => `missing   ${digest}`)
].join("\n")

/** Everything the store knows of images. */
export const show = Effect.fnUntraced(function*(flags: Named) {
  const images = yield* Effect.flatMap(Graph, (graph) => Effect.forEach(flags.names, (name) => graph.show(name))).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(images.map(facts)))
  yield* Cli.print(images.map((image) => {
    const config = JSON.stringify(facts(image).configJson, ["config", "User", "Env", "Entrypoint", "Cmd", "WorkingDir"], 2)
    return `${describe(image)}\n${config}`
  }).join("\n\n"))
})

/** Removes tags, and images with their last tag. */
export const rm = Effect.fnUntraced(function*(flags: Named) {
  const removed = yield* Effect.flatMap(Graph, (graph) => Effect.forEach(flags.names, (name) => graph.remove(name))).pipe(inStore(flags))
  if (flags.json) return yield* Cli.print(JSON.stringify(removed))
  for (const { children, freed, image, untagged } of removed) {
    for (const tag of untagged) yield* Cli.print(`untagged ${Format.printable(nameOf(tag))}`)
    if (image === undefined && children.length > 0) yield* Cli.tell(`graph: the image stays: ${children.length === 1 ? "another stands" : `${children.length} others stand`} on it`)
    if (image !== undefined) yield* Cli.print(`removed ${image.slice(0, 12)}, ${Format.bytes(freed)} freed`)
  }
})
