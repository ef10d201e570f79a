import { assert, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { constants, crc32, deflateRawSync, gzipSync, zstdCompressSync } from "node:zlib"
import { Refused } from "../../../src/layer/Fault.ts"
import { type Compression, inflater, type InflateOptions } from "../../../src/layer/inflate/Inflate.ts"

interface Outcome {
  readonly bytes: Buffer
  readonly compression: Compression | undefined
  /** The rule, if it was refused. */
  readonly refused: string | undefined
}

const run = async (chunks: ReadonlyArray<Uint8Array>, options: InflateOptions): Promise<Outcome> => {
  const out: Array<Buffer> = []
  const inflate = inflater((bytes) => { out.push(Buffer.from(bytes)) }, options)
  let refused: string | undefined
  try {
    for (const chunk of chunks) await inflate.write(chunk)
    await inflate.end()
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    refused = error.rule
  } finally {
    inflate.close()
  }
  return { bytes: refused === undefined ? Buffer.concat(out) : Buffer.alloc(0), compression: inflate.compression, refused }
}

const paths: ReadonlyArray<readonly [string, InflateOptions]> = [["native handle", { native: true }], ["public streams", { native: false }]]

const text = (size: number) => Buffer.from("layers of images, ".repeat(Math.ceil(size / 18)).slice(0, size))
const noise = (size: number) => {
  const bytes = Buffer.alloc(size)
  for (let n = 0, state = 1; n < size; n++) bytes[n] = (state = (state * 48271) % 2147483647) >> 8
  return bytes
}

const member = (data: Uint8Array) => gzipSync(data)
/** A member with every optional field of RFC 1952, section 2.3.1. */
const adorned = (data: Buffer): Buffer => {
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 0x1f, 1, 2, 3, 4, 0, 255, 4, 0]), Buffer.from("EXTR"), Buffer.from("name\0comment\0")
  ])
  const trailer = Buffer.alloc(10)
  trailer.writeUInt16LE(crc32(header) & 0xffff, 0)
  trailer.writeUInt32LE(crc32(data), 2)
  trailer.writeUInt32LE(data.byteLength, 6)
  return Buffer.concat([header, trailer.subarray(0, 2), deflateRawSync(data), trailer.subarray(2)])
}
const frame = (data: Uint8Array, params: Record<number, number> = {}) =>
  zstdCompressSync(data, { params: { [constants.ZSTD_c_checksumFlag]: 1, ...params } })
/** A frame that tells no content size, so it has a window descriptor. */
const unsized = (data: Uint8Array) => frame(data, { [constants.ZSTD_c_contentSizeFlag]: 0, [constants.ZSTD_c_checksumFlag]: 0 })
const skippable = (data: Uint8Array, nibble = 0) => {
  const header = Buffer.from([0x50 + nibble, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])
  header.writeUInt32LE(data.byteLength, 4)
  return Buffer.concat([header, data])
}
const flip = (bytes: Buffer, at: number, bit: number) => {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ (1 << bit)
  return copy
}
const zstdHeader = (...bytes: ReadonlyArray<number>) => Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...bytes])
/** An empty last raw block. */
const emptyBlock = [1, 0, 0]

const bzip2 = Buffer.from("QlpoOTFBWSZTWRmTm2sAAAABACAAIAAhGEaC7kinChIDMnNtYA==", "base64")
const xz = Buffer.from("/Td6WFoAAATm1rRGAAAAABzfRCEftvN9AQAAAAAEWVo=", "base64")
const a = text(70)
const b = noise(40)
const empty = Buffer.alloc(0)
const cat = (...parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts)

