import { Config, ConfigProvider, Effect, Option } from "effect"
import { isAddress, isLoopback, nameOf } from "../route/Endpoint.ts"
import * as Daemon from "./Daemon.ts"

/** What the environment says of proxies. */
export interface Proxies {
  /** The proxy for http, and the one for https: URLs; empty: none. They may hold a password. */
  readonly http: string
  readonly https: string
  /** NO_PROXY as it stands there. */
  readonly no: string
}

/** No proxies. */
export const none: Proxies = { http: "", https: "", no: "" }

/** HTTP_PROXY, HTTPS_PROXY and NO_PROXY, else the same in lower case. */
export const fromEnvironment: Effect.Effect<Proxies> = Effect.gen(function*() {
  const provider = yield* ConfigProvider.ConfigProvider
  const read = (name: string) => Config.option(Config.String(name)).pipe(
    Effect.map(Option.getOrElse(() => "")), Effect.orElseSucceed(() => ""), Effect.provideService(ConfigProvider.ConfigProvider, provider))
  const any = (name: string) => Effect.flatMap(read(name), (value) => value === "" ? read(name.toLowerCase()) : Effect.succeed(value))
  return { http: yield* any("HTTP_PROXY"), https: yield* any("HTTPS_PROXY"), no: yield* any("NO_PROXY") }
})

const portOf = ({ port, protocol }: URL) => port !== "" ? port : protocol === "https:" ? "443" : "80"

/** Whether one entry of NO_PROXY means this host: `*`, an address or a range of them, a domain with all below it, `.domain` without itself; each but a range with a port if it has one. */
const excludes = (entry: string, name: string, port: string): boolean => {
  if (entry === "*") return true
  if (Daemon.isRange(entry)) return isAddress(name) && Daemon.within(name, entry)
  const bare = /^[^\][]*:[^\][]*:/.test(entry) // IPv6 without brackets has no port
  const [, host = "", only] = bare ? [entry, entry] : /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(entry) ?? []
  if (host === "" || (only !== undefined && only !== port)) return false
  const wanted = (bare ? host : nameOf(host)).toLowerCase().replace(/^\*\./, ".")
  if (isAddress(name) || isAddress(wanted)) return name === wanted
  return wanted.startsWith(".") ? name.endsWith(wanted) : name === wanted || name.endsWith(`.${wanted}`)
}

/** The proxy for a URL, by the rules of Go's net/http, which registries' other clients have: never for this machine. undefined: none. */
export const choose = (proxies: Proxies, url: string): URL | undefined => {
  const to = new URL(url)
  const text = to.protocol === "https:" ? proxies.https : proxies.http
  const name = nameOf(to.host).toLowerCase().replace(/\.$/, "")
  if (text === "" || isLoopback(to.host)) return undefined
  if (proxies.no.split(",").some((entry) => excludes(entry.trim().toLowerCase(), name, portOf(to)))) return undefined
  const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`
  return URL.canParse(whole) ? new URL(whole) : undefined
}
