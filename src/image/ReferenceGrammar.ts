/** A reference cut into its parts, exactly as written. `domain` is "" where none was recognised. */
export interface Parts {
  readonly domain: string
  readonly path: string
  readonly tag: string | undefined
  readonly digest: string | undefined
}

/** Where (UTF-16 index) a text stops being a reference, and what would have been allowed there. */
export interface Miss {
  readonly at: number
  readonly expected: string
}

const isDigit = (code: number) => code >= 48 && code <= 57
const isLower = (code: number) => code >= 97 && code <= 122
const isUpper = (code: number) => code >= 65 && code <= 90
const isNameCode = (code: number) => isLower(code) || isDigit(code)
const isLetter = (code: number) => isLower(code) || isUpper(code)
const isAlphanumeric = (code: number) => isLetter(code) || isDigit(code)
const isHex = (code: number) => isDigit(code) || (code >= 97 && code <= 102) || (code >= 65 && code <= 70)
const isWord = (code: number) => isAlphanumeric(code) || code === 95
const isTagCode = (code: number) => isWord(code) || code === 46 || code === 45

/** Reads one text from left to right, never back: each method takes an index and returns the index after what it read, or -1. */
class Scanner {
  /** The furthest place anything went wrong. */
  miss: Miss = { at: 0, expected: "a name" }
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** `reference` with a domain, if the text begins with one, else without. */
  reference(): Parts | undefined {
    const domainEnd = this.domain()
    return (domainEnd > 0 ? this.rest(this.text.slice(0, domainEnd), domainEnd + 1) : undefined) ?? this.rest("", 0)
  }

  private fail(at: number, expected: string): -1 {
    if (at >= this.miss.at) this.miss = { at, expected }
    return -1
  }

  private run(from: number, accepts: (code: number) => boolean, limit = this.text.length): number {
    let at = from
    while (at < limit && accepts(this.text.charCodeAt(at))) at++
    return at
  }

  /** `host[:port]` before the first slash; its end is the slash. What is no domain may still be a path: not a miss. */
  private domain(): number {
    let at = 0
    if (this.text[0] === "[") {
      at = this.run(1, (code) => isHex(code) || code === 58)
      if (at === 1) return this.fail(at, "an IPv6 address")
      if (this.text[at] !== "]") return this.fail(at, "a hexadecimal digit, `:` or `]`")
      at++
    } else {
      for (;; at++) {
        const end = this.run(at, (code) => isAlphanumeric(code) || code === 45)
        if (end === at || this.text[at] === "-" || this.text[end - 1] === "-") return -1
        at = end
        if (this.text[at] !== ".") break
      }
    }
    if (this.text[at] === ":") {
      const end = this.run(at + 1, isDigit)
      if (end === at + 1) return -1
      at = end
    }
    if (this.text[at] === "/") return at
    return this.text[0] === "[" ? this.fail(at, "`/` and a repository name") : -1
  }

  private rest(domain: string, from: number): Parts | undefined {
    const pathEnd = this.path(from)
    if (pathEnd < 0) return undefined
    let at = pathEnd, tag: string | undefined, digest: string | undefined
    if (this.text[at] === ":") {
      const end = this.tag(at + 1)
      if (end < 0) return undefined
      tag = this.text.slice(at + 1, end)
      at = end
    }
    if (this.text[at] === "@") {
      const end = this.digest(at + 1)
      if (end < 0) return undefined
      digest = this.text.slice(at + 1, end)
      at = end
    }
    if (at === this.text.length) return { domain, path: this.text.slice(from, pathEnd), tag, digest }
    this.fail(at, digest !== undefined ? "a hexadecimal digit or the end"
      : tag === undefined ? "a lower-case letter, a digit, a separator (`.`, `_`, `__`, dashes), `/`, `:tag`, `@digest` or the end"
      : at - pathEnd > 128 ? "the end, or `@` and a digest: a tag has at most 128 characters"
      : "a letter, digit, `_`, `.`, `-`, `@digest` or the end")
    return undefined
  }

