import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as MediaType from "../../src/image/MediaType.ts"
import * as Platform from "../../src/image/Platform.ts"

const platform = (text: string) => Result.getOrThrow(Platform.parse(text))
const entry = (text: string, more: Partial<Platform.Entry> = {}): Platform.Entry => {
  const [os = "", architecture = "", variant] = text.split("/")
  return { mediaType: MediaType.ociManifest, platform: new Platform.Platform({ os, architecture, ...(variant === undefined ? {} : { variant }) }), ...more }
}
const shown = ({ platform }: Platform.Entry) => platform === undefined ? "none" : Platform.print(platform)
const chosen = (wanted: string, entries: ReadonlyArray<Platform.Entry>) => {
  const found = Platform.choose(platform(wanted), entries).chosen
  return found === undefined ? undefined : shown(found)
}
const among = (wanted: string, ...offered: ReadonlyArray<string>) => chosen(wanted, offered.map((text) => entry(text)))

describe("Platform.parse", () => {
  it("knows every spelling", () => {
    for (const [text, printed] of [
      ["linux/amd64", "linux/amd64"], ["Linux/X86_64", "linux/amd64"], ["linux/x86-64", "linux/amd64"], ["linux/amd64/v1", "linux/amd64"],
      ["linux/amd64/v3", "linux/amd64/v3"], ["linux/arm64", "linux/arm64/v8"], ["linux/aarch64", "linux/arm64/v8"], ["linux/arm64/8", "linux/arm64/v8"],
      ["linux/arm", "linux/arm/v7"], ["linux/arm/6", "linux/arm/v6"], ["linux/armhf", "linux/arm/v7"], ["linux/armel", "linux/arm/v6"],
      ["linux/i386", "linux/386"], ["macos/arm64", "darwin/arm64/v8"], ["linux", "linux/amd64"], ["arm64", "linux/arm64/v8"], ["x86_64", "linux/amd64"],
      ["windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"], ["linux/riscv64", "linux/riscv64"]
    ] as const) assert.strictEqual(Platform.print(platform(text)), printed)
    assert.strictEqual(Platform.print(Result.getOrThrow(Platform.parse("linux", Platform.host("linux", "arm", 6)))), "linux/arm/v6")
  })

  it("refuses what is none", () => {
    for (const text of ["", "/", "linux/", "/amd64", "linux/arm/v7/x", "li nux/amd64", "linux/amd64\n", "foo", "linux/é", "a/".repeat(100_000), "a".repeat(5000), "linux(/amd64"]) {
      assert.strictEqual(Result.getOrThrow(Result.flip(Platform.parse(text)))._tag, "InvalidPlatform", text.slice(0, 20))
    }
  })

  it("knows the host", () => {
    assert.strictEqual(Platform.print(Platform.host("linux", "x64")), "linux/amd64")
    assert.strictEqual(Platform.print(Platform.host("linux", "arm")), "linux/arm/v7")
    assert.strictEqual(Platform.print(Platform.host("darwin", "arm64")), "linux/arm64/v8")
    assert.strictEqual(Platform.print(Platform.host("win32", "x64")), "windows/amd64")
  })
})

