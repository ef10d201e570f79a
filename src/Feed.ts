import { Deferred, Effect, type Scope } from "effect"
import { Control } from "./layer/Control.ts"

/** What became of a generation of bytes: they are the blob, or they were thrown away for a new generation. */
export type Settled = "verified" | "superseded"

/** A reader's hold on one generation: the words its worker looks at, and what becomes of the generation. */
export interface Follower {
  readonly control: Control
  readonly settled: Effect.Effect<Settled>
}

/**
 * The bytes of a blob on their way from the receiver to the workers that follow its file. Workers read bytes whose digest is
 * not known yet, so the bytes have a generation: a download that starts again from 0 begins a new one, and whatever a
 * worker made, or complained of, in an older one is void.
 */
export class Feed {
  private offset = 0
  private readonly followers = new Set<Control>()
  private generation = Deferred.makeUnsafe<Settled>()

  /** So many bytes are in the file now. */
  advance(offset: number): void {
    this.offset = offset
    for (const control of this.followers) control.advance(offset)
  }

  /** What came is void: workers on it are asked to stop. */
  restart(): void {
    const old = this.generation
    this.generation = Deferred.makeUnsafe()
    this.offset = 0
    for (const control of this.followers) control.stop()
    this.followers.clear()
    Deferred.doneUnsafe(old, Effect.succeed("superseded"))
  }

  /** The bytes are the blob. */
  verified(offset: number): void {
    this.advance(offset)
    Deferred.doneUnsafe(this.generation, Effect.succeed("verified"))
  }

  /** Follows the present generation until the scope closes. */
  readonly follow: Effect.Effect<Follower, never, Scope.Scope> = Effect.acquireRelease(
    Effect.sync(() => {
      const control = new Control()
      control.advance(this.offset)
      this.followers.add(control)
      return { control, settled: Deferred.await(this.generation) }
    }),
    ({ control }) => Effect.sync(() => this.followers.delete(control))
  )
}
