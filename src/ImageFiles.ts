import { Effect, Exit, Option, Pull, Schema, type Scope, Stream } from "effect"
import type { Digest } from "./image/Digest.ts"
import { Control } from "./layer/Control.ts"
import { Refused } from "./layer/Fault.ts"
import type { Job } from "./layer/Job.ts"
import { open } from "./layer/table/Scratch.ts"
import { inOrder } from "./layer/tree/Name.ts"
import { Extract as Extraction } from "./layer/view/Extract.ts"
import type { ViewEntry } from "./layer/view/Facts.ts"
import { NameReader } from "./layer/view/NameList.ts"
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

const performed = <K extends "list" | "find">(job: Extract<Job, { readonly kind: K }>) =>
  perform<K>(job, "of the image", new Control()).pipe(Effect.catchTag("JobStopped", Effect.die))

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

/** Raw bytes as names have them, one character per byte. */
const nameOf = (path: string): string => Buffer.from(path, "utf8").toString("latin1")

/** The names of a root file system, and of each what it is: a folder before what is in it, names in the order of their bytes. */
export interface FileList {
  /** How many there are. */
  readonly names: number
  /** The most characters of a size (of a device its numbers), and of `uid:gid`. */
  readonly widths: { readonly size: number; readonly owner: number }
  /** They themselves, as often as they are asked for while the list's scope is open. */
  readonly entries: Stream.Stream<ViewEntry, Disk.StoreError>
}

/**
 * Lists the names of an image's root file system without unpacking anything: the layers' tars are read, and the folders of those that
 * are here unpacked alone. Of millions of names few are ever in memory: the list is in a file without a name, which goes with the scope;
 * the image's layers need not stay for it.
 * With `hash` each file has the SHA-256 of its content; with `path` there is only what has that name, and what is in it.
 */
export const list = Effect.fn("ImageFiles.list")(function*(image: Layered, options: { readonly hash?: boolean; readonly path?: string } = {}) {
  const { scratch } = yield* LayerStore
  const file = yield* Effect.exit(Effect.acquireRelease(Disk.call("make a file in", scratch, () => open(scratch)), (fd) => Effect.sync(() => closeFile(fd))))
  const into = Exit.isSuccess(file) ? file.value : undefined
  const written = yield* Effect.scoped(Effect.gen(function*() {
    const layers = yield* opened(image)
    const under = nameOf((options.path ?? "").replace(/^\/+|\/+$/g, ""))
    return yield* performed<"list">({ kind: "list", layers, under, into, scratch, hash: options.hash === true, native: yield* Native })
  }))
  // Most lists need no file.
  if (written === undefined) return yield* Effect.flatMap(file, () => Effect.die(new Error("a list without a file")))
  const entries = Stream.suspend(() => {
    const reader = new NameReader(into, written)
    return Stream.unfold(undefined, () => Effect.map(Disk.call("read", scratch, () => reader.next()), (some) => some === undefined ? undefined : [some, undefined] as const))
  }).pipe(Stream.flatMap(Stream.fromArray))
  const list: FileList = { names: written.names, widths: written.widths, entries }
  return list
})

const reading = (extract: Extraction, layer: Digest) => Effect.tryPromise({
  try: () => extract.next(),
  catch: (error) => refusal(error, layer)
})

const refusal = (error: unknown, layer: Digest) => error instanceof Refused ? new LayerRefused({ layer, rule: error.rule }) : Disk.storeError(error, "read", layer)

/** The bytes of one file of an image, symlinks on the way followed inside it; nothing is unpacked. */
export const file = (image: Layered, path: string, label = "the image") => Stream.unwrap(Effect.gen(function*() {
  const { scratch } = yield* LayerStore
  const { entry } = yield* Effect.scoped(Effect.gen(function*() {
    return yield* performed<"find">({ kind: "find", layers: yield* opened(image), path: nameOf(path), scratch, native: yield* Native })
  }))
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
    Effect.sync(() => new Extraction(fd, size, entry.entry, entry.size, native)), (extract) => Effect.sync(() => extract.close()))
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

/** How many changes come at once. */
const many = 1000

/** Comes after all names. */
const behind = "\uffff"

/** The entries of a list one by one. */
class Cursor {
  entry: ViewEntry | undefined
  place = ""
  /** Before more are given, and after the last ones. */
  isEmpty = true
  private rest: Iterator<ViewEntry> = [].values()

  give(entries: ReadonlyArray<ViewEntry>): void {
    this.rest = entries.values()
    this.isEmpty = false
    this.next()
  }

  next(): void {
    const { done, value } = this.rest.next()
    this.isEmpty = done === true
    this.entry = done === true ? undefined : value
    this.place = this.entry === undefined ? behind : inOrder(this.entry.name)
  }

  end(): void {
    this.isEmpty = false
    this.entry = undefined
    this.place = behind
  }
}

/** How two entries differ, of which one may be missing; undefined if they do not. */
const changeOf = (was: ViewEntry | undefined, is: ViewEntry | undefined): FileChange | undefined => {
  if (was === undefined || is === undefined) return is === undefined
    ? { name: was?.name ?? "", change: "removed", what: [], before: was?.size ?? 0, after: 0 }
    : { name: is.name, change: "added", what: [], before: 0, after: is.size }
  const what = differences(was, is)
  return what.length === 0 ? undefined : { name: is.name, change: "changed", what, before: was.size, after: is.size }
}

/** What differs between two lists that were made with `hash`, in their order. */
export const compare = (before: FileList, after: FileList): Stream.Stream<FileChange, Disk.StoreError> => Stream.unwrap(Effect.gen(function*() {
  const sides = [{ at: new Cursor(), pull: yield* Stream.toPull(before.entries) }, { at: new Cursor(), pull: yield* Stream.toPull(after.entries) }] as const
  const [{ at: old }, { at: now }] = sides
  const some = Effect.gen(function*() {
    const changes: Array<FileChange> = []
    while (changes.length < many) {
      for (const { at, pull } of sides) if (at.isEmpty) yield* pull.pipe(Effect.map((entries) => at.give(entries)), Pull.catchDone(() => Effect.sync(() => at.end())))
      if (old.entry === undefined && now.entry === undefined) break
      while (!old.isEmpty && !now.isEmpty && (old.entry ?? now.entry) !== undefined && changes.length < many) {
        const [first, second] = [old.place, now.place]
        const change = changeOf(first <= second ? old.entry : undefined, second <= first ? now.entry : undefined)
        if (first <= second) old.next()
        if (second <= first) now.next()
        if (change !== undefined) changes.push(change)
      }
    }
    return changes.length === 0 ? undefined : [changes, undefined] as const
  })
  return Stream.unfold(undefined, () => some).pipe(Stream.flatMap(Stream.fromArray))
}))

/** The image that `text` stands for. */
export const imageOf = (text: string) => Effect.flatMap(Graph, (graph) => Effect.tap(graph.show(text), (image) => withFiles(image, text)))

