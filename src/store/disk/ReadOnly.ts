import { Clock, Effect, Layer } from "effect"
import { chmodSync, copyFileSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Disk from "./Disk.ts"
import { StoreError } from "./Disk.ts"
import { Home, isReadOnly as isReadOnlyPath, look, Remover } from "./Home.ts"
import { Leases } from "../Leases.ts"
import * as Migrations from "./Migrations.ts"
import * as Owner from "./Owner.ts"
import * as Sqlite from "./Sqlite.ts"

/** Whether a store is at `path`, on a file system that is mounted read-only. */
export const isReadOnly = (path: string): Effect.Effect<boolean, StoreError> => Disk.call("open", path, () => {
  const root = resolve(path)
  if (look(`${root}/graph.db`) === undefined) return false
  return isReadOnlyPath(root)
})

/** A copy of the database with its log, in a private folder that goes with the scope: for one that was not closed, or is older. */
const copied = (file: string) => Effect.acquireRelease(
  Disk.call("copy", file, () => {
    const folder = mkdtempSync(`${tmpdir()}/towline-graph-`)
    for (const end of ["", "-wal"]) {
      if (look(`${file}${end}`) === undefined) continue
      copyFileSync(`${file}${end}`, `${folder}/graph.db${end}`)
      chmodSync(`${folder}/graph.db${end}`, 0o600)
    }
    return folder
  }),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true })))

const make = Effect.fn("ReadOnly.open")(function*(path: string) {
  const root = resolve(path)
  const file = `${root}/graph.db`
  const refuse = new StoreError({ operation: "change", path: root, code: "EROFS" })
  const logged = yield* Disk.call("open", file, () => (look(`${file}-wal`)?.size ?? 0) > 0)
  const open = Effect.gen(function*() {
    const mode = yield* Disk.call("open", root, () => statSync(root).mode & 0o777)
    if ((mode & 0o077) !== 0) return yield* new StoreError({ operation: "open", path: root, detail: `others may look into it (its mode is 0${mode.toString(8)})` })
    if (!logged) {
      const db = yield* Sqlite.open(`${pathToFileURL(file).href}?immutable=1`, { readOnly: true })
      if ((yield* Migrations.versionOf(db)) === Migrations.version) return db
    }
    const folder = yield* copied(file)
    const db = yield* Sqlite.open(`${folder}/graph.db`)
    yield* Migrations.migrate(db, file)
    return db
  })
  const db = yield* open
  const self = Owner.identify(yield* Clock.currentTimeMillis)
  const remover = yield* Remover
  return {
    root, readOnly: true, db, owner: { self, enter: Effect.fail(refuse), bury: Effect.succeed(false) },
    remove: (path: string) => path.startsWith(`${root}/`) ? Effect.fail(refuse) : remover(path), discard: () => Effect.void, removals: { underway: 0 }, giveUp: () => Effect.void
  }
})

/** Opens a store for reading: nothing is written, nothing is swept, and nobody else may change it meanwhile. */
export const home = (path: string): Layer.Layer<Home, StoreError> => Layer.effect(Home, make(path))

/** Nobody removes anything from a store that is read-only. */
export const leases: Layer.Layer<Leases> = Layer.succeed(Leases, { hold: () => Effect.succeed("") })
