import * as Format from "./Format.ts"
import type { PullEvent } from "./PullEvent.ts"

type Of<Tag extends PullEvent["_tag"]> = Extract<PullEvent, { readonly _tag: Tag }>

/** Which images of a repository are wanted. */
export const repository = ({ name, protocol, tags }: Of<"repository">): string => {
  const what = tags === undefined ? "" : ` ${tags.length} ${tags.length === 1 ? "tag" : "tags"} of`
  return `pulling${what} ${Format.printable(name)}${protocol === "v1" ? " from a v1 registry" : ""}`
}

/** Where a v1 image is fetched from, or could not be. */
export const image = ({ cause, from, image, state }: Of<"image">): string => {
  const where = from === undefined ? "" : ` from the ${from.kind} ${Format.printable(from.url)}`
  const id = image.slice(0, 12)
  switch (state) {
    case "pulling": return `image ${id}${where}`
    case "failed": return `image ${id} did not come${where}${cause === undefined ? "" : `: ${Format.printable(cause)}`}`
    case "complete": return `image ${id} complete`
  }
}

/** How much there is to do. */
export const planned = ({ layers, missing, platform, total }: Of<"planned">): string => {
  const sizes = layers.some(({ size }) => size === undefined) ? [] : [Format.bytes(total), `${Format.bytes(missing)} to fetch`]
  return [`${layers.length} ${layers.length === 1 ? "layer" : "layers"}`, ...sizes, ...(platform === undefined ? [] : [platform])].join(", ")
}

/** A step for a layer of a v1 pull that is taken again or failed; what goes right at once needs no line. */
export const step = ({ attempt, cause, doing }: Of<"step">): string | undefined => {
  if (cause === undefined) return attempt > 1 ? `${words[doing]} again, try ${attempt}` : undefined
  return `${words[doing]} failed: ${Format.printable(cause)}`
}
const words = { ancestry: "the list of parents", metadata: "the image's JSON", request: "the request", unpack: "the layer" } as const

/** Whose signatures a manifest has. */
export const signed = ({ by }: { readonly by: ReadonlyArray<string> }): string => `signed by ${by.map(Format.printable).join(", ")}`
