import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream } from "effect"
import { NetworkError, NotFound, Unauthorized } from "../../src/registry/Errors.ts"
import { refusal, retryAfter } from "../../src/registry/answer/Refusal.ts"
import type { Answer } from "../../src/registry/Transport.ts"
import { brief } from "./Client.ts"

const now = Date.UTC(2026, 0, 2, 3, 4, 5)
const seconds = (text: string | undefined, date?: string) => {
  const pause = retryAfter(text, date, now)
  return pause === undefined ? undefined : Duration.toMillis(pause) / 1000
}

describe("Retry-After", () => {
  it.each<readonly [text: string | undefined, expected: number | undefined]>([
    [undefined, undefined], ["0", 0], ["7", 7], [" 7 ", 7], ["99999999999999999999", 1e9],
    ["Fri, 02 Jan 2026 03:04:15 GMT", 10], ["Friday, 02-Jan-26 03:04:15 GMT", 10], ["Fri Jan  2 03:04:15 2026", 10],
    ["Fri, 02 Jan 2026 03:04:00 GMT", 0], ["Fri, 02 Jan 2026 99:04:00 GMT", undefined],
    ["-1", undefined], ["1.5", undefined], ["soon", undefined], ["", undefined], ["1e3", undefined], ["Infinity", undefined], ["2026-01-02T03:04:15Z", undefined]
  ])("%s", (text, expected) => { assert.strictEqual(seconds(text), expected) })

  it("counts a date from the answer's own clock", () => {
    assert.strictEqual(seconds("Fri, 02 Jan 2026 05:00:30 GMT", "Fri, 02 Jan 2026 05:00:00 GMT"), 30)
    assert.strictEqual(seconds("Fri, 02 Jan 2026 03:04:15 GMT", "junk"), 10)
  })
})

const answer = (status: number, body: string, headers: Record<string, string> = {}, moved = false): Answer =>
  ({ status, headers, host: "r.example", moved, body: Stream.make(Buffer.from(body)), close: Effect.void })
const means = (one: Answer, what: "manifest" | "blob" = "manifest") =>
  Effect.flip(refusal(one, { what, repository: "a/b", name: "latest", credentials: "anonymous" }, brief))
const codes = (...all: ReadonlyArray<string>) => JSON.stringify({ errors: all.map((code) => ({ code, message: `it is ${code}`, detail: { x: 1 } })) })

describe("refusal", () => {
  it.effect("tells the repository from what is in it", () => Effect.gen(function*() {
    const what = (body: string, of?: "blob") => Effect.map(means(answer(404, body), of), (error) => error instanceof NotFound ? error.what : error._tag)
    assert.strictEqual(yield* what(codes("NAME_UNKNOWN")), "repository")
    assert.strictEqual(yield* what(codes("MANIFEST_UNKNOWN")), "manifest")
    assert.strictEqual(yield* what(codes("BLOB_UNKNOWN"), "blob"), "blob")
    assert.strictEqual(yield* what("<html>not found</html>"), "manifest")
    assert.strictEqual(yield* what(""), "manifest")
    assert.strictEqual(yield* what(`{"errors":null}`, "blob"), "blob")
    assert.strictEqual(yield* what(`{"errors":[{"code":7}]}`, "blob"), "blob")
  }))

  it.effect("401 and 403", () => Effect.gen(function*() {
    const denied = yield* means(answer(403, codes("DENIED")))
    assert.deepInclude(denied instanceof Unauthorized && { ...denied }, { denied: true, detail: "DENIED: it is DENIED", repository: "a/b" })
    const moved = yield* means(answer(403, "<Error>expired</Error>", {}, true), "blob")
    assert.deepInclude(moved instanceof NetworkError && { ...moved }, { reason: "server", status: 403, transient: true })
  }))

  it.effect("keeps the code by which Docker 1.9 decided, if an object has one", () => Effect.gen(function*() {
    const code = (status: number, body: string) => Effect.map(means(answer(status, body)), (error) => "code" in error ? error.code : undefined)
    assert.deepStrictEqual([yield* code(404, codes("NAME_UNKNOWN")), yield* code(403, codes("DENIED")), yield* code(400, codes("ODD")), yield* code(429, codes("DENIED", "ODD"))],
      ["NAME_UNKNOWN", "DENIED", "UNKNOWN", "DENIED"])
    assert.deepStrictEqual([yield* code(404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), yield* code(404, "{}"), yield* code(500, codes("DENIED"))], [undefined, undefined, undefined])
  }))

  it.effect("reads the error bodies of v1", () => Effect.gen(function*() {
    const said = (body: string) => Effect.map(means(answer(400, body)), ({ message }) => message)
    for (const body of [`{"error":"Image is being uploaded, retry later"}`, `"Image is being uploaded, retry later"`]) assert.include(yield* said(body), "400: Image is being uploaded, retry later;")
    assert.include(yield* said("<html><h1>Bad</h1></html>"), "it answered 400;")
  }))

  it.effect("says which statuses are worth another try", () => Effect.gen(function*() {
    for (const status of [408, 429, 500, 502, 503, 504, 520]) {
      const error = yield* means(answer(status, ""))
      assert.isTrue(error instanceof NetworkError && error.transient, String(status))
    }
    for (const status of [400, 405, 406, 418, 451, 501, 304, 300]) {
      const error = yield* means(answer(status, ""))
      assert.isTrue(error instanceof NetworkError && !error.transient, String(status))
    }
  }))

  it.effect("keeps pauses up to the limit, and fails at once beyond it", () => Effect.gen(function*() {
    const short = yield* means(answer(429, codes("TOOMANYREQUESTS"), { "retry-after": "60" }))
    assert.deepInclude(short instanceof NetworkError && { ...short }, { reason: "rate-limited", transient: true, retryAfter: Duration.seconds(60) })
    const long = yield* means(answer(503, "", { "retry-after": "61" }))
    assert.deepInclude(long instanceof NetworkError && { ...long }, { reason: "rate-limited", transient: false })
    assert.include(long.message, "wait 1m 1s")
    const junk = yield* means(answer(503, "", { "retry-after": "later" }))
    assert.deepInclude(junk instanceof NetworkError && { ...junk }, { reason: "server", transient: true })
    assert.notProperty(junk, "retryAfter")
  }))

  it.effect("shows what a registry says on one printable line", () => Effect.gen(function*() {
    const body = JSON.stringify({ errors: [{ code: "X", message: `\u001b[31mred\u202e\n${"y".repeat(999)}` }] })
    const error = yield* means(answer(400, body))
    assert.notMatch(error.message, /\p{C}/u)
    assert.isBelow(error.message.length, 500)
  }))
})
