import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { mkdirSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import * as Pull from "../src/Pull.ts"
import { NetworkError } from "../src/registry/Errors.ts"
import { direct, Routes } from "../src/registry/route/Route.ts"
import * as Walk from "../src/registry/route/Walk.ts"
import { Fault, ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const { image, layer, noise } = ImageBuilder
const built = image({ layers: Array.from({ length: 6 }, (_, at) => layer([{ path: `f${at}`, contents: noise(`m${at}`, 2000) }])) })
const platform = "linux/amd64"

/** A host that takes connections and says nothing. */
const silent = Effect.acquireRelease(Effect.callback<{ readonly host: string; readonly taken: () => number; readonly close: () => void }>((resume) => {
  const sockets: Array<{ destroy: () => void }> = []
  const server = createServer((socket) => {
    socket.on("error", () => {})
    sockets.push(socket)
  })
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    resume(Effect.succeed({
      host: `127.0.0.1:${typeof address === "object" ? address?.port : 0}`, taken: () => sockets.length,
      close: () => { for (const socket of sockets) socket.destroy(); server.close() }
    }))
  })
}), ({ close }) => Effect.sync(close))

/** A pull of the image from `origin` with `mirror` before it for content; gives its warnings. */
const pulled = Effect.fnUntraced(function*(origin: TestRegistry, mirror: string) {
  const folder = yield* temporary
  const hosts = join(folder, "hosts", origin.host)
  mkdirSync(hosts, { recursive: true })
  writeFileSync(join(hosts, "hosts.toml"), `server = "${origin.url}"\n[host."${mirror}"]\ncapabilities = ["pull"]\n`)
  return yield* Pull.events(`${origin.host}/app:1`, { platform }).pipe(
    Stream.filter(({ _tag }) => _tag === "warning"), Stream.runCollect, Effect.tap(() => assertSound(folder)),
    Effect.provide(towline(folder, { places: { hosts: [join(folder, "hosts")] }, limits: { connect: "500 millis", headers: "700 millis", idle: "700 millis" } })))
})

describe("over a whole pull", () => {
  it.live("a silent mirror costs one connection and one wait for it, whatever the blobs", () => Effect.gen(function*() {
    const origin = yield* TestRegistry.make()
    origin.put("app", "1", built)
    for (const scheme of ["https", "http"]) {
      const { host, taken } = yield* silent
      const warnings = yield* pulled(origin, `${scheme}://${host}`)
      assert.strictEqual(taken(), 1, scheme)
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0]?._tag === "warning" ? warnings[0].message : "", /is left out from now on: no (?:connection in time|answer in 700ms)/)
    }
  }).pipe(Effect.scoped))

  it.live("a lying mirror is asked for one blob, and left out with a warning", () => Effect.gen(function*() {
    const origin = yield* TestRegistry.make()
    const liar = yield* TestRegistry.make({ script: [{ match: { kind: "blob" }, do: Fault.flip(1) }] })
    for (const one of [origin, liar]) one.put("app", "1", built)
    const warnings = yield* pulled(origin, liar.url)
    assert.strictEqual(liar.find({ kind: "blob" }).length, 1)
    assert.strictEqual(warnings.length, 1)
    assert.match(warnings[0]?._tag === "warning" ? warnings[0].message : "", /left out from now on: what it sent has another digest or size/)
  }).pipe(Effect.scoped))

  it.effect("for as long as it takes, and asked again by a later one", () => Effect.gen(function*() {
    const walk = yield* Walk.make()
    const repository = { domain: "registry.example", path: "app" }
    let asked = 0
    const ask = walk.first(repository, "content", ({ host, mirror }) => Effect.suspend(() => {
      if (!mirror) return Effect.void
      asked++
      return Effect.fail(new NetworkError({ host, reason: "refused", transient: true, phase: "connect", detail: "the connection was refused" }))
    }))
    const long = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
      yield* walk.listen(() => {})
      for (let minute = 0; minute < 60; minute++) yield* Effect.andThen(ask, Effect.sleep("1 minute"))
    })), { startImmediately: true })
    yield* TestClock.adjust("1 hour")
    yield* Fiber.join(long)
    assert.strictEqual(asked, 1)
    yield* ask
    assert.strictEqual(asked, 2)
  }).pipe(Effect.provideService(Routes, {
    of: (repository) => Effect.succeed([{ ...direct(repository, []), host: "mirror.example", mirror: true, why: "a test" }, direct(repository, [])]),
    host: () => Effect.die("not asked"), names: () => Effect.succeed([]), trust: Effect.succeed({ authorities: [], keychain: false })
  })))
})
