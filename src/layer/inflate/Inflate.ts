import { Buffer } from "node:buffer"
import { type Decoder, type Format, NativeDecoder, type Sink, StreamDecoder } from "./Decoder.ts"
import { Refused } from "../Fault.ts"
import { Bzip2Decoder } from "./Bzip2.ts"
import { XzDecoder } from "./Xz.ts"
import { ZstdFrames } from "./ZstdFrames.ts"

/** How a layer is compressed, as its first bytes tell. */
export type Compression = "none" | "gzip" | "zstd" | "bzip2" | "xz"

/**
 * Takes a compressed stream and gives the inflated one to its sink. Where `write` or `end` returns a promise, await it
 * before the next call. They throw, or reject with, `Refused` and what the sink throws; nothing more may be written then.
 */
export interface Inflater {
  /** Known once enough bytes have come to tell, at the latest after `end`. */
  readonly compression: Compression | undefined
  /** Takes the next bytes, of any number; what can be inflated of them has reached the sink when it is done (of bzip2 not the last 5 MB). */
  write(chunk: Uint8Array): void | Promise<void>
  /** Says that there are no more; throws `Refused` if a member or frame is truncated. */
  end(): void | Promise<void>
  /** Frees what it holds; safe at any time and more than once. */
  close(): void
}

/** How to inflate. */
export interface InflateOptions {
  /** Inflate in the calling thread by Node's undocumented synchronous handle, if it passes a test (default); else by public streams. */
  readonly native?: boolean
  /** The largest zstd window or xz dictionary in bytes: default, and at most, 128 MiB. */
  readonly maxWindow?: number
  /** Told how large a window or dictionary is needed from now on, before there is one; it may wait until there is memory for it. */
  readonly reserve?: (bytes: number) => void
}

/** The largest zstd window or xz dictionary a decoder of ours takes: 128 MiB, what `zstd -d` takes without being told otherwise, and twice what `xz -9` makes. */
export const maxWindow = 2 ** 27

/**
 * An inflater of plain, gzip, zstd, bzip2 and xz streams, told apart by their first bytes, however those come. Every byte
 * belongs to a gzip member, a zstd frame or skippable frame, a bzip2 stream, or an xz stream or its padding, else the stream
 * is refused, as are streams that end in the middle of one, other padding, and a mix of formats. A stream too short to tell is plain. `sink` gets plain bytes as
 * they are and others in a buffer that is used again.
 */
export const inflater = (sink: Sink, options: InflateOptions = {}): Inflater => new Detecting(sink, options)

