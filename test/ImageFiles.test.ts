import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import { chmodSync, readdirSync } from "node:fs"
import { join } from "node:path"
import * as ImageFiles from "../src/ImageFiles.ts"
import type { ViewEntry } from "../src/layer/view/Facts.ts"
import * as Pull from "../src/Pull.ts"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { program, root } from "./command.ts"
import { openPaths, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
/** More than a list has in memory, and than a pipe takes at once. */
const many = 30_000
const image = ImageBuilder.image({ layers: [Array.from({ length: many }, (_, n) => ({ path: `folder/${n % 300}/a file with a name that is not short ${n}`, contents: "" }))] })

/** A store with the image, not unpacked. */
const pulled = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", image)
  const folder = yield* temporary
  const reference = `${registry.host}/app:1`
  yield* Pull.pull(reference, { platform, unpack: false }).pipe(Effect.provide(towline(folder)))
  return { folder, reference, store: join(folder, "store") }
})

const nameless = () => openPaths().filter((path) => path.includes("/ingest/") || path.includes("(deleted)"))
const entry = (name: string, mode: number): ViewEntry =>
  ({ name, mode, type: "file", uid: 0, gid: 0, size: mode, mtime: [0, 0], target: "", layer: 0, entry: 1, source: name, link: undefined, sha256: undefined, xattrs: [] })
const listOf = (entries: ReadonlyArray<ViewEntry>, rechunked: number): ImageFiles.FileList =>
  ({ names: entries.length, widths: { size: 1, owner: 3 }, entries: Stream.rechunk(Stream.fromIterable(entries), rechunked) })

describe("ImageFiles", () => {
  it.live("lists more names than are kept in memory, as often as asked, and leaves nothing open, interrupted or not", () => Effect.gen(function*() {
    const { folder, reference, store } = yield* pulled
    yield* Effect.gen(function*() {
      const stored = yield* ImageFiles.imageOf(reference)
      yield* Effect.scoped(Effect.gen(function*() {
        const { entries, names, widths } = yield* ImageFiles.list(stored)
        assert.deepStrictEqual([names, widths], [many + 302, { size: 1, owner: 3 }])
        const first = yield* Stream.runFold(entries, () => "", (last, { name }) => {
          const key = name.replaceAll("/", "\u0000")
          assert.isTrue(last === "" || last < key)
          return key
        })
        assert.strictEqual((yield* Stream.runCollect(entries)).at(-1)?.name.replaceAll("/", "\u0000"), first)
        assert.strictEqual(nameless().length, 1)
        assert.strictEqual((yield* ImageFiles.list(stored, { path: "/folder/7/" })).names, 101)
      }))
      assert.deepStrictEqual(nameless(), [])
      for (const after of [0, 20, 100, 300]) {
        const fiber = yield* Effect.forkChild(Effect.scoped(Effect.flatMap(ImageFiles.list(stored, { hash: true }), ({ entries }) => Stream.runDrain(entries))), { startImmediately: true })
        yield* Effect.sleep(after)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual([nameless(), readdirSync(join(store, "ingest"))], [[], []])
      }
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a list that is too long for memory needs a folder for its file, another does not", () => Effect.gen(function*() {
    const { folder, reference, store } = yield* pulled
    yield* Effect.gen(function*() {
      const stored = yield* ImageFiles.imageOf(reference)
      const small = { layers: [] }
      chmodSync(join(store, "ingest"), 0o500)
      if (process.getuid?.() !== 0) {
        const error = yield* Effect.flip(Effect.scoped(ImageFiles.list(stored)))
        assert.match(error.message, /cannot make a file in .*ingest: permission denied/)
      }
      assert.strictEqual((yield* Effect.scoped(ImageFiles.list(small))).names, 1)
      chmodSync(join(store, "ingest"), 0o700)
    }).pipe(Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 60_000)

  it.live("a reader that leaves early, and a signal, end the command and leave nothing", () => Effect.gen(function*() {
    const { reference, store } = yield* pulled
    const graph = join(root, "bin/graph")
    for (const flags of ["", "--json", "--hash"]) {
      const ended = yield* program("sh", ["-c", `{ '${graph}' files ${flags} --store '${store}' ${reference}; echo "code $?" >&2; } | head -c 100 | wc -c`])
      assert.deepStrictEqual([ended.stdout.trim(), ended.stderr], ["100", "code 130\n"])
      assert.deepStrictEqual(readdirSync(join(store, "ingest")), [])
    }
    const stopped = yield* program("sh", ["-c", `{ '${graph}' files --store '${store}' ${reference} & pid=$!; sleep 2; kill -INT $pid; wait $pid; echo "code $?" >&2; } | { sleep 3; wc -l; }`])
    assert.match(stopped.stderr, /^code (130|0)\n$/)
    assert.deepStrictEqual(readdirSync(join(store, "ingest")), [])
  }).pipe(Effect.scoped), 120_000)

  it.effect.prop("compares lists name by name, however they come", {
    before: Schema.Array(Schema.Tuple([Schema.Literals(["a", "a/b", "a.b", "a\u00ff", "b", "b/c", "b/c/d"]), Schema.Literals([1, 2])])),
    after: Schema.Array(Schema.Tuple([Schema.Literals(["a", "a/b", "a.b", "a\u00ff", "b", "b/c", "b/c/d"]), Schema.Literals([1, 2])])), chunk: Schema.Literals([1, 2, 100])
  }, Effect.fnUntraced(function*({ after, before, chunk }) {
    const [old, now] = [new Map<string, number>(before), new Map<string, number>(after)]
    const place = (name: string) => name.replaceAll("/", "\u0000")
    const inOrder = <A>(map: ReadonlyMap<string, A>) => [...map].sort(([a], [b]) => place(a) < place(b) ? -1 : 1)
    const entries = (map: ReadonlyMap<string, number>) => inOrder(map).map(([name, mode]) => entry(name, mode))
    const changes = yield* Stream.runCollect(ImageFiles.compare(listOf(entries(old), chunk), listOf(entries(now), 3)))
    const expected = inOrder(new Map([...old, ...now])).flatMap(([name]): ReadonlyArray<ImageFiles.FileChange> => {
      const [was = 0, is = 0] = [old.get(name), now.get(name)]
      if (was === is) return []
      return [{ name, change: was === 0 ? "added" : is === 0 ? "removed" : "changed", what: was === 0 || is === 0 ? [] : ["mode"], before: was, after: is }]
    })
    assert.deepStrictEqual(changes, expected)
  }))
})
