import { createHash } from "node:crypto"
import { json as jsonAnswer, type Answer, type Headers } from "../server/Answer.ts"
import type { Kind } from "../server/Fault.ts"
import type { V1Image } from "./LegacyImage.ts"
import * as Source from "../Source.ts"

/** What a v1 request's path names. */
export interface V1Target {
  readonly kind: Kind
  readonly repository: string | undefined
  /** Image ID or tag. */
  readonly name: string | undefined
}

const paths: ReadonlyArray<readonly [Kind, RegExp]> = [
  ["images", /^\/v1\/repositories\/(.+)\/images$/], ["tags", /^\/v1\/repositories\/(.+)\/tags(?:\/([^/]+))?\/?$/],
  ["ancestry", /^\/v1\/images\/()([^/]+)\/ancestry$/], ["json", /^\/v1\/images\/()([^/]+)\/json$/],
  ["layer", /^\/v1\/images\/()([^/]+)\/layer$/], ["storage", /^\/storage\/()([^/]+)$/], ["ping", /^\/v[12]\/(?:_ping)?$/]
]

/** Reads a request's path as the v1 API lays them out; `/v2/` is a ping too. */
export const target = (url: string): V1Target => {
  const [path = ""] = url.split("?", 1)
  for (const [kind, pattern] of paths) {
    const match = pattern.exec(path)
    if (match !== null) return { kind, repository: match[1] || undefined, name: match[2] }
  }
  return { kind: "page", repository: undefined, name: undefined }
}

/** How a v1 server puts what it has. */
export interface V1Forms {
  /** `list`: tags as the old hub's `[{"layer":..,"name":..}]`, with ids cut to 8 digits. Default: map. */
  readonly tags?: "map" | "list"
  /** false: image json comes without X-Docker-Size. */
  readonly sizes?: boolean
  /** Whether image json comes with X-Docker-Checksum-Payload; `list`: with another before it. Default: right. */
  readonly checksums?: "none" | "right" | "list" | "wrong"
  /** false: layers come without Accept-Ranges, and whole. */
  readonly ranges?: boolean
}

interface Repository {
  readonly ids: Set<string>
  readonly tags: Map<string, string>
}

/** The payload checksum of an image: sha256 over its json, a new line and its layer as stored. */
export const payloadChecksum = ({ json, layer }: V1Image): string =>
  `sha256:${createHash("sha256").update(json).update("\n").update(layer).digest("hex")}`

/** What a v1 registry holds, and what it answers to who asks without any fault; undefined: it has no such thing. */
export class V1Content {
  private readonly repositories = new Map<string, Repository>()
  private readonly images = new Map<string, V1Image>()
  private readonly forms: V1Forms

  constructor(forms: V1Forms) { this.forms = forms }

  /** Adds a chain of images, base first; `tag` names the last. */
  put(name: string, tag: string | undefined, chain: ReadonlyArray<V1Image>): void {
    const repository = this.repositories.get(name) ?? { ids: new Set<string>(), tags: new Map<string, string>() }
    this.repositories.set(name, repository)
    for (const one of chain) {
      repository.ids.add(one.id)
      this.images.set(one.id, one)
    }
    const top = chain.at(-1)
    if (tag !== undefined && top !== undefined) repository.tags.set(tag, top.id)
  }

  /** The whole object a request names. */
  answer({ kind, name = "", repository = "" }: V1Target): Answer | undefined {
    const found = this.repositories.get(repository)
    switch (kind) {
      case "images": return found && jsonAnswer(200, this.list(found))
      case "tags": return found && this.tags(found, name)
      case "ancestry": return this.images.has(name) ? jsonAnswer(200, this.chain(name)) : undefined
      case "json": return this.json(name)
      case "layer":
      case "storage": return this.layer(name)
      default: return undefined
    }
  }

  private list({ ids, tags }: Repository) {
    const names = new Map([...tags].map(([tag, id]) => [id, tag]))
    return [...ids].map((id) => ({ id, checksum: "", ...names.has(id) && { Tag: names.get(id) } }))
  }

  private tags({ tags }: Repository, name: string): Answer | undefined {
    if (name !== "") return tags.has(name) ? jsonAnswer(200, tags.get(name)) : undefined
    return jsonAnswer(200, this.forms.tags === "list" ? [...tags].map(([name, id]) => ({ layer: id.slice(0, 8), name })) : Object.fromEntries(tags))
  }

  private chain(id: string): ReadonlyArray<string> {
    const parent = this.images.get(id)?.parent
    return [id, ...parent === undefined ? [] : this.chain(parent)]
  }

  private json(id: string): Answer | undefined {
    const image = this.images.get(id)
    if (image === undefined) return undefined
    const { checksums = "right", sizes = true } = this.forms
    const wrong = `sha256:${"0".repeat(64)}`, right = payloadChecksum(image)
    const headers: Headers = { "content-type": "application/json" }
    if (sizes) headers["x-docker-size"] = String(image.layer.byteLength)
    if (checksums !== "none") headers["x-docker-checksum-payload"] = checksums === "right" ? right : checksums === "wrong" ? wrong : `${wrong},${right}`
    return { status: 200, headers, body: Source.bytes(image.json), digest: undefined, ranges: false }
  }

  private layer(id: string): Answer | undefined {
    const image = this.images.get(id)
    if (image === undefined) return undefined
    const { ranges = true } = this.forms
    const headers: Headers = { "content-type": "application/octet-stream", ...ranges && { "accept-ranges": "bytes" } }
    return { status: 200, headers, body: Source.bytes(image.layer), digest: undefined, ranges }
  }
}
