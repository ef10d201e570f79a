import { Context, Effect, Layer, Option, Schema, type Scope } from "effect"
import { createHash } from "node:crypto"
import { constants, fstatSync } from "node:fs"
import { type Descriptor, type VerifyError } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import * as Disk from "./disk/Disk.ts"
import { StoreError } from "./disk/Disk.ts"
import { absolute, blobPath, Home, look } from "./disk/Home.ts"
import * as Ingest from "./Ingest.ts"
import { Hasher } from "./upkeep/Check.ts"
import { quarantine } from "./upkeep/Quarantine.ts"
import * as Receipt from "./Receipt.ts"

/** The store has no such blob (or lost its file). */
export class NotInStore extends Schema.TaggedError<NotInStore>()("NotInStore", { digest: Digest.Digest }) {
  override get message() {
    return `the store has no blob ${this.digest}: pull its image again`
  }
}

/** A blob of the store is not what it was: nothing is made of it. */
export class BlobDamaged extends Schema.TaggedError<BlobDamaged>()("BlobDamaged", { digest: Digest.Digest }) {
  override get message() {
    return `the blob ${this.digest} is damaged in the store, and nothing was written of it: run \`graph check --repair\`, which fetches it again`
  }
}

/** A committed blob. */
export interface Blob {
  readonly digest: Digest.Digest
  readonly size: number
}

/** An open committed blob: a descriptor for reading (closed with its scope), its size in bytes and its path. */
export interface BlobFile {
  readonly fd: number
  readonly size: number
  readonly path: string
}

const Size = Schema.Struct({ size: Schema.Int })
const Place = Schema.Struct({ path: Schema.String })

const make = Effect.gen(function*() {
  const home = yield* Home
  const { root, db } = home
  const { sql } = db
  const { hash } = yield* Hasher
  const held = new Set<string>()

  const find = Effect.fn("BlobStore.find")(function*(digest: Digest.Digest) {
    const [row] = yield* db.rows(Size, sql`SELECT size FROM blobs WHERE digest = ${digest} AND state = 'ready'`)
    if (row === undefined) return Option.none<Blob>()
    const path = blobPath(root, digest)
    const stat = yield* Disk.call("read", path, () => look(path))
    return stat?.isFile() && stat.size === row.size ? Option.some({ digest, size: row.size }) : Option.none<Blob>()
  })

  const partial = Effect.fn("BlobStore.partial")(function*(digest: Digest.Digest) {
    const [row] = yield* db.rows(Place, sql`SELECT path FROM ingests WHERE digest = ${digest} AND kind = 'blob'`)
    if (row === undefined) return 0
    const path = absolute(root, row.path)
    return (yield* Disk.call("read", path, () => look(path)))?.size ?? 0
  })

  const ingest = (blob: Descriptor, options?: Ingest.IngestOptions) => Ingest.open(home, held, blob, options)

  const open = Effect.fn("BlobStore.open")(function*(digest: Digest.Digest) {
    const blob = yield* find(digest)
    if (Option.isNone(blob)) return yield* new NotInStore({ digest })
    const path = blobPath(root, digest)
    const fd = yield* Disk.open(path, constants.O_RDONLY)
    const { size } = yield* Disk.call("read", path, () => fstatSync(fd))
    return { fd, size, path }
  })

  const read = Effect.fn("BlobStore.read")(function*(digest: Digest.Digest, cap: number) {
    const { fd, size, path } = yield* open(digest)
    if (size > cap) {
      return yield* new StoreError({ operation: "read", path, detail: `it has ${size} bytes, and at most ${cap} are read at once` })
    }
    const bytes = new Uint8Array(size)
    const { algorithm, hex } = Digest.parts(digest)
    const hash = createHash(algorithm)
    let taken = 0
    yield* Disk.forEachPiece(fd, size, path, (piece, at) => {
      bytes.set(piece, at)
      taken = at + piece.byteLength
      hash.update(piece)
    })
    if (taken === size && hash.digest("hex") === hex) return bytes
    yield* quarantine(home, "blob", digest)
    return yield* new NotInStore({ digest })
  }, Effect.scoped)

  const verify = Effect.fn("BlobStore.verify")(function*(digest: Digest.Digest) {
    const blob = yield* find(digest)
    if (Option.isNone(blob)) return false
    const { fd, size, path } = yield* open(digest)
    const { algorithm, hex } = Digest.parts(digest)
    if ((yield* hash(fd, size, algorithm, path)) === hex) return true
    yield* quarantine(home, "blob", digest)
    return false
  }, Effect.scoped, Effect.catchTag("NotInStore", () => Effect.succeed(false)))

  const put = Effect.fn("BlobStore.put")(function*(blob: Descriptor, bytes: Uint8Array) {
    const coming = yield* ingest(blob)
    if (coming.present) return
    yield* Disk.attempt(() => {
      if (coming.offset > 0) coming.restart()
      coming.append(bytes)
    })
    yield* coming.commit
  }, Effect.scoped)

  return { find, partial, ingest, receive: Receipt.open(home, held), open, read, verify, put }
})

/** Bytes by digest, committed and verified, shared by all processes that use the store. */
export class BlobStore extends Context.Service<BlobStore, {
  /** The blob, if it is committed and its file is there with its size. Nothing is hashed. */
  readonly find: (digest: Digest.Digest) => Effect.Effect<Option.Option<Blob>, StoreError>
  /** How many bytes of a blob that is not committed are on disk, from a pull that runs or ended; not verified. */
  readonly partial: (digest: Digest.Digest) => Effect.Effect<number, StoreError>
  /**
   * The one ingest of `blob`: of all fibers and processes only one has it at a time, the others wait here until the blob
   * is present (`ingest.present`: nothing to fetch) or the ingest is free. What an earlier owner left is taken over. Fails
   * with `VerifyError` if the blob is present and has another size than `blob` says.
   */
  readonly ingest: (blob: Descriptor, options?: Ingest.IngestOptions) => Effect.Effect<Ingest.Ingest, StoreError | VerifyError, Scope.Scope>
  /** A place for bytes whose digest is known only when all have come. It goes with the scope, unless it was committed. */
  readonly receive: Effect.Effect<Receipt.Receipt, StoreError, Scope.Scope>
  /** Opens a committed blob for reading. */
  readonly open: (digest: Digest.Digest) => Effect.Effect<BlobFile, StoreError | NotInStore, Scope.Scope>
  /**
   * All bytes of a committed blob of at most `cap` bytes, verified again: a damaged one is put away, and not in the store any
   * more. For manifests and configs.
   */
  readonly read: (digest: Digest.Digest, cap: number) => Effect.Effect<Uint8Array, StoreError | NotInStore>
  /** Hashes a committed blob again; false if it is not there, or was damaged: then it is put away, and can be fetched again. */
  readonly verify: (digest: Digest.Digest) => Effect.Effect<boolean, StoreError>
  /** Stores bytes that are at hand, if they are not there yet. */
  readonly put: (blob: Descriptor, bytes: Uint8Array) => Effect.Effect<void, StoreError | VerifyError>
}>()("store/BlobStore") {
  static readonly layer: Layer.Layer<BlobStore, never, Home> = Layer.effect(BlobStore, make)
}
