import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, type Scope } from "effect"
import * as Download from "../../src/Download.ts"
import * as Digest from "../../src/image/Digest.ts"
import type { RegistryFailure } from "../../src/registry/Errors.ts"
import { type ManifestAnswer, Registry } from "../../src/registry/Registry.ts"
import type { StoreError } from "../../src/store/disk/Disk.ts"
import { V1Registry } from "../../src/registry/V1Registry.ts"
import * as Fault from "../../src/testing/server/Fault.ts"
import { noise } from "../../src/testing/ImageBuilder.ts"
import { legacy } from "../../src/testing/old/LegacyImage.ts"
import { TestRegistry } from "../../src/testing/server/TestRegistry.ts"
import { V1Server } from "../../src/testing/old/V1Server.ts"
import { client, descriptorOf } from "./Client.ts"

const raw = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", padding: "x".repeat(300) }))
const digest = Digest.Digest.make(descriptorOf(raw).digest)
const layer = noise("table", 3000)
const blob = descriptorOf(layer)
const { images } = legacy({ steps: [{ tar: [{ path: "base", contents: "base" }] }, { tar: [{ path: "top", contents: "top" }] }] })
const top = images.at(-1)?.id ?? ""

type Services = Registry | V1Registry | Scope.Scope
type Asked = (host: string) => Effect.Effect<unknown, RegistryFailure | ManifestAnswer | StoreError, Services>
const repositoryOf = (domain: string) => ({ domain, path: "team/app" })
const session = (host: string) => Effect.flatMap(V1Registry, (registry) => Effect.flatMap(registry.ping(repositoryOf(host)), (index) => registry.session(repositoryOf(host), index)))

/** What faults fall on: which requests, about how many bytes their answer has, and who asks; `old`: a v1 registry. */
const objects = {
  tag: { match: { kind: "manifest", name: "1" }, size: raw.byteLength, ask: (host) => Registry.use((one) => Effect.map(one.manifest(repositoryOf(host), "1"), ({ digest }) => digest)) },
  manifest: { match: { kind: "manifest", name: digest }, size: raw.byteLength, ask: (host) => Registry.use((one) => Effect.map(one.manifest(repositoryOf(host), digest), ({ digest }) => digest)) },
  blob: {
    match: { kind: "blob" }, size: layer.byteLength,
    ask: (host) => Effect.map(Download.small(repositoryOf(host), blob, 1 << 20, (bytes) => descriptorOf(bytes).digest), (bytes) => Buffer.from(bytes).toString("base64"))
  },
  token: { match: { kind: "token" }, size: 200, ask: (host) => Registry.use((one) => Effect.map(one.manifest(repositoryOf(host), "1"), ({ digest }) => digest)) },
  list: { match: { kind: "tags" }, size: 30, ask: (host) => Registry.use((one) => one.tags(repositoryOf(host))) },
  // The body of a refusal, whatever becomes of it: what it means is in the status.
  error: { match: { kind: "manifest", name: "none" }, size: 100, ask: (host) => Registry.use((one) => Effect.map(Effect.flip(one.manifest(repositoryOf(host), "none")), ({ _tag }) => _tag)) },
  ping: { match: { kind: "ping" }, size: 2, ask: (host) => Registry.use((one) => Effect.map(one.ping(repositoryOf(host), `http://${host}`), ({ v2 }) => v2)) },
  images: { old: true, match: { kind: "images" }, size: 150, ask: (host) => Effect.map(session(host), ({ images }) => images) },
  tags: { old: true, match: { kind: "tags" }, size: 66, ask: (host) => Effect.flatMap(session(host), (one) => one.tag("1")) },
  ancestry: { old: true, match: { kind: "ancestry" }, size: 130, ask: (host) => Effect.flatMap(session(host), (one) => one.first((endpoint) => endpoint.ancestry(top))) },
  json: { old: true, match: { kind: "json" }, size: 300, ask: (host) => Effect.flatMap(session(host), (one) => one.first((endpoint) => Effect.map(endpoint.json(top), ({ raw }) => Buffer.from(raw).toString()))) }
} as const satisfies Record<string, { readonly old?: boolean; readonly match: Fault.Match; readonly size: number; readonly ask: Asked }>
type Name = keyof typeof objects
const names = ["tag", "manifest", "blob", "token", "list", "error", "ping", "images", "tags", "ancestry", "json"] as const
const modern = ["tag", "manifest", "blob", "token", "list"] as const
const old = ["images", "tags", "ancestry", "json"] as const
/** Documents that no digest vouches for. */
const bare = ["list", "token", ...old] as const
/** What is asked again; a ping is not, since it is only made after a failure. */
const patient = [...modern, "error", ...old] as const

