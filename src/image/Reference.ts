import { Result, Schema } from "effect"
import * as Digest from "./Digest.ts"
import { printable } from "./Printable.ts"
import * as Grammar from "./ReferenceGrammar.ts"

/**
 * `input` is no reference. `at` is the index (UTF-16) of the first character that does not fit (the length: it ends too
 * early), `expected` what would fit there, `reason` the rule in the words of the distribution project.
 */
export class InvalidReference extends Schema.TaggedError<InvalidReference>()("InvalidReference", {
  input: Schema.String,
  at: Schema.Natural,
  reason: Schema.String,
  expected: Schema.String
}) {
  override get message() {
    const { at, input } = this
    const found = at >= input.length ? (input === "" ? "it is empty" : "it ends too early")
      : `at character ${at + 1}, "${printable(String.fromCodePoint(input.codePointAt(at) ?? 0))}"`
    const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(input)?.[0]
    const next = scheme === undefined ? `${found}, expected ${this.expected}` : `leave out ${scheme} (https is tried first, and http only where it is allowed)`
    return `"${printable(input)}" is not an image reference: ${printable(this.reason)}; ${next}`
  }
}

/** A syntactically valid name with what was written after it. `domain` is "" where the first part is none. */
export interface Named extends Grammar.Parts {
  readonly type: "repository" | "taggedReference" | "canonicalReference" | "reference"
}

/** A bare digest, for `parseAny`. */
export interface DigestReference {
  readonly type: "digestReference"
  readonly digest: string
}

const lowerCase = "repository name must be lowercase"
const aName = "a repository name such as debian or registry.example/team/app"

const invalid = (input: string, at: number, reason: string, expected: string) =>
  Result.fail(new InvalidReference({ input, at, reason, expected }))

const named = ({ domain, path, tag, digest }: Grammar.Parts): Named => ({
  type: tag === undefined ? (digest === undefined ? "repository" : "canonicalReference")
    : digest === undefined ? "taggedReference" : "reference",
  domain, path, tag, digest
})

/** Reads `text`, whose end is also the end of the `input` that errors speak of. */
const read = (text: string, input: string): Result.Result<Named, InvalidReference> => {
  const at = (index: number) => Math.max(0, index - text.length + input.length)
  if (text === "") return invalid(input, 0, "repository name must have at least one component", aName)
  const parts = Grammar.scan(text)
  if ("expected" in parts) {
    const lowered = Grammar.lower(text)
    return lowered !== text && !("expected" in Grammar.scan(lowered))
      ? invalid(input, at(parts.at), lowerCase, parts.expected)
      : invalid(input, at(parts.at), "invalid reference format", parts.expected)
  }
  const pathAt = parts.domain === "" ? 0 : parts.domain.length + 1
  if (parts.path.length > 255) {
    return invalid(input, at(pathAt + 255), "repository name must not be more than 255 characters", "a shorter name")
  }
  const fault = parts.digest === undefined ? undefined : Grammar.digestFault(parts.digest)
  return fault === undefined || parts.digest === undefined ? Result.succeed(named(parts))
    : invalid(input, at(text.length - parts.digest.length), fault, "sha256: and 64 or sha512: and 128 lower-case hexadecimal digits")
}

/** The grammar alone, nothing added: Go's `reference.Parse` (distribution/reference v0.6.0), with its error texts as `reason`. */
export const parseStrict = (input: string): Result.Result<Named, InvalidReference> => read(input, input)

/** A name as people write it, made canonical (`x` is docker.io/library/x): Go's `ParseNormalizedNamed`. */
export const parseNormalized = (input: string): Result.Result<Named, InvalidReference> => {
  if (Grammar.isIdentifier(input)) {
    return invalid(input, 0, `invalid repository name (${input}), cannot specify 64-byte hexadecimal strings`, "a name, or a name and @sha256:…")
  }
  const [domain, remainder] = Grammar.splitDockerDomain(input)
  const colon = remainder.indexOf(":")
  const remote = colon < 0 ? remainder : remainder.slice(0, colon)
  if (Grammar.lower(remote) !== remote) {
    const upper = Array.from(remote).findIndex((c) => Grammar.lower(c) !== c)
    const index = Array.from(remote).slice(0, upper).join("").length
    const at = Math.max(0, index - remainder.length + input.length)
    return invalid(input, at, `invalid reference format: repository name (${remote}) must be lowercase`, "a lower-case letter or digit")
  }
  return read(`${domain}/${remainder}`, input)
}

