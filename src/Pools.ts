import { Context, Effect, Equal, Exit, Fiber, Hash, Layer, RcMap, Result, Scope } from "effect"
import type { ArchiveError } from "./archive/Fault.ts"
import { Durability } from "./Durability.ts"
import * as Reference from "./image/Reference.ts"
import type { LayerError } from "./Layers.ts"
import { Hub } from "./progress/Hub.ts"
import * as Policy from "./Policy.ts"
import type { LayerEvent, PullEvent } from "./progress/PullEvent.ts"
import type { PulledImage, PullError, PullOptions } from "./Pull.ts"
import { DefaultPlatform } from "./PullPlan.ts"
import type { Received } from "./Register.ts"

/** What is done under a key, and what of the request changes its result: only requests that agree in both share the work. */
export interface Key {
  readonly text: string
  /** Compared part by part. */
  readonly settings?: unknown
}

/** Work that callers with the same key share (Docker's poolAdd and its broadcaster). */
export interface Pool<Event, A, E> {
  /**
   * Gives the result of the work under `key`. The first caller's `work` is begun; whoever comes while it runs waits for it too.
   * Every caller's `hub` is told all events from the first on, each as it was published, and never slows the work. The work
   * stops when its last caller leaves. Once it has ended, however it has, the next caller begins it anew; what it acquired in its
   * scope is released when the scopes of all its callers have closed.
   */
  readonly join: <R>(key: Key, hub: Hub<Event>, work: (hub: Hub<Event>) => Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Scope.Scope> | Scope.Scope>
  /**
   * The same, for work whose result is to be held: what `work` acquires in its scope is released when the scope of the last
   * caller closes, and until then a result that is there is given to whoever asks. Only a failure is begun anew.
   */
  readonly hold: <R>(key: Key, hub: Hub<Event>, work: (hub: Hub<Event>) => Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Scope.Scope> | Scope.Scope>
}

/** One run of the work under a key. */
interface Run<Event, A, E> {
  readonly fiber: Fiber.Fiber<A, E>
  readonly events: Hub<Event>
  /** Hubs that follow; a caller may have come twice with one, which is told once. */
  readonly followers: Map<Hub<Event>, Follower>
}
interface Follower {
  readonly scope: Scope.Closeable
  callers: number
}

class Request<Event, A, E> implements Equal.Equal {
  readonly key: Key
  readonly kept: boolean
  readonly work: (hub: Hub<Event>) => Effect.Effect<A, E, Scope.Scope>
  constructor(key: Key, kept: boolean, work: (hub: Hub<Event>) => Effect.Effect<A, E, Scope.Scope>) {
    this.key = key
    this.kept = kept
    this.work = work
  }
  [Hash.symbol]() { return Hash.string(this.key.text) }
  [Equal.symbol](that: unknown) {
    return that instanceof Request && that.kept === this.kept && that.key.text === this.key.text && Equal.equals(that.key.settings, this.key.settings)
  }
}

/** A pool, which lives as long as the scope; what still runs in it then is stopped. */
export const make = Effect.fnUntraced(function*<Event, A, E>() {
  const map: RcMap.RcMap<Request<Event, A, E>, Run<Event, A, E>> = yield* RcMap.make({
    lookup: Effect.fnUntraced(function*(request: Request<Event, A, E>): Effect.fn.Return<Run<Event, A, E>, never, Scope.Scope> {
      const events = new Hub<Event>(() => undefined)
      let left = false
      // There before the fiber, so that it is closed after that has ended.
      const own = yield* Scope.fork(yield* Effect.scope)
      const fiber = yield* request.work(events).pipe(
        Scope.provide(own),
        // Nobody joins what has ended. When all have left the key is another run's.
        Effect.onExit((exit) => Effect.suspend(() => left || (request.kept && Exit.isSuccess(exit)) ? Effect.void : RcMap.invalidate(map, request))),
        Effect.forkScoped
      )
      // Runs before the fiber is stopped: finalizers go backwards.
      yield* Effect.addFinalizer(() => Effect.sync(() => { left = true }))
      return { fiber, events, followers: new Map() }
    })
  })
  const enter = (kept: boolean) => Effect.fnUntraced(function*<R>(
    key: Key, hub: Hub<Event>, work: (hub: Hub<Event>) => Effect.Effect<A, E, R>
  ): Effect.fn.Return<A, E, Exclude<R, Scope.Scope> | Scope.Scope> {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const inRun = (events: Hub<Event>) => Effect.flatMap(Effect.scope, (scope) => Effect.provideContext(Scope.provide(work(events), scope), context))
    const run = yield* RcMap.get(map, new Request<Event, A, E>(key, kept, inRun))
    yield* follow(run, hub)
    return yield* Fiber.join(run.fiber)
  })
  const pool: Pool<Event, A, E> = {
    join: (key, hub, work) => Effect.gen(function*() {
      const own = yield* Scope.fork(yield* Effect.scope)
      // Who got nothing has nothing to hold, and leaves at once.
      return yield* enter(false)(key, hub, work).pipe(Scope.provide(own), Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Scope.close(own, exit)))
    }),
    hold: enter(true)
  }
  return pool
})

/** Tells `hub` what happened and happens in the run, until the last caller with that hub leaves. */
const follow = Effect.fnUntraced(function*<Event, A, E>({ events, followers }: Run<Event, A, E>, hub: Hub<Event>) {
  yield* Effect.acquireRelease(
    Effect.gen(function*() {
      const follower = followers.get(hub) ?? { scope: yield* Scope.make(), callers: 0 }
      if (follower.callers++ > 0) return follower
      followers.set(hub, follower)
      yield* events.observe((event) => hub.publish(event)).pipe(Scope.provide(follower.scope))
      return follower
    }),
    (follower) => Effect.suspend(() => {
      if (--follower.callers > 0) return Effect.void
      followers.delete(hub)
      return Scope.close(follower.scope, Exit.void)
    })
  )
})

/** The work that this process's callers share. What blobs and layers are being made, `Downloads` and `Layers` share below it. */
export class Pools extends Context.Service<Pools, {
  /** Whole pulls, by `v2:` and the local name with its tag or digest, as in Docker 1.9.1. */
  readonly pulls: Pool<PullEvent, PulledImage, PullError>
  /** Layers of v1 registries, by `layer:` and the image's ID: no digest is known that `Downloads` could go by. */
  readonly layers: Pool<LayerEvent, Received, PullError>
  /** Layers of archives of Docker 1.9 and before, by the same keys. */
  readonly archived: Pool<LayerEvent, Received, ArchiveError | LayerError>
}>()("Pools/Pools") {
  static readonly layer = Layer.effect(Pools, Effect.gen(function*() {
    return Pools.of({
      pulls: yield* make<PullEvent, PulledImage, PullError>(), layers: yield* make<LayerEvent, Received, PullError>(),
      archived: yield* make<LayerEvent, Received, ArchiveError | LayerError>()
    })
  }))
}

/**
 * A pull that shares its work with every other of the same reference and settings. One that writes a root file system has
 * a target of its own, and runs alone.
 */
export const pull = Effect.fnUntraced(function*<R>(
  hub: Hub<PullEvent>, text: string, options: PullOptions, work: (hub: Hub<PullEvent>) => Effect.Effect<PulledImage, PullError, R>
) {
  const reference = Reference.parse(text)
  if (options.rootfs !== undefined || Result.isFailure(reference)) return yield* work(hub)
  const { pulls } = yield* Pools
  const settings = { options, durability: yield* Durability, platform: yield* DefaultPlatform, protocol: yield* Policy.Protocol, keys: yield* Policy.TrustedKeys }
  return yield* pulls.join({ text: `v2:${Reference.familiar(reference.success)}`, settings }, hub, work)
})