const good: ReadonlyArray<readonly [name: string, compression: Compression, input: Buffer, output: Buffer]> = [
  ["nothing", "none", empty, empty],
  ["a byte", "none", Buffer.from("x"), Buffer.from("x")],
  ["the first byte of gzip's magic", "none", Buffer.from([0x1f]), Buffer.from([0x1f])],
  ["three bytes of zstd's magic", "none", Buffer.from([0x28, 0xb5, 0x2f]), Buffer.from([0x28, 0xb5, 0x2f])],
  ["plain text", "none", a, a],
  ["text that begins like bzip2", "none", Buffer.from("BZh9 is a good name for a file"), Buffer.from("BZh9 is a good name for a file")],
  ["one member", "gzip", member(a), a],
  ["an empty member", "gzip", member(empty), empty],
  ["three members, the second empty", "gzip", cat(member(a), member(empty), member(b)), cat(a, b)],
  ["a member with all optional fields, after another", "gzip", cat(member(b), adorned(a)), cat(b, a)],
  ["one frame", "zstd", frame(a), a],
  ["an empty frame", "zstd", frame(empty), empty],
  ["frames of noise, nothing and text", "zstd", cat(frame(b), frame(empty), unsized(a)), cat(b, a)],
  ["frames with and without a size", "zstd", cat(unsized(a), frame(b), unsized(empty)), cat(a, b)],
  ["a run of one byte", "zstd", cat(frame(Buffer.alloc(3000)), frame(b)), cat(Buffer.alloc(3000), b)],
  ["a skippable frame first", "zstd", cat(skippable(b), frame(a)), a],
  ["a skippable frame in the middle", "zstd", cat(frame(a), skippable(b, 7), frame(b)), cat(a, b)],
  ["a skippable frame last", "zstd", cat(frame(a), skippable(b, 15)), a],
  ["empty skippable frames everywhere", "zstd", cat(skippable(empty), skippable(empty, 1), frame(a), skippable(empty, 2)), a],
  ["nothing but skippable frames", "zstd", cat(skippable(a), skippable(b)), empty],
  ["a frame of no bytes, by hand", "zstd", zstdHeader(0x20, 0, ...emptyBlock), empty],
  ["a window of 128 MiB", "zstd", zstdHeader(0, 17 << 3, ...emptyBlock), empty],
  ["bzip2", "bzip2", bzip2, Buffer.from("a")],
  ["an empty bzip2", "bzip2", Buffer.from("QlpoORdyRThQkAAAAAA=", "base64"), empty],
  ["an empty xz", "xz", xz, empty]
]

const bad: ReadonlyArray<readonly [name: string, input: Buffer, rule: RegExp]> = [
  ["a zero after a member", cat(member(a), Buffer.alloc(1)), /belong to no member/],
  ["a block of zeros after a member", cat(member(a), Buffer.alloc(512)), /belong to no member/],
  ["zeros between members", cat(member(a), Buffer.alloc(3), member(b)), /belong to no member/],
  ["junk after a member", cat(member(a), Buffer.from("junk")), /damaged/],
  ["half a magic after a member", cat(member(a), Buffer.from([0x1f])), /truncated/],
  ["a frame after a member", cat(member(a), frame(b)), /damaged/],
  ["a member of an unknown method", flip(member(a), 2, 0), /damaged/],
  ["a member with a wrong header checksum", flip(adorned(a), 4, 0), /damaged/],
  ["a zero after a frame", cat(frame(a), Buffer.alloc(1)), /truncated/],
  ["zeros after a frame", cat(frame(a), Buffer.alloc(9)), /belong to no frame/],
  ["junk after a frame", cat(frame(a), Buffer.from("junk")), /belong to no frame/],
  ["junk after a skippable frame", cat(skippable(a), Buffer.from("junk")), /belong to no frame/],
  ["a member after a frame", cat(frame(a), member(b)), /belong to no frame/],
  ["half a magic after a frame", cat(unsized(a), Buffer.from([0x28, 0xb5])), /truncated/],
  ["a cut skippable frame after a frame", cat(frame(a), skippable(b).subarray(0, -1)), /truncated/],
  ["a block of the reserved type", zstdHeader(0, 0, 7, 0, 0), /damaged/],
  ["the reserved bit of a frame", zstdHeader(0x28, 0, ...emptyBlock), /damaged/],
  ["a frame with a dictionary", zstdHeader(0x21, 9, 0, ...emptyBlock), /dictionary/],
  ["a window above 128 MiB", zstdHeader(0, (17 << 3) + 1, ...emptyBlock), /window of 150994944 bytes/],
  ["one segment above 128 MiB", zstdHeader(0xa0, 1, 0, 0, 8, ...emptyBlock), /window of 134217729 bytes/],
  ["a frame that tells a wrong size", zstdHeader(0x20, 1, ...emptyBlock), /damaged/],
  ["a member after bzip2", cat(bzip2, member(a)), /bzip2 stream has bytes that belong to no stream/],
  ["a frame after xz", cat(xz, frame(a)), /xz stream has bytes that belong to no stream/]
]

