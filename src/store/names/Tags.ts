import { Clock, Effect, Schema } from "effect"
import * as Digest from "../../image/Digest.ts"
import type { Home } from "../disk/Home.ts"
import type { Image, TagName } from "../Images.ts"

type Shape = Home["Service"]

/** A tag is set already, and nobody said that it may move (docker 1.9: TagStore.Tag, in its words). `image` is what it names. */
export class TagTaken extends Schema.TaggedError<TagTaken>()("TagTaken", { name: Schema.String, tag: Schema.String, image: Schema.String }) {
  override get message() {
    return `Conflict: Tag ${localName(this.name)}:${this.tag} is already set to image ${this.image.slice(0, 12)}, if you want to replace it, please use -f option`
  }
}

/** A digest stands for one image for ever (docker 1.9: TagStore.SetDigest, in its words). */
export class DigestTaken extends Schema.TaggedError<DigestTaken>()("DigestTaken", { name: Schema.String, digest: Schema.String, image: Schema.String }) {
  override get message() {
    return `Conflict: Digest ${this.digest} is already set to image ${this.image}`
  }
}

/** How people write a repository: Docker Hub's without host, its official images without `library/`. */
const localName = (name: string): string => name.replace(/^docker\.io\/(?:library\/)?/, "")

/** How to set a tag. */
export interface TagOptions {
  /** A tag that names another image is moved. */
  readonly force?: boolean
}

const TagRow = Schema.Struct({ image: Schema.String, manifest: Digest.Digest, target: Digest.Digest })

const current = ({ db }: Shape, { name, reference }: TagName) => Effect.map(
  db.rows(TagRow, db.sql`SELECT image, manifest, target FROM tags WHERE name = ${name} AND reference = ${reference}`), ([row]) => row)

/** What is remembered of a change: the endpoint that answered, or the earlier change (its row in tag_log) it went back to. */
export interface Cause {
  readonly endpoint?: string | undefined
  readonly backTo?: number
}

/** Sets a tag or digest, in a transaction, and remembers the change. */
export const write = Effect.fnUntraced(function*(home: Shape, tag: TagName, now: typeof TagRow.Type, { backTo, endpoint }: Cause = {}) {
  const { db } = home
  const { sql } = db
  const { name, reference } = tag
  const at = yield* Clock.currentTimeMillis
  const old = yield* current(home, tag)
  if (old !== undefined && old.image === now.image && old.manifest === now.manifest && old.target === now.target) return
  yield* db.run(sql`INSERT INTO tags ${sql.insert({ name, reference, ...now, since: at })}
    ON CONFLICT (name, reference) DO UPDATE SET image = excluded.image, manifest = excluded.manifest, target = excluded.target, since = excluded.since`)
  yield* db.run(sql`INSERT INTO tag_log ${sql.insert({
    at, name, reference, old_image: old?.image ?? null, new_image: now.image, manifest: now.manifest, target: now.target,
    endpoint: endpoint ?? null, back_to: backTo ?? null
  })}`)
})

/** Takes a name away, in a transaction, and remembers that. */
export const remove = Effect.fnUntraced(function*({ db }: Shape, { name, reference }: TagName) {
  const { sql } = db
  const at = yield* Clock.currentTimeMillis
  yield* db.run(sql`INSERT INTO tag_log (at, name, reference, old_image, new_image, manifest)
    SELECT ${at}, name, reference, image, NULL, manifest FROM tags WHERE name = ${name} AND reference = ${reference}`)
  yield* db.run(sql`DELETE FROM tags WHERE name = ${name} AND reference = ${reference}`)
})

/** Gives an image one more name by Docker 1.9's rules, in a transaction; see `Graph.tag`. */
export const tag = Effect.fnUntraced(function*(home: Shape, { id, manifest: { digest } }: Image, tag: TagName, { force = false }: TagOptions = {}) {
  const { name, reference } = tag
  const old = yield* current(home, tag)
  if (old !== undefined && reference.includes(":")) {
    return old.image === id ? undefined : yield* new DigestTaken({ name, digest: reference, image: old.image })
  }
  if (old !== undefined && !force) return yield* new TagTaken({ name, tag: reference, image: old.image })
  yield* write(home, tag, { image: id, manifest: digest, target: digest })
  return old === undefined || old.image === id ? undefined : old.image
})
