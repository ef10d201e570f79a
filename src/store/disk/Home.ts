import { Clock, Context, Effect, Exit, FiberSet, Layer, Schedule, Schema, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import { accessSync, chmodSync, closeSync, constants, lstatSync, mkdtempSync, openSync, readdirSync, rm, statfsSync, type Stats, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, isAbsolute, join, resolve } from "node:path"
import * as Digest from "../../image/Digest.ts"
import { call, codeOf, makeFolders, StoreError, storeError, syncNames, unlessAbsent } from "./Disk.ts"
import * as Migrations from "./Migrations.ts"
import * as Owner from "./Owner.ts"
import * as Sqlite from "./Sqlite.ts"

const openUp = (folder: string): void => {
  const { mode } = lstatSync(folder)
  if ((mode & 0o700) !== 0o700) chmodSync(folder, 0o700)
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) openUp(`${folder}/${entry.name}`)
  }
}

const removeTree = (path: string): Effect.Effect<void, StoreError> => {
  const once = Effect.callback<void, StoreError>((resume) => {
    rm(path, { recursive: true, force: true }, (cause) => resume(cause === null ? Exit.void : Exit.fail(storeError(cause, "remove", path))))
  })
  return Effect.catchIf(once, ({ code }) => code === "EACCES" || code === "EPERM",
    () => Effect.andThen(call("remove", path, () => openUp(path)), once))
}

/**
 * How a file or folder tree is removed: never following links, coping with folders that may not be entered, content with
 * nothing being there, and stopping when interrupted. The default does it with node:fs on the thread pool.
 */
export const Remover = Context.Reference<(path: string) => Effect.Effect<void, StoreError>>("store/Remover", {
  defaultValue: () => removeTree
})

/** A row of `ingests`: a path the store answers for, with its kind and (for `removal-*`) what is being removed. */
export const IngestRow = Schema.Struct({
  path: Schema.String,
  kind: Schema.Literals(["blob", "layer", "rootfs", "removal-blob", "removal-layer"]),
  owner: Schema.NullOr(Schema.String),
  digest: Schema.NullOr(Digest.Digest),
  size: Schema.Int,
  doubtful: Schema.Int,
  touched: Schema.Int,
  etag: Schema.NullOr(Schema.String),
  etag_from: Schema.NullOr(Schema.String)
})

/** A path the store answers for. */
export type IngestRow = typeof IngestRow.Type

/** An opened store, for the services on it: its absolute root, database, this opening's owner. */
export class Home extends Context.Service<Home, {
  readonly root: string
  /** It is on a file system that is mounted read-only: nothing can be recorded. */
  readonly readOnly: boolean
  readonly db: Sqlite.Database
  readonly owner: Owner.Owner
  readonly remove: (path: string) => Effect.Effect<void, StoreError>
  /** Removes the path of one of this owner's ingest rows, then the row, in the background; closing the store waits. */
  readonly discard: (path: string) => Effect.Effect<void>
  /** How many removals of blobs and layers are under way here: while there are none, what this owner began to remove is for whoever wants it gone. */
  readonly removals: { underway: number }
  /** Lets everybody end the removals whose rows these are, in the background, as soon as the database can be told. */
  readonly giveUp: (paths: ReadonlyArray<string>) => Effect.Effect<void>
}>()("store/Home") {}

type Shape = Home["Service"]

/** The path of an ingest row: relative ones are in the store, which may have moved. */
export const absolute = (root: string, path: string) => isAbsolute(path) ? path : `${root}/${path}`

/** Where a committed blob's file is. */
export const blobPath = (root: string, digest: Digest.Digest) => {
  const { algorithm, hex } = Digest.parts(digest)
  return `${root}/blobs/${algorithm}/${hex}`
}

/** Where a committed layer's folder is. */
export const layerPath = (root: string, diffId: Digest.Digest) => {
  const { algorithm, hex } = Digest.parts(diffId)
  return `${root}/layers/${algorithm}/${hex}`
}

/** A name in ingest/ that nothing had before. */
export const ingestName = (label: string) => `ingest/${label}.${randomBytes(6).toString("hex")}`

/** What is at `path`, links not followed; undefined if nothing is. Throws the disk's other errors. */
export const look = (path: string): Stats | undefined => unlessAbsent(() => lstatSync(path))

const subfolders = ["blobs", "blobs/sha256", "blobs/sha512", "layers", "layers/sha256", "layers/sha512", "ingest"]

const notLooser = (path: string, wanted: number, command: string) => {
  const mode = statSync(path).mode & 0o777
  if ((mode & ~wanted) === 0) return
  throw new StoreError({
    operation: "open", path,
    detail: `others may look into it (its mode is 0${mode.toString(8)}), and unpacked images hold setuid files and devices; run: chmod ${command} '${path.replaceAll("'", "'\\''")}'`
  })
}

/** Gives the folders that have new names in them. */
const makeFolder = (path: string): ReadonlyArray<string> => {
  const there = look(path) !== undefined
  const above = makeFolders(path, 0o700)
  if (!there && (statSync(path).mode & 0o777) !== 0o700) chmodSync(path, 0o700) // the umask can only have cut bits
  return above
}

