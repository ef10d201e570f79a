import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Logger, Option, Schema } from "effect"
import { CliConfig, CliOutput, Command, Flag, GlobalFlag } from "effect/cli"
import { homedir } from "node:os"
import { join } from "node:path"
import * as Run from "./Run.ts"

/** The command line asks for something that does not go together. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", { problem: Schema.String }) {
  override get message() { return `${this.problem}; --help shows how` }
}

const writeError = (text: string) => Effect.sync(() => { process.stderr.write(text) })

/** Help on request goes to stdout; a mistake gets its sentence alone, on stderr. */
const presenter: CliOutput.Presenter = {
  present: (event) => event._tag === "InvalidInvocation"
    ? writeError(event.errors.map(({ message }) => `${event.commandPath.join(" ")}: ${message.replace(/\s*\n\s*/g, " ").trim()}; ${event.commandPath.join(" ")} --help shows how\n`).join(""))
    : CliOutput.defaultPresenter.present(event)
}

/** The store's folder: --store, else $TOWLINE_STORE, else towline in the user's data folder. */
export const store = Flag.Directory("store").pipe(
  Flag.withDescription("The store's folder (default: $TOWLINE_STORE, else towline in $XDG_DATA_HOME or ~/.local/share)"),
  Flag.withMetavar("DIR"),
  Flag.optional,
  Flag.map((given) => Option.getOrElse(given, () => {
    const { TOWLINE_STORE: named, XDG_DATA_HOME: data } = process.env
    return named !== undefined && named !== "" ? named : join(data !== undefined && data !== "" ? data : join(homedir(), ".local", "share"), "towline")
  }))
)

/** Machine-readable results. */
export const json = Flag.Boolean("json").pipe(Flag.withDescription("Print the result as JSON"), Flag.withoutNegation, Flag.withDefault(false))

/** A result on stdout. */
export const print = (text: string): Effect.Effect<void> => Effect.sync(() => { process.stdout.write(`${text}\n`) })

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
