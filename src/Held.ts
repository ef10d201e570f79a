import { Context, Effect, Scope } from "effect"
import type { Digest } from "./image/Digest.ts"
import { Leases } from "./store/Leases.ts"

/** The scope to which a pull leases what its image needs, where that is to stay in the store for longer than the pull takes. */
export const Held = Context.Reference<Scope.Scope | undefined>("Held", { defaultValue: () => undefined })

/** Leases digests to the scope that `Held` names, else to this one. Take it before looking whether they are present. */
export const hold = Effect.fnUntraced(function*(digests: ReadonlyArray<Digest>) {
  const own = yield* Effect.scope
  yield* Scope.provide((yield* Leases).hold(digests), (yield* Held) ?? own)
})
