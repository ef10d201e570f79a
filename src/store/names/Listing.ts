import { Context, Effect, Layer, Result, Schema } from "effect"
import { Digest } from "../../image/Digest.ts"
import * as Reference from "../../image/Reference.ts"
import type { StoreError } from "../disk/Disk.ts"
import { Home } from "../disk/Home.ts"
import { imageUsage } from "../upkeep/Usage.ts"

type Shape = Home["Service"]

/** Which images are asked for; all that is given must hold. */
export interface Filter {
  /** Also images that only others stand on (of kinds schema1 and v1). Default: no. */
  readonly all?: boolean
  /** A name (`debian`, `debian:12`) or a pattern with `*` and `?` over whole names. */
  readonly names?: ReadonlyArray<string>
  /** Images without a tag alone (true), or those with one alone. */
  readonly untagged?: boolean
  readonly platform?: string
  /** `key` or `key=value` of the config's labels. */
  readonly labels?: ReadonlyArray<string>
  /** Milliseconds since 1970: tagged or registered here since then, or before. */
  readonly since?: number
  readonly before?: number
}

/** A tag and its image, or an image without a tag. */
export interface Entry {
  readonly name: string | undefined
  readonly reference: string | undefined
  readonly id: string
  readonly kind: string
  readonly manifest: Digest
  /** What the tag led to: an index, or the manifest. */
  readonly target: Digest
  readonly platform: string
  /** What it is, if it is an artifact. */
  readonly artifact: string | undefined
  /** Of a tag of an index that was stored whole: how many images and artifacts that are, this one included; else 1. */
  readonly members: number
  readonly created: string | undefined
  readonly since: number
  /** Bytes of its blobs and unpacked layers, and of these what no other image needs, and what others need too. */
  readonly blobs: number
  readonly layers: number
  readonly unique: number
  readonly shared: number
}

const Row = Schema.Struct({
  name: Schema.NullOr(Schema.String), reference: Schema.NullOr(Schema.String), id: Schema.String, kind: Schema.String, manifest: Digest, target: Digest,
  platform: Schema.String, artifact: Schema.NullOr(Schema.String), members: Schema.Int, created: Schema.NullOr(Schema.String), since: Schema.Int,
  config: Schema.NullOr(Schema.Uint8Array)
})
const Sizes = Schema.Struct({ blobs: Schema.Int, layers: Schema.Int, unique_blobs: Schema.Int, unique_layers: Schema.Int })
const Labels = Schema.Struct({ config: Schema.optionalKey(Schema.NullOr(Schema.Struct({ Labels: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String))) }))) })
const decodeLabels = Schema.decodeUnknownResult(Schema.fromJsonString(Labels))

/** What one image takes. Its parts are looked up by index, so it costs the same whatever else the store holds. */
const sizesOf = Effect.fnUntraced(function*({ db }: Shape, id: string) {
  const [row] = yield* db.rows(Sizes, db.sql`WITH RECURSIVE
    own(digest, size) AS MATERIALIZED (SELECT DISTINCT b.digest, b.size FROM manifests m JOIN manifest_blobs p ON p.manifest = m.digest
      JOIN blobs b ON b.digest = p.digest AND b.state = 'ready' WHERE m.image = ${id}),
    up(chain) AS (SELECT chain FROM images WHERE id = ${id} AND chain IS NOT NULL
      UNION SELECT c.parent FROM up JOIN chains c ON c.chain_id = up.chain WHERE c.parent IS NOT NULL),
    laid(digest, size, chain) AS MATERIALIZED (SELECT l.diff_id, l.size, up.chain FROM up JOIN chains c ON c.chain_id = up.chain
      JOIN layers l ON l.diff_id = c.diff_id AND l.state <> 'deleting')
    SELECT CAST((SELECT total(size) FROM own) AS INTEGER) AS blobs,
      CAST((SELECT total(size) FROM own WHERE NOT EXISTS (SELECT 1 FROM manifest_blobs q JOIN manifests n ON n.digest = q.manifest
        WHERE q.digest = own.digest AND n.image <> ${id})) AS INTEGER) AS unique_blobs,
      CAST((SELECT total(size) FROM (SELECT DISTINCT digest, size FROM laid)) AS INTEGER) AS layers,
      CAST((SELECT total(size) FROM (SELECT DISTINCT digest, size FROM laid WHERE NOT EXISTS (
        SELECT 1 FROM manifest_blobs q JOIN manifests n ON n.digest = q.manifest WHERE q.diff_id = laid.digest AND n.image <> ${id}))) AS INTEGER) AS unique_layers`)
  const { blobs, layers, unique_blobs, unique_layers } = row ?? { blobs: 0, layers: 0, unique_blobs: 0, unique_layers: 0 }
  const unique = unique_blobs + unique_layers
  return { blobs, layers, unique, shared: blobs + layers - unique }
})

