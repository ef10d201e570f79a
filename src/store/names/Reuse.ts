import { Effect, Option, Result } from "effect"
import * as Compatibility from "../../image/v1/Compatibility.ts"
import * as GoText from "../../image/v1/go/GoText.ts"
import type * as LegacyDigest from "../../image/v1/LegacyDigest.ts"
import * as StrongId from "../../image/v1/StrongId.ts"
import type { InvalidV1Image } from "../../image/v1/V1Image.ts"
import type { StoreError } from "../disk/Disk.ts"
import type { Home } from "../disk/Home.ts"
import * as Nodes from "./Nodes.ts"

type Shape = Home["Service"]

/**
 * The v1Compatibility text of an image of the old graph: what it came as, or one written from its JSON and those below, which
 * is kept (docker 1.9: Graph.GenerateV1CompatibilityChain). Undefined if there is no such image, or one below is not there. To
 * be run in a transaction.
 */
export const compatibility = Effect.fn("Graph.compatibility")(function*(
  home: Shape, id: string
): Effect.fn.Return<string | undefined, StoreError | InvalidV1Image> {
  const lacking: Array<Nodes.Node> = []
  let below: string | undefined
  for (let next: string | undefined = id; next !== undefined && below === undefined;) {
    const node: Nodes.Node | undefined = Option.getOrUndefined(yield* Nodes.find(home, next))
    if (node === undefined || lacking.some(({ id }) => id === node.id)) return undefined
    if (node.compatibility === undefined) lacking.push(node)
    below = node.compatibility
    next = Nodes.statedParent(node) || undefined
  }
  for (const { id, json, size } of lacking.reverse()) {
    const parent = below === undefined ? "" : yield* Effect.fromResult(Compatibility.idOf(below))
    below = yield* Effect.fromResult(Compatibility.marshal(GoText.decode(json), { id, parent, size }))
    yield* Nodes.setCompatibility(home, id, below)
  }
  return below
})

/** Whether the image under `id` is the one wanted: on the parent chosen for it, with a layer and text that make its strong ID. */
const fits = Effect.fnUntraced(function*(home: Shape, id: string, wanted: StrongId.AddressedImage, below: string, hash: LegacyDigest.Hash) {
  const node = Option.getOrUndefined(yield* Nodes.find(home, id))
  if (node?.checksum === undefined || node.compatibility === undefined || Nodes.statedParent(node) !== below) return false
  const made = StrongId.address(node.compatibility, node.checksum, wanted.parentStrongId, hash)
  return Result.isSuccess(made) && made.success.strongId === wanted.strongId
})

const hexOf = (digest: string) => digest.slice(digest.indexOf(":") + 1)
const encoder = new TextEncoder()

/**
 * The graph IDs for a manifest's images, bottom first as given (docker 1.9: attemptIDReuse). The strong ID, unless the image
 * is in the graph under its old ID and verifies, as do all below; where another image has the strong ID, the hash of that
 * text, and so on until an ID is free or holds the same image. To be run in a transaction.
 */
export const choose = Effect.fn("Graph.chooseIds")(function*(home: Shape, images: ReadonlyArray<StrongId.AddressedImage>, hash: LegacyDigest.Hash) {
  let reuse = true
  let written = true
  for (const { compatibilityId } of images.toReversed()) {
    // Texts that cannot be written end the attempt to reuse anything.
    if (!written || !(yield* Nodes.exists(home, compatibilityId))) continue
    const text = yield* Effect.result(compatibility(home, compatibilityId))
    if (Result.isFailure(text) && text.failure._tag === "StoreError") return yield* text.failure
    written = Result.isSuccess(text) && text.success !== undefined
  }
  const chosen: Array<string> = []
  for (const image of images) {
    const below = chosen.at(-1) ?? ""
    let id = hexOf(image.strongId)
    if (!written) {
      chosen.push(id)
      continue
    }
    if (yield* Nodes.exists(home, id)) {
      if (!(yield* fits(home, id, image, below, hash))) {
        reuse = false
        do id = hash("sha256", encoder.encode(id))
        while ((yield* Nodes.exists(home, id)) && !(yield* fits(home, id, image, below, hash)))
      }
    } else if (reuse) {
      reuse = yield* fits(home, image.compatibilityId, image, below, hash)
      if (reuse) id = image.compatibilityId
    }
    chosen.push(id)
  }
  return chosen
})
