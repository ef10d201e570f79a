import { Effect, type Scope } from "effect"
import { createHash } from "node:crypto"
import { constants, ftruncateSync, writeSync } from "node:fs"
import { Descriptor, type VerifyError } from "../image/Descriptor.ts"
import { Digest } from "../image/Digest.ts"
import * as Disk from "./disk/Disk.ts"
import type { StoreError } from "./disk/Disk.ts"
import { absolute, type Home, ingestName, record } from "./disk/Home.ts"
import * as Ingest from "./Ingest.ts"

type Shape = Home["Service"]

/**
 * Bytes on their way in whose digest nobody could tell beforehand: a layer of a v1 registry, of an archive, of standard
 * input. Nobody sees them before `commit`; a scope that closes uncommitted removes them.
 */
export class Receipt {
  /** Bytes taken so far: where the next chunk belongs. */
  size = 0
  /** The file's descriptor, open until the scope closes, also after `commit`. A worker may read it at explicit positions. */
  readonly fd: number
  readonly path: string
  /** The first bytes, zeros where none came: enough to tell a compression. */
  readonly head = new Uint8Array(8)
  private hash = createHash("sha256")

  /** For `BlobStore`, which gives them out. */
  constructor(fd: number, path: string) {
    this.fd = fd
    this.path = path
  }

  /** Takes the next bytes; run it in `Disk.attempt`. Throws `StoreError`. */
  append(chunk: Uint8Array): void {
    try {
      for (let at = 0; at < chunk.byteLength;) at += writeSync(this.fd, chunk, at, chunk.byteLength - at, this.size + at)
    } catch (error) {
      throw Disk.storeError(error, "write", this.path)
    }
    this.count(chunk)
  }

  /** Counts bytes that are in the file already, where the next chunk belongs. */
  count(chunk: Uint8Array): void {
    if (this.size < this.head.byteLength) this.head.set(chunk.subarray(0, this.head.byteLength - this.size), this.size)
    this.hash.update(chunk)
    this.size += chunk.byteLength
  }

  /** Back to the first byte: what came cannot be continued. Run it in `Disk.attempt`. */
  restart(): void {
    try {
      ftruncateSync(this.fd)
    } catch (error) {
      throw Disk.storeError(error, "empty", this.path)
    }
    this.size = 0
    this.head.fill(0)
    this.hash = createHash("sha256")
  }

  /** What the bytes that came so far are. */
  describe(mediaType: string): Descriptor {
    return new Descriptor({ mediaType, digest: Digest.make(`sha256:${this.hash.copy().digest("hex")}`), size: this.size })
  }

  /** Makes the bytes a blob, visible and durable; where it is there already, nothing happens. Set by `BlobStore`. */
  commit: (mediaType: string) => Effect.Effect<Descriptor, StoreError | VerifyError> = () => Effect.die("a receipt without its store")
}

/** Opens a place for bytes: see `BlobStore.receive`. `held` are the paths of ingests this opening has. */
export const open = (home: Shape, held: Set<string>): Effect.Effect<Receipt, StoreError, Scope.Scope> => Effect.gen(function*() {
  const path = ingestName("unnamed")
  yield* home.db.transaction(record(home, { path, kind: "blob", digest: null }))
  yield* Effect.addFinalizer(() => home.discard(path)) // also its row, when the file has become the blob
  const whole = absolute(home.root, path)
  const receipt = new Receipt(yield* Disk.open(whole, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL), whole)
  receipt.commit = Effect.fn("Receipt.commit")(function*(mediaType: string) {
    const blob = receipt.describe(mediaType)
    const ingest = yield* Ingest.open(home, held, blob)
    if (ingest.present) return blob
    yield* Disk.sync(receipt.fd, whole)
    yield* ingest.replaceBy(whole)
    return blob
  }, Effect.scoped)
  return receipt
}).pipe(Effect.withSpan("BlobStore.receive"))
