import { Effect, Layer, Option, Stream } from "effect"
import { Workers } from "../layer/Workers.ts"
import * as Save from "../Save.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"

/** What the command line of `graph save` says. */
export interface SaveFlags {
  readonly names: ReadonlyArray<string>
  readonly store: string
  readonly output: Option.Option<string>
  readonly format: Save.Format
}

/** Writes images of the store as an archive, to a file or to stdout. */
export const save = Effect.fnUntraced(function*({ format, names, output, store }: SaveFlags) {
  if (Option.isNone(output) && process.stdout.isTTY) {
    return yield* new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with --output, or send it on" })
  }
  yield* Effect.gen(function*() {
    const images = yield* Save.find(names)
    if (Option.isSome(output)) yield* Save.write(images, format, output.value)
    else yield* Stream.runForEach(Save.stream(images, format), Cli.send)
  }).pipe(Effect.provide(Towline.layerStore({ store }).pipe(Layer.provide(Workers.layer))))
})
