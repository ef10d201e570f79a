import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Dropped } from "../src/DropBlobs.ts"
import * as Archive from "../src/testing/Archive.ts"
import { ImageBuilder, LegacyImage, TestRegistry, Tree, V1Server } from "../src/testing/index.ts"
import * as SavedArchive from "../src/testing/old/SavedArchive.ts"
import { command, type Ended } from "./command.ts"
import { temporary } from "./harness.ts"
import { assertDigest } from "./main/setting.ts"
import type { Kind } from "./strace.ts"

const demo = ImageBuilder.demo()
const legacy = LegacyImage.legacy({
  steps: [
    { tar: [{ path: "base", contents: ImageBuilder.noise("base", 90_000) }, { path: "link", type: "symlink", linkpath: "base" }] }, {},
    { tar: [{ path: "top", contents: ImageBuilder.noise("top", 50_000) }] }
  ]
})
const schema1 = legacy.schema1({ repository: "old", tag: "1" })

/** Made once for a test file: a registry, a store that has pulled from it, what its image looks like as files, and an archive of it. */
export class Shelf extends Context.Service<Shelf, {
  readonly reference: string
  readonly store: string
  readonly whole: ReadonlyArray<Tree.TreeRecord>
  readonly archive: string
}>()("test/Shelf") {
  static readonly layer = Layer.effect(Shelf, Effect.gen(function*() {
    const [registry, folder] = [yield* TestRegistry.make(), yield* temporary]
    registry.put("app", "1", demo)
    const [store, archive, root] = [join(folder, "store"), join(folder, "archive.tar"), join(folder, "root")]
    const reference = `${registry.host}/app:1`
    writeFileSync(archive, Archive.archive(SavedArchive.docker([{ image: demo, names: ["app:1"] }])))
    assertDigest(yield* command("pull", ["-q", "--store", store, "--unpack", "--rootfs", root, reference]))
    return { reference, store, archive, whole: Tree.walk(root) }
  }))
}

/** A command in a folder of its own, which can be run again. */
export interface Prepared {
  readonly folder: string
  readonly store: string
  readonly line: readonly ["pull" | "graph", ...ReadonlyArray<string>]
  /** The folder, else empty or missing, that a root file system goes to as `root`. */
  readonly place?: string
  /** Blobs by digest and size, of which a second run must not fetch again what it finds; bytes of them that were sent so far. */
  readonly blobs?: { readonly all: ReadonlyArray<{ readonly digest: string; readonly size: number }>; readonly sent: () => number }
  /** Fails unless it succeeded, and what it promises is there. */
  readonly done: (ended: Ended) => void
  /** The same where the disk refused something, and it succeeded all the same: by default no less. */
  readonly partly?: (ended: Ended) => void
}

/** A command, what it calls on a disk, and a fresh start for it. */
export interface Scenario {
  readonly name: string
  readonly kinds: ReadonlyArray<Kind>
  readonly prepare: Effect.Effect<Prepared, never, Scope.Scope | Shelf>
}

const database = ["fsync", "write", "open", "read"] as const satisfies ReadonlyArray<Kind>
const storing = [...database, "rename", "unlink", "mkdir"] as const satisfies ReadonlyArray<Kind>
const unpacking = [...storing, "link", "mode"] as const satisfies ReadonlyArray<Kind>

const ok = ({ code, stderr }: Ended) => assert.deepStrictEqual([code, stderr], [0, ""])

/** So many tags, and layers. */
const holds = (store: string, tags: number, layers: number) => {
  const db = new DatabaseSync(join(store, "graph.db"), { readOnly: true })
  const count = db.prepare("SELECT count(*) AS count FROM tags").get()?.["count"]
  db.close()
  assert.deepStrictEqual([count, readdirSync(join(store, "layers", "sha256")).length], [tags, layers])
}

const pull = (name: string, options: ReadonlyArray<string>): Scenario => ({
  name, kinds: unpacking,
  prepare: Effect.gen(function*() {
    const [registry, folder] = [yield* TestRegistry.make(), yield* temporary]
    registry.put("app", "1", demo)
    const store = join(folder, "store")
    const place = options.includes("--rootfs") ? join(folder, "place") : undefined
    const kept = options.includes("--unpack") || place === undefined
    const digests = new Set<string>(demo.layers.map(({ digest }) => digest))
    return {
      folder, store, ...place === undefined ? {} : { place },
      line: ["pull", "-q", "--store", store, ...options.flatMap((option) => option === "--rootfs" ? [option, join(place ?? "", "root")] : [option]), `${registry.host}/app:1`],
      blobs: { all: demo.layers, sent: () => registry.requests.reduce((sum, { bytesSent, digest }) => digests.has(digest ?? "") ? sum + bytesSent : sum, 0) },
      done: (ended) => {
        assertDigest(ended)
        holds(store, 1, kept ? demo.layers.length : 0)
      }
    } satisfies Prepared
  })
})

