import type { Layer } from "effect"
import type { StoreError } from "../store/disk/Disk.ts"
import * as Store from "../store/Store.ts"

/**
 * A store in memory, for tests of programs that pull: a new and empty one each time it is built, gone with its scope. It is the store
 * itself over other ground: its database is in memory, and its files are in a private folder of the file system in memory
 * (/dev/shm, if that has 1 GiB free), since workers unpack blobs from descriptors and layers into folders; where there is no such file
 * system, in the temporary folder. `Towline.layerOn(MemoryStore.layer)` makes the whole of it.
 */
export const layer: Layer.Layer<Store.Services, StoreError> = Store.layerMemory
