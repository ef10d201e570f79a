import { Clock, Duration, Effect, Option } from "effect"
import * as Format from "../../progress/Format.ts"
import { type Branch, type Entry, type Filter, Listing } from "../../store/names/Listing.ts"
import * as Cli from "../Cli.ts"
import { reading } from "../Reading.ts"
import { table, terminalColumns } from "../Table.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}

interface LsFlags extends Flags {
  readonly names: ReadonlyArray<string>
  readonly all: boolean
  readonly untagged: Option.Option<boolean>
  readonly platform: Option.Option<string>
  readonly labels: ReadonlyArray<string>
  readonly newer: Option.Option<Duration.Duration>
  readonly older: Option.Option<Duration.Duration>
  readonly digests: boolean
}

const nameOf = ({ name, reference }: Entry): string =>
  name === undefined || reference === undefined ? "<untagged>" : `${name}${reference.includes(":") ? "@" : ":"}${reference}`

/** What it is for, or what it is; of a whole index how many more there are. */
const platformOf = ({ artifact, members, platform }: Entry): string =>
  `${Format.printable(artifact ?? platform)}${members > 1 ? ` and ${members - 1} more` : ""}`

/** Minutes, hours or days since a time (ms). */
const ago = (now: number, since: number): string => {
  const minutes = Math.max(0, Math.floor((now - since) / 60_000))
  if (minutes < 60) return `${minutes} min ago`
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h ago` : `${Math.floor(minutes / 1440)} d ago`
}

/** Lists tags, and images without one. */
export const ls = Effect.fnUntraced(function*(flags: LsFlags) {
  const now = yield* Clock.currentTimeMillis
  const filter: Filter = {
    names: flags.names, labels: flags.labels, all: flags.all,
    ...Option.isSome(flags.untagged) && { untagged: flags.untagged.value }, ...Option.isSome(flags.platform) && { platform: flags.platform.value },
    ...Option.isSome(flags.newer) && { since: now - Duration.toMillis(flags.newer.value) },
    ...Option.isSome(flags.older) && { before: now - Duration.toMillis(flags.older.value) }
  }
  const listed = yield* Effect.flatMap(Listing, (listing) => listing.list(filter)).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(listed.map((entry) => ({ ...entry, size: entry.blobs }))))
  const narrow = (terminalColumns() ?? 80) < 80
  yield* Cli.print(table([
    ["IMAGE", "ID", ...flags.digests ? ["DIGEST"] : [], ...narrow ? [] : ["PLATFORM"], "SIZE", ...narrow ? [] : ["UNIQUE"], ...narrow && flags.digests ? [] : ["SINCE"]],
    ...listed.map((entry) => [
      Format.printable(nameOf(entry)), entry.id.slice(0, 12), ...flags.digests ? [narrow ? entry.target.slice(0, 19) : entry.target] : [], ...narrow ? [] : [platformOf(entry)],
      Format.bytes(entry.blobs), ...narrow ? [] : [Format.bytes(entry.unique)], ...narrow && flags.digests ? [] : [ago(now, entry.since)]
    ])
  ]))
})

const label = ({ added, chain, id, kind, names, size }: Branch): string => {
  const title = id === undefined ? `(layers up to ${chain?.slice(7, 19) ?? ""})`
    : `${names.length === 0 ? "<untagged>" : names.map(Format.printable).join(", ")}  ${id.slice(0, 12)}${kind === "schema1" || kind === "v1" ? ` (${kind})` : ""}`
  return `${title}  ${added === 0 ? "no layer" : `${added} layer${added === 1 ? "" : "s"}`}${size > 0 ? `, ${Format.bytes(size)}` : ""}`
}

/** Draws branches, each under what it stands on. */
const draw = (roots: ReadonlyArray<Branch>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const stack = roots.map((branch) => ({ branch, lead: "", mark: "", next: "" })).reverse()
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { branch, lead, mark, next } = top
    lines.push(`${lead}${mark}${label(branch)}`)
    const { children } = branch
    stack.push(...children.map((child, index) => {
      const last = index === children.length - 1
      return { branch: child, lead: lead + next, mark: last ? "└─ " : "├─ ", next: last ? "   " : "│  " }
    }).reverse())
  }
  return lines
}

/** Draws the graph: what stands on what, shared layers, and the tags at its heads. */
export const tree = Effect.fnUntraced(function*(flags: Flags) {
  const roots = yield* Effect.flatMap(Listing, (listing) => listing.tree).pipe(reading(flags.store))
  if (flags.json) return yield* Cli.print(JSON.stringify(roots))
  const columns = terminalColumns()
  const lines = draw(roots)
  if (lines.length === 0) return
  yield* Cli.print(lines.map((line) => columns === undefined ? line : Format.fit(line, columns)).join("\n"))
})
