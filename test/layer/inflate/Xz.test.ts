import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { crc32 } from "node:zlib"
import { cuts, flip, inflated, noise, piped, runs, text } from "./tools.ts"

const xz = (data: Uint8Array, ...args: ReadonlyArray<string>) => piped("xz", ["-c", ...args], data)
const a = text(900)
const b = noise(300)
const empty = Buffer.alloc(0)
const cat = (...parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts)
const checks = ["none", "crc32", "crc64", "sha256"] as const
const mixed = cat(text(90_000), noise(70_000), Buffer.alloc(200_000), text(3000), noise(3000))

const good: ReadonlyArray<readonly [name: string, input: Buffer, output: Buffer]> = [
  ...checks.map((check) => [`text with the check ${check}`, xz(a, `--check=${check}`), a] as const),
  ["nothing", xz(empty), empty],
  ["a byte", xz(Buffer.from("x")), Buffer.from("x")],
  ["noise, which is stored", xz(b), b],
  ["runs", xz(runs, "-0"), runs],
  ["other properties", xz(a, "--lzma2=preset=6,lc=0,lp=3,pb=0"), a],
  ["the most literal bits", xz(a, "--lzma2=preset=6,lc=4,lp=0,pb=4"), a],
  ["blocks with sizes", xz(a, "--block-size=100", "-T2"), a],
  ["streams of all checks, one of them empty", cat(xz(a, "--check=none"), xz(empty), xz(b, "--check=sha256"), xz(a, "--check=crc32")), cat(a, b, a)],
  ["padding at the end", cat(xz(a), Buffer.alloc(8)), a],
  ["padding between streams", cat(xz(a), Buffer.alloc(4), xz(b), Buffer.alloc(512)), cat(a, b)],
  ["text, noise and zeros", xz(mixed, "-3"), mixed],
  ["the smallest dictionary", xz(mixed, "--lzma2=dict=4096"), mixed],
  ["a dictionary smaller than the data", xz(mixed, "--lzma2=dict=98304"), mixed],
  ["the best that xz does", xz(mixed, "-9e"), mixed]
]

/** A stream header with this kind of check. */
const header = (kind: number) => {
  const flags = Buffer.from([0, kind])
  const crc = Buffer.alloc(4)
  crc.writeUInt32LE(crc32(flags))
  return cat(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), flags, crc)
}

const bad: ReadonlyArray<readonly [name: string, input: Buffer, rule: RegExp]> = [
  ["junk after a stream", cat(xz(a), Buffer.from("junk")), /belong to no stream/],
  ["junk after padding", cat(xz(a), Buffer.alloc(4), Buffer.from("junk")), /belong to no stream/],
  ...[1, 2, 3, 5].map((size) => [`padding of ${size} zeros`, cat(xz(a), Buffer.alloc(size)), /truncated/] as const),
  ["padding of 6 zeros between streams", cat(xz(a), Buffer.alloc(6), xz(b)), /belong to no stream/],
  ["a bzip2 stream after it", cat(xz(a), piped("bzip2", ["-c"], b)), /belong to no stream/],
  ["a reserved check", cat(header(2), Buffer.alloc(50)), /check of kind 2/],
  ["a filter for programs", xz(a, "--x86", "--lzma2"), /another filter/],
  ["a delta filter", xz(a, "--delta=dist=4", "--lzma2"), /another filter/],
  ["a dictionary above 128 MiB", xz(a, "--lzma2=dict=192MiB"), /dictionary of 201326592 bytes, the limit is 134217728/]
]

describe("xz", () => {
  for (const [name, input, output] of good) {
    it(`takes ${name} however it is cut`, () => {
      for (const chunks of cuts(input)) assert.isTrue(output.equals(Buffer.from(inflated(chunks))))
    })
  }
  for (const [name, input, rule] of bad) {
    it(`refuses ${name} however it is cut`, () => {
      for (const chunks of cuts(input)) assert.match(String(inflated(chunks)), rule)
    })
  }

  it("takes no truncated stream", () => {
    for (const input of [xz(a), xz(b, "--check=none"), xz(empty), xz(a, "--block-size=300", "-T2")]) {
      for (let length = 6; length < input.byteLength; length++) assert.match(String(inflated([input.subarray(0, length)])), /truncated/)
    }
  })

  it("refuses every flipped bit", () => {
    for (const check of checks.slice(1)) {
      const input = xz(cat(a.subarray(0, 200), b.subarray(0, 50)), `--check=${check}`)
      for (let at = 6; at < input.byteLength; at++) {
        for (let bit = 0; bit < 8; bit++) {
          const outcome = inflated([flip(input, at, bit)])
          assert.isString(outcome, `bit ${bit} of byte ${at}`)
          if (bit === 0) assert.strictEqual(inflated([flip(input, at, bit).subarray(0, at), flip(input, at, bit).subarray(at)]), outcome)
        }
      }
    }
  })

  it("has memory only for what the dictionary holds", () => {
    const input = xz(a, "--lzma2=dict=128MiB")
    const before = process.memoryUsage.rss()
    const seen = inflated([input])
    assert.isTrue(a.equals(Buffer.from(seen)))
    assert.isBelow(process.memoryUsage.rss() - before, 32 * 2 ** 20)
  })

  it.effect.prop("takes any bytes in any chunks", [Schema.Array(Schema.Struct({ data: Schema.Uint8Array, times: Schema.Literals([1, 3, 400]) })), Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 80 })))],
    ([parts, sizes]) => Effect.sync(() => {
      const data = cat(...parts.flatMap(({ data, times }) => Array.from({ length: times }, () => data)))
      const input = xz(data)
      let at = 0
      const chunks = [...sizes.map((size) => input.subarray(at, at += size)), input.subarray(at)]
      assert.isTrue(data.equals(Buffer.from(inflated(chunks))))
    }), { arbitrary: { runs: 40 } })
})
