import { Effect, Layer, Option, Stream } from "effect"
import { resolve } from "node:path"
import { digestsOf } from "../../Bundle.ts"
import * as Refetch from "../../Refetch.ts"
import * as Save from "../../Save.ts"
import * as SaveOld from "../../SaveOld.ts"
import * as Files from "../../store/disk/Files.ts"
import { Graph } from "../../store/Graph.ts"
import { Leases } from "../../store/Leases.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import * as Network from "../Network.ts"
import type { NetworkFlags } from "../NetworkFlags.ts"
import { reading } from "../Reading.ts"

/** What the command line of `graph save` says. */
export interface SaveFlags extends NetworkFlags {
  readonly names: ReadonlyArray<string>
  readonly store: string
  readonly output: Option.Option<string>
  readonly format: Option.Option<Save.Format | "docker-1.9" | "oci">
  readonly json: boolean
}

/** Writes images of the store as an archive, to a file or to stdout, or as a layout to a folder. Layers that are here unpacked alone are fetched again, and nobody is asked otherwise. */
export const save = Effect.fnUntraced(function*(flags: SaveFlags) {
  const { json, names, store } = flags
  const [asked, output] = [Option.getOrUndefined(flags.format), Option.getOrUndefined(flags.output)]
  if (output === undefined && asked === "oci") return yield* new Cli.UsageError({ problem: "a layout is a folder: name it with --output" })
  if (output === undefined && json) return yield* new Cli.UsageError({ problem: "--json goes to stdout, as the archive does: name a file with --output" })
  if (output === undefined && process.stdout.isTTY) {
    return yield* new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with --output, or send it on" })
  }
  /** The layers that are needed, held before anybody looks whether they are here. */
  const layers = Effect.gen(function*() {
    const leases = yield* Leases
    if (asked === "docker-1.9") {
      const all = yield* SaveOld.layers(names)
      yield* leases.hold(all.flatMap(({ blob, diffId }) => [blob.digest, diffId]))
      return all
    }
    const images = yield* Save.find(names)
    yield* leases.hold(images.flatMap(digestsOf))
    return images.flatMap((image) => [image, ...image.whole?.members ?? []]).flatMap(({ layers }) => layers)
  })
  const send = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>) =>
    output !== undefined ? Files.write(resolve(output), bytes) : Stream.runForEach(bytes, Cli.send)
  const write = Effect.gen(function*() {
    if (asked === "docker-1.9") return yield* Effect.as(send(SaveOld.stream(names)), asked)
    const found = yield* Save.find(names)
    if (asked === "oci") return yield* Effect.as(Save.layout(found, output ?? ""), asked)
    const format = asked ?? (found.some(({ artifact }) => artifact !== undefined) ? "oci-archive" : "docker-archive")
    return yield* Effect.as(send(Save.stream(found, format)), format)
  }).pipe(Effect.flatMap((format) => json ? tell(names, format, resolve(output ?? "")) : Effect.void))
  const complete = yield* Effect.gen(function*() {
    if ((yield* Effect.flatMap(layers, Refetch.lacking)).length > 0) return false
    yield* write
    return true
  }).pipe(Effect.scoped, reading(store))
  if (complete) return
  yield* Effect.gen(function*() {
    yield* Refetch.layers(yield* layers)
    yield* write
  }).pipe(Effect.scoped, Effect.provide(Towline.layer({ store }).pipe(Layer.provideMerge(Network.settings(flags)))))
})

/** What was written, as JSON. */
const tell = Effect.fnUntraced(function*(names: ReadonlyArray<string>, format: string, output: string) {
  const graph = yield* Graph
  const images = yield* Effect.forEach(names, (name) => Effect.map(graph.resolve(name), ({ id, manifest, platform }) => ({ name, image: id, manifest: manifest.digest, platform })))
  yield* Cli.print(JSON.stringify({ format, output, images }))
})
