import { Result, Schema } from "effect"
import * as MediaType from "./MediaType.ts"
import { printable } from "./Printable.ts"

const Word = Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{0,128}$/, { message: "expected at most 128 printable ASCII characters" }))

/**
 * What an image runs on, in Go's words (image-spec, image-index.md): os and architecture, the CPU's variant, and for Windows
 * the version of the system and the features it must have.
 */
export class Platform extends Schema.Class<Platform>("image/Platform")({
  os: Word,
  architecture: Word,
  variant: Schema.optionalKey(Word),
  osVersion: Schema.optionalKey(Word),
  osFeatures: Schema.optionalKey(Schema.Array(Word))
}) {}

/** `input` names no platform; `reason` says why. */
export class InvalidPlatform extends Schema.TaggedError<InvalidPlatform>()("InvalidPlatform", { input: Schema.String, reason: Schema.String }) {
  override get message() {
    return `"${printable(this.input)}" is not a platform: ${this.reason}; write os/architecture or os/architecture/variant, such as linux/arm64`
  }
}

/** In place of a platform: every image there is. */
export const all = "all"

/** The platform of what is made for none, as an index has it for attestations. */
export const none = "unknown/unknown"

/** `reference` exists, and none of its images runs on `wanted`; `available` lists the platforms there are. */
export class NoPlatform extends Schema.TaggedError<NoPlatform>()("NoPlatform", {
  reference: Schema.String,
  wanted: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message() {
    const shown = this.available.slice(0, 50).map((platform) => printable(platform, 100)).join(", ")
    const more = this.available.length > 50 ? ` and ${this.available.length - 50} more` : ""
    return `${printable(this.reference)} has no image for ${printable(this.wanted)}; ${
      this.available.length === 0 ? "it has no image for any platform" : `choose with --platform one of: ${shown}${more}`}`
  }
}

const make = (os: string, architecture: string, variant: string, rest: Pick<Platform, "osVersion" | "osFeatures"> = {}) =>
  new Platform({
    os, architecture,
    ...(variant === "" ? {} : { variant }),
    ...(rest.osVersion === undefined || rest.osVersion === "" ? {} : { osVersion: rest.osVersion }),
    ...(rest.osFeatures === undefined || rest.osFeatures.length === 0 ? {} : { osFeatures: rest.osFeatures })
  })

const normalizeCpu = (architecture: string, variant: string): readonly [architecture: string, variant: string] => {
  switch (architecture) {
    case "i386":
    case "i486":
    case "i586":
    case "i686":
    case "x86":
      return ["386", ""]
    case "x86_64":
    case "x86-64":
    case "amd64":
      return ["amd64", variant === "v1" || variant === "1" ? "" : variant.replace(/^(?=\d)/, "v")]
    case "aarch64":
    case "arm64":
      return ["arm64", variant === "" ? "v8" : variant.replace(/^(?=\d)/, "v").replace(/^(v\d+)\.0$/, "$1")]
    case "armhf":
      return ["arm", "v7"]
    case "armel":
      return ["arm", "v6"]
    case "arm":
      return ["arm", variant === "" ? "v7" : variant.replace(/^(?=\d)/, "v")]
    case "loongarch64":
      return ["loong64", variant]
    default:
      return [architecture, variant]
  }
}

/**
 * One spelling for each platform, as containerd has it: lower case, `x86_64` is amd64, `aarch64` arm64/v8, `armhf` arm/v7,
 * `armel` arm/v6; arm without variant is v7, arm64 without is v8, amd64/v1 is amd64.
 */
export const normalize = (platform: Platform): Platform => {
  const os = platform.os.toLowerCase()
  const [architecture, variant] = normalizeCpu(platform.architecture.toLowerCase(), (platform.variant ?? "").toLowerCase())
  return make(os === "macos" ? "darwin" : os, architecture, variant, platform)
}

/** `os/architecture[/variant]`, the system's version in parentheses if there is one: `linux/arm64/v8`, `windows(10.0.17763.1)/amd64`. */
export const print = ({ os, architecture, variant, osVersion }: Platform): string =>
  `${os}${osVersion === undefined ? "" : `(${osVersion})`}/${architecture}${variant === undefined ? "" : `/${variant}`}`

const systems = new Set(["aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "linux", "macos", "netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows"])
const architectures = new Set([
  "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"
])

/**
 * Reads `os`, `architecture`, `os/architecture` or `os/architecture/variant`, normalised. What a single word leaves open is
 * taken from `host`.
 */
export const parse = (input: string, host: Platform = make("linux", "amd64", "")): Result.Result<Platform, InvalidPlatform> => {
  const invalid = (reason: string) => Result.fail(new InvalidPlatform({ input, reason }))
  const [system = "", ...cpu] = input.length > 128 ? [] : input.split("/")
  const match = /^([A-Za-z0-9_.-]+)(?:\(([A-Za-z0-9_.-]+)\))?$/.exec(system)
  if (match === null || !cpu.every((part) => /^[A-Za-z0-9_.-]+$/.test(part))) {
    return invalid("its parts are letters, digits, `_`, `.` and `-`, with one `/` between them")
  }
  const [, os = "", osVersion = ""] = match, [architecture, variant = "", ...more] = cpu
  if (more.length > 0) return invalid("it has more than three parts")
  if (architecture !== undefined) return Result.succeed(normalize(make(os, architecture, variant, { osVersion })))
  if (systems.has(os.toLowerCase())) return Result.succeed(normalize(make(os, host.architecture, host.variant ?? "", { osVersion })))
  const known = architectures.has(normalizeCpu(os.toLowerCase(), "")[0])
  return known && osVersion === "" ? Result.succeed(normalize(make(host.os, os, ""))) : invalid("it is neither a known system nor a known architecture")
}

const nodeArchitectures: Partial<Record<string, string>> = {
  x64: "amd64", ia32: "386", ppc64: "ppc64le", mipsel: "mipsle"
}

/**
 * What this machine runs, from Node's `process.platform` and `process.arch` and, on arm, the version of the CPU (7 if not
 * given). On a Mac it is Linux: that is what its virtual machines run, and no registry has images for darwin.
 */
export const host = (platform: string, arch: string, armVersion = 7): Platform =>
  normalize(make(platform === "win32" ? "windows" : platform === "freebsd" ? "freebsd" : "linux",
    nodeArchitectures[arch] ?? arch, arch === "arm" ? `v${armVersion}` : ""))

/** A place in the order of a family of CPUs that each run what was made for the ones before: major and minor version. */
const level = (architecture: string, variant: string): readonly [number, number] | undefined => {
  const match = /^v(\d{1,3})(?:\.(\d{1,3}))?$/.exec(variant === "" && architecture === "amd64" ? "v1" : variant)
  if (match === null || (architecture !== "arm64" && match[2] !== undefined)) return undefined
  return architecture === "amd64" || architecture === "arm" || architecture === "arm64" ? [Number(match[1]), Number(match[2] ?? 0)] : undefined
}

/** How well a CPU variant serves: 0 is exact, more is older, undefined does not run. */
const variantDistance = (architecture: string, wanted: string, offered: string): number | undefined => {
  if (wanted === offered) return 0
  const from = level(architecture, wanted), to = level(architecture, offered)
  if (from === undefined || to === undefined) return offered === "" ? 1_000_000 : undefined
  if (architecture === "arm" && to[0] < 5) return undefined
  // Armv9.0 holds all of Armv8.5, and so on upwards; an 8.6 need not run on a 9.0.
  if (architecture === "arm64" && from[0] === 9 && to[0] === 8) return to[1] <= from[1] + 5 ? 1000 + from[1] + 5 - to[1] : undefined
  if (architecture === "arm64" && from[0] !== to[0]) return undefined
  const distance = (from[0] - to[0]) * 1000 + (from[1] - to[1])
  return distance < 0 || to[0] > from[0] ? undefined : distance
}

const build = (version: string) => version.split(".").slice(0, 3).join(".")

/** How well an image for `offered` serves on `wanted` (both as they came): 0 is exact, higher is worse, undefined does not run there. */
export const distance = (wanted: Platform, offered: Platform): number | undefined => {
  const to = normalize(wanted), from = normalize(offered)
  if (to.os !== from.os || to.architecture !== from.architecture || from.os === "" || from.architecture === "") return undefined
  if (from.os === "unknown" || from.architecture === "unknown") return undefined
  const variant = variantDistance(to.architecture, to.variant ?? "", from.variant ?? "")
  if (variant === undefined) return undefined
  if ((from.osFeatures ?? []).some((feature) => to.osFeatures?.includes(feature) !== true && from.os === "windows")) return undefined
  if (to.osVersion === undefined || from.osVersion === undefined || from.os !== "windows" || to.osVersion === from.osVersion) return variant * 2
  return build(to.osVersion) === build(from.osVersion) ? variant * 2 + 1 : undefined
}

/** What the choice reads of an index's entry. */
export interface Entry {
  readonly mediaType: string
  readonly platform?: Platform
  readonly annotations?: { readonly [key: string]: string }
  readonly artifactType?: string
}

/** An entry as the choice saw it; `lost` says why it was not taken (undefined: it is the chosen one). */
export interface Candidate<E extends Entry = Entry> {
  readonly descriptor: E
  readonly platform: Platform | undefined
  readonly lost: string | undefined
}

/** The outcome of a choice. */
export interface Choice<E extends Entry> {
  /** The first of `ranked`. It may be an index (`MediaType.isIndex`): then choose again among its entries. */
  readonly chosen: E | undefined
  /**
   * All that may serve, best first. Behind those that name a fitting platform come those that name none: an index to look
   * into, or a manifest whose config tells.
   */
  readonly ranked: ReadonlyArray<E>
  /** Every entry, in the document's order. */
  readonly candidates: ReadonlyArray<Candidate<E>>
}

/** Why an entry is no image for any platform; undefined if it may be one. */
const unfit = ({ mediaType, annotations, artifactType, platform }: Entry): string | undefined => {
  if (annotations !== undefined && Object.hasOwn(annotations, "vnd.docker.reference.type")) return "an attestation about another entry"
  if (!MediaType.isIndex(mediaType) && !MediaType.isManifest(mediaType)) return `neither a manifest nor an index: ${printable(mediaType, 100)}`
  if (artifactType !== undefined && !MediaType.isConfig(artifactType)) return `an artifact: ${printable(artifactType, 100)}`
  if (platform !== undefined && /^unknown$/i.test(platform.os) && /^unknown$/i.test(platform.architecture)) return "for no platform: unknown/unknown"
  return undefined
}

/**
 * Chooses among an index's entries the one that serves best on `wanted`: equal os and architecture, on arm, arm64 and amd64
 * also older variants, nearest first. On a tie the first entry wins. Attestations, artifacts and unknown/unknown never do.
 */
export const choose = <E extends Entry>(wanted: Platform, entries: ReadonlyArray<E>): Choice<E> => {
  const judged = entries.map((entry, index) => {
    const reason = unfit(entry)
    const far = reason !== undefined ? undefined : entry.platform === undefined ? Infinity : distance(wanted, entry.platform)
    return { entry, index, far, reason: reason ?? `for another platform: ${entry.platform === undefined ? "none" : print(normalize(entry.platform))}` }
  })
  const ranked = judged.flatMap(({ entry, index, far }) => far === undefined ? [] : [{ entry, index, far }])
    .sort((a, b) => a.far === b.far ? a.index - b.index : a.far - b.far)
  const [best] = ranked
  return {
    chosen: best?.entry,
    ranked: ranked.map(({ entry }) => entry),
    candidates: judged.map(({ entry, index, far, reason }) => ({
      descriptor: entry,
      platform: entry.platform,
      lost: index === best?.index ? undefined : far === undefined ? reason : "another entry fits better or comes first"
    }))
  }
}
