import { Clock, Duration, Effect, Option, Pull as Ended, Result, Schedule, Stream } from "effect"
import { createHash } from "node:crypto"
import * as ImageId from "./image/ImageId.ts"
import * as Reference from "./image/Reference.ts"
import type { Unset } from "./layer/Job.ts"
import { Layers } from "./Layers.ts"
import * as OldPull from "./OldPull.ts"
import { Pools } from "./Pools.ts"
import { Hub } from "./progress/Hub.ts"
import { keyOf, type LayerEvent, type PullEvent } from "./progress/PullEvent.ts"
import type { PullOptions } from "./Pull.ts"
import * as Register from "./Register.ts"
import { AnswerRefused, NetworkError } from "./registry/Errors.ts"
import type { Repository } from "./registry/Registry.ts"
import * as RetryPolicy from "./registry/RetryPolicy.ts"
import { type V1Endpoint, type V1Index, type V1Json, V1Registry } from "./registry/V1Registry.ts"
import * as Disk from "./store/disk/Disk.ts"
import { BlobStore } from "./store/BlobStore.ts"
import { Graph, type Node } from "./store/Graph.ts"
import { LayerStore } from "./store/LayerStore.ts"
import { Leases } from "./store/Leases.ts"
import type { V1Name } from "./store/names/V1Layers.ts"
import type { Receipt } from "./store/Receipt.ts"
import * as V1Plan from "./V1Plan.ts"

/** Layers of one image that are fetched at a time. */
const fanOut = 4
/** The longest layer that is taken from a server that does not say how long it is: 64 GiB. */
const lengthCap = 64 * 1024 ** 3

/** One image's layer while it is fetched. */
interface Subject {
  readonly endpoint: V1Endpoint
  readonly id: ImageId.ImageId
  readonly json: V1Json
  readonly tell: (event: { readonly bytes: number; readonly total: number | undefined }) => void
  readonly retried: (attempt: number, error: NetworkError, delay: number) => void
}

const refuse = ({ endpoint, id }: Pick<Subject, "endpoint" | "id">, rule: string) =>
  new AnswerRefused({ host: new URL(endpoint.url).host, subject: `the layer of the image ${id}`, rule })

/** Whether the layer is the one a payload checksum is of (sha256 of the json, a new line and the layer as stored), where there is one. */
const isAsTold = Effect.fnUntraced(function*({ payloadChecksums, raw }: V1Json, receipt: Receipt) {
  if (payloadChecksums.length === 0) return true
  const hash = createHash("sha256").update(raw).update("\n")
  yield* Disk.forEachPiece(receipt.fd, receipt.size, receipt.path, (piece) => hash.update(piece))
  return payloadChecksums.includes(`sha256:${hash.digest("hex")}`)
})

/**
 * Fetches a layer: on after what came where the server can, else again from its first byte; gives up when the policy does,
 * which begins afresh when bytes came. Its length must be the one that was told.
 */
const fetch = (subject: Subject) => Effect.fnUntraced(function*(receipt: Receipt) {
  const { endpoint, id, json, retried, tell } = subject
  const limits = yield* RetryPolicy.Limits
  let { size } = json
  let etag: string | undefined
  let resumable = true
  let best = 0
  let attempt = 1
  let again = yield* Schedule.toStep(RetryPolicy.legacyLayer)
  const receive = Effect.gen(function*() {
    if (receipt.size > 0 && !resumable) yield* Disk.attempt(() => receipt.restart())
    const answer = yield* endpoint.layer(id, { from: receipt.size, size, etag })
    if (answer.from !== receipt.size) yield* Disk.attempt(() => receipt.restart())
    size = answer.total ?? size
    ;({ etag, resumable } = answer)
    yield* Stream.runForEachArray(answer.body, (chunks) => Disk.attempt(() => {
      for (const chunk of chunks) receipt.append(chunk)
      tell({ bytes: receipt.size, total: size })
    }).pipe(Effect.andThen(Effect.suspend(() => receipt.size > (size ?? lengthCap) ? Effect.fail(refuse(subject, `it is longer than ${size ?? lengthCap} bytes`)) : Effect.void))))
    if (receipt.size < (size ?? 0)) {
      return yield* new NetworkError({ host: new URL(endpoint.url).host, reason: "reset", transient: true, phase: "body", detail: `the layer of ${id} ended at ${receipt.size} of ${size} bytes` })
    }
  }).pipe(Effect.scoped)
  for (;;) {
    const [took, result] = yield* Effect.timed(Effect.result(receive))
    if (Result.isSuccess(result)) break
    const error = result.failure
    if (error._tag !== "NetworkError") return yield* error
    if (RetryPolicy.gotOn(error, receipt.size - best, took, limits)) again = yield* Schedule.toStep(RetryPolicy.legacyLayer)
    best = Math.max(best, receipt.size)
    const [, delay] = yield* again(yield* Clock.currentTimeMillis, error).pipe(Ended.catchDone(() => Effect.fail(error)))
    retried(++attempt, error, Duration.toMillis(delay))
    yield* Effect.sleep(delay)
  }
})

