import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, type Layer, Option, Schema } from "effect"
import { Descriptor } from "../../src/image/Descriptor.ts"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Disk from "../../src/store/disk/Disk.ts"
import { blobOf, digestOf, take } from "./Fixtures.ts"

const bytesOf = (text: string) => Buffer.from(text)

const visible = Effect.fnUntraced(function*(blob: Descriptor) {
  const blobs = yield* BlobStore
  return Option.isNone(yield* blobs.find(blob.digest)) ? undefined : Buffer.from(yield* blobs.read(blob.digest, blob.size))
})

/** What every blob store must do, whatever it is made of. */
export const contract = <E>(name: string, store: Layer.Layer<BlobStore, E>) =>
  layer(store, { excludeTestServices: true })(name, (it) => {
    it.effect.prop("takes a blob however it is cut, resumed wherever it stopped", [Schema.Array(Schema.Uint8Array), Schema.Natural],
      Effect.fnUntraced(function*([chunks, n]) {
        const blob = blobOf(...chunks)
        const stop = n % (chunks.length + 1)
        const before = yield* visible(blob)
        if (before === undefined) yield* take(blob, chunks.slice(0, stop))
        assert.deepStrictEqual(yield* visible(blob), before)
        yield* take(blob, chunks.slice(stop), { commit: true })
        assert.deepStrictEqual(yield* visible(blob), Buffer.concat(chunks))
      }))

    it.effect("resumes with the prefix counted", Effect.fnUntraced(function*() {
      const chunks = [bytesOf("what came first, "), bytesOf("and what came then")]
      const blob = blobOf(...chunks)
      yield* take(blob, chunks.slice(0, 1))
      assert.strictEqual(yield* (yield* BlobStore).partial(blob.digest), 17)
      assert.strictEqual(yield* take(blob, chunks.slice(1), { commit: true }), 17)
      assert.deepStrictEqual(yield* visible(blob), Buffer.concat(chunks))
    }))

    it.effect("never shows a damaged blob, and can take it again", Effect.fnUntraced(function*() {
      const blob = blobOf(bytesOf("sent"))
      const blobs = yield* BlobStore
      yield* Effect.scoped(Effect.gen(function*() {
        const ingest = yield* blobs.ingest(blob)
        yield* Disk.attempt(() => ingest.append(bytesOf("came")))
        const error = yield* Effect.flip(ingest.commit)
        assert.deepStrictEqual([error._tag, ingest.offset, yield* visible(blob)], ["VerifyError", 0, undefined])
        yield* Disk.attempt(() => ingest.append(bytesOf("sent")))
        yield* ingest.commit
      }))
      assert.deepStrictEqual(yield* visible(blob), bytesOf("sent"))
    }))

    it.effect("refuses the first byte too many, and too few", Effect.fnUntraced(function*() {
      const blob = blobOf(bytesOf("exact"))
      const long = yield* Effect.flip(take(blob, [bytesOf("exac"), bytesOf("t!")], { commit: true }))
      const short = yield* Effect.flip(take(blob, [bytesOf("exac")], { commit: true }))
      assert.deepStrictEqual([long._tag, short._tag, yield* visible(blob)], ["VerifyError", "VerifyError", undefined])
    }))

    it.effect("refuses a descriptor whose size is not that of the blob it has", Effect.fnUntraced(function*() {
      const bytes = bytesOf("known by now")
      yield* take(blobOf(bytes), [bytes], { commit: true })
      const lie = new Descriptor({ mediaType: "x/y", digest: digestOf(bytes), size: 3 })
      assert.strictEqual((yield* Effect.flip(take(lie, [], { commit: true })))._tag, "VerifyError")
    }))

    it.effect("lets one fiber fetch, and the others wait for what it commits", Effect.fnUntraced(function*() {
      const bytes = bytesOf("fetched once")
      const blob = blobOf(bytes)
      const blobs = yield* BlobStore
      const seen: Array<number> = []
      let fetched = 0
      const fetch = Effect.scoped(Effect.gen(function*() {
        const ingest = yield* blobs.ingest(blob, { waiting: (received) => Effect.sync(() => { seen.push(received) }) })
        if (ingest.present) return ingest.offset
        fetched++
        yield* Disk.attempt(() => ingest.append(bytes.subarray(0, 7)))
        yield* Effect.sleep("300 millis")
        yield* Disk.attempt(() => ingest.append(bytes.subarray(7)))
        yield* ingest.commit
        return ingest.offset
      }))
      const offsets = yield* Effect.all([fetch, fetch, fetch], { concurrency: 3 })
      assert.deepStrictEqual([offsets, fetched], [[bytes.byteLength, bytes.byteLength, bytes.byteLength], 1])
      assert.isTrue(seen.includes(7))
    }))

    it.effect("hands the blob on when the one who fetches is interrupted", Effect.fnUntraced(function*() {
      const bytes = bytesOf("begun by one, ended by another")
      const blob = blobOf(bytes)
      const blobs = yield* BlobStore
      const first = yield* Effect.scoped(Effect.gen(function*() {
        const ingest = yield* blobs.ingest(blob)
        yield* Disk.attempt(() => ingest.append(bytes.subarray(0, 5)))
        return yield* Effect.never
      })).pipe(Effect.forkChild({ startImmediately: true }))
      yield* Effect.sleep("50 millis")
      const second = yield* take(blob, [bytes.subarray(5)], { commit: true }).pipe(Effect.forkChild({ startImmediately: true }))
      yield* Effect.sleep("50 millis")
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* Fiber.join(second), 5)
      assert.deepStrictEqual(yield* visible(blob), bytes)
    }))

    it.effect("stores bytes at hand, over a partial of someone else's too", Effect.fnUntraced(function*() {
      const bytes = bytesOf("a manifest")
      const blob = blobOf(bytes)
      const blobs = yield* BlobStore
      yield* take(blob, [bytesOf("a m")])
      yield* blobs.put(blob, bytes)
      yield* blobs.put(blob, bytes)
      assert.deepStrictEqual(yield* visible(blob), bytes)
      const other = blobOf(bytesOf("b manifest"))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(blobs.put(other, bytes))))
      assert.strictEqual(yield* visible(other), undefined)
    }))

    it.effect("says what it has not, and reads no more than the cap", Effect.fnUntraced(function*() {
      const blobs = yield* BlobStore
      const error = yield* Effect.flip(blobs.read(digestOf(bytesOf("nowhere")), 100))
      const bytes = bytesOf("more than ten bytes")
      yield* blobs.put(blobOf(bytes), bytes)
      const capped = yield* Effect.flip(blobs.read(digestOf(bytes), 10))
      assert.deepStrictEqual([error._tag, capped._tag], ["NotInStore", "StoreError"])
    }))
  })
