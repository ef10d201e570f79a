import { Effect, Schema } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import { StoreError } from "./Disk.ts"
import type { Database } from "./Sqlite.ts"

// One statement each: SQLite runs one at a time when prepared.
const first = [
  // A process (one opening of the store) that has something here: see Owner.ts. beat: milliseconds since 1970.
  `CREATE TABLE owners (
    token TEXT PRIMARY KEY, pid INTEGER NOT NULL, started TEXT NOT NULL, boot TEXT NOT NULL, namespace TEXT NOT NULL,
    beat INTEGER NOT NULL
  ) STRICT`,
  // Committed bytes. deleting: its file is going; an ingest waits until the row is gone.
  `CREATE TABLE blobs (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, state TEXT NOT NULL CHECK (state IN ('ready', 'deleting')),
    since INTEGER NOT NULL
  ) STRICT`,
  // Unpacked layers. boot: the boot in which it was committed, for the state unsynced.
  `CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, entries INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('unsynced', 'durable', 'deleting')), boot TEXT NOT NULL, since INTEGER NOT NULL
  ) STRICT`,
  `CREATE INDEX layers_unsynced ON layers (boot) WHERE state = 'unsynced'`,
  // What a blob was found to hold.
  `CREATE TABLE layer_blobs (blob TEXT PRIMARY KEY, diff_id TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL) STRICT`,
  `CREATE INDEX layer_blobs_diff ON layer_blobs (diff_id)`,
  `CREATE TABLE chains (chain_id TEXT PRIMARY KEY, parent TEXT REFERENCES chains, diff_id TEXT NOT NULL) STRICT`,
  `CREATE INDEX chains_parent ON chains (parent)`,
  `CREATE INDEX chains_diff ON chains (diff_id)`,
  `CREATE TABLE images (
    id TEXT PRIMARY KEY, parent TEXT REFERENCES images, kind TEXT NOT NULL CHECK (kind IN ('oci', 'schema2', 'schema1', 'v1')),
    config_digest TEXT NOT NULL, config_type TEXT NOT NULL, config BLOB NOT NULL, chain TEXT REFERENCES chains,
    manifest TEXT NOT NULL, compatibility BLOB, platform TEXT NOT NULL, created TEXT, since INTEGER NOT NULL
  ) STRICT`,
  `CREATE INDEX images_parent ON images (parent)`,
  `CREATE INDEX images_chain ON images (chain)`,
  `CREATE TABLE manifests (
    digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    image TEXT NOT NULL REFERENCES images ON DELETE CASCADE
  ) STRICT`,
  `CREATE INDEX manifests_image ON manifests (image)`,
  // Every blob a manifest's image needs, itself included; diff_id is set for layers.
  `CREATE TABLE manifest_blobs (
    manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('manifest', 'config', 'layer', 'index')), position INTEGER NOT NULL,
    digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL, diff_id TEXT,
    PRIMARY KEY (manifest, role, position, digest)
  ) STRICT`,
  `CREATE INDEX manifest_blobs_digest ON manifest_blobs (digest)`,
  // Which manifest was chosen out of what a reference led to, for the platform asked for.
  `CREATE TABLE resolutions (
    target TEXT NOT NULL, wanted TEXT NOT NULL, manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE,
    PRIMARY KEY (target, wanted)
  ) STRICT`,
  `CREATE INDEX resolutions_manifest ON resolutions (manifest)`,
  `CREATE TABLE tags (
    name TEXT NOT NULL, reference TEXT NOT NULL, image TEXT NOT NULL REFERENCES images, manifest TEXT NOT NULL REFERENCES manifests,
    target TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (name, reference)
  ) STRICT`,
  `CREATE INDEX tags_image ON tags (image)`,
  `CREATE INDEX tags_manifest ON tags (manifest)`,
  `CREATE TABLE tag_log (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL, reference TEXT NOT NULL,
    old_image TEXT, new_image TEXT, manifest TEXT
  ) STRICT`,
  `CREATE INDEX tag_log_tag ON tag_log (name, reference)`,
  `CREATE TABLE origins (
    digest TEXT NOT NULL, repository TEXT NOT NULL, endpoint TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (digest, repository)
  ) STRICT`,
  `CREATE TABLE leases (
    id TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL REFERENCES owners ON DELETE CASCADE, PRIMARY KEY (id, digest)
  ) STRICT`,
  `CREATE INDEX leases_digest ON leases (digest)`,
  `CREATE INDEX leases_owner ON leases (owner)`,
  // Every path that must not outlive its owner unseen; relative ones are in the store. No owner: void, the sweep's.
  // doubtful: the last owner was not provably dead, and may still write to the file.
  `CREATE TABLE ingests (
    path TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('blob', 'layer', 'rootfs', 'removal-blob', 'removal-layer')),
    owner TEXT REFERENCES owners ON DELETE SET NULL, digest TEXT, size INTEGER NOT NULL DEFAULT 0,
    doubtful INTEGER NOT NULL DEFAULT 0, touched INTEGER NOT NULL
  ) STRICT`,
  `CREATE UNIQUE INDEX ingests_blob ON ingests (digest) WHERE kind = 'blob'`,
  `CREATE INDEX ingests_digest ON ingests (digest)`,
  `CREATE INDEX ingests_owner ON ingests (owner)`
]

