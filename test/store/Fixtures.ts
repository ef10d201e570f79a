import { Context, Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { Descriptor } from "../../src/image/Descriptor.ts"
import { Digest } from "../../src/image/Digest.ts"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Disk from "../../src/store/disk/Disk.ts"
import { Graph, type Registration } from "../../src/store/Graph.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import * as Store from "../../src/store/Store.ts"

/** A new folder of its own, removed with the scope. */
export const temp = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(`${tmpdir()}/towline-store-`)),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  ),
  (path) => `${path}/store`
)

/** Where the store under test is. */
export class Root extends Context.Service<Root, string>()("test/Root") {}

/** A store in a folder of its own. */
export const storeInTemp = Layer.unwrap(Effect.map(temp, (path) =>
  Layer.merge(Store.layer({ path }), Layer.succeed(Root, path))))

/** Runs with a store opened at `path`, closed afterwards. */
export const withStore = (path: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provide(effect, Store.layer({ path }), { local: true })

export const digestOf = (...chunks: ReadonlyArray<Uint8Array>) => {
  const hash = createHash("sha256")
  for (const chunk of chunks) hash.update(chunk)
  return Digest.make(`sha256:${hash.digest("hex")}`)
}

export const blobOf = (...chunks: ReadonlyArray<Uint8Array>) =>
  new Descriptor({ mediaType: "application/octet-stream", digest: digestOf(...chunks), size: chunks.reduce((sum, { byteLength }) => sum + byteLength, 0) })

/** What everyone sees of the blob: its file's bytes, or undefined. */
export const visible = (root: string, { digest }: Descriptor) => {
  const path = `${root}/blobs/sha256/${digest.slice(7)}`
  return existsSync(path) ? readFileSync(path) : undefined
}

/** Opens the ingest, appends, commits if told, closes; gives the offset at which it began. */
export const take = Effect.fnUntraced(function*(blob: Descriptor, chunks: ReadonlyArray<Uint8Array>, options?: { readonly commit: boolean }) {
  const ingest = yield* (yield* BlobStore).ingest(blob)
  const from = ingest.offset
  if (!ingest.present) yield* Disk.attempt(() => { for (const chunk of chunks) ingest.append(chunk) })
  if (options?.commit === true) yield* ingest.commit
  return from
}, Effect.scoped)

/** Fills a layer's staging folder with one file. */
export const fill = (folder: string, text = "a file\n") => {
  mkdirSync(`${folder}/fs`, { mode: 0o700 })
  writeFileSync(`${folder}/fs/file`, text)
  writeFileSync(`${folder}/meta`, "towline-layer 1\n", { mode: 0o600 })
}

/** Unpacks a pretended layer into the store. */
export const layUp = Effect.fnUntraced(function*(diffId: Digest, blob: Descriptor) {
  const layers = yield* LayerStore
  const staging = yield* layers.staging({ kind: "layer", diffId })
  fill(staging.path, diffId)
  yield* layers.commit(staging, { diffId, blob: blob.digest, mediaType: blob.mediaType, blobSize: blob.size, size: diffId.length, entries: 1 })
}, Effect.scoped)

/** A pretended image over layers made of `texts`; everything it needs is put into the store. */
export const imageOf = Effect.fnUntraced(function*(name: string, texts: ReadonlyArray<string>, tags: ReadonlyArray<string> = ["latest"]) {
  const blobs = yield* BlobStore
  const layers: Array<Registration["layers"][number]> = []
  for (const text of texts) {
    const bytes = Buffer.from(`blob ${text}`)
    const [blob, diffId] = [blobOf(bytes), digestOf(Buffer.from(`tar ${text}`))]
    yield* blobs.put(blob, bytes)
    yield* layUp(diffId, blob)
    layers.push({ blob, diffId })
  }
  const configBytes = Buffer.from(JSON.stringify({ name, texts }))
  const manifestBytes = Buffer.from(JSON.stringify({ manifest: name, texts }))
  const [config, manifest] = [blobOf(configBytes), blobOf(manifestBytes)]
  yield* blobs.put(config, configBytes)
  yield* blobs.put(manifest, manifestBytes)
  const registration: Registration = {
    kind: "oci", config, configBytes, platform: "linux/amd64", manifest, layers, target: manifest.digest, wanted: "linux/amd64",
    tags: tags.map((reference) => ({ name: `docker.io/library/${name}`, reference })),
    ...tags.length > 0 && { origin: { repository: `docker.io/library/${name}`, endpoint: "http://127.0.0.1:5000" } }, synced: true
  }
  return registration
})

/** A whole pull as far as the store sees one, then the removal of another image. */
export const pull = Effect.gen(function*() {
  const graph = yield* Graph
  yield* graph.register(yield* imageOf("second", ["base", "top"]))
  yield* Effect.ignore(graph.remove("first"))
})

/** Everything in the store's ingest/ folder. */
export const litter = (root: string) => readdirSync(`${root}/ingest`)