const cuts = (input: Buffer): Array<ReadonlyArray<Buffer>> => [
  [input],
  Array.from(input, (_, at) => input.subarray(at, at + 1)),
  ...Array.from({ length: Math.min(input.byteLength, 400) }, (_, at) => [input.subarray(0, at), input.subarray(at)])
]

for (const [path, options] of paths) {
  for (const [name, compression, input, output] of good) {
    it(`takes ${name} however it is cut (${path})`, async () => {
      for (const chunks of cuts(input)) {
        assert.deepStrictEqual(await run(chunks, options), { bytes: output, compression, refused: undefined })
      }
    })
  }

  for (const [name, input, rule] of bad) {
    it(`refuses ${name} however it is cut (${path})`, async () => {
      for (const chunks of cuts(input)) assert.match((await run(chunks, options)).refused ?? "taken", rule)
    })
  }

  it(`takes no truncated stream (${path})`, async () => {
    for (const [, , input] of good) {
      const kinds = new Set<string>()
      for (let length = 4; length < input.byteLength; length++) {
        const { refused, bytes, compression } = await run([input.subarray(0, length)], options)
        if (compression === "none") continue
        if (refused !== undefined) assert.match(refused, /truncated/)
        else kinds.add(bytes.toString("hex")) // whole members or frames, of which there are few
      }
      assert.isAtMost(kinds.size, 3)
    }
    for (const one of [member(a), member(b), adorned(a), frame(a), unsized(a), frame(b), skippable(a)]) {
      for (let length = 4; length < one.byteLength; length++) {
        for (const chunks of [[one.subarray(0, length)], [one.subarray(0, length - 1), one.subarray(length - 1, length)]]) {
          assert.match((await run(chunks, options)).refused ?? `${length} bytes taken`, /truncated/)
        }
      }
    }
  })

  it(`refuses every flipped bit of a checksum or length (${path})`, async () => {
    const streams: ReadonlyArray<readonly [Buffer, number]> = [[cat(member(b), member(a)), 8], [adorned(a), 8], [cat(frame(b), frame(a)), 4]]
    for (const [stream, trailer] of streams) {
      for (let at = stream.byteLength - trailer; at < stream.byteLength; at++) {
        for (let bit = 0; bit < 8; bit++) {
          const damaged = flip(stream, at, bit)
          for (const chunks of [[damaged], [damaged.subarray(0, at), damaged.subarray(at)]]) {
            assert.match((await run(chunks, options)).refused ?? `bit ${bit} at ${at} taken`, /damaged/)
          }
        }
      }
    }
  })

  it(`takes output that just fills its buffers (${path})`, async () => {
    for (const size of [2 ** 18, 2 ** 20, 2 ** 21]) {
      for (const more of [-1, 0, 1]) {
        const data = Buffer.alloc(size + more)
        for (const pack of [member, frame, unsized]) {
          assert.isTrue((await run([cat(pack(data), pack(a))], options)).bytes.equals(cat(data, a)))
          assert.isDefined((await run([cat(pack(data), Buffer.alloc(4))], options)).refused)
          assert.match((await run([pack(data).subarray(0, -1)], options)).refused ?? "taken", /truncated/)
        }
      }
    }
  })

  it(`does not withhold output (${path})`, async () => {
    for (const pack of [member, frame]) {
      let seen = 0
      const inflate = inflater((bytes) => { seen += bytes.byteLength }, options)
      const packed = pack(noise(600_000))
      await inflate.write(packed.subarray(0, 300_000))
      assert.isAtLeast(seen, 100_000)
      inflate.close()
    }
  })

  it(`lets the sink's exception out, and can be closed then and later (${path})`, async () => {
    for (const input of [a, member(noise(100_000)), frame(noise(100_000))]) {
      const stop = new Error("stop")
      const inflate = inflater(() => { throw stop }, options)
      const caught = await Promise.resolve().then(() => inflate.write(input)).then(() => inflate.end()).catch((error: unknown) => error)
      assert.strictEqual(caught, stop)
      inflate.close()
      inflate.close()
      const untouched = inflater(() => {}, options)
      untouched.close()
      const begun = inflater(() => {}, options)
      await begun.write(input.subarray(0, 20))
      begun.close()
    }
  })
}

