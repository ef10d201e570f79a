import { Clock, Context, Effect, Exit, Layer, Option, Schema, type Scope } from "effect"
import { spawn } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, renameSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { resolve } from "node:path"
import { Descriptor } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import * as Disk from "./disk/Disk.ts"
import { StoreError } from "./disk/Disk.ts"
import { absolute, Home, ingestColumns, ingestName, IngestRow, layerPath, look, record } from "./disk/Home.ts"
import { finishRemoval, isIdle, settle } from "./upkeep/Sweep.ts"

type Shape = Home["Service"]

/** An unpacked layer: its diff ID and folder (holding fs/ and meta), the sum of its tar's header sizes, and its entries. */
export interface StoredLayer {
  readonly diffId: Digest.Digest
  readonly folder: string
  readonly size: number
  readonly entries: number
  /** `unsynced`: committed in this boot, but not yet known to survive a power loss. */
  readonly state: "unsynced" | "durable"
}

/** What is known of a layer when it is committed; `blob` is what it came in (compressed bytes). */
export interface LayerFacts {
  readonly diffId: Digest.Digest
  readonly blob: Digest.Digest
  readonly mediaType: string
  readonly blobSize: number
  /** Sum of the tar's header sizes, in bytes. */
  readonly size: number
  readonly entries: number
}

/** What a staging folder is for: a layer, made in the store (`diffId` if it is known), or a root file system, made in the folder `place`. */
export type StagingPlace =
  | { readonly kind: "layer"; readonly diffId?: Digest.Digest }
  | { readonly kind: "rootfs"; readonly place: string; readonly name: string }

/** An own, empty 0700 folder, known to the store before it exists, so that it never outlives its owner unseen. */
export interface Staging {
  readonly path: string
  /** Its name in the store's table of ingests. */
  readonly row: string
  /** Renames `from` (the staging folder, or something inside) to `to`, which must not exist or be an empty folder. */
  readonly publish: (to: string, from?: string) => Effect.Effect<void, StoreError>
}

/** A staging folder by its row, and the finished folder: itself, or one inside. */
export type Staged = Pick<Staging, "row" | "path">

const LayerRow = Schema.Struct({
  size: Schema.Int, entries: Schema.Int, state: Schema.Literals(["unsynced", "durable", "deleting"]), boot: Schema.String
})
const BlobRow = Schema.Struct({ blob: Digest.Digest, media_type: Schema.String, size: Schema.Int })
const DiffId = Schema.Struct({ diff_id: Digest.Digest })
const Gone = Schema.Struct({ path: Schema.String })

const stale = (path: string) => new StoreError({ operation: "commit", path, code: "ESTALE" })

const sync = (command: string, args: ReadonlyArray<string>, path: string) => Effect.callback<boolean, StoreError>((resume) => {
  const child = spawn(command, args, { stdio: "ignore" })
  child.once("error", (cause) => resume(Exit.fail(new StoreError({
    operation: "sync", path, cause,
    detail: `the command \`${command}\`, which makes files durable, could not be run (${cause.message}); install coreutils, or use --durability fast`
  }))))
  child.once("exit", (code) => resume(Exit.succeed(code === 0)))
  return Effect.sync(() => {
    child.kill("SIGKILL")
    child.unref() // one that is waiting for the disk ends only with it
  })
})

/** Makes all of the file system that holds `folder` durable: `sync -f`, or where that is not known, `sync`. */
const syncAll = Effect.fn("LayerStore.sync")(function*(folder: string) {
  if (yield* sync("sync", ["-f", folder], folder)) return
  if (yield* sync("sync", [], folder)) return
  return yield* new StoreError({ operation: "sync", path: folder, code: "EIO" })
})

const isThere = (home: Shape, row: typeof LayerRow.Type | undefined, folder: string): row is typeof LayerRow.Type =>
  row !== undefined && (row.state === "durable" || (row.state === "unsynced" && row.boot === home.owner.self.boot)) && look(folder) !== undefined

const layerRow = ({ db }: Shape, diffId: Digest.Digest) =>
  Effect.map(db.rows(LayerRow, db.sql`SELECT size, entries, state, boot FROM layers WHERE diff_id = ${diffId}`), (rows) => rows[0])

/** Where nothing can be recorded: beside the target, else in the temporary folder. It goes with the scope; what a killed process leaves there, stays. */
const unrecorded = Effect.fnUntraced(function*(home: Shape, where: StagingPlace): Effect.fn.Return<Staging, StoreError, Scope.Scope> {
  const near = where.kind === "rootfs" ? `${resolve(where.place)}/.towline-${where.name}.` : `${tmpdir()}/towline-layer.`
  const path = yield* Effect.acquireRelease(
    Disk.call("make the folder", near, () => mkdtempSync(near)), (path) => Effect.ignore(home.remove(path)))
  return { path, row: path, publish: (to, from) => Disk.call("rename into place", to, () => renameSync(from ?? path, to)) }
})

