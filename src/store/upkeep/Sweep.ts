import { Clock, Duration, Effect, Exit, Schema } from "effect"
import { readdirSync, renameSync, unlinkSync } from "node:fs"
import { Digest } from "../../image/Digest.ts"
import { call, type StoreError, syncFolder, unlessAbsent } from "../disk/Disk.ts"
import { absolute, blobPath, Home, ingestColumns, ingestName, IngestRow, layerPath, look, record } from "../disk/Home.ts"

type Shape = Home["Service"]

/** How long a partial blob is kept for a pull that continues it. */
export const partialsKept = Duration.days(7)

const Count = Schema.Struct({ count: Schema.Int })
const State = Schema.Struct({ state: Schema.String })
const DiffId = Schema.Struct({ diff_id: Digest })
const Path = Schema.Struct({ path: Schema.String })

/** Makes a void row this owner's, in a transaction; false if it is no longer void, and another's. */
const take = Effect.fnUntraced(function*({ db, owner }: Shape, path: string) {
  yield* owner.enter
  yield* db.run(db.sql`UPDATE ingests SET owner = ${owner.self.token} WHERE path = ${path} AND owner IS NULL`)
  const [row] = yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM ingests WHERE path = ${path} AND owner = ${owner.self.token}`)
  return row?.count === 1
})

const forget = ({ db, owner }: Shape, path: string) =>
  db.run(db.sql`DELETE FROM ingests WHERE path = ${path} AND owner = ${owner.self.token}`)

const removeTaken = Effect.fnUntraced(function*(home: Shape, path: string) {
  yield* home.remove(absolute(home.root, path))
  yield* forget(home, path)
})

/** Removes a partial blob nobody owns; false if somebody has it by now. */
export const dropPartial = Effect.fnUntraced(function*(home: Shape, path: string) {
  if (!(yield* home.db.transaction(take(home, path)))) return false
  yield* removeTaken(home, path)
  return true
})

/** What `finishRemoval` ends. */
export type Removal = Pick<IngestRow, "kind" | "digest" | "path">

/** Ends the removal of a blob or layer that is marked `deleting`; a layer's files are still in the row's path then. */
export const finishRemoval = Effect.fnUntraced(function*({ root, db }: Shape, { kind, digest, path }: Removal) {
  if (digest === null) return
  const { sql } = db
  yield* db.transaction(Effect.gen(function*() {
    if (kind === "removal-blob") {
      const [row] = yield* db.rows(State, sql`SELECT state FROM blobs WHERE digest = ${digest}`)
      if (row?.state !== "deleting") return
      const file = blobPath(root, digest)
      yield* call("remove", file, () => unlessAbsent(() => unlinkSync(file)))
      yield* db.run(sql`DELETE FROM blobs WHERE digest = ${digest}`)
    } else {
      const [row] = yield* db.rows(State, sql`SELECT state FROM layers WHERE diff_id = ${digest}`)
      if (row?.state !== "deleting") return
      const folder = layerPath(root, digest)
      yield* call("remove", folder, () => unlessAbsent(() => renameSync(folder, absolute(root, path))))
      yield* db.run(sql`DELETE FROM layers WHERE diff_id = ${digest}`)
    }
  }))
})

/** Runs what begins and ends removals: see `Home.removals`. */
export const removing = <A, E, R>({ removals }: Shape, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(Effect.sync(() => { removals.underway++ }), () => work, () => Effect.sync(() => { removals.underway-- }))

/** Ends removals that have begun; those of a failure or an interrupt are given up, so that nobody waits for them. */
export const ending = <A, E, R>(home: Shape, removals: ReadonlyArray<Pick<Removal, "path">>, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onExit(work, (exit) => Exit.isSuccess(exit) ? Effect.void : home.giveUp(removals.map(({ path }) => path)))

/** Whether nobody is at a removal that a row stands for: it has no owner, or this one, which does nothing. */
export const isIdle = ({ owner, removals }: Shape, row: IngestRow): boolean =>
  row.owner === null || (row.owner === owner.self.token && removals.underway === 0)

/** A blob whose owner died after the rename and before the row: its bytes were verified and synced before the rename. */
const adopt = Effect.fnUntraced(function*(home: Shape, row: IngestRow, digest: Digest) {
  const { root, db } = home
  const file = blobPath(root, digest)
  yield* syncFolder(file.slice(0, file.lastIndexOf("/")))
  const since = yield* Clock.currentTimeMillis
  yield* db.transaction(Effect.gen(function*() {
    if (!(yield* take(home, row.path))) return
    const stat = yield* call("read", file, () => look(file))
    if (stat?.isFile() && stat.size === row.size) {
      yield* db.run(db.sql`INSERT INTO blobs ${db.sql.insert({ digest, size: row.size, state: "ready", since })} ON CONFLICT (digest) DO NOTHING`)
    }
    yield* forget(home, row.path)
  }))
})

const settleBlob = Effect.fnUntraced(function*(home: Shape, row: IngestRow) {
  const path = absolute(home.root, row.path)
  const stat = yield* call("read", path, () => look(path))
  if (stat === undefined && row.digest !== null) return yield* adopt(home, row, row.digest)
  const now = yield* Clock.currentTimeMillis
  // Bytes whose digest nobody knew are continued by nobody.
  if (row.digest !== null && stat !== undefined && stat.size > 0 && now - row.touched < Duration.toMillis(partialsKept)) return
  if (yield* home.db.transaction(take(home, row.path))) yield* removeTaken(home, row.path)
})

/** A layer whose owner died after the rename and before the row has no facts beside it: back, so that it goes with the rest. */
const unrename = Effect.fnUntraced(function*({ root, db }: Shape, row: IngestRow) {
  const { digest } = row
  if (digest === null) return
  // A living owner renames inside the transaction that writes the row: without one, nobody is at it.
  const [known] = yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM layers WHERE diff_id = ${digest}`)
  if (known?.count !== 0) return
  const [folder, staging] = [layerPath(root, digest), absolute(root, row.path)]
  // What was committed may have been a folder inside the staging folder.
  yield* call("remove", folder, () => unlessAbsent(() => renameSync(folder, look(staging) === undefined ? staging : `${staging}/unfinished`)))
})

