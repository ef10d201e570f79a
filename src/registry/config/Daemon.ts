import { Result, Schema } from "effect"
import { ConfigError } from "./ConfigError.ts"
import { problemOf } from "./Toml.ts"

/** What Docker's `daemon.json` says of registries. */
export interface Daemon {
  /** Mirrors of Docker Hub, in order: `scheme://host[:port][/path]`, and where each stands. */
  readonly mirrors: ReadonlyArray<{ readonly url: string; readonly line: number | undefined }>
  /** Hosts (`host` or `host:port`) and address ranges (`10.0.0.0/8`) whose certificates are not checked and that may speak plain HTTP. */
  readonly insecure: ReadonlyArray<string>
}

const File = Schema.Struct({
  "registry-mirrors": Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
  "insecure-registries": Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String)))
})

/** Docker's rule for a mirror (registry.ValidateMirror): an http(s) URL without user, query and fragment. */
const mirrorProblem = (text: string): string | undefined => {
  if (!URL.canParse(text)) return "is not a URL"
  const { hash, password, protocol, search, username } = new URL(text)
  if (protocol !== "https:" && protocol !== "http:") return "has a scheme that is neither https nor http"
  if (username !== "" || password !== "") return "has a user name in it"
  return search !== "" || hash !== "" ? "has a query or fragment" : undefined
}

/** Docker's rule for an insecure registry (registry.ValidateIndexName): no scheme; a network in CIDR form, or a host with or without port. */
const insecureProblem = (text: string): string | undefined =>
  /^https?:\/\//i.test(text) ? "should not contain '://'" : /^-|-$/.test(text) ? "begins or ends with a hyphen" : undefined

/** Reads `registry-mirrors` and `insecure-registries` of a `daemon.json`; everything else in it is left alone. */
export const decode = (path: string, text: string): Result.Result<Daemon, ConfigError> => {
  const fail = (problem: string, line?: number) => Result.fail(new ConfigError({ path, problem, ...line !== undefined && { line } }))
  if (text.trim() === "") return Result.succeed({ mirrors: [], insecure: [] })
  const json = Result.try((): unknown => JSON.parse(text))
  if (Result.isFailure(json)) return fail("it is not JSON")
  const decoded = Schema.decodeUnknownResult(File)(json.success)
  if (Result.isFailure(decoded)) return fail(problemOf(decoded.failure))
  const lines = text.split("\n")
  const lineOf = (value: string) => lines.findIndex((line) => line.includes(JSON.stringify(value)) || line.includes(JSON.stringify(value).replaceAll("/", "\\/"))) + 1 || undefined
  const mirrors = decoded.success["registry-mirrors"] ?? []
  for (const mirror of mirrors) {
    const problem = mirrorProblem(mirror)
    if (problem !== undefined) return fail(`the mirror ${JSON.stringify(mirror.replace(/\/\/[^/]*@/, "//…@"))} ${problem}`, lineOf(mirror))
  }
  const insecure = decoded.success["insecure-registries"] ?? []
  for (const entry of insecure) {
    const problem = insecureProblem(entry)
    if (problem !== undefined) return fail(`the insecure registry ${JSON.stringify(entry)} ${problem}`, lineOf(entry))
  }
  return Result.succeed({ mirrors: mirrors.map((url) => ({ url: url.replace(/\/+$/, ""), line: lineOf(url) })), insecure })
}

/** An address as its bits, and how many there are. */
const bits = (address: string): readonly [value: bigint, width: number] | undefined => {
  const four = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$/.test(address) && !address.endsWith(".")
  if (!four && !(address.includes(":") && URL.canParse(`http://[${address.replace(/%.*$/, "")}]`))) return undefined
  if (four) return [address.split(".").reduce((sum, part) => sum * 256n + BigInt(part), 0n), 32]
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return bits(mapped)
  const [head = "", tail] = new URL(`http://[${address.replace(/%.*$/, "")}]`).hostname.slice(1, -1).split("::")
  const words = (text: string) => text === "" ? [] : text.split(":")
  const left = words(head)
  const right = tail === undefined ? [] : words(tail)
  const all = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => "0"), ...right]
  return [all.reduce((sum, word) => sum * 65536n + BigInt(`0x${word}`), 0n), 128]
}

/** Whether `range` is a network in CIDR form. */
export const isRange = (range: string): boolean => {
  const [, address = "", prefix] = /^(.+)\/(\d{1,3})$/.exec(range) ?? []
  const parsed = bits(address)
  return parsed !== undefined && Number(prefix) <= parsed[1]
}

/** Whether the address is in the network `range` (CIDR). */
export const within = (address: string, range: string): boolean => {
  if (!isRange(range)) return false
  const at = range.lastIndexOf("/")
  const [one, network] = [bits(address), bits(range.slice(0, at))]
  if (one === undefined || network === undefined || one[1] !== network[1]) return false
  const shift = BigInt(one[1] - Number(range.slice(at + 1)))
  return one[0] >> shift === network[0] >> shift
}