it("rejects a write that is under way when it is closed", async () => {
  const inflate = inflater(() => {}, { native: false })
  const writing = inflate.write(member(a))
  inflate.close()
  const caught = await Promise.resolve(writing).catch((error: unknown) => error)
  assert.instanceOf(caught, Error)
})

it("keeps to a smaller window if told to", async () => {
  const input = zstdHeader(0, 10 << 3, ...emptyBlock)
  assert.isUndefined((await run([input], { maxWindow: 2 ** 20 })).refused)
  assert.match((await run([input], { maxWindow: 2 ** 20 - 1 })).refused ?? "taken", /window of 1048576 bytes/)
})

it("comes to one verdict on both paths for every flipped bit", async () => {
  for (const input of [cat(member(a), adorned(b)), cat(frame(a), skippable(b), unsized(a))]) {
    for (let at = 0; at < input.byteLength; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const damaged = flip(input, at, bit)
        const whole = await run([damaged], { native: true })
        const cut = await run([damaged.subarray(0, at + 1), damaged.subarray(at + 1)], { native: true })
        const stream = await run([damaged], { native: false })
        assert.deepStrictEqual(cut, whole)
        assert.deepStrictEqual(stream, whole)
      }
    }
  }
})

const Parts = Schema.Array(Schema.Struct({ data: Schema.Uint8Array, times: Schema.Literals([1, 2, 50]), kind: Schema.Literals(["plain", "sized", "skippable"]) }))
const Sizes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 80 })))

const chopped = (input: Buffer, sizes: ReadonlyArray<number>): Array<Buffer> => {
  const chunks: Array<Buffer> = []
  let at = 0
  for (const size of sizes) chunks.push(input.subarray(at, at += size))
  return [...chunks, input.subarray(at)]
}

it.effect.prop("takes any members and frames in any chunks", [Parts, Sizes], ([parts, sizes]) =>
  Effect.promise(async () => {
    const datas = parts.map(({ data, times }) => cat(...Array.from({ length: times }, () => data)))
    const gzip = cat(...datas.map(member))
    const zstd = cat(...datas.map((data, n) => parts[n]?.kind === "skippable" ? skippable(data) : parts[n]?.kind === "sized" ? frame(data) : unsized(data)))
    const kept = datas.filter((_, n) => parts[n]?.kind !== "skippable")
    for (const [, options] of paths) {
      assert.deepStrictEqual((await run(chopped(gzip, sizes), options)).bytes, cat(...datas))
      assert.deepStrictEqual((await run(chopped(zstd, sizes), options)).bytes, cat(...kept))
    }
  }), { arbitrary: { runs: 60 } })

it("finds the native handle in this Node, and so works in the calling thread", () => {
  for (const input of [member(a), frame(a)]) {
    const inflate = inflater(() => {}, { native: true })
    assert.isUndefined(inflate.write(input))
    inflate.close()
  }
})