type Outcome = "exact" | ReadonlyArray<string>
interface Row {
  readonly name: string
  readonly do: (size: number) => Fault.Action | ReadonlyArray<Fault.Action>
  readonly on: ReadonlyArray<Name>
  readonly once?: Outcome
  readonly always?: Outcome
}
const network: Outcome = ["NetworkError"]
const refused: Outcome = ["AnswerRefused"]
const { chunked, claimLength, contentEncoding, cutAt, drip, drop, extraBytes, html, redirect, setHeaders, stall, status, truncateLength } = Fault

/** A fault that passes: survived once by all that ask again, and told as the network's where it stays. */
const passing = (name: string, act: Row["do"], stays: ReadonlyArray<Name> = patient): ReadonlyArray<Row> =>
  [{ name, do: act, on: patient, once: "exact" }, { name, do: act, on: stays.filter((one) => one !== "error"), always: network }, { name, do: act, on: ["ping"], once: ["NetworkError"] }]

const rows: ReadonlyArray<Row> = [
  ...passing("dropped", () => drop), ...passing("no headers", () => stall("headers", Infinity), ["list", "token", "images", "json"]),
  // What is only wrong in the body: a ping and the body of an error are not read for more than they say.
  ...([["cut at 0", () => cutAt(0)], ["cut in the middle", (n: number) => cutAt(n >> 1)], ["reset in the middle", (n: number) => cutAt(n >> 1, { reset: true })],
    ["chunked without an end", () => [chunked(false), cutAt(9)]], ["Content-Length too long", () => claimLength(9000)]] as const).flatMap(([name, act]): ReadonlyArray<Row> => [
    { name, do: act, on: patient, once: "exact" }, { name, do: act, on: ["error", "ping"], always: "exact" }, { name, do: act, on: [...bare, "tag", "manifest"], always: network }
  ]),
  { name: "silent in the body", do: () => stall(9, Infinity), on: patient, once: "exact" },
  { name: "silent in the body", do: () => stall(9, Infinity), on: ["list", "token", "ancestry", "tag"], always: network },
  { name: "silent in the body", do: () => stall(1, Infinity), on: ["error", "ping"], always: "exact" },
  { name: "dripping", do: () => drip(60), on: [...modern, ...old], once: "exact" },
  ...[500, 502, 503, 504, 429, 408].flatMap((code) => passing(`status ${code}`, () => status(code)).filter(({ on }) => !on.includes("ping"))),
  ...["0", new Date(Date.UTC(2001, 0, 1)).toUTCString(), "-5", "1.5", "soon", "99999999999999999999x", ""].map((text): Row =>
    ({ name: `Retry-After: ${text}`, do: () => status(503, { "retry-after": text }), on: [...modern, ...old], once: "exact" })),
  ...["61", "86400", "9".repeat(400), new Date(Date.UTC(2100, 0, 1)).toUTCString()].map((text): Row =>
    ({ name: `Retry-After: ${text.slice(0, 30)}`, do: () => status(429, { "retry-after": text }), on: [...modern, ...old], once: network })),
  { name: "status 500 to a ping", do: () => status(500), on: ["ping"], always: "exact" },
  { name: "status 501", do: () => status(501), on: [...modern, ...old], once: network },
  { name: "status 403", do: () => status(403), on: [...modern, ...old], once: ["Unauthorized"] },
  { name: "status 401 without a challenge", do: () => status(401), on: ["tag", "manifest", "blob", "token", "list"], once: ["Unauthorized"] },
  { name: "status 404", do: () => status(404), on: ["tag", "manifest", "blob", "list", ...old], once: ["NotFound"] },
  { name: "status 404", do: () => status(404), on: ["token"], once: network },
  { name: "status 204", do: () => status(204, {}, ""), on: [...modern, ...old], once: "exact", always: network },
  { name: "status 304", do: () => status(304, {}, ""), on: [...modern, ...old], once: network },
  // What is no document.
  { name: "HTML", do: () => html, on: ["tag", "manifest"], always: refused },
  { name: "HTML", do: () => html, on: bare, once: "exact", always: ["AnswerRefused", "NetworkError"] },
  { name: "empty", do: () => truncateLength(0), on: bare, once: "exact", always: ["AnswerRefused", "NetworkError"] },
  { name: "too short", do: (n) => truncateLength(n >> 1), on: bare, once: "exact", always: ["AnswerRefused", "NetworkError"] },
  { name: "too short, and nothing says what its digest is", do: (n) => [truncateLength(n >> 1), setHeaders({ "docker-content-digest": null })], on: ["tag", "token"], once: "exact", always: refused },
  { name: "one byte more", do: () => extraBytes(1), on: bare, once: "exact", always: ["AnswerRefused", "NetworkError"] },
  { name: "endless", do: () => extraBytes(Infinity), on: bare, always: ["AnswerRefused", "NetworkError"] },
  { name: "HTML", do: () => html, on: ["ping"], always: "exact" },
  { name: "a page of 404", do: () => status(404, { "content-type": "text/html" }, "<html>not found</html>"), on: ["error"], always: "exact" },
  { name: "endless", do: () => extraBytes(Infinity), on: ["error", "ping"], always: "exact" },
  { name: "Content-Length too short", do: () => claimLength(9), on: [...bare, "tag", "manifest"], once: "exact" },
  // Forms.
  { name: "chunked", do: () => chunked(), on: names, always: "exact" },
  { name: "no Content-Type", do: () => setHeaders({ "content-type": null }), on: names, always: "exact" },
  ...(["gzip", "deflate", "br"] as const).flatMap((coding): ReadonlyArray<Row> => [
    { name: `encoded by ${coding}`, do: () => contentEncoding(coding), on: names, always: "exact" },
    { name: `said to be encoded by ${coding}`, do: () => contentEncoding(coding, false), on: [...old, "tag", "manifest"], always: ["AnswerRefused", "NetworkError"] },
    { name: `said to be encoded by ${coding}`, do: () => contentEncoding(coding, false), on: ["error", "ping", "blob", "list", "token"], always: "exact" }
  ]),
  { name: "of unknown encoding", do: () => setHeaders({ "content-encoding": "lzw" }), on: [...old, "tag", "manifest"], always: ["AnswerRefused", "NetworkError"] },
  { name: "a header of 100 kB", do: () => setHeaders({ "x-long": "x".repeat(100_000) }), on: names.filter((one) => one !== "error"), once: network },
  // Redirects.
  { name: "redirected to a file", do: () => redirect("file:///etc/passwd"), on: [...modern, ...old], once: network },
  { name: "redirected to no URL", do: () => redirect("http://[::1"), on: [...modern, ...old], once: network },
  { name: "redirected without end", do: () => redirect("{url}", 302), on: ["tag", "manifest", "blob", "list"], always: network },
  { name: "redirected nowhere", do: () => status(302, {}, ""), on: [...modern, ...old], once: network },
  { name: "redirected once, within the host, by a path", do: () => redirect("{url}?once=1", 301), on: ["tag", "manifest", "blob", "list"], once: "exact" }
]

