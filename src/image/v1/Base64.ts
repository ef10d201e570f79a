import { Result } from "effect"

const standard = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
const url = `${standard.slice(0, 62)}-_`
const values = (alphabet: string) => new Map(Array.from(alphabet, (char, value) => [char.charCodeAt(0), value]))
const tables = { standard: values(standard), url: values(url) }

/**
 * Decodes padded base64 (RFC 4648) as Go does: line ends anywhere are skipped, left-over bits may be anything. Undefined if
 * it is not base64.
 */
export const decode = (text: string, alphabet: keyof typeof tables): Uint8Array | undefined => {
  const table = tables[alphabet]
  const clean = /[\r\n]/.test(text) ? text.replace(/[\r\n]+/g, "") : text
  if (clean.length % 4 !== 0) return undefined
  const padding = clean.endsWith("==") ? 2 : clean.endsWith("=") ? 1 : 0
  const bytes = new Uint8Array(clean.length / 4 * 3 - padding)
  let bits = 0, held = 0, to = 0
  for (let at = 0; at < clean.length - padding; at++) {
    const value = table.get(clean.charCodeAt(at))
    if (value === undefined) return undefined
    held = (held << 6 | value) & 0xfff
    bits += 6
    if (bits >= 8) {
      bits -= 8
      bytes[to++] = held >> bits
    }
  }
  return bytes
}

/** Decodes base64url as libtrust does: new lines and spaces are dropped and padding may be missing. Fails with its words. */
export const decodeJose = (text: string): Result.Result<Uint8Array, string> => {
  const clean = /[\n ]/.test(text) ? text.replace(/[\n ]+/g, "") : text
  // A carriage return counts for the padding, as there; `decode` skips it afterwards.
  const over = new TextEncoder().encode(clean).length % 4
  if (over === 1) return Result.fail("illegal base64url string")
  const bytes = decode(clean + "=".repeat((4 - over) % 4), "url")
  return bytes === undefined ? Result.fail("illegal base64 data") : Result.succeed(bytes)
}

/** base64url without padding (RFC 7515, section 2). */
export const encodeJose = (bytes: Uint8Array): string => {
  const pieces: Array<string> = []
  for (let at = 0; at < bytes.length; at += 3) {
    const left = bytes.length - at
    const group = (bytes[at] ?? 0) << 16 | (bytes[at + 1] ?? 0) << 8 | (bytes[at + 2] ?? 0)
    const four = (url[group >> 18] ?? "") + (url[group >> 12 & 63] ?? "") + (url[group >> 6 & 63] ?? "") + (url[group & 63] ?? "")
    pieces.push(left < 3 ? four.slice(0, left + 1) : four)
  }
  return pieces.join("")
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

/** base32 (RFC 4648) without padding. */
export const encode32 = (bytes: Uint8Array): string => {
  let bits = 0, held = 0, text = ""
  for (const byte of bytes) {
    held = (held << 8 | byte) & 0xfff
    for (bits += 8; bits >= 5; bits -= 5) text += letters[held >> bits - 5 & 31] ?? ""
  }
  return bits === 0 ? text : text + (letters[held << 5 - bits & 31] ?? "")
}
