import { Result, Schema } from "effect"
import { ConfigError, where } from "./ConfigError.ts"
import * as Toml from "./Toml.ts"

/** A mirror of a `[[registry]]`: used for references by tag, by digest, or both. */
export interface Mirror {
  readonly location: string
  readonly insecure: boolean
  readonly tags: boolean
  readonly digests: boolean
  /** `file:line`. */
  readonly why: string
}

/** One `[[registry]]`: names under `prefix` are served from `location` (the same name if undefined), its mirrors asked first. */
export interface Rule {
  readonly prefix: string
  readonly location: string | undefined
  readonly insecure: boolean
  readonly blocked: boolean
  readonly mirrors: ReadonlyArray<Mirror>
  readonly why: string
}

/** What `registries.conf` and its drop-ins say together. */
export interface Registries {
  readonly rules: ReadonlyArray<Rule>
  /** Where names without a registry are looked for, in order; undefined: the files say nothing. */
  readonly search: { readonly registries: ReadonlyArray<string>; readonly why: string } | undefined
  /** Short names and the full names they stand for. */
  readonly aliases: ReadonlyMap<string, { readonly name: string; readonly why: string }>
}

/** No file. */
export const empty: Registries = { rules: [], search: undefined, aliases: new Map() }

const Bool = Schema.optionalKey(Schema.Boolean)
const Text = Schema.optionalKey(Schema.String)
const List = Schema.optionalKey(Schema.Array(Schema.String))
const MirrorTable = Schema.Struct({ location: Text, insecure: Bool, "pull-from-mirror": Text })
const RegistryTable = Schema.Struct({
  prefix: Text, location: Text, insecure: Bool, blocked: Bool, "mirror-by-digest-only": Bool, mirror: Schema.optionalKey(Schema.Array(MirrorTable))
})
const OldList = Schema.optionalKey(Schema.Struct({ registries: List }))
const File = Schema.Struct({
  "unqualified-search-registries": List,
  registry: Schema.optionalKey(Schema.Array(RegistryTable)),
  aliases: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  // Version 1 of the format.
  registries: Schema.optionalKey(Schema.Struct({ search: OldList, insecure: OldList, block: OldList }))
})

