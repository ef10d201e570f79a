import { Effect, Option, type Scope } from "effect"
import { type Digest, is } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import type { Answers } from "./layer/Job.ts"
import { Workers } from "./layer/Workers.ts"
import { Native, perform } from "./Layers.ts"
import { BlobStore } from "./store/BlobStore.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import * as Files from "./store/disk/Files.ts"
import { type Finding, Graph } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import { type KeptLayer, Upkeep } from "./store/upkeep/Upkeep.ts"

/** How far a check is: blobs hashed or layers compared, of how many. */
export interface CheckProgress {
  readonly what: "blobs" | "layers"
  readonly done: number
  readonly total: number
}

/** `progress` hears of every blob and every layer. */
export interface CheckOptions {
  readonly progress?: (progress: CheckProgress) => Effect.Effect<void>
}

const say = (differences: ReadonlyArray<{ readonly path: string; readonly what: string }>, count: number): string => {
  const words: Readonly<Record<string, string>> = {
    missing: "is missing", extra: "is not in its tar", type: "is of another type", content: "has another content", mode: "has another mode",
    owner: "has another owner", time: "has another time", attributes: "has other attributes", journal: "(its journal) is not what its tar makes"
  }
  const first = differences.slice(0, 5).map(({ path, what }) => `${path} ${words[what] ?? what}`).join(", ")
  return count > 5 ? `${first} and ${count - 5} more` : first
}

const unverified = (diffId: Digest, detail: string): Finding => ({ kind: "layer-unverified", subject: diffId, detail })

/** What keeps a layer from being unpacked once more beside itself. */
const obstacles = new Set(["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM"])

/** Why a layer cannot be unpacked once more, if the disk is in the way; any other failure stays one. */
export const obstacle = (error: StoreError) =>
  obstacles.has(error.code ?? "") ? Effect.succeed(`it cannot be unpacked once more to be compared: ${error.message}`) : Effect.fail(error)

const unpackable = (diffId: Digest, error: StoreError) => Effect.map(obstacle(error), (why) => [unverified(diffId, why)])

/** Findings about a layer that what came of its blob, or its recorded digests, tell. */
const differences = ({ diffId, entries, size }: KeptLayer, found: Answers["compare"] | NonNullable<Answers["verify"]>): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  if (found.count > 0) findings.push({ kind: "layer-damaged", subject: diffId, detail: say(found.differences, found.count) })
  if (found.entries !== entries || found.size !== size) {
    findings.push({ kind: "layer-row-wrong", subject: diffId, detail: `its tar has ${found.entries} entries and ${found.size} bytes, the store lists ${entries} and ${size}`, facts: { size: found.size, entries: found.entries } })
  }
  if (found.unread > 0) findings.push(unverified(diffId, unreadable(found.unread)))
  return findings
}

/** Why extended attributes were not compared. */
export const unreadable = (names: number): string => `extended attributes of ${names} names cannot be read here: install koffi`

/**
 * Unpacks a blob beside the layer, and compares; with `recording`, where they are the same, the digests of its files are in the file `record`,
 * which goes with the scope. A sentence: the blob does not hold the layer. Undefined: the blob is gone.
 */
export const beside = Effect.fnUntraced(function*({ diffId, folder }: Pick<KeptLayer, "diffId" | "folder">, blob: Digest, { recording = false } = {}): Effect.fn.Return<
  { readonly found: Answers["compare"]; readonly record: string } | string | undefined, StoreError, BlobStore | LayerStore | Workers | Scope.Scope
> {
  const staging = yield* (yield* LayerStore).staging({ kind: "layer" })
  const [made, record] = [`${staging.path}/made`, `${staging.path}/sums`]
  yield* Files.makeFolder(made, 0o700)
  const opened = yield* Effect.option((yield* BlobStore).open(blob))
  if (Option.isNone(opened)) return undefined
  const { fd, size: length } = opened.value
  const control = new Control()
  control.advance(length)
  const job = { kind: "compare", fd, size: length, folder: made, diffId, native: yield* Native, layer: folder, ...recording && { record } } as const
  return yield* perform<"compare">(job, diffId, control).pipe(
    Effect.map((found) => ({ found, record })),
    Effect.catchTags({ JobStopped: Effect.die, LayerRefused: ({ rule }) => Effect.succeed(rule) }))
})

