import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { closeSync, constants, openSync, readSync, unlinkSync, writeSync } from "node:fs"
import { codeOf, relocate } from "../Syscalls.ts"

const pieceSize = 64 * 1024
const unnamed = 0o20000000 /* the own bit of O_TMPFILE */ | constants.O_DIRECTORY
/** What systems and file systems say that make no file without a name. */
const without = new Set(["EOPNOTSUPP", "ENOTSUP", "EISDIR", "EINVAL", "ENOENT"])

/** A new file without a name in `folder`, for reading and writing. Throws Node's errors. */
export const open = (folder: string): number => {
  if (process.platform === "linux") {
    try {
      return openSync(folder, constants.O_RDWR | unnamed, 0o600)
    } catch (error) {
      if (!without.has(codeOf(error) ?? "")) throw error
    }
  }
  const path = `${folder}/scratch.${randomBytes(6).toString("hex")}`
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
  unlinkSync(path)
  return fd
}

/** A file without a name, for what may be too much for memory: it is only added to, and is gone when it is closed. */
export class Scratch {
  private readonly fd: number
  private readonly folder: string
  private readonly pending = Buffer.allocUnsafeSlow(pieceSize)
  private readonly piece = Buffer.allocUnsafeSlow(pieceSize)
  private flushed = 0
  private held = 0

  /** `folder` is where there is room; Node's errors, which are thrown, name it. */
  constructor(folder: string) {
    this.fd = open(folder)
    this.folder = folder
  }

  /** How long it is. */
  get size(): number { return this.flushed + this.held }

  /** Adds bytes at its end. */
  append(bytes: Buffer): void {
    if (this.held + bytes.byteLength > pieceSize) this.flush()
    if (bytes.byteLength > pieceSize) return this.write(bytes)
    this.pending.set(bytes, this.held)
    this.held += bytes.byteLength
  }

  /** So many bytes from a place on, fewer at its end; good until the next call. */
  read(at: number, length: number): Buffer {
    if (at >= this.flushed) return this.pending.subarray(at - this.flushed, Math.min(this.held, at - this.flushed + length))
    if (at + length > this.flushed) this.flush()
    const into = length > pieceSize ? Buffer.allocUnsafeSlow(length) : this.piece
    let have = 0
    try {
      while (have < length) {
        const read = readSync(this.fd, into, have, length - have, at + have)
        if (read === 0) break
        have += read
      }
    } catch (error) {
      throw relocate(error, this.folder)
    }
    return into.subarray(0, have)
  }

  /** It is gone. */
  close(): void { closeSync(this.fd) }

  private flush(): void {
    const { held } = this
    this.held = 0
    this.write(this.pending.subarray(0, held))
  }

  private write(bytes: Buffer): void {
    try {
      for (let at = 0; at < bytes.byteLength;) at += writeSync(this.fd, bytes, at, bytes.byteLength - at, this.flushed + at)
    } catch (error) {
      throw relocate(error, this.folder)
    }
    this.flushed += bytes.byteLength
  }
}