/** A location or prefix without the slashes at its end, or what is wrong with it. */
const place = (text: string): Result.Result<string, string> => {
  const trimmed = text.replace(/\/+$/, "")
  if (/^https?:\/\//i.test(trimmed)) return Result.fail(`invalid location '${trimmed}': URI schemes are not supported`)
  return /[\s?#]/.test(trimmed) ? Result.fail(`invalid location '${trimmed}'`) : Result.succeed(trimmed)
}

const usage = (mode: string | undefined, byDigestOnly: boolean): readonly [tags: boolean, digests: boolean] | undefined => {
  if (byDigestOnly) return [false, true]
  switch (mode ?? "all") {
    case "":
    case "all": return [true, true]
    case "digest-only": return [false, true]
    case "tag-only": return [true, false]
    default: return undefined
  }
}

const ruleOf = (path: string, table: typeof RegistryTable.Type, line: number | undefined, mirrorLines: ReadonlyArray<number>): Result.Result<Rule, ConfigError> => {
  const fail = (problem: string, at = line) => Result.fail(new ConfigError({ path, problem, ...at !== undefined && { line: at } }))
  const location = place(table.location ?? "")
  const prefix = place(table.prefix ?? "")
  if (Result.isFailure(location)) return fail(location.failure)
  if (Result.isFailure(prefix)) return fail(prefix.failure)
  const name = prefix.success === "" ? location.success : prefix.success
  const wild = name.startsWith("*.")
  if (name === "") return fail("invalid condition: both location and prefix are unset")
  if (location.success === "" && !wild) return fail("invalid condition: location is unset and prefix is not in the format: *.example.com")
  if (name.includes("*") && (!wild || name.slice(2).includes("*") || name.includes("/"))) return fail(`the prefix '${name}' is not in the format: *.example.com`)
  const byDigestOnly = table["mirror-by-digest-only"] ?? false
  const mirrors: Array<Mirror> = []
  for (const [index, mirror] of (table.mirror ?? []).entries()) {
    const at = mirrorLines[index] ?? line
    const served = place(mirror.location ?? "")
    if (Result.isFailure(served)) return fail(served.failure, at)
    if (served.success === "") return fail("invalid condition: a mirror location is unset", at)
    const mode = mirror["pull-from-mirror"]
    if (byDigestOnly && mode !== undefined && mode !== "") return fail("mirror-by-digest-only of a registry and pull-from-mirror of its mirror cannot be set at the same time", at)
    const used = usage(mode, byDigestOnly)
    if (used === undefined) return fail(`unsupported pull-from-mirror value '${mode ?? ""}' (there are all, digest-only and tag-only)`, at)
    mirrors.push({ location: served.success, insecure: mirror.insecure ?? false, tags: used[0], digests: used[1], why: where(path, at) })
  }
  return Result.succeed({
    prefix: name, location: location.success === "" ? undefined : location.success,
    insecure: table.insecure ?? false, blocked: table.blocked ?? false, mirrors, why: where(path, line)
  })
}

/** Reads one file (containers-registries.conf(5), version 2, and version 1 where that is what it is). */
export const decode = (path: string, text: string): Result.Result<Registries, ConfigError> => {
  const decoded = Toml.decode(File, path, text)
  if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
  const file = decoded.success
  const old = file.registries
  if (old !== undefined && (file.registry !== undefined || file["unqualified-search-registries"] !== undefined)) {
    return Result.fail(new ConfigError({ path, problem: "mixing sysregistry v1/v2 is not supported" }))
  }
  const places = Toml.headings(text)
  const starts = places.filter(({ array, key }) => array && key.join() === "registry").map(({ line }) => line)
  const mirrorLines = places.filter(({ array, key }) => array && key.join() === "registry,mirror").map(({ line }) => line)
  const rules: Array<Rule> = []
  const tables = file.registry ?? [
    ...new Set([...old?.insecure?.registries ?? [], ...old?.block?.registries ?? []])
  ].map((location) => ({ location, insecure: old?.insecure?.registries?.includes(location) ?? false, blocked: old?.block?.registries?.includes(location) ?? false }))
  for (const [index, table] of tables.entries()) {
    const line = starts[index]
    const rule = ruleOf(path, table, line, mirrorLines.filter((at) => line !== undefined && at > line && at < (starts[index + 1] ?? Infinity)))
    if (Result.isFailure(rule)) return Result.fail(rule.failure)
    rules.push(rule.success)
  }
  const lineOf = (pattern: RegExp) => text.split("\n").findIndex((line) => pattern.test(line)) + 1 || undefined
  const search = file["unqualified-search-registries"] ?? old?.search?.registries
  const searched: Array<string> = []
  for (const registry of search ?? []) {
    const one = place(registry)
    if (Result.isFailure(one)) return Result.fail(new ConfigError({ path, problem: one.failure }))
    searched.push(one.success)
  }
  const aliases = new Map(Object.entries(file.aliases ?? {}).map(([alias, name]) =>
    [alias, { name, why: where(path, lineOf(new RegExp(`^\\s*["']?${alias.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}["']?\\s*=`))) }] as const))
  return Result.succeed({
    rules, aliases, search: search === undefined ? undefined : { registries: searched, why: where(path, lineOf(/^\s*unqualified-search-registries\s*=/)) }
  })
}

/** `later` (a drop-in) over `earlier`: a rule of the same prefix replaces the other as a whole, a search list the whole list. An empty alias removes it. */
export const merge = (earlier: Registries, later: Registries): Registries => {
  const replaced = new Set(later.rules.map(({ prefix }) => prefix))
  const aliases = new Map([...earlier.aliases, ...later.aliases])
  for (const [alias, { name }] of aliases) if (name === "") aliases.delete(alias)
  return {
    rules: [...earlier.rules.filter(({ prefix }) => !replaced.has(prefix)), ...later.rules],
    search: later.search ?? earlier.search, aliases
  }
}

/**
 * How many characters of `name` (`host[:port]/path[:tag][@digest]`) the prefix covers; -1: it does not fit. A host alone does not cover
 * the same host with a port (containers/image says of itself that it does, and not to rely on it).
 */
const covers = (name: string, prefix: string): number => {
  const wild = prefix.startsWith("*.")
  const suffix = wild ? prefix.slice(1) : prefix
  const at = wild ? name.indexOf(suffix) : name.startsWith(prefix) ? 0 : -1
  if (at < 0 || (wild && (at === 0 || name.slice(0, at).includes("/")))) return -1
  const end = at + suffix.length
  return end === name.length || (wild || prefix.includes("/") ? ":/@" : "/").includes(name.charAt(end)) ? end : -1
}

/** The rule for a name: that of the longest prefix that fits. */
export const find = (rules: ReadonlyArray<Rule>, name: string): Rule | undefined => {
  let best: Rule | undefined
  for (const rule of rules) if (covers(name, rule.prefix) >= 0 && rule.prefix.length > (best?.prefix.length ?? -1)) best = rule
  return best
}

/** The name under `location` (undefined: unchanged) that `name` becomes by the rule of `prefix`. */
export const rewrite = (name: string, prefix: string, location: string | undefined): string =>
  location === undefined ? name : `${location}${name.slice(covers(name, prefix))}`
