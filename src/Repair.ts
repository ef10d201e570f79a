import { Effect, Result } from "effect"
import { type CheckOptions, check } from "./Check.ts"
import { Descriptor } from "./image/Descriptor.ts"
import { type Digest, is } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import { Layers, perform } from "./Layers.ts"
import * as Refetch from "./Refetch.ts"
import type { Finding } from "./store/upkeep/Check.ts"
import type { StoreError } from "./store/disk/Disk.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { type Source, Upkeep } from "./store/upkeep/Upkeep.ts"

/** What became of a finding: mended, put away in the store's folder `quarantine` (`detail` says where, and why), or left as it is. */
export interface Action {
  readonly finding: Finding
  readonly outcome: "mended" | "quarantined" | "left"
  readonly detail: string
}

/** What a repair found and did, and what is still wrong. */
export interface Repaired {
  readonly actions: ReadonlyArray<Action>
  readonly left: ReadonlyArray<Finding>
}

/** One sentence for why something could not be had. */
const reasonOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

const nobody = "nobody knows where it came from"

/** Tries the places one after the other; the last reason counts. */
const restore = (digest: Digest, sources: ReadonlyArray<Source>) => Effect.map(Effect.result(Refetch.from(digest, sources)), (tried) =>
  Result.isSuccess(tried) ? { done: tried.success, reason: "" } : { done: undefined, reason: tried.failure._tag === "NoSource" ? nobody : reasonOf(tried.failure) })

const erase = (path: string) => perform<"remove">({ kind: "remove", path }, path, new Control()).pipe(
  Effect.catchTags({ LayerRefused: Effect.die, JobStopped: Effect.die }))

/** Puts what is damaged away, makes it anew, and only then removes it; else it stays there. */
const replace = Effect.fnUntraced(function*<R>(
  finding: Finding, away: string | undefined, anew: Effect.Effect<{ readonly done: string | undefined; readonly reason: string }, StoreError, R>
) {
  const { done, reason } = yield* anew
  if (done !== undefined) {
    if (away !== undefined) yield* erase(away)
    return { finding, outcome: "mended", detail: done } as const
  }
  return away === undefined ? { finding, outcome: "left", detail: reason } as const
    : { finding, outcome: "quarantined", detail: `it is in ${away} now, and could not be had again: ${reason}` } as const
})

const mendBlob = Effect.fnUntraced(function*(finding: Finding, digest: Digest) {
  const upkeep = yield* Upkeep
  const sources = yield* upkeep.sources(digest)
  const away = yield* upkeep.quarantine("blob", digest)
  return yield* replace(finding, away, sources.length === 0
    ? Effect.succeed({ done: "removed: no image needs it", reason: "" })
    : restore(digest, sources))
})

/** Unpacks a layer anew from one of its blobs: those that are stored first, then those that can be fetched. */
const mendLayer = Effect.fnUntraced(function*(finding: Finding, diffId: Digest) {
  const upkeep = yield* Upkeep
  const known = yield* upkeep.blobsOf(diffId)
  const ways = [...known.filter(({ stored }) => stored), ...known.filter(({ repository, stored }) => !stored && repository !== null)]
  if (ways.length === 0) return { finding, outcome: "left", detail: "its blob is not in the store, and nobody knows where it came from" } as const
  const away = yield* upkeep.quarantine("layer", diffId)
  return yield* replace(finding, away, Effect.gen(function*() {
    let reason = ""
    for (const { digest, media_type: mediaType, repository, size } of ways) {
      const wanted = { blob: new Descriptor({ mediaType, digest, size }), diffId, repository: Refetch.repositoryOf(repository ?? "localhost/unknown") }
      const made = yield* Effect.result(Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get(wanted))))
      if (Result.isSuccess(made)) {
        yield* (yield* LayerStore).sync()
        yield* upkeep.settled(diffId)
        return { done: "unpacked again", reason }
      }
      reason = reasonOf(made.failure)
    }
    return { done: undefined, reason }
  }))
})

/** Fetches the blob of a layer that has nothing to be compared with; the next round compares. */
const mendUnverified = Effect.fnUntraced(function*(finding: Finding, diffId: Digest) {
  const known = yield* (yield* Upkeep).blobsOf(diffId)
  if (known.some(({ stored }) => stored)) return { finding, outcome: "left", detail: finding.detail } as const
  const ways = known.map(({ digest, media_type, repository, size }) => ({ digest, source: { role: "layer", media_type, size, diff_id: diffId, repository } as const }))
  let reason = nobody
  for (const { digest, source } of ways.filter(({ source }) => source.repository !== null)) {
    const { done, reason: why } = yield* restore(digest, [source])
    if (done !== undefined) return { finding, outcome: "mended", detail: `its blob was ${done}` } as const
    reason = why
  }
  return { finding, outcome: "left", detail: `its blob is not in the store, and could not be had: ${reason}` } as const
})

/** A file in blobs/ that the store does not list: listed if it is what its name says, else put away. */
const mendStray = Effect.fnUntraced(function*(finding: Finding) {
  const upkeep = yield* Upkeep
  const { subject } = finding
  const path = `${upkeep.root}/blobs/${subject.replace(":", "/")}`
  if (is(subject) && (yield* upkeep.holds(path, subject))) {
    yield* upkeep.adopt(subject)
    return { finding, outcome: "mended", detail: "listed: its bytes are what its name says" } as const
  }
  return { finding, outcome: "quarantined", detail: `it is in ${yield* upkeep.putAway(path)} now` } as const
})

