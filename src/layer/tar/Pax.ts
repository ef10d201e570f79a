import { Buffer } from "node:buffer"
import { Refused } from "../Fault.ts"

/** Whole seconds, rounded down, and the nanoseconds after them. */
export type Time = readonly [seconds: number, nanos: number]

/** An extended attribute: both are bytes. */
export type Xattr = readonly [name: Buffer, value: Buffer]

/**
 * The records of one PAX extended header (POSIX pax; SCHILY, LIBARCHIVE and GNU.sparse vendor records). `undefined`: no
 * such record; `null`: an empty value, which takes back what a global header said.
 */
export class Pax {
  path: Buffer | null | undefined = undefined
  linkpath: Buffer | null | undefined = undefined
  size: number | null | undefined = undefined
  uid: number | null | undefined = undefined
  gid: number | null | undefined = undefined
  mtime: Time | null | undefined = undefined
  /** By the latin1 text of their names. */
  xattrs: Map<string, Xattr> | undefined = undefined
  sparse: SparseRecords | undefined = undefined
}

/** GNU.sparse.* records: version, name, expanded size and, of versions 0.0 and 0.1, the map. */
export class SparseRecords {
  major: number | undefined = undefined
  minor: number | undefined = undefined
  name: Buffer | undefined = undefined
  size: number | undefined = undefined
  blocks: number | undefined = undefined
  map: Array<number> | undefined = undefined
}

/**
 * Reads the body of an extended header (`x`, or Solaris' `X`): records of `LENGTH KEY=VALUE\n` that fill it exactly. Values
 * are bytes; of a repeated key the last counts; unknown keys are skipped. Throws `Refused` for `entry`. The result keeps
 * no part of `body`.
 */
export const local = (body: Buffer, entry: Uint8Array): Pax => {
  const pax = new Pax()
  eachRecord(body, entry, (key, value) => apply(pax, key, value, entry))
  return pax
}

/**
 * Adds the records of a global header (`g`) to `pax`. Only owners and times make sense for all that follows: a name, size,
 * attribute or sparse map is refused, since readers differ in whether they obey it. Empty values take a record back.
 */
export const global = (body: Buffer, pax: Pax, entry: Uint8Array): void => {
  eachRecord(body, entry, (key, value) => {
    if (key === "path" || key === "linkpath" || key === "size" || key.startsWith("GNU.sparse.") || xattrPrefix(key) !== undefined) {
      throw new Refused(`a global header may not set ${key}`, entry)
    }
    apply(pax, key, value, entry)
  })
}

const eachRecord = (body: Buffer, entry: Uint8Array, take: (key: string, value: Buffer) => void): void => {
  for (let at = 0; at < body.byteLength;) {
    let space = at
    let length = 0
    for (; length <= body.byteLength; space++) {
      const digit = (body[space] ?? 0) - 0x30
      if (digit < 0 || digit > 9) break
      length = length * 10 + digit
    }
    const end = at + length
    const equals = body.indexOf(0x3d, space)
    if (
      space === at || body[space] !== 0x20 || end <= space + 1 || end > body.byteLength || body[end - 1] !== 0x0a ||
      equals <= space + 1 || equals >= end - 1
    ) {
      throw new Refused("a record of its extended header is malformed", entry)
    }
    const key = body.toString("latin1", space + 1, equals)
    if (key.includes("\0")) throw new Refused("a key of its extended header has a NUL", entry)
    take(key, body.subarray(equals + 1, end - 1))
    at = end
  }
}

const apply = (pax: Pax, key: string, value: Buffer, entry: Uint8Array): void => {
  const empty = value.byteLength === 0
  switch (key) {
    case "path": pax.path = empty ? null : nameOf(key, value, entry); return
    case "linkpath": pax.linkpath = empty ? null : nameOf(key, value, entry); return
    case "size": pax.size = empty ? null : numberOf(key, value, entry); return
    case "uid": pax.uid = empty ? null : numberOf(key, value, entry); return
    case "gid": pax.gid = empty ? null : numberOf(key, value, entry); return
    case "mtime": pax.mtime = empty ? null : timeOf(value, entry); return
  }
  if (key.startsWith("GNU.sparse.")) return applySparse(pax.sparse ??= new SparseRecords(), key, value, entry)
  const prefix = xattrPrefix(key)
  if (prefix === undefined) return
  const xattrs = pax.xattrs ??= new Map()
  const name = prefix === schily ? unescaped(key.slice(prefix.length)) : urlDecoded(key.slice(prefix.length), entry)
  if (name.byteLength === 0 || name.includes(0)) throw new Refused("an extended attribute has no proper name", entry)
  const id = name.toString("latin1")
  // libarchive writes both kinds: the plain one, which all readers know, counts.
  if (prefix === schily || !xattrs.has(id)) xattrs.set(id, [name, prefix === schily ? Buffer.from(value) : base64Decoded(value, entry)])
}

