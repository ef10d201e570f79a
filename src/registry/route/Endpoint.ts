import { Context } from "effect"

/** What a user says about registries, beside credentials. */
export interface RegistryOptions {
  /** Hosts (`host` or `host:port`) that may also be asked by plain HTTP, and whose certificate is not checked. */
  readonly insecure: ReadonlyArray<string>
  /** Certificate authorities trusted besides Node's (PEM). */
  readonly authorities: ReadonlyArray<string>
  /** Hosts of token servers that may get the credentials of whatever registry names them. */
  readonly realms: ReadonlyArray<string>
  /** Requests under way at a time to one origin. */
  readonly connections: number
  /** Whether foreign layers may be fetched from the addresses their manifests give: by https, without credentials. Default: no. */
  readonly foreign?: boolean
}

/** The options in force: nothing insecure, Node's authorities, no further realms, 8 requests an origin. */
export const RegistryOptions = Context.Reference<RegistryOptions>("registry/RegistryOptions", {
  defaultValue: () => ({ insecure: [], authorities: [], realms: [], connections: 8 })
})

/** The names Docker Hub goes by. */
export const hubNames: ReadonlyArray<string> = ["docker.io", "index.docker.io", "registry-1.docker.io"]

/** `host[:port]` that serves the images of a reference's domain, in lower case: `registry-1.docker.io` for the hub, else the domain itself. */
export const hostOf = (domain: string): string => {
  const host = domain.toLowerCase()
  return hubNames.includes(host) ? "registry-1.docker.io" : host
}

/** `host[:port]` without its port and without the brackets of an IPv6 address. */
export const nameOf = (host: string): string => {
  const bracketed = /^\[(.*)\](?::\d+)?$/.exec(host)
  return bracketed?.[1] ?? host.replace(/:\d+$/, "")
}

/** Whether `host[:port]` is this machine: localhost, 127.0.0.0/8 or ::1. */
export const isLoopback = (host: string): boolean => {
  const name = nameOf(host)
  return name === "localhost" || /^127(?:\.\d{1,3}){3}$/.test(name) || name === "::1"
}

/** Whether `name` (as `URL.hostname` or `nameOf` give it) is an address literal, not a name. */
export const isAddress = (name: string): boolean => /^\d{1,3}(?:\.\d{1,3}){3}$/.test(name) || name.includes(":")

/**
 * Whether `host[:port]` is a literal address that is not on the public network (loopback, link-local, private, shared,
 * unspecified; IPv4 inside IPv6 too), or localhost.
 */
export const isPrivate = (host: string): boolean => {
  const name = nameOf(host).toLowerCase().replace(/\.$/, "")
  if (name === "localhost" || name.endsWith(".localhost")) return true
  if (/^\d{1,3}(?:\.\d{1,3}){3}$/.test(name)) {
    const [a = 0, b = 0] = name.split(".").map(Number)
    return a === 0 || a === 10 || a === 127 || (a === 100 && b >= 64 && b < 128) || (a === 169 && b === 254) ||
      (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168) || a >= 224
  }
  if (!name.includes(":")) return false
  // Only 2000::/3 is public, and of it 2002::/16 and 64:ff9b::/96 (outside it) carry an IPv4 address.
  return !/^[23][0-9a-f]{3}:/.test(name) || name.startsWith("2002:")
}

/** The schemes to try for `host`, best first: https, then http where `insecure` or the loopback interface allows it. */
export const schemes = (host: string, insecure: ReadonlyArray<string>): ReadonlyArray<"https" | "http"> =>
  isLoopback(host) || isListed(host, insecure) ? ["https", "http"] : ["https"]

/** Whether `host[:port]` is in `list`, which may name it with or without its port. */
export const isListed = (host: string, list: ReadonlyArray<string>): boolean =>
  list.some((entry) => entry.toLowerCase() === host || entry.toLowerCase() === nameOf(host))
