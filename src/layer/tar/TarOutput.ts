import { Buffer } from "node:buffer"
import { writeSync } from "node:fs"
import { pathOf } from "../Piece.ts"
import { codeOf, relocate } from "../Syscalls.ts"
import type { Entry, EntryType } from "./Entry.ts"
import { blockSize } from "./TarHeader.ts"

/** An entry to be written, without its data. */
export type Outgoing = Omit<Entry, "sparse">

const flags: Readonly<Record<EntryType, string>> = { file: "0", link: "1", symlink: "2", char: "3", block: "4", dir: "5", fifo: "6" }
const room = 1 << 20

/**
 * Writes a tar archive to a descriptor, at once and in the calling thread: ustar headers with PAX records for what they
 * cannot say (POSIX pax; SCHILY.xattr; GNU.sparse 1.0). A pipe whose reader is slow is waited for.
 */
export class TarOutput {
  private readonly fd: number
  private readonly buffer = Buffer.allocUnsafeSlow(room)
  private have = 0
  /** Bytes of the current entry's data. */
  private data = 0

  constructor(fd: number) {
    this.fd = fd
  }

  /** Begins an entry. With `segments` (offset and length of its data, rising) a file is sparse, and `write` takes what is in them. */
  entry(entry: Outgoing, segments?: ReadonlyArray<readonly [offset: number, length: number]>): void {
    const records: Array<readonly [key: string, value: Buffer]> = []
    const map = segments === undefined ? undefined : sparseMap(segments)
    if (map !== undefined) {
      records.push(["GNU.sparse.major", Buffer.from("1")], ["GNU.sparse.minor", Buffer.from("0")], ["GNU.sparse.name", entry.path], ["GNU.sparse.realsize", Buffer.from(String(entry.size))])
    }
    const size = segments === undefined || map === undefined ? entry.size : map.byteLength + segments.reduce((sum, [, length]) => sum + length, 0)
    const header = headerOf(entry, size, records)
    if (records.length > 0) {
      const body = Buffer.concat(records.map(([key, value]) => record(key, value)))
      const about = { ...entry, type: "file" as const, path: Buffer.from("PaxHeaders/entry"), linkpath: Buffer.alloc(0), mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, xattrs: [] }
      this.write(headerOf(about, body.byteLength, [], "x"))
      this.write(body)
      this.pad()
    }
    this.write(header)
    this.data = 0
    if (map !== undefined) this.write(map)
  }

  /** Takes data of the current entry. */
  write(bytes: Uint8Array): void {
    this.data += bytes.byteLength
    for (let at = 0; at < bytes.byteLength;) {
      const taken = Math.min(room - this.have, bytes.byteLength - at)
      this.buffer.set(bytes.subarray(at, at + taken), this.have)
      this.have += taken
      at += taken
      if (this.have === room) this.flush()
    }
  }

  /** Ends the current entry. */
  pad(): void {
    this.write(Buffer.alloc((blockSize - this.data % blockSize) % blockSize))
    this.data = 0
  }

  /** Ends the archive. */
  end(): void {
    this.write(Buffer.alloc(2 * blockSize))
    this.flush()
  }

  private flush(): void {
    for (let at = 0; at < this.have;) {
      try {
        at += writeSync(this.fd, this.buffer, at, this.have - at)
      } catch (error) {
        if (codeOf(error) !== "EAGAIN") throw relocate(error, pathOf(this.fd))
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
      }
    }
    this.have = 0
  }
}

const sparseMap = (segments: ReadonlyArray<readonly [number, number]>): Buffer => {
  const text = Buffer.from([segments.length, ...segments.flat(), ""].join("\n"))
  return Buffer.concat([text, Buffer.alloc((blockSize - text.byteLength % blockSize) % blockSize)])
}

/** One PAX record: its decimal length, which counts itself, a space, key, `=`, value, newline. */
const record = (key: string, value: Buffer): Buffer => {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")])
  let length = rest.byteLength + 1
  while (String(length).length + rest.byteLength !== length) length = String(length).length + rest.byteLength
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** `-1.25` is second -2 and 750000000 nanoseconds. */
const timeText = (seconds: number, nanos: number): string => {
  if (nanos === 0) return String(seconds)
  const whole = seconds < 0 ? -seconds - 1 : seconds
  const fraction = String(seconds < 0 ? 1_000_000_000 - nanos : nanos).padStart(9, "0").replace(/0+$/, "")
  return `${seconds < 0 ? "-" : ""}${whole}.${fraction}`
}

/** A header block; what does not fit becomes a record. */
const headerOf = (entry: Outgoing, size: number, records: Array<readonly [string, Buffer]>, flag = flags[entry.type]): Buffer => {
  const block = Buffer.alloc(blockSize)
  const text = (key: string, at: number, value: Buffer) => {
    if (value.byteLength > 100) records.push([key, value])
    value.copy(block, at, 0, 100)
  }
  const number = (key: string, at: number, width: number, value: number) => {
    const fits = value >= 0 && value < 8 ** (width - 1)
    if (!fits) records.push([key, Buffer.from(String(value))])
    block.write((fits ? value : 0).toString(8).padStart(width - 1, "0"), at, "latin1")
  }
  text("path", 0, entry.path)
  text("linkpath", 157, entry.linkpath)
  number("mode", 100, 8, entry.mode)
  number("uid", 108, 8, entry.uid)
  number("gid", 116, 8, entry.gid)
  number("size", 124, 12, size)
  if (entry.mtimeNanos === 0) number("mtime", 136, 12, entry.mtimeSeconds)
  else {
    records.push(["mtime", Buffer.from(timeText(entry.mtimeSeconds, entry.mtimeNanos))])
    number("", 136, 12, Math.min(Math.max(0, entry.mtimeSeconds), 8 ** 11 - 1))
  }
  block.write(flag, 156, "latin1")
  block.write("ustar\x0000", 257, "latin1")
  number("SCHILY.devmajor", 329, 8, entry.devmajor)
  number("SCHILY.devminor", 337, 8, entry.devminor)
  for (const [name, value] of entry.xattrs) {
    records.push([`SCHILY.xattr.${name.toString("latin1").replace(/%/g, "%25").replace(/=/g, "%3D")}`, value])
  }
  let sum = 8 * 32
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1")
  return block
}
