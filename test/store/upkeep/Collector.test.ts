import { assert, it, layer } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { BlobStore } from "../../../src/store/BlobStore.ts"
import { Graph } from "../../../src/store/Graph.ts"
import { Leases } from "../../../src/store/Leases.ts"
import { Collector } from "../../../src/store/upkeep/Collector.ts"
import { blobOf, digestOf, imageOf, layUp, litter, Root, storeInTemp, take, temp, visible, withStore } from "../Fixtures.ts"

const hub = "docker.io/library"
const collect = (options?: Parameters<Collector["Service"]["collect"]>[0]) => Effect.flatMap(Collector, (collector) => collector.collect(options))
const sound = Effect.gen(function*() {
  assert.deepStrictEqual(yield* (yield* Graph).check(), [])
})
const diffOf = (text: string) => digestOf(Buffer.from(`tar ${text}`))
const blobFor = (text: string) => blobOf(Buffer.from(`blob ${text}`))
const put = (text: string) => Effect.flatMap(BlobStore, (blobs) => blobs.put(blobOf(Buffer.from(text)), Buffer.from(text)))
const alter = (root: string, statement: string) => Effect.sync(() => {
  const db = new DatabaseSync(`${root}/graph.db`)
  db.exec(`PRAGMA foreign_keys=ON; ${statement}`)
  db.close()
})

/** Two values of the tag `name`, the first without a name any more; both stand on `base`. */
const moved = Effect.fnUntraced(function*(name: string) {
  const graph = yield* Graph
  const old = yield* graph.register(yield* imageOf(name, ["base", `${name} old`]))
  const next = yield* graph.register({ ...yield* imageOf(`${name}2`, ["base", `${name} new`], []), tags: old.tags })
  return { old, next }
})

