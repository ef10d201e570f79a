import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Check from "../src/Check.ts"
import * as Pull from "../src/Pull.ts"
import * as Repair from "../src/Repair.ts"
import { Graph } from "../src/store/Graph.ts"
import { ImageBuilder, LegacyImage, TestRegistry, V1Server } from "../src/testing/index.ts"
import { assertSound, temporary, towline } from "./harness.ts"

const platform = "linux/amd64"
const old = LegacyImage.legacy({ steps: [{ tar: [{ path: "base", contents: "base" }] }, { json: { throwaway: true } }, { tar: [{ path: "top", contents: "top" }] }] })
const modern = ImageBuilder.index([ImageBuilder.image({ layers: [[{ path: "a", contents: "a" }], [{ path: "b", contents: "b" }]] })])

/** Columns that say something nobody else says: when, who was asked, what was asked for; and what the comparison of layers looks at. */
const alone = new Set([
  "since", "at", "boot", "layers.size", "layers.entries", "layers.sums", "layers.state", "resolutions.wanted", "origins.endpoint", "layer_blobs.media_type", "layer_blobs.blob", "images.kind", "blobs.state"
])
const tables = ["images", "manifests", "manifest_blobs", "chains", "tags", "resolutions", "origins", "blobs", "layer_blobs"]

/** How many rows of each table are tried: all with TOWLINE_KILL. */
const rowsOfEach = process.env["TOWLINE_KILL"] === undefined ? 2 : Number.MAX_SAFE_INTEGER

/** Whether a check finds something, or cannot even be made. */
const found = <E, R>(check: Effect.Effect<ReadonlyArray<unknown>, E, R>) => Effect.map(Effect.exit(check), (exit) => exit._tag === "Failure" || exit.value.length > 0)

/** Another value of the same kind: one bit more or less. */
const flipped = (value: unknown): string | number | Uint8Array | undefined => {
  if (typeof value === "number") return value ^ 1
  const bytes = typeof value === "string" ? Buffer.from(value) : value instanceof Uint8Array ? Buffer.from(value) : undefined
  if (bytes === undefined || bytes.byteLength === 0) return undefined
  bytes[bytes.byteLength >> 1] = (bytes[bytes.byteLength >> 1] ?? 0) ^ 1
  return typeof value === "string" ? bytes.toString() : bytes
}

describe("Check of rows", () => {
  it.live("finds a changed bit in any row, and any row that is gone, of images of every kind; none where nothing is wrong", () => Effect.gen(function*() {
    const registry = yield* TestRegistry.make()
    const folder = yield* temporary
    registry.put("modern", "1", modern).put("schema1", "1", old.schema1({ repository: "schema1", tag: "1" }))
    const v1 = yield* V1Server.make()
    v1.put("v1", "1", LegacyImage.legacy({ seed: "other", steps: [{ tar: [{ path: "v", contents: "v" }] }, { tar: [{ path: "w", contents: "w" }] }] }).images)
    yield* Effect.gen(function*() {
      for (const reference of [`${registry.host}/modern:1`, `${registry.host}/schema1:1`, `${v1.host}/v1:1`]) yield* Pull.pull(reference, { platform })
      yield* assertSound(folder)
      const graph = yield* Graph
      const db = yield* Effect.acquireRelease(Effect.sync(() => new DatabaseSync(join(folder, "store/graph.db"))), (db) => Effect.sync(() => db.close()))
      db.exec("PRAGMA foreign_keys=OFF")
      const missed: Array<string> = []
      for (const table of tables) {
        const all = db.prepare(`SELECT rowid AS id_of_row, * FROM ${table}`).all()
        for (const row of all.filter((_, at) => at % Math.ceil(all.length / rowsOfEach) === 0)) {
          const { id_of_row: id = 0, ...columns } = row
          for (const [column, value] of Object.entries(columns)) {
            // Several indexes may lead to one manifest, each at its own place.
            const free = alone.has(column) || alone.has(`${table}.${column}`) || (column === "position" && columns["role"] === "index")
            const other = free ? undefined : flipped(value)
            if (other === undefined) continue
            try {
              db.prepare(`UPDATE ${table} SET ${column} = ? WHERE rowid = ?`).run(other, id)
            } catch {
              continue // a constraint keeps it out
            }
            // Quickly, and only where that finds nothing, with every layer.
            if (!(yield* found(graph.check())) && !(yield* found(Check.check()))) missed.push(`${table}.${column} ${String(value)}`)
            db.prepare(`UPDATE ${table} SET ${column} = ? WHERE rowid = ?`).run(value, id)
          }
          db.prepare(`DELETE FROM ${table} WHERE rowid = ?`).run(id)
          if (!(yield* found(graph.check()))) missed.push(`${table} without ${JSON.stringify(columns)}`)
          db.prepare(`INSERT INTO ${table} (rowid, ${Object.keys(columns).join(", ")}) VALUES (?, ${Object.keys(columns).map(() => "?").join(", ")})`).run(id, ...Object.values(columns))
        }
      }
      // What a blob was found to hold, and what was chosen before, is found anew where it is forgotten.
      assert.deepStrictEqual(missed.filter((line) => !/^(?:layer_blobs|resolutions) without /.test(line)), [])
      assert.deepStrictEqual(yield* graph.check(), [])
      db.exec("UPDATE resolutions SET target = target || '0'; UPDATE origins SET repository = repository || 'x'; UPDATE layer_blobs SET size = size + 1; UPDATE manifest_blobs SET size = size + 1 WHERE role = 'index'; UPDATE images SET layer_size = layer_size + 1 WHERE kind = 'v1'; UPDATE images SET config = x'7b7d' WHERE kind = 'schema1'")
      const { left } = yield* Repair.repair()
      assert.deepStrictEqual(left, [])
    }).pipe(Effect.scoped, Effect.provide(towline(folder)))
  }).pipe(Effect.scoped), 120_000)
})
