import { Redacted, Result, Schema } from "effect"
import { isAbsolute, join } from "node:path"
import { ConfigError } from "./ConfigError.ts"
import * as Toml from "./Toml.ts"

/** One host of a `hosts.toml`, in the order in which they are asked; the last is the file's `server`. */
export interface HostEntry {
  /** `scheme://host[:port]`. undefined: the registry's own host, since the file names no `server`. */
  readonly origin: string | undefined
  /** What stands before `/<repository>/manifests/…`: `/v2`, or what `override_path` says. */
  readonly path: string
  /** Whether it may be asked for content by digest, and for tags. */
  readonly pull: boolean
  readonly resolve: boolean
  /** Files of certificate authorities, and of client certificates with their keys (undefined: in the same file). */
  readonly ca: ReadonlyArray<string>
  readonly client: ReadonlyArray<readonly [certificate: string, key: string | undefined]>
  readonly skipVerify: boolean
  /** Headers of its own, lower-case names; they may be secrets. */
  readonly headers: Readonly<Record<string, Redacted.Redacted>>
  /** Longest wait for a connection, in milliseconds. */
  readonly dialTimeout: number | undefined
  /** Where in the file it stands. */
  readonly line: number
}

const Texts = Schema.Union([Schema.String, Schema.Array(Schema.String)])
const HostConfig = Schema.Struct({
  capabilities: Schema.optionalKey(Schema.Array(Schema.String)),
  ca: Schema.optionalKey(Texts),
  client: Schema.optionalKey(Schema.Union([Schema.String, Schema.Array(Texts)])),
  skip_verify: Schema.optionalKey(Schema.Boolean),
  override_path: Schema.optionalKey(Schema.Boolean),
  header: Schema.optionalKey(Schema.Record(Schema.String, Texts)),
  dial_timeout: Schema.optionalKey(Schema.String)
})
const HostsFile = Schema.Struct({
  ...HostConfig.fields,
  server: Schema.optionalKey(Schema.String),
  host: Schema.optionalKey(Schema.Record(Schema.String, HostConfig))
})

const milliseconds: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, "µs": 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A duration as Go writes it: `1m30s`, in milliseconds. */
const goDuration = (text: string): number | undefined => {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)]
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== text) return undefined
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (milliseconds[unit ?? ""] ?? 0), 0)
}

const list = (value: typeof Texts.Type | undefined): ReadonlyArray<string> => value === undefined ? [] : typeof value === "string" ? [value] : value

/** `/a//b/../c/` as Go's path.Clean leaves it. */
const clean = (path: string): string => new URL(`http://x${path.replace(/\/{2,}/g, "/")}`).pathname.replace(/\/$/, "")

/**
 * Reads containerd's `certs.d/<host>/hosts.toml` as containerd does (docs/hosts.md; core/remotes/docker/config): the hosts in the
 * order of the file, then `server`. `folder` is the file's: relative paths of certificates begin there.
 */
export const decode = (path: string, folder: string, text: string): Result.Result<ReadonlyArray<HostEntry>, ConfigError> => {
  const decoded = Toml.decode(HostsFile, path, text)
  if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
  const { host = {}, server, ...rest } = decoded.success
  const places = Toml.headings(text)
  const serverLine = text.split("\n").findIndex((line) => /^\s*server\s*=/.test(line)) + 1 || 1
  const entries: Array<HostEntry> = []
  for (const [url, config, line] of [
    ...Object.entries(host).map(([url, config]) => [url, config, places.find(({ key }) => key[0] === "host" && key[1] === url)?.line ?? 1] as const),
    [server, rest, serverLine] as const
  ]) {
    const entry = one(url, config, folder)
    if (typeof entry === "string") return Result.fail(new ConfigError({ path, line, problem: entry }))
    entries.push({ ...entry, line })
  }
  return Result.succeed(entries)
}

const capabilities = new Set(["pull", "resolve", "push"])

/** One host's table, or what is wrong with it. */
const one = (given: string | undefined, config: typeof HostConfig.Type, folder: string): Omit<HostEntry, "line"> | string => {
  const url = given === undefined || given === "" ? undefined : /^https?:/i.test(given) ? given : `https://${given}`
  if (url !== undefined && (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))) return `the host ${JSON.stringify(given)} is no http(s) URL`
  const named = config.capabilities?.map((name) => name.toLowerCase())
  const unknown = named?.find((name) => !capabilities.has(name))
  if (unknown !== undefined) return `unknown capability ${JSON.stringify(unknown)} (there are pull, resolve and push)`
  const able = (name: string) => url === undefined || named === undefined || named.length === 0 || named.includes(name)
  const absolute = (path: string) => isAbsolute(path) ? path : join(folder, path)
  const client: Array<readonly [string, string | undefined]> = []
  for (const item of typeof config.client === "string" ? [config.client] : config.client ?? []) {
    if (typeof item === "string") client.push([absolute(item), undefined])
    else if (item.length === 2) client.push([absolute(item[0] ?? ""), absolute(item[1] ?? "")])
    else return "a pair of `client` is a certificate and its key"
  }
  const dialTimeout = config.dial_timeout === undefined ? undefined : goDuration(config.dial_timeout)
  if (config.dial_timeout !== undefined && dialTimeout === undefined) return `the dial_timeout ${JSON.stringify(config.dial_timeout)} is no duration such as 5s`
  const headers: Record<string, Redacted.Redacted> = {}
  for (const [name, value] of Object.entries(config.header ?? {})) {
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || list(value).some((text) => /[^\t\x20-\x7e\x80-\xff]/.test(text))) return `the header ${JSON.stringify(name)} cannot be sent`
    headers[name.toLowerCase()] = Redacted.make(list(value).join(", "))
  }
  const parsed = url === undefined ? undefined : new URL(url)
  const base = parsed === undefined ? "" : clean(parsed.pathname)
  return {
    origin: parsed?.origin, path: config.override_path === true ? base : base.endsWith("/v2") ? base : `${base}/v2`,
    pull: able("pull"), resolve: able("resolve"), ca: list(config.ca).map(absolute), client,
    skipVerify: config.skip_verify ?? false, headers, dialTimeout
  }
}

/** The folders of `certs.d` that may be a host's, best first: `host_port_`, `host:port` (or `host`), `_default`. */
export const folders = (host: string): ReadonlyArray<string> => {
  const port = /^(.*):(\d+)$/.exec(host)
  return [...port === null ? [] : [`${port[1]}_${port[2]}_`], host]
}