/** Compares the layer with the digests of its files that were recorded before its blob was given up; undefined if those are damaged. */
export const recorded = Effect.fnUntraced(function*({ diffId, folder }: Pick<KeptLayer, "diffId" | "folder">, hash: string) {
  const job = { kind: "verify", layer: folder, sums: `${folder}/sums`, hash, native: yield* Native } as const
  return yield* perform<"verify">(job, diffId, new Control()).pipe(Effect.catchTags({ JobStopped: Effect.die, LayerRefused: Effect.die }))
})

const compare = Effect.fnUntraced(function*(layer: KeptLayer, blob: Digest): Effect.fn.Return<
  ReadonlyArray<Finding>, StoreError, BlobStore | LayerStore | Workers | Scope.Scope
> {
  const { diffId } = layer
  const compared = yield* beside(layer, blob)
  if (compared === undefined) return [] // removed meanwhile, with its layer
  if (typeof compared === "string") return [{ kind: "layer-blob-wrong", subject: diffId, detail: `the blob ${blob} is listed as holding it, and does not: ${compared}`, blob }]
  return differences(layer, compared.found)
})

const sumsWrong = (diffId: Digest): Finding =>
  ({ kind: "layer-sums-wrong", subject: diffId, detail: "the digests of its files that were recorded when its blob was given up are damaged" })

/** Whether the file of recorded digests is what it was. */
const isAsRecorded = Effect.fnUntraced(function*({ folder }: KeptLayer, sums: string) {
  const digest = `sha256:${sums}`
  return is(digest) && (yield* (yield* Upkeep).holds(`${folder}/sums`, digest))
})

/** One layer against what it came in, else against what was recorded of it. */
const one = Effect.fnUntraced(function*(layer: KeptLayer, damaged: ReadonlySet<string>) {
  const { blobs, diffId, sums } = layer
  yield* (yield* Leases).hold([diffId, ...blobs.map(({ digest }) => digest)])
  if (Option.isNone(yield* (yield* LayerStore).find(diffId))) return [] // removed meanwhile
  const findings: Array<Finding> = []
  for (const { digest } of blobs.filter(({ digest }) => !damaged.has(digest))) {
    const found = yield* compare(layer, digest).pipe(Effect.scoped, Effect.catchTag("StoreError", (error) => unpackable(diffId, error)))
    findings.push(...found)
    if (found.some(({ kind }) => kind === "layer-blob-wrong")) continue
    return sums === undefined || (yield* isAsRecorded(layer, sums)) ? findings : [...findings, sumsWrong(diffId)]
  }
  const kept = sums === undefined ? undefined : yield* recorded(layer, sums)
  if (kept !== undefined) return [...findings, ...differences(layer, kept)]
  if (sums !== undefined) findings.push(sumsWrong(diffId))
  const why = blobs.length === 0 ? "the store has neither a blob nor recorded digests to compare it with; pull its image again"
    : findings.some(({ kind }) => kind === "layer-blob-wrong") ? "no blob that is listed for it holds it" : "the store has no sound blob to compare it with; mend its blob first"
  return [...findings, unverified(diffId, why)]
}, Effect.scoped)

const aboutBlobs = new Set<Finding["kind"]>(["blob-digest", "blob-size", "blob-file-missing"])

/**
 * Looks at all the store has: rows and references, litter, every blob's digest, and every unpacked layer against its blob's tar:
 * names, types, owners, modes, times, attributes, contents, and what its journal says. Blobs and layers go to the
 * workers. A layer whose blob was given up is compared with the digests of its files that were recorded then; one with neither is
 * reported as not verifiable. An empty list: all is well.
 */
export const check = Effect.fn("Check.check")(function*({ progress }: CheckOptions = {}) {
  const tell = (what: CheckProgress["what"]) => (done: number, total: number) => progress === undefined ? Effect.void : progress({ what, done, total })
  const findings = yield* (yield* Graph).check({ progress: tell("blobs") })
  const damaged = new Set(findings.filter(({ kind }) => aboutBlobs.has(kind)).map(({ subject }) => subject))
  const lacking = new Set(findings.filter(({ kind }) => kind === "layer-folder-missing").map(({ subject }) => subject))
  const layers = (yield* (yield* Upkeep).layers).filter(({ diffId }) => !lacking.has(diffId))
  const told = tell("layers")
  let done = 0
  const compared = yield* Effect.forEach(layers, Effect.fnUntraced(function*(layer) {
    const found = yield* one(layer, damaged)
    yield* told(++done, layers.length)
    return found
  }), { concurrency: (yield* Workers).size })
  return [...findings, ...compared.flat()]
})
