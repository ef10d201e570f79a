import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { brotliDecompressSync, gunzipSync, inflateSync } from "node:zlib"
import { Fault, ImageBuilder, TestRegistry } from "../../src/testing/index.ts"
import { ask, raw, type Ask, type Seen } from "./Client.ts"

const blob = Buffer.from(ImageBuilder.noise("blob", 100_000))

/** A registry with one blob and a function that asks for it while `actions` happen. */
const serving = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  const digest = registry.addBlob("x", blob)
  const get = (actions: Fault.Action | ReadonlyArray<Fault.Action>, options?: Ask): Effect.Effect<Seen> => Effect.suspend(() => {
    registry.script([{ match: { kind: "blob" }, do: actions }])
    return ask(`${registry.url}/v2/x/blobs/${digest}`, options)
  })
  return { registry, digest, get }
})
const ranged = (from: number): Ask => ({ headers: { range: `bytes=${from}-` } })

describe("Fault", () => {
  it.effect("cutAt sends exactly so many bytes, counted from the start of the range", Effect.fnUntraced(function*() {
    const { registry, get } = yield* serving
    for (const bytes of [0, 1, 70_000, 99_999]) {
      const seen = yield* get(Fault.cutAt(bytes))
      assert.deepStrictEqual([seen.status, seen.whole, seen.headers["content-length"], seen.body.length], [200, false, "100000", bytes])
      assert.isTrue(seen.body.equals(blob.subarray(0, bytes)))
    }
    const part = yield* get(Fault.cutAt(10), ranged(50_000))
    assert.deepStrictEqual([part.status, part.whole, part.body], [206, false, blob.subarray(50_000, 50_010)])
    assert.isTrue((yield* get(Fault.cutAt(100_000))).whole)
    const reset = yield* get(Fault.cutAt(10, { reset: true }))
    assert.deepStrictEqual([reset.error, reset.whole], ["ECONNRESET", false])
    assert.deepStrictEqual(registry.requests.map((request) => [request.bytesSent, request.finished]), [
      [0, false], [1, false], [70_000, false], [99_999, false], [10, false], [100_000, true], [10, false]
    ])
  }))

  it.effect("cutEach lets a client that resumes through in equal steps, and one that starts over too", Effect.fnUntraced(function*() {
    const { registry, digest } = yield* serving
    for (const resumes of [true, false]) {
      registry.forget()
      registry.script([{ match: { kind: "blob" }, do: Fault.cutEach(30_000) }])
      let got = Buffer.alloc(0)
      for (let done = false; !done;) {
        const seen = yield* ask(`${registry.url}/v2/x/blobs/${digest}`, resumes && got.length > 0 ? ranged(got.length) : {})
        got = Buffer.concat([resumes ? got : Buffer.alloc(0), seen.body])
        done = seen.whole
      }
      assert.isTrue(got.equals(blob))
      assert.deepStrictEqual(registry.requests.map((request) => request.bytesSent), resumes ? [30_000, 30_000, 30_000, 10_000] : [30_000, 60_000, 90_000, 100_000])
    }
  }))

  it.live("stall and drip take their time", Effect.fnUntraced(function*() {
    const { registry, get } = yield* serving
    const late = yield* get(Fault.stall("headers", 150))
    assert.isAtLeast(late.head, 140)
    const middle = yield* get([Fault.stall(10, 80), Fault.stall(50_000, 80)])
    assert.isAtLeast(middle.end, 150)
    assert.isTrue(middle.body.equals(blob))
    const slow = yield* get(Fault.drip(400_000))
    assert.isAtLeast(slow.end, 200)
    assert.isTrue(slow.body.equals(blob))
    const left = yield* get([Fault.stall(10, 50), Fault.cutAt(20)])
    assert.deepStrictEqual([left.body.length, left.end > 40], [20, true])
    registry.forget()
    const fiber = yield* Effect.forkChild(get(Fault.stall(10, Infinity)))
    while (registry.requests[0]?.bytesSent !== 10) yield* Effect.sleep("5 millis")
    yield* Effect.sleep("50 millis")
    yield* Fiber.interrupt(fiber)
    assert.deepInclude(registry.requests[0], { status: 200, bytesSent: 10, finished: false })
  }))

  it.effect("drop, status, html and redirect answer something else", Effect.fnUntraced(function*() {
    const { registry, digest, get } = yield* serving
    assert.deepStrictEqual([(yield* get(Fault.drop)).error, registry.requests[0]?.status], ["ECONNRESET", 0])
    const busy = yield* get(Fault.status(429, { "retry-after": "7" }), ranged(5))
    assert.deepStrictEqual([busy.status, busy.headers["retry-after"], JSON.parse(busy.body.toString()).errors[0].code], [429, "7", "TOOMANYREQUESTS"])
    const own = yield* get(Fault.status(200, { "x-a": "b" }, "body"))
    assert.deepStrictEqual([own.status, own.headers["x-a"], own.headers["content-length"], own.body.toString()], [200, "b", "4", "body"])
    const portal = yield* get(Fault.html)
    assert.deepStrictEqual([portal.status, portal.headers["content-type"], portal.body.toString().slice(0, 9)], [200, "text/html; charset=utf-8", "<!DOCTYPE"])
    const moved = yield* get(Fault.redirect("https://cdn.example.com{url}?token=1"))
    assert.deepStrictEqual([moved.status, moved.headers.location], [307, `https://cdn.example.com/v2/x/blobs/${digest}?token=1`])
  }))

  it.effect("lies about the length and the end of the body", Effect.fnUntraced(function*() {
    const { registry, digest, get } = yield* serving
    const short = yield* get(Fault.truncateLength(7))
    assert.deepStrictEqual([short.status, short.whole, short.headers["content-length"], short.body], [200, true, "7", blob.subarray(0, 7)])
    assert.deepStrictEqual([(yield* get(Fault.truncateLength(0))).body.length, (yield* get(Fault.truncateLength(0), ranged(5))).status], [0, 206])
    const long = yield* get(Fault.extraBytes(3))
    assert.deepStrictEqual([long.whole, long.headers["content-length"], long.body], [true, "100003", Buffer.concat([blob, Buffer.from("...")])])
    const more = yield* get(Fault.claimLength(200_000))
    assert.deepStrictEqual([more.whole, more.body.length], [false, 100_000])
    const less = yield* get(Fault.claimLength(10)) // node:http's parser does not stand for it; what is on the wire:
    assert.deepStrictEqual([less.status, less.error], [0, "HPE_CLOSED_CONNECTION"])
    const wire = yield* raw(registry.host, `/v2/x/blobs/${digest}`)
    const split = wire.indexOf("\r\n\r\n") + 4
    assert.deepStrictEqual([/content-length: (\d+)/.exec(wire.subarray(0, split).toString())?.[1], wire.length - split], ["10", 100_000])
    const chunks = yield* get(Fault.chunked())
    assert.deepStrictEqual([chunks.whole, chunks.headers["transfer-encoding"], chunks.headers["content-length"], chunks.body.length], [true, "chunked", undefined, 100_000])
    const open = yield* get(Fault.chunked(false))
    assert.deepStrictEqual([open.whole, open.body.length], [false, 100_000])
    const endless = yield* get([Fault.extraBytes(Infinity), Fault.cutAt(5_000_000)])
    assert.deepStrictEqual([endless.headers["transfer-encoding"], endless.body.length], ["chunked", 5_000_000])
  }))

  it.effect("wrongRange answers ranges wrongly, and only ranges", Effect.fnUntraced(function*() {
    const { get } = yield* serving
    const facts = ({ status, headers, body }: Seen) => [status, headers["content-range"], body.length, body.length > 0 ? body.compare(blob, body.length === 100_000 ? 0 : 60_000, body.length === 100_000 ? 100_000 : 60_000 + body.length) : 0]
    const asked = (how: Fault.RangeFault) => Effect.map(get(Fault.wrongRange(how), ranged(60_000)), facts)
    assert.deepStrictEqual(yield* asked("ignore"), [200, undefined, 100_000, 0])
    assert.deepStrictEqual(yield* asked("lie-start"), [206, "bytes 60001-99999/100000", 40_000, 0])
    assert.deepStrictEqual(yield* asked("lie-total"), [206, "bytes 60000-99999/100001", 40_000, 0])
    assert.deepStrictEqual(yield* asked("no-header"), [206, undefined, 40_000, 0])
    assert.deepStrictEqual(yield* asked("416"), [416, "bytes */100000", 0, 0])
    assert.deepStrictEqual(yield* asked("short"), [206, "bytes 60000-79999/100000", 20_000, 0])
    const elsewhere = yield* get(Fault.wrongRange("lie-bytes"), ranged(60_000))
    assert.deepStrictEqual([elsewhere.headers["content-range"], elsewhere.body], ["bytes 60000-99999/100000", blob.subarray(0, 40_000)])
    const parts = yield* get(Fault.wrongRange("multipart"), ranged(99_995))
    assert.match(String(parts.headers["content-type"]), /^multipart\/byteranges; boundary=/)
    assert.isAbove(parts.body.indexOf(Buffer.concat([Buffer.from("content-range: bytes 99995-99999/100000\r\n\r\n"), blob.subarray(99_995), Buffer.from("\r\n--")])), 0)
    for (const how of ["ignore", "lie-start", "lie-bytes", "416", "multipart", "short"] as const) assert.strictEqual((yield* get(Fault.wrongRange(how))).status, 200)
  }))

  it.effect.prop("flips one bit of the object, whatever part of it is served", [Schema.Natural, Schema.Natural, Schema.Natural], Effect.fnUntraced(function*([a, b, c]) {
    const { get } = yield* serving
    const [at, from, bit] = [a % blob.length, b % blob.length, c % 8]
    const seen = yield* get(Fault.flip(at, bit), ranged(from))
    const expected = Buffer.from(blob)
    expected[at] = (expected[at] ?? 0) ^ (1 << bit)
    assert.isTrue(seen.body.equals(expected.subarray(from)))
  }), { arbitrary: { runs: 20 } })

  it.effect("encodes the body, or only says so", Effect.fnUntraced(function*() {
    const { get } = yield* serving
    for (const [coding, decode] of [["gzip", gunzipSync], ["deflate", inflateSync], ["br", brotliDecompressSync]] as const) {
      const seen = yield* get(Fault.contentEncoding(coding))
      assert.deepStrictEqual([seen.headers["content-encoding"], seen.headers["content-length"]], [coding, String(seen.body.length)])
      assert.isTrue(decode(seen.body).equals(blob))
      assert.isTrue((yield* get(Fault.contentEncoding(coding, false))).body.equals(blob))
    }
  }))

  it.effect("sets and removes headers", Effect.fnUntraced(function*() {
    const { get } = yield* serving
    const seen = yield* get(Fault.setHeaders({ "Docker-Content-Digest": "sha256:no", "content-type": null, "set-cookie": ["a=1", "b=2"] }))
    assert.deepStrictEqual([seen.headers["docker-content-digest"], seen.headers["content-type"], seen.headers["set-cookie"]], ["sha256:no", undefined, ["a=1", "b=2"]])
  }))

  it.effect("composes in order and counts what each rule did", Effect.fnUntraced(function*() {
    const { registry, digest } = yield* serving
    const url = `${registry.url}/v2/x/blobs/${digest}`
    registry.script([
      { match: { kind: "blob", nth: [1, 3] }, do: Fault.status(503) },
      { match: { digest, method: "GET", ranged: true }, do: [Fault.flip(0), Fault.cutAt(5)] },
      { match: { kind: "manifest" }, do: Fault.drop },
      { match: { kind: "blob", nth: 2 }, do: Fault.setHeaders({ "x-second": "yes" }) },
      { match: { repository: "y" }, do: Fault.drop }
    ])
    const [first, second, third, fourth] = [yield* ask(url), yield* ask(url, ranged(0)), yield* ask(url, { method: "HEAD" }), yield* ask(url)]
    assert.deepStrictEqual([first.status, second.status, third.status, fourth.status], [503, 206, 503, 200])
    assert.deepStrictEqual([second.headers["x-second"], second.body[0], second.body.length], ["yes", (blob[0] ?? 0) ^ 1, 5])
    assert.deepStrictEqual(registry.runs, [2, 1, 0, 1, 0])
    assert.deepStrictEqual(registry.find({ kind: "blob", nth: 2 }).map((request) => request.range), ["bytes=0-"])
    registry.script([])
    assert.deepStrictEqual([registry.runs, (yield* ask(url)).whole], [[], true])
  }))
})
