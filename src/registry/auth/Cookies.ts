/** A cookie as a server set it: the value verbatim, `expires` in milliseconds since 1970 (undefined: with the session). */
export interface Cookie {
  readonly name: string
  readonly value: string
  readonly path?: string | undefined
  readonly secure: boolean
  readonly expires?: number | undefined
}

/** More cookies of one origin are not kept: the oldest goes. */
const most = 50
/** The longest Cookie header that is sent, in characters. */
const longest = 8192

/** The folder of a request's path: what a cookie without a path is for (RFC 6265, 5.1.4). */
const folderOf = (path: string): string => {
  const end = path.lastIndexOf("/")
  return end <= 0 ? "/" : path.slice(0, end)
}

/** Whether a cookie for `path` goes with a request for `wanted` (RFC 6265, 5.1.4). */
const covers = (path: string, wanted: string): boolean =>
  wanted === path || wanted.startsWith(path) && (path.endsWith("/") || wanted[path.length] === "/")

/**
 * The cookies of one session (RFC 6265), more narrowly than browsers: each goes back, verbatim, to the origin that set it
 * (scheme, host and port) and to no other, whatever its Domain says.
 */
export class Jar {
  private readonly origins = new Map<string, Map<string, Cookie & { readonly path: string }>>()

  /** Keeps a cookie that the answer to `url` set; one that has expired by `now` is forgotten. */
  take(url: URL, cookie: Cookie, now: number): void {
    const path = cookie.path ?? folderOf(url.pathname)
    const key = `${cookie.name}\n${path}`
    const kept = this.origins.get(url.origin) ?? new Map<string, Cookie & { readonly path: string }>()
    this.origins.set(url.origin, kept)
    const [oldest] = kept.keys()
    if (cookie.expires !== undefined && cookie.expires <= now) kept.delete(key)
    else {
      if (!kept.has(key) && kept.size >= most && oldest !== undefined) kept.delete(oldest)
      kept.set(key, { ...cookie, path })
    }
  }

  /** The Cookie header for a request of `url` at `now`: longer paths first. undefined: none. */
  header(url: URL, now: number): string | undefined {
    const fitting = [...this.origins.get(url.origin)?.values() ?? []].filter(({ expires, path, secure }) =>
      (expires === undefined || expires > now) && (!secure || url.protocol === "https:") && covers(path, url.pathname))
    if (fitting.length === 0) return undefined
    const text = fitting.toSorted((a, b) => b.path.length - a.path.length).map(({ name, value }) => `${name}=${value}`).join("; ")
    return text.length > longest ? undefined : text
  }
}
