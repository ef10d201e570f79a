import { Clock, type Duration, Effect, Layer, Option } from "effect"
import * as Check from "../../Check.ts"
import { dropBlobs } from "../../DropBlobs.ts"
import { Workers } from "../../layer/Workers.ts"
import * as Reference from "../../image/Reference.ts"
import * as Format from "../../progress/Format.ts"
import * as Repair from "../../Repair.ts"
import type { Finding } from "../../store/Graph.ts"
import { History } from "../../store/names/History.ts"
import { Collector } from "../../store/upkeep/Collector.ts"
import { Upkeep } from "../../store/upkeep/Upkeep.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import * as Network from "../Network.ts"
import type { NetworkFlags } from "../NetworkFlags.ts"
import { reading } from "../Reading.ts"
import * as Run from "../Run.ts"
import { table, terminalColumns } from "../Table.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}

interface GcFlags extends Flags {
  readonly quiet: boolean
  readonly dryRun: boolean
  readonly keepStorage: Option.Option<number>
  readonly olderThan: Option.Option<Duration.Duration>
  readonly keepPartials: Option.Option<number>
  readonly keepLast: number
  readonly dropBlobs: boolean
}

interface CheckFlags extends Flags, NetworkFlags {
  readonly repair: boolean
  readonly quiet: boolean
}

const inStore = (flags: Flags) => Effect.provide(Towline.layerStore({ store: flags.store }).pipe(Layer.provideMerge(Workers.layer)))

