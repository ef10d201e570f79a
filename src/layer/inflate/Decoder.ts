import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from "node:zlib"
import { Refused } from "../Fault.ts"

/** What a decoder of Node's takes apart. */
export type Format = "gzip" | "zstd"
/** Takes output; bytes are valid during the call only. May throw. */
export type Sink = (bytes: Uint8Array) => void

/** Decodes gzip members, bzip2 or xz streams, which it tells apart itself, or zstd frames, of which a `write` gets at most one, or a part of it. */
export interface Decoder {
  /** Gives the sink all that `bytes` make; throws `Refused`. */
  write(bytes: Uint8Array): void | Promise<void>
  /** Throws `Refused` if a gzip member, bzip2 or xz stream is truncated. Not for zstd, whose frames are counted by `ZstdFrames`. */
  end(): void | Promise<void>
  /** Frees it; safe at any time and more than once. */
  close(): void
}

const open = (format: Format, chunkSize: number): Gunzip | ZstdDecompress =>
  format === "gzip" ? createGunzip({ chunkSize }) : createZstdDecompress({ chunkSize, params: { [constants.ZSTD_d_windowLogMax]: 27 } })

/** What a zlib or zstd error means: damage, unless there was no memory. What zstd says of it depends on how its input was cut. */
const faultOf = (format: Format, message: string, code: string): Error =>
  code === "Z_MEM_ERROR" || code === "ZSTD_error_memory_allocation"
    ? new Error(`not enough memory to inflate ${format}: ${message}`)
    : new Refused(
      message === "unexpected end of file" ? `the ${format} stream is truncated` : `the ${format} stream is damaged${format === "gzip" ? `: ${message}` : ""}`
    )

/** zlib goes from member to member itself, and stops only where it thinks that padding begins. */
const leftOver = (format: Format) => new Refused(`the ${format} stream has bytes that belong to no ${format === "gzip" ? "member" : "frame"}`)

/** Node's undocumented synchronous handle under its zlib streams. */
interface Handle {
  writeSync(flush: number, input: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number, outLength: number): void
}

const isHandle = (value: unknown): value is Handle =>
  typeof value === "object" && value !== null && "writeSync" in value && typeof value.writeSync === "function"

/** The size of the buffer the native decoder reuses: 1 MiB. */
const outputSize = 1 << 20
const none = new Uint8Array(0)

/** Decodes in the calling thread, at once, into one reused buffer. Its constructor throws where Node has no such handle. */
export class NativeDecoder implements Decoder {
  private readonly format: Format
  private readonly sink: Sink
  private readonly stream: Gunzip | ZstdDecompress
  private readonly handle: Handle
  /** Room left in the output, and input left, after a call. */
  private readonly state: Uint32Array
  private readonly out = new Uint8Array(outputSize)
  private fault: Error | undefined = undefined

  constructor(format: Format, sink: Sink) {
    this.format = format
    this.sink = sink
    this.stream = open(format, constants.Z_MIN_CHUNK)
    const handle: unknown = Reflect.get(this.stream, "_handle")
    const state: unknown = Reflect.get(this.stream, "_writeState")
    if (!isHandle(handle) || !(state instanceof Uint32Array)) {
      this.stream.destroy()
      throw new Error("this Node has no synchronous zlib handle")
    }
    Object.assign(handle, { onerror: (message: string, _errno: number, code: string) => { this.fault = faultOf(format, message, code) } })
    this.handle = handle
    this.state = state
  }

  write(bytes: Uint8Array): void {
    if (bytes.byteLength > 0) this.run(bytes, constants.Z_NO_FLUSH)
  }

  end(): void {
    this.run(none, constants.Z_FINISH)
  }

  close(): void { this.stream.destroy() }

  private run(bytes: Uint8Array, flush: number): void {
    const { handle, out, state } = this
    if (this.fault !== undefined) throw this.fault
    for (let at = 0;;) {
      handle.writeSync(flush, bytes, at, bytes.byteLength - at, out, 0, outputSize)
      if (this.fault !== undefined) throw this.fault
      const [room = 0, left = 0] = state
      at = bytes.byteLength - left
      if (room < outputSize) this.sink(out.subarray(0, outputSize - room))
      if (room === 0) continue // there may be more
      if (left === 0) return
      throw this.fault = leftOver(this.format)
    }
  }
}

/** Decodes by Node's public streams, in Node's thread pool. `write` and `end` must be awaited, one at a time. */
export class StreamDecoder implements Decoder {
  private readonly format: Format
  private readonly stream: Gunzip | ZstdDecompress
  private failure: { readonly error: unknown } | undefined = undefined
  private reject: ((error: unknown) => void) | undefined = undefined

  constructor(format: Format, sink: Sink) {
    this.format = format
    this.stream = open(format, 1 << 18)
    this.stream.on("error", (error: NodeJS.ErrnoException) => this.fail(faultOf(format, error.message, error.code ?? "")))
    this.stream.on("data", (bytes: Uint8Array) => {
      if (this.failure !== undefined) return
      try {
        sink(bytes)
      } catch (error) {
        this.fail(error)
      }
    })
  }

  write(bytes: Uint8Array): Promise<void> {
    const { stream } = this
    return this.wait((done) => {
      const before = stream.bytesWritten // input used, not offered
      stream.write(bytes, () => {
        while (stream.read() !== null); // what is buffered, if anything is, goes to the sink by "data"
        if (stream.bytesWritten - before === bytes.byteLength) done()
        else this.fail(leftOver(this.format))
      })
    })
  }

  end(): Promise<void> {
    return this.wait((done) => this.stream.once("end", done).end())
  }

  close(): void { this.fail(new Error("the decoder was closed")) }

  /** An error may keep the stream from calling back: whichever comes first counts. */
  private wait(begin: (done: () => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure.error)
      this.reject = reject
      begin(() => {
        this.reject = undefined
        resolve()
      })
    })
  }

  private fail(error: unknown): void {
    if (this.failure !== undefined) return
    this.failure = { error }
    this.stream.destroy()
    this.reject?.(error)
  }
}
