import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Fault, ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { assertAnonymous, type Outcome, pulls, reference } from "./outcome.ts"

const { image, index, layer, noise } = ImageBuilder
const size = 30_000
const built = image({ layers: [
  layer([{ path: "noise", contents: noise("faults", size) }], { compression: "none" }),
  layer([{ path: "gzip/file", contents: "second" }]),
  layer([{ path: "zstd/file", contents: noise("third", 9000) }], { compression: "zstd" })
] })
const many = index([built, image({ layers: [[{ path: "other", contents: "" }]], platform: { os: "linux", architecture: "s390x" } })])
const digestAt = (at: number) => built.layers[at]?.digest ?? ""
const lengthAt = (at: number) => built.layers[at]?.size ?? 0

/** What a fault falls on, and how long it is. */
const objects = {
  tag: { match: { kind: "manifest", name: "1" }, size: many.manifest.raw.byteLength },
  manifest: { match: { kind: "manifest", name: built.manifest.descriptor.digest }, size: built.manifest.raw.byteLength },
  config: { match: { kind: "blob", name: built.config.descriptor.digest }, size: built.config.raw.byteLength },
  layer: { match: { kind: "blob", name: digestAt(0) }, size: lengthAt(0) },
  gzip: { match: { kind: "blob", name: digestAt(1) }, size: lengthAt(1) },
  token: { match: { kind: "token" }, size: 400 }
} as const
type Name = keyof typeof objects

const { chunked, claimLength, contentEncoding, cutAt, drip, drop, extraBytes, flip, html, redirect, setHeaders, stall, status, truncateLength, wrongRange } = Fault
const documents = ["tag", "manifest"] as const
const blobs = ["config", "layer", "gzip"] as const
const verified = [...documents, ...blobs]
const all = [...verified, "token"] as const
const late = new Date(Date.UTC(2100, 0, 1)).toUTCString()
const past = new Date(Date.UTC(2001, 0, 1)).toUTCString()

/** A fault, what it falls on, what becomes of a pull that meets it once, and what of one that meets it always. */
interface Row {
  readonly name: string
  readonly on: ReadonlyArray<Name>
  readonly do: (size: number, others: Others) => Fault.Action | ReadonlyArray<Fault.Action>
  /** Left out: not tried. */
  readonly once?: Outcome
  readonly always?: Outcome
  /** Cut first, in the middle, so that the fault falls on what comes next: a Range request of a blob. */
  readonly afterCut?: boolean
}
interface Others { readonly other: string }

const network: Outcome = ["NetworkError"]
const refused: Outcome = ["AnswerRefused"]
const damaged: Outcome = ["VerifyError"]

