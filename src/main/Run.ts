import { Cause, Effect, Exit, Fiber, Option } from "effect"

/** Exit codes (README): what a script can tell apart. */
export const exitCodes = { internal: 1, usage: 2, notFound: 3, unauthorized: 4, network: 5, refused: 6, local: 7, interrupted: 130 } as const

const codeOfTag: Readonly<Record<string, number>> = {
  InvalidReference: exitCodes.usage, InvalidPlatform: exitCodes.usage, TargetNotEmpty: exitCodes.usage, UsageError: exitCodes.usage, ConfigError: exitCodes.usage,
  ShowHelp: exitCodes.usage, NotALayout: exitCodes.usage, AmbiguousName: exitCodes.usage,
  ImageInUse: exitCodes.usage, TagTaken: exitCodes.usage, DigestTaken: exitCodes.usage, NoOldImage: exitCodes.usage,
  NotFound: exitCodes.notFound, NoPlatform: exitCodes.notFound, ImageNotFound: exitCodes.notFound, NotInStore: exitCodes.notFound, NotSavable: exitCodes.notFound,
  NoEarlierValue: exitCodes.notFound, NoSource: exitCodes.notFound, FileNotFound: exitCodes.notFound,
  Unauthorized: exitCodes.unauthorized, CredentialsError: exitCodes.unauthorized, HelperError: exitCodes.unauthorized,
  NetworkError: exitCodes.network,
  AnswerRefused: exitCodes.refused, ManifestRefused: exitCodes.refused, VerifyError: exitCodes.refused, LayerRefused: exitCodes.refused,
  Blocked: exitCodes.refused, BlobDamaged: exitCodes.refused,
  ArchiveRefused: exitCodes.refused, Schema1Refused: exitCodes.refused, ImageRefused: exitCodes.refused, NoFileSystem: exitCodes.refused, InvalidV1Image: exitCodes.refused,
  ArchiveUnreadable: exitCodes.local, StoreError: exitCodes.local, OutputError: exitCodes.local
}

const tagOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string" ? error._tag : undefined

/** The exit code of a typed error, or of anything else (1: a bug of ours). */
export const exitCode = (error: unknown): number => codeOfTag[tagOf(error) ?? ""] ?? exitCodes.internal

/** A command that ended as it should, but not well: its messages are written already. */
export class Failed extends Error {
  readonly exitCode: number
  constructor(exitCode: number) {
    super(`exit code ${exitCode}`)
    this.exitCode = exitCode
  }
}

/** One clear sentence for a typed error; a bug shows its stack, since only its author can act on it. */
export const sentence = (error: unknown): string => {
  if (tagOf(error) !== undefined && error instanceof Error && exitCode(error) !== exitCodes.internal) return error.message
  const stack = error instanceof Error ? error.stack ?? error.message : String(error)
  return `internal error, please report it: ${stack}`
}

const finish = (name: string, exit: Exit.Exit<unknown, unknown>): number => {
  if (Exit.isSuccess(exit)) return 0
  const { cause } = exit
  if (Cause.hasInterruptsOnly(cause)) return exitCodes.interrupted
  const error = Option.getOrElse(Cause.findErrorOption(cause), () => Cause.squash(cause))
  if (error instanceof Failed) return error.exitCode
  if (tagOf(error) !== "ShowHelp") process.stderr.write(`${name}: ${sentence(error)}\n`)
  return exitCode(error)
}

/** After the first signal the process is gone within this many milliseconds; a second signal does not wait. */
const grace = 900

/**
 * Runs a command to the end of the process. SIGINT, SIGTERM and SIGHUP interrupt it, its finalizers run, and it exits with
 * 130; a second signal ends it at once. A reader that leaves the pipe early, as head does, interrupts it too.
 */
export const run = (name: string, command: Effect.Effect<unknown, unknown>): void => {
  const fiber = Effect.runFork(command)
  let stopping = false
  const stop = () => {
    if (stopping) return
    stopping = true
    setTimeout(() => process.exit(exitCodes.interrupted), grace)
    Effect.runFork(Fiber.interrupt(fiber))
  }
  let signals = 0
  const onSignal = () => {
    if (signals++ > 0) process.exit(exitCodes.interrupted)
    stop()
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal)
  // What else can go wrong with stdout, the writer of a result hears itself; of stderr there is nobody to tell.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", (error: NodeJS.ErrnoException) => { if (error.code === "EPIPE") stop() })
  fiber.addObserver((exit) => {
    process.exit(stopping ? exitCodes.interrupted : finish(name, exit))
  })
}
