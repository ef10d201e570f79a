import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Load from "../src/Load.ts"
import { exitCode, exitCodes, sentence } from "../src/main/Run.ts"
import { Hub } from "../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../src/progress/PullEvent.ts"
import { Graph } from "../src/store/Graph.ts"
import * as Archive from "../src/testing/Archive.ts"
import { type Built, digestOf, type Fields, image, mediaTypes } from "../src/testing/ImageBuilder.ts"
import { documents, type Shelf } from "./documents.ts"
import { assertSound, temporary, towline } from "./harness.ts"

/** An OCI archive of what is put into it; the tag's mediaType is the one a registry would send. */
class Layout implements Shelf {
  private readonly blobs = new Map<string, Uint8Array>()
  private readonly named: Array<Fields> = []

  put(_repository: string, tag: string | undefined, { blobs, manifest, manifests }: Built): void {
    for (const [digest, { raw }] of manifests) this.blobs.set(digest, raw)
    for (const [digest, body] of blobs) if (body instanceof Uint8Array) this.blobs.set(digest, body)
    if (tag !== undefined) this.name(tag, manifest.raw, manifest.descriptor.mediaType)
  }

  addManifest(_repository: string, tag: string | undefined, raw: Uint8Array, mediaType: string): void {
    this.blobs.set(digestOf(raw), raw)
    if (tag !== undefined) this.name(tag, raw, mediaType)
  }

  addBlob(_repository: string, body: Uint8Array) {
    const digest = digestOf(body)
    this.blobs.set(digest, body)
    return digest
  }

  /** `change` makes other entries of those that its index has. */
  archive(change: (entry: Fields) => ReadonlyArray<Fields> = (entry) => [entry]): Buffer {
    return Archive.archive([
      { path: "oci-layout", contents: `{"imageLayoutVersion":"1.0.0"}` },
      { path: "index.json", contents: JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.oci.index, manifests: this.named.flatMap(change) }) },
      ...[...this.blobs].map(([digest, contents]) => ({ path: `blobs/${digest.replace(":", "/")}`, contents }))
    ])
  }

  private name(tag: string, raw: Uint8Array, mediaType: string): void {
    this.named.push({ mediaType, digest: digestOf(raw), size: raw.byteLength, annotations: { "org.opencontainers.image.ref.name": `example.com/app:${tag}` } })
  }
}

/** What a registry's Content-Type can say, and an index cannot. */
const ofRegistries = new Set(["no mediaType at all"])
const codes: ReadonlySet<number> = new Set([exitCodes.refused, exitCodes.notFound])

describe("a load of an archive whose document", () => {
  it.live("plays tricks ends as a pull of it does, and leaves nothing", () => Effect.gen(function*() {
    const failures: Array<string> = []
    yield* Effect.forEach(documents.filter(([name]) => !ofRegistries.has(name)), Effect.fnUntraced(function*([name, make, outcome]) {
      const folder = yield* temporary
      const layout = new Layout()
      make(layout)
      const file = join(folder, "app.tar")
      writeFileSync(file, layout.archive())
      yield* Effect.gen(function*() {
        const result = yield* Effect.result(Load.load(new Hub<PullEvent>(keyOf), file, { platform: "linux/amd64" }))
        const names = (yield* (yield* Graph).list).map(({ name }) => name)
        if (Result.isSuccess(result)) {
          assert.strictEqual(outcome, "ok")
          assert.deepStrictEqual(names, ["example.com/app"])
        } else {
          assert.notStrictEqual(outcome, "ok", result.failure.message)
          assert.isTrue(codes.has(exitCode(result.failure)), result.failure.message)
          assert.notMatch(sentence(result.failure), /\n|undefined|\[object/)
          assert.deepStrictEqual(names, [])
        }
        yield* assertSound(folder)
      }).pipe(Effect.provide(towline(folder)), Effect.catchCause((cause) => Effect.sync(() => { failures.push(`${name}: ${String(cause).slice(0, 400)}`) })))
    }, Effect.scoped), { concurrency: 4, discard: true })
    assert.deepStrictEqual(failures, [])
  }).pipe(Effect.scoped), 120_000)

  it.live("is not what its index says is refused, and one that is there twice is not", () => Effect.gen(function*() {
    const [folder, layout] = [yield* temporary, new Layout()]
    const { manifest } = image({ layers: [[{ path: "a", contents: "a" }]] })
    layout.put("app", "1", image({ layers: [[{ path: "a", contents: "a" }]] }))
    const { size } = manifest.descriptor
    const changes: ReadonlyArray<readonly [change: (entry: Fields) => ReadonlyArray<Fields>, refused: RegExp | undefined]> = [
      [(entry) => [{ ...entry, size: size + 1 }], /index\.json.*has \d+ bytes, and it has \d+/],
      [(entry) => [{ ...entry, size: size - 1 }], /has \d+ bytes, and it has \d+/],
      [(entry) => [entry, { ...entry, size: 0 }], /has 0 bytes/],
      [(entry) => [entry, { ...entry, mediaType: mediaTypes.docker.manifest }], /call/],
      [(entry) => [{ ...entry, mediaType: mediaTypes.docker.manifest }], /media/i],
      [(entry) => [entry, entry], undefined]
    ]
    for (const [at, [change, refused]] of changes.entries()) {
      const file = join(folder, `${at}.tar`)
      writeFileSync(file, layout.archive(change))
      const result = yield* Effect.result(Load.load(new Hub<PullEvent>(keyOf), file, { platform: "linux/amd64" })).pipe(Effect.provide(towline(join(folder, String(at)))))
      if (refused === undefined) assert.isTrue(Result.isSuccess(result), String(at))
      else assert.match(Result.isFailure(result) ? result.failure.message : "no failure", refused, String(at))
    }
  }).pipe(Effect.scoped))
})