const rows: ReadonlyArray<Row> = [
  // Lost connections.
  { name: "dropped", on: all, do: () => drop, once: "ok", always: network },
  { name: "cut at 0", on: all, do: () => cutAt(0), once: "ok", always: network },
  { name: "cut at 1", on: all, do: () => cutAt(1), once: "ok" },
  { name: "cut in the middle", on: verified, do: (n) => cutAt(n >> 1), once: "ok" },
  { name: "reset in the middle", on: all, do: (n) => cutAt(n >> 1, { reset: true }), once: "ok" },
  { name: "cut before the last byte", on: verified, do: (n) => cutAt(n - 1), once: "ok" },
  { name: "cut in the middle, again and again", on: [...documents, "token"], do: () => cutAt(50), always: network },
  // Silence and slowness.
  { name: "no headers", on: all, do: () => stall("headers", Infinity), once: "ok" },
  { name: "no headers, ever", on: ["layer", "tag", "token"], do: () => stall("headers", Infinity), always: network },
  { name: "silent in the body", on: all, do: (n) => stall(Math.min(90, n >> 1), Infinity), once: "ok" },
  { name: "silent after one byte, whatever is asked", on: ["layer", "tag", "token"], do: () => stall(1, Infinity), always: network },
  { name: "slow", on: verified, do: () => drip(200), once: "ok" },
  { name: "slow, always", on: ["layer"], do: () => drip(1000), always: network },
  // Other statuses.
  ...[500, 502, 503, 504, 429, 408].map((code): Row => ({ name: `status ${code}`, on: all, do: () => status(code), once: "ok", always: network })),
  { name: "Retry-After in seconds", on: all, do: () => status(429, { "retry-after": "0" }), once: "ok" },
  { name: "Retry-After of a past date", on: verified, do: () => status(503, { "retry-after": past }), once: "ok", always: network },
  { name: "Retry-After of junk", on: verified, do: () => status(503, { "retry-after": "soon; -1" }), once: "ok", always: network },
  ...["86400", late, "9".repeat(400)].map((text): Row => ({
    name: `Retry-After of ${text.slice(0, 20)}`, on: ["tag", "layer", "token"], do: () => status(429, { "retry-after": text }), once: network
  })),
  { name: "status 501", on: verified, do: () => status(501), once: network },
  { name: "status 404", on: verified, do: () => status(404), once: ["NotFound"] },
  { name: "status 403", on: all, do: () => status(403), once: ["Unauthorized"] },
  { name: "status 401 without a challenge", on: verified, do: () => status(401), once: ["Unauthorized"] },
  { name: "status 204", on: verified, do: () => status(204, {}, ""), once: "ok", always: network },
  { name: "status 206 of nothing asked", on: verified, do: () => status(206, {}, "part"), once: "ok", always: network },
  { name: "status 304", on: verified, do: () => status(304, {}, ""), once: network },
  // Redirects.
  { name: "redirected within the host, without end", on: all.filter((one) => one !== "token"), do: () => redirect("{url}"), always: network },
  { name: "redirected to another port", on: verified, do: (_, { other }) => redirect(`${other}{url}`), always: "ok" },
  { name: "redirected to a file", on: all, do: () => redirect("file:///etc/passwd"), always: network },
  { name: "redirected to no URL", on: all, do: () => redirect("http://[::1"), always: network },
  { name: "redirected to nobody", on: verified, do: () => redirect("http://127.0.0.1:1/{url}"), once: "ok", always: network },
  // Something else instead.
  { name: "an HTML page", on: documents, do: () => html, always: refused },
  { name: "an HTML page", on: ["token"], do: () => html, always: refused },
  { name: "an HTML page", on: blobs, do: () => html, once: "ok", always: ["NetworkError", "VerifyError"] },
  { name: "empty", on: documents, do: () => truncateLength(0), always: refused },
  { name: "empty", on: blobs, do: () => truncateLength(0), once: "ok", always: ["NetworkError", "VerifyError"] },
  { name: "too short", on: documents, do: (n) => truncateLength(n - 1), once: "ok", always: damaged },
  { name: "too short", on: blobs, do: (n) => truncateLength(n - 1), once: "ok" },
  { name: "a byte flipped", on: verified, do: (n) => flip(n >> 1, 3), once: "ok", always: damaged },
  { name: "the last byte flipped", on: verified, do: (n) => flip(n - 1), once: "ok" },
  { name: "one byte more", on: verified, do: () => extraBytes(1), once: "ok", always: damaged },
  { name: "200 kB more", on: verified, do: () => extraBytes(200_000), once: "ok" },
  { name: "endless", on: documents, do: () => extraBytes(Infinity), always: refused },
  { name: "endless", on: blobs, do: () => extraBytes(Infinity), once: "ok", always: damaged },
  { name: "endless", on: ["token"], do: () => extraBytes(Infinity), always: refused },
  // What headers say.
  { name: "Content-Length too long", on: documents, do: (n) => claimLength(n + 9), once: "ok", always: network },
  { name: "Content-Length too long", on: blobs, do: (n) => claimLength(n + 9), once: "ok", always: "ok" },
  { name: "Content-Length too short", on: documents, do: (n) => claimLength(n - 9), once: "ok", always: damaged },
  { name: "Content-Length too short", on: blobs, do: (n) => claimLength(n - 9), once: "ok" },
  { name: "chunked", on: all, do: () => chunked(), always: "ok" },
  { name: "chunked without an end", on: documents, do: () => chunked(false), once: "ok", always: network },
  { name: "chunked without an end", on: blobs, do: () => chunked(false), always: "ok" },
  { name: "Content-Type of something else", on: documents, do: () => setHeaders({ "content-type": "application/vnd.example+json" }), always: ["ManifestRefused"] },
  { name: "Content-Type of another schema", on: documents, do: () => setHeaders({ "content-type": ImageBuilder.mediaTypes.docker.manifest }), always: ["ManifestRefused"] },
  { name: "no Content-Type", on: verified, do: () => setHeaders({ "content-type": null }), always: "ok" },
  { name: "Content-Type text/html", on: blobs, do: () => setHeaders({ "content-type": "text/html" }), always: "ok" },
  { name: "wrong Docker-Content-Digest", on: documents, do: () => setHeaders({ "docker-content-digest": digestAt(1) }), once: "ok", always: damaged },
  { name: "no Docker-Content-Digest", on: verified, do: () => setHeaders({ "docker-content-digest": null }), always: "ok" },
  { name: "a header of 100 kB", on: all, do: () => setHeaders({ "x-long": "x".repeat(100_000) }), once: network },
  ...(["gzip", "deflate", "br"] as const).flatMap((coding): ReadonlyArray<Row> => [
    { name: `encoded by ${coding}`, on: verified, do: () => contentEncoding(coding), always: "ok" },
    { name: `said to be encoded by ${coding}`, on: documents, do: () => contentEncoding(coding, false), always: refused },
    { name: `said to be encoded by ${coding}`, on: blobs, do: () => contentEncoding(coding, false), always: "ok" },
    { name: `said to be encoded by ${coding}, chunked`, on: blobs, do: () => [contentEncoding(coding, false), chunked()], once: "ok" },
    { name: `encoded by ${coding} and cut`, on: ["layer"], do: () => [contentEncoding(coding), cutAt(1000)], once: "ok" }
  ]),
  { name: "of unknown encoding", on: documents, do: () => setHeaders({ "content-encoding": "lzw" }), always: refused },
  { name: "of unknown encoding", on: blobs, do: () => [setHeaders({ "content-encoding": "lzw" }), chunked()], always: refused },
  // Wrong answers to a Range request.
  ...(["ignore", "lie-start", "lie-total", "lie-bytes", "no-header", "416", "multipart", "short"] as const).map((how): Row =>
    ({ name: `range: ${how}`, on: blobs, do: () => wrongRange(how), once: "ok", always: "ok", afterCut: true })),
  { name: "range: other headers of the cut", on: ["layer"], do: () => [extraBytes(50), chunked()], once: "ok", afterCut: true },
  { name: "range: status 404", on: ["layer"], do: () => status(404), once: ["NotFound"], afterCut: true },
  { name: "range: status 500", on: ["layer"], do: () => status(500), once: "ok", always: network, afterCut: true },
  { name: "range: redirected", on: ["layer"], do: (_, { other }) => redirect(`${other}{url}`), always: "ok", afterCut: true },
  { name: "range: flipped", on: ["layer", "config"], do: (n) => flip(n - 2), once: "ok", afterCut: true }
]