const cases = rows.flatMap((row) => row.on.flatMap((on) => (["once", "always"] as const).flatMap((times) => {
  const outcome = row[times]
  return outcome === undefined ? [] : [{ title: `${on}: ${row.name}, ${times}`, row, on, times, outcome }]
})))

/** A server that has the object: v2 with tokens for one user, or v1 with the same. */
const serving = (on: Name) => Effect.gen(function*() {
  if ("old" in objects[on]) return (yield* V1Server.make({ users: { ada: "hush" }, tokens: "plain" })).put("team/app", "1", images)
  // Requests without credentials meet no fault.
  const made = yield* TestRegistry.make(on === "ping" ? {} : { auth: { kind: "bearer", users: { ada: "hush" } } })
  made.addBlob("team/app", layer)
  made.addManifest("team/app", "1", raw, "application/vnd.oci.image.manifest.v1+json")
  return made
})

const run = Effect.fnUntraced(function*({ on, row, times }: (typeof cases)[number], faulty: boolean) {
  const { match, size }: { readonly match: Fault.Match; readonly size: number } = objects[on]
  const ask: Asked = objects[on].ask
  const made = yield* serving(on)
  if (faulty) made.script([{ match: times === "once" ? { ...match, nth: 1 } : match, do: row.do(size) }])
  const began = performance.now()
  const result = yield* Effect.result(ask(made.host)).pipe(Effect.scoped, Effect.provide(client({
    limits: { headers: "1 second", idle: "600 millis", minimumRate: 20_000, rateWindow: "200 millis" }, credentials: { [made.host]: { username: "ada", password: "hush" } } })))
  return { result, took: performance.now() - began, met: made.find(match).length > 0 }
}, Effect.scoped)