/** Deals with a path nobody owns or is at: finishes, adopts, keeps (a partial blob worth continuing) or removes it. */
export const settle = Effect.fnUntraced(function*(home: Shape, row: IngestRow) {
  if (row.kind === "blob") return yield* settleBlob(home, row)
  yield* removing(home, ending(home, [row], settleTree(home, row)))
})

const settleTree = Effect.fnUntraced(function*(home: Shape, row: IngestRow) {
  const taken = yield* home.db.transaction(Effect.gen(function*() {
    if (!(yield* take(home, row.path))) return false
    if (row.kind === "layer") yield* unrename(home, row)
    return true
  }))
  if (!taken) return
  if (row.kind === "removal-blob" || row.kind === "removal-layer") yield* finishRemoval(home, row)
  yield* removeTaken(home, row.path)
})

/** Rows of paths nobody owns. */
export const voids = ({ db }: Shape) =>
  db.rows(IngestRow, db.sql`SELECT ${db.sql.literal(ingestColumns)} FROM ingests WHERE owner IS NULL`)

/** Marks a blob or layer `deleting`, in a transaction, and gives the removal to be finished and discarded. */
export const mark = Effect.fnUntraced(function*(home: Shape, kind: "removal-blob" | "removal-layer", digest: Digest) {
  const { sql } = home.db
  const removal: Removal = { path: ingestName("removed"), kind, digest }
  yield* record(home, removal)
  yield* home.db.run(kind === "removal-blob"
    ? sql`UPDATE blobs SET state = 'deleting' WHERE digest = ${digest}`
    : sql`UPDATE layers SET state = 'deleting' WHERE diff_id = ${digest}`)
  return removal
})

// Files that a power loss may have emptied. What a live pull leases is its own business: it is from this boot, or was durable.
const staleLayers = ({ db, owner }: Shape) => db.rows(DiffId, db.sql`SELECT diff_id FROM layers
  WHERE state = 'unsynced' AND boot <> ${owner.self.boot} AND NOT EXISTS (SELECT 1 FROM leases WHERE digest = diff_id)`)

const discardStale = Effect.fnUntraced(function*(home: Shape) {
  if ((yield* staleLayers(home)).length === 0) return
  const removals = yield* home.db.transaction(Effect.flatMap(staleLayers(home), Effect.forEach((row) => mark(home, "removal-layer", row.diff_id))))
  yield* ending(home, removals, Effect.forEach(removals, (removal) => Effect.andThen(finishRemoval(home, removal), removeTaken(home, removal.path)), { discard: true }))
})

/** Entries of ingest/ without a row. Rows are written first and go last, so what has none now is litter. */
const strays = Effect.fnUntraced(function*({ root, db }: Shape) {
  const names = yield* call("list", `${root}/ingest`, () => readdirSync(`${root}/ingest`))
  if (names.length === 0) return []
  const known = new Set((yield* db.rows(Path, db.sql`SELECT path FROM ingests`)).map(({ path }) => path))
  return names.map((name) => `ingest/${name}`).filter((path) => !known.has(path))
})

/**
 * Cleans what dead owners left, before a command of any kind does its work: a few indexed queries and one folder listing
 * when there is nothing to do. What cannot be removed stays under its row, for the next time.
 */
export const sweep: Effect.Effect<void, StoreError, Home> = Effect.gen(function*() {
  const home = yield* Home
  yield* home.owner.bury
  for (const row of yield* voids(home)) {
    yield* Effect.catchTag(settle(home, row), "StoreError", (error) => Effect.logWarning(error.message))
  }
  yield* discardStale(home)
  for (const path of yield* strays(home)) {
    yield* Effect.catchTag(home.remove(absolute(home.root, path)), "StoreError", (error) => Effect.logWarning(error.message))
  }
}).pipe(Effect.withSpan("Store.sweep"))
