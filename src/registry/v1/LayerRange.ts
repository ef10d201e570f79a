import * as Coding from "../answer/Coding.ts"
import { Result } from "effect"

/** What is had of a layer: the first `from` of `size` bytes, of the version `etag` names (if that is known). */
export interface Part {
  readonly from: number
  readonly size: number | undefined
  readonly etag?: string | undefined
}

type Headers = Readonly<Record<string, string>>

/** A strong validator (RFC 9110, 8.8.3), or undefined. */
export const etagOf = (headers: Headers): string | undefined => /^"[^"]*"$/.test(headers["etag"]?.trim() ?? "") ? headers["etag"]?.trim() : undefined

/** The value of a Content-Length, or undefined. */
export const lengthOf = (headers: Headers): number | undefined => {
  const text = headers["content-length"] ?? ""
  return /^\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined
}

/** Whether an answer says that it can be resumed. */
export const acceptsRanges = (headers: Headers): boolean => (headers["accept-ranges"] ?? "").toLowerCase().split(/[\s,]+/).includes("bytes")

/** The Range header 1.9.1 sent: its end is one past the last byte, which servers cut off (RFC 9110, 14.1.2). */
export const rangeOf = (from: number, size: number): string => `bytes=${from}-${size}`

/**
 * Whether a 206 holds the bytes of a layer of `size` from `from` on. Some servers name the end that was asked for, one past the last
 * byte, though they send what there is: that is taken if the length says so too. A body that is coded is not a part of anything.
 */
export const continues = (headers: Headers, { etag, from, size }: Part): boolean => {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(headers["content-range"]?.trim() ?? "") ?? []
  const length = lengthOf(headers), end = Number(last)
  const plain = Result.getOrElse(Coding.codingOf(headers["content-encoding"]), () => "?") === undefined
  const whole = end === size && length === size - from
  const same = etag === undefined || etagOf(headers) === undefined || etagOf(headers) === etag
  return size !== undefined && Number(first) === from && (end >= from && end < size || whole) && (total === "*" || Number(total) === size) &&
    same && (plain || length === (whole ? size : end + 1) - from)
}