/** The same, checked against the payload checksums; a layer that has none of them is fetched once more. */
const verified = (subject: Subject) => (receipt: Receipt) => Effect.gen(function*() {
  for (let tries = 0; tries < 2; tries++) {
    yield* fetch(subject)(receipt)
    if (yield* isAsTold(subject.json, receipt)) return
    yield* Disk.attempt(() => receipt.restart())
  }
  return yield* refuse(subject, `its bytes do not have the checksum ${subject.json.payloadChecksums.join(" or ")} that came with its json`)
})

/** What the store has of a layer from a pull that was stopped, if the registry tells the same of it now as it did then. */
const recalled = Effect.fnUntraced(function*(name: V1Name, repository: Repository) {
  const noted = yield* (yield* Graph).noted(name)
  if (noted === undefined) return undefined
  const { blob, diffId } = noted
  yield* (yield* Leases).hold([blob.digest, diffId])
  const [blobs, layers] = [yield* BlobStore, yield* LayerStore]
  // Hashed where it is to be unpacked again: a damaged one must be had from this registry, which no digest can be asked for.
  if (!(Option.isSome(yield* layers.find(diffId)) ? Option.isSome(yield* blobs.find(blob.digest)) : yield* blobs.verify(blob.digest))) return undefined
  const made = yield* Effect.scoped(Effect.flatMap(Layers, (layers) => layers.get({ blob, diffId, repository }))).pipe(
    // Not what was noted: it is asked for again.
    Effect.asSome, Effect.catchIf(({ _tag }) => _tag !== "StoreError", () => Effect.succeedNone))
  const stored = yield* layers.find(diffId)
  if (Option.isNone(made) || Option.isNone(stored)) return undefined
  const unset = Option.getOrUndefined(Option.map(made.value.unpacked, ({ unset }) => unset))
  const received: Register.Received = { layer: { blob, diffId, size: stored.value.size }, unset, kept: true }
  return received
})

const layered = (node: Node): Register.LayeredImage => ({ ...node, layer: node.own === undefined ? undefined : { ...node.own, size: node.size } })

/**
 * Pulls a tag from a v1 registry (registry-v1: index, tag, ancestry, then each image's json and layer). Nothing there has a
 * content digest: lengths, payload checksums where they are given, and the archives themselves are checked. Layers come in
 * parallel; all images and the tag become visible in one step.
 */
