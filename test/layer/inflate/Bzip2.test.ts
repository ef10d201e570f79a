import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { cuts, flip, inflated, noise, piped, runs, text } from "./tools.ts"

/** By the smallest blocks, unless told otherwise. */
const bzip2 = (data: Uint8Array, level = "-1") => piped("bzip2", ["-c", level], data)
const a = text(900)
const b = noise(300)
const empty = Buffer.alloc(0)
const cat = (...parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts)
const mixed = cat(text(90_000), noise(170_000), Buffer.alloc(200_000), runs, text(3000))

const good: ReadonlyArray<readonly [name: string, input: Buffer, output: Buffer]> = [
  ["text", bzip2(a), a],
  ["nothing", bzip2(empty), empty],
  ["a byte", bzip2(Buffer.from("x")), Buffer.from("x")],
  ["noise", bzip2(b), b],
  ["every byte", bzip2(Buffer.from(Array.from({ length: 256 }, (_, n) => n))), Buffer.from(Array.from({ length: 256 }, (_, n) => n))],
  ["runs", bzip2(runs), runs],
  ["streams, one of them empty", cat(bzip2(a, "-3"), bzip2(empty), bzip2(b, "-9"), bzip2(runs, "-5")), cat(a, b, runs)],
  ["several blocks", bzip2(mixed), mixed],
  ["one large block", bzip2(mixed, "-9"), mixed]
]

/** A stream of one block whose first bit after the checksum says that it is randomised. */
const randomised = (() => {
  const input = bzip2(a)
  return flip(input, 14, 7)
})()

const bad: ReadonlyArray<readonly [name: string, input: Buffer, rule: RegExp]> = [
  ["junk after a stream", cat(bzip2(a), Buffer.from("junk")), /belong to no stream/],
  ["a zero after a stream", cat(bzip2(a), Buffer.alloc(1)), /belong to no stream/],
  ["half a header after a stream", cat(bzip2(a), Buffer.from("BZ")), /truncated/],
  ["a level of 0 after a stream", cat(bzip2(a), Buffer.from("BZh0")), /belong to no stream/],
  ["an xz stream after it", cat(bzip2(a), piped("xz", ["-c"], b)), /belong to no stream/],
  ["a randomised block", randomised, /randomised/]
]

describe("bzip2", () => {
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
    for (const input of [bzip2(a), bzip2(b), bzip2(empty)]) {
      for (let length = 10; length < input.byteLength; length++) assert.match(String(inflated([input.subarray(0, length)])), /truncated/)
    }
  })

  it("refuses every flipped bit but those that fill the last byte", () => {
    const input = bzip2(cat(a.subarray(0, 200), b.subarray(0, 50)))
    const last = input.byteLength - 1
    for (let at = 10; at < input.byteLength; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const damaged = flip(input, at, bit)
        const outcome = inflated([damaged])
        if (at < last) assert.isString(outcome, `bit ${bit} of byte ${at}`)
        if (bit === 0) assert.deepStrictEqual(inflated([damaged.subarray(0, at), damaged.subarray(at)]), outcome)
      }
    }
  })

  it("refuses a header whose block is not there", () => {
    for (const tail of ["", "\x31", "\x31\x41\x59\x26\x53\x59"]) {
      const input = cat(Buffer.from("BZh9"), Buffer.from("\x17\x72\x45\x38\x50\x90\0\0\0\0", "latin1"), Buffer.from(`BZh9${tail}`, "latin1"))
      assert.match(String(inflated([input])), /truncated/)
    }
  })

  it.effect.prop("takes any bytes in any chunks", [Schema.Array(Schema.Struct({ data: Schema.Uint8Array, times: Schema.Literals([1, 3, 400]) })), Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 80 })))],
    ([parts, sizes]) => Effect.sync(() => {
      const data = cat(...parts.flatMap(({ data, times }) => Array.from({ length: times }, () => data)))
      const input = bzip2(data)
      let at = 0
      const chunks = [...sizes.map((size) => input.subarray(at, at += size)), input.subarray(at)]
      assert.isTrue(data.equals(Buffer.from(inflated(chunks))))
    }), { arbitrary: { runs: 40 } })
})
