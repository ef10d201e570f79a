import * as NodeServices from "@effect/platform-node/NodeServices"
import { Duration, Effect, Layer, Logger, Option, Schema } from "effect"
import { CliConfig, CliOutput, Command, Flag, GlobalFlag } from "effect/cli"
import { homedir } from "node:os"
import { join } from "node:path"
import * as Run from "./Run.ts"

/** The command line asks for something that does not go together. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", { problem: Schema.String }) {
  override get message() { return `${this.problem}; --help shows how` }
}

/** A result could not be written to stdout; `code` is errno's name. */
export class OutputError extends Schema.TaggedError<OutputError>()("OutputError", { code: Schema.String }) {
  override get message() {
    const why = this.code === "ENOSPC" ? "the disk is full; free some space, then ask again" : "check where stdout leads, then ask again"
    return `the result could not be written to stdout: ${why} (${this.code})`
  }
}

const writeError = (text: string) => Effect.sync(() => { process.stderr.write(text) })

/** Help on request goes to stdout; a mistake gets its sentence alone, on stderr. */
const presenter: CliOutput.Presenter = {
  present: (event) => {
    if (event._tag === "Version" || (event._tag === "Help" && event.reason === "Requested")) return CliOutput.defaultPresenter.present(event)
    const path = event.commandPath.join(" ")
    const mistakes = event._tag === "Help" ? ["a subcommand is missing"] : event.errors.map(({ message }) => message.replace(/\s*\n\s*/g, " ").trim())
    return writeError(mistakes.map((mistake) => `${path}: ${mistake}; ${path} --help shows how\n`).join(""))
  }
}

/** A folder's path, taken as it is: what is there is looked at when it is used. An empty one would be the working folder. */
export const folder = (name: string) => Flag.String(name).pipe(Flag.withMetavar("DIR"), Flag.filter((path) => path !== "", () => "the path of a folder"))

/** The store's folder: --store, else $TOWLINE_STORE, else towline in the user's data folder. */
export const store = folder("store").pipe(
  Flag.withDescription("The store's folder (default: $TOWLINE_STORE, else towline in $XDG_DATA_HOME or ~/.local/share)"),
  Flag.optional,
  Flag.map((given) => Option.getOrElse(given, () => {
    const { TOWLINE_STORE: named, XDG_DATA_HOME: data } = process.env
    return named !== undefined && named !== "" ? named : join(data !== undefined && data !== "" ? data : join(homedir(), ".local", "share"), "towline")
  }))
)

/** Machine-readable results. */
export const json = Flag.Boolean("json").pipe(Flag.withDescription("Print the result as JSON"), Flag.withoutNegation, Flag.withDefault(false))

const multiples: Readonly<Record<string, number>> = { k: 1, m: 2, g: 3, t: 4 }

/** Bytes from `1000`, `1.5GB`, `512MiB` or `2g` (decimal units, binary with an i); undefined if it is none of these. */
export const parseSize = (text: string): number | undefined => {
  const [, digits = "", unit = "", binary] = /^(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b?|b)?$/i.exec(text) ?? []
  if (digits === "") return undefined
  return Math.round(Number(digits) * (binary === "i" ? 1024 : 1000) ** (multiples[unit.toLowerCase()] ?? 0))
}

/** A number of bytes. */
export const size = (name: string) => Flag.String(name).pipe(Flag.withMetavar("BYTES"),
  Flag.filterMap((text) => Option.fromUndefinedOr(parseSize(text)), () => "a size such as 500MB or 8GiB"))

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

/** A time span from `90s`, `15m`, `1h30m`, `7d` or `2w` (0 needs no unit); undefined if it is none of these. */
export const parseAge = (text: string): Duration.Duration | undefined => {
  if (text === "0") return Duration.zero
  if (!/^(?:\d+[smhdw])+$/.test(text)) return undefined
  return Duration.seconds([...text.matchAll(/(\d+)([smhdw])/g)].reduce((sum, [, count, unit = ""]) => sum + Number(count) * (units[unit] ?? 0), 0))
}

/** A time span. */
export const age = (name: string) => Flag.String(name).pipe(Flag.withMetavar("AGE"),
  Flag.filterMap((text) => Option.fromUndefinedOr(parseAge(text)), () => "a time such as 90s, 12h or 7d"))

/** Whether unpacked files are waited for. */
export const durability = Flag.Literals("durability", ["safe", "fast"]).pipe(
  Flag.withDescription("safe: unpacked files outlive a power loss; fast: do not wait for them (default: safe)"), Flag.withDefault("safe"))

/** How progress is shown. */
export const progress = Flag.Literals("progress", ["auto", "tty", "plain", "json", "events", "quiet"]).pipe(
  Flag.withDescription("How progress is shown on stderr; json: as Docker's API; events: one event a line (default: auto)"), Flag.withDefault("auto"))

/** Results alone, as short as they can be. */
export const quiet = Flag.Boolean("quiet").pipe(Flag.withAlias("q"), Flag.withDescription("No progress"), Flag.withoutNegation, Flag.withDefault(false))

/** Bytes on stdout; ends when they are written. A reader that left is no error of ours: `Run.run` ends the command. */
export const send = (bytes: Uint8Array | string): Effect.Effect<void, OutputError> => Effect.callback((resume) => {
  process.stdout.write(bytes, (error) => {
    const code = error === null || error === undefined ? undefined : "code" in error ? String(error.code) : error.message
    resume(code === undefined ? Effect.void : code === "EPIPE" ? Effect.never : Effect.fail(new OutputError({ code })))
  })
})

/** A line of a result on stdout. */
export const print = (text: string): Effect.Effect<void, OutputError> => send(`${text}\n`)

/** A message on stderr. */
export const tell = (text: string): Effect.Effect<void> => writeError(`${text}\n`)

/** Runs a command line to the end of the process. */
export const main = <Name extends string, Input, Context, E>(command: Command.Command<Name, Input, Context, E, NodeServices.NodeServices>, version: string): void => {
  const environment = Layer.mergeAll(
    NodeServices.layer, CliOutput.layerPresenter(presenter),
    CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
  )
  const program = Command.runWith(command, { version })(process.argv.slice(2)).pipe(
    Effect.provideService(Logger.LogToStderr, true), Effect.provide(environment))
  Run.run(command.name, program)
}
