import { Context, Duration, Effect, Layer, Random, Schedule, Schema, type Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, SqlError, Statement } from "effect/sql"
import { randomBytes } from "node:crypto"
import { rmSync } from "node:fs"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"
import { StoreError } from "./Disk.ts"

/** Waits for another process's transaction: 10 ms doubling to 250 ms, times a uniform 0 to 1, 30 s in all. */
export const busy = Schedule.min([Schedule.exponential("10 millis"), Schedule.spaced("250 millis")]).pipe(
  Schedule.modifyDelay(({ duration }) => Effect.map(Random.next, (share) => Duration.times(duration, share))),
  Schedule.upTo({ duration: "30 seconds" })
)

const isSqliteError = (error: unknown): error is Error & { readonly errcode: number } =>
  error instanceof Error && "errcode" in error && typeof error.errcode === "number"

const sqlError = (error: unknown) => {
  const cause = isSqliteError(error) ? Object.assign(new Error(error.message, { cause: error }), { code: error.errcode, errno: error.errcode }) : error
  return new SqlError.SqlError({
    reason: SqlError.classifySqliteError(cause, { message: error instanceof Error ? error.message : String(error), operation: "execute" })
  })
}

const attempt = <A>(run: () => A) => Effect.try({ try: run, catch: sqlError })

type Connection = Effect.Success<SqlClient.SqlClient["reserve"]>
type Rows = ReadonlyArray<Record<string, unknown>>

const isInput = (value: unknown): value is SQLInputValue =>
  value === null || ["string", "number", "bigint"].includes(typeof value) || ArrayBuffer.isView(value)

const inputs = (params: ReadonlyArray<unknown>) => params.map((value) => {
  if (isInput(value)) return value
  throw new TypeError(`SQLite cannot store a ${typeof value}`)
})

