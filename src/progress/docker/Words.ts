import { Result } from "effect"
import * as Legacy from "../../image/v1/LegacyReference.ts"
import type { PullEvent } from "../PullEvent.ts"

type Of<Tag extends PullEvent["_tag"]> = Extract<PullEvent, { readonly _tag: Tag }>

/** What a reference is called in the lines. */
export interface Names {
  /** The repository's name within its registry: `library/debian`. */
  readonly remote: string
  /** The shortest name that means it: `debian`. */
  readonly local: string
  /** Its tag or digest, if it names one; a digest wins. */
  readonly ref: string | undefined
}

/** The parts of a normalised reference, by the rules of Docker 1.9.1; names it did not know keep their host and path. */
export const names = (reference: string): Names => {
  const at = reference.indexOf("@")
  const named = at < 0 ? reference : reference.slice(0, at)
  const colon = named.lastIndexOf(":")
  const tagged = colon > named.lastIndexOf("/")
  const name = tagged ? named.slice(0, colon) : named
  const ref = at >= 0 ? reference.slice(at + 1) : tagged ? named.slice(colon + 1) : undefined
  return Result.match(Legacy.repositoryInfo(name), {
    onSuccess: ({ localName, remoteName }) => ({ remote: remoteName, local: localName, ref }),
    onFailure: () => ({ remote: name.slice(name.indexOf("/") + 1), local: name.replace(/^docker\.io\/(library\/(?=[^/]*$))?/, ""), ref })
  })
}

/** `name:tag` or `name@digest`, as the closing status says it. */
export const requested = ({ local, ref }: Names): string => ref === undefined ? local : Legacy.imageReference(local, ref)

/** What a pull ends with. */
export const closing = (newer: boolean, names: Names): string =>
  `Status: ${newer ? "Downloaded newer image" : "Image is up to date"} for ${requested(names)}`

/** What a pull from a v1 registry begins with. */
export const repository = (name: string): string => `Pulling repository ${name}`

/** What a pull from a v1 registry ends with. */
export const legacy = (name: string): string =>
  `${name}: this image was pulled from a legacy registry.  Important: This registry version will not be supported in future versions of docker.`

/** What is said of an image of a v1 registry; a mirror that fails is passed over in silence. */
export const image = ({ cause, from, repository, state, tag }: Of<"image">): string | undefined => {
  const what = `image (${tag}) from ${repository}`
  const where = from === undefined ? "" : `, ${from.kind}: ${from.url}`
  switch (state) {
    case "pulling": return `Pulling ${what}${where}`
    case "failed": return from?.kind === "mirror" ? undefined : `Error pulling ${what}${where}, ${cause ?? ""}`
    case "complete": return "Download complete"
  }
}

/** What is said of a step for a layer of a v1 registry. */
export const step = ({ attempt, cause, doing }: Omit<Of<"step">, "reference">): string | undefined => {
  if (cause !== undefined) return doing === "ancestry" ? undefined : doing === "unpack" ? "Error downloading dependent layers" : "Error pulling dependent layers"
  switch (doing) {
    case "ancestry": return "Pulling dependent layers"
    case "metadata": return attempt > 1 ? undefined : "Pulling metadata"
    case "request": return attempt > 1 ? `Pulling fs layer [retries: ${attempt}]` : "Pulling fs layer"
    case "unpack": return undefined
  }
}
