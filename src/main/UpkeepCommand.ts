import { type Duration, Effect, Layer, Option } from "effect"
import { Workers } from "../layer/Workers.ts"
import * as Format from "../progress/Format.ts"
import { Collector } from "../store/upkeep/Collector.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"
import { table } from "./Table.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}

interface GcFlags extends Flags {
  readonly dryRun: boolean
  readonly keepStorage: Option.Option<number>
  readonly olderThan: Option.Option<Duration.Duration>
  readonly keepPartials: Option.Option<number>
  readonly keepLast: number
}

const inStore = (flags: Flags) => Effect.provide(Towline.layerStore({ store: flags.store }).pipe(Layer.provide(Workers.layer)))

const many = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`

/** Removes what nothing needs. */
export const gc = Effect.fnUntraced(function*(flags: GcFlags) {
  const collected = yield* Effect.flatMap(Collector, (collector) => collector.collect({
    dryRun: flags.dryRun, keepLast: flags.keepLast,
    ...Option.isSome(flags.keepStorage) && { keepStorage: flags.keepStorage.value },
    ...Option.isSome(flags.olderThan) && { olderThan: flags.olderThan.value },
    ...Option.isSome(flags.keepPartials) && { keepPartials: flags.keepPartials.value }
  })).pipe(inStore(flags))
  if (flags.json) return yield* Cli.print(JSON.stringify(collected))
  const { blobs, freed, images, layers, left, partials } = collected
  const lines = [
    ...images.map((id) => `image    ${id.slice(0, 12)}`),
    ...([["blob", blobs], ["layer", layers], ["partial", partials]] as const).flatMap(([kind, taken]) =>
      taken.map(({ size, subject }) => `${kind.padEnd(8)} ${subject.slice(7, 19)} ${Format.bytes(size).padStart(8)}`)),
    `${flags.dryRun ? "would remove" : "removed"} ${many(images.length, "image")}, ${many(blobs.length, "blob")}, ${many(layers.length, "layer")}, ${many(partials.length, "partial")}`,
    `${Format.bytes(freed)} ${flags.dryRun ? "would be freed" : "freed"}, ${Format.bytes(left)} left`
  ]
  yield* Cli.print(lines.join("\n"))
})

/** Shows what the store takes. */
export const du = Effect.fnUntraced(function*(flags: Flags) {
  const usage = yield* Effect.flatMap(Collector, (collector) => collector.usage).pipe(inStore(flags))
  if (flags.json) return yield* Cli.print(JSON.stringify(usage))
  const amounts = ([["blobs", usage.blobs], ["layers, unpacked", usage.layers], ["partial blobs", usage.partials], ["of these, for gc", usage.reclaimable]] as const)
    .map(([name, { count, size }]) => [name, String(count), Format.bytes(size)])
  const totals = [["WHAT", "COUNT", "SIZE"], ...amounts, ["database", "", Format.bytes(usage.database)]]
  const images = usage.images.map(({ blobs, id, layers, names, shared, unique }) =>
    [Format.printable(names[0] ?? "<untagged>"), id.slice(0, 12), Format.bytes(blobs), Format.bytes(layers), Format.bytes(unique), Format.bytes(shared)])
  yield* Cli.print(table(totals))
  if (images.length > 0) yield* Cli.print(`\n${table([["IMAGE", "ID", "BLOBS", "LAYERS", "UNIQUE", "SHARED"], ...images])}`)
})
