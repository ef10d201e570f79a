import { Effect, Option, Schema, type Scope } from "effect"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { type LayerError, Native, perform, stage, type Wanted } from "./Layers.ts"
import { Control } from "./layer/Control.ts"
import type { Unset } from "./layer/Job.ts"
import type { OwnerMap } from "./layer/merge/Owners.ts"
import * as Disk from "./store/disk/Disk.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore, type Staging } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"

/** A root file system is only written where nothing is: `path` is a file, or a folder that holds something. */
export class TargetNotEmpty extends Schema.TaggedError<TargetNotEmpty>()("TargetNotEmpty", { path: Schema.String, problem: Schema.String }) {
  override get message() {
    return `${this.path} ${this.problem}: name a folder that does not exist yet, or an empty one`
  }
}

/**
 * How a root file system gets the files of layers that stay in the store: reflink where the file system can, else a copy.
 * `hardlink` is named by those who only read: its files are the store's own, and whoever writes to one damages every image
 * that has it. It is refused where owners are mapped, or are not those of the store.
 */
export type Link = "auto" | "reflink" | "copy" | "hardlink"

/** Fails unless `path` is free: absent, or an empty folder. */
export const vacant = (path: string): Effect.Effect<void, TargetNotEmpty | StoreError> =>
  Effect.flatMap(Files.obstacle(path), (problem) => problem === undefined ? Effect.void : Effect.fail(new TargetNotEmpty({ path, problem })))

/** A root file system that is assembled but not in its place yet. */
export interface Assembled {
  /** Where it is until `publish`: a folder that only this user may enter. */
  readonly path: string
  readonly unset: ReadonlyArray<Unset>
  /** Renames it into its place, which must be vacant; its name there is durable. */
  readonly publish: Effect.Effect<void, StoreError | TargetNotEmpty>
}

/** How to put layers together: `into` is a descriptor that gets a tar archive, in place of a folder that is to stay. */
export interface Joining {
  readonly link: Link
  readonly owners?: OwnerMap | undefined
  readonly into?: number
  /** What it is called in errors. */
  readonly subject: string
}

/**
 * Puts the layers, bottom first, together in the folder `rootfs` of a staging folder; they are pinned while its scope lasts. A layer of the store stays there; any
 * other is unpacked, in parallel, while it is fetched, and taken apart by moving.
 */
export const joined = Effect.fn("RootFs.joined")(function*(layers: ReadonlyArray<Wanted>, staging: Staging, { subject, ...how }: Joining) {
  yield* (yield* Leases).hold(layers.flatMap(({ blob, diffId }) => [blob.digest, diffId]))
  const parts = yield* Effect.forEach(layers, (wanted, index) => part(wanted, index, staging), { concurrency: "unbounded" })
  const [root, hold] = [`${staging.path}/rootfs`, `${staging.path}/hold`]
  yield* Effect.forEach([root, hold], (path) => Files.makeFolder(path, 0o700))
  const { unset } = yield* perform<"merge">(
    { kind: "merge", root, hold, layers: parts.map(({ folder, move }) => ({ folder, move })), ...how, native: yield* Native }, subject, new Control()
  ).pipe(Effect.catchTag("JobStopped", Effect.die))
  return { root, unset }
})

/**
 * Puts the layers, bottom first, together beside `target`, in a folder only this user may enter. A layer of the store is
 * copied; any other is unpacked there, in parallel, while it is fetched, and taken apart by moving. Unless `publish` runs,
 * all is removed when the scope closes.
 */
export const assemble = Effect.fn("RootFs.assemble")(function*(
  layers: ReadonlyArray<Wanted>, target: string, link: Link, owners?: OwnerMap
): Effect.fn.Return<Assembled, LayerError | StoreError, Scope.Scope | Effect.Services<ReturnType<typeof stage>> | LayerStore | Leases> {
  const store = yield* LayerStore
  const place = resolve(target)
  yield* Files.makeFolders(dirname(place))
  const staging = yield* store.staging({ kind: "rootfs", place: dirname(place), name: basename(place) })
  const { root, unset } = yield* joined(layers, staging, { link, owners, subject: basename(place) })
  return {
    path: root,
    unset: [unset],
    // Who was quicker between the look and the rename is told as who was there before.
    publish: Effect.andThen(vacant(place), staging.publish(place, root)).pipe(
      Effect.catchTag("StoreError", (error) => Effect.andThen(vacant(place), Effect.fail(error))),
      Effect.andThen(Disk.syncFolder(dirname(place))))
  }
})

const part = Effect.fnUntraced(function*(wanted: Wanted, index: number, staging: Staging) {
  const there = yield* (yield* LayerStore).find(wanted.diffId)
  if (Option.isSome(there)) return { folder: there.value.folder, move: false }
  const path = `${staging.path}/${index}`
  yield* Files.makeFolder(path, 0o700)
  const { folder } = yield* stage(wanted, { ...staging, path })
  return { folder, move: true }
})

/**
 * The image's root file system in a folder of its own, removed when the scope closes. It is made in the folder `place`
 * (the system's temporary folder by default), in a folder that only this user may enter.
 */
export const make = Effect.fn("RootFs.make")(function*(
  image: { readonly reference: string; readonly layers: ReadonlyArray<Wanted> },
  options: { readonly place?: string; readonly link?: Link; readonly owners?: OwnerMap } = {}
) {
  const { path } = yield* assemble(image.layers, join(options.place ?? tmpdir(), "rootfs"), options.link ?? "auto", options.owners)
  yield* Effect.addFinalizer(() => Effect.ignore(perform<"remove">({ kind: "remove", path }, image.reference, new Control())))
  return path
})
