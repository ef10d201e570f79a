import { spawnSync } from "node:child_process"
import { Refused } from "../../../src/layer/Fault.ts"
import { inflater, type InflateOptions } from "../../../src/layer/inflate/Inflate.ts"

/** What Debian's tool makes of `input`. */
export const piped = (tool: "xz" | "bzip2", args: ReadonlyArray<string>, input: Uint8Array): Buffer => {
  const { error, status, stderr, stdout } = spawnSync(tool, args, { input, maxBuffer: 2 ** 30 })
  if (error !== undefined || status !== 0) throw new Error(`${tool} ${args.join(" ")} failed: ${error?.message ?? String(stderr)}`)
  return stdout
}

/** The inflated bytes of a stream that comes in these chunks, or the rule it breaks. */
export const inflated = (chunks: ReadonlyArray<Uint8Array>, options: InflateOptions = {}): Buffer | string => {
  const out: Array<Buffer> = []
  const inflate = inflater((bytes) => { out.push(Buffer.from(bytes)) }, options)
  try {
    for (const chunk of chunks) void inflate.write(chunk) // these formats are decoded at once
    void inflate.end()
    return Buffer.concat(out)
  } catch (error) {
    if (error instanceof Refused) return error.rule
    throw error
  } finally {
    inflate.close()
  }
}

/** `input` whole, byte by byte if it is short, and in two parts at many places. */
export const cuts = (input: Buffer): ReadonlyArray<ReadonlyArray<Buffer>> => {
  const step = Math.max(1, Math.floor(input.byteLength / (input.byteLength < 20_000 ? 500 : 12)))
  const places = Array.from({ length: Math.floor(input.byteLength / step) }, (_, n) => n * step)
  return [
    [input], ...input.byteLength < 20_000 ? [Array.from(input, (_, at) => input.subarray(at, at + 1))] : [],
    ...places.map((at) => [input.subarray(0, at), input.subarray(at)])
  ]
}

/** `input` with one bit changed. */
export const flip = (input: Buffer, at: number, bit: number): Buffer => {
  const copy = Buffer.from(input)
  copy[at] = (copy[at] ?? 0) ^ (1 << bit)
  return copy
}

const words = "layers of images are tar archives, which are compressed: gzip, zstd, bzip2 or xz. ".split(" ")

/** Text that compresses, the same each time. */
export const text = (size: number): Buffer => {
  let made = ""
  for (let state = 7; made.length < size;) made += `${words[(state = (state * 48271) % 2147483647) % words.length]} `
  return Buffer.from(made.slice(0, size))
}

/** Bytes that do not compress, the same each time. */
export const noise = (size: number): Buffer => {
  const bytes = Buffer.alloc(size)
  for (let n = 0, state = 1; n < size; n++) bytes[n] = (state = (state * 48271) % 2147483647) >> 8
  return bytes
}

/** Runs of each length that bzip2 writes differently, of bytes that are and are not the same as those before. */
export const runs = Buffer.concat([1, 2, 3, 4, 5, 6, 250, 254, 255, 256, 258, 259, 260, 261, 600].flatMap((length) =>
  [Buffer.alloc(length, length), Buffer.alloc(length, "a"), Buffer.from("b")]))
