import { Context, Effect, Equal, Hash, Layer, Option, RcMap, type Scope } from "effect"
import { type DownloadError, Downloads } from "./Download.ts"
import type { Descriptor } from "./image/Descriptor.ts"
import { Digest } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import type { Job, Unpacked } from "./layer/Job.ts"
import { defaultLimits, type Limits as LayerLimits } from "./layer/Limits.ts"
import { type LayerRefused, type SystemFault, Workers } from "./layer/Workers.ts"
import type { Repository } from "./registry/Registry.ts"
import { BlobStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore, type Staging } from "./store/LayerStore.ts"

/** Everything that making a layer can fail with. */
export type LayerError = DownloadError | LayerRefused

/** A layer that is wanted: the blob it comes in, the diff ID its image's config gives, and where to fetch it. */
export interface Wanted {
  readonly blob: Descriptor
  readonly diffId: Digest
  readonly repository: Repository
}

/** A layer to unpack, whose image may not give its diff ID: those before schema2 do not. */
export interface Packed extends Omit<Wanted, "diffId"> {
  readonly diffId: Digest | undefined
}

/** A layer that is in the store, and what unpacking it found, if this process did it. */
export interface Made {
  readonly diffId: Digest
  readonly unpacked: Option.Option<Unpacked>
}

/** Whether jobs may use native calls: koffi, and the native inflate handle. */
export const Native = Context.Reference<boolean>("Layers/Native", { defaultValue: () => true })

/** What a layer may ask before it is refused; `defaultLimits` unless told otherwise. */
export const Limits = Context.Reference<LayerLimits>("Layers/Limits", { defaultValue: () => defaultLimits })

const words: Partial<Record<Job["kind"], string>> = { unpack: "unpack a layer to", merge: "assemble a root file system in", remove: "remove", compare: "compare a layer in", verify: "verify a layer in", hash: "read", inflate: "inflate an archive to" }

/** A system call's refusal in a worker, as the store's own error; `subject` is for systems that do not tell which file it was. */
const storeError = (kind: Job["kind"], subject: string) => ({ code, detail, path, syscall }: SystemFault) =>
  new Disk.StoreError({ operation: syscall === "read" ? syscall : words[kind] ?? syscall, path: path === "" ? subject : path, code: Disk.nameOf(code), cause: new Error(detail) })

/** Runs a job in the pool; a refusing disk is a `StoreError`. */
export const perform = <K extends Job["kind"]>(job: Extract<Job, { readonly kind: K }>, subject: string, control: Control) =>
  Effect.flatMap(Workers, (workers) => workers.run<K>(job, subject, control)).pipe(
    Effect.catchTag("SystemFault", (fault) => Effect.fail(storeError(job.kind, subject)(fault))))

/** One way through: `label` begins the names of its folders in `staging`. */
const stageOnce = Effect.fnUntraced(function*({ blob, diffId, repository }: Packed, staging: Staging, label: string) {
  yield* (yield* Workers).expect
  const download = yield* (yield* Downloads).get(blob, repository)
  const native = yield* Native
  const limits = yield* Limits
  const attempt = Effect.fnUntraced(function*(round: number) {
    const { control, settled } = yield* download.feed.follow
    const folder = `${staging.path}/${label}${round}`
    yield* Files.makeFolder(folder, 0o700)
    const fd = yield* download.opened
    yield* Effect.sync(() => download.events.publish({ _tag: "extracting", layer: blob.digest, bytes: control.consumed, total: blob.size })).pipe(
      Effect.delay("100 millis"), Effect.forever, Effect.forkScoped)
    // Whatever it is, bugs included: bytes that are taken back may vanish from the file before their worker is asked to stop.
    const exit = yield* Effect.exit(perform<"unpack">({ kind: "unpack", fd, size: blob.size, folder, diffId, native, limits }, blob.digest, control))
    if ((yield* settled) === "verified") {
      const unpacked = yield* exit
      return Option.some({ folder, unpacked })
    }
    yield* perform<"remove">({ kind: "remove", path: folder }, blob.digest, new Control())
    return Option.none<{ readonly folder: string; readonly unpacked: Unpacked }>()
  }, Effect.scoped, Effect.catchTag("JobStopped", Effect.die))
  const unpack = Effect.gen(function*() {
    for (let round = 0;; round++) {
      const made = yield* attempt(round)
      if (Option.isSome(made)) return made.value
    }
  })
  const [made] = yield* Effect.all([unpack, download.done], { concurrency: 2 })
  return made
}, Effect.scoped)

/**
 * Unpacks the layer into a folder inside `staging`, while its blob still comes. Bytes that turn out not to be the blob's
 * void what was made of them, errors included, and it starts again in a new folder. Both digests are checked when it ends, as
 * far as they are known. A blob that the store had and that has been damaged there is fetched again.
 */
export const stage = Effect.fn("Layers.stage")(function*(wanted: Packed, staging: Staging) {
  const { blob, repository } = wanted
  return yield* stageOnce(wanted, staging, "").pipe(Effect.catchTag("LayerRefused", Effect.fnUntraced(function*(error) {
    if (yield* (yield* BlobStore).verify(blob.digest)) return yield* error
    yield* (yield* Downloads).forget(blob, repository)
    return yield* stageOnce(wanted, staging, "again-")
  })))
})

/** A layer that is wanted in the store. Two requests for one diff ID, or one blob without, are the same work. */
class Request implements Equal.Equal {
  readonly wanted: Packed
  constructor(wanted: Packed) { this.wanted = wanted }
  [Hash.symbol]() { return Hash.string(this.wanted.diffId ?? this.wanted.blob.digest) }
  [Equal.symbol](that: unknown) {
    return that instanceof Request && that.wanted.diffId === this.wanted.diffId && that.wanted.blob.digest === this.wanted.blob.digest
  }
}

/** Every layer that is being unpacked into the store in this process: once a diff ID, whoever asks. */
export class Layers extends Context.Service<Layers, {
  /** The layer, unpacked and committed; what of it could not be set on this host is in the answer. */
  readonly get: (wanted: Packed) => Effect.Effect<Made, LayerError, Scope.Scope>
}>()("Layers/Layers") {
  static readonly layer = Layer.effect(Layers, Effect.gen(function*() {
    const store = yield* LayerStore
    const map = yield* RcMap.make({
      lookup: Effect.fnUntraced(function*({ wanted }: Request): Effect.fn.Return<Made, LayerError, Effect.Services<ReturnType<typeof stage>> | LayerStore> {
        const known = wanted.diffId ?? Option.getOrUndefined(yield* store.diffIdOf(wanted.blob.digest))
        if (known !== undefined && Option.isSome(yield* store.find(known))) return { diffId: known, unpacked: Option.none() }
        return yield* Effect.scoped(Effect.gen(function*() {
          const staging = yield* store.staging({ kind: "layer", ...(known === undefined ? {} : { diffId: known }) })
          const { folder, unpacked } = yield* stage(wanted, staging)
          const diffId = Digest.make(unpacked.diffId)
          yield* store.commit({ ...staging, path: folder }, {
            diffId, blob: wanted.blob.digest, mediaType: wanted.blob.mediaType, blobSize: wanted.blob.size, size: unpacked.size, entries: unpacked.entries
          })
          return { diffId, unpacked: Option.some(unpacked) }
        }))
      })
    })
    return Layers.of({ get: (wanted) => RcMap.get(map, new Request(wanted)) })
  }))
}
