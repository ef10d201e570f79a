import { Effect, FileSystem, type Result } from "effect"
import * as Cli from "./Cli.ts"

/** IDs of the keys in files of public keys (PEM or JSON Web Key). */
export const keys = Effect.fnUntraced(function*(paths: ReadonlyArray<string>, read: (text: string) => Result.Result<string, { readonly message: string }>) {
  const files = yield* FileSystem.FileSystem
  return yield* Effect.forEach(paths, Effect.fnUntraced(function*(path) {
    const text = yield* Effect.mapError(files.readFileString(path), ({ message }) => new Cli.UsageError({ problem: `the file ${path} of --trust-key cannot be read: ${message}` }))
    return yield* Effect.mapError(Effect.fromResult(read(text)), ({ message }) => new Cli.UsageError({ problem: `--trust-key ${path}: ${message}` }))
  }))
})