const makeFile = (path: string) => {
  try {
    closeSync(openSync(path, "ax", 0o600))
    if ((statSync(path).mode & 0o777) !== 0o600) chmodSync(path, 0o600)
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw storeError(error, "make", path)
  }
}

/** Whether a path is on a file system that is mounted read-only. Throws the disk's other errors. */
export const isReadOnly = (path: string): boolean => {
  try {
    accessSync(path, constants.W_OK)
    return false
  } catch (error) {
    if (codeOf(error) === "EROFS") return true
    throw error
  }
}

/** Makes what is not there, and refuses what others may look into. Gives the folders above the store that have new names in them. */
const prepare = (root: string): ReadonlyArray<string> => {
  const known = look(root)
  const above = makeFolder(root)
  if (known !== undefined) notLooser(root, 0o700, "700")
  if (isReadOnly(root)) throw new StoreError({ operation: "change the store in", path: root, code: "EROFS" })
  for (const name of subfolders) {
    makeFolder(`${root}/${name}`)
    notLooser(`${root}/${name}`, 0o700, "700")
  }
  return above
}

const prepareFile = (file: string) => {
  makeFile(file)
  notLooser(file, 0o600, "600")
}

/** Bytes a file system in memory must have free to be used as one. */
const roomy = 1024 ** 3

/** A folder in memory, if there is a place for one, else on disk; it goes with the scope. */
const passing = Effect.gen(function*() {
  const remove = yield* Remover
  return yield* Effect.acquireRelease(
    call("make a folder in", tmpdir(), () => {
      const free = unlessAbsent(() => statfsSync("/dev/shm"))
      const usable = free !== undefined && free.bavail * free.bsize >= roomy
      return mkdtempSync(join(usable ? "/dev/shm" : tmpdir(), "towline-memory-"))
    }),
    (path) => Effect.ignore(remove(path)))
})

const patience = "300 millis"

const make = Effect.fn("Store.open")(function*(path: string, kept = true): Effect.fn.Return<Shape, StoreError, Scope.Scope> {
  const root = resolve(path)
  const remove = yield* Remover
  const file = `${root}/graph.db`
  const above = yield* call("open", root, () => prepare(root))
  if (kept) yield* call("open", file, () => prepareFile(file))
  const db = yield* Sqlite.open(kept ? file : ":memory:", kept ? { scratch: `${root}/ingest` } : {})
  // A new store's folders; also those that a process made which was killed before it got here.
  const named = Effect.forEach(new Set([...above, dirname(root), root, `${root}/blobs`, `${root}/layers`]), syncNames, { discard: true })
  yield* Migrations.migrate(db, file, kept ? named : Effect.void)
  const owner = yield* Owner.make(db)
  const discards = yield* FiberSet.make<void>()
  // Runs before the set's own finalizer, which interrupts what is left.
  yield* Effect.addFinalizer((exit) => {
    const done = Effect.interruptible(FiberSet.awaitEmpty(discards))
    return Exit.hasInterrupts(exit) ? Effect.ignore(Effect.timeout(done, patience)) : done
  })
  const discard = Effect.fnUntraced(function*(path: string) {
    const whole = absolute(root, path)
    const gone = Effect.gen(function*() {
      if (yield* call("remove", whole, () => look(whole) !== undefined)) yield* remove(whole)
      yield* db.run(db.sql`DELETE FROM ingests WHERE path = ${path} AND owner = ${owner.self.token}`)
    })
    // What fails stays under its row: void when this store closes, and tried again by the next.
    yield* FiberSet.run(discards, Effect.interruptible(Effect.ignore(gone)))
  })
  const scope = yield* Effect.scope
  const giveUp = (paths: ReadonlyArray<string>) => paths.length === 0 ? Effect.void : Effect.asVoid(Effect.forkIn(
    Effect.retry(db.run(db.sql`UPDATE ingests SET owner = NULL WHERE owner = ${owner.self.token} AND ${db.sql.in("path", paths)}`), Schedule.spaced("1 second")).pipe(
      Effect.ignore, Effect.interruptible), scope))
  return { root, readOnly: false, db, owner, remove, discard, removals: { underway: 0 }, giveUp }
})

/** Opens the store at `path`, making it if it is not there, but sweeps nothing. */
export const layer = (path: string): Layer.Layer<Home, StoreError> => Layer.effect(Home, make(path))

/** A new store that is gone when its scope closes: its database in memory, its files in a folder there where there is one (/dev/shm), else in the temporary folder. */
export const layerMemory: Layer.Layer<Home, StoreError> = Layer.effect(Home, Effect.flatMap(passing, (path) => make(path, false)))

/** Writes the row of a path that this owner is about to make; to be run in a transaction. */
export const record = Effect.fnUntraced(function*(
  { db, owner }: Shape, row: Pick<IngestRow, "path" | "kind" | "digest"> & { readonly size?: number }
) {
  yield* owner.enter
  const touched = yield* Clock.currentTimeMillis
  const { path, kind, digest, size = 0 } = row
  yield* db.run(db.sql`INSERT INTO ingests ${db.sql.insert({ path, kind, digest, size, owner: owner.self.token, touched })}`)
})

/** Columns of `ingests`, as `IngestRow` reads them. */
export const ingestColumns = "path, kind, owner, digest, size, doubtful, touched, etag, etag_from"