const mend = Effect.fnUntraced(function*(finding: Finding): Effect.fn.Return<Action, StoreError, Services> {
  const upkeep = yield* Upkeep
  const { blob, facts, kind, subject } = finding
  const left: Action = { finding, outcome: "left", detail: finding.detail }
  switch (kind) {
    case "blob-digest": case "blob-size": case "blob-file-missing":
      return is(subject) ? yield* mendBlob(finding, subject) : left
    case "image-incomplete":
      return blob === undefined ? left : yield* mendBlob(finding, blob)
    case "layer-damaged": case "layer-folder-missing":
      return is(subject) ? yield* mendLayer(finding, subject) : left
    case "layer-unverified":
      return is(subject) ? yield* mendUnverified(finding, subject) : left
    case "layer-sums-wrong":
      if (!is(subject)) return left
      yield* upkeep.forgetSums(subject)
      return { finding, outcome: "mended", detail: "forgotten: it is compared with its blob" }
    case "layer-row-wrong":
      if (!is(subject) || facts === undefined) return left
      yield* upkeep.correct(subject, facts)
      return { finding, outcome: "mended", detail: "its row says now what its tar is" }
    case "layer-blob-wrong":
      if (!is(subject) || blob === undefined) return left
      yield* upkeep.disown(blob, subject)
      return { finding, outcome: "mended", detail: "the blob is not listed for it any more" }
    case "mode":
      yield* upkeep.close(subject)
      return { finding, outcome: "mended", detail: "nobody else may look into it now" }
    case "blob-row-missing": return yield* mendStray(finding)
    case "layer-row-missing":
      return { finding, outcome: "quarantined", detail: `it is in ${yield* upkeep.putAway(`${upkeep.root}/layers/${subject.replace(":", "/")}`)} now` }
    case "image-wrong": {
      const done = yield* upkeep.mendConfig(subject)
      return done ? { finding, outcome: "mended", detail: "written again from the blob" } : left
    }
    default: return left
  }
})

type Services = Effect.Services<ReturnType<typeof mendBlob>> | Effect.Services<ReturnType<typeof mendLayer>>

const aboutRows = new Set<Finding["kind"]>(["chain-wrong", "dangling"])
/** Blobs come before the layers that are made of them, and those before what is only not compared yet. */
const order = (kind: Finding["kind"]) => kind === "layer-unverified" ? 2 : kind.startsWith("layer-") ? 1 : 0

const round = Effect.fnUntraced(function*(findings: ReadonlyArray<Finding>) {
  const actions: Array<Action> = []
  const rows = findings.filter(({ kind }) => aboutRows.has(kind))
  if (rows.length > 0) {
    const removed = yield* (yield* Upkeep).mendRows
    const detail = removed.length === 0 ? "written again from the manifests" : `written again from the manifests; removed: ${removed.join(", ")}`
    actions.push(...rows.map((finding): Action => ({ finding, outcome: "mended", detail })))
  }
  const contradicted = findings.filter(({ kind }) => kind === "row-wrong")
  if (contradicted.length > 0) {
    yield* (yield* Upkeep).rewrite
    actions.push(...contradicted.map((finding): Action => ({ finding, outcome: "mended", detail: "written again as the manifest, its config and the log say" })))
  }
  const seen = new Set<string>()
  for (const finding of findings.toSorted((a, b) => order(a.kind) - order(b.kind))) {
    if (aboutRows.has(finding.kind) || finding.kind === "row-wrong") continue
    if (finding.kind === "layer-unverified" && actions.some(({ outcome }) => outcome === "mended")) continue // compared once more first
    const key = `${finding.kind} ${finding.blob ?? finding.subject}`
    if (seen.has(key)) continue
    seen.add(key)
    actions.push(yield* mend(finding))
  }
  return actions
})

/**
 * Checks the store and mends what it can: damaged and missing blobs are fetched again from where they came, damaged layers are
 * unpacked again, rows are written again from manifests and configs. What cannot be had again is put into the store's
 * folder `quarantine`, and said. It looks again afterwards, since a mended blob may show a damaged layer, and goes on as long as
 * that shows anything new: what was mended and is wrong again is left.
 */
export const repair = Effect.fn("Repair.repair")(function*(options: CheckOptions = {}) {
  const actions: Array<Action> = []
  const before = new Set<string>()
  for (let fresh = true;;) {
    const findings = yield* check(options)
    const repaired: Repaired = { actions, left: findings }
    if (findings.length === 0 || !fresh) return repaired
    const done = yield* round(findings)
    // Said once: what could not be mended will not be mended by trying again.
    actions.push(...done.filter(({ finding, outcome }) => outcome !== "left" || !actions.some((earlier) =>
      earlier.finding.kind === finding.kind && earlier.finding.subject === finding.subject)))
    const changed = done.filter(({ outcome }) => outcome !== "left").map(({ finding: { blob, kind, subject } }) => `${kind} ${subject} ${blob ?? ""}`)
    if (changed.length === 0) return repaired
    fresh = changed.some((key) => !before.has(key))
    for (const key of changed) before.add(key)
  }
})