/** From so many images on it is quicker to look at all there are. */
const few = 300

const sizesOfAll = Effect.fnUntraced(function*(home: Shape, ids: ReadonlySet<string>) {
  if (ids.size > few) return new Map((yield* imageUsage(home)).map((usage) => [usage.id, usage]))
  const sizes = new Map<string, Effect.Success<ReturnType<typeof sizesOf>>>()
  for (const id of ids) sizes.set(id, yield* sizesOf(home, id))
  return sizes
})

/** `text` as SQLite's GLOB has it, where `[` is no special character for us. */
const glob = (text: string) => text.replaceAll("[", "[[]")

/** The names in the store that `text` asks for: one, or all that fit a pattern. */
const condition = ({ db }: Shape, text: string) => {
  const { sql } = db
  if (!/[*?]/.test(text)) {
    const parsed = Reference.parse(text)
    if (Result.isFailure(parsed)) return sql`0`
    const name = Reference.name(parsed.success)
    const { digest, tag } = parsed.success
    const tagged = /[:@]/.test(text.slice(text.lastIndexOf("/") + 1))
    return tagged ? sql`(s.name = ${name} AND s.reference = ${digest ?? tag ?? "latest"})` : sql`s.name = ${name}`
  }
  const whole = sql.literal("s.name || CASE WHEN instr(s.reference, ':') > 0 THEN '@' ELSE ':' END || s.reference")
  // People leave out what is Docker Hub's.
  const forms = [text, `docker.io/${text}`, `docker.io/library/${text}`].flatMap((form) => [form, `${form}:*`, `${form}@*`])
  return sql`(${sql.or(forms.map((form) => sql`${whole} GLOB ${glob(form)}`))})`
}

const fits = (config: Uint8Array, labels: ReadonlyArray<string>): boolean => {
  const decoded = decodeLabels(Buffer.from(config).toString())
  const own = Result.isSuccess(decoded) ? decoded.success.config?.Labels ?? {} : {}
  return labels.every((label) => {
    const [, key = "", value] = /^([^=]*)(?:=(.*))?$/s.exec(label) ?? []
    return Object.hasOwn(own, key) && (value === undefined || own[key] === value)
  })
}