/** Runs a statement as `Database.soon` says. */
class Soon extends Context.Service<Soon, (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<void, SqlError.SqlError>>()("store/Soon") {}

/** How to open a database. */
export interface OpenOptions {
  /** Nothing is written, not even a log; the file is a URL that says `immutable`. */
  readonly readOnly?: boolean
  /** A folder on its file system for a file of a moment, where it seems locked: by others, or is nothing ever locked there? */
  readonly scratch?: string
}

/** Whether files of this folder can be locked: one that nobody else knows cannot be locked by others. */
const hasLocks = (folder: string): boolean => {
  const path = `${folder}/lock.${randomBytes(6).toString("hex")}`
  try {
    const db = new DatabaseSync(path)
    try {
      db.exec("BEGIN EXCLUSIVE; ROLLBACK")
    } finally {
      db.close()
    }
    return true
  } catch (error) {
    return !isSqliteError(error) || (error.errcode & 0xff) !== 5
  } finally {
    rmSync(path, { force: true })
  }
}

/**
 * One connection to the SQLite file for all fibers of a store: WAL, synchronous=FULL, foreign keys. SQLite blocks the
 * event loop while it waits for a lock, so it waits 50 ms at most and `busy` does the rest, interruptibly.
 */
const layerSqlite = (file: string, { readOnly = false, scratch }: OpenOptions = {}): Layer.Layer<SqlClient.SqlClient | Soon, SqlError.SqlError | StoreError> => Layer.effectContext(Effect.gen(function*() {
  const db = yield* Effect.acquireRelease(
    attempt(() => new DatabaseSync(file, { timeout: 50, readOnly })),
    (db) => Effect.ignore(attempt(() => db.close()))
  )
  // A lone statement or BEGIN that failed changed nothing yet; inside a transaction only the whole may be run again.
  const whenBusy = <A>(run: Effect.Effect<A, SqlError.SqlError>) =>
    Effect.retry(run, { schedule: busy, while: (error) => error.reason._tag === "LockTimeoutError" && !db.isTransaction })
  const begin = attempt(() => db.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON"))
  // NFS without its lock daemon says ENOLCK, and SQLite takes that for another process's lock.
  if (!readOnly) yield* Effect.catch(begin, (error): Effect.Effect<void, SqlError.SqlError | StoreError> => error.reason._tag === "LockTimeoutError" && scratch !== undefined && !hasLocks(scratch)
    ? Effect.fail(new StoreError({ operation: "lock", path: file, code: "ENOLCK" }))
    : whenBusy(begin))
  const cache = new Map<string, StatementSync>()
  const prepared = (sql: string) => {
    const known = cache.get(sql)
    if (known !== undefined) return known
    if (cache.size > 500) cache.clear()
    const statement = db.prepare(sql)
    cache.set(sql, statement)
    return statement
  }
  const objects = (sql: string, params: ReadonlyArray<unknown>, transform?: (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>)) =>
    whenBusy(attempt((): Rows => {
      const statement = prepared(sql)
      statement.setReturnArrays(false)
      const rows = statement.all(...inputs(params))
      return transform === undefined ? rows : transform(rows)
    }))
  const arrays = (sql: string, params: ReadonlyArray<unknown>) =>
    whenBusy(attempt((): ReadonlyArray<ReadonlyArray<unknown>> => {
      const statement = prepared(sql)
      statement.setReturnArrays(true)
      return statement.all(...inputs(params)).map((row) => Array.isArray(row) ? row : Object.values(row))
    }))
  const connection: Connection = {
    execute: objects,
    executeRaw: objects,
    executeUnprepared: objects,
    executeValues: arrays,
    executeValuesUnprepared: arrays,
    executeStream: () => Stream.die(new Error("rows are not streamed from SQLite"))
  }
  const lock = yield* Semaphore.make(1)
  const acquirer = Effect.as(Semaphore.takeScoped(lock, 1), connection)
  // BEGIN is part of taking the connection, the one step of a transaction that can be interrupted: it is what waits.
  const transactionAcquirer = Effect.gen(function*() {
    yield* Semaphore.takeScoped(lock, 1)
    yield* Effect.addFinalizer(() => Effect.ignore(attempt(() => db.isTransaction && db.exec("ROLLBACK"))))
    yield* whenBusy(attempt(() => db.exec("BEGIN IMMEDIATE")))
    return connection
  })
  const soon = (sql: string, params: ReadonlyArray<unknown>) => lock.withPermits(1)(whenBusy(attempt(() => {
    db.exec("PRAGMA synchronous=NORMAL")
    try {
      prepared(sql).run(...inputs(params))
    } finally {
      db.exec("PRAGMA synchronous=FULL")
    }
  })))
  const client = yield* SqlClient.make({
    driver: "sqlite",
    compiler: Statement.makeCompilerSqlite(),
    spanAttributes: [],
    acquirer,
    transactionAcquirer,
    beginTransaction: "SELECT 1",
    prepareTransactionControls: true,
    isTransaction: () => db.isTransaction
  })
  return Context.make(SqlClient.SqlClient, client).pipe(Context.add(Soon, soon))
})).pipe(Layer.provide(Reactivity.layer))

const codes: Readonly<Record<number, string>> = { 3: "ENOLCK", 8: "EROFS", 10: "EIO", 13: "ENOSPC" }
/** SQLite's extended code for the memory that processes share beside the database, which even a reader needs, and which could not be made larger. */
const noRoom = 4874
/** SQLite's extended codes for locks, and the memory they are shared in, that the file system does not have. */
const lockless = new Set([2058, 2314, 3594, 3850, 4618, 5130, 5386])
const details: Readonly<Record<number, string>> = {
  10: "the disk reported a read or write error, or a quota on it is used up; check it before trying again",
  5: "other processes kept the store busy for 30 seconds; try again",
  11: "the database is damaged; run `graph check`, or move the store away and pull again",
  14: "the database file cannot be opened; check that the folder is yours and writable",
  26: "this is not a towline database; name another folder with --store"
}

const errcodeOf = (error: SqlError.SqlError) => {
  const { cause } = error.reason
  return cause instanceof Error && "errno" in cause && typeof cause.errno === "number" ? cause.errno : undefined
}

/** The SQLite file as the store uses it: errors are `StoreError`, rows are decoded. */
export interface Database {
  readonly sql: SqlClient.SqlClient
  /** Runs `body` in one BEGIN IMMEDIATE transaction. It may wait for other processes, interruptibly. Only SQL and quick file calls belong inside. */
  readonly transaction: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, Exclude<E, SqlError.SqlError> | StoreError, R>
  /** Runs a statement whose rows do not matter. */
  readonly run: (statement: Effect.Effect<unknown, SqlError.SqlError>) => Effect.Effect<void, StoreError>
  /** The same, without waiting for the disk: what it writes outlives the process, and a loss of power only once a later transaction has ended. */
  readonly soon: (statement: Statement.Statement<unknown>) => Effect.Effect<void, StoreError>
  /** Runs a statement and decodes its rows. */
  readonly rows: <S extends Schema.ConstraintDecoder<unknown>>(
    schema: S, statement: Effect.Effect<ReadonlyArray<unknown>, SqlError.SqlError>
  ) => Effect.Effect<ReadonlyArray<S["Type"]>, StoreError>
}

/** Opens the database `file`; it closes with the scope. */
export const open = (file: string, options?: OpenOptions): Effect.Effect<Database, StoreError, Scope.Scope> => Effect.gen(function*() {
  const refuse = (error: unknown) => {
    if (error instanceof StoreError) return error
    const errcode = error instanceof SqlError.SqlError ? errcodeOf(error) : undefined
    const code = errcode === undefined ? undefined : lockless.has(errcode) ? "ENOLCK" : errcode === noRoom ? "ENOSPC" : codes[errcode & 0xff]
    const detail = errcode === undefined || code === "ENOLCK" || code === "ENOSPC" ? undefined : details[errcode & 0xff]
    return new StoreError({
      operation: "use the database", path: file, cause: error, ...(code && { code }), ...(detail && { detail })
    })
  }
  const isSql = (error: unknown): error is SqlError.SqlError => error instanceof SqlError.SqlError
  const stored = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, SqlError.SqlError> | StoreError, R> =>
    Effect.mapError(effect, (error) => isSql(error) ? refuse(error) : error as Exclude<E, SqlError.SqlError>)
  const decoders = new WeakMap<object, unknown>()
  const decoderOf = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
    const make = () => Schema.decodeUnknownEffect(Schema.Array(schema))
    const known = decoders.get(schema) as ReturnType<typeof make> | undefined
    if (known !== undefined) return known
    const decoder = make()
    decoders.set(schema, decoder)
    return decoder
  }
  const context = yield* stored(Layer.build(layerSqlite(file, options)))
  const sql = Context.get(context, SqlClient.SqlClient)
  const soon = Context.get(context, Soon)
  return {
    sql,
    transaction: (body) => stored(sql.withTransaction(body)),
    run: (statement) => Effect.asVoid(stored(statement)),
    soon: (statement) => stored(soon(...statement.compile())),
    rows: (schema, statement) => stored(statement).pipe(
      Effect.flatMap(decoderOf(schema)),
      Effect.mapError((error) => error instanceof StoreError ? error : new StoreError({
        operation: "read the database", path: file, cause: error,
        detail: `a row is not what this version writes (${error.message}); run \`graph check\``
      }))
    )
  }
})
