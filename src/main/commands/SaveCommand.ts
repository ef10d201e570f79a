import { Effect, Layer, Option, Stream } from "effect"
import { resolve } from "node:path"
import { digestsOf } from "../../Bundle.ts"
import * as Refetch from "../../Refetch.ts"
import * as Save from "../../Save.ts"
import * as SaveOld from "../../SaveOld.ts"
import * as Files from "../../store/disk/Files.ts"
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
  readonly format: Option.Option<Save.Format | "docker-1.9">
}

/** Writes images of the store as an archive, to a file or to stdout. Layers that are here unpacked alone are fetched again, and nobody is asked otherwise. */
export const save = Effect.fnUntraced(function*(flags: SaveFlags) {
  const { format, names, output, store } = flags
  if (Option.isNone(output) && process.stdout.isTTY) {
    return yield* new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with --output, or send it on" })
  }
  const asked = Option.getOrUndefined(format)
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
    Option.isSome(output) ? Files.write(resolve(output.value), bytes) : Stream.runForEach(bytes, Cli.send)
  const write = Effect.gen(function*() {
    if (asked === "docker-1.9") return yield* send(SaveOld.stream(names))
    const found = yield* Save.find(names)
    return yield* send(Save.stream(found, asked ?? (found.some(({ artifact }) => artifact !== undefined) ? "oci-archive" : "docker-archive")))
  })
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