const old = (kind: "schema1" | "v1"): Scenario => ({
  name: `pull of ${kind}`, kinds: unpacking,
  prepare: Effect.gen(function*() {
    const folder = yield* temporary
    const store = join(folder, "store")
    const [registry, server] = [yield* TestRegistry.make(), yield* V1Server.make()]
    registry.put("old", "1", schema1)
    server.put("team/old", "1", legacy.images)
    const all = kind === "schema1" ? [...schema1.blobs].map(([digest, body]) => ({ digest, size: body instanceof Uint8Array ? body.byteLength : 0 }))
      : legacy.images.map(({ layer }) => ({ digest: `sha256:${createHash("sha256").update(layer).digest("hex")}`, size: layer.byteLength }))
    const sent = () => (kind === "schema1" ? registry.find({ kind: "blob" }) : server.find({ kind: "layer" })).reduce((sum, { bytesSent }) => sum + bytesSent, 0)
    return {
      folder, store, line: ["pull", "-q", "--store", store, "--platform", "linux/amd64", kind === "schema1" ? `${registry.host}/old:1` : `${server.host}/team/old:1`],
      blobs: { all, sent },
      done: (ended) => {
        ok(ended)
        holds(store, 1, 3)
      }
    } satisfies Prepared
  })
})

/** A command on a copy of the shelf's store. */
const onStore = (
  name: string, kinds: ReadonlyArray<Kind>, args: (reference: string, folder: string) => ReadonlyArray<string>, done: (ended: Ended, store: string) => void,
  { change = () => {}, partly }: { readonly change?: (store: string) => void; readonly partly?: (ended: Ended, store: string) => void } = {}
): Scenario => ({
  name: `graph ${name}`, kinds,
  prepare: Effect.gen(function*() {
    const { reference, store: made } = yield* Shelf
    const folder = yield* temporary
    const store = join(folder, "store")
    execFileSync("cp", ["-a", made, store])
    change(store)
    const [verb = "", ...rest] = args(reference, folder)
    return {
      folder, store, line: ["graph", verb, "--store", store, ...rest], done: (ended) => done(ended, store), ...partly === undefined ? {} : { partly: (ended) => partly(ended, store) },
      ...name === "rootfs" ? { place: join(folder, "place") } : {}
    } satisfies Prepared
  })
})

const all = demo.layers.length

/** Of the layers' blobs those that a `gc --drop-blobs` says it kept, and those that are there. */
const keptBlobs = ({ stdout }: Ended): ReadonlyArray<string> => Schema.decodeSync(Schema.fromJsonString(Dropped))(stdout).kept.map(({ subject }) => subject)
const blobsIn = (store: string): ReadonlyArray<string> =>
  demo.layers.flatMap(({ digest }) => existsSync(join(store, "blobs/sha256", digest.slice(7))) ? [digest] : [])

/** Everything that changes a store. */
export const scenarios: ReadonlyArray<Scenario> = [
  pull("pull", []),
  pull("pull with a root file system", ["--unpack", "--rootfs"]),
  pull("pull of a root file system alone", ["--rootfs"]),
  old("schema1"),
  old("v1"),
  {
    name: "graph load", kinds: unpacking,
    prepare: Effect.gen(function*() {
      const { archive } = yield* Shelf
      const folder = yield* temporary
      const store = join(folder, "store")
      return {
        folder, store, line: ["graph", "load", "-q", "--store", store, "--platform", "linux/amd64", archive],
        done: (ended) => {
          ok(ended)
          holds(store, 1, all)
        }
      } satisfies Prepared
    })
  },
  onStore("rootfs", [...database, "rename", "unlink", "mkdir", "link", "mode"], (reference, folder) => ["rootfs", reference, join(folder, "place", "root")], (ended, store) => {
    ok(ended)
    holds(store, 1, all)
  }),
  // A second time there is nothing by that name.
  onStore("rm", storing, (reference) => ["rm", reference], ({ code, stderr }, store) => {
    assert.include([0, 3], code, stderr)
    holds(store, 0, 0)
  }),
  // The image has lost its tag, and is kept a while longer in the log.
  onStore("gc", storing, () => ["gc", "--older-than", "0"], (ended, store) => {
    ok(ended)
    holds(store, 0, 0)
  }, {
    change: (store) => {
      const db = new DatabaseSync(join(store, "graph.db"))
      db.exec("INSERT INTO tag_log (at, name, reference, old_image) SELECT 0, name, reference, image FROM tags; DELETE FROM tags")
      db.close()
    }
  }),
  // Whether a layer is known by its blob, or by recorded digests, is what a check of the store asks for at any point.
  onStore("gc --drop-blobs", unpacking, () => ["gc", "-q", "--drop-blobs", "--json"], (ended, store) => {
    ok(ended)
    holds(store, 1, all)
    assert.deepStrictEqual([keptBlobs(ended), blobsIn(store)], [[], []])
  }, {
    partly: (ended, store) => {
      ok(ended)
      holds(store, 1, all)
      assert.sameMembers([...keptBlobs(ended)], [...blobsIn(store)], "what stays is named")
    }
  }),
  onStore("check --repair", unpacking, () => ["check", "-q", "--repair"], (ended, store) => {
    ok(ended)
    holds(store, 1, all)
  }, {
    partly: ok,
    change: (store) => {
      for (const folder of ["blobs/sha256", "layers/sha256"]) {
        const [first = "", second = ""] = readdirSync(join(store, folder)).map((name) => join(store, folder, name))
        if (folder.startsWith("layers")) writeFileSync(join(first, "fs/more"), "")
        else for (const file of [first, second]) truncateSync(file, 1)
      }
    }
  })
]
