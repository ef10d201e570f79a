import { Config, type Option } from "effect"
import { Flag } from "effect/cli"

const units: Readonly<Record<string, number>> = {
  "": 1, k: 1e3, kb: 1e3, kib: 1024, m: 1e6, mb: 1e6, mib: 1024 ** 2, g: 1e9, gb: 1e9, gib: 1024 ** 3
}
const seconds: Readonly<Record<string, number>> = { "": 1, ms: 0.001, s: 1, m: 60, h: 3600 }

/** A number with a unit of `table`; undefined: it is none, or zero. */
const read = (text: string, table: Readonly<Record<string, number>>): number | undefined => {
  const [, count = "", unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? []
  const factor = count === "" ? undefined : table[unit.toLowerCase()]
  const value = factor === undefined ? 0 : Number(count) * factor
  return value > 0 && Number.isFinite(value) ? value : undefined
}

/** Bytes a second: `500k`, `2M`, `1.5MiB/s`. */
export const rate = (text: string): number | undefined => read(text.replace(/\/s$/i, ""), units)

/** Milliseconds: `30s`, `2m`, `500ms`; a bare number is seconds. */
export const wait = (text: string): number | undefined => {
  const value = read(text, seconds)
  return value === undefined ? undefined : value * 1000
}

const given = (name: string, variable: string, description: string, metavar: string, ok: (text: string) => boolean, form: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description), Flag.withMetavar(metavar), Flag.withFallbackConfig(Config.String(variable)), Flag.filter(ok, () => form), Flag.optional)

/** The flags of commands that ask registries; each has a variable of the environment for its default. */
export const flags = {
  insecure: Flag.String("insecure").pipe(
    Flag.withDescription("A host[:port] that may be asked over plain HTTP, and whose certificate is not checked (may be repeated)"), Flag.withMetavar("HOST"), Flag.atLeast(0)),
  retries: given("retries", "TOWLINE_RETRIES", "Tries in a row without a new byte before a request is given up, 1 to 100 (default: 5, or $TOWLINE_RETRIES)", "N",
    (text) => /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 100, "1 to 100"),
  timeout: given("timeout", "TOWLINE_TIMEOUT", "How long to wait for an answer, and between two pieces of one (default: 30s, or $TOWLINE_TIMEOUT; connecting has at most 10s of it)", "TIME",
    (text) => wait(text) !== undefined, "a time such as 30s"),
  bandwidth: given("bandwidth", "TOWLINE_BANDWIDTH", "Bytes a second to take in all, such as 500k or 2MiB (default: no limit, or $TOWLINE_BANDWIDTH)", "RATE",
    (text) => rate(text) !== undefined, "a rate such as 500k"),
  allowForeign: Flag.Boolean("allow-foreign").pipe(
    Flag.withDescription("Fetch layers that the registry lacks from the addresses their manifest gives, by https and without credentials"), Flag.withoutNegation, Flag.withDefault(false))
}

/** What these flags say. */
export interface NetworkFlags {
  readonly insecure: ReadonlyArray<string>
  readonly retries: Option.Option<string>
  readonly timeout: Option.Option<string>
  readonly bandwidth: Option.Option<string>
  readonly allowForeign: boolean
}