const many = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`

/** Removes what nothing needs, and if it is asked for, the compressed form of what is unpacked. */
export const gc = Effect.fnUntraced(function*(flags: GcFlags) {
  const { collected, given } = yield* Effect.gen(function*() {
    const collected = yield* (yield* Collector).collect({
      dryRun: flags.dryRun, keepLast: flags.keepLast,
      ...Option.isSome(flags.keepStorage) && { keepStorage: flags.keepStorage.value },
      ...Option.isSome(flags.olderThan) && { olderThan: flags.olderThan.value },
      ...Option.isSome(flags.keepPartials) && { keepPartials: flags.keepPartials.value }
    })
    if (!flags.dropBlobs) return { collected, given: undefined }
    // What would go anyway is not given up as well.
    const going = new Set(flags.dryRun ? collected.blobs.map(({ subject }) => subject) : [])
    const given = yield* dropBlobs({ dryRun: flags.dryRun, ...progressOf(flags.quiet) })
    return { collected, given: { dropped: given.dropped.filter(({ subject }) => !going.has(subject)), kept: given.kept.filter(({ subject }) => !going.has(subject)) } }
  }).pipe(flags.dryRun ? reading(flags.store) : inStore(flags))
  const more = (given?.dropped ?? []).reduce((sum, { size }) => sum + size, 0)
  const [freed, left] = [collected.freed + more, collected.left - more]
  if (flags.json) return yield* Cli.print(JSON.stringify({ ...collected, ...given === undefined ? {} : { dropped: given.dropped, kept: given.kept }, freed, left }))
  const { blobs, images, layers, partials, quarantined } = collected
  const would = flags.dryRun
  const lines = [
    ...images.map((id) => `image    ${id.slice(0, 12)}`),
    ...([["blob", blobs], ["layer", layers], ["partial", partials], ["dropped", given?.dropped ?? []]] as const).flatMap(([kind, taken]) =>
      taken.map(({ size, subject }) => `${kind.padEnd(8)} ${subject.slice(7, 19)} ${Format.bytes(size).padStart(8)}`)),
    ...quarantined.map(({ size, subject }) => `${subject} ${Format.bytes(size)}`),
    ...(given?.kept ?? []).map(({ reason, size, subject }) => `kept     ${subject.slice(7, 19)} ${Format.bytes(size).padStart(8)}  ${reason}`),
    `${would ? "would remove" : "removed"} ${many(images.length, "image")}, ${many(blobs.length, "blob")}, ${many(layers.length, "layer")}, ${many(partials.length, "partial")}`,
    ...given === undefined ? [] : [`${would ? "would give up" : "gave up"} the compressed form of ${many(given.dropped.length, "layer")}, kept that of ${given.kept.length}`],
    `${Format.bytes(freed)} ${would ? "would be freed" : "freed"}, ${Format.bytes(left)} left`
  ]
  yield* Cli.print(lines.join("\n"))
})

/** Shows what the store takes. */
export const du = Effect.fnUntraced(function*(flags: Flags) {
  const usage = yield* Effect.flatMap(Collector, (collector) => collector.usage).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(usage))
  const amounts = ([
    ["blobs", usage.blobs], ["layers, unpacked", usage.layers], ["partial blobs", usage.partials], ["of these, for gc", usage.reclaimable],
    ["for gc --drop-blobs", usage.compressed], ["unpacked alone", usage.unpackedAlone], ["quarantine", usage.quarantine]
  ] as const).filter(([name, { count }]) => count > 0 || name !== "quarantine").map(([name, { count, size }]) => [name, String(count), Format.bytes(size)])
  const totals = [["WHAT", "COUNT", "SIZE"], ...amounts, ["database", "", Format.bytes(usage.database)]]
  const images = usage.images.map(({ blobs, id, layers, names, shared, unique }) =>
    [Format.printable(names[0] ?? "<untagged>"), id.slice(0, 12), Format.bytes(blobs), Format.bytes(layers), Format.bytes(unique), Format.bytes(shared)])
  yield* Cli.print(table(totals))
  if (images.length > 0) yield* Cli.print(`\n${table([["IMAGE", "ID", "BLOBS", "LAYERS", "UNIQUE", "SHARED"], ...images])}`)
})

/** Shows how far a check is on stderr: one line that is written over on a terminal, else one every five seconds. */
const progressOf = (quiet: boolean): Check.CheckOptions => {
  if (quiet) return {}
  const terminal = process.stderr.isTTY
  let next = 0
  const progress = Effect.fnUntraced(function*({ done, total, what }: Check.CheckProgress) {
    const now = yield* Clock.currentTimeMillis
    const end = done === total
    if (now < next && !(terminal && end)) return
    if (!terminal && next === 0) {
      next = now + 5000
      return
    }
    next = now + (terminal ? 100 : 5000)
    const line = `${what} ${done} of ${total}`
    yield* Effect.sync(() => { process.stderr.write(terminal ? `\r\u001b[K${end ? "" : line}` : `${line}\n`) })
  })
  return { progress }
}

const line = ({ detail, kind, subject }: Finding) => `${kind}  ${Format.printable(subject)}  ${Format.printable(detail)}`

/** Looks for damage, and mends it if that is asked for; what is still wrong then is exit code 6. */
export const check = Effect.fnUntraced(function*(flags: CheckFlags) {
  const options = progressOf(flags.quiet)
  const failed = Effect.fail(new Run.Failed(Run.exitCodes.refused))
  if (flags.repair) {
    const { actions, left } = yield* Repair.repair(options).pipe(Effect.provide(Towline.layer({ store: flags.store }).pipe(Layer.provideMerge(Network.settings(flags)))))
    if (flags.json) yield* Cli.print(JSON.stringify({ actions, left }))
    else {
      const lines = [
        ...actions.map(({ detail, finding, outcome }) => `${outcome.padEnd(11)} ${finding.kind}  ${Format.printable(finding.blob ?? finding.subject)}  ${Format.printable(detail)}`),
        ...left.map(line)
      ]
      yield* Cli.print([...lines, left.length === 0 ? actions.length === 0 ? "no damage found" : "no damage left" : `${many(left.length, "finding")} left`].join("\n"))
    }
    return yield* left.length > 0 ? failed : Effect.void
  }
  const { away, findings } = yield* Effect.all({ findings: Check.check(options), away: Effect.flatMap(Upkeep, ({ quarantined }) => quarantined) }).pipe(reading(flags.store))
  if (flags.json) yield* Cli.print(JSON.stringify(findings))
  else yield* Cli.print(findings.length === 0 ? "no damage found" : findings.map(line).join("\n"))
  if (away.length > 0 && !flags.json) yield* Cli.tell(`graph: quarantine/ of the store holds ${many(away.length, "thing")} that a repair put away, ${Format.bytes(away.reduce((sum, { size }) => sum + size, 0))}; gc removes each after 30 days, or with --older-than`)
  if (findings.length > 0) return yield* failed
})

/** What tags pointed to. */
export const log = Effect.fnUntraced(function*(flags: Flags & { readonly names: ReadonlyArray<string> }) {
  const tags = yield* Effect.forEach(flags.names, (text) => Effect.map(Effect.fromResult(Reference.parse(text)), (reference) =>
    ({ name: Reference.name(reference), reference: reference.digest ?? reference.tag ?? "latest" })))
  const changes = yield* Effect.flatMap(History, (history) => tags.length === 0 ? history.log()
    : Effect.map(Effect.forEach(tags, (tag) => history.log(tag)), (lists) => lists.flat())).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(changes))
  const narrow = (terminalColumns() ?? 80) < 80
  yield* Cli.print(table([
    ["TAG", "WHEN", "IMAGE", ...narrow ? [] : ["MANIFEST"], "FROM"],
    ...changes.map(({ at, endpoint, kept, manifest, name, now, reference, rollback }) => [
      Format.printable(`${name}${reference.includes(":") ? "@" : ":"}${reference}`), new Date(at).toISOString().replace("T", " ").slice(0, narrow ? 16 : 19),
      now === null ? "removed" : `${now.slice(0, 12)}${kept ? "" : " (gone)"}`, ...narrow ? [] : [manifest?.slice(7, 19) ?? ""],
      rollback ? "rollback" : Format.printable(endpoint ?? "here")
    ])
  ]))
})
