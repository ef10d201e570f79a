import { Context, Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import { constants, readdirSync } from "node:fs"
import * as Digest from "../../image/Digest.ts"
import * as Disk from "../disk/Disk.ts"
import type { StoreError } from "../disk/Disk.ts"
import * as Rows from "./Rows.ts"
import { absolute, blobPath, type Home, ingestColumns, IngestRow, layerPath, look } from "../disk/Home.ts"
import { settle } from "./Sweep.ts"

type Shape = Home["Service"]

/** Something in the store that has no partner or is not what it should be. `subject` is a path, digest, id or name. */
export const Finding = Schema.Struct({
  kind: Schema.Literals([
    "blob-file-missing", "blob-row-missing", "blob-size", "blob-digest", "layer-folder-missing", "layer-row-missing",
    "ingest-row-missing", "ingest-entry-missing", "ingest-left", "chain-wrong", "image-wrong", "image-incomplete", "dangling",
    "mode", "database", "row-wrong", "layer-damaged", "layer-row-wrong", "layer-blob-wrong", "layer-sums-wrong", "layer-unverified"
  ]),
  subject: Schema.String,
  detail: Schema.String,
  /** The blob it is about, beside the subject. */
  blob: Schema.optionalKey(Digest.Digest),
  /** What a layer's row should say of its tar. */
  facts: Schema.optionalKey(Schema.Struct({ size: Schema.Int, entries: Schema.Int }))
})

/** One line of `graph check`. */
export type Finding = typeof Finding.Type

/** `progress` hears of every blob: how many are done, of how many. */
export interface CheckOptions {
  readonly progress?: (done: number, total: number) => Effect.Effect<void>
}

/**
 * How the first `size` bytes of an open file are hashed: gives the hexadecimal digits. The default does it on the main thread,
 * letting others work in between; `concurrency` is how many at a time. It is taken where the store is opened.
 */
export const Hasher = Context.Reference<{
  readonly concurrency: number
  readonly hash: (fd: number, size: number, algorithm: "sha256" | "sha512", path: string) => Effect.Effect<string, StoreError>
}>("store/Hasher", {
  defaultValue: () => ({
    concurrency: 1,
    hash: Effect.fnUntraced(function*(fd, size, algorithm, path) {
      const hash = createHash(algorithm)
      yield* Disk.forEachPiece(fd, size, path, (piece) => hash.update(piece))
      return hash.digest("hex")
    })
  })
})

const BlobRow = Schema.Struct({ digest: Digest.Digest, size: Schema.Int, state: Schema.String })
const LayerRow = Schema.Struct({ diff_id: Digest.Digest, state: Schema.String })
const Count = Schema.Struct({ count: Schema.Int })

const algorithms = ["sha256", "sha512"] as const

const listed = (folder: string) => Disk.call("list", folder, () => algorithms.flatMap((algorithm) =>
  (Disk.unlessAbsent(() => readdirSync(`${folder}/${algorithm}`)) ?? []).map((name) => `${algorithm}:${name}`)))

const modeOf = (path: string, wanted: number): ReadonlyArray<Finding> => {
  const mode = (look(path)?.mode ?? 0) & 0o777
  if ((mode & ~wanted) === 0) return []
  return [{ kind: "mode", subject: path, detail: `its mode is 0${mode.toString(8)}: others may look into it; run: chmod ${wanted.toString(8)} on it` }]
}

const one = Effect.fnUntraced(function*({ root, db }: Shape, { digest, size }: typeof BlobRow.Type): Effect.fn.Return<ReadonlyArray<Finding>, StoreError> {
  const path = blobPath(root, digest)
  const stat = yield* Disk.call("read", path, () => look(path))
  if (stat === undefined || !stat.isFile()) {
    const [still] = yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM blobs WHERE digest = ${digest} AND state = 'ready'`)
    return still?.count === 0 ? [] : [{ kind: "blob-file-missing", subject: digest, detail: `the store lists it, but there is no file ${path}` }]
  }
  if (stat.size !== size) return [{ kind: "blob-size", subject: digest, detail: `its file has ${stat.size} bytes instead of ${size}` }]
  const { algorithm, hex } = Digest.parts(digest)
  const { hash } = yield* Hasher
  const hashed = yield* Effect.scoped(Effect.flatMap(Disk.open(path, constants.O_RDONLY), (fd) => hash(fd, size, algorithm, path))).pipe(
    Effect.map((hex) => ({ hex, code: undefined })),
    Effect.catchIf(({ code }) => code === "EIO" || code === "ENOENT", ({ code }) => Effect.succeed({ hex: undefined, code })))
  if (hashed.code === "ENOENT") return [] // removed meanwhile
  if (hashed.hex === undefined) return [{ kind: "blob-digest", subject: digest, detail: `its file ${path} cannot be read (${hashed.code ?? "EIO"})` }]
  const actual = hashed.hex
  const wrong: ReadonlyArray<Finding> = actual === hex ? [] : [{ kind: "blob-digest", subject: digest, detail: `its file's bytes have the digest ${algorithm}:${actual}` }]
  return [...wrong, ...modeOf(path, 0o600)]
})

const blobs = Effect.fnUntraced(function*(home: Shape, progress: CheckOptions["progress"]) {
  const { root, db } = home
  const { sql } = db
  const files = yield* listed(`${root}/blobs`)
  const rows = yield* db.rows(BlobRow, sql`SELECT digest, size, state FROM blobs ORDER BY digest`)
  const known = new Set<string>(rows.map(({ digest }) => digest))
  const findings: Array<Finding> = []
  for (const name of files.filter((name) => !known.has(name))) {
    // A file comes before its row: it may have come since, or be just coming.
    const [coming] = yield* db.rows(Count, sql`SELECT (SELECT count(*) FROM blobs WHERE digest = ${name})
      + (SELECT count(*) FROM ingests WHERE digest = ${name} AND kind = 'blob') AS count`)
    if (coming?.count === 0) findings.push({ kind: "blob-row-missing", subject: name, detail: "a file in blobs/ that the store does not list" })
  }
  const ready = rows.filter(({ state }) => state === "ready")
  const { concurrency } = yield* Hasher
  let done = 0
  const hashed = yield* Effect.forEach(ready, Effect.fnUntraced(function*(row) {
    const found = yield* one(home, row)
    if (progress !== undefined) yield* progress(++done, ready.length)
    return found
  }), { concurrency })
  return [...findings, ...hashed.flat()]
})

const layers = Effect.fnUntraced(function*({ root, db }: Shape) {
  const folders = yield* listed(`${root}/layers`)
  const rows = yield* db.rows(LayerRow, db.sql`SELECT diff_id, state FROM layers ORDER BY diff_id`)
  const known = new Set<string>(rows.map(({ diff_id }) => diff_id))
  const findings: Array<Finding> = []
  for (const name of folders.filter((name) => !known.has(name))) {
    const [since] = yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM layers WHERE diff_id = ${name}`)
    if (since?.count === 0) findings.push({ kind: "layer-row-missing", subject: name, detail: "a folder in layers/ that the store does not list" })
  }
  for (const { diff_id, state } of rows.filter(({ state }) => state !== "deleting")) {
    const folder = layerPath(root, diff_id)
    const lacking = yield* Disk.call("read", folder, () => ["fs", "meta"].filter((part) => look(`${folder}/${part}`) === undefined))
    const [still] = lacking.length === 0 ? [] : yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM layers WHERE diff_id = ${diff_id} AND state = ${state}`)
    if (still?.count === 1) findings.push({ kind: "layer-folder-missing", subject: diff_id, detail: `the store lists it, but ${folder} lacks ${lacking.join(" and ")}` })
    findings.push(...yield* Disk.call("read", folder, () => modeOf(folder, 0o700)))
  }
  return findings
})

const ingests = Effect.fnUntraced(function*(home: Shape) {
  const { root, db, owner } = home
  const names = yield* Disk.call("list", `${root}/ingest`, () => readdirSync(`${root}/ingest`))
  const rows = yield* db.rows(IngestRow, db.sql`SELECT ${db.sql.literal(ingestColumns)} FROM ingests`)
  const known = new Set(rows.map(({ path }) => path))
  // An entry goes before its row: one that is gone by now was being removed between the two looks.
  const strange = yield* Disk.call("look at", `${root}/ingest`, () =>
    names.filter((name) => !known.has(`ingest/${name}`) && look(`${root}/ingest/${name}`) !== undefined))
  const findings: Array<Finding> = strange
    .map((name) => ({ kind: "ingest-row-missing", subject: `ingest/${name}`, detail: "an entry of ingest/ that the store does not list" }))
  // What a living owner has may be about to come or just be gone; what lost its owner since this opening swept is swept now.
  for (const row of rows.filter((row) => row.owner === null)) {
    const { kind, path } = row
    const there = Disk.call("read", path, () => look(absolute(root, path)) !== undefined)
    if ((yield* there) && kind === "blob") continue
    yield* Effect.ignore(settle(home, row))
    const [still] = yield* db.rows(Count, db.sql`SELECT count(*) AS count FROM ingests WHERE path = ${path} AND (owner IS NULL OR owner = ${owner.self.token})`)
    if (still?.count !== 1) continue
    findings.push((yield* there)
      ? { kind: "ingest-left", subject: path, detail: `left by a dead ${kind} and not to be removed so far; remove it by hand` }
      : { kind: "ingest-entry-missing", subject: path, detail: `listed as ${kind} without an owner, but nothing is there` })
  }
  for (const name of names) {
    const path = `${root}/ingest/${name}`
    findings.push(...yield* Disk.call("read", path, () => modeOf(path, look(path)?.isDirectory() === true ? 0o700 : 0o600)))
  }
  return findings
})

const ChainRow = Schema.Struct({ chain_id: Schema.String, parent: Schema.NullOr(Schema.String), diff_id: Schema.String })
const ImageRow = Schema.Struct({ id: Schema.String, kind: Schema.String, config_digest: Digest.Digest, config: Schema.Uint8Array })
const PartRow = Schema.Struct({ manifest: Schema.String, role: Schema.String, digest: Digest.Digest })
const Foreign = Schema.Struct({ table: Schema.String, rowid: Schema.NullOr(Schema.Int), parent: Schema.String })
const Quick = Schema.Struct({ integrity_check: Schema.String })

const rows = Effect.fnUntraced(function*({ db }: Shape) {
  const { sql } = db
  const findings: Array<Finding> = []
  for (const { integrity_check } of yield* db.rows(Quick, sql`PRAGMA integrity_check`)) {
    if (integrity_check !== "ok") findings.push({ kind: "database", subject: "graph.db", detail: integrity_check })
  }
  for (const { table, rowid, parent } of yield* db.rows(Foreign, sql`PRAGMA foreign_key_check`)) {
    findings.push({ kind: "dangling", subject: table, detail: `row ${rowid ?? "?"} names something that ${parent} does not have` })
  }
  for (const { chain_id, parent, diff_id } of yield* db.rows(ChainRow, sql`SELECT chain_id, parent, diff_id FROM chains`)) {
    const right = parent === null ? diff_id : `sha256:${createHash("sha256").update(`${parent} ${diff_id}`).digest("hex")}`
    if (right !== chain_id) findings.push({ kind: "chain-wrong", subject: chain_id, detail: `its parent and diff ID make ${right}` })
  }
  for (const { id, kind, config_digest, config } of yield* db.rows(ImageRow, sql`SELECT id, kind, config_digest, config FROM images`)) {
    const { algorithm, hex } = Digest.parts(config_digest)
    if (createHash(algorithm).update(config).digest("hex") !== hex || (hex !== id && (kind === "oci" || kind === "schema2"))) {
      findings.push({ kind: "image-wrong", subject: id, detail: `its config is not the bytes of ${config_digest}` })
    }
  }
  const lacking = yield* db.rows(PartRow, sql`SELECT manifest, role, digest FROM manifest_blobs p
    WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = p.digest AND b.state = 'ready')
      AND NOT EXISTS (SELECT 1 FROM layers l WHERE l.diff_id = p.diff_id AND l.state <> 'deleting')`)
  for (const { manifest, role, digest } of lacking) {
    findings.push({ kind: "image-incomplete", subject: manifest, detail: `its ${role} ${digest} is not in the store; pull it again`, blob: digest })
  }
  return findings
})

const contradicted = (home: Shape) => Effect.map(Rows.wrong(home), (wrong) =>
  wrong.map(({ detail, mend, subject }): Finding => ({ kind: mend === undefined ? "image-wrong" : "row-wrong", subject, detail })))

/** Compares rows, files and folders, and re-hashes every blob, letting others work in between. An empty list: all is well. */
export const check = Effect.fn("Graph.check")(function*(home: Shape, options?: CheckOptions) {
  const { root } = home
  const modes = yield* Disk.call("read", root, () => [
    ...["", "/blobs", "/layers", "/ingest", "/quarantine"].flatMap((name) => modeOf(`${root}${name}`, 0o700)), ...modeOf(`${root}/graph.db`, 0o600)
  ])
  return [...modes, ...yield* rows(home), ...yield* contradicted(home), ...yield* layers(home), ...yield* ingests(home), ...yield* blobs(home, options?.progress)]
})
