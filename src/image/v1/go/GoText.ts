/**
 * Bytes as Go reads them where text is meant: every byte that is no part of a UTF-8 sequence becomes one U+FFFD
 * (TextDecoder makes one of several bytes). A byte order mark stays.
 */
export const decode = (bytes: Uint8Array): string => {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  try {
    return strict.decode(bytes)
  } catch {
    const pieces: Array<string> = []
    let from = 0
    for (let at = 0; at < bytes.length;) {
      const length = sequence(bytes, at)
      if (length === 0) pieces.push(strict.decode(bytes.subarray(from, at)), "\ufffd")
      at += length || 1
      if (length === 0) from = at
    }
    return pieces.join("") + strict.decode(bytes.subarray(from))
  }
}

/** The length of the well-formed UTF-8 sequence at `at`, or 0 (Unicode 15, table 3-7). */
const sequence = (bytes: Uint8Array, at: number): number => {
  const first = bytes[at] ?? 0
  if (first < 0x80) return 1
  const length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0
  for (let i = 1; i < length; i++) {
    const low = i > 1 ? 0x80 : first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80
    const high = i > 1 ? 0xbf : first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf
    const byte = bytes[at + i] ?? 0
    if (byte < low || byte > high) return 0
  }
  return length
}

const hex = (code: number, digits: number) => code.toString(16).padStart(digits, "0")
const short: Partial<Record<string, string>> = { "\u0007": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v" }

/** Go's `%q`: in double quotes, with what cannot be printed escaped as Go escapes it. */
export const quote = (text: string): string => {
  const body = Array.from(text.toWellFormed(), (char) => {
    if (char === "\"" || char === "\\") return `\\${char}`
    if (/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u.test(char)) return char
    const code = char.codePointAt(0) ?? 0
    return short[char] ?? (code < 0x20 || code === 0x7f ? `\\x${hex(code, 2)}` : code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`)
  })
  return `"${body.join("")}"`
}

/** Orders texts by their UTF-8 bytes, as Go compares strings: not by UTF-16 units, where surrogates come before U+E000. */
export const compare = (one: string, other: string): number => {
  const shared = Math.min(one.length, other.length)
  for (let at = 0; at < shared; at++) {
    const a = one.charCodeAt(at), b = other.charCodeAt(at)
    if (a !== b) return (a >= 0xd800 && b >= 0xd800 ? rank(a) - rank(b) : a - b)
  }
  return one.length - other.length
}
const rank = (unit: number) => unit >= 0xe000 ? unit - 0x2000 : unit + 0x800
