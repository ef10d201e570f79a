import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ImageId } from "../../src/image/ImageId.ts"
import type { Digest } from "../../src/image/Digest.ts"
import { Digest as DigestSchema } from "../../src/image/Digest.ts"
import * as Format from "../../src/progress/Format.ts"
import * as Lines from "../../src/progress/Lines.ts"
import { PullEvent } from "../../src/progress/PullEvent.ts"
import * as State from "../../src/progress/State.ts"
import * as Terminal from "../../src/progress/Terminal.ts"

const digest = (n: number): Digest => Schema.decodeSync(DigestSchema)(`sha256:${String(n).padStart(64, "0")}`)
const reference = "registry.example:5000/team/app:1"
const sizes = [50_000_000, 1_234, 0]
const planned: PullEvent = {
  _tag: "planned", reference, manifest: digest(9), platform: "linux/amd64", total: 50_001_234, missing: 50_001_234,
  layers: sizes.map((size, n) => ({ layer: digest(n), size, state: "missing" }))
}
const downloading = (n: number, bytes: number): PullEvent => ({ _tag: "downloading", reference, layer: digest(n), bytes, total: sizes[n] ?? 0 })
const story: ReadonlyArray<PullEvent> = [
  { _tag: "resolved", reference, digest: digest(8), mediaType: "m", endpoint: "https://registry.example:5000" },
  planned, { _tag: "waiting", reference, layer: digest(0) }, downloading(0, 10_000_000),
  { _tag: "retrying", reference, layer: digest(0), cause: "lost \u001b[31mconnection", delay: 250 },
  { _tag: "resumed", reference, layer: digest(0), offset: 10_000_000 }, downloading(0, 50_000_000),
  { _tag: "verified", reference, layer: digest(0) }, { _tag: "extracting", reference, layer: digest(0), bytes: 25_000_000, total: 50_000_000 },
  { _tag: "committed", reference, layer: digest(0) }, { _tag: "exists", reference, layer: digest(1) },
  { _tag: "committed", reference, layer: digest(2) }, { _tag: "warning", reference, message: "mind the\ngap" },
  { _tag: "tagged", reference, digest: digest(8) }, { _tag: "done", reference, digest: digest(8), image: "abc", changed: true }
]

