import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import type { ArchiveFile } from "./archive/ArchiveFile.ts"
import { attempt } from "./archive/ArchiveFile.ts"
import type { DockerImage } from "./archive/DockerImages.ts"
import { documentCap } from "./archive/Document.ts"
import { type ArchiveError, ArchiveRefused } from "./archive/Fault.ts"
import * as OciImages from "./archive/OciImages.ts"
import type { Tree } from "./archive/Tree.ts"
import { type Descriptor, VerifyError } from "./image/Descriptor.ts"
import * as Digest from "./image/Digest.ts"
import * as MediaType from "./image/MediaType.ts"
import { isCompressed } from "./layer/inflate/Inflate.ts"
import { NetworkError, NotFound } from "./registry/Errors.ts"
import { Registry } from "./registry/Registry.ts"

const sha256 = (bytes: Uint8Array): Digest.Digest => Digest.Digest.make(`sha256:${createHash("sha256").update(bytes).digest("hex")}`)

/**
 * An archive as what answers a pull: manifests, configs and layers come from its files, and everything that holds for a
 * registry's answers holds for them. `refusal` gives what the archive itself was refused for in place of the errors that
 * only a registry can have.
 */
export interface ArchiveRegistry {
  readonly registry: Registry["Service"]
  /** Makes the manifest that a `manifest.json` image has not, and gives its digest. Its bytes depend on the image alone. */
  readonly addDocker: (image: DockerImage, diffIds: ReadonlyArray<Digest.Digest>) => Effect.Effect<Digest.Digest, ArchiveError>
  readonly refusal: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, Exclude<E, NotFound | NetworkError> | ArchiveError, R>
}

/** The media type of a docker-save layer by what its bytes begin with: they are plain tars, but some tools compress them. */
const typeOf = (head: Uint8Array): string => {
  const compression = MediaType.compressionOf(head)
  return MediaType.layerOf(compression === "gzip" || compression === "zstd" ? compression : "none")
}

const digestOf = Effect.fnUntraced(function*(file: ArchiveFile) {
  const hash = createHash("sha256")
  yield* Stream.runForEachArray(file.stream(), (pieces) => Effect.sync(() => { for (const piece of pieces) hash.update(piece) }))
  return Digest.Digest.make(`sha256:${hash.digest("hex")}`)
})

/** A registry whose only content is the archive. `named` are the entries of its index, which must be right about their documents. */
export const make = (tree: Tree, named: ReadonlyArray<Descriptor> = []): ArchiveRegistry => {
  const documents = new Map<Digest.Digest, Uint8Array>()
  const layers = new Map<Digest.Digest, ArchiveFile>()
  let fault: ArchiveError | undefined

  const addDocker = Effect.fn("ArchiveRegistry.addDocker")(function*(image: DockerImage, diffIds: ReadonlyArray<Digest.Digest>) {
    const described = yield* Effect.forEach(image.layers, Effect.fnUntraced(function*(file, index) {
      const head = yield* attempt(tree.archive, () => file.slice(0, 16))
      const diffId = diffIds[index]
      // A plain tar has its diff ID as its digest: hashed when it is taken. A compressed one is hashed now.
      const digest = diffId === undefined || isCompressed(head) ? yield* digestOf(file) : diffId
      layers.set(digest, file)
      return { mediaType: typeOf(head), size: file.size, digest }
    }))
    const config = Digest.Digest.make(`sha256:${image.id}`)
    documents.set(config, image.config)
    const raw = Buffer.from(JSON.stringify({
      schemaVersion: 2, mediaType: MediaType.dockerManifest,
      config: { mediaType: MediaType.dockerConfig, size: image.config.byteLength, digest: config }, layers: described
    }))
    const digest = sha256(raw)
    documents.set(digest, raw)
    return digest
  })

  const find = (digest: Digest.Digest) => attempt(tree.archive, () => layers.get(digest) ?? OciImages.blob(tree, digest))
  /** Registries have no such errors: the reader is told by another one, and `refusal` puts this one in its place. */
  const told = (error: ArchiveError) => {
    fault = error
    return new NetworkError({ host: tree.archive, reason: "body", transient: false, detail: error.message })
  }

  const manifest = Effect.fn("ArchiveRegistry.manifest")(function*(repository: { readonly path: string }, ref: string) {
    const absent = new NotFound({ host: tree.archive, what: "manifest", repository: repository.path, name: ref })
    if (!Digest.is(ref)) return yield* absent
    const file = documents.has(ref) ? undefined : yield* Effect.mapError(find(ref), told)
    const raw = documents.get(ref) ?? (file === undefined ? yield* absent : yield* Effect.mapError(attempt(tree.archive, () => file.bytes(documentCap)), told))
    const { algorithm, hex } = Digest.parts(ref)
    if (createHash(algorithm).update(raw).digest("hex") !== hex) {
      return yield* told(new ArchiveRefused({ archive: tree.archive, entry: file?.name ?? ref, rule: "its bytes do not have the digest it is named by" }))
    }
    const entries = named.filter(({ digest }) => digest === ref)
    const wrong = entries.find(({ mediaType, size }) => size !== raw.byteLength || mediaType !== entries[0]?.mediaType)
    if (wrong !== undefined) {
      const rule = wrong.size === raw.byteLength ? `its entries call ${ref} ${wrong.mediaType} and ${entries[0]?.mediaType ?? ""}` : `it says that ${ref} has ${wrong.size} bytes, and it has ${raw.byteLength}`
      return yield* told(new ArchiveRefused({ archive: tree.archive, entry: "index.json", rule }))
    }
    return { raw, contentType: entries[0]?.mediaType, digest: ref, endpoint: tree.archive }
  })

  const blob = Effect.fn("ArchiveRegistry.blob")(function*(repository: { readonly path: string }, wanted: Descriptor, from: number) {
    const document = documents.get(wanted.digest)
    if (document !== undefined) return { from: 0, body: Stream.make(document) }
    const file = yield* Effect.mapError(find(wanted.digest), told)
    if (file === undefined) return yield* new NotFound({ host: tree.archive, what: "blob", repository: repository.path, name: wanted.digest })
    if (file.size !== wanted.size) return yield* new VerifyError({ expected: wanted, size: file.size })
    return { from, body: Stream.mapError(file.stream(from), told) }
  })

  const refusal = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, NotFound | NetworkError> | ArchiveError, R> =>
    Effect.catch(self, (error): Effect.Effect<never, Exclude<E, NotFound | NetworkError> | ArchiveError> => {
      if (error instanceof NotFound) {
        return Effect.fail(new ArchiveRefused({ archive: tree.archive, entry: error.name, rule: `an image in it needs this ${error.what}, and it is not there` }))
      }
      if (error instanceof NetworkError) return fault === undefined ? Effect.die(error) : Effect.fail(fault)
      return Effect.fail(error as Exclude<E, NotFound | NetworkError>)
    })

  const registry = Registry.of({
    manifest, blob,
    tags: ({ path }) => Effect.fail(new NotFound({ host: tree.archive, what: "repository", repository: path, name: "" })),
    size: Effect.fnUntraced(function*({ path }, digest) {
      const file = yield* Effect.mapError(find(digest), told)
      return file?.size ?? (yield* new NotFound({ host: tree.archive, what: "blob", repository: path, name: digest }))
    }),
    ping: () => Effect.die(new Error("an archive speaks no protocol")),
    endpoints: () => Effect.succeed([]), routes: () => Effect.succeed([]), names: () => Effect.succeed([]), listen: () => Effect.void
  })
  return { registry, addDocker, refusal }
}
