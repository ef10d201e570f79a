import type { Answer } from "../Transport.ts"

/** Whether an answer holds a range of a blob of `size` bytes that begins at `from` (RFC 9110, 14.4), not encoded whatever its headers say. */
export const holdsFrom = (answer: Answer, from: number, size: number): boolean => {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(answer.headers["content-range"]?.trim() ?? "") ?? []
  const { "content-encoding": coding = "", "content-length": length } = answer.headers
  return Number(first) === from && Number(last) >= from && Number(last) < size && (total === "*" || Number(total) === size) &&
    (coding === "" || Number(length) === Number(last) - from + 1)
}
