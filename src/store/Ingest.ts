import { Clock, Effect, Schema, type Scope } from "effect"
import { createHash, type Hash } from "node:crypto"
import { constants, fdatasync, fstatSync, ftruncateSync, renameSync, unlinkSync, writeSync } from "node:fs"
import { type Descriptor, VerifyError } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import * as Disk from "./disk/Disk.ts"
import { StoreError } from "./disk/Disk.ts"
import { absolute, blobPath, type Home, ingestColumns, ingestName, IngestRow, look, record } from "./disk/Home.ts"
import { finishRemoval, isIdle, settle } from "./upkeep/Sweep.ts"

type Shape = Home["Service"]

/** Bytes after which what was written is sent on to the disk, so that the last fsync has little left to wait for. */
const writeback = 32 * 1024 * 1024

const stale = (path: string) => new StoreError({ operation: "commit", path, code: "ESTALE" })

/** What a server called a blob's bytes (a strong ETag), and where it was asked (a URL): while both are the same, they can be continued. */
export interface Validator {
  readonly etag: string
  readonly from: string
}

/** A blob on its way in: a partial file and its running hash. It can be resumed, and nobody sees it before `commit`. */
export class Ingest {
  /** What is expected. */
  readonly blob: Descriptor
  /** Whether the blob was committed already: then `offset` is its size, `fd` reads it, and `commit` has nothing to do. */
  readonly present: boolean
  /** The file's descriptor, open until the scope closes, also after `commit`. A worker may read it at explicit positions. */
  readonly fd: number
  /** Where the file is until it is committed. */
  readonly path: string
  /** Bytes taken so far: where the next chunk belongs. */
  offset: number
  /** What the bytes are called that came, or that an earlier owner left; undefined: nobody said. */
  validator: Validator | undefined
  private hash: Hash
  private sent = 0
  private sending = false
  private fault: StoreError | undefined

  /** For `BlobStore`, which gives them out. */
  constructor(blob: Descriptor, fd: number, path: string, present: boolean) {
    this.blob = blob
    this.fd = fd
    this.path = path
    this.present = present
    this.offset = present ? blob.size : 0
    this.hash = createHash(Digest.parts(blob.digest).algorithm)
  }

  /** Takes the next bytes; run it in `Disk.attempt`. Throws `VerifyError` at the first byte too many, `StoreError` of the disk. */
  append(chunk: Uint8Array): void {
    if (this.present) throw new Error(`${this.blob.digest} is already in the store`)
    if (this.offset + chunk.byteLength > this.blob.size) {
      this.offset += chunk.byteLength
      throw this.refuse()
    }
    try {
      for (let at = 0; at < chunk.byteLength;) at += writeSync(this.fd, chunk, at, chunk.byteLength - at, this.offset + at)
    } catch (error) {
      throw Disk.storeError(error, "write", this.path)
    }
    this.count(chunk)
    if (this.offset - this.sent >= writeback && !this.sending) this.send()
  }

  /** Counts bytes that are in the file already. */
  count(chunk: Uint8Array): void {
    this.hash.update(chunk)
    this.offset += chunk.byteLength
  }

  /** Back to the first byte: what came cannot be continued. Run it in `Disk.attempt`. */
  restart(): void {
    if (this.present) return
    try {
      ftruncateSync(this.fd)
    } catch (error) {
      throw Disk.storeError(error, "empty", this.path)
    }
    this.offset = 0
    this.sent = 0
    this.hash = createHash(Digest.parts(this.blob.digest).algorithm)
  }

  /** Checks size and digest; on a difference restarts and throws `VerifyError`. */
  verify(): void {
    if (this.offset !== this.blob.size) throw this.refuse()
    const actual = `${this.blob.digest.slice(0, 7)}${this.hash.copy().digest("hex")}`
    if (actual !== this.blob.digest) throw this.refuse(actual)
    if (this.fault !== undefined) throw this.fault
    try {
      if (fstatSync(this.fd).size !== this.offset) ftruncateSync(this.fd, this.offset) // a longer partial of an earlier try
    } catch (error) {
      throw Disk.storeError(error, "write", this.path)
    }
  }

  /**
   * Makes the blob visible and durable if size and digest are right; else restarts and fails with `VerifyError`. It can be
   * interrupted while the bytes go to the disk. Set by `BlobStore`.
   */
  commit: Effect.Effect<void, StoreError | VerifyError> = Effect.void

  /** Commits the file at a path of this file system instead of this one: it must have the blob's bytes, durably. Set by `BlobStore`. */
  replaceBy: (file: string) => Effect.Effect<void, StoreError | VerifyError> = () => Effect.void

  /** Keeps what the bytes are called, for whoever takes them over: also if this process is killed. Set by `BlobStore`. */
  called: (validator: Validator | undefined) => Effect.Effect<void, StoreError> = () => Effect.void

  private refuse(actual?: string) {
    const size = this.offset
    this.restart()
    return new VerifyError({ expected: this.blob, size, ...(actual !== undefined && { actual }) })
  }

