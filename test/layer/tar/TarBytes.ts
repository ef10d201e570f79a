import { Buffer } from "node:buffer"
import type { Entry } from "../../../src/layer/tar/Entry.ts"
import { Refused } from "../../../src/layer/Fault.ts"
import { defaultLimits, type Limits } from "../../../src/layer/Limits.ts"
import { TarReader } from "../../../src/layer/tar/Tar.ts"

/** An entry as it was read, with all its data; holes are zeros. */
export interface Found extends Entry {
  readonly content: Buffer
}

/** Reads `chunks` as one archive; what the sink gets is checked for order. */
export const read = (chunks: ReadonlyArray<Uint8Array>, limits: Partial<Limits> = {}): Array<Found> => {
  const found: Array<Found> = []
  let current: { entry: Entry; content: Buffer; next: number } | undefined
  const reader = new TarReader({
    entry: (entry) => {
      if (current !== undefined) throw new Error("an entry within an entry")
      current = { entry, content: Buffer.alloc(Math.min(entry.size, 1 << 24)), next: 0 }
    },
    data: (bytes, at) => {
      if (current === undefined || at < current.next || bytes.byteLength === 0) throw new Error("data out of order")
      current.content.set(bytes, at)
      current.next = at + bytes.byteLength
    },
    end: () => {
      if (current === undefined) throw new Error("an end without an entry")
      found.push({ ...current.entry, content: current.content })
      current = undefined
    }
  }, { ...defaultLimits, ...limits })
  for (const chunk of chunks) reader.write(chunk)
  reader.end()
  if (reader.entries !== found.length || current !== undefined) throw new Error("entries were lost")
  if (reader.size !== found.reduce((sum, { size }) => sum + size, 0)) throw new Error("the sizes do not add up")
  return found
}

/** The rule `chunks` were refused for, with the entry's name before it, or "taken". */
export const refusal = (chunks: ReadonlyArray<Uint8Array>, limits: Partial<Limits> = {}): string => {
  try {
    read(chunks, limits)
    return "taken"
  } catch (error) {
    if (error instanceof Refused) return error.message
    throw error
  }
}

/** The same bytes whole, one by one, and cut in two at every 7th offset. */
export const cuts = (bytes: Buffer): Array<ReadonlyArray<Buffer>> => [
  [bytes],
  Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)),
  ...Array.from({ length: Math.ceil(bytes.byteLength / 7) }, (_, n) => [bytes.subarray(0, n * 7), bytes.subarray(n * 7)])
]

/** Fields of a hand-made header: text fields as text or bytes, numbers as numbers (octal) or as the very bytes of the field. */
export interface Fields {
  readonly name?: string | Buffer
  readonly mode?: number | string | Buffer
  readonly uid?: number | string | Buffer
  readonly gid?: number | string | Buffer
  readonly size?: number | string | Buffer
  readonly mtime?: number | string | Buffer
  readonly type?: string
  readonly linkname?: string | Buffer
  readonly magic?: "v7" | "ustar" | "gnu" | "star"
  readonly devmajor?: number | string | Buffer
  readonly devminor?: number | string | Buffer
  readonly prefix?: string | Buffer
  /** Anything else: bytes at an offset. */
  readonly at?: ReadonlyArray<readonly [number, string | Buffer]>
  readonly checksum?: "unsigned" | "signed" | "wrong"
}

const magics = { v7: "\0\0\0\0\0\0\0\0", ustar: "ustar\x0000", gnu: "ustar  \0", star: "ustar\x0000" }
const bytesOf = (value: string | Buffer) => typeof value === "string" ? Buffer.from(value, "latin1") : value

/** A header block. */
export const header = (fields: Fields): Buffer => {
  const block = Buffer.alloc(512)
  const put = (at: number, length: number, value: number | string | Buffer) => {
    block.set(typeof value === "number" ? Buffer.from(`${value.toString(8).padStart(length - 1, "0")}\0`) : bytesOf(value), at)
  }
  put(0, 100, fields.name ?? "name")
  put(100, 8, fields.mode ?? 0o644)
  put(108, 8, fields.uid ?? 0)
  put(116, 8, fields.gid ?? 0)
  put(124, 12, fields.size ?? 0)
  put(136, 12, fields.mtime ?? 0)
  put(156, 1, fields.type ?? "0")
  put(157, 100, fields.linkname ?? "")
  put(257, 8, magics[fields.magic ?? "ustar"])
  if (fields.magic === "star") put(508, 4, "tar\0")
  put(329, 8, fields.devmajor ?? "")
  put(337, 8, fields.devminor ?? "")
  put(345, 155, fields.prefix ?? "")
  for (const [at, value] of fields.at ?? []) put(at, 0, bytesOf(value))
  block.set(Buffer.from("        "), 148)
  let sum = 0
  for (const byte of block) sum += fields.checksum === "signed" && byte > 127 ? byte - 256 : byte
  block.set(Buffer.from(`${(sum + (fields.checksum === "wrong" ? 1 : 0)).toString(8).padStart(6, "0")}\0 `), 148)
  return block
}

/** `data`, padded to whole blocks. */
export const padded = (data: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(data)
  return Buffer.concat([bytes, Buffer.alloc((512 - bytes.byteLength % 512) % 512)])
}

/** An entry with its data. */
export const entry = (fields: Fields, data: string | Uint8Array = ""): Buffer =>
  Buffer.concat([header({ size: Buffer.byteLength(data), ...fields }), padded(data)])

/** A record of a PAX extended header. */
export const record = (key: string, value: string | Buffer): Buffer => {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), typeof value === "string" ? Buffer.from(value) : value, Buffer.from("\n")])
  let length = rest.byteLength + 1
  while (String(length).length + rest.byteLength > length) length++
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** A PAX extended header, of type `x` unless told otherwise. */
export const pax = (records: ReadonlyArray<readonly [string, string | Buffer]>, type = "x"): Buffer =>
  entry({ name: "PaxHeaders/name", type }, Buffer.concat(records.map(([key, value]) => record(key, value))))

/** The end marker. */
export const end = Buffer.alloc(1024)

/** An archive of `parts`, with its end. */
export const archive = (...parts: ReadonlyArray<Uint8Array>): Buffer => Buffer.concat([...parts, end])

/** A base-256 field. */
export const base256 = (value: bigint, length = 12): Buffer => {
  const bytes = Buffer.alloc(length)
  let rest = value
  for (let n = length - 1; n >= 0; n--) {
    bytes[n] = Number(rest & 0xffn)
    rest >>= 8n
  }
  bytes[0] = (bytes[0] ?? 0) | 0x80
  return bytes
}
