import { Result, Schema } from "effect"
import { isImageId } from "./FixManifest.ts"
import * as LegacyDigest from "./LegacyDigest.ts"

/** A name or tag Docker 1.9.1 refused; `reason` in its words. */
export class InvalidLegacyReference extends Schema.TaggedError<InvalidLegacyReference>()("InvalidLegacyReference", {
  input: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** What a repository's name means to Docker 1.9.1 (registry.RepositoryInfo). */
export interface RepositoryInfo {
  /** `docker.io`, or a registry's host and port as written. */
  readonly index: string
  /** Whether the index is Docker Hub. */
  readonly officialIndex: boolean
  /** Whether it is a repository of Docker Hub without a user's name. */
  readonly official: boolean
  /** The name in the registry: `library/debian`. */
  readonly remoteName: string
  /** The name in the tag store: `debian`. */
  readonly localName: string
  readonly canonicalName: string
  /** False for a registry on this host (127.0.0.0/8), which may be spoken to without TLS. Names are not looked up. */
  readonly secure: boolean
}

const hub = "docker.io"
const fail = (input: string, reason: string) => Result.fail(new InvalidLegacyReference({ input, reason }))

/** Cuts off a tag or digest: at the first `@`, else at the last `:` if no `/` follows (parsers.ParseRepositoryTag). */
export const split = (input: string): { readonly repository: string; readonly tag: string } => {
  if (input.includes("@")) {
    const [repository = "", tag = ""] = input.split("@", 2)
    return { repository, tag }
  }
  const colon = input.lastIndexOf(":")
  return colon < 0 || input.includes("/", colon) ? { repository: input, tag: "" }
    : { repository: input.slice(0, colon), tag: input.slice(colon + 1) }
}

const component = /^[a-z0-9](?:-*[a-z0-9])*(?:[._][a-z0-9](?:-*[a-z0-9])*)*$/

/** What is wrong with a name in a registry; undefined if nothing is. */
const remoteFault = (name: string): string | undefined => {
  if (isImageId(name)) return `Invalid repository name (${name}), cannot specify 64-byte hexadecimal strings`
  if (name === "") return "repository name must have at least one component"
  if (new TextEncoder().encode(name).length > 255) return "repository name must not be more than 255 characters"
  return name.split("/").every((part) => component.test(part)) ? undefined
    : String.raw`repository name component must match "${component.source.slice(1, -1)}"`
}

/** Index and name in it, both checked (registry.loadRepositoryName). */
const load = (name: string): Result.Result<{ readonly index: string; readonly remote: string }, InvalidLegacyReference> => {
  if (name.includes("://")) return fail(name, `Invalid repository name (ex: "registry.domain.tld/myrepos")`)
  const slash = name.indexOf("/"), first = name.slice(0, Math.max(slash, 0))
  const isHost = slash >= 0 && (/[.:]/.test(first) || first === "localhost")
  const index = !isHost || first === `index.${hub}` ? hub : first, remote = isHost ? name.slice(slash + 1) : name
  if (index.startsWith("-") || index.endsWith("-")) return fail(name, `Invalid index name (${index}). Cannot begin or end with a hyphen.`)
  const fault = remoteFault(remote)
  return fault === undefined ? Result.succeed({ index, remote }) : fail(name, fault)
}

const localName = (index: string, remote: string) =>
  index !== hub ? `${index}/${remote}` : remote.startsWith("library/") ? remote.slice("library/".length) : remote

/** The host of `host[:port]` or `[host]:port`; the whole text if it is neither (net.SplitHostPort). */
const hostOf = (index: string): string => {
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*)):[^:[\]]*$/.exec(index)
  return match?.[1] ?? match?.[2] ?? index
}

/** Whether a registry is on this host: 127.0.0.0/8, also as an IPv6 address that holds one, or localhost. */
const isLoopback = (index: string): boolean => {
  const host = hostOf(index).toLowerCase()
  if (host === "localhost" || host === "localhost.") return true
  const octet = "(?:0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
  if (new RegExp(String.raw`^127(?:\.${octet}){3}$`).test(host)) return true
  if (!host.includes(":") || !/^[0-9a-f:.]+$/.test(host) || !URL.canParse(`http://[${host}]/`)) return false
  return /^\[::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}\]$/.test(new URL(`http://[${host}]/`).hostname)
}

/** Reads a repository's name, without tag or digest (registry.ParseRepositoryInfo). */
export const repositoryInfo = (name: string): Result.Result<RepositoryInfo, InvalidLegacyReference> =>
  Result.map(load(name), ({ index, remote }) => {
    const local = localName(index, remote), officialIndex = index === hub
    const official = officialIndex && !local.includes("/")
    const remoteName = !officialIndex ? remote : official ? `library/${local}` : local
    return {
      index, officialIndex, official, remoteName, localName: local,
      canonicalName: officialIndex ? `${hub}/${remoteName}` : local, secure: officialIndex || !isLoopback(index)
    }
  })

/** The name the tag store uses for a repository; what is no name (an image ID) stays as it is (registry.NormalizeLocalName). */
export const normalizeLocalName = (name: string): string =>
  Result.match(load(name), { onFailure: () => name, onSuccess: ({ index, remote }) => localName(index, remote) })

/** The full name of a repository that the tag store calls `localName`: `docker.io/library/debian` for `debian`. */
export const canonicalOf = (localName: string): string => {
  const slash = localName.indexOf("/"), first = localName.slice(0, Math.max(slash, 0))
  if (slash < 0) return `${hub}/library/${localName}`
  return /[.:]/.test(first) || first === "localhost" ? localName : `${hub}/${localName}`
}

/** Checks a tag (tags.ValidateTagName). */
export const checkTag = (tag: string): Result.Result<string, InvalidLegacyReference> => {
  if (tag === "") return fail(tag, "tag name can't be empty")
  return /^\w[\w.-]{0,127}$/.test(tag) ? Result.succeed(tag)
    : fail(tag, `Illegal tag name (${tag}): only [A-Za-z0-9_.-] are allowed ('.' and '-' are NOT allowed in the initial), minimum 1, maximum 128 in length`)
}

/** Checks a name for the tag store (graph.validateRepoName). */
export const checkRepository = (name: string): Result.Result<string, InvalidLegacyReference> => {
  if (name === "") return fail(name, "Repository name can't be empty")
  return name === "scratch" ? fail(name, "'scratch' is a reserved name") : Result.succeed(name)
}

/** Whether the tag store takes `ref` for a digest (utils.DigestReference). */
export const isDigestReference = (ref: string): boolean => ref.includes(":")

/** Whether `ref` is a valid digest (registry.ParseReference). */
export const hasDigest = (ref: string): boolean => isDigestReference(ref) && LegacyDigest.is(ref)

/** `name:tag`, or `name@digest` (utils.ImageReference). */
export const imageReference = (repository: string, ref: string): string => `${repository}${isDigestReference(ref) ? "@" : ":"}${ref}`
