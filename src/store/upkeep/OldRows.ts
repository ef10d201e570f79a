import { Effect, Option, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import type { Digest } from "../../image/Digest.ts"
import * as GoText from "../../image/v1/go/GoText.ts"
import * as LegacyDigest from "../../image/v1/LegacyDigest.ts"
import * as OciForm from "../../image/v1/OciForm.ts"
import * as StrongId from "../../image/v1/StrongId.ts"
import * as V1Image from "../../image/v1/V1Image.ts"
import type { StoreError } from "../disk/Disk.ts"
import type { Home } from "../disk/Home.ts"
import * as Nodes from "../names/Nodes.ts"

type Shape = Home["Service"]

/** An image of Docker's old graph whose row is not what its generated manifest, or its ID, says; `mend` writes it so, where that tells how it should be. */
export interface WrongNode {
  readonly id: string
  readonly detail: string
  readonly mend: Effect.Effect<void, StoreError> | undefined
}

const Row = Schema.Struct({ id: Schema.String, manifest: Schema.String, config_digest: Schema.String, tip: Schema.Int, layer_bytes: Schema.NullOr(Schema.Int) })

const hash: LegacyDigest.Hash = (algorithm, bytes) => createHash(algorithm).update(bytes).digest("hex")

/** The JSON that an image's modern form was made of. */
const textOf = ({ compatibility, json, kind }: Nodes.Node): string => kind === "schema1" && compatibility !== undefined ? compatibility : GoText.decode(json)

/** Docker's `parent` file, as registering the image would write it. */
const parentRefOf = ({ json, parent = "" }: Nodes.Node): string | undefined => {
  const stated = Result.getOrUndefined(V1Image.decode(GoText.decode(json).toWellFormed()))?.string("parent_id") ?? ""
  return LegacyDigest.is(stated) && stated.slice(stated.indexOf(":") + 1) !== parent ? parent : undefined
}

/** What is wrong with an image, and what its row should say, if anything tells. */
interface Fault {
  readonly detail: string
  readonly should?: { readonly [column: string]: Uint8Array | string | number | null }
}

/** What is wrong with one image of a line: `below` is the strong ID of the one it stands on, "" at the base, undefined where nobody can tell. */
const faultOf = (node: Nodes.Node, row: typeof Row.Type, made: Digest | undefined, below: string | undefined): { readonly fault: Fault | undefined; readonly strong: string | undefined } => {
  const address = node.compatibility === undefined || node.checksum === undefined || below === undefined ? undefined
    : StrongId.address(node.compatibility, node.checksum, below, hash)
  const strong = address === undefined || Result.isFailure(address) ? undefined : address.success
  const json = node.kind === "schema1" && strong !== undefined && strong.config !== GoText.decode(node.json) ? strong.config : undefined
  const apart = parentRefOf(node)
  const fault = ((): Fault | undefined => {
    if (made !== row.manifest) return { detail: "its JSON, its parent and its layers make another manifest than the one it has" }
    if (address !== undefined && (strong === undefined || json !== undefined)) {
      const known = json !== undefined && StrongId.ofConfig(json, hash) === row.config_digest
      return { detail: "its JSON is not what its v1Compatibility text and its layer's digest make", ...known && { should: { config: Buffer.from(json) } } }
    }
    if (node.compatibility !== undefined && Result.isFailure(V1Image.decode(node.compatibility.toWellFormed()))) return { detail: "its v1Compatibility text cannot be read" }
    if (node.parentRef !== apart) return { detail: "the parent that is kept apart from its JSON is not the one it would be", should: { parent_ref: apart ?? null } }
    if (row.layer_bytes !== null && row.layer_bytes !== node.size) {
      return { detail: `it says its layer has ${node.size} bytes, the layer's row says ${row.layer_bytes}`, should: { layer_size: row.layer_bytes } }
    }
    return undefined
  })()
  return { fault, strong: strong?.strongId }
}

/** An image and all it stands on, bottom first; undefined where one is not there, or they go in a circle. */
const lineOf = Effect.fnUntraced(function*(home: Shape, tip: string) {
  const line: Array<Nodes.Node> = []
  for (let next: string | undefined = tip; next !== undefined;) {
    const node: Option.Option<Nodes.Node> = yield* Nodes.find(home, next)
    if (Option.isNone(node) || line.length > OciForm.maxDepth) return undefined
    line.push(node.value)
    next = node.value.parent
  }
  return line.reverse()
})

/**
 * Images of kinds schema1 and v1 that their rows contradict. Their manifests were generated from the JSON, the parents and the layers, so they
 * are made once more; the JSON of a schema1 image also follows from what its manifest gave.
 */
export const wrong = Effect.fn("OldRows.wrong")(function*(home: Shape): Effect.fn.Return<ReadonlyArray<WrongNode>, StoreError> {
  const { db } = home
  const rows = new Map((yield* db.rows(Row, db.sql`SELECT i.id, i.manifest, i.config_digest, NOT EXISTS (SELECT 1 FROM images c WHERE c.parent = i.id) AS tip, l.size AS layer_bytes
    FROM images i LEFT JOIN layers l ON l.diff_id = i.layer_diff AND l.state <> 'deleting' WHERE i.kind IN ('schema1', 'v1')`)).map((row) => [row.id, row]))
  const found = new Map<string, WrongNode>()
  const seen = new Set<string>()
  const line = Effect.fnUntraced(function*(id: string) {
    const nodes = yield* lineOf(home, id)
    if (nodes === undefined) {
      found.set(id, { id, detail: "the images it stands on are not there, or stand on it", mend: undefined })
      return void seen.add(id)
    }
    const forms = Result.getOrUndefined(OciForm.chain(nodes.map((node) => ({ id: node.id, json: textOf(node), layer: node.own })), hash)) ?? []
    let below: string | undefined = ""
    for (const [at, node] of nodes.entries()) {
      const row = rows.get(node.id)
      if (row === undefined) continue
      const { fault, strong } = faultOf(node, row, forms[at]?.manifest.descriptor.digest, below)
      below = strong
      seen.add(node.id)
      if (fault === undefined) continue
      const should = fault.should
      found.set(node.id, { id: node.id, detail: fault.detail, mend: should === undefined ? undefined : db.run(db.sql`UPDATE images SET ${db.sql.update(should)} WHERE id = ${node.id}`) })
    }
  })
  for (const { id, tip } of rows.values()) if (tip === 1) yield* line(id)
  for (const id of rows.keys()) if (!seen.has(id)) yield* line(id) // a circle has no tip
  return [...found.values()]
})
