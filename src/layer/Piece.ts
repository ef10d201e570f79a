import { readlinkSync, readSync, writeSync } from "node:fs"
import { relocate } from "./Syscalls.ts"

/** What `read` reads into: one buffer a thread, 256 KiB. */
export const bytes: Buffer = Buffer.allocUnsafeSlow(256 * 1024)

/** What a descriptor is open on, as far as the system tells. */
export const pathOf = (fd: number): string => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ""
  }
}

/** Reads at most `length` bytes at a position into a buffer; gives how many. Errors name the file. */
export const readInto = (buffer: Buffer, fd: number, length: number, at: number): number => {
  try {
    return readSync(fd, buffer, 0, Math.min(buffer.byteLength, length), at)
  } catch (error) {
    throw relocate(error, pathOf(fd))
  }
}

/** The same into `bytes`. */
export const read = (fd: number, length: number, at: number): number => readInto(bytes, fd, length, at)

/** Writes all of `chunk` at a position. Errors name the file. */
export const write = (fd: number, chunk: Uint8Array, position: number): void => {
  try {
    for (let at = 0; at < chunk.byteLength;) at += writeSync(fd, chunk, at, chunk.byteLength - at, position + at)
  } catch (error) {
    throw relocate(error, pathOf(fd))
  }
}