layer(storeInTemp, { excludeTestServices: true })("Collector", (it) => {
  it.effect("takes an image without a tag and what only it needed, as it said it would", Effect.fnUntraced(function*() {
    const { next, old } = yield* moved("plain")
    const root = yield* Root
    const planned = yield* collect({ dryRun: true })
    assert.deepStrictEqual([planned.images, planned.layers.map(({ subject }) => subject)], [[old.id], [diffOf("plain old")]])
    assert.isDefined(visible(root, blobFor("plain old")))
    const collected = yield* collect()
    const sorted = (taken: typeof planned) => ({ ...taken, dryRun: true, blobs: taken.blobs.map(({ subject }) => subject).sort() })
    assert.deepStrictEqual(sorted(collected), sorted(planned))
    assert.deepStrictEqual(collected.blobs.map(({ subject }) => subject).sort(), [blobFor("plain old").digest, old.config.digest, old.manifest.digest].sort())
    assert.isAbove(collected.freed, 0)
    assert.isUndefined(visible(root, blobFor("plain old")))
    assert.deepStrictEqual((yield* (yield* Graph).resolve("plain")).id, next.id)
    yield* sound
    assert.deepStrictEqual(yield* collect(), { dryRun: false, images: [], blobs: [], layers: [], partials: [], quarantined: [], freed: 0, left: collected.left })
  }))

  it.effect("leaves what came lately and has no image yet, until asked", Effect.fnUntraced(function*() {
    yield* put("an orphan")
    yield* layUp(diffOf("orphan"), blobFor("orphan"))
    yield* (yield* Graph).register({ ...yield* imageOf("nameless", ["nameless"]), tags: [] })
    const early = yield* collect()
    assert.deepStrictEqual([early.images, early.blobs, early.layers], [[], [], []])
    const late = yield* collect({ olderThan: Duration.zero })
    assert.strictEqual(late.images.length, 1)
    assert.includeMembers(late.blobs.map(({ subject }) => subject), [blobOf(Buffer.from("an orphan")).digest, blobFor("nameless").digest])
    assert.includeMembers(late.layers.map(({ subject }) => subject), [diffOf("orphan"), diffOf("nameless")])
    yield* sound
  }))

  it.effect("leaves an image that lost its tag less long ago than is asked for", Effect.fnUntraced(function*() {
    const { old } = yield* moved("aged")
    assert.deepStrictEqual((yield* collect({ olderThan: Duration.hours(1) })).images, [])
    yield* alter(yield* Root, `UPDATE tag_log SET at = at - 7200000; UPDATE images SET since = since - 7200000`)
    assert.deepStrictEqual((yield* collect({ olderThan: Duration.hours(1) })).images, [old.id])
  }))

  it.effect("takes nothing that a lease holds", Effect.fnUntraced(function*() {
    const { old } = yield* moved("leased")
    yield* put("leased orphan")
    const orphan = blobOf(Buffer.from("leased orphan"))
    yield* Effect.scoped(Effect.gen(function*() {
      yield* (yield* Leases).hold([diffOf("leased old"), blobFor("leased old").digest, orphan.digest])
      const collected = yield* collect({ olderThan: Duration.zero })
      assert.deepStrictEqual([collected.images, collected.layers], [[old.id], []])
      assert.sameMembers(collected.blobs.map(({ subject }) => subject), [old.config.digest, old.manifest.digest])
    }))
    const collected = yield* collect({ olderThan: Duration.zero })
    assert.sameMembers([...collected.blobs, ...collected.layers].map(({ subject }) => subject), [orphan.digest, blobFor("leased old").digest, diffOf("leased old")])
    const { old: held } = yield* moved("held")
    yield* Effect.scoped(Effect.gen(function*() {
      yield* (yield* Leases).hold([held.manifest.digest])
      assert.deepStrictEqual((yield* collect()).images, [])
    }))
    assert.deepStrictEqual((yield* collect()).images, [held.id])
    yield* sound
  }))

  it.effect("keeps the last values of a tag, and the parents of what it keeps", Effect.fnUntraced(function*() {
    const { next, old } = yield* moved("valued")
    const graph = yield* Graph
    const last = yield* graph.register({ ...yield* imageOf("valued3", ["valued last"], []), tags: old.tags })
    yield* alter(yield* Root, `UPDATE images SET parent = '${old.id}' WHERE id = '${last.id}'`)
    assert.deepStrictEqual((yield* collect({ keepLast: 2 })).images, [])
    assert.deepStrictEqual((yield* collect()).images, [next.id])
    yield* alter(yield* Root, `UPDATE images SET parent = NULL WHERE id = '${last.id}'; UPDATE images SET parent = '${last.id}' WHERE id = '${old.id}'`)
    assert.deepStrictEqual((yield* collect()).images, [old.id])
    yield* sound
  }))

  it.effect("stops when the store is small enough, and begins with what has been unused longest", Effect.fnUntraced(function*() {
    yield* collect({ olderThan: Duration.zero })
    const [first, second] = [yield* moved("first"), yield* moved("second")]
    yield* alter(yield* Root, `UPDATE tag_log SET at = at - 9000 WHERE old_image = '${second.old.id}'; UPDATE images SET since = since - 9000 WHERE id = '${second.old.id}'`)
    const { left } = yield* collect({ dryRun: true, keepStorage: 0 })
    assert.deepStrictEqual((yield* collect({ keepStorage: 1_000_000 })).images, [])
    const all = yield* collect({ dryRun: true })
    const some = yield* collect({ keepStorage: all.left + 1 + (all.freed >> 1) })
    assert.deepStrictEqual([some.images, left], [[second.old.id], all.left])
    assert.deepStrictEqual((yield* collect({ keepStorage: 0 })).images, [first.old.id])
    yield* sound
  }))

  it.effect("takes partial blobs that are old or too many, never one that is coming", Effect.fnUntraced(function*() {
    const root = yield* Root
    const parts = ["first", "second", "third"].map((text) => ({ text, blob: blobOf(Buffer.from(`${text} whole`)) }))
    for (const { blob, text } of parts) {
      yield* take(blob, [Buffer.from(text)])
      yield* Effect.sleep("5 millis")
    }
    const [first = "", second = "", third = ""] = parts.map(({ blob }): string => blob.digest)
    yield* Effect.scoped(Effect.gen(function*() {
      yield* (yield* BlobStore).ingest(parts[1]?.blob ?? blobOf())
      assert.deepStrictEqual((yield* collect({ keepPartials: 5 })).partials, [{ subject: first, size: 5 }])
      assert.deepStrictEqual((yield* collect({ dryRun: true, olderThan: Duration.zero })).partials, [{ subject: third, size: 5 }])
    }))
    assert.deepStrictEqual((yield* collect({ olderThan: Duration.minutes(1) })).partials, [])
    yield* alter(root, `UPDATE ingests SET touched = touched - 120000 WHERE digest = '${second}'`)
    assert.deepStrictEqual((yield* collect({ olderThan: Duration.minutes(1) })).partials, [{ subject: second, size: 6 }])
    assert.strictEqual(litter(root).length, 1)
    yield* sound
  }))

  it.effect("takes what a repair put away once it is old, and says what it is", Effect.fnUntraced(function*() {
    const root = yield* Root
    const folder = `${root}/quarantine`
    const aged = `${folder}/layer-sha256-${"1".repeat(64)}-${Date.now() - 31 * 86_400_000}`
    mkdirSync(`${aged}/fs`, { recursive: true, mode: 0o700 })
    writeFileSync(`${aged}/fs/a`, "12345")
    writeFileSync(`${folder}/blob-sha256-${"2".repeat(64)}-${Date.now() - 1000}`, "123")
    assert.deepStrictEqual((yield* (yield* Collector).usage).quarantine, { count: 2, size: 8 })
    const [old = "", young = ""] = readdirSync(folder).sort().reverse()
    assert.deepStrictEqual((yield* collect({ dryRun: true })).quarantined, [{ subject: `quarantine/${old}`, size: 5 }])
    assert.strictEqual((yield* collect()).freed, 5)
    for (let n = 0; n < 100 && readdirSync(folder).length > 1; n++) yield* Effect.sleep("20 millis")
    assert.deepStrictEqual(readdirSync(folder), [young])
    assert.deepStrictEqual((yield* collect({ olderThan: Duration.zero })).quarantined, [{ subject: `quarantine/${young}`, size: 3 }])
    for (let n = 0; n < 100 && readdirSync(folder).length > 0; n++) yield* Effect.sleep("20 millis")
    assert.deepStrictEqual(readdirSync(folder), [])
    yield* sound
  }))

  it.effect("tells what each image takes, alone and with others", Effect.fnUntraced(function*() {
    yield* collect({ olderThan: Duration.zero })
    const before = yield* (yield* Collector).usage
    const graph = yield* Graph
    const one = yield* graph.register(yield* imageOf("one", ["both", "one"]))
    const two = yield* graph.register(yield* imageOf("two", ["both", "two"]))
    const { blobs, images, layers, reclaimable } = yield* (yield* Collector).usage
    const sizes = (image: typeof one) => [image.config, image.manifest, ...image.layers.map(({ blob }) => blob)].reduce((sum, { size }) => sum + size, 0)
    const shared = blobFor("both").size + diffOf("both").length
    for (const image of [one, two]) {
      const usage = images.find(({ id }) => id === image.id)
      const total = sizes(image) + 2 * diffOf("both").length
      assert.deepStrictEqual(usage, {
        id: image.id, names: [`${hub}/${image === one ? "one" : "two"}:latest`], blobs: sizes(image), layers: 2 * diffOf("both").length, unique: total - shared, shared
      })
    }
    assert.deepStrictEqual([blobs.count - before.blobs.count, layers.count - before.layers.count, reclaimable.count], [7, 3, 0])
    yield* (yield* Graph).register({ ...yield* imageOf("three", ["three"], []), tags: one.tags })
    assert.strictEqual((yield* (yield* Collector).usage).reclaimable.count, 4)
  }))
})

