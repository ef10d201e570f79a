import { Effect, Layer, Option, Stream } from "effect"
import { Workers } from "../layer/Workers.ts"
import * as Save from "../Save.ts"
import * as SaveOld from "../SaveOld.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"

/** What the command line of `graph save` says. */
export interface SaveFlags {
  readonly names: ReadonlyArray<string>
  readonly store: string
  readonly output: Option.Option<string>
  readonly format: Save.Format | "docker-1.9"
}

/** Writes images of the store as an archive, to a file or to stdout. */
export const save = Effect.fnUntraced(function*({ format, names, output, store }: SaveFlags) {
  if (Option.isNone(output) && process.stdout.isTTY) {
    return yield* new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with --output, or send it on" })
  }
  yield* Effect.gen(function*() {
    if (format === "docker-1.9") {
      return yield* Option.isSome(output) ? SaveOld.write(names, output.value) : Stream.runForEach(SaveOld.stream(names), Cli.send)
    }
    const images = yield* Save.find(names)
    yield* Option.isSome(output) ? Save.write(images, format, output.value) : Stream.runForEach(Save.stream(images, format), Cli.send)
  }).pipe(Effect.provide(Towline.layerStore({ store }).pipe(Layer.provideMerge(Workers.layer))))
})