/**
 * Images of Docker's old graph (kinds schema1 and v1): each is one layer on its parent, kept under its own ID with its JSON in
 * `config`. checksum: the text its manifest gave as its layer's digest. parent_ref: Docker's `parent` file. layer_diff: its own
 * layer, NULL if it has none; layer_size: the sum of that layer's header sizes.
 */
const second = ["checksum TEXT", "parent_ref TEXT", "layer_diff TEXT", "layer_size INTEGER"].map((column) => `ALTER TABLE images ADD COLUMN ${column}`)

const third = [
  // What a tag led to (an index, or the manifest), which endpoint answered (null where nobody was asked), and the row of the
  // earlier change that this one went back to.
  `ALTER TABLE tag_log ADD COLUMN target TEXT`,
  `ALTER TABLE tag_log ADD COLUMN endpoint TEXT`,
  `ALTER TABLE tag_log ADD COLUMN back_to INTEGER`,
  `CREATE INDEX tag_log_old ON tag_log (old_image)`,
  `CREATE INDEX manifest_blobs_diff ON manifest_blobs (diff_id) WHERE diff_id IS NOT NULL`
]

/**
 * etag, etag_from: what the server called the bytes of a partial blob (a strong ETag), and the URL it was asked at: they are
 * continued while both are the same. sums: the SHA-256 of the file `sums` beside a layer, once its files' digests are recorded
 * (store/upkeep/Compressed.ts). artifact: what an artifact is, NULL for images; its config_digest and config are its manifest's,
 * since many have the same config. members: the images of an index that was pulled whole; they stay as long as a tag leads to it.
 */
const fourth = [
  `ALTER TABLE ingests ADD COLUMN etag TEXT`,
  `ALTER TABLE ingests ADD COLUMN etag_from TEXT`,
  `ALTER TABLE layers ADD COLUMN sums TEXT`,
  `ALTER TABLE images ADD COLUMN artifact TEXT`,
  `CREATE TABLE members (
    target TEXT NOT NULL, position INTEGER NOT NULL, manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE, PRIMARY KEY (target, manifest)
  ) STRICT`,
  `CREATE INDEX members_manifest ON members (manifest)`,
  `CREATE INDEX tags_target ON tags (target)`,
  `CREATE INDEX tag_log_manifest ON tag_log (manifest)`
]

const fifth = [
  // What a v1 registry gave under a name of its own, until its image is registered: see names/V1Layers.ts.
  `CREATE TABLE v1_layers (
    endpoint TEXT NOT NULL, repository TEXT NOT NULL, image TEXT NOT NULL, told TEXT NOT NULL, blob TEXT NOT NULL, media_type TEXT NOT NULL,
    size INTEGER NOT NULL, diff_id TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (endpoint, repository, image)
  ) STRICT`
]

const steps: ReadonlyArray<ReadonlyArray<string>> = [first, second, third, fourth, fifth]

/** The version of the database this code writes. */
export const version = steps.length

const table = "migrations"

const loader = Migrator.fromRecord(Object.fromEntries(steps.map((statements, index) => [
  `${index + 1}_step`,
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true }))
])))

const Latest = Schema.Struct({ latest: Schema.NullOr(Schema.Int) })
const Count = Schema.Struct({ count: Schema.Int })

/** The version of an opened database; 0 if it has none. */
export const versionOf = Effect.fnUntraced(function*(db: Database) {
  const { sql } = db
  const [there] = yield* db.rows(Count, sql`SELECT count(*) AS count FROM sqlite_schema WHERE name = ${table}`)
  const [row] = there?.count === 1 ? yield* db.rows(Latest, sql`SELECT max(migration_id) AS latest FROM ${sql(table)}`) : []
  return row?.latest ?? 0
})

/** Brings the database to `version`, in one transaction; `fresh` comes before a new one is made. A store of a newer version is refused. */
export const migrate = Effect.fnUntraced(function*(db: Database, file: string, fresh: Effect.Effect<void, StoreError> = Effect.void) {
  const { sql } = db
  const latest = yield* versionOf(db)
  if (latest === version) return
  if (latest > version) {
    return yield* new StoreError({
      operation: "open", path: file,
      detail: `this store was written by a newer towline (its version is ${latest}, this one knows ${version}); use that one, or another --store`
    })
  }
  if (latest === 0) yield* fresh
  yield* db.transaction(Effect.provideService(Migrator.make({})({ loader, table }), SqlClient.SqlClient, sql)).pipe(
    Effect.catchTag("MigrationError", (cause) => Effect.fail(new StoreError({ operation: "prepare the database", path: file, cause })))
  )
})