describe("a fault on any object", () => {
  // Every fourth cell; TOWLINE_FAULTS=all takes all of them.
  const chosen = cases.filter((_, at) => at % 4 === 2 || process.env["TOWLINE_FAULTS"] === "all")
  const parts = 2
  for (let part = 0; part < parts; part++) it.live(`is survived exactly, or told as what it is, in bounded time (${part + 1} of ${parts})`, () => Effect.gen(function*() {
    const failures: Array<string> = []
    const expected = new Map<Name, unknown>()
    const mine = chosen.filter((_, at) => at % parts === part)
    for (const on of names) {
      const one = mine.find((other) => other.on === on)
      if (one !== undefined) expected.set(on, yield* Effect.fromResult((yield* run(one, false)).result))
    }
    yield* Effect.forEach(mine, Effect.fnUntraced(function*(one) {
      const { met, result, took } = yield* run(one, true)
      const wanted = one.outcome === "exact" ? "exact" : one.outcome.join(" or ")
      const got: string = Result.isSuccess(result) ? JSON.stringify(result.success) === JSON.stringify(expected.get(one.on)) ? "exact" : `wrong: ${JSON.stringify(result.success)}` : "_tag" in result.failure ? result.failure._tag : "another answer"
      const told = Result.isFailure(result) && "message" in result.failure ? result.failure.message : ""
      if (!(one.outcome === "exact" ? got === "exact" : one.outcome.includes(got))) failures.push(`${one.title}: ${got} instead of ${wanted}: ${told.slice(0, 200)}`)
      else if (told !== "" && (!told.includes("; ") || /undefined|\[object|hush/.test(told))) failures.push(`${one.title}: the sentence is ${told}`)
      if (took > 9000) failures.push(`${one.title}: it took ${Math.round(took)} ms`)
      if (!met) failures.push(`${one.title}: the fault did not happen`)
    }), { concurrency: 8, discard: true })
    assert.deepStrictEqual(failures, [])
  }), 60_000)
})