it.live.prop("says beforehand what it does, and leaves what is named", [
  Schema.Array(Schema.Struct({ tag: Schema.Literals(["a", "b", "c"]), layers: Schema.Array(Schema.Literals(["p", "q", "r", "s"])) })),
  Schema.Literals([0, 1, 2, 3])
], Effect.fnUntraced(function*([steps, keepLast]) {
  const path = yield* temp
  yield* Effect.gen(function*() {
    const graph = yield* Graph
    for (const [index, { layers, tag }] of steps.entries()) {
      yield* graph.register({ ...yield* imageOf(`i${index % 5}`, layers, []), tags: [{ name: `${hub}/x`, reference: tag }] })
    }
    const named = (yield* graph.list).filter(({ name }) => name !== undefined)
    const planned = yield* collect({ dryRun: true, keepLast })
    const done = yield* collect({ keepLast })
    const bare = (one: typeof done) => [one.images.toSorted(), ...[one.blobs, one.layers].map((taken) => taken.map(({ subject }) => subject).sort()), one.freed, one.left]
    assert.deepStrictEqual(bare(done), bare(planned))
    assert.deepStrictEqual((yield* graph.list).filter(({ name }) => name !== undefined), named)
    assert.deepStrictEqual(yield* graph.check(), [])
    for (const { id } of named) assert.deepStrictEqual((yield* graph.resolve(id)).missing, [])
  }).pipe(withStore(path))
}, Effect.scoped), { arbitrary: { runs: 12 }, timeout: 240_000 })
