import { Effect, Option, Schema, type Scope, Stream } from "effect"
import type { Digest } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import { Refused } from "./layer/Fault.ts"
import { lookUp, type ViewEntry } from "./layer/view/View.ts"
import { Extract } from "./layer/view/Extract.ts"
import { LayerRefused } from "./layer/Workers.ts"
import { Native, perform } from "./Layers.ts"
import { closeFile, openFile } from "./layer/Unpacked.ts"
import { BlobStore, type NotInStore } from "./store/BlobStore.ts"
import * as Disk from "./store/disk/Disk.ts"
import { Graph, type Image } from "./store/Graph.ts"
import * as Files from "./store/disk/Files.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import { withFiles } from "./StoreImages.ts"

/** The image has no such file: nothing is there, or no file. `path` is as it was asked for. */
export class FileNotFound extends Schema.TaggedError<FileNotFound>()("FileNotFound", { image: Schema.String, path: Schema.String, found: Schema.optionalKey(Schema.String) }) {
  override get message() {
    return this.found === undefined
      ? `${this.image} has no ${this.path}: \`graph files\` lists what it has`
      : `${this.path} in ${this.image} is a ${this.found}, and no file: \`graph files\` lists what is there`
  }
}

/** The layers of an image, lowest first, as much of it as is known. */
type Layered = Pick<Image, "layers">

/** A layer to read: its blob's file, or its folder. */
type Opened = { readonly fd: number; readonly size: number } | { readonly folder: string }

/** Opens every layer, pinned for as long as the scope lasts: its blob, or where that was given up, its folder. */
const opened = Effect.fnUntraced(function*({ layers }: Layered) {
  const blobs = yield* BlobStore
  const store = yield* LayerStore
  yield* (yield* Leases).hold(layers.flatMap(({ blob, diffId }) => [blob.digest, diffId]))
  return yield* Effect.forEach(layers, Effect.fnUntraced(function*({ blob, diffId }): Effect.fn.Return<Opened, Disk.StoreError | NotInStore, Scope.Scope> {
    const there = Option.isSome(yield* blobs.find(blob.digest)) ? Option.none() : yield* store.find(diffId)
    if (Option.isSome(there)) return { folder: there.value.folder }
    const { fd, size } = yield* blobs.open(blob.digest)
    return { fd, size }
  }))
})

/**
 * The names of an image's root file system, a folder before what is in it, without unpacking anything: the layers' tars are read, and
 * the folders of those that are here unpacked alone.
 * With `hash` each file has the SHA-256 of its content.
 */
export const list = Effect.fn("ImageFiles.list")(function*(image: Layered, options: { readonly hash?: boolean } = {}) {
  const files = yield* opened(image)
  const job = { kind: "view", layers: files, hash: options.hash === true, native: yield* Native } as const
  const { entries } = yield* perform<"view">(job, "of the image", new Control()).pipe(Effect.catchTag("JobStopped", Effect.die))
  return entries
}, Effect.scoped)

/** Raw bytes as names have them, one character per byte. */
const nameOf = (path: string): string => Buffer.from(path, "utf8").toString("latin1")

const reading = (extract: Extract, layer: Digest) => Effect.tryPromise({
  try: () => extract.next(),
  catch: (error) => refusal(error, layer)
})

const refusal = (error: unknown, layer: Digest) => error instanceof Refused ? new LayerRefused({ layer, rule: error.rule }) : Disk.storeError(error, "read", layer)

/** The bytes of one file of an image, symlinks on the way followed inside it; nothing is unpacked. */
export const file = (image: Layered, path: string, label = "the image") => Stream.unwrap(Effect.gen(function*() {
  const entries = yield* list(image)
  const byName = new Map(entries.map((entry): [string, ViewEntry] => [entry.name, entry]))
  const entry = lookUp(byName, nameOf(path))
  if (entry === undefined) return yield* new FileNotFound({ image: label, path })
  if (entry.type !== "file") return yield* new FileNotFound({ image: label, path, found: entry.type === "dir" ? "folder" : entry.type })
  const layer = image.layers[entry.layer]
  if (layer === undefined) return yield* Effect.die(new Error("a file without a layer"))
  const [opening] = yield* opened({ layers: [layer] })
  if (opening === undefined) return yield* Effect.die(new Error("a layer that was not opened"))
  if ("folder" in opening) {
    const fd = yield* Effect.acquireRelease(
      Effect.try({ try: () => openFile(opening.folder, entry.source), catch: (error) => refusal(error, layer.blob.digest) }), (fd) => Effect.sync(() => closeFile(fd)))
    return Files.stream(fd, entry.size, path)
  }
  const { fd, size } = opening
  const native = yield* Native
  const extract = yield* Effect.acquireRelease(
    Effect.sync(() => new Extract(fd, size, entry.entry, entry.size, native)), (extract) => Effect.sync(() => extract.close()))
  return Stream.unfold(undefined, () => Effect.map(reading(extract, layer.blob.digest), (chunks) =>
    chunks === undefined ? undefined : [chunks, undefined] as const)).pipe(Stream.flatMap((chunks) => Stream.fromIterable(chunks)))
}))

/** How two root file systems differ at a name. */
export interface FileChange {
  readonly name: string
  readonly change: "added" | "removed" | "changed"
  /** Of a changed one: what of it. */
  readonly what: ReadonlyArray<"type" | "content" | "mode" | "owner" | "time" | "target" | "attributes">
  /** Bytes before and after; 0 for what is not there or no file. */
  readonly before: number
  readonly after: number
}

const differences = (a: ViewEntry, b: ViewEntry): FileChange["what"] => {
  const what: Array<FileChange["what"][number]> = []
  if (a.type !== b.type) what.push("type")
  else if (a.sha256 !== b.sha256) what.push("content")
  if (a.type === b.type && a.target !== b.target) what.push("target")
  if (a.mode !== b.mode) what.push("mode")
  if (a.uid !== b.uid || a.gid !== b.gid) what.push("owner")
  if (a.mtime[0] !== b.mtime[0] || a.mtime[1] !== b.mtime[1]) what.push("time")
  if (JSON.stringify(a.xattrs) !== JSON.stringify(b.xattrs)) what.push("attributes")
  return what
}

/** What differs between two lists that were made with `hash`, by name. */
export const compare = (before: ReadonlyArray<ViewEntry>, after: ReadonlyArray<ViewEntry>): ReadonlyArray<FileChange> => {
  const old = new Map(before.map((entry) => [entry.name, entry]))
  const changes: Array<FileChange> = []
  for (const entry of after) {
    const was = old.get(entry.name)
    old.delete(entry.name)
    if (was === undefined) changes.push({ name: entry.name, change: "added", what: [], before: 0, after: entry.size })
    else {
      const what = differences(was, entry)
      if (what.length > 0) changes.push({ name: entry.name, change: "changed", what, before: was.size, after: entry.size })
    }
  }
  for (const { name, size } of old.values()) changes.push({ name, change: "removed", what: [], before: size, after: 0 })
  return changes.sort((a, b) => a.name.replaceAll("/", "\u0000") < b.name.replaceAll("/", "\u0000") ? -1 : 1)
}

/** The image that `text` stands for. */
export const imageOf = (text: string) => Effect.flatMap(Graph, (graph) => Effect.tap(graph.show(text), (image) => withFiles(image, text)))