/** Adds the tag `latest` to a bare name: Go's `TagNameOnly`. */
export const tagNameOnly = (reference: Named): Named =>
  reference.type === "repository" ? named({ ...reference, tag: "latest" }) : reference

/** Takes tag and digest away: Go's `TrimNamed`. */
export const trimNamed = (reference: Named): Named => named({ ...reference, tag: undefined, digest: undefined })

/** Canonical, with a tag or a digest and never both (the digest wins): Go's `ParseDockerRef`. */
export const parseDockerRef = (input: string): Result.Result<Named, InvalidReference> =>
  Result.map(parseNormalized(input), (reference) =>
    reference.type === "reference" ? named({ ...reference, tag: undefined }) : tagNameOnly(reference))

/** An image ID, a digest, or a name as people write it: Go's `ParseAnyReference`. */
export const parseAny = (input: string): Result.Result<Named | DigestReference, InvalidReference> => {
  if (Grammar.isIdentifier(input)) return Result.succeed({ type: "digestReference", digest: `sha256:${input}` })
  return Grammar.digestFault(input) === undefined ? Result.succeed({ type: "digestReference", digest: input }) : parseNormalized(input)
}

/** Domain and path without tag or digest: `docker.io/library/debian`. */
export const name = ({ domain, path }: { readonly domain: string; readonly path: string }): string =>
  domain === "" ? path : `${domain}/${path}`

/** The shortest name that means the same: `debian` for `docker.io/library/debian`. */
export const familiarName = ({ domain, path }: { readonly domain: string; readonly path: string }): string =>
  domain !== "docker.io" ? name({ domain, path }) : /^library\/[^/]*$/.test(path) ? path.slice("library/".length) : path

const suffix = ({ tag, digest }: { readonly tag?: string | undefined; readonly digest?: string | undefined }) =>
  `${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`

/** The whole reference as text; `parse` reads it back. */
export const print = (reference: Reference | Named | DigestReference): string =>
  "path" in reference ? name(reference) + suffix(reference) : reference.digest

/** The whole reference as people write it: `debian:12`. `parse` reads it back, unless it looks like an image ID. */
export const familiar = (reference: Reference | Named | DigestReference): string =>
  "path" in reference ? familiarName(reference) + suffix(reference) : reference.digest

/**
 * What to pull: a registry's domain (host, and port if any; docker.io for Docker Hub), a repository path in it, and a tag,
 * a digest or both. Only what `parse` reads back as the same can be made.
 */
export class Reference extends Schema.Class<Reference>("image/Reference")(
  Schema.Struct({
    domain: Schema.String,
    path: Schema.String,
    tag: Schema.optionalKey(Schema.String),
    digest: Schema.optionalKey(Digest.Digest)
  }).check(Schema.makeFilter((reference) =>
    Result.match(parseNormalized(name(reference) + suffix(reference)), {
      onFailure: (error) => error.reason,
      onSuccess: (read) => read.domain !== "" && read.domain === reference.domain && read.path === reference.path
        && read.tag === reference.tag && read.digest === reference.digest && (read.tag ?? read.digest) !== undefined
        || "expected a canonical domain and path, and a tag or a digest"
    })
  ))
) {}

/** Reads what a user asks to pull: canonical, with the tag `latest` if neither tag nor digest is given. */
export const parse = (input: string): Result.Result<Reference, InvalidReference> =>
  Result.flatMap(parseNormalized(input), (parsed) => {
    const { domain, path, tag, digest } = tagNameOnly(parsed)
    if (domain === "") {
      const first = input.slice(0, input.indexOf("/"))
      const odd = first.search(/[^a-zA-Z0-9.-]/)
      return invalid(input, Math.max(0, odd), "invalid reference format", "a registry's host name, optionally with a port")
    }
    if (digest === undefined) return Result.succeed(new Reference({ domain, path, ...(tag === undefined ? {} : { tag }) }))
    if (!Digest.is(digest)) {
      return invalid(input, input.length - digest.length, "unsupported digest algorithm", "sha256 or sha512")
    }
    return Result.succeed(new Reference({ domain, path, ...(tag === undefined ? {} : { tag }), digest }))
  })
