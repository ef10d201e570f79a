import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, type Scope } from "effect"
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Check from "../src/Check.ts"
import { Native } from "../src/Layers.ts"
import * as Pull from "../src/Pull.ts"
import * as Places from "../src/registry/config/Places.ts"
import * as RetryPolicy from "../src/registry/RetryPolicy.ts"
import * as Towline from "../src/Towline.ts"

/** A folder that goes with the scope. */
export const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "towline-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))

/** What may be set otherwise. */
interface Options {
  readonly places?: Partial<Places.Places>
  readonly native?: boolean
  readonly limits?: Partial<RetryPolicy.Limits>
  readonly durability?: "safe" | "fast"
}

/**
 * The real services over a store in `folder`, with waits a hundredth as long and no credentials. Unpacked files are only
 * waited for where `durability` says so: a sync is of the whole file system, with whatever other tests write there.
 */
export const towline = (
  folder: string, options: Options = {}
) =>
  settings(folder, Towline.layer({ store: join(folder, "store") }), options)

/** The same over any store. */
export const settings = (folder: string, whole: ReturnType<typeof Towline.layer>, options: Options = {}) =>
  whole.pipe(
    Layer.provideMerge(Layer.mergeAll(
      NodeServices.layer,
      ConfigProvider.layer(ConfigProvider.fromEnvRecord({ DOCKER_CONFIG: join(folder, "no-config") })),
      Layer.succeed(Native, options.native ?? true),
      Layer.succeed(Places.Place, { ...Places.nowhere, ...options.places }),
      Layer.succeed(Pull.Durability, options.durability ?? "fast"),
      Layer.effect(RetryPolicy.Limits, Effect.map(RetryPolicy.Limits, (limits) => ({ ...limits, pace: 0.01, ...options.limits })))
    )))

/** The store in `folder` is sound, and holds nothing half-made but, if so told, partial blobs; what is being removed in the background is given 3 s. */
export const assertSound = (folder: string, { partials = false } = {}) => Effect.gen(function*() {
  assert.deepStrictEqual(yield* Check.check(), [])
  const ingests = () => readdirSync(join(folder, "store", "ingest"), { withFileTypes: true }).filter((entry) => !partials || entry.isDirectory())
  for (let n = 0; n < 60 && ingests().length > 0; n++) yield* Effect.sleep("50 millis")
  assert.deepStrictEqual(ingests(), [])
})

/** The plan of a modern image. */
export const planned = (reference: string, platform: string) => Effect.flatMap(Pull.plan(reference, { platform }), (plan) =>
  plan.kind === "schema1" || plan.kind === "v1" || plan.kind === "artifact" || plan.kind === "index" ? Effect.die(new Error("no modern image")) : Effect.succeed(plan))

/** What this process has open, as /proc names it. */
export const openPaths = (): ReadonlyArray<string> => readdirSync("/proc/self/fd").flatMap((fd) => {
  try {
    return [readlinkSync(`/proc/self/fd/${fd}`)]
  } catch {
    return [] // that of the listing itself
  }
})

/** Descriptors this process has open. */
export const openDescriptors = (): number => readdirSync("/proc/self/fd").length
