import { Effect, Layer, Option, Result } from "effect"
import { Concurrency } from "../../Download.ts"
import * as Pull from "../../Pull.ts"
import * as Rollback from "../../Rollback.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import * as Limits from "../Limits.ts"
import * as Network from "../Network.ts"
import type { PullFlags } from "./PullCommand.ts"
import * as Run from "../Run.ts"

/** Lets every tag point at what it pointed at before; all are tried, and the first failure's exit code is given. */
export const rollback = Effect.fnUntraced(function*(flags: PullFlags) {
  if (Option.isSome(flags.rootfs) || flags.outputs.length > 0) {
    return yield* new Cli.UsageError({ problem: "--rollback only moves tags: pull once more for --rootfs or --output" })
  }
  const options: Pull.PullOptions = {
    ...Option.isSome(flags.platform) && { platform: flags.platform.value }, ...Option.isSome(flags.unpack) && { unpack: flags.unpack.value }
  }
  const settings = Layer.mergeAll(Layer.succeed(Pull.Durability, flags.durability), Layer.succeed(Concurrency, flags.jobs), Limits.settings(flags.limits), Network.settings(flags))
  const outcomes = yield* Effect.forEach(flags.references, (reference) =>
    Effect.map(Effect.result(Rollback.rollback(reference, options)), (result) => ({ reference, result }))).pipe(
    Effect.provide(Towline.layer({ store: flags.store }).pipe(Layer.provideMerge(settings))))
  let code = 0
  for (const { reference, result } of outcomes) {
    if (Result.isSuccess(result)) {
      const { digest, reference } = result.success
      yield* Cli.print(flags.json ? JSON.stringify(result.success) : flags.quiet ? digest : `${reference} ${digest}`)
      continue
    }
    code = code === 0 ? Run.exitCode(result.failure) : code
    yield* Cli.tell(`pull: ${flags.references.length > 1 ? `${reference}: ` : ""}${Run.sentence(result.failure)}`)
  }
  if (code !== 0) return yield* Effect.fail(new Run.Failed(code))
})
