import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect, Fiber, Layer, Option } from "effect"
import type { Source } from "../../ArchiveInput.ts"
import { Durability } from "../../Durability.ts"
import { Workers } from "../../layer/Workers.ts"
import * as Load from "../../Load.ts"
import * as Format from "../../progress/Format.ts"
import { Pools } from "../../Pools.ts"
import { Hub } from "../../progress/Hub.ts"
import { keyOf, type PullEvent } from "../../progress/PullEvent.ts"
import * as Disk from "../../store/disk/Disk.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import * as Limits from "../Limits.ts"
import * as Progress from "../Progress.ts"

/** What the command line of `graph load` says. */
export interface LoadFlags {
  readonly file: string
  readonly store: string
  readonly platform: Option.Option<string>
  readonly unpack: boolean
  readonly limits: ReadonlyArray<string>
  readonly durability: "safe" | "fast"
  readonly progress: Progress.Kind
  readonly quiet: boolean
  readonly json: boolean
}

const standardInput = "standard input"

const sourceOf = (file: string): Source => file !== "-" ? file : {
  name: standardInput,
  bytes: NodeStream.fromReadable({ evaluate: () => process.stdin, onError: (cause) => Disk.storeError(cause, "read", standardInput), closeOnDone: false })
}

const nameOf = ({ name, reference }: { readonly name: string; readonly reference: string }) => `${name}:${reference}`

const line = ({ digest, id, names }: Load.LoadedImage): string =>
  (names.length === 0 ? [id] : names.map(nameOf)).map((name) => Format.printable(`${name} ${digest}`)).join("\n")

/** Loads the images of an archive or layout, and names what has moved. */
export const load = Effect.fnUntraced(function*(flags: LoadFlags) {
  if (flags.file === "-" && process.stdin.isTTY) return yield* new Cli.UsageError({ problem: "an archive is expected on standard input, which is a terminal" })
  const hub = new Hub<PullEvent>(keyOf)
  const options = {
    unpack: flags.unpack,
    ...(Option.isSome(flags.platform) ? { platform: flags.platform.value } : {})
  }
  const shown = yield* Progress.show(flags.quiet ? "quiet" : flags.progress, hub.stream).pipe(Effect.forkChild({ startImmediately: true }))
  const loaded = yield* Load.load(hub, sourceOf(flags.file), options).pipe(
    Effect.provide(Layer.merge(Pools.layer, Towline.layerStore({ store: flags.store })).pipe(Layer.provideMerge(Layer.merge(Workers.layer, Limits.settings(flags.limits))))),
    Effect.provideService(Durability, flags.durability),
    Effect.ensuring(Effect.andThen(Effect.sync(() => hub.end()), Effect.ignore(Fiber.join(shown))))
  )
  for (const renamed of loaded.renamed) yield* Cli.tell(Format.printable(Load.renamedSentence(renamed)))
  if (flags.json) return yield* Cli.print(JSON.stringify({ ...loaded, images: loaded.images.map((image) => ({ ...image, names: image.names.map(nameOf) })) }))
  for (const image of loaded.images) yield* Cli.print(line(image))
})
