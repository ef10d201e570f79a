import { Effect, type Scope, type Stream } from "effect"
import * as Archive from "./archive/Archive.ts"
import { type ArchiveError, ArchiveRefused } from "./archive/Fault.ts"
import type { Tree } from "./archive/Tree.ts"
import { Control } from "./layer/Control.ts"
import { isCompressed } from "./layer/inflate/Inflate.ts"
import type { Workers } from "./layer/Workers.ts"
import { Native, perform } from "./Layers.ts"
import type * as Disk from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** Where an archive is: a file or folder by its path, or bytes as they come, under the name that errors give them. */
export type Source = string | { readonly name: string; readonly bytes: Stream.Stream<Uint8Array, Disk.StoreError> }

/** An archive may inflate to so many bytes: 256 GiB. */
const inflatedCap = 256 * 2 ** 30

/** A new file for an archive that has no place of its own, in a folder of the store that goes with the scope. */
const spool = Effect.gen(function*() {
  const { path } = yield* (yield* LayerStore).staging({ kind: "layer" })
  let count = 0
  return Effect.suspend(() => {
    const file = `${path}/${count++}.tar`
    return Effect.map(Files.fresh(file), (fd) => ({ file, fd }))
  })
})

/**
 * Opens an archive, or a layout's folder, until the scope closes. Bytes as they come, and compressed archives (inflated by a
 * worker), go to a file in the store first; memory stays flat.
 */
export const open = Effect.fn("ArchiveInput.open")(function*(
  source: Source
): Effect.fn.Return<Tree, ArchiveError | Disk.StoreError, Scope.Scope | LayerStore | Workers> {
  if (typeof source === "string" && (yield* Archive.isFolder(source))) return Archive.folder(source)
  const [archive, given] = typeof source === "string"
    ? [source, yield* Archive.openFile(source)]
    : yield* Effect.gen(function*() {
      const draft = yield* yield* spool
      yield* Files.pour(draft.fd, draft.file, source.bytes)
      return [source.name, yield* Archive.openFile(draft.file, source.name)] as const
    })
  if (!isCompressed(given.head)) return yield* Archive.index(given)
  const { fd: into, file } = yield* yield* spool
  const job = { kind: "inflate", fd: given.fd, size: given.size, into, limit: inflatedCap, native: yield* Native } as const
  yield* perform<"inflate">(job, archive, new Control()).pipe(Effect.catchTags({
    JobStopped: Effect.die,
    LayerRefused: ({ entry = "", rule }) => Effect.fail(new ArchiveRefused({ archive, entry, rule }))
  }))
  return yield* Archive.index(yield* Archive.openFile(file, archive))
})