  private path(from: number): number {
    for (let at = from;; at++) {
      const first = this.run(at, isNameCode)
      if (first === at) return this.fail(at, "a lower-case letter or digit")
      at = first
      for (let after = this.separator(at); after > at; after = this.separator(at)) {
        at = this.run(after, isNameCode)
        if (at === after) return this.fail(at, "a lower-case letter or digit")
      }
      if (this.text[at] !== "/") return at
    }
  }

  private separator(at: number): number {
    switch (this.text[at]) {
      case ".":
        return at + 1
      case "_":
        return this.text[at + 1] === "_" ? at + 2 : at + 1
      default:
        return this.run(at, (code) => code === 45)
    }
  }

  private tag(from: number): number {
    return isWord(this.text.charCodeAt(from)) ? this.run(from, isTagCode, Math.min(from + 128, this.text.length))
      : this.fail(from, "a tag, which begins with a letter, digit or `_`")
  }

  private digest(from: number): number {
    let at = from
    for (;; at++) {
      if (!isLetter(this.text.charCodeAt(at))) return this.fail(at, "a digest such as sha256:…")
      at = this.run(at, isAlphanumeric)
      if (!/^[-_+.]$/.test(this.text[at] ?? "")) break
    }
    if (this.text[at] !== ":") return this.fail(at, "`:` and the digest's hexadecimal digits")
    const end = this.run(at + 1, isHex)
    return end - at - 1 < 32 ? this.fail(end, "at least 32 hexadecimal digits") : end
  }
}

/** Go's strings.ToLower, for what it can make of ASCII: JavaScript alone maps U+0130 to two characters. */
export const lower = (text: string): string => text.replaceAll("\u0130", "i").toLowerCase()

/** Cuts `[domain/]path[:tag][@digest]` (distribution/reference v0.6.0, regexp.go). Linear in the text's length. */
export const scan = (text: string): Parts | Miss => {
  const scanner = new Scanner(text)
  return scanner.reference() ?? scanner.miss
}

/** What go-digest 1.0 says against a digest, with sha256, sha384 and sha512 registered; undefined if it is valid. */
export const digestFault = (text: string): string | undefined => {
  const colon = text.indexOf(":")
  if (colon <= 0 || colon + 1 === text.length) return "invalid checksum digest format"
  const algorithm = text.slice(0, colon), encoded = text.slice(colon + 1)
  if (algorithm !== "sha256" && algorithm !== "sha384" && algorithm !== "sha512") {
    return /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*$/.test(algorithm) && /^[a-zA-Z0-9=_-]+$/.test(encoded)
      ? "unsupported digest algorithm" : "invalid checksum digest format"
  }
  if (new TextEncoder().encode(encoded).length !== Number(algorithm.slice(3)) / 4) return "invalid checksum digest length"
  return /^[a-f0-9]+$/.test(encoded) ? undefined : "invalid checksum digest format"
}

/** A bare image ID (64 lower-case hexadecimal digits), which no repository may be called. */
export const isIdentifier = (text: string): boolean => /^[a-f0-9]{64}$/.test(text)

/**
 * Which registry a name as people write it means, and the rest with its tag and digest: docker.io unless the part before
 * the first slash is localhost, has a `.`, a `:` or an upper-case letter (normalize.go, splitDockerDomain).
 */
export const splitDockerDomain = (text: string): readonly [domain: string, remainder: string] => {
  const slash = text.indexOf("/")
  if (slash < 0) return ["docker.io", `library/${text}`]
  const first = text.slice(0, slash), rest = text.slice(slash + 1)
  const isHub = first === "docker.io" || first === "index.docker.io"
  if (!isHub && (first === "localhost" || /[.:]/.test(first) || lower(first) !== first)) return [first, rest]
  const remainder = isHub ? rest : text
  return ["docker.io", remainder.includes("/") ? remainder : `library/${remainder}`]
}
