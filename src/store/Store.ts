import { Effect, Layer } from "effect"
import { BlobStore } from "./BlobStore.ts"
import type { StoreError } from "./disk/Disk.ts"
import { Graph } from "./Graph.ts"
import { History } from "./names/History.ts"
import * as Home from "./disk/Home.ts"
import { LayerStore } from "./LayerStore.ts"
import { Leases } from "./Leases.ts"
import { Listing } from "./names/Listing.ts"
import * as ReadOnly from "./disk/ReadOnly.ts"
import { sweep } from "./upkeep/Sweep.ts"
import { Collector } from "./upkeep/Collector.ts"
import { Upkeep } from "./upkeep/Upkeep.ts"

export { Hasher } from "./upkeep/Check.ts"
export { Remover } from "./disk/Home.ts"

/** What a store provides. */
export type Services = BlobStore | LayerStore | Graph | Leases | Collector | Upkeep | History | Listing

/** Where the store is; its folder is made if it is not there. */
export interface StoreOptions {
  readonly path: string
}

/**
 * Opens the store (refusing one that others may look into, or that a newer version wrote), removes what dead processes
 * left, and provides its services. Closing waits for removals; trees are removed by `Remover`.
 */
export const layer = ({ path }: StoreOptions): Layer.Layer<Services, StoreError> =>
  on(Home.layer(path))

/** A new, empty store in memory, for tests: see `Home.layerMemory`. Each time it is built it is another one. */
export const layerMemory: Layer.Layer<Services, StoreError> = Layer.suspend(() => on(Home.layerMemory))

const on = (home: Layer.Layer<Home.Home, StoreError>): Layer.Layer<Services, StoreError> =>
  // Fresh: layers are remembered by reference, and two stores of one program would share the first one's services.
  Layer.fresh(Layer.mergeAll(BlobStore.layer, LayerStore.layer, Graph.layer, Leases.layer, Collector.layer, Upkeep.layer, History.layer, Listing.layer).pipe(
    Layer.provide(Layer.provideMerge(Layer.effectDiscard(sweep), home))))

/** The store for commands that only read: as `layer`, or where it is mounted read-only, as it is there. */
export const layerReading = ({ path }: StoreOptions): Layer.Layer<Services, StoreError> =>
  Layer.unwrap(Effect.map(ReadOnly.isReadOnly(path), (readOnly) => readOnly
    ? Layer.fresh(Layer.mergeAll(BlobStore.layer, LayerStore.layer, Graph.layer, ReadOnly.leases, Collector.layer, Upkeep.layer, History.layer, Listing.layer)).pipe(
      Layer.provide(ReadOnly.home(path)))
    : layer({ path })))
