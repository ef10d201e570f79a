import { Effect, Layer, Option } from "effect"
import { RegistryOptions } from "../registry/route/Endpoint.ts"
import { Manners } from "../registry/Politeness.ts"
import { Limits } from "../registry/RetryPolicy.ts"
import { type NetworkFlags, rate, wait } from "./NetworkFlags.ts"

/** The settings that the flags make. */
export const settings = (flags: NetworkFlags) => {
  const timeout = Option.getOrUndefined(Option.map(flags.timeout, wait))
  const bandwidth = Option.getOrUndefined(Option.map(flags.bandwidth, rate))
  return Layer.mergeAll(
    Layer.effect(RegistryOptions, Effect.map(RegistryOptions, (options) => ({ ...options, insecure: flags.insecure, foreign: flags.allowForeign }))),
    Layer.effect(Limits, Effect.map(Limits, (limits) => ({
      ...limits,
      ...Option.isSome(flags.retries) && { tries: Number(flags.retries.value) },
      ...timeout !== undefined && { connect: Math.min(10_000, timeout), headers: timeout, idle: timeout }
    }))),
    Layer.effect(Manners, Effect.map(Manners, (manners) => ({ ...manners, bandwidth })))
  )
}
