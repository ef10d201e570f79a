import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { spawnSync } from "node:child_process"
import * as tar from "tar-stream"
import { pipeline } from "node:stream/promises"
import { Readable } from "node:stream"
import * as Layouts from "../../src/archive/Layouts.ts"
import * as TarWriter from "../../src/archive/TarWriter.ts"
import { digestOf } from "../../src/testing/ImageBuilder.ts"

const bytesOf = <E>(members: Iterable<TarWriter.Member<E>>) => Effect.map(Stream.runCollect(TarWriter.stream(members)), (chunks) => Buffer.concat([...chunks]))

/** What another reader sees in the archive. */
const entriesOf = (bytes: Uint8Array) => Effect.promise(async () => {
  const entries: Array<{ readonly name: string; readonly type: string; readonly mode: string; readonly mtime: string | undefined; readonly content: string }> = []
  const extract = tar.extract().on("entry", (header, body, next) => {
    let content = ""
    body.on("data", (chunk) => { if (chunk instanceof Uint8Array) content += Buffer.from(chunk).toString("latin1") })
    body.on("end", () => {
      entries.push({ name: header.name, type: header.type ?? "", mode: (header.mode ?? 0).toString(8), mtime: header.mtime?.toISOString(), content })
      next()
    })
  })
  await pipeline(Readable.from([bytes]), extract)
  return entries
})

describe("TarWriter", () => {
  const Name = Schema.String.check(Schema.isPattern(/^[a-zé]{1,60}(\/[a-zé]{1,60}){0,5}$/))
  it.effect.prop("writes what another reader reads", [Schema.Array(Schema.Tuple([Name, Schema.Uint8Array])), Schema.Natural], Effect.fnUntraced(function*([files, n]) {
    const members = files.map(([name, contents], index): TarWriter.Member => ({
      name, type: "file", mode: 0o644, mtime: n % 2 ** 33,
      contents: index % 2 === 0 ? contents : { size: contents.byteLength, bytes: Stream.fromIterable([contents.subarray(0, 3), contents.subarray(3)]) }
    }))
    const read = yield* entriesOf(yield* bytesOf(members))
    assert.deepStrictEqual(read.map(({ content, name }) => [name, content]), files.map(([name, contents]) => [name, Buffer.from(contents).toString("latin1")]))
  }), { arbitrary: { runs: 40 } })

  it("says what no octal field holds by PAX", () => {
    const header = TarWriter.header({ name: "big", type: "file", mode: 0o644, mtime: 0, contents: { size: 9 * 2 ** 30, bytes: Stream.empty } })
    assert.include(Buffer.from(header).toString("latin1"), "19 size=9663676416\n")
    assert.strictEqual(header.byteLength, 3 * 512)
  })

  it.effect("a file of another length than it says is a defect", Effect.fnUntraced(function*() {
    for (const size of [2, 4]) {
      const exit = yield* Effect.exit(bytesOf([{ name: "f", type: "file", mode: 0o644, mtime: 0, contents: { size, bytes: Stream.make(Buffer.from("abc")) } }]))
      assert.strictEqual(exit._tag, "Failure")
    }
  }))

  it.effect("GNU tar lists it", Effect.fnUntraced(function*() {
    const long = "n".repeat(150)
    const input = yield* bytesOf([
      { name: "d", type: "folder", mode: 0o755, mtime: 1 }, { name: `d/${long}`, type: "file", mode: 0o600, mtime: 1, contents: Buffer.from("x") },
      { name: "d/l", type: "symlink", mode: 0o777, mtime: 1, target: long }
    ])
    const { status, stdout } = spawnSync("tar", ["-tf", "-"], { input, encoding: "utf8" })
    assert.deepStrictEqual([status, stdout], [0, `d/\nd/${long}\nd/l\n`])
  }))
})

describe("archives of Docker 1.9", () => {
  it.effect("have a folder an image, with its time, and repositories last", Effect.fnUntraced(function*() {
    const [one, two] = ["1".repeat(64), "2".repeat(64)]
    const images: ReadonlyArray<Layouts.LegacyWritten<never, never>> = [
      { id: two, json: `{"id":"${two}"}`, created: "0001-01-01T00:00:00Z", layer: { size: 5, bytes: Stream.make(Buffer.from("layer")) } },
      { id: one, json: `{"id":"${one}"}`, created: "2015-09-08T23:30:30.987853054+02:00", layer: new Uint8Array(1024) }
    ]
    const names = new Map([["b", new Map([["v2", two], ["v1", one]])], ["a<", new Map([["latest", one]])]])
    const read = yield* entriesOf(yield* bytesOf(Layouts.legacy(images, names)))
    const then = "2015-09-08T21:30:30.000Z", epoch = "1970-01-01T00:00:00.000Z"
    assert.deepStrictEqual(read.map(({ content, mode, mtime, name, type }) => [name, type, mode, mtime, content.length > 100 ? content.length : content]), [
      [`${one}/`, "directory", "755", then, ""], [`${one}/VERSION`, "file", "644", then, "1.0"], [`${one}/json`, "file", "644", then, `{"id":"${one}"}`],
      [`${one}/layer.tar`, "file", "644", then, 1024],
      [`${two}/`, "directory", "755", epoch, ""], [`${two}/VERSION`, "file", "644", epoch, "1.0"], [`${two}/json`, "file", "644", epoch, `{"id":"${two}"}`],
      [`${two}/layer.tar`, "file", "644", epoch, "layer"],
      ["repositories", "file", "644", epoch, 240]
    ])
    assert.strictEqual(read.at(-1)?.content, `{"a\\u003c":{"latest":"${one}"},"b":{"v1":"${one}","v2":"${two}"}}\n`)
    assert.strictEqual((yield* entriesOf(yield* bytesOf(Layouts.legacy(images, new Map())))).at(-1)?.name, `${two}/layer.tar`)
  }))

  it.effect("are the same bytes at any time", Effect.fnUntraced(function*() {
    const id = "1".repeat(64)
    const bytes = yield* bytesOf(Layouts.legacy([{ id, json: "{}", created: "2015-09-08T21:30:30Z", layer: new Uint8Array(1024) }], new Map([["a", new Map([["b", id]])]])))
    assert.strictEqual(digestOf(bytes), "sha256:777fd5b44db9ee4a04da5e3285beeed1e867cd4fddd589e58b2e8967cb97b986")
  }))
})