const makeStaging = Effect.fn("LayerStore.staging")(function*(home: Shape, where: StagingPlace): Effect.fn.Return<Staging, StoreError, Scope.Scope> {
  if (home.readOnly) return yield* unrecorded(home, where)
  const { root, db, owner } = home
  const digest = where.kind === "layer" ? where.diffId ?? null : null
  const inside = ingestName(digest === null ? where.kind : Digest.short(digest))
  const row = where.kind === "layer" ? inside : `${resolve(where.place)}/.towline-${where.name}${inside.slice(inside.lastIndexOf("."))}`
  const path = absolute(root, row)
  yield* db.transaction(record(home, { path: row, kind: where.kind, digest }))
  const mine = db.sql`path = ${row} AND owner = ${owner.self.token}`
  yield* Effect.addFinalizer(() => home.discard(row)) // also its row, which is gone if it was committed
  yield* Disk.call("make the folder", path, () => {
    mkdirSync(path, { mode: 0o700 })
    if ((statSync(path).mode & 0o777) !== 0o700) chmodSync(path, 0o700)
  })
  const publish = Effect.fn("Staging.publish")(function*(to: string, from?: string) {
    const [still] = yield* db.rows(Gone, db.sql`SELECT path FROM ingests WHERE ${mine}`)
    if (still === undefined) return yield* stale(path)
    yield* Disk.call("rename into place", to, () => renameSync(from ?? path, to))
  })
  return { path, row, publish }
})

type Outcome = { readonly is: "committed"; readonly orphan: string | undefined } | { readonly is: "there" } | { readonly is: "leaving" }

const tryCommit = Effect.fnUntraced(function*(home: Shape, staging: Staged, facts: LayerFacts): Effect.fn.Return<Outcome, StoreError> {
  const { root, db, owner } = home
  const { sql } = db
  const { diffId, blob, mediaType, blobSize, size, entries } = facts
  const folder = layerPath(root, diffId)
  let moved = false
  const body = Effect.gen(function*(): Effect.fn.Return<Outcome, StoreError> {
    const since = yield* Clock.currentTimeMillis
    const row = yield* layerRow(home, diffId)
    if (row?.state === "deleting") return { is: "leaving" }
    yield* db.run(sql`INSERT INTO layer_blobs ${sql.insert({ blob, diff_id: diffId, media_type: mediaType, size: blobSize })}
      ON CONFLICT (blob) DO UPDATE SET diff_id = excluded.diff_id`)
    if (isThere(home, row, folder)) return { is: "there" }
    const mine = sql`path = ${staging.row} AND owner = ${owner.self.token}`
    const whole = staging.path === absolute(root, staging.row) // else the folder around it goes with its row
    const [still] = yield* db.rows(Gone, whole ? sql`DELETE FROM ingests WHERE ${mine} RETURNING path` : sql`SELECT path FROM ingests WHERE ${mine}`)
    if (still === undefined) return yield* stale(staging.path)
    // In the transaction that writes the row, so that a folder without a row is nobody's but a dead process's.
    const orphan = look(folder) === undefined ? undefined : ingestName("orphan")
    if (orphan !== undefined) {
      yield* record(home, { path: orphan, kind: "layer", digest: null })
      yield* Disk.call("move away", folder, () => renameSync(folder, absolute(root, orphan)))
    }
    yield* Disk.call("commit", staging.path, () => renameSync(staging.path, folder))
    moved = true
    yield* db.run(sql`INSERT INTO layers ${sql.insert({ diff_id: diffId, size, entries, state: "unsynced", boot: owner.self.boot, since })}
      ON CONFLICT (diff_id) DO UPDATE SET size = excluded.size, entries = excluded.entries, state = 'unsynced',
        boot = excluded.boot, since = excluded.since, sums = NULL`)
    return { is: "committed", orphan }
  })
  return yield* Effect.onError(db.transaction(body), () => Effect.ignore(Disk.call("move back", folder, () => {
    if (moved) renameSync(folder, staging.path)
  })))
})

const poll = "100 millis"

