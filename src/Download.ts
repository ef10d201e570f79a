import {
  Clock, Context, Deferred, Duration, Effect, Equal, Fiber, Hash, Layer, Option, Pull, RcMap, Result, Schedule, Scope, Semaphore, Stream
} from "effect"
import { VerifyError, type Descriptor } from "./image/Descriptor.ts"
import { Feed } from "./Feed.ts"
import { Hub } from "./progress/Hub.ts"
import type { LayerEvent } from "./progress/PullEvent.ts"
import { NetworkError, type RegistryFailure } from "./registry/Errors.ts"
import { Registry, type Repository } from "./registry/Registry.ts"
import * as RetryPolicy from "./registry/RetryPolicy.ts"
import { BlobStore, type NotInStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import type { Validator } from "./store/Ingest.ts"

/** Everything a download can fail with. */
export type DownloadError = RegistryFailure | Disk.StoreError | NotInStore | VerifyError

/** A blob on its way into the store, or in it: the file that workers may follow, and what happens to it. */
export interface Download {
  readonly blob: Descriptor
  /**
   * The file's descriptor, once bytes are coming or all are there: readable at explicit positions until the scope of the
   * `Downloads.get` that gave it closes.
   */
  readonly opened: Effect.Effect<number, DownloadError>
  /** The bytes, as far as they have come. */
  readonly feed: Feed
  /** The blob is in the store. */
  readonly done: Effect.Effect<void, DownloadError>
  /** What happened so far, and what happens. */
  readonly events: Hub<LayerEvent>
}

/** A blob, and a repository that has it. Two requests for one digest are the same download. */
class Request implements Equal.Equal {
  readonly blob: Descriptor
  readonly repository: Repository
  constructor(blob: Descriptor, repository: Repository) {
    this.blob = blob
    this.repository = repository
  }
  [Hash.symbol]() { return Hash.string(this.blob.digest) }
  [Equal.symbol](that: unknown) { return that instanceof Request && that.blob.digest === this.blob.digest && that.blob.size === this.blob.size }
}

/** How many blobs come at once in this process: 4. */
export const Concurrency = Context.Reference<number>("Download/Concurrency", { defaultValue: () => 4 })

/** How many blobs are begun in the store at once, those that come and those that are next: each has a descriptor and a synced row. */
const begun = 64

/** Something bytes can be put into: a file, or memory. */
interface Sink {
  readonly blob: Descriptor
  readonly offset: number
  /** What to run where the bytes turn out damaged: `BlobAnswer.distrust` of each answer they are from. */
  readonly doubts: Set<Effect.Effect<boolean>>
  /** What the bytes so far are called, and keeps what those are called that come. */
  readonly validator: Validator | undefined
  called(validator: Validator | undefined): Effect.Effect<void, Disk.StoreError>
  append(chunk: Uint8Array): void
  restart(): void
}

const ended = (repository: Repository, sink: Sink) => new NetworkError({
  host: repository.domain, reason: "reset", transient: true,
  detail: `the body of ${sink.blob.digest} ended at ${sink.offset} of ${sink.blob.size} bytes`
})

/** One request for what is missing; its bytes are taken array by array, as they came off the socket. */
const receive = Effect.fnUntraced(function*(repository: Repository, sink: Sink, moved: () => void) {
  const answer = yield* (yield* Registry).blob(repository, sink.blob, sink.offset, sink.validator)
  if (answer.from !== sink.offset) {
    yield* Disk.attempt(() => sink.restart())
    sink.doubts.clear()
  }
  if (answer.distrust !== undefined) sink.doubts.add(answer.distrust)
  yield* sink.called(answer.validator)
  moved()
  yield* Stream.runForEachArray(answer.body, (chunks) => Disk.attempt(() => {
    for (const chunk of chunks) sink.append(chunk)
    moved()
  }))
  if (sink.offset < sink.blob.size) return yield* ended(repository, sink)
}, Effect.scoped)

/**
 * Requests until all bytes came. After a failure it goes on where the bytes ended; it gives up when the policy does, which
 * begins afresh whenever a try got further than all before it (`RetryPolicy.gotOn`).
 */
const fill = Effect.fnUntraced(function*(repository: Repository, sink: Sink, heard: { readonly moved: () => void; readonly failed: (cause: RegistryFailure, delay: number) => void }) {
  const limits = yield* RetryPolicy.Limits
  let best = sink.offset
  let again = yield* Schedule.toStep(RetryPolicy.transient)
  while (sink.offset < sink.blob.size) {
    const [took, result] = yield* Effect.timed(Effect.result(receive(repository, sink, heard.moved)))
    if (Result.isSuccess(result)) continue
    const error = result.failure
    if (error._tag !== "NetworkError") return yield* error
    if (RetryPolicy.gotOn(error, sink.offset - best, took, limits)) again = yield* Schedule.toStep(RetryPolicy.transient)
    best = Math.max(best, sink.offset)
    const [, duration] = yield* again(yield* Clock.currentTimeMillis, error).pipe(Pull.catchDone(() => Effect.fail(error)))
    heard.failed(error, Duration.toMillis(duration))
    yield* Effect.sleep(duration)
  }
})

/**
 * Once more where the bytes were damaged (`RetryPolicy.damaged`); where they came from a mirror, which is left out from then on, as often
 * as there are mirrors.
 */
const mended = <A, E extends { readonly _tag: string }, R>(sink: Sink, once: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const elsewhere: Effect.Effect<A, E, R> = Effect.catch(once, (error) => Effect.gen(function*() {
    if (error._tag !== "VerifyError") return yield* Effect.fail(error)
    const doubts = [...sink.doubts]
    sink.doubts.clear()
    const found = yield* Effect.forEach(doubts, (distrust) => distrust)
    return yield* found.includes(true) ? elsewhere : Effect.fail(error)
  }))
  return Effect.retry(elsewhere, { schedule: RetryPolicy.damaged, while: (error) => error._tag === "VerifyError" })
}

/** The bytes of a small blob, such as a config: verified, at most `cap` bytes, kept in memory alone. */
export const small = Effect.fn("Download.small")(function*(repository: Repository, blob: Descriptor, cap: number, digestOf: (bytes: Uint8Array) => string) {
  if (blob.size > cap) return yield* new VerifyError({ expected: blob, size: cap })
  let chunks: Array<Uint8Array> = []
  let known: Validator | undefined
  const sink = {
    blob, offset: 0, doubts: new Set<Effect.Effect<boolean>>(),
    get validator() { return known },
    called: (validator: Validator | undefined) => Effect.sync(() => { known = validator }),
    append(chunk: Uint8Array) {
      sink.offset += chunk.byteLength
      if (sink.offset > blob.size) throw new VerifyError({ expected: blob, size: sink.offset })
      chunks.push(chunk)
    },
    restart() { chunks = []; sink.offset = 0 }
  }
  const fetch = Effect.gen(function*() {
    yield* Effect.sync(() => sink.restart())
    yield* fill(repository, sink, { moved: () => {}, failed: () => {} })
    const bytes = Buffer.concat(chunks)
    const actual = digestOf(bytes)
    return actual === blob.digest ? bytes : yield* new VerifyError({ expected: blob, size: bytes.byteLength, actual })
  })
  return yield* mended(sink, fetch)
})

/** Every blob that is being fetched in this process: one download a digest, whoever asks. */
export class Downloads extends Context.Service<Downloads, {
  /** The one download of `blob`, started if nobody has; it goes on until the last holder's scope closes. */
  readonly get: (blob: Descriptor, repository: Repository) => Effect.Effect<Download, never, Scope.Scope>
  /** Who asks from now on gets a new download: what the present one found in the store has turned out damaged. */
  readonly forget: (blob: Descriptor, repository: Repository) => Effect.Effect<void>
}>()("Download/Downloads") {
  static readonly layer = Layer.effect(Downloads, Effect.gen(function*() {
    const concurrency = yield* Concurrency
    const [slots, places] = [yield* Semaphore.make(concurrency), yield* Semaphore.make(Math.max(begun, concurrency))]
    const map: RcMap.RcMap<Request, Download> = yield* RcMap.make({
      lookup: Effect.fnUntraced(function*(request: Request): Effect.fn.Return<Download, never, BlobStore | Registry | Scope.Scope> {
        const feed = new Feed()
        const events = new Hub<LayerEvent>(() => undefined)
        const opened = yield* Deferred.make<number, DownloadError>()
        // The file belongs to a scope that was there before the fiber, so it is closed after the fiber has ended: a commit that
        // is under way when the last holder leaves still owns its ingest, and no byte goes to whoever gets the descriptor's number.
        const files = yield* Scope.fork(yield* Effect.scope)
        const fiber = yield* run(request, { feed, events, opened, places, slots }).pipe(
          Scope.provide(files),
          Effect.tapCause((cause) => Effect.andThen(Deferred.failCause(opened, cause), RcMap.invalidate(map, request))),
          Effect.forkScoped
        )
        return { blob: request.blob, opened: Deferred.await(opened), feed, done: Effect.asVoid(Fiber.join(fiber)), events }
      })
    })
    return Downloads.of({ get: (blob, repository) => RcMap.get(map, new Request(blob, repository)), forget: (blob, repository) => RcMap.invalidate(map, new Request(blob, repository)) })
  }))
}

interface Parts {
  readonly feed: Feed
  readonly events: Hub<LayerEvent>
  readonly opened: Deferred.Deferred<number, DownloadError>
  readonly places: Semaphore.Semaphore
  readonly slots: Semaphore.Semaphore
}

/** The whole life of one download. The file stays open until the scope that this runs in closes. */
const run = Effect.fn("Downloads.run")(function*(request: Request, parts: Parts) {
  const { blob } = request
  const { events, feed, opened, places } = parts
  const blobs = yield* BlobStore
  const there = yield* blobs.find(blob.digest)
  if (Option.isSome(there)) {
    const { fd, size } = yield* blobs.open(blob.digest)
    if (size !== blob.size) return yield* new VerifyError({ expected: blob, size })
    feed.verified(size)
    yield* Deferred.succeed(opened, fd)
    return
  }
  events.publish({ _tag: "waiting", layer: blob.digest })
  yield* places.withPermits(1)(fetched(request, parts))
})

/** Brings what is not in the store yet. */
const fetched = Effect.fnUntraced(function*({ blob, repository }: Request, { events, feed, opened, slots }: Parts) {
  const blobs = yield* BlobStore
  const layer = blob.digest
  // As often as a reader wants to hear of it (pkg/progressreader): every event is kept for those who come late.
  const step = Math.min(512 * 1024, Math.trunc(blob.size / 100))
  let told: number | undefined
  const downloading = (bytes: number) => {
    if (told !== undefined && bytes >= told && bytes - told <= step && bytes < blob.size) return
    told = bytes
    events.publish({ _tag: "downloading", layer, bytes, total: blob.size })
  }
  const ingest = yield* blobs.ingest(blob, { waiting: (bytes) => Effect.sync(() => downloading(bytes)) })
  const moved = () => {
    feed.advance(ingest.offset)
    downloading(ingest.offset)
  }
  const sink: Sink = {
    blob, doubts: new Set(),
    get offset() { return ingest.offset },
    get validator() { return ingest.validator },
    called: (validator) => ingest.called(validator),
    append: (chunk) => ingest.append(chunk),
    restart: () => { feed.restart(); ingest.restart() }
  }
  const once = Effect.gen(function*() {
    if (ingest.offset > 0) events.publish({ _tag: "resumed", layer, offset: ingest.offset })
    moved()
    yield* Deferred.succeed(opened, ingest.fd)
    yield* fill(repository, sink, { moved, failed: (cause, delay) => events.publish({ _tag: "retrying", layer, cause: cause.message, delay }) })
    yield* ingest.commit
    // Bytes that are not the blob's: the ingest begins again at 0, and what workers made of them is void.
  }).pipe(Effect.tapError((error) => error._tag === "VerifyError" ? Disk.attempt(() => sink.restart()) : Effect.void))
  if (!ingest.present) {
    yield* slots.withPermits(1)(mended(sink, once))
  }
  feed.verified(blob.size)
  yield* Deferred.succeed(opened, ingest.fd)
  events.publish({ _tag: "verified", layer })
})