const applySparse = (sparse: SparseRecords, key: string, value: Buffer, entry: Uint8Array): void => {
  switch (key) {
    case "GNU.sparse.major": sparse.major = numberOf(key, value, entry); return
    case "GNU.sparse.minor": sparse.minor = numberOf(key, value, entry); return
    case "GNU.sparse.name": sparse.name = nameOf(key, value, entry); return
    case "GNU.sparse.size":
    case "GNU.sparse.realsize": sparse.size = numberOf(key, value, entry); return
    case "GNU.sparse.numblocks": sparse.blocks = numberOf(key, value, entry); return
    case "GNU.sparse.map":
      sparse.map = value.byteLength === 0 ? [] : value.toString("latin1").split(",").map((text) => numberOf(key, Buffer.from(text, "latin1"), entry))
      return
    case "GNU.sparse.offset":
    case "GNU.sparse.numbytes": {
      const map = sparse.map ??= []
      if ((map.length % 2 === 0) !== (key === "GNU.sparse.offset")) throw new Refused("its sparse map has an offset without a length", entry)
      map.push(numberOf(key, value, entry))
    }
  }
}

const schily = "SCHILY.xattr."
const libarchive = "LIBARCHIVE.xattr."
const xattrPrefix = (key: string): string | undefined =>
  key.startsWith(schily) ? schily : key.startsWith(libarchive) ? libarchive : undefined

const nameOf = (key: string, value: Buffer, entry: Uint8Array): Buffer => {
  if (value.includes(0)) throw new Refused(`the ${key} of its extended header has a NUL`, entry)
  return Buffer.from(value)
}

/** Decimal digits up to 2^53-1, exactly. */
const numberOf = (key: string, value: Uint8Array, entry: Uint8Array): number => {
  const number = decimal(value, 0, value.byteLength)
  if (Number.isNaN(number)) throw new Refused(`the ${key} of its extended header is not a decimal number up to 2^53-1`, entry)
  return number
}

const decimal = (bytes: Uint8Array, from: number, end: number): number => {
  let value = from < end ? 0 : NaN
  for (let at = from; at < end; at++) {
    const digit = (bytes[at] ?? 0) - 0x30
    if (digit < 0 || digit > 9) return NaN
    value = value * 10 + digit
    if (value > Number.MAX_SAFE_INTEGER) return NaN
  }
  return value
}

/** `-12.3456`: digits past the ninth are cut off, as Go's archive/tar does. */
const timeOf = (value: Buffer, entry: Uint8Array): Time => {
  const negative = value[0] === 0x2d
  const point = value.indexOf(0x2e)
  const seconds = decimal(value, negative ? 1 : 0, point === -1 ? value.byteLength : point)
  let nanos = 0
  let scale = 1e8
  for (let at = point === -1 ? value.byteLength : point + 1; at < value.byteLength; at++) {
    const digit = (value[at] ?? 0) - 0x30
    if (digit < 0 || digit > 9) nanos = NaN
    if (scale >= 1) nanos += digit * scale
    scale /= 10
  }
  if (Number.isNaN(seconds) || Number.isNaN(nanos)) throw new Refused("the mtime of its extended header is not a decimal number", entry)
  if (!negative) return [seconds, nanos]
  return nanos === 0 ? [0 - seconds, 0] : [-seconds - 1, 1_000_000_000 - nanos]
}

/** GNU tar writes `=`, which would end the key, and `%` as URLs do. */
const unescaped = (text: string): Buffer => Buffer.from(text.replace(/%3D/g, "=").replace(/%25/g, "%"), "latin1")

const urlDecoded = (text: string, entry: Uint8Array): Buffer => {
  if (/%(?![0-9a-fA-F]{2})/.test(text)) throw new Refused("the name of an extended attribute is not URL-encoded", entry)
  return Buffer.from(text.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))), "latin1")
}

const base64Decoded = (value: Buffer, entry: Uint8Array): Buffer => {
  const text = value.toString("latin1")
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.replace(/=+$/, "").length % 4 === 1) {
    throw new Refused("the value of an extended attribute is not base64", entry)
  }
  return Buffer.from(text, "base64")
}