const commit = Effect.fn("LayerStore.commit")(function*(home: Shape, staging: Staged, facts: LayerFacts) {
  const { db, owner } = home
  const { sql } = db
  const { diffId } = facts
  // The row says which layer it becomes before the folder does: the sweep finds it by that.
  yield* db.run(sql`UPDATE ingests SET digest = ${diffId}
    WHERE path = ${staging.row} AND owner = ${owner.self.token} AND (digest IS NULL OR digest <> ${diffId})`)
  for (;;) {
    const outcome = yield* tryCommit(home, staging, facts)
    if (outcome.is === "committed" && outcome.orphan !== undefined) yield* home.discard(outcome.orphan)
    if (outcome.is !== "leaving") return
    if (yield* owner.bury) continue
    const [removal] = yield* db.rows(IngestRow, sql`SELECT ${sql.literal(ingestColumns)} FROM ingests
      WHERE digest = ${diffId} AND kind = 'removal-layer' ORDER BY owner IS NULL`)
    if (removal === undefined) {
      yield* finishRemoval(home, { kind: "removal-layer", digest: diffId, path: ingestName("removed") })
    } else if (isIdle(home, removal)) yield* settle(home, removal)
    else yield* Effect.sleep(poll)
  }
})

const make = Effect.gen(function*() {
  const home = yield* Home
  const { root, db } = home
  const folder = (diffId: Digest.Digest) => layerPath(root, diffId)
  const find = Effect.fn("LayerStore.find")(function*(diffId: Digest.Digest) {
    const row = yield* layerRow(home, diffId)
    const there = yield* Disk.call("read", folder(diffId), () => isThere(home, row, folder(diffId)))
    if (!there || row === undefined || row.state === "deleting") return Option.none<StoredLayer>()
    const { size, entries, state } = row
    return Option.some<StoredLayer>({ diffId, folder: folder(diffId), size, entries, state })
  })
  const diffIdOf = Effect.fn("LayerStore.diffIdOf")(function*(blob: Digest.Digest) {
    const [row] = yield* db.rows(DiffId, db.sql`SELECT diff_id FROM layer_blobs WHERE blob = ${blob}`)
    return Option.map(Option.fromUndefinedOr(row), ({ diff_id }) => diff_id)
  })
  const blobsOf = Effect.fn("LayerStore.blobsOf")(function*(diffId: Digest.Digest) {
    const rows = yield* db.rows(BlobRow, db.sql`SELECT l.blob, l.media_type, b.size FROM layer_blobs l JOIN blobs b ON b.digest = l.blob AND b.state = 'ready'
      WHERE l.diff_id = ${diffId} ORDER BY b.size, l.blob`)
    return rows.map(({ blob, media_type, size }) => new Descriptor({ mediaType: media_type, digest: blob, size }))
  })
  return {
    scratch: home.readOnly ? tmpdir() : `${root}/ingest`, find, diffIdOf, blobsOf, folder,
    staging: (where: StagingPlace) => makeStaging(home, where),
    commit: (staging: Staged, facts: LayerFacts) => commit(home, staging, facts),
    sync: (place?: string) => syncAll(place ?? `${root}/layers`)
  }
})

/** Unpacked layers by diff ID. */
export class LayerStore extends Context.Service<LayerStore, {
  /** The committed layer, if its folder is there. */
  readonly find: (diffId: Digest.Digest) => Effect.Effect<Option.Option<StoredLayer>, StoreError>
  /** The diff ID of the layer this blob was found to hold, if that is remembered. */
  readonly diffIdOf: (blob: Digest.Digest) => Effect.Effect<Option.Option<Digest.Digest>, StoreError>
  /** The blobs in the store that were found to hold the layer, smallest first. */
  readonly blobsOf: (diffId: Digest.Digest) => Effect.Effect<ReadonlyArray<Descriptor>, StoreError>
  /** A folder for files without a name, which are gone when they are closed. */
  readonly scratch: string
  /** Where the layer's folder is, or will be. */
  readonly folder: (diffId: Digest.Digest) => string
  /**
   * A staging folder, in the store or beside its target. When the scope closes, what was not published or committed is
   * removed in the background; the store's own scope waits for that (300 ms when it is interrupted; the next command that
   * opens the store does the rest).
   */
  readonly staging: (where: StagingPlace) => Effect.Effect<Staging, StoreError, Scope.Scope>
  /**
   * Makes the staging folder (or with another `path`, a folder inside it) the layer's folder, state `unsynced`. Where the
   * layer is there already, nothing happens.
   */
  readonly commit: (staging: Staged, facts: LayerFacts) => Effect.Effect<void, StoreError>
  /**
   * Makes all unpacked files durable (syncfs through `sync -f`, a child process; interruptible), once per pull, before
   * `Graph.register`. `folder` names another file system than the store's.
   */
  readonly sync: (folder?: string) => Effect.Effect<void, StoreError>
}>()("store/LayerStore") {
  static readonly layer: Layer.Layer<LayerStore, never, Home> = Layer.effect(LayerStore, make)
}
