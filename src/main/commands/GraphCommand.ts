import { Effect, Layer } from "effect"
import { short } from "../../image/Digest.ts"
import { none } from "../../image/Platform.ts"
import { Workers } from "../../layer/Workers.ts"
import * as Format from "../../progress/Format.ts"
import { Graph, type Image, type TagName } from "../../store/Graph.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import { reading } from "../Reading.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}
interface Named extends Flags {
  readonly names: ReadonlyArray<string>
}

const inStore = (flags: Flags) => Effect.provide(Towline.layerStore({ store: flags.store }).pipe(Layer.provide(Workers.layer)))

const nameOf = ({ name, reference }: TagName): string => `${name}${reference.includes(":") ? "@" : ":"}${reference}`

type Shown = Image & { readonly configBytes: Uint8Array; readonly whole: ReadonlyArray<{ readonly target: string; readonly members: ReadonlyArray<Image> }> }

const facts = (image: Shown) => ({
  id: image.id, kind: image.kind, platform: image.platform, created: image.created, tags: image.tags.map(nameOf),
  ...image.artifact === undefined ? {} : { artifact: image.artifact },
  ...image.whole.length === 0 ? {} : { whole: image.whole.map(({ members, target }) => ({ target, members: members.map(({ artifact, id, manifest, platform }) => ({ id, manifest: manifest.digest, platform, ...artifact === undefined ? {} : { artifact: artifact.type } })) })) },
  manifest: image.manifest, config: image.config, chain: image.chain, layers: image.layers, missing: image.missing,
  // Of an artifact the manifest: its config is anything.
  configJson: JSON.parse(Buffer.from(image.configBytes).toString()) as unknown
})

const describe = (image: Shown): string => [
  `image     ${image.id}`,
  ...image.tags.map((tag) => `tag       ${Format.printable(nameOf(tag))}`),
  `kind      ${image.kind}`,
  ...image.artifact === undefined ? [`platform  ${Format.printable(image.platform)}`]
    : [`artifact  ${Format.printable(image.artifact.type)}, stored whole and not unpacked`, ...image.platform === none ? [] : [`platform  ${Format.printable(image.platform)}`]],
  ...(image.created === undefined ? [] : [`created   ${Format.printable(image.created)}`]),
  `manifest  ${image.manifest.digest}`,
  ...(image.chain === undefined ? [] : [`chain     ${image.chain}`]),
  ...image.layers.map(({ blob, diffId }, index) => `layer ${String(index).padEnd(3)} ${short(blob.digest)} ${Format.bytes(blob.size).padStart(8)}  diff ID ${short(diffId)}`),
  ...image.artifact === undefined ? [] : [image.config, ...image.artifact.blobs].map(({ digest, mediaType, size }, index) =>
    `${index === 0 ? "config   " : `blob ${String(index - 1).padEnd(4)}`} ${short(digest)} ${Format.bytes(size).padStart(8)}  ${Format.printable(mediaType)}`),
  ...image.whole.flatMap(({ members, target }) => [
    `index     ${target}`, ...members.map(({ artifact, id, platform }) => `  has     ${id.slice(0, 12)}  ${Format.printable(artifact === undefined ? platform : `artifact ${artifact.type}`)}`)
  ]),
  ...image.missing.map((digest) => `missing   ${digest}`)
].join("\n")

/** Everything the store knows of images. */
export const show = Effect.fnUntraced(function*(flags: Named) {
  const images = yield* Effect.flatMap(Graph, (graph) => Effect.forEach(flags.names, Effect.fnUntraced(function*(name) {
    const image = yield* graph.show(name)
    const targets = new Set((yield* Effect.forEach(image.tags, graph.targetOf)).flatMap((target) => target === undefined ? [] : [target]))
    const whole = yield* Effect.forEach(targets, (target) => Effect.map(graph.members(target), (members) => ({ target, members })))
    const shown: Shown = { ...image, whole: whole.filter(({ members }) => members.length > 0) }
    return shown
  }))).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(images.map(facts)))
  yield* Cli.print(images.map((image) => {
    if (image.artifact !== undefined) return describe(image)
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
