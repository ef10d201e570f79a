import { Effect, Layer, Schema } from "effect"
import { DatabaseSync, StatementSync } from "node:sqlite"
import fs from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import { BlobStore } from "../../src/store/BlobStore.ts"
import * as Disk from "../../src/store/disk/Disk.ts"
import * as Home from "../../src/store/disk/Home.ts"
import { LayerStore } from "../../src/store/LayerStore.ts"
import { Leases } from "../../src/store/Leases.ts"
import { blobOf, pull, withStore } from "./Fixtures.ts"

// What the tests run as a process of its own: `node child.ts <job> <store> <number>`.
const [job, path = "", number = "0"] = process.argv.slice(2)
const say = (line: string) => Effect.sync(() => { fs.writeSync(1, `${line}\n`) })

/** Kills this process before its n-th call that changes something on disk, and tells how many there were if there are fewer. */
const killBefore = (n: number) => {
  let calls = 0
  const counting = (object: object, names: ReadonlyArray<string>) => {
    for (const name of names) {
      const call: unknown = Reflect.get(object, name)
      if (typeof call !== "function") throw new Error(`there is no ${name}`)
      Reflect.set(object, name, function(this: unknown, ...args: ReadonlyArray<unknown>): unknown {
        if (++calls === n) process.kill(process.pid, "SIGKILL")
        return Reflect.apply(call, this, args)
      })
    }
  }
  counting(fs, ["renameSync", "fsync", "unlinkSync", "mkdirSync", "openSync", "writeSync", "writeFileSync", "rm", "closeSync", "ftruncateSync", "chmodSync"])
  counting(DatabaseSync.prototype, ["exec", "close"])
  counting(StatementSync.prototype, ["all"])
  syncBuiltinESMExports()
  return Effect.sync(() => calls)
}

const Counter = Schema.Struct({ at: Schema.Int })

/** Adds one to a row `number` times, each in a transaction that reads it first. */
const count = Effect.gen(function*() {
  const { db } = yield* Home.Home
  const { sql } = db
  for (let turn = 0; turn < Number(number); turn++) {
    yield* db.transaction(Effect.gen(function*() {
      const [row] = yield* db.rows(Counter, sql`SELECT at FROM origins WHERE digest = 'counter'`)
      yield* db.run(row === undefined
        ? sql`INSERT INTO origins ${sql.insert({ digest: "counter", repository: "", endpoint: "", at: 1 })}`
        : sql`UPDATE origins SET at = ${row.at + 1} WHERE digest = 'counter'`)
    }))
  }
})

/** Holds the ingest of "half" and "whole" with a part of it, and a lease, a staging folder, until it is killed. */
const hold = Effect.gen(function*() {
  const bytes = Buffer.from("first half, second half")
  const ingest = yield* (yield* BlobStore).ingest(blobOf(bytes))
  yield* Disk.attempt(() => ingest.append(bytes.subarray(0, 12)))
  const staging = yield* (yield* LayerStore).staging({ kind: "layer" })
  fs.writeFileSync(`${staging.path}/something`, "")
  yield* (yield* Leases).hold([blobOf(bytes).digest])
  yield* say(`holding ${staging.row}`)
  yield* Effect.never
})

const jobs: Record<string, Effect.Effect<void, unknown>> = {
  count: Effect.provide(count, Home.layer(path)),
  hold: hold.pipe(Effect.scoped, withStore(path)),
  pull: Effect.suspend(() => {
    const calls = killBefore(Number(number))
    return Effect.andThen(pull.pipe(withStore(path)), Effect.flatMap(calls, (n) => say(`calls ${n}`)))
  }),
  open: Effect.scoped(Effect.asVoid(Layer.build(Home.layer(path))))
}

Effect.runPromise(jobs[job ?? ""] ?? Effect.die(new Error("no such job"))).then(
  () => process.exit(0),
  (error: unknown) => { fs.writeSync(2, `${String(error)}\n`); process.exit(1) }
)
