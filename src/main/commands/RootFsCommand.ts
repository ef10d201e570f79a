import { Effect, Layer, Option } from "effect"
import { resolve } from "node:path"
import { Workers } from "../../layer/Workers.ts"
import * as Offline from "../../Offline.ts"
import * as RootFs from "../../RootFs.ts"
import * as RootTar from "../../RootTar.ts"
import { NotInStore } from "../../store/BlobStore.ts"
import { Graph } from "../../store/Graph.ts"
import { LayerStore } from "../../store/LayerStore.ts"
import { Leases } from "../../store/Leases.ts"
import { withFiles } from "../../StoreImages.ts"
import * as Towline from "../../Towline.ts"
import { unsetSentence } from "../../Unset.ts"
import * as Cli from "../Cli.ts"
import * as Limits from "../Limits.ts"
import { type MapFlags, owners, sendable } from "../RootFsFlags.ts"

/** What the command line of `graph rootfs` says. */
export interface RootFsFlags extends MapFlags {
  readonly image: string
  readonly target: string
  readonly store: string
  readonly link: RootFs.Link
  readonly limits: ReadonlyArray<string>
  readonly json: boolean
}

/** Writes the root file system of an image of the store to a new folder, or as a tar archive. */
export const rootfs = Effect.fnUntraced(function*(flags: RootFsFlags) {
  const file = flags.target.startsWith("tar:") ? flags.target.slice(4) : undefined
  if (file === "") return yield* new Cli.UsageError({ problem: "tar: is not of the form tar:FILE or tar:-" })
  if (file === "-" && flags.json) return yield* new Cli.UsageError({ problem: "--json goes to stdout, as tar:- does: name a file" })
  if (file === "-") yield* sendable
  const map = owners(flags)
  const work = Effect.gen(function*() {
    const image = yield* withFiles(yield* (yield* Graph).resolve(flags.image), flags.image)
    yield* (yield* Leases).hold(image.layers.flatMap(({ blob, diffId }) => [blob.digest, diffId]))
    const stored = yield* LayerStore
    const layers = yield* Effect.forEach(image.layers, Effect.fnUntraced(function*({ blob, diffId }) {
      if (image.missing.includes(blob.digest) && Option.isNone(yield* stored.find(diffId))) return yield* new NotInStore({ digest: blob.digest })
      return { blob, diffId, repository: { domain: "", path: image.id } }
    }))
    const done = (target: string) => flags.json
      ? Cli.print(JSON.stringify({ image: image.id, platform: image.platform, layers: layers.map(({ diffId }) => diffId), target })) : Effect.void
    if (file !== undefined) return yield* file === "-" ? RootTar.send(layers, 1, map) : Effect.andThen(RootTar.write(layers, file, map), done(resolve(file)))
    yield* RootFs.vacant(flags.target)
    const { path, publish, unset } = yield* RootFs.assemble(layers, flags.target, flags.link, map)
    yield* stored.sync(path)
    yield* publish
    const warning = unsetSentence(unset)
    if (warning !== undefined) yield* Cli.tell(`graph: ${warning}`)
    yield* done(resolve(flags.target))
  })
  yield* work.pipe(Effect.scoped, Effect.provide(Offline.layer.pipe(Layer.provideMerge(Towline.layerReading({ store: flags.store })), Layer.provideMerge(Layer.merge(Workers.layer, Limits.settings(flags.limits))))))
})