const Offered = Schema.Struct({
  os: Schema.Literals(["linux", "Linux", "windows", "unknown", ""]),
  architecture: Schema.Literals(["amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "386", "riscv64", "unknown", ""]),
  variant: Schema.Literals(["", "v1", "v2", "v3", "v5", "v6", "v7", "7", "v8", "8", "v8.2", "v9", "odd"])
})
const Item = Schema.Struct({
  platform: Schema.UndefinedOr(Offered),
  kind: Schema.Literals(["image", "image", "image", "index", "attestation", "artifact", "other"])
})
const toEntry = ({ platform, kind }: typeof Item.Type): Platform.Entry => ({
  mediaType: kind === "index" ? MediaType.ociIndex : kind === "other" ? "application/json" : MediaType.ociManifest,
  ...(platform === undefined ? {} : { platform: new Platform.Platform({ os: platform.os, architecture: platform.architecture, ...(platform.variant === "" ? {} : { variant: platform.variant }) }) }),
  ...(kind === "attestation" ? { annotations: { "vnd.docker.reference.type": "attestation-manifest" } } : {}),
  ...(kind === "artifact" ? { artifactType: "application/vnd.example" } : {})
})
const Wanted = Schema.Literals(["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/arm64", "linux/arm64/v8.2", "linux/arm64/v9",
  "linux/arm/v5", "linux/arm/v6", "linux/arm", "linux/arm/v8", "linux/386", "linux/riscv64", "windows/amd64"])

/** What may run where, written down a second time as a list. */
const runs: Record<string, ReadonlyArray<string>> = {
  "linux/amd64": ["linux/amd64"],
  "linux/amd64/v2": ["linux/amd64/v2", "linux/amd64"],
  "linux/amd64/v3": ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
  "linux/arm64": ["linux/arm64/v8"],
  "linux/arm64/v8.2": ["linux/arm64/v8.2", "linux/arm64/v8"],
  "linux/arm64/v9": ["linux/arm64/v9", "linux/arm64/v8.2", "linux/arm64/v8"],
  "linux/arm/v5": ["linux/arm/v5"],
  "linux/arm/v6": ["linux/arm/v6", "linux/arm/v5"],
  "linux/arm": ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
  "linux/arm/v8": ["linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
  "linux/386": ["linux/386"],
  "linux/riscv64": ["linux/riscv64"],
  "windows/amd64": ["windows/amd64"]
}

describe("Platform.choose", () => {
  it.prop("takes the first of the best that run, never what is no image", [Wanted, Schema.Array(Item).check(Schema.isMaxLength(12))], ([wanted, items]) => {
    const entries = items.map(toEntry)
    const { candidates, chosen, ranked } = Platform.choose(platform(wanted), entries)
    const able = runs[wanted] ?? []
    const images = items.map(({ platform, kind }, index) => {
      const normal = entries[index]?.platform
      const place = platform === undefined || normal === undefined ? able.length : able.indexOf(Platform.print(Platform.normalize(normal)))
      return kind === "image" || kind === "index" ? place : -1
    })
    const best = Math.min(...images.filter((place) => place >= 0))
    assert.strictEqual(chosen, entries[images.indexOf(best)])
    const places = ranked.map((entry) => images[entries.indexOf(entry)])
    assert.deepStrictEqual(places, images.filter((place) => place >= 0).sort((a, b) => a - b))
    assert.strictEqual(candidates.length, entries.length)
    assert.strictEqual(candidates.filter(({ lost }) => lost === undefined).length, chosen === undefined ? 0 : 1)
    const again = Platform.choose(platform(wanted), entries.toReversed()).chosen
    assert.strictEqual(again?.platform && Platform.print(Platform.normalize(again.platform)), chosen?.platform && Platform.print(Platform.normalize(chosen.platform)))
  }, { arbitrary: { runs: 2000 } })

  it("follows the rules for arm and amd64", () => {
    assert.strictEqual(among("linux/arm/v7", "linux/arm/v5", "linux/arm/v6", "linux/arm64"), "linux/arm/v6")
    assert.strictEqual(among("linux/arm/v6", "linux/arm", "linux/arm/v7"), undefined)
    assert.strictEqual(among("linux/arm64", "linux/arm/v7", "linux/arm64"), "linux/arm64")
    assert.strictEqual(among("linux/arm64", "linux/arm64/v8", "linux/arm64"), "linux/arm64/v8")
    assert.strictEqual(among("linux/arm64", "linux/arm64/v9"), undefined)
    assert.strictEqual(among("linux/amd64", "linux/amd64/v2", "linux/amd64"), "linux/amd64")
    assert.strictEqual(among("linux/amd64/v3", "linux/amd64", "linux/amd64/v4", "linux/amd64/v2"), "linux/amd64/v2")
    assert.strictEqual(among("linux/amd64", "windows/amd64", "freebsd/amd64"), undefined)
    assert.strictEqual(among("linux/amd64", "linux/x86_64"), "linux/x86_64")
  })

  it("never takes what is no image, and says why", () => {
    const wanted = platform("linux/amd64")
    const { candidates, chosen } = Platform.choose(wanted, [
      entry("unknown/unknown", { annotations: { "vnd.docker.reference.type": "attestation-manifest" } }),
      entry("linux/amd64", { annotations: { "vnd.docker.reference.type": "attestation-manifest" } }),
      entry("unknown/unknown"), entry("linux/amd64", { artifactType: "application/vnd.example" }), entry("linux/amd64", { mediaType: "text/plain" }),
      entry("linux/arm64")
    ])
    assert.strictEqual(chosen, undefined)
    assert.deepStrictEqual(candidates.map(({ lost }) => lost), [
      "an attestation about another entry", "an attestation about another entry", "for no platform: unknown/unknown",
      "an artifact: application/vnd.example", "neither a manifest nor an index: text/plain", "for another platform: linux/arm64/v8"
    ])
  })

  it("ranks indexes and manifests without platform behind those that fit", () => {
    const index: Platform.Entry = { mediaType: MediaType.ociIndex }, bare: Platform.Entry = { mediaType: MediaType.dockerManifest }
    const exact = entry("linux/amd64"), nested = entry("linux/amd64", { mediaType: MediaType.ociIndex })
    assert.deepStrictEqual(Platform.choose(platform("linux/amd64"), [index, bare, nested, exact, entry("linux/arm64")]).ranked, [nested, exact, index, bare])
  })

  it("keeps Windows versions apart", () => {
    const windows = (osVersion: string, osFeatures?: ReadonlyArray<string>): Platform.Entry => ({
      mediaType: MediaType.dockerManifest,
      platform: new Platform.Platform({ os: "windows", architecture: "amd64", osVersion, ...(osFeatures === undefined ? {} : { osFeatures }) })
    })
    const entries = [windows("10.0.17763.1", ["win32k"]), windows("10.0.20348.5"), windows("10.0.17763.2")]
    assert.strictEqual(chosen("windows(10.0.17763.9)/amd64", entries), "windows(10.0.17763.2)/amd64")
    assert.strictEqual(chosen("windows/amd64", entries), "windows(10.0.20348.5)/amd64")
    assert.strictEqual(chosen("windows(10.0.1)/amd64", entries), undefined)
  })

  it("lists what there is", () => {
    const error = new Platform.NoPlatform({ reference: "docker.io/library/x:1", wanted: "linux/s390x", available: ["linux/amd64", "linux/arm64/v8"] })
    assert.strictEqual(error.message, "docker.io/library/x:1 has no image for linux/s390x; choose with --platform one of: linux/amd64, linux/arm64/v8")
    assert.include(new Platform.NoPlatform({ reference: "x", wanted: "y", available: [] }).message, "no image for any platform")
  })
})

describe("MediaType", () => {
  it("tells how layers are compressed", () => {
    const oci = "application/vnd.oci.image.layer", docker = "application/vnd.docker.image.rootfs"
    for (const [type, compression, foreign] of [
      [`${oci}.v1.tar`, "none", false], [`${oci}.v1.tar+gzip`, "gzip", false], [`${oci}.v1.tar+zstd`, "zstd", false],
      [`${oci}.nondistributable.v1.tar+gzip`, "gzip", true], [`${docker}.diff.tar.gzip`, "gzip", false], [`${docker}.diff.tar`, "none", false],
      [`${docker}.diff.tar.zstd`, "zstd", false], [`${docker}.foreign.diff.tar.gzip`, "gzip", true],
      [`${oci}.v1.tar+gzip+encrypted`, undefined, false], ["application/vnd.in-toto+json", undefined, false], ["", undefined, false]
    ] as const) {
      assert.strictEqual(MediaType.layerCompression(type), compression)
      assert.strictEqual(MediaType.isForeign(type), foreign)
    }
  })

  it("gives OCI's names", () => {
    assert.strictEqual(MediaType.asOci("application/vnd.docker.image.rootfs.diff.tar.gzip"), "application/vnd.oci.image.layer.v1.tar+gzip")
    assert.strictEqual(MediaType.asOci("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    assert.strictEqual(MediaType.asOci("application/vnd.docker.image.rootfs.diff.tar"), "application/vnd.oci.image.layer.v1.tar")
    assert.strictEqual(MediaType.asOci(MediaType.dockerConfig), MediaType.ociConfig)
    assert.strictEqual(MediaType.asOci("application/vnd.oci.image.layer.v1.tar+zstd"), "application/vnd.oci.image.layer.v1.tar+zstd")
    assert.strictEqual(MediaType.asOci("text/plain"), "text/plain")
  })
})