const list = Effect.fn("Listing.list")(function*(home: Shape, filter: Filter) {
  const { db } = home
  const { sql } = db
  const { all = false, before, labels = [], names = [], platform, since, untagged } = filter
  const wanted = names.length === 0 ? sql`1` : sql.or(names.map((name) => condition(home, name)))
  const asked = [
    ...platform === undefined ? [] : [sql`(i.platform = ${platform} OR i.platform GLOB ${`${glob(platform)}/*`})`],
    ...since === undefined ? [] : [sql`s.since >= ${since}`], ...before === undefined ? [] : [sql`s.since < ${before}`]
  ]
  const tagged = sql`SELECT s.name, s.reference, s.image AS id, s.manifest, s.target, s.since FROM tags s WHERE ${wanted}`
  const nameless = sql`SELECT NULL AS name, NULL AS reference, i.id, i.manifest, i.manifest AS target, i.since FROM images i
    WHERE NOT EXISTS (SELECT 1 FROM tags WHERE image = i.id)
      AND ${all ? sql`1` : sql`NOT EXISTS (SELECT 1 FROM images above WHERE above.parent = i.id)
        AND NOT EXISTS (SELECT 1 FROM manifests m JOIN members x ON x.manifest = m.digest JOIN tags t ON t.target = x.target WHERE m.image = i.id)`}`
  const shown = untagged === true ? nameless : untagged === false || names.length > 0 ? tagged : sql`${tagged} UNION ALL ${nameless}`
  const rows = yield* db.rows(Row, sql`SELECT s.*, i.kind, i.platform, i.artifact, i.created,
    max(1, (SELECT count(*) FROM members x WHERE x.target = s.target AND s.name IS NOT NULL)) AS members, ${labels.length > 0 ? sql`i.config` : sql`NULL AS config`}
    FROM (${shown}) s JOIN images i ON i.id = s.id WHERE ${sql.and([sql`1`, ...asked])} ORDER BY s.name IS NULL, s.name, s.reference, s.id`)
  const found = labels.length === 0 ? rows : rows.filter(({ config }) => config !== null && fits(config, labels))
  const sizes = yield* sizesOfAll(home, new Set(found.map(({ id }) => id)))
  return found.map(({ artifact, created, id, kind, manifest, members, name, platform, reference, since, target }): Entry => {
    const { blobs, layers, shared, unique } = sizes.get(id) ?? { blobs: 0, layers: 0, unique: 0, shared: 0 }
    return {
      name: name ?? undefined, reference: reference ?? undefined, id, kind, manifest, target, platform, artifact: artifact ?? undefined, members, created: created ?? undefined, since,
      blobs, layers, unique, shared
    }
  })
})

/** An image in the drawn graph, or a stack of layers that several stand on and that is no image. */
export interface Branch {
  /** The image's id; undefined for a mere stack. */
  readonly id: string | undefined
  readonly kind: string | undefined
  readonly names: ReadonlyArray<string>
  /** The chain ID it ends at; undefined for an image without layers. */
  readonly chain: string | undefined
  /** How many layers it adds to what it stands on, and their bytes unpacked. */
  readonly added: number
  readonly size: number
  readonly children: ReadonlyArray<Branch>
}

const TreeImage = Schema.Struct({
  id: Schema.String, kind: Schema.String, parent: Schema.NullOr(Schema.String), chain: Schema.NullOr(Schema.String), names: Schema.NullOr(Schema.String)
})
const TreeChain = Schema.Struct({ chain_id: Schema.String, parent: Schema.NullOr(Schema.String), size: Schema.Int })

interface Growing {
  readonly id: string | undefined
  readonly kind: string | undefined
  readonly names: ReadonlyArray<string>
  readonly chain: string | undefined
  added: number
  size: number
  readonly children: Array<Growing>
}

const tree = Effect.fn("Listing.tree")(function*({ db }: Shape) {
  const { sql } = db
  const images = yield* db.rows(TreeImage, sql`SELECT i.id, i.kind, i.parent, i.chain, t.names FROM images i LEFT JOIN (
      SELECT image, group_concat(name || CASE WHEN instr(reference, ':') > 0 THEN '@' ELSE ':' END || reference, ' ') AS names FROM tags GROUP BY image
    ) t ON t.image = i.id ORDER BY t.names IS NULL, t.names, i.id`)
  const chains = new Map((yield* db.rows(TreeChain, sql`SELECT c.chain_id, c.parent, coalesce(l.size, 0) AS size FROM chains c
    LEFT JOIN layers l ON l.diff_id = c.diff_id AND l.state <> 'deleting'`)).map((row) => [row.chain_id, row]))
  const grown = (id: string | undefined, kind: string | undefined, names: string | null, chain: string | undefined): Growing =>
    ({ id, kind, names: names?.split(" ").sort() ?? [], chain, added: 0, size: 0, children: [] })
  const nodes = new Map(images.map(({ chain, id, kind, names }) => [id, grown(id, kind, names, chain ?? undefined)]))
  // An image of the old graph stands on its parent; any other on the first stack below it that has a node.
  const stands = new Map<string, Growing>()
  for (const { chain, id, parent } of images) {
    const node = nodes.get(id)
    if (chain !== null && parent === null && node !== undefined && !stands.has(chain)) stands.set(chain, node)
  }
  const branching = new Map<string, number>()
  for (const { parent } of chains.values()) if (parent !== null) branching.set(parent, (branching.get(parent) ?? 0) + 1)
  const below = new Set<string>()
  for (const { chain, parent } of images) {
    for (let at = parent === null ? chain : null; at !== null && !below.has(at); at = chains.get(at)?.parent ?? null) below.add(at)
  }
  for (const [chain, count] of branching) {
    if (count > 1 && below.has(chain) && !stands.has(chain)) stands.set(chain, grown(undefined, undefined, null, chain))
  }
  const roots: Array<Growing> = []
  const place = (node: Growing, from: string | undefined) => {
    let at = from
    for (; at !== undefined; at = chains.get(at)?.parent ?? undefined) {
      const stood = stands.get(at)
      if (stood !== undefined && stood !== node) return void stood.children.push(node)
      node.added++
      node.size += chains.get(at)?.size ?? 0
    }
    roots.push(node)
  }
  for (const node of stands.values()) if (node.id === undefined) place(node, node.chain)
  for (const { chain, id, parent } of images) {
    const node = nodes.get(id)
    const above = parent === null ? undefined : nodes.get(parent)
    if (node === undefined) continue
    if (above !== undefined) {
      const own = chain === null || chain === above.chain ? undefined : chains.get(chain)
      if (own !== undefined) Object.assign(node, { added: 1, size: own.size })
      above.children.push(node)
    } else place(node, chain ?? undefined)
  }
  const branches: ReadonlyArray<Branch> = roots
  return branches
})

const make = Effect.gen(function*() {
  const home = yield* Home
  return { list: (filter: Filter = {}) => list(home, filter), tree: tree(home) }
})

/** Looks at many images at once. */
export class Listing extends Context.Service<Listing, {
  /** The tags, and images without one, that a filter lets through, by name. A filter by name costs what it finds. */
  readonly list: (filter?: Filter) => Effect.Effect<ReadonlyArray<Entry>, StoreError>
  /** All images by what they stand on: the parent an old one names, else the image or stack whose layers it begins with. */
  readonly tree: Effect.Effect<ReadonlyArray<Branch>, StoreError>
}>()("store/Listing") {
  static readonly layer: Layer.Layer<Listing, never, Home> = Layer.effect(Listing, make)
}
