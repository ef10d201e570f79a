import { Effect, type Scope, type Stream } from "effect"
import type { Digest } from "./image/Digest.ts"
import { BlobStore, type NotInStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { Leases } from "./store/Leases.ts"

/** An open blob: it stays in the store, and these work, until the scope it was opened in closes. */
export interface OpenBlob {
  readonly digest: Digest
  /** In bytes. */
  readonly size: number
  /** All of it, a MiB at a time, from the beginning each time it is run. */
  readonly bytes: Stream.Stream<Uint8Array, StoreError>
  /** A descriptor for reading at explicit positions; closed with the scope. */
  readonly fd: number
}

/**
 * Opens a blob of the store: a manifest, a config, or a layer as it was sent. It is pinned, in all processes, until the scope closes. Nothing is
 * hashed again: `Graph.check` does that. Fails with `NotInStore` where the blob is not there, or was given up (`gc --drop-blobs`).
 */
export const open = Effect.fn("Blob.open")(function*(digest: Digest): Effect.fn.Return<OpenBlob, StoreError | NotInStore, BlobStore | Leases | Scope.Scope> {
  yield* (yield* Leases).hold([digest])
  const { fd, path, size } = yield* (yield* BlobStore).open(digest)
  return { digest, size, fd, bytes: Files.stream(fd, size, path) }
})
