import type { Digest } from "../image/Digest.ts"
import { error, json, notFound, type Answer } from "./server/Answer.ts"
import type { Kind } from "./server/Fault.ts"
import { digestOf, mediaTypes, type Body, type Built } from "./ImageBuilder.ts"
import * as Source from "./Source.ts"

/** What a request's path names. */
export interface Target {
  readonly kind: Kind
  readonly repository: string | undefined
  /** Tag or digest. */
  readonly name: string | undefined
  readonly query: URLSearchParams
}

const repositoryName = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*)*"
const digestText = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
const manifestPath = new RegExp(`^/v2/(${repositoryName})/manifests/([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|${digestText})$`)
const blobPath = new RegExp(`^/v2/(${repositoryName})/blobs/(${digestText})$`)
const tagsPath = new RegExp(`^/v2/(${repositoryName})/tags/list$`)

/** Reads a request's path and query as the distribution specification lays them out. */
export const target = (url: string): Target => {
  const [path = "", query = ""] = url.split("?", 2)
  const found = (kind: Kind, match?: RegExpExecArray | null): Target =>
    ({ kind, repository: match?.[1], name: match?.[2], query: new URLSearchParams(query) })
  if (path === "/v2/") return found("ping")
  if (path === "/token") return found("token")
  const manifest = manifestPath.exec(path)
  if (manifest !== null) return found("manifest", manifest)
  const blob = blobPath.exec(path)
  if (blob !== null) return found("blob", blob)
  const tags = tagsPath.exec(path)
  return tags === null ? found("page") : found("tags", tags)
}

interface Repository {
  readonly tags: Map<string, string>
  readonly manifests: Map<string, { readonly raw: Uint8Array; readonly mediaType: string }>
  readonly blobs: Map<string, Body>
}

const types = Object.values(mediaTypes)
/** Only these are kept from a client whose Accept does not name them, as distribution does. */
const negotiated = new Set<string>(types.flatMap(({ index, manifest }) => [index, manifest]))

/** What a registry holds, and what it answers to who asks without any fault. */
export class Content {
  private readonly repositories = new Map<string, Repository>()

  /** Adds an image or index with everything below it. */
  put(name: string, tag: string | undefined, built: Built): void {
    const repository = this.repository(name)
    for (const [digest, { raw, descriptor: { mediaType } }] of built.manifests) repository.manifests.set(digest, { raw, mediaType })
    for (const [digest, body] of built.blobs) repository.blobs.set(digest, body)
    if (tag !== undefined) repository.tags.set(tag, built.manifest.descriptor.digest)
  }

  /** Adds manifest bytes. */
  addManifest(name: string, tag: string | undefined, raw: Uint8Array, mediaType: string, digest = digestOf(raw)): Digest {
    this.repository(name).manifests.set(digest, { raw, mediaType })
    if (tag !== undefined) this.repository(name).tags.set(tag, digest)
    return digest
  }

  /** Adds a blob. */
  addBlob(name: string, body: Body, digest = Source.digest(Source.of(body))): Digest {
    this.repository(name).blobs.set(digest, body)
    return digest
  }

  /** Forgets one thing, or a repository. */
  remove(name: string, what: string | undefined): void {
    if (what === undefined) this.repositories.delete(name)
    const repository = this.repositories.get(name)
    repository?.tags.delete(what ?? "")
    repository?.manifests.delete(what ?? "")
    repository?.blobs.delete(what ?? "")
  }

  /** The whole object a request names, or the error that distribution gives. */
  answer(method: string, { kind, repository, name = "", query }: Target, accept: string): Answer {
    if (kind === "page" || kind === "token") return notFound
    if (method !== "GET" && method !== "HEAD" && kind !== "ping") return error(405, "UNSUPPORTED", "The operation is unsupported.")
    if (kind === "ping") return json(200, {})
    if (kind === "manifest") return this.manifest(repository ?? "", name, accept)
    return kind === "blob" ? this.blob(repository ?? "", name) : this.tags(repository ?? "", query)
  }

  private manifest(repository: string, name: string, accept: string): Answer {
    const found = this.repositories.get(repository)
    const digest = name.includes(":") ? name : found?.tags.get(name)
    const manifest = found?.manifests.get(digest ?? "")
    if (digest === undefined || manifest === undefined) {
      return error(404, "MANIFEST_UNKNOWN", "manifest unknown", name.includes(":") ? { Name: repository, Revision: name } : { Tag: name })
    }
    if (negotiated.has(manifest.mediaType) && !accept.includes(manifest.mediaType)) {
      return error(404, "MANIFEST_UNKNOWN", `manifest of type ${manifest.mediaType} found, but accept header does not support it`)
    }
    return {
      status: 200,
      headers: { "content-type": manifest.mediaType, "docker-content-digest": digest, etag: `"${digest}"` },
      body: Source.bytes(manifest.raw),
      digest,
      ranges: false
    }
  }

  private blob(repository: string, digest: string): Answer {
    const body = this.repositories.get(repository)?.blobs.get(digest)
    if (body === undefined) return error(404, "BLOB_UNKNOWN", "blob unknown to registry", digest)
    return {
      status: 200,
      headers: {
        "accept-ranges": "bytes",
        "cache-control": "max-age=31536000",
        "content-type": "application/octet-stream",
        "docker-content-digest": digest,
        etag: `"${digest}"`
      },
      body: Source.of(body),
      digest,
      ranges: true
    }
  }

  private tags(name: string, query: URLSearchParams): Answer {
    const repository = this.repositories.get(name)
    if (repository === undefined) return error(404, "NAME_UNKNOWN", "repository name not known to registry", { name })
    const last = query.get("last") ?? ""
    const all = [...repository.tags.keys()].sort().filter((tag) => tag > last)
    const count = Number(query.get("n") ?? Infinity)
    const tags = all.slice(0, count)
    const link = `</v2/${name}/tags/list?last=${tags.at(-1) ?? ""}&n=${count}>; rel="next"`
    return json(200, { name, tags }, tags.length < all.length ? { link } : {})
  }

  private repository(name: string): Repository {
    const known = this.repositories.get(name)
    if (known !== undefined) return known
    const made: Repository = { tags: new Map(), manifests: new Map(), blobs: new Map() }
    this.repositories.set(name, made)
    return made
  }
}