  private send() {
    this.sent = this.offset
    this.sending = true
    fdatasync(this.fd, (error) => {
      this.sending = false
      // Told once per descriptor: the last fsync would not hear of it. EBADF: the ingest was closed meanwhile.
      if (error !== null && error.code !== "EBADF") this.fault = Disk.storeError(error, "write", this.path)
    })
  }
}

const Row = Schema.Struct({ size: Schema.Int, state: Schema.Literals(["ready", "deleting"]) })
const Gone = Schema.Struct({ path: Schema.String })

type Claim =
  | { readonly is: "present"; readonly size: number }
  | { readonly is: "mine"; readonly path: string; readonly from: string | undefined; readonly validator?: Validator | undefined }
  | { readonly is: "void"; readonly row: IngestRow }
  | { readonly is: "busy"; readonly path: string }
  | { readonly is: "leaving"; readonly row: IngestRow | undefined }

/** One look, in one transaction, at who has the blob; makes it this owner's if it is free. `held`: this opening's ingests. */
const claim = Effect.fnUntraced(function*(home: Shape, held: ReadonlySet<string>, blob: Descriptor): Effect.fn.Return<Claim, StoreError> {
  const { root, db, owner } = home
  const { sql } = db
  const { digest, size } = blob
  const rowOf = (kind: string) =>
    Effect.map(db.rows(IngestRow, sql`SELECT ${sql.literal(ingestColumns)} FROM ingests WHERE digest = ${digest} AND kind = ${kind}`), (rows) => rows[0])
  const file = blobPath(root, digest)
  const [known] = yield* db.rows(Row, sql`SELECT size, state FROM blobs WHERE digest = ${digest}`)
  if (known?.state === "deleting") return { is: "leaving", row: yield* rowOf("removal-blob") }
  if (known !== undefined && (yield* Disk.call("read", file, () => look(file)))?.size === known.size) return { is: "present", size: known.size }
  const row = yield* rowOf("blob")
  if (row === undefined) {
    const path = ingestName(Digest.parts(digest).hex.slice(0, 12))
    yield* record(home, { path, kind: "blob", digest, size })
    return { is: "mine", path, from: undefined }
  }
  const path = absolute(root, row.path)
  if (row.owner !== null && (row.owner !== owner.self.token || held.has(row.path))) return { is: "busy", path }
  if ((yield* Disk.call("read", path, () => look(path))) === undefined) {
    if (row.owner !== null) yield* db.run(sql`UPDATE ingests SET owner = NULL WHERE path = ${row.path}`)
    return { is: "void", row: { ...row, owner: null } }
  }
  // The last owner may still write to the file: its bytes go to another one.
  const next = row.doubtful === 0 ? row.path : ingestName(Digest.parts(digest).hex.slice(0, 12))
  yield* owner.enter
  yield* db.run(sql`UPDATE ingests SET path = ${next}, owner = ${owner.self.token}, doubtful = 0, size = ${size} WHERE path = ${row.path}`)
  const validator = row.etag === null || row.etag_from === null ? undefined : { etag: row.etag, from: row.etag_from }
  return { is: "mine", path: next, from: next === row.path ? undefined : path, validator }
})

const release = (home: Shape, path: string, keep: boolean) => {
  const { root, db, owner } = home
  const { sql } = db
  const mine = sql`path = ${path} AND owner = ${owner.self.token}`
  return db.transaction(Effect.gen(function*() {
    const touched = yield* Clock.currentTimeMillis
    if (keep) return yield* db.run(sql`UPDATE ingests SET owner = NULL, touched = ${touched} WHERE ${mine}`)
    const gone = yield* db.rows(Gone, sql`DELETE FROM ingests WHERE ${mine} RETURNING path`)
    if (gone.length > 0) yield* Disk.call("remove", path, () => Disk.unlessAbsent(() => unlinkSync(absolute(root, path))))
  }))
}

const copyPrefix = Effect.fnUntraced(function*(from: string, ingest: Ingest) {
  yield* Effect.scoped(Effect.gen(function*() {
    const fd = yield* Disk.open(from, constants.O_RDONLY)
    yield* Disk.forEachPiece(fd, ingest.blob.size, from, (piece) => ingest.append(piece))
  }))
  yield* Disk.call("remove", from, () => Disk.unlessAbsent(() => unlinkSync(from)))
})

const commit = Effect.fn("Ingest.commit")(function*(home: Shape, ingest: Ingest, path: string) {
  yield* Disk.attempt(() => ingest.verify())
  yield* Disk.sync(ingest.fd, ingest.path)
  yield* publish(home, ingest, path)
})

