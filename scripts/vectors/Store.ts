import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Option, Result, Schema, Stream } from "effect"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Member } from "../../src/archive/TarWriter.ts"
import { Durability } from "../../src/Durability.ts"
import * as Compatibility from "../../src/image/v1/Compatibility.ts"
import * as LegacyDigest from "../../src/image/v1/LegacyDigest.ts"
import * as LegacyReference from "../../src/image/v1/LegacyReference.ts"
import * as SignedManifest from "../../src/image/v1/SignedManifest.ts"
import * as StrongId from "../../src/image/v1/StrongId.ts"
import * as V1Image from "../../src/image/v1/V1Image.ts"
import { Workers } from "../../src/layer/Workers.ts"
import * as Load from "../../src/Load.ts"
import { Pools } from "../../src/Pools.ts"
import { Hub } from "../../src/progress/Hub.ts"
import { keyOf, type PullEvent } from "../../src/progress/PullEvent.ts"
import * as Register from "../../src/Register.ts"
import { hash } from "../../src/registry/Jws.ts"
import * as SaveOld from "../../src/SaveOld.ts"
import { Graph, ImageNotFound, type Node } from "../../src/store/Graph.ts"
import * as Towline from "../../src/Towline.ts"
import { Hang, kind, type Outcome } from "./Kind.ts"

const Fields = Schema.Record(Schema.String, Schema.Unknown)
type Fields = typeof Fields.Type

/** A step cannot be run: not a kind of step this runner knows, or a field of it is missing. */
class BadStep extends Schema.TaggedError<BadStep>()("BadStep", { problem: Schema.String }) {
  override get message() { return this.problem }
}

const text = (step: Fields, field: string, otherwise?: string): Effect.Effect<string, BadStep> => {
  const value = step[field] ?? otherwise
  return typeof value === "string" ? Effect.succeed(value) : Effect.fail(new BadStep({ problem: `the step has no text ${field}` }))
}
/** Fails unless the graph has the image. */
const present = Effect.fnUntraced(function*(id: string) {
  if (Option.isNone(yield* (yield* Graph).node(id))) return yield* new ImageNotFound({ name: id })
})
const tarOf = (step: Fields) => typeof step["tar"] === "string" && step["tar"] !== "" ? Buffer.from(step["tar"], "base64") : undefined
const bytesOf = (value: string) => new TextEncoder().encode(value)
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
const fromBytes = (bytes: Uint8Array | undefined) => bytes === undefined ? undefined : Register.from(Stream.make(bytes))

/** Docker's words for what the graph cannot find. */
const words = (error: unknown): string => {
  if (typeof error !== "object" || error === null || !("_tag" in error)) return String(error)
  if (error._tag === "ImageNotFound" && "name" in error) return `could not find image: ${error.name === "" ? "Prefix can't be empty" : `no such id: ${String(error.name)}`}`
  if (error._tag === "ImageRefused" && "rule" in error && error.rule === "id" && "id" in error) return `invalidimageid: image ID '${String(error.id)}' is invalid `
  if (error._tag === "ArchiveRefused" && "rule" in error) return /^image ID '.*' is invalid$/s.test(String(error.rule)) ? `invalidimageid: ${String(error.rule)} ` : String(error.rule)
  if (error._tag === "AmbiguousName") return "could not find image: Multiple IDs found with provided prefix"
  return "message" in error ? String(error.message) : String(error._tag)
}

/** All images of the graph, by ID, and which of them nothing stands on. */
const whole = Effect.gen(function*() {
  const graph = yield* Graph
  const nodes = new Map<string, Node>()
  for (const { id } of yield* graph.list) {
    for (let next: string | undefined = id; next !== undefined && !nodes.has(next);) {
      const node: Option.Option<Node> = yield* graph.node(next)
      if (Option.isNone(node)) break
      nodes.set(next, node.value)
      next = node.value.parent
    }
  }
  const ids = [...nodes.keys()].sort()
  const parents = new Set([...nodes.values()].map(({ parent }) => parent))
  return { nodes, ids, heads: ids.filter((id) => !parents.has(id)) }
})

const names = Effect.gen(function*() {
  const tags = (yield* (yield* Graph).list).flatMap(({ id, name, reference }) =>
    name === undefined || reference === undefined ? [] : [{ id, name: LegacyReference.normalizeLocalName(name.replace(/^docker\.io\/(?:library\/)?/, "")), reference }])
  return tags
})

/** What 1.9 kept of an image, as facts: its json is the text it wrote for images that are not content-addressed. */
const factsOf = (node: Node): Fields => {
  const json = Buffer.from(node.json).toString("utf8")
  const decoded = V1Image.decode(json.toWellFormed())
  const size = Result.isSuccess(decoded) ? Number(decoded.success.size) : 0
  const written = node.kind === "schema1" ? json
    : Result.getOrElse(Compatibility.marshal(json, { id: node.id, parent: node.parent ?? "", size }), () => json)
  return {
    json: written, layersize: String(node.size),
    ...(node.checksum === undefined ? {} : { checksum: node.checksum }), ...(node.compatibility === undefined ? {} : { v1Compatibility: node.compatibility }),
    ...(node.parentRef === undefined ? {} : { parent: node.parentRef })
  }
}

