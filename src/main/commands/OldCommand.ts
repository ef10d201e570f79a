import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect, FileSystem, Layer } from "effect"
import * as Reference from "../../image/Reference.ts"
import * as History from "../../History.ts"
import { Workers } from "../../layer/Workers.ts"
import * as Format from "../../progress/Format.ts"
import { Durability } from "../../Durability.ts"
import * as Register from "../../Register.ts"
import * as Disk from "../../store/disk/Disk.ts"
import { Graph } from "../../store/Graph.ts"
import * as Towline from "../../Towline.ts"
import { unsetSentence } from "../../Unset.ts"
import * as Cli from "../Cli.ts"
import { reading } from "../Reading.ts"
import { table } from "../Table.ts"

const inStore = (store: string) => Effect.provide(Towline.layerStore({ store }).pipe(Layer.provideMerge(Workers.layer)))

/** Gives an image one more name; a tag that is set moves only with `force`, a digest never. */
export const tag = Effect.fnUntraced(function*(flags: { readonly store: string; readonly image: string; readonly name: string; readonly force: boolean; readonly json: boolean }) {
  const reference = yield* Effect.fromResult(Reference.parse(flags.name))
  const name = { name: Reference.name(reference), reference: reference.digest ?? reference.tag ?? "latest" }
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    const image = yield* graph.resolve(flags.image)
    const old = yield* graph.tag(image, name, { force: flags.force })
    if (flags.json) return yield* Cli.print(JSON.stringify({ name: Reference.print(reference), image: image.id, ...old === undefined ? {} : { before: old } }))
    if (old !== undefined) yield* Cli.tell(`${flags.name} named ${old.slice(0, 12)} before`)
  }).pipe(inStore(flags.store))
})

const stdin = NodeStream.fromReadable({ evaluate: () => process.stdin, onError: (cause) => Disk.storeError(cause, "read", "standard input"), closeOnDone: false })

/** Adds an image of the old graph: its JSON from a file, its layer from standard input. */
export const set = Effect.fnUntraced(function*(flags: { readonly store: string; readonly id: string; readonly json: string; readonly durability: "safe" | "fast" }) {
  if (process.stdin.isTTY) return yield* new Cli.UsageError({ problem: "the layer's tar is expected on standard input, which is a terminal (< /dev/null is an empty layer)" })
  const files = yield* FileSystem.FileSystem
  const json = yield* Effect.mapError(files.readFile(flags.json), ({ message }) => new Cli.UsageError({ problem: `the file ${flags.json} of --json cannot be read: ${message}` }))
  const parent = yield* Register.parentOf(flags.id, json)
  const { added, unset } = yield* Effect.scoped(Register.register({ id: flags.id, kind: "v1", parent, json }, Register.from(stdin))).pipe(
    inStore(flags.store), Effect.provideService(Durability, flags.durability))
  const warning = unset === undefined ? undefined : unsetSentence([unset])
  if (warning !== undefined) yield* Cli.tell(`warning: ${warning}`)
  if (!added) yield* Cli.tell(`${flags.id.slice(0, 12)} is in the graph already: its layer was not read`)
  yield* Cli.print(flags.id)
})

/** How an image was made, newest step first. */
export const history = Effect.fnUntraced(function*(flags: { readonly store: string; readonly image: string; readonly v1: boolean; readonly json: boolean }) {
  const steps = yield* History.of(flags.image, { v1: flags.v1 }).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(steps))
  const text = (value: string | undefined) => Format.printable((value ?? "").replaceAll(/\s+/g, " "))
  yield* Cli.print(table([
    ["CREATED BY", "IMAGE", ...flags.v1 ? ["V1 ID"] : [], "CREATED", "SIZE"],
    ...steps.map(({ created, createdBy, comment, id, size, v1 }) => [
      text(createdBy === "" ? comment : createdBy), id?.slice(0, 12) ?? "-", ...flags.v1 ? [text(v1).slice(0, 12)] : [],
      text(created).slice(0, 10), size === undefined ? "-" : Format.bytes(size)
    ])
  ]))
})
