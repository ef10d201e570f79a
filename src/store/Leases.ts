import { Context, Effect, Layer, type Scope } from "effect"
import { randomUUID } from "node:crypto"
import type { Digest } from "../image/Digest.ts"
import type { StoreError } from "./disk/Disk.ts"
import { Home } from "./disk/Home.ts"

const make = Effect.gen(function*() {
  const { db, owner } = yield* Home
  const { sql } = db
  const hold = Effect.fn("Leases.hold")(function*(digests: ReadonlyArray<Digest>) {
    const id = randomUUID()
    if (digests.length === 0) return id
    yield* Effect.acquireRelease(
      db.transaction(Effect.gen(function*() {
        yield* owner.enter
        for (const digest of new Set(digests)) {
          yield* db.run(sql`INSERT INTO leases ${sql.insert({ id, digest, owner: owner.self.token })}`)
        }
      })),
      // If it cannot be released now, it ends with its owner.
      () => db.run(sql`DELETE FROM leases WHERE id = ${id}`).pipe(Effect.interruptible, Effect.timeout("500 millis"), Effect.ignore),
      { interruptible: true }
    )
    return id
  })
  return { hold }
})

/** Holds on blobs and layers, seen by every process: what is leased is not removed (design.md 3). */
export class Leases extends Context.Service<Leases, {
  /**
   * Holds `digests` (of blobs, and diff IDs of layers, present or not) until the scope closes, in one transaction. Take it
   * before looking whether they are present. Gives the lease's id.
   */
  readonly hold: (digests: ReadonlyArray<Digest>) => Effect.Effect<string, StoreError, Scope.Scope>
}>()("store/Leases") {
  static readonly layer: Layer.Layer<Leases, never, Home> = Layer.effect(Leases, make)
}