const magics: ReadonlyArray<readonly [format: Exclude<Compression, "none">, bytes: ReadonlyArray<number>, mask?: number]> = [
  ["gzip", [0x1f, 0x8b]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["zstd", [0x50, 0x2a, 0x4d, 0x18], 0xf0], // skippable frame: 50 to 5f
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  // With the magic of its first block, or of its end: a tar's first name may well begin with BZh.
  ["bzip2", [0x42, 0x5a, 0x68, 0x30, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59], 0xf0],
  ["bzip2", [0x42, 0x5a, 0x68, 0x30, 0x17, 0x72, 0x45, 0x38, 0x50, 0x90], 0xf0]
]

/** What `head` begins; undefined if more bytes are needed to tell. `mask` is for the one byte of a magic that varies. */
const detect = (head: Uint8Array): Compression | undefined => {
  let open = false
  for (const [format, bytes, mask = 0xff] of magics) {
    const varying = format === "bzip2" ? 3 : 0
    const length = Math.min(bytes.length, head.byteLength)
    let n = 0
    while (n < length && ((head[n] ?? 0) & (n === varying ? mask : 0xff)) === bytes[n]) n++
    if (n === bytes.length) return format
    if (n === head.byteLength) open = true
  }
  return open ? undefined : "none"
}

/** Whether a file that begins with `head` (its first 16 bytes or more, or all of it) is compressed in any way that is known. */
export const isCompressed = (head: Uint8Array): boolean => (detect(head) ?? "none") !== "none"

class Detecting implements Inflater {
  compression: Compression | undefined = undefined
  private readonly sink: Sink
  private readonly options: InflateOptions
  private head: Uint8Array = Buffer.alloc(0)
  private decoder: Decoder | undefined = undefined
  private frames: ZstdFrames | undefined = undefined

  constructor(sink: Sink, options: InflateOptions) {
    this.sink = sink
    this.options = options
  }

  write(chunk: Uint8Array): void | Promise<void> {
    if (this.compression !== undefined) return this.decode(chunk)
    const head = Buffer.concat([this.head, chunk.subarray(0, 16)])
    const found = detect(head)
    if (found === undefined) {
      this.head = head // shorter than any magic, so this is all of it
      return
    }
    this.begin(found)
    const held = this.head.byteLength === 0 ? undefined : this.decode(this.head)
    return held === undefined ? this.decode(chunk) : held.then(() => this.decode(chunk))
  }

  end(): void | Promise<void> {
    if (this.compression === undefined) {
      this.compression = "none"
      if (this.head.byteLength > 0) this.sink(this.head)
    }
    return this.frames === undefined ? this.decoder?.end() : this.frames.end()
  }

  close(): void { this.decoder?.close() }

  private begin(found: Compression): void {
    this.compression = found
    const native = this.options.native ?? true
    const reserve = this.options.reserve ?? (() => {})
    const window = Math.min(this.options.maxWindow ?? maxWindow, maxWindow)
    switch (found) {
      case "none": return
      case "gzip": return void (this.decoder = decoderOf(found, this.sink, native))
      case "bzip2": return void (this.decoder = new Bzip2Decoder(this.sink))
      case "xz": return void (this.decoder = new XzDecoder(this.sink, window, reserve))
      case "zstd": {
        const frames = this.frames = new ZstdFrames(window, reserve)
        this.decoder = decoderOf(found, (bytes) => {
          frames.count(bytes.byteLength)
          this.sink(bytes)
        }, native)
      }
    }
  }

  private decode(chunk: Uint8Array): void | Promise<void> {
    const { decoder, frames } = this
    if (chunk.byteLength === 0) return
    if (decoder === undefined) return this.sink(chunk)
    if (frames === undefined) return decoder.write(chunk)
    frames.offer(chunk)
    for (let run = frames.next(); run !== undefined; run = frames.next()) {
      const written = decoder.write(run)
      if (written !== undefined) return written.then(() => rest(frames, decoder))
    }
  }
}

/** The runs of a chunk after the first, by a decoder that makes one wait. */
const rest = async (frames: ZstdFrames, decoder: Decoder): Promise<void> => {
  for (let run = frames.next(); run !== undefined; run = frames.next()) await decoder.write(run)
}

const decoderOf = (format: Format, sink: Sink, native: boolean): Decoder =>
  native && nativeWorks(format) ? new NativeDecoder(format, sink) : new StreamDecoder(format, sink)

/** A member or frame of 120 bytes ("tow", 40 times) and one of 4 ("line"), both with checksums. */
const probes: Readonly<Record<Format, readonly [string, string]>> = {
  gzip: ["H4sIAAAAAAACAyvJLy8ZCAQAzBX4cXgAAAA=", "H4sIAAAAAAAAA8vJzEsFAPa0FNEEAAAA"],
  zstd: ["KLUv/SR4VQAAGHRvdwEA0tQNAXcFjU8=", "KLUv/SQEIQAAbGluZUs8ru4="]
}

/** What this Node's handles were found to do: they cannot change while it runs. */
const verdicts = new Map<Format, boolean>()

/** Whether the undocumented handle does what we need of it: goes on after a member or frame, and reports damage and truncation. */
const nativeWorks = (format: Format): boolean => {
  const known = verdicts.get(format)
  if (known !== undefined) return known
  const first = Buffer.from(probes[format][0], "base64")
  const second = Buffer.from(probes[format][1], "base64")
  const damaged = Buffer.from(first)
  damaged[damaged.byteLength - 5] = (damaged[damaged.byteLength - 5] ?? 0) ^ 1
  const verdict = outcome(format, [first, second]) === `${"tow".repeat(40)}line` &&
    outcome(format, [damaged.subarray(0, 9), damaged.subarray(9)]) === "refused" &&
    (format === "zstd" || outcome(format, [first, second.subarray(0, -1)]) === "refused") &&
    (format === "zstd" || outcome(format, [first, Buffer.alloc(1)]) === "refused")
  verdicts.set(format, verdict)
  return verdict
}

const outcome = (format: Format, chunks: ReadonlyArray<Buffer>): string => {
  let decoder: NativeDecoder | undefined
  let text = ""
  try {
    decoder = new NativeDecoder(format, (bytes) => { text += Buffer.from(bytes).toString("latin1") })
    for (const chunk of chunks) decoder.write(chunk)
    if (format === "gzip") decoder.end()
    return text
  } catch (error) {
    return error instanceof Refused ? "refused" : "failed"
  } finally {
    decoder?.close()
  }
}
