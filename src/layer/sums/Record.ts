import { createHash } from "node:crypto"
import { closeSync, constants, fsyncSync, openSync, readSync, writeSync } from "node:fs"
import * as Meta from "../apply/Meta.ts"
import { relocate } from "../Syscalls.ts"
import type { Sum } from "./Sums.ts"

const piece = Buffer.allocUnsafeSlow(256 * 1024)
const heading = "towline-sums 1"

/** What a file of sums is of: the layer's diff ID, the sum of its tar's header sizes, and the tar's entries. */
export interface Facts {
  readonly diffId: string
  readonly size: number
  readonly entries: number
}

/** The sums of a layer on their way to the new file `file` (0600): a heading, the facts, then a line a name. */
export class Record {
  private readonly file: string
  private readonly fd: number
  private readonly hash = createHash("sha256")
  private lines: string
  private open = true

  constructor(file: string, { diffId, entries, size }: Facts) {
    this.file = file
    this.fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600)
    this.lines = `${heading}\n${JSON.stringify([diffId, size, entries])}\n`
  }

  /** Gives the sums on, and writes each one that is taken. */
  *while(sums: Iterable<Sum>): Generator<Sum> {
    for (const sum of sums) {
      const { data, mode, mtime, name, owner, type, xattrs } = sum
      this.lines += `${JSON.stringify([name, type, mode, owner, mtime, xattrs, data])}\n`
      if (this.lines.length > 0x10000) this.flush()
      yield sum
    }
  }

  /** Makes the file durable. Gives its SHA-256. */
  commit(): string {
    this.flush()
    try {
      fsyncSync(this.fd)
    } catch (error) {
      throw relocate(error, this.file)
    } finally {
      this.close()
    }
    return this.hash.digest("hex")
  }

  close(): void {
    if (this.open) closeSync(this.fd)
    this.open = false
  }

  private flush() {
    const bytes = Buffer.from(this.lines)
    this.hash.update(bytes)
    try {
      for (let at = 0; at < bytes.byteLength;) at += writeSync(this.fd, bytes, at)
    } catch (error) {
      throw relocate(error, this.file)
    }
    this.lines = ""
  }
}

/** The SHA-256 of a file. */
export const hashOf = (file: string, stop: () => void): string => {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const hash = createHash("sha256")
    for (let at = 0;;) {
      stop()
      const length = readSync(fd, piece, 0, piece.byteLength, at)
      if (length === 0) return hash.digest("hex")
      hash.update(piece.subarray(0, length))
      at += length
    }
  } catch (error) {
    throw relocate(error, file)
  } finally {
    closeSync(fd)
  }
}

/** What a `Record` wrote to a file whose digest has been found right: its facts and, to be ended or run to its end, its sums. */
export const open = (file: string): { readonly facts: Facts; readonly sums: Generator<Sum> } => {
  const lines = Meta.lines(file)
  const [title, facts] = [lines.next().value, lines.next().value]
  if (title !== heading || facts === undefined) throw new Error(`${file} has the digest of recorded sums, and is none`)
  const [diffId, size, entries]: readonly [string, number, number] = JSON.parse(facts)
  const sums = function*(): Generator<Sum> {
    try {
      for (const line of lines) {
        const [name, type, mode, owner, mtime, xattrs, data]: readonly [string, Sum["type"], number, string, string, Sum["xattrs"], string] = JSON.parse(line)
        yield { name, type, mode, owner, mtime, xattrs, data }
      }
    } finally {
      lines.return(undefined)
    }
  }
  return { facts: { diffId, size, entries }, sums: sums() }
}
