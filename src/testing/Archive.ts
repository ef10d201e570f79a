/**
 * Tar archives written byte by byte from data, for tests that must be exact about what a layer says: names and PAX values are
 * bytes, any header field can be overwritten, nothing depends on the time, the host or the process.
 */

/** The entry types of a tar header, as layers use them. */
export type EntryType = "file" | "link" | "symlink" | "char" | "block" | "dir" | "fifo"

/** One tar entry as data. Strings are written as UTF-8, bytes as they are. */
export interface EntrySpec {
  readonly path: string | Uint8Array
  /** Default: `dir` when the path ends in `/`, else `file`. */
  readonly type?: EntryType
  /** Default: 0755 for folders, 0777 for symbolic links, else 0644. */
  readonly mode?: number
  /** Default 0. */
  readonly uid?: number
  /** Default 0. */
  readonly gid?: number
  /** Seconds since the epoch, or seconds and nanoseconds (0..999999999); seconds may be negative. Default 1700000000. */
  readonly mtime?: number | readonly [seconds: number, nanos: number]
  /** A file's bytes. */
  readonly contents?: string | Uint8Array
  /** Target of a link or symlink. */
  readonly linkpath?: string | Uint8Array
  /** Written as PAX `SCHILY.xattr.NAME` records; values may be any bytes. */
  readonly xattrs?: Readonly<Record<string, string | Uint8Array>>
  /** Major and minor number of a device. */
  readonly device?: readonly [major: number, minor: number]
  /** Further PAX records, in order, after the ones the entry needs itself. */
  readonly pax?: ReadonlyArray<PaxRecord>
  /** How what does not fit the ustar header is written: by PAX records (default), or by GNU long names and base-256 numbers. */
  readonly format?: "pax" | "gnu"
  /** Bytes put over the finished header block, by offset; then its checksum is made right unless `checksum` is false. */
  readonly header?: ReadonlyArray<readonly [offset: number, bytes: string | Uint8Array]>
  /** false: the checksum stays that of the header before `header` was put over it. */
  readonly checksum?: boolean
}

/** A key and its value, which may be any bytes. */
export type PaxRecord = readonly [key: string | Uint8Array, value: string | Uint8Array]

/** An entry, or bytes (whole 512-byte blocks, if the archive is to be sound) that go in as they are. */
export type Item = EntrySpec | { readonly bytes: Uint8Array }

const flags: Record<EntryType, string> = { file: "0", link: "1", symlink: "2", char: "3", block: "4", dir: "5", fifo: "6" }

const bytesOf = (text: string | Uint8Array | undefined): Buffer =>
  text === undefined ? Buffer.alloc(0) : typeof text === "string" ? Buffer.from(text) : Buffer.from(text.buffer, text.byteOffset, text.byteLength)

/** Zeros up to the next whole block. */
const padding = (size: number): Buffer => Buffer.alloc((512 - size % 512) % 512)

const sumOf = (block: Buffer): number => {
  let sum = 8 * 32
  for (let at = 0; at < 512; at++) if (at < 148 || at >= 156) sum += block[at] ?? 0
  return sum
}

/** Writes `value` as octal digits and a NUL; false if it does not fit. */
const octal = (block: Buffer, at: number, width: number, value: number): boolean => {
  const digits = Number.isInteger(value) && value >= 0 ? value.toString(8) : ""
  if (digits === "" || digits.length >= width) return false
  block.write(digits.padStart(width - 1, "0"), at, "latin1")
  return true
}

/** Writes `value` as GNU does what has no octal form: big-endian two's complement, the first bit set. */
const base256 = (block: Buffer, at: number, width: number, value: number): void => {
  let rest = BigInt(Math.floor(value))
  for (let place = width - 1; place >= 0; place--, rest >>= 8n) block[at + place] = Number(rest & 0xffn)
  block[at] = value < 0 ? 0xff : (block[at] ?? 0) | 0x80
}