describe("renderers", () => {
  it("formats bytes and time", () => {
    assert.deepStrictEqual([0, 999, 1000, 12_345, 99_960, 999_999, 415_000_000, 1e15].map(Format.bytes),
      ["0 B", "999 B", "1.0 kB", "12.3 kB", "100 kB", "1.0 MB", "415 MB", "1.0 PB"])
    assert.deepStrictEqual([0.2, 59, 61, 3600].map(Format.duration), ["1s", "59s", "1m01s", "1h00m"])
  })
  it.prop("bars are as wide as asked, whatever the share", [Schema.Finite, Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 200 }))], ([share, width]) => {
    const within = Math.abs(share) % 1
    assert.strictEqual(Format.bar(within, width).length, width)
  })
  it("no frame is wider or higher than the screen, at any point of the story", () => {
    for (let columns = 20; columns <= 200; columns++) {
      let state = State.empty
      for (const event of story) {
        state = State.after(state, event)
        for (const rows of [2, 3, 24]) {
          const lines = Terminal.frame(state, 1_234_567, { columns, rows })
          assert.isAtMost(lines.length, Math.max(2, rows))
          for (const line of lines) {
            assert.isAtMost(line.length, columns)
            assert.notInclude(line, "\u001b")
          }
        }
      }
    }
  })
  it.effect("a v1 pull, its sizes unknown at first, in 60 columns and in a log", () => Effect.gen(function*() {
    const [one, two] = ["1", "2"].map((letter) => Schema.decodeSync(ImageId)(letter.repeat(64)))
    if (one === undefined || two === undefined) return
    const image = { _tag: "image", reference, image: two, tag: "1", repository: "registry.example:5000/team/app" } as const
    const old: ReadonlyArray<PullEvent> = [
      { _tag: "repository", reference, name: "registry.example:5000/team/app", protocol: "v1" }, { ...image, state: "pulling" },
      { ...image, state: "pulling", from: { kind: "endpoint", url: "https://one.example/v1/" } },
      { _tag: "planned", reference, platform: "linux/amd64", total: 0, missing: 0, layers: [
        { layer: one, state: "unpacked", image: { id: one, known: true } }, { layer: two, state: "missing", image: { id: two, known: false } }
      ] },
      { _tag: "exists", reference, layer: one }, { _tag: "step", reference, layer: two, doing: "request", attempt: 1 },
      { _tag: "downloading", reference, layer: two, bytes: 700_000 }, { _tag: "step", reference, layer: two, doing: "request", attempt: 2 },
      { _tag: "downloading", reference, layer: two, bytes: 1_500_000, total: 3_000_000 },
      { _tag: "step", reference, layer: two, doing: "unpack", attempt: 1, cause: "no\ntar" }, { _tag: "verified", reference, by: ["ABCD:EFGH"] }
    ]
    const shown = (count: number) => Terminal.frame(old.slice(0, count).reduce(State.after, State.empty), 0, { columns: 60, rows: 24 }).map((line) => line.trimEnd())
    assert.deepStrictEqual(shown(7), ["111111111111 exists", "222222222222 downloading 700 kB", "1/2 layers 700 kB"])
    assert.deepStrictEqual(shown(9), ["111111111111 exists", "222222222222 downloading [========>        ] 1.5 MB / 3.0 MB", "[===============>               ] 1/2 layers 1.5 MB / 3.0 MB"])
    assert.strictEqual(shown(10)[1], "222222222222 retrying    no?tar")
    assert.deepStrictEqual((yield* Stream.runCollect(Lines.plain(Stream.fromIterable(old)))).map((line) => line.slice(reference.length + 2)), [
      "pulling registry.example:5000/team/app from a v1 registry", "image 222222222222 from the endpoint https://one.example/v1/", "2 layers, linux/amd64",
      "111111111111 exists", "222222222222 the request again, try 2", "222222222222 the layer failed: no?tar", "signed by ABCD:EFGH"
    ])
  }))
  it("counts what is there, what comes and what is left", () => {
    const end = story.reduce(State.after, State.empty)
    assert.deepStrictEqual(State.totals(end), { total: 50_001_234, had: 1_234, fetched: 50_001_234, finished: 3, layers: 3 })
    const last = Terminal.frame(end, 0, { columns: 60, rows: 24 }).at(-1)
    assert.include(last, "3/3 layers 50.0 MB / 50.0 MB")
  })
  it("what an earlier pull left is not fetched now; an unpacked layer whose blob is wanted too is", () => {
    const [partial, unpacked] = [digest(0), digest(1)]
    const plan: PullEvent = { ...planned, layers: [{ layer: partial, size: 50_000_000, state: "partial" }, { layer: unpacked, size: 1_234, state: "unpacked" }] }
    const events: ReadonlyArray<PullEvent> = [
      plan, { _tag: "waiting", reference, layer: partial }, { _tag: "resumed", reference, layer: partial, offset: 40_000_000 },
      downloading(0, 41_000_000), { _tag: "waiting", reference, layer: unpacked }, downloading(1, 1_000)
    ]
    const { fetched, had, total } = State.totals(events.reduce(State.after, State.empty))
    assert.deepStrictEqual([total - had, fetched - had], [10_001_234, 1_001_000])
  })
  it.effect("the terminal shows the last state and every message", () => Effect.gen(function*() {
    let text = ""
    const screen = { write: (more: string) => Effect.sync(() => { text += more }), size: () => ({ columns: 60, rows: 24 }) }
    const fiber = yield* Terminal.render(Stream.fromIterable(story), screen).pipe(Effect.forkChild)
    yield* TestClock.adjust("1 second")
    yield* Fiber.join(fiber)
    assert.include(text, "3/3 layers")
    assert.include(text, "warning: mind the?gap")
  }))
  it.effect("a log gets one line for each change, and a layer's progress at most every 5 s", () => Effect.gen(function*() {
    const ticking = Stream.fromIterable([...Array(100).keys()]).pipe(
      Stream.mapEffect((n) => Effect.as(Effect.sleep("200 millis"), downloading(0, n * 1000))))
    const fiber = yield* Stream.runCollect(Lines.plain(Stream.concat(Stream.make(planned), ticking))).pipe(Effect.forkChild)
    yield* TestClock.adjust("30 seconds")
    const lines = yield* Fiber.join(fiber)
    assert.strictEqual(lines.length, 1 + 3)
  }))
  it.effect("the events renderer writes what decodes to the same events", () => Effect.gen(function*() {
    const lines = yield* Stream.runCollect(Lines.events(Stream.fromIterable(story)))
    const back = lines.map((line) => Schema.decodeUnknownSync(Schema.fromJsonString(PullEvent))(line))
    assert.deepStrictEqual(back.map(({ _tag }) => _tag), story.map(({ _tag }) => _tag))
    assert.isTrue(lines.every((line) => line.startsWith(`{"version":1,`) && !line.includes("\n")))
  }))
})