/** How the layout looks on 1.9's disk is not ours: modes, and the tar's headers kept apart. */
const ofLayout = (name: string) => name.endsWith(".mode") || name === "tar-data.json"

const without = (facts: unknown): unknown => {
  if (typeof facts !== "object" || facts === null) return facts
  return Object.fromEntries(Object.entries(facts).filter(([name]) => !ofLayout(name)))
}

const bytesIn = Effect.fnUntraced(function*({ contents }: Member<unknown, never>) {
  if (contents === undefined) return new Uint8Array(0)
  if (contents instanceof Uint8Array) return contents
  const pieces: Array<Uint8Array> = []
  yield* Stream.runForEach(contents.bytes, (piece) => Effect.sync(() => { pieces.push(Uint8Array.from(piece)) }))
  return Buffer.concat(pieces)
})

const entryOf = Effect.fnUntraced(function*(member: Member<unknown, never>) {
  const content = yield* bytesIn(member)
  const mtime = new Date(member.mtime * 1000).toISOString().replace(".000Z", "Z")
  const base = { gid: 0, uid: 0, mode: member.mode.toString(8), mtime, name: member.name, size: content.byteLength, type: member.type === "folder" ? "5" : "0" }
  if (member.type === "folder") return base
  return member.name.endsWith("layer.tar") ? { ...base, sha256: sha256(content) } : { ...base, content: Buffer.from(content).toString() }
})

const named = Effect.fnUntraced(function*(step: Fields) {
  const image = yield* SaveOld.lookUp(yield* text(step, "id"))
  const repository = yield* Effect.fromResult(LegacyReference.checkRepository(yield* text(step, "repo")))
  return { image, name: LegacyReference.canonicalOf(LegacyReference.normalizeLocalName(repository)) }
})

const imagesOf = Effect.fnUntraced(function*(manifest: string) {
  const signed = yield* Effect.fromResult(SignedManifest.decode(bytesOf(manifest), hash))
  const images = [...yield* Effect.fromResult(StrongId.chain(signed.outer, hash))].reverse()
  const ids = yield* (yield* Graph).chooseIds(images, hash)
  return images.map(({ compatibilityId, strongId }, at) => ({ compatibilityID: compatibilityId, id: ids[at], parent: ids[at - 1] ?? "", strongID: strongId })).reverse()
})

/** What a step gives, `ok` aside. `folder` is a scratch folder. */
const run = Effect.fnUntraced(function*(step: Fields, folder: string) {
  const graph = yield* Graph
  switch (step["do"]) {
    case "register-v2": {
      const v1 = yield* text(step, "v1"), tar = tarOf(step), layerDigest = `sha256:${sha256(tar ?? new Uint8Array(0))}`
      const image = yield* Effect.fromResult(StrongId.address(v1, yield* text(step, "layerDigest", layerDigest), yield* text(step, "parentStrong", ""), hash))
      const id = yield* text(step, "asID", image.strongId.slice(image.strongId.indexOf(":") + 1))
      const parent = yield* text(step, "parentID", "")
      yield* Register.register({
        id, kind: "schema1", parent: parent === "" ? undefined : parent, json: bytesOf(image.config), compatibility: v1, checksum: layerDigest
      }, fromBytes(tar))
      return { id, strongID: image.strongId, compatibilityID: image.compatibilityId, layerDigest }
    }
    case "register-v1": {
      const json = yield* text(step, typeof step["json"] === "string" ? "json" : "v1")
      const image = yield* Effect.fromResult(V1Image.decode(json.toWellFormed()))
      const id = yield* text(step, "asID", image.id), parent = yield* text(step, "parentID", image.parent)
      yield* Register.register({ id, kind: "v1", parent: parent === "" ? undefined : parent, json: bytesOf(json) }, fromBytes(tarOf(step)))
      return { id }
    }
    case "set-v1compat": {
      const id = yield* text(step, "id")
      yield* present(id)
      yield* graph.setCompatibility(id, yield* text(step, "data", ""))
      return {}
    }
    case "infos": return { images: yield* imagesOf(yield* text(step, "manifest")) }
    case "v1compat": case "generate-v1compat": {
      const id = yield* text(step, "id")
      return { data: (yield* graph.compatibility(id)) ?? (yield* new ImageNotFound({ name: id })) }
    }
    case "tag": {
      const { image, name } = yield* named(step)
      const tag = yield* text(step, "tag", "")
      const reference = yield* Effect.fromResult(LegacyReference.checkTag(tag === "" ? "latest" : tag))
      yield* graph.tag(image, { name, reference }, { force: step["force"] === true })
      return {}
    }
    case "set-digest": {
      const { image, name } = yield* named(step)
      const digest = yield* text(step, "tag", "")
      if (digest === "") return yield* new BadStep({ problem: "digest can't be empty" })
      yield* graph.tag(image, { name, reference: yield* Effect.fromResult(LegacyDigest.parse(digest)) })
      return {}
    }
    case "by-id": {
      const byID: Record<string, Array<string>> = {}
      for (const { id, name, reference } of yield* names) (byID[id] ??= []).push(LegacyReference.imageReference(name, reference))
      for (const list of Object.values(byID)) list.sort()
      return { byID }
    }
    case "ids": {
      const { heads, ids } = yield* whole
      return { heads, ids }
    }
    case "tar-layer": {
      const { id } = yield* SaveOld.lookUp(yield* text(step, "id"))
      const own = (yield* SaveOld.members([id])).find(({ name }) => name === `${id}/layer.tar`)
      const content = own === undefined ? new Uint8Array(0) : yield* bytesIn(own)
      return { length: content.byteLength, sha256: sha256(content) }
    }
    case "save": {
      const list = Schema.decodeUnknownOption(Schema.Array(Schema.String))(step["names"] ?? (step["name"] === undefined ? [] : [step["name"]]))
      if (Option.isNone(list)) return yield* new BadStep({ problem: "the step has no list names" })
      const members = yield* SaveOld.members(list.value)
      return { entries: yield* Effect.forEach(members, entryOf) }
    }
    case "load": {
      const file = join(folder, "archive.tar")
      writeFileSync(file, tarOf(step) ?? new Uint8Array(0))
      const { renamed } = yield* Load.load(new Hub<PullEvent>(keyOf), file)
      return { output: renamed.map((one) => `${Load.renamedSentence(one)}\n`).join("") }
    }
    case "dump": {
      const { nodes } = yield* whole
      const repositories: Record<string, Record<string, string>> = {}
      for (const { id, name, reference } of yield* names) (repositories[name] ??= {})[reference] = id
      return { dump: { graph: Object.fromEntries([...nodes].map(([id, node]) => [id, factsOf(node)])), repositories: { Repositories: repositories } } }
    }
    default: return yield* new BadStep({ problem: `no step is called ${String(step["do"])}` })
  }
})