/** One request meets the fault, or all do; with `afterCut` the first is cut, and the fault falls on those that follow. */
const scriptOf = (row: Row, name: Name, times: "once" | "always", others: Others): ReadonlyArray<Fault.Rule> => {
  const { match, size } = objects[name]
  const act = row.do(size, others)
  if (row.afterCut !== true) return [{ match: times === "once" ? { ...match, nth: 1 } : match, do: act }]
  return [
    { match: { ...match, nth: 1 }, do: cutAt(size >> 1) },
    { match: { ...match, ranged: true, ...(times === "once" ? { nth: 1 } : {}) }, do: act }
  ]
}

const cases = rows.flatMap((row) => row.on.flatMap((on) => (["once", "always"] as const).flatMap((times) => {
  const outcome = row[times]
  return outcome === undefined ? [] : [{ title: `${on}: ${row.name}, ${times}`, row, on, times, outcome }]
})))

/** A registry with tokens for one user, and another that holds the same. */
const registries = Effect.gen(function*() {
  const registry = yield* TestRegistry.make({ auth: { kind: "bearer", users: { sailor: "knot" } } })
  const other = yield* TestRegistry.make()
  for (const one of [registry, other]) one.put("app", "1", many)
  return { registry, other }
})

describe("a pull that meets a fault", () => {
  // Every fourth row; TOWLINE_FAULTS=all takes all of them.
  const chosen = cases.filter((_, at) => at % 4 === 1 || process.env["TOWLINE_FAULTS"] === "all")
  const parts = 6
  for (let part = 0; part < parts; part++) {
    it.live(`succeeds exactly or fails cleanly (${part + 1} of ${parts})`, () => Effect.gen(function*() {
      const mine = chosen.filter((_, at) => at % parts === part)
      const failures: Array<string> = []
      const { registry } = yield* registries
      const expected = yield* reference(registry, "app:1")
      yield* Effect.forEach(mine, Effect.fnUntraced(function*({ title, row, on, times, outcome }) {
        const { registry, other } = yield* registries
        const others = { other: other.url }
        registry.script(scriptOf(row, on, times, others))
        let acted: number | undefined
        const calm = () => {
          acted = registry.runs.at(-1)
          registry.script([])
        }
        yield* pulls(registry, "app:1", outcome, { expected, calm }).pipe(
          Effect.andThen(Effect.sync(() => {
            assertAnonymous(other)
            // A cut may take all that came before it along, and then there is no range to ask for.
            if (row.afterCut !== true) assert.isAbove(acted ?? registry.runs.at(-1) ?? 0, 0, "the fault happened")
            if (outcome === "ok") assert.isBelow(registry.find(objects[on].match).length, 18, "requests")
          })),
          Effect.catchCause((cause) => Effect.sync(() => { failures.push(`${title}: ${String(cause).slice(0, 600)}`) }))
        )
      }, Effect.scoped), { concurrency: 6, discard: true })
      assert.deepStrictEqual(failures, [])
    }).pipe(Effect.scoped), 120_000)
  }

  it.live("does not count bytes that came before as new, where ranges are ignored and cuts go to and fro", () => Effect.gen(function*() {
    const { registry } = yield* registries
    const expected = yield* reference(registry, "app:1")
    const { match } = objects.layer
    const odd = [...Array(50).keys()].map((n) => 2 * n + 1)
    registry.script([
      { match, do: wrongRange("ignore") }, { match: { ...match, nth: odd }, do: cutAt(20_000, { reset: true }) }, { match, do: stall(10_000, 20) },
      { match: { ...match, nth: odd.map((n) => n + 1) }, do: cutAt(10_000) }
    ])
    const before = registry.find(match).length
    let times = 0
    yield* pulls(registry, "app:1", network, { expected, calm: () => {
      times = registry.find(match).length - before
      registry.script([])
    } })
    assert.isBelow(times, 12)
  }).pipe(Effect.scoped), 30_000)

  it.live("goes on with new tokens where the old expire between requests, or are revoked in its middle", () => Effect.gen(function*() {
    for (const [expiresIn, claimExpiresIn] of [[0.08, 300], [0.08, undefined], [300, 1]] as const) {
      const registry = yield* TestRegistry.make({ auth: { kind: "bearer", users: { sailor: "knot" }, expiresIn, ...(claimExpiresIn === undefined ? {} : { claimExpiresIn }) } })
      registry.put("app", "1", many)
      const expected = yield* reference(registry, "app:1")
      registry.script([
        { match: { kind: "manifest" }, do: stall("headers", 60) },
        { match: { ...objects.layer.match, nth: [1, 2, 3] }, do: [stall(5000, 60), cutAt(5000)] }
      ])
      yield* pulls(registry, "app:1", "ok", { expected })
      const times = registry.find(objects.layer.match).filter(({ status }) => status !== 401).length
      assert.strictEqual(times, 5, "one of them is the undisturbed pull's")
    }
  }).pipe(Effect.scoped), 30_000)

  it.live("does not follow from https to plain HTTP, and takes no secret to another port by https", () => Effect.gen(function*() {
    const registry = yield* TestRegistry.make({ tls: true, auth: { kind: "basic", users: { sailor: "knot" } } })
    const plain = yield* TestRegistry.make()
    for (const one of [registry, plain]) one.put("app", "1", many)
    const expected = yield* reference(registry, "app:1")
    for (const on of verified) {
      registry.script([{ match: objects[on].match, do: redirect(`${plain.url}{url}`) }])
      yield* pulls(registry, "app:1", network, { expected, calm: () => registry.script([]) })
    }
    assert.deepStrictEqual(plain.requests, [])
  }).pipe(Effect.scoped), 30_000)
})
