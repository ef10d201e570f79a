import { Effect, Layer } from "effect"
import * as Download from "./Download.ts"
import { Control } from "./layer/Control.ts"
import { Workers } from "./layer/Workers.ts"
import { Layers, perform } from "./Layers.ts"
import { Pools } from "./Pools.ts"
import * as Configuration from "./registry/config/Load.ts"
import { Credentials } from "./registry/auth/Credentials.ts"
import { Registry } from "./registry/Registry.ts"
import { Transport } from "./registry/Transport.ts"
import { V1Registry } from "./registry/V1Registry.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Store from "./store/Store.ts"

/** What the whole is made from. */
export interface TowlineOptions {
  /** The store's folder; it is made if it is not there. */
  readonly store: string
}

/** The store alone, for programs that ask no registry. Its trees are removed, and its blobs hashed again, by the workers. */
export const layerStore = (options: TowlineOptions) => withWorkers(Store.layer({ path: options.store }))

/** As `layerStore`, for programs that only read: the store may be mounted read-only. */
export const layerReading = (options: TowlineOptions) => withWorkers(Store.layerReading({ path: options.store }))

const withWorkers = (store: ReturnType<typeof Store.layer>) => {
  const remover = Layer.effect(Store.Remover, Effect.map(Effect.context<Workers>(), (context) => (path: string) =>
    perform<"remove">({ kind: "remove", path }, path, new Control()).pipe(
      Effect.catchTags({ LayerRefused: Effect.die, JobStopped: Effect.die }), Effect.provideContext(context))))
  const hasher = Layer.effect(Store.Hasher, Effect.map(Workers, (workers) => ({
    concurrency: workers.size,
    hash: (fd: number, size: number, algorithm: "sha256" | "sha512", path: string) =>
      perform<"hash">({ kind: "hash", fd, size, algorithm }, path, new Control()).pipe(
        Effect.map(({ hex }) => hex), Effect.catchTags({ LayerRefused: Effect.die, JobStopped: Effect.die }), Effect.provideService(Workers, workers))
  })))
  return store.pipe(Layer.provide(Layer.merge(remover, hasher)))
}

/** As `layer`, on a store that is opened in another way, such as the test kit's in memory. */
export const layerOn = (store: Layer.Layer<Store.Services, StoreError>) => {
  const registry = Layer.merge(Registry.layer, V1Registry.layer).pipe(
    Layer.provide(Layer.mergeAll(Transport.layer, Credentials.layer)), Layer.provide(Configuration.layer))
  const base = Layer.mergeAll(withWorkers(store), registry).pipe(Layer.provideMerge(Workers.layer))
  return Layer.mergeAll(Layers.layer, Pools.layer).pipe(Layer.provideMerge(Download.Downloads.layer), Layer.provideMerge(base))
}

/** The whole: a store, a registry client, the workers, and what shares their work. Needs a FileSystem for credentials and configuration. */
export const layer = (options: TowlineOptions) => layerOn(Store.layer({ path: options.store }))