/** One PAX record: its decimal length (which counts itself), a space, key, `=`, value, newline. */
const record = ([key, value]: PaxRecord): Buffer => {
  const rest = Buffer.concat([Buffer.from(" "), bytesOf(key), Buffer.from("="), bytesOf(value), Buffer.from("\n")])
  let length = rest.length + 1
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** A bare entry of type `flag` holding `data`: an extension header, or anything else a test wants. */
export const block = (flag: string, name: string, data: Uint8Array): Buffer => {
  const header = Buffer.alloc(512)
  header.write(name, 0, 100, "latin1")
  octal(header, 100, 8, 0o644)
  octal(header, 108, 8, 0)
  octal(header, 116, 8, 0)
  octal(header, 124, 12, data.byteLength)
  octal(header, 136, 12, 0)
  header.write(flag, 156, 1, "latin1")
  header.write(flag === "L" || flag === "K" ? "ustar  \0" : "ustar\x0000", 257, "latin1")
  seal(header)
  return Buffer.concat([header, data, padding(data.byteLength)])
}

const seal = (header: Buffer): void => { header.write(`${sumOf(header).toString(8).padStart(6, "0")}\0 `, 148, "latin1") }

/** A PAX extended header for the next entry (`x`), or a global one (`g`; POSIX.1-2017, pax, "pax Interchange Format"). */
export const pax = (records: ReadonlyArray<PaxRecord>, flag: "x" | "g" = "x"): Buffer =>
  block(flag, flag === "x" ? "PaxHeaders/entry" : "pax_global_header", Buffer.concat(records.map(record)))

/** Where the last `/` stands that splits `path` into ustar prefix (1..155 bytes) and name (1..100), or undefined. */
const splitAt = (path: Buffer): number | undefined => {
  for (let at = Math.min(155, path.length - 2); at > 0; at--) {
    if (path[at] === 0x2f) return path.length - at - 1 <= 100 ? at : undefined
  }
  return undefined
}

const timeText = (seconds: number, nanos: number): string => {
  if (nanos === 0) return String(seconds)
  const negative = seconds < 0 // -1.25 is second -2 and 750000000 nanoseconds
  const whole = negative ? -seconds - 1 : seconds
  const fraction = String(negative ? 1_000_000_000 - nanos : nanos).padStart(9, "0").replace(/0+$/, "")
  return `${negative ? "-" : ""}${whole}.${fraction}`
}

/**
 * The header blocks of one entry, extension headers first. `size` is what they say about the bytes that follow
 * (default: the length of `contents`).
 */
export const header = (entry: EntrySpec, size = bytesOf(entry.contents).length): Buffer => {
  const path = bytesOf(entry.path)
  const linkpath = bytesOf(entry.linkpath)
  const type = entry.type ?? (path.at(-1) === 0x2f ? "dir" : "file")
  const gnu = entry.format === "gnu"
  const before: Array<Buffer> = []
  const records: Array<PaxRecord> = []
  const main = Buffer.alloc(512)

  const number = (key: string, at: number, width: number, value: number) => {
    if (octal(main, at, width, value)) return
    octal(main, at, width, 0)
    if (gnu) base256(main, at, width, value)
    else records.push([key, String(value)])
  }
  const name = (key: string, flag: string, at: number, value: Buffer) => {
    if (value.length > 100) {
      if (gnu) before.push(block(flag, "././@LongLink", Buffer.concat([value, Buffer.alloc(1)])))
      else records.push([key, value])
    }
    value.copy(main, at, 0, Math.min(100, value.length))
  }

  const split = gnu || path.length <= 100 ? undefined : splitAt(path)
  if (split === undefined) name("path", "L", 0, path)
  else {
    path.copy(main, 345, 0, split)
    path.copy(main, 0, split + 1)
  }
  name("linkpath", "K", 157, linkpath)
  octal(main, 100, 8, (entry.mode ?? (type === "dir" ? 0o755 : type === "symlink" ? 0o777 : 0o644)) & 0o7777)
  number("uid", 108, 8, entry.uid ?? 0)
  number("gid", 116, 8, entry.gid ?? 0)
  number("size", 124, 12, size)
  const [seconds, nanos] = typeof entry.mtime === "object" ? entry.mtime : [entry.mtime ?? 1_700_000_000, 0]
  if (nanos === 0) number("mtime", 136, 12, seconds)
  else {
    octal(main, 136, 12, Math.max(0, seconds))
    records.push(["mtime", timeText(seconds, nanos)])
  }
  main.write(flags[type], 156, "latin1")
  main.write(gnu ? "ustar  \0" : "ustar\x0000", 257, "latin1")
  if (entry.device !== undefined) {
    number("SCHILY.devmajor", 329, 8, entry.device[0])
    number("SCHILY.devminor", 337, 8, entry.device[1])
  }
  for (const [key, value] of Object.entries(entry.xattrs ?? {})) records.push([`SCHILY.xattr.${key}`, value])
  records.push(...entry.pax ?? [])
  seal(main)
  for (const [at, bytes] of entry.header ?? []) bytesOf(bytes).copy(main, at)
  if (entry.checksum !== false && entry.header !== undefined) seal(main)
  if (records.length > 0) before.push(pax(records))
  return Buffer.concat([...before, main])
}

/** The blocks of `items`, without an end mark. */
export const blocks = (items: ReadonlyArray<Item>): Buffer => Buffer.concat(items.flatMap((item) => {
  if ("bytes" in item) return [item.bytes]
  const contents = bytesOf(item.contents)
  return [header(item), contents, padding(contents.length)]
}))

/** The two zero blocks that end an archive. */
export const endMark: Uint8Array = new Uint8Array(1024)

/** A whole archive: the blocks of `items` and the end mark. */
export const archive = (items: ReadonlyArray<Item>): Buffer => Buffer.concat([blocks(items), endMark])