/** Makes a verified and synced file the blob, under its name and in the database. */
const publish = Effect.fnUntraced(function*(home: Shape, ingest: Pick<Ingest, "blob" | "path">, path: string) {
  const { root, db, owner } = home
  const { sql } = db
  const { digest, size } = ingest.blob
  const file = blobPath(root, digest)
  // From the rename to the row nothing is between: an interrupt would leave a file that only the next sweep knows.
  yield* Effect.uninterruptible(Effect.gen(function*() {
    yield* Effect.mapError(
      Disk.call("commit", ingest.path, () => renameSync(ingest.path, file)),
      (error) => error.code === "ENOENT" ? stale(ingest.path) : error
    )
    yield* Disk.syncFolder(file.slice(0, file.lastIndexOf("/")))
    const since = yield* Clock.currentTimeMillis
    yield* db.transaction(Effect.gen(function*() {
      const gone = yield* db.rows(Gone, sql`DELETE FROM ingests WHERE path = ${path} AND owner = ${owner.self.token} RETURNING path`)
      if (gone.length === 0) return yield* stale(ingest.path)
      yield* db.run(sql`INSERT INTO blobs ${sql.insert({ digest, size, state: "ready", since })}
        ON CONFLICT (digest) DO UPDATE SET size = excluded.size, state = 'ready', since = excluded.since`)
    }))
  }))
})

const poll = "100 millis"

/** How to wait for a blob that someone else is fetching: `waiting` is told, every 100 ms, how many bytes they have. */
export interface IngestOptions {
  readonly waiting?: (received: number) => Effect.Effect<void>
}

/** Opens the one ingest of `blob`, waiting for others: see `BlobStore.ingest`. `held` are the paths this opening has. */
export const open = Effect.fn("Ingest.open")(function*(
  home: Shape, held: Set<string>, blob: Descriptor, options?: IngestOptions
): Effect.fn.Return<Ingest, StoreError | VerifyError, Scope.Scope> {
  const { root, db, owner } = home
  for (;;) {
    const now = yield* db.transaction(claim(home, held, blob))
    if (now.is === "present") {
      if (now.size !== blob.size) return yield* new VerifyError({ expected: blob, size: now.size })
      const file = blobPath(root, blob.digest)
      return new Ingest(blob, yield* Disk.open(file, constants.O_RDONLY), file, true)
    }
    if (now.is === "mine") return yield* begin(home, held, blob, now)
    if (now.is === "void") {
      yield* settle(home, now.row)
      continue
    }
    if (yield* owner.bury) continue
    if (now.is === "leaving" && (now.row === undefined || isIdle(home, now.row))) {
      yield* now.row === undefined
        ? finishRemoval(home, { kind: "removal-blob", digest: blob.digest, path: "" })
        : settle(home, now.row)
      continue
    }
    if (now.is === "busy" && options?.waiting !== undefined) {
      yield* options.waiting((yield* Disk.call("read", now.path, () => look(now.path)))?.size ?? 0)
    }
    yield* Effect.sleep(poll)
  }
})

const begin = Effect.fnUntraced(function*(home: Shape, held: Set<string>, blob: Descriptor, { from, path, validator }: Extract<Claim, { readonly is: "mine" }>) {
  let keep = true
  let done = false
  let replaced = false
  held.add(path)
  yield* Effect.addFinalizer(() => {
    held.delete(path)
    // If it cannot be released now, it is void when this store closes.
    return done ? Effect.void : release(home, path, keep).pipe(Effect.interruptible, Effect.timeout("500 millis"), Effect.ignore)
  })
  const whole = absolute(home.root, path)
  const fd = yield* Disk.open(whole, constants.O_RDWR | constants.O_CREAT)
  const ingest = new Ingest(blob, fd, whole, false)
  ingest.validator = validator
  ingest.called = (validator) => Effect.suspend(() => {
    const before = ingest.validator
    if (before?.etag === validator?.etag && before?.from === validator?.from) return Effect.void
    ingest.validator = validator
    const { sql } = home.db
    return home.db.soon(sql`UPDATE ingests SET etag = ${validator?.etag ?? null}, etag_from = ${validator?.from ?? null} WHERE path = ${path} AND owner = ${home.owner.self.token}`)
  })
  let unread = (yield* Disk.call("read", whole, () => fstatSync(fd))).size
  yield* Effect.addFinalizer(() => Effect.sync(() => {
    keep = ingest.offset > 0 || unread > 0 || replaced
  }))
  if (from === undefined) yield* Disk.forEachPiece(fd, blob.size, whole, (piece) => ingest.count(piece))
  else yield* copyPrefix(from, ingest)
  unread = 0
  const once = (committing: Effect.Effect<void, StoreError | VerifyError>) =>
    Effect.suspend(() => done ? Effect.void : committing).pipe(Effect.tap(() => Effect.sync(() => {
      done = true
    })))
  ingest.commit = once(commit(home, ingest, path))
  ingest.replaceBy = (file) => once(Effect.andThen(
    Disk.call("rename into place", file, () => {
      renameSync(file, whole)
      replaced = true // by now its row alone tells of the file, whatever its name is when something fails
    }), publish(home, ingest, path)))
  return ingest
})
