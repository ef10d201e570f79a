import { Context, Effect, Layer, Schema } from "effect"
import { Digest } from "../../image/Digest.ts"
import type { StoreError } from "../disk/Disk.ts"
import { Home } from "../disk/Home.ts"
import type { TagName } from "../Images.ts"
import * as Tags from "./Tags.ts"

type Shape = Home["Service"]

/** A change of a tag. */
export const Change = Schema.Struct({
  /** Milliseconds since 1970. */
  at: Schema.Int,
  /** Normalised repository and tag or digest. */
  name: Schema.String,
  reference: Schema.String,
  /** The images it named before and since, by their ids; null: none. */
  old: Schema.NullOr(Schema.String),
  now: Schema.NullOr(Schema.String),
  /** The manifest it names since, or where it was taken away, named last. */
  manifest: Schema.NullOr(Digest),
  /** The endpoint that answered; null where nobody was asked. */
  endpoint: Schema.NullOr(Schema.String),
  /** Whether it went back to an earlier value. */
  rollback: Schema.Boolean,
  /** Whether the store still has the image it names since. */
  kept: Schema.Boolean
})

/** A change of a tag. */
export type Change = typeof Change.Type

/** The tag has no earlier value that the store remembers. */
export class NoEarlierValue extends Schema.TaggedError<NoEarlierValue>()("NoEarlierValue", { name: Schema.String, reference: Schema.String }) {
  override get message() {
    return `the store remembers no earlier value of ${this.name}:${this.reference}: \`graph log\` shows what it was`
  }
}

/** An earlier value of a tag: what it named, and which change set it. */
export interface Earlier {
  readonly change: number
  readonly image: string
  readonly manifest: Digest
  /** What the reference led to: an index, or the manifest. */
  readonly target: Digest
}

const Row = Schema.Struct({
  at: Schema.Int, name: Schema.String, reference: Schema.String, old_image: Schema.NullOr(Schema.String), new_image: Schema.NullOr(Schema.String),
  manifest: Schema.NullOr(Digest), endpoint: Schema.NullOr(Schema.String), back_to: Schema.NullOr(Schema.Int), kept: Schema.Int
})
const Name = Schema.Struct({ name: Schema.String })
const Step = Schema.Struct({
  id: Schema.Int, new_image: Schema.NullOr(Schema.String), manifest: Schema.NullOr(Digest), target: Schema.NullOr(Digest), back_to: Schema.NullOr(Schema.Int)
})

const log = Effect.fn("History.log")(function*({ db }: Shape, tag?: TagName) {
  const { sql } = db
  const where = tag === undefined ? sql`1` : sql`l.name = ${tag.name} AND l.reference = ${tag.reference}`
  const rows = yield* db.rows(Row, sql`SELECT l.at, l.name, l.reference, l.old_image, l.new_image, l.manifest, l.endpoint, l.back_to,
      EXISTS (SELECT 1 FROM images i WHERE i.id = l.new_image) AS kept FROM tag_log l WHERE ${where} ORDER BY l.id DESC`)
  return rows.map(({ back_to, kept, new_image, old_image, ...row }): Change =>
    ({ ...row, old: old_image, now: new_image, rollback: back_to !== null, kept: kept === 1 }))
})

/** The value before the present one. A change that went back counts as the one it went back to: going back again goes further. */
const earlier = Effect.fn("History.earlier")(function*({ db }: Shape, { name, reference }: TagName) {
  const steps = yield* db.rows(Step, db.sql`SELECT id, new_image, manifest, target, back_to FROM tag_log
    WHERE name = ${name} AND reference = ${reference} ORDER BY id DESC`)
  const [last] = steps
  const present = last === undefined || last.back_to === null ? last : steps.find(({ id }) => id === last.back_to)
  if (present === undefined) return yield* new NoEarlierValue({ name, reference })
  for (const { back_to, id, manifest, new_image, target } of steps) {
    if (id >= present.id || new_image === null || manifest === null || manifest === present.manifest) continue
    const value: Earlier = { change: back_to ?? id, image: new_image, manifest, target: target ?? manifest }
    return value
  }
  return yield* new NoEarlierValue({ name, reference })
})

const make = Effect.gen(function*() {
  const home = yield* Home
  return {
    log: (tag?: TagName) => log(home, tag),
    earlier: (tag: TagName) => earlier(home, tag),
    sources: Effect.fn("History.sources")(function*(manifest: Digest) {
      const rows = yield* home.db.rows(Name, home.db.sql`SELECT name, max(id) AS last FROM tag_log WHERE manifest = ${manifest} AND endpoint IS NOT NULL GROUP BY name ORDER BY last DESC`)
      return rows.map(({ name }) => name)
    }),
    restore: (tag: TagName, { change, image, manifest, target }: Earlier, instead?: TagName) => home.db.transaction(Effect.andThen(
      Tags.write(home, tag, { image, manifest, target }, { backTo: change }), instead === undefined ? Effect.void : Tags.remove(home, instead)))
  }
})

/** What every tag pointed to, when, and from where. */
export class History extends Context.Service<History, {
  /** The changes of a tag, or of all, the latest first. */
  readonly log: (tag?: TagName) => Effect.Effect<ReadonlyArray<Change>, StoreError>
  /** What the tag named before its present value; after going back, what it named before that. */
  readonly earlier: (tag: TagName) => Effect.Effect<Earlier, StoreError | NoEarlierValue>
  /** The repositories that an image with this manifest was pulled from, the latest first: also those of images that are gone. */
  readonly sources: (manifest: Digest) => Effect.Effect<ReadonlyArray<string>, StoreError>
  /** Sets the tag to an earlier value, whose image must be in the store; `instead` of a name it has only for that, which goes. */
  readonly restore: (tag: TagName, value: Earlier, instead?: TagName) => Effect.Effect<void, StoreError>
}>()("store/History") {
  static readonly layer: Layer.Layer<History, never, Home> = Layer.effect(History, make)
}
