import { Effect, type Scope } from "effect"
import { resolve } from "node:path"
import type { LayerError, Wanted } from "./Layers.ts"
import type { OwnerMap } from "./layer/merge/Owners.ts"
import * as RootFs from "./RootFs.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore } from "./store/LayerStore.ts"

/** Needs what `RootFs.assemble` needs, without a scope of its own. */
type Needs = Exclude<Effect.Services<ReturnType<typeof RootFs.assemble>>, Scope.Scope>

/**
 * Writes the root file system of the layers, bottom first, as one tar archive to an open descriptor: owners, devices,
 * extended attributes and times as the layers say, whatever this user may set. Layers of the store are not copied for it.
 */
export const send = Effect.fn("RootTar.send")(function*(
  layers: ReadonlyArray<Wanted>, fd: number, owners?: OwnerMap
): Effect.fn.Return<void, LayerError | StoreError, Needs> {
  const once = (link: RootFs.Link) => Effect.scoped(Effect.gen(function*() {
    const staging = yield* (yield* LayerStore).staging({ kind: "layer" })
    yield* RootFs.joined(layers, staging, { link, owners, into: fd, subject: "the archive of the root file system" })
  }))
  // Of a store that is mounted read-only the staging folder is elsewhere; nothing was written yet.
  yield* Effect.catchTag(once("hardlink"), "StoreError", (error) => error.code === "EXDEV" ? once("auto") : Effect.fail(error))
})

/** As `send`, to a file that is there once it is whole and durable, in place of an older one. */
export const write = Effect.fn("RootTar.write")((layers: ReadonlyArray<Wanted>, path: string, owners?: OwnerMap): Effect.Effect<void, LayerError | StoreError, Needs> =>
  Files.replace(resolve(path), (fd) => send(layers, fd, owners)))