export const pull = Effect.fn("Pull.v1")(function*(hub: Hub<PullEvent>, text: string, options: PullOptions, index: V1Index) {
  const parsed = yield* Effect.fromResult(Reference.parse(text))
  const reference = Reference.print(parsed)
  const repository = { domain: parsed.domain, path: parsed.path }
  const name = `${repository.domain}/${repository.path}`
  if (parsed.digest !== undefined) {
    return yield* new AnswerRefused({ host: repository.domain, subject: reference, rule: "Cannot pull by digest with v1 registry: name a tag" })
  }
  const tag = parsed.tag ?? "latest"
  const registry = yield* V1Registry
  hub.publish({ _tag: "repository", reference, name, protocol: "v1" })
  const session = yield* registry.session(repository, index)
  const id = ImageId.ImageId.make(yield* session.tag(tag))
  const image = { _tag: "image", reference, image: id, tag, repository: name } as const
  hub.publish({ ...image, state: "pulling" })
  const [outcome, endpoint] = yield* session.first((endpoint) => {
    const from = { kind: endpoint.mirror ? "mirror" : "endpoint", url: `${endpoint.url}/v1/` } as const
    hub.publish({ ...image, state: "pulling", from })
    return Effect.map(all(endpoint), (outcome) => [outcome, endpoint] as const).pipe(
      Effect.tapError((error) => Effect.sync(() => hub.publish({ ...image, state: "failed", from, cause: error.message }))))
  }, ({ _tag }) => _tag === "StoreError").pipe(Effect.tapError((error) => Effect.sync(() => hub.publish({ ...image, state: "failed", cause: error.message }))))

  /** Every image of the chain, in the store. */
  function all(endpoint: V1Endpoint) {
    return Effect.gen(function*() {
      hub.publish({ _tag: "step", reference, layer: id, doing: "ancestry", attempt: 1 })
      const { chain, nodes } = yield* V1Plan.chainOf(endpoint, id)
      const lost = (layer: ImageId.ImageId, doing: "metadata" | "request" | "unpack", { message }: { readonly message: string }): LayerEvent =>
        ({ _tag: "step", layer, doing, attempt: 1, cause: message })
      const jsonOf = Effect.fnUntraced(function*(id: ImageId.ImageId) {
        hub.publish({ _tag: "step", reference, layer: id, doing: "metadata", attempt: 1 })
        return yield* endpoint.json(id).pipe(Effect.tapError((error) => Effect.sync(() => hub.publish({ ...lost(id, "metadata", error), reference }))))
      })
      const top = nodes.get(id)
      const first = top === undefined ? yield* jsonOf(id) : undefined
      const { fits, platform, wanted } = yield* V1Plan.platformOf(id, first?.raw ?? top?.json ?? new Uint8Array(), chain.at(-2), endpoint, { reference, platform: options.platform })
      if (!fits) hub.publish({ _tag: "warning", reference, message: `the image is for ${platform}, and runs on ${wanted} only by emulation` })
      hub.publish({
        _tag: "planned", reference, platform, total: first?.size ?? 0, missing: first?.size ?? 0,
        layers: chain.map((id) => ({ layer: id, state: nodes.has(id) ? "unpacked" : "missing", image: { id, known: nodes.has(id) } }))
      })
      const unsets: Array<Unset> = []
      const graph = yield* Graph
      const images = yield* Effect.forEach(chain.keys(), Effect.fnUntraced(function*(at) {
        const each = chain[at] ?? id, below = chain[at - 1]
        const known = nodes.get(each)
        if (known !== undefined) {
          hub.publish({ _tag: "exists", reference, layer: each })
          return layered(known)
        }
        const json = each === id && first !== undefined ? first : yield* jsonOf(each)
        yield* V1Plan.recordOf(each, json.raw, below, endpoint)
        const events = new Hub<LayerEvent>(keyOf)
        yield* events.observe((event) => hub.publish({ ...event, reference }))
        // One receives it, for every pull in this process that wants it; what its JSON says is part of what is shared.
        const told = createHash("sha256").update(json.raw).update(`\n${json.size ?? ""}\n${json.payloadChecksums.join(" ")}`).digest("hex")
        const called = { endpoint: endpoint.url, repository: name, image: each, told }
        const received = yield* (yield* Pools).layers.hold({ text: `layer:${each}`, settings: Buffer.from(json.raw).toString("latin1") }, events, (events) => {
          const fill = verified({
            endpoint, id: each, json,
            tell: ({ bytes, total }) => events.publish({ _tag: "downloading", layer: each, bytes, ...(total === undefined ? {} : { total }) }),
            retried: (attempt, error, delay) => {
              events.publish({ _tag: "retrying", layer: each, cause: error.message, delay })
              events.publish({ _tag: "step", layer: each, doing: "request", attempt })
            }
          })
          // No digest tells that a body was cut: where its archive does, it is fetched once more.
          const anew = Effect.suspend(() => {
            events.publish({ _tag: "step", layer: each, doing: "request", attempt: 1 })
            return Effect.retry(Register.receive(each, fill, (layer) => graph.note(called, layer)), { schedule: RetryPolicy.damaged, while: (error) => error._tag === "LayerRefused" })
          })
          return Effect.flatMap(recalled(called, repository), (known) => known === undefined ? anew : Effect.succeed(known)).pipe(
            Effect.tapError((error) => Effect.sync(() =>
              events.publish(lost(each, error._tag === "LayerRefused" || (error._tag === "NetworkError" && error.phase === "body") ? "unpack" : "request", error)))))
        })
        if (received?.unset !== undefined) unsets.push(received.unset)
        if (received?.kept === true) hub.publish({ _tag: "exists", reference, layer: each })
        else {
          hub.publish({ _tag: "verified", reference, layer: each })
          hub.publish({ _tag: "committed", reference, layer: each })
        }
        return { id: each, kind: "v1", parent: below, json: json.raw, layer: received?.layer } satisfies Register.LayeredImage
      }), { concurrency: fanOut })
      return { images, added: images.filter(({ id }) => !nodes.has(id)), platform, unsets }
    })
  }

  hub.publish({ ...image, state: "complete" })
  const named = { name, reference: tag }
  const current = Option.filter(yield* OldPull.named(named), (image) => image.id === id)
  const { added, images, unsets } = outcome
  if (Option.isSome(current) && added.length === 0) {
    return yield* OldPull.finish(hub, options, { reference, repository, image: current.value, target: current.value.manifest, changed: false, unsets })
  }
  const registered = yield* Register.enroll(added.length > 0 ? added : images.slice(-1), {
    tags: [named], origin: { repository: name, endpoint: endpoint.url }
  })
  hub.publish({ _tag: "tagged", reference, digest: registered.manifest.digest, image: id })
  return yield* OldPull.finish(hub, options, { reference, repository, image: registered, target: registered.manifest, changed: true, unsets })
}, Effect.scoped)
