import { Effect, Layer, Option, Stream } from "effect"
import { resolve } from "node:path"
import { Workers } from "../layer/Workers.ts"
import * as Save from "../Save.ts"
import * as SaveOld from "../SaveOld.ts"
import * as Files from "../store/Files.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"

/** What the command line of `graph save` says. */
export interface SaveFlags {
  readonly names: ReadonlyArray<string>
  readonly store: string
  readonly output: Option.Option<string>
  readonly format: Option.Option<Save.Format | "docker-1.9">
}

/** Writes images of the store as an archive, to a file or to stdout. */
export const save = Effect.fnUntraced(function*({ format, names, output, store }: SaveFlags) {
  if (Option.isNone(output) && process.stdout.isTTY) {
    return yield* new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with --output, or send it on" })
  }
  yield* Effect.gen(function*() {
    const asked = Option.getOrUndefined(format)
    const found = asked === "docker-1.9" ? [] : yield* Save.find(names)
    const write = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>) =>
      Option.isSome(output) ? Files.write(resolve(output.value), bytes) : Stream.runForEach(bytes, Cli.send)
    if (asked === "docker-1.9") return yield* write(SaveOld.stream(names))
    yield* write(Save.stream(found, asked ?? (found.some(({ artifact }) => artifact !== undefined) ? "oci-archive" : "docker-archive")))
  }).pipe(Effect.provide(Towline.layerStore({ store }).pipe(Layer.provideMerge(Workers.layer))))
})
