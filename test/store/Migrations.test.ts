import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, mkdirSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Graph } from "../../src/store/Graph.ts"
import { History } from "../../src/store/names/History.ts"
import { Collector } from "../../src/store/upkeep/Collector.ts"
import { version } from "../../src/store/disk/Migrations.ts"
import * as Store from "../../src/store/Store.ts"
import { imageOf, temp, withStore } from "./Fixtures.ts"

// Dumps (sqlite3 graph.db .dump) of stores that released versions wrote: the same images each, as far as a version knew them.
const folder = new URL("../fixtures/store/", import.meta.url).pathname
const dumps = readdirSync(folder).filter((name) => name.endsWith(".sql"))

const load = (path: string, dump: string) => Effect.sync(() => {
  mkdirSync(path, { mode: 0o700 })
  const db = new DatabaseSync(join(path, "graph.db"))
  db.exec(readFileSync(join(folder, dump), "utf8"))
  db.close()
  chmodSync(join(path, "graph.db"), 0o600)
})

const schemaOf = (path: string) => {
  const db = new DatabaseSync(join(path, "graph.db"))
  const rows = db.prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name").all()
  db.close()
  return rows.map(({ name, sql, type }) => [type, name, String(sql).replace(/\s+/g, " ").replaceAll('"', "").replace("IF NOT EXISTS ", "")])
}

describe("Migrations", () => {
  it("have a dump of every version before the present", () =>
    assert.deepStrictEqual(dumps, Array.from({ length: version - 1 }, (_, at) => `version-${at + 1}.sql`)))
  for (const dump of dumps) {
    it.live(`bring ${dump} to the present: the same schema as a new store's, and all that was there`, () => Effect.gen(function*() {
      const [path, fresh] = [yield* temp, yield* temp]
      yield* load(path, dump)
      yield* Effect.gen(function*() {
        const graph = yield* Graph
        const names = (yield* graph.list).map(({ name, reference }) => `${name ?? ""}:${reference ?? ""}`)
        assert.deepStrictEqual(names, ["docker.io/library/one:1", "docker.io/library/one:latest", "docker.io/library/two:v2"])
        const one = yield* graph.show("one:1")
        assert.deepStrictEqual(JSON.parse(Buffer.from(one.configBytes).toString()), { name: "one", texts: ["base", "top"] })
        assert.deepStrictEqual([one.kind, one.layers.length, one.platform], ["oci", 2, "linux/amd64"])
        const history = yield* History
        const tag = { name: "docker.io/library/one", reference: "latest" }
        assert.deepStrictEqual((yield* history.log(tag)).map(({ now, rollback }) => [now === one.id, rollback]), [[false, false], [true, false]])
        yield* history.restore(tag, yield* history.earlier(tag))
        assert.strictEqual((yield* graph.resolve("one")).id, one.id)
        yield* graph.register(yield* imageOf("new", ["base"]))
        assert.deepStrictEqual((yield* (yield* Collector).collect()).images, [])
      }).pipe(withStore(path))
      yield* Effect.void.pipe(Effect.provide(Store.layer({ path: fresh })))
      assert.deepStrictEqual(schemaOf(path), schemaOf(fresh))
    }).pipe(Effect.scoped))
  }
})
