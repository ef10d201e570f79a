import { isAddress, isListed, isPrivate, nameOf } from "../route/Endpoint.ts"

/** What to do with the realm of a Bearer challenge: ask it for a token, with or without credentials, or not at all. */
export type Verdict =
  | { readonly _tag: "Ask"; readonly url: URL; readonly credentials: boolean }
  | { readonly _tag: "Refuse"; readonly rule: string }

/** Names under which strangers get names of their own: being siblings there means nothing. */
const shared = new Set([
  "amazonaws.com", "appspot.com", "azurecr.io", "azurewebsites.net", "blogspot.com", "cloudapp.net", "cloudfront.net", "duckdns.org",
  "firebaseapp.com", "fly.dev", "github.io", "gitlab.io", "herokuapp.com", "netlify.app", "ngrok.app", "ngrok.io", "ngrok-free.app",
  "nip.io", "onrender.com", "pages.dev", "pkg.dev", "run.app", "sslip.io", "vercel.app", "web.app", "workers.dev"
])
const isShared = (name: string) =>
  !name.includes(".") || shared.has(name) || /^(?:ac|co|com|edu|go|gob|gov|id|ltd|me|ne|net|nom|or|org|plc|sch)\.[a-z]{2}$/.test(name)

/** Whether credentials of `registry` belong to the realm host too. Both are `host[:port]`. */
const related = (registry: string, realm: string): boolean => {
  if (registry === realm) return true
  const [from, to] = [nameOf(registry), nameOf(realm)]
  if (isAddress(from) || isAddress(to) || isPrivate(from) || isPrivate(to)) return false
  if (from === to) return true
  const parent = from.slice(from.indexOf(".") + 1)
  return from.includes(".") && !isShared(parent) && (to === parent || to.endsWith(`.${parent}`))
}

const defaultPort = { "https:": "443", "http:": "80" }
const hostPort = (url: URL) => `${url.hostname}:${url.port || defaultPort[url.protocol === "http:" ? "http:" : "https:"]}`

/**
 * Judges the realm a registry at `origin` (`https://host:port`) names. Refused: what is no http(s) URL, http from a registry
 * by https, an address that is not public from a registry that is, a URL with a user in it. Credentials go only to the same
 * host, to hosts under the registry's parent domain (never for addresses and localhost, nor under a shared suffix), and to `allowed` hosts.
 */
export const judge = (origin: string, realm: string, allowed: ReadonlyArray<string>): Verdict => {
  if (!URL.canParse(realm)) return { _tag: "Refuse", rule: "it is not a URL" }
  const url = new URL(realm)
  const registry = new URL(origin)
  if (url.protocol !== "https:" && url.protocol !== "http:") return { _tag: "Refuse", rule: "its scheme is neither https nor http" }
  if (url.protocol === "http:" && registry.protocol === "https:") return { _tag: "Refuse", rule: "it is plain HTTP and the registry is not" }
  if (url.username !== "" || url.password !== "") return { _tag: "Refuse", rule: "it has a user name in it" }
  if (isPrivate(url.host) && !isPrivate(registry.host)) return { _tag: "Refuse", rule: "it is an address of a private network and the registry is not" }
  return { _tag: "Ask", url, credentials: related(hostPort(registry), hostPort(url)) || isListed(url.host, allowed) }
}
