import { Effect, Queue, type Scope, Stream } from "effect"

/**
 * Events for many readers. A late reader gets the history first, in which of events with the same key only the newest is
 * kept, and then follows. `publish` never waits: each stream has a buffer of its own, compacted the same way.
 */
export class Hub<E> {
  private readonly history: Buffered<E>
  private readonly readers = new Set<(event: E) => void>()
  private readonly key: (event: E) => string | undefined
  private readonly ends = new Set<() => void>()
  private ended = false

  constructor(key: (event: E) => string | undefined) {
    this.key = key
    this.history = new Buffered(key)
  }

  /** Tells every reader. */
  publish(event: E): void {
    this.history.add(event)
    for (const reader of this.readers) reader(event)
  }

  /** Ends every stream once it has given what was published. */
  end(): void {
    this.ended = true
    for (const end of this.ends) end()
  }

  /** Calls `reader` with the history and then with every event, until the scope closes. `reader` must be quick. */
  readonly observe = (reader: (event: E) => void): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        for (const event of this.history.all()) reader(event)
        this.readers.add(reader)
      }),
      () => Effect.sync(() => { this.readers.delete(reader) })
    )

  /** The history, then every event as it comes; a slow reader sees fewer progress events and slows nobody. */
  readonly stream: Stream.Stream<E> = Stream.unwrap(Effect.gen({ self: this }, function*() {
    const pending = new Buffered<E>(this.key)
    const wake = yield* Queue.sliding<true>(1)
    const nudge = () => { Queue.offerUnsafe(wake, true) }
    yield* this.observe((event) => { pending.add(event); nudge() })
    yield* Effect.acquireRelease(
      Effect.sync(() => { this.ends.add(nudge); nudge() }),
      () => Effect.sync(() => { this.ends.delete(nudge) })
    )
    return Stream.fromQueue(wake).pipe(
      Stream.map(() => ({ events: pending.take(), last: this.ended })),
      Stream.takeUntil(({ last }) => last),
      Stream.flatMap(({ events }) => Stream.fromIterable(events))
    )
  }))
}

/** Events in order, where an event takes the place of an older one with its key. */
class Buffered<E> {
  private events = new Map<string, E>()
  private count = 0
  private readonly key: (event: E) => string | undefined

  constructor(key: (event: E) => string | undefined) { this.key = key }

  add(event: E): void {
    const key = this.key(event)
    if (key !== undefined) this.events.delete(key)
    this.events.set(key ?? String(this.count++), event)
  }

  all(): Array<E> { return [...this.events.values()] }

  take(): Array<E> {
    const all = this.all()
    this.events = new Map()
    return all
  }
}