/** The expected facts in our form: what 1.9 laid out on its disk left out, JSON texts read. */
const expectedOf = (result: Fields): Fields => {
  const dump = result["dump"]
  if (typeof dump !== "object" || dump === null || !("graph" in dump)) return result
  const graph = typeof dump.graph === "object" && dump.graph !== null ? dump.graph : {}
  const repositories = "repositories" in dump && typeof dump.repositories === "string" && dump.repositories !== "" ? JSON.parse(dump.repositories) as unknown : { Repositories: {} }
  return { ...result, dump: { graph: Object.fromEntries(Object.entries(graph).map(([id, facts]) => [id, without(facts)])), repositories } }
}

/** What came out, in the fields that the file tells of. Of an error only what Docker said itself counts; an empty list is null where Go had none. */
const compared = (expected: Fields, actual: Fields): Fields =>
  Object.fromEntries(Object.entries(expected).map(([key, wanted]) => {
    const found = actual[key] ?? null
    return [key, key === "error" ? errorOf(wanted, found) : wanted === null && Array.isArray(found) && found.length === 0 ? null : found]
  }))

const foreign = /json: |invalid character|unexpected end of JSON|unexpected EOF|\bEOF$|archive\/tar|gzip|flate|bzip2|\bxz\b|no such file|stat \/|open \/|lstat|mkdir|Driver |Untar|exit status|runtime error|parsing time|breakout|not a directory|file exists|invalid argument|permission denied/i

const errorOf = (expected: unknown, found: unknown): unknown =>
  typeof expected === "string" && typeof found === "string" && foreign.test(expected) ? expected : found ?? null

const services = (store: string) => Layer.merge(Pools.layer, Towline.layerStore({ store })).pipe(
  Layer.provideMerge(Workers.layer), Layer.provideMerge(Layer.mergeAll(NodeServices.layer, Layer.succeed(Durability, "fast"))))

/** Scenarios on an empty store: each step through what the commands use, its result beside the one expected. */
export const store = kind("store", Schema.Struct({ steps: Schema.Array(Fields), results: Schema.Array(Fields) }), ({ results, steps }) => {
  const folder = mkdtempSync(join(tmpdir(), "towline-vectors-"))
  const scenario = Effect.forEach(steps, (step) => Effect.scoped(run(step, folder)).pipe(
    Effect.map((facts): Fields => ({ ...facts, ok: true })),
    Effect.catch((error) => error instanceof BadStep && error.problem.startsWith("no step") ? Effect.die(error) : Effect.succeed<Fields>({ error: words(error) }))
  )).pipe(Effect.provide(services(join(folder, "store"))), Effect.ensuring(Effect.sync(() => rmSync(folder, { recursive: true, force: true }))))
  return Effect.runPromise(scenario).then((actual): Outcome => {
    const expected = results.map(expectedOf)
    return {
      expected: expected.map((result) => result["hang"] === true ? Hang : result),
      actual: actual.map((facts, at) => {
        const wanted = expected[at] ?? {}
        if (wanted["hang"] === true) return facts["error"] === undefined ? facts : Hang
        return "error" in facts && !("error" in wanted) ? facts : compared(wanted, facts)
      })
    }
  })
})
