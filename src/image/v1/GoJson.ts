import { Result, Schema } from "effect"
import * as GoText from "./GoText.ts"

/** The text is no JSON to Go's encoding/json. `at` is the index (UTF-16) of the first wrong character; `reason` is in Go's words. */
export class InvalidGoJson extends Schema.TaggedError<InvalidGoJson>()("InvalidGoJson", { at: Schema.Natural, reason: Schema.String }) {
  override get message() {
    return `not JSON at character ${this.at + 1}: ${this.reason}; the document must come from its author again`
  }
}

/** Go's own limit on how deep objects and arrays may nest. */
export const maxDepth = 10_000

const openObject = 123, closeObject = 125, openArray = 91, closeArray = 93, quoteMark = 34, backslash = 92, comma = 44, colon = 58
const isSpace = (code: number) => code === 32 || code === 10 || code === 13 || code === 9
const isDigit = (code: number) => code >= 48 && code <= 57

/** Thrown and caught within this file. */
class Stop extends Error {
  readonly at: number

  constructor(at: number, reason: string) {
    super(reason)
    this.at = at
  }
}

/** Go names the wrong byte, as if it were a character of its own. */
const wrong = (text: string, at: number, context: string): Stop => {
  const code = text.codePointAt(at)
  if (code === undefined) return new Stop(text.length, "unexpected end of JSON input")
  const byte = String.fromCharCode(new TextEncoder().encode(String.fromCodePoint(code))[0] ?? 0)
  const shown = byte === "'" ? String.raw`'\''` : byte === "\"" ? `'"'` : `'${GoText.quote(byte).slice(1, -1)}'`
  return new Stop(at, `invalid character ${shown} ${context}`)
}

/** Checks a whole text, once, with a stack of its own: no nesting is too deep for it. */
class Checker {
  private at = 0
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** The one value's start and end. */
  document(): readonly [start: number, end: number] {
    const open: Array<number> = []
    this.space()
    const start = this.at
    for (;;) {
      if (this.value(open)) continue
      const end = this.at
      if (!this.after(open)) return [start, end]
    }
  }

  private code(): number {
    return this.text.charCodeAt(this.at)
  }

  private space(): void {
    while (isSpace(this.code())) this.at++
  }

  /** Reads a whole value that holds none, or enters one: then true, and a value comes next. */
  private value(open: Array<number>): boolean {
    this.space()
    const code = this.code()
    if (code === openObject || code === openArray) {
      if (open.length >= maxDepth) throw new Stop(this.at, "exceeded max depth")
      open.push(code + 2)
      this.at++
      this.space()
      if (this.code() === code + 2) {
        open.pop()
        this.at++
        return false
      }
      if (code === openObject) this.key()
      return true
    }
    if (code === quoteMark) this.string()
    else if (code === 45 || isDigit(code)) this.number()
    else this.word()
    return false
  }

  /** After a value: true if one more comes, false after the last. */
  private after(open: Array<number>): boolean {
    for (;;) {
      this.space()
      const close = open.at(-1)
      if (close === undefined) {
        if (this.at < this.text.length) throw wrong(this.text, this.at, "after top-level value")
        return false
      }
      const code = this.code()
      if (code === comma) {
        this.at++
        this.space()
        if (close === closeObject) this.key()
        return true
      }
      if (code !== close) throw wrong(this.text, this.at, close === closeObject ? "after object key:value pair" : "after array element")
      open.pop()
      this.at++
    }
  }

  private key(): void {
    if (this.code() !== quoteMark) throw wrong(this.text, this.at, "looking for beginning of object key string")
    this.string()
    this.space()
    if (this.code() !== colon) throw wrong(this.text, this.at, "after object key")
    this.at++
  }

  private string(): void {
    for (this.at++;; this.at++) {
      const code = this.code()
      if (code === quoteMark) break
      if (code === backslash) this.escape()
      else if (!(code >= 32)) throw wrong(this.text, this.at, "in string literal")
    }
    this.at++
  }

  /** From a backslash to the last unit of its escape. */
  private escape(): void {
    const kind = this.text[++this.at] ?? ""
    if (kind === "u") {
      for (let digit = 0; digit < 4; digit++) {
        if (!/^[0-9a-fA-F]$/.test(this.text[++this.at] ?? "")) throw wrong(this.text, this.at, String.raw`in \u hexadecimal character escape`)
      }
    } else if (!/^["\\/bfnrt]$/.test(kind)) {
      throw wrong(this.text, this.at, "in string escape code")
    }
  }

  private digits(context: string): void {
    if (!isDigit(this.code())) throw wrong(this.text, this.at, context)
    while (isDigit(this.code())) this.at++
  }

  private number(): void {
    if (this.code() === 45) this.at++
    if (this.code() === 48) this.at++
    else this.digits("in numeric literal")
    if (this.code() === 46) {
      this.at++
      this.digits("after decimal point in numeric literal")
    }
    if (this.code() === 101 || this.code() === 69) {
      this.at++
      if (this.code() === 43 || this.code() === 45) this.at++
      this.digits("in exponent of numeric literal")
    }
  }

  private word(): void {
    const word = { t: "true", f: "false", n: "null" }[this.text[this.at] ?? ""]
    if (word === undefined) throw wrong(this.text, this.at, "looking for beginning of value")
    for (const [index, letter] of Array.from(word).entries()) {
      if (this.text[this.at] !== letter) throw wrong(this.text, this.at, `in literal ${word} (expecting '${word[index] ?? ""}')`)
      this.at++
    }
  }
}

const escapes: Partial<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }

/** What kind of JSON a value is. */
export type Kind = "null" | "bool" | "number" | "string" | "object" | "array"

/** A value within a checked text, as a slice of it: nothing is decoded before it is asked for, and nothing is lost. */
export class GoValue {
  readonly start: number
  readonly end: number
  private readonly text: string

  /** For this file: `text` must have been checked. */
  constructor(text: string, start: number, end: number) {
    this.text = text
    this.start = start
    this.end = end
  }

  get kind(): Kind {
    switch (this.text[this.start]) {
      case "{":
        return "object"
      case "[":
        return "array"
      case "\"":
        return "string"
      case "n":
        return "null"
      case "t":
      case "f":
        return "bool"
      default:
        return "number"
    }
  }

  /** The value as it is written. */
  get source(): string {
    return this.text.slice(this.start, this.end)
  }

  /** A string's characters. Halves of surrogate pairs become U+FFFD each. */
  get string(): string {
    const body = this.text.slice(this.start + 1, this.end - 1)
    let escape = body.indexOf("\\")
    if (escape < 0) return body
    const pieces: Array<string> = []
    let from = 0
    for (; escape >= 0; escape = body.indexOf("\\", from)) {
      const kind = body[escape + 1] ?? ""
      const unit = kind === "u" ? String.fromCharCode(Number.parseInt(body.slice(escape + 2, escape + 6), 16)) : escapes[kind] ?? kind
      pieces.push(body.slice(from, escape), unit)
      from = escape + (kind === "u" ? 6 : 2)
    }
    return (pieces.join("") + body.slice(from)).toWellFormed()
  }

  /** An object's keys (unescaped) and values in their order, repeated keys included. */
  *members(): Generator<readonly [key: string, value: GoValue]> {
    for (let at = this.space(this.start + 1); this.text.charCodeAt(at) !== closeObject; at = this.next(at)) {
      const key = new GoValue(this.text, at, this.skip(at))
      const from = this.space(this.space(key.end) + 1)
      const value = new GoValue(this.text, from, this.skip(from))
      yield [key.string, value]
      at = value.end
    }
  }

  /** An array's values. */
  *items(): Generator<GoValue> {
    for (let at = this.space(this.start + 1); this.text.charCodeAt(at) !== closeArray; at = this.next(at)) {
      const value = new GoValue(this.text, at, this.skip(at))
      yield value
      at = value.end
    }
  }

  /**
   * The value as Go writes a raw value: without the white space around its tokens, with `<`, `>`, `&`, U+2028 and U+2029
   * escaped, and everything else (numbers, escapes, the order of keys) as it was typed.
   */
  compact(): string {
    const pieces: Array<string> = []
    let from = this.start, inString = false
    for (let at = this.start; at < this.end; at++) {
      const code = this.text.charCodeAt(at)
      const replaced = inString ? unsafe[code] : isSpace(code) ? "" : undefined
      if (replaced !== undefined) {
        pieces.push(this.text.slice(from, at), replaced)
        from = at + 1
      } else if (code === quoteMark) {
        inString = !inString
      } else if (code === backslash) {
        at++
      }
    }
    pieces.push(this.text.slice(from, this.end))
    return pieces.join("")
  }

  private space(from: number): number {
    let at = from
    while (isSpace(this.text.charCodeAt(at))) at++
    return at
  }

  /** From the end of an item to the start of the next, or to the closing bracket. */
  private next(end: number): number {
    const at = this.space(end)
    return this.text.charCodeAt(at) === comma ? this.space(at + 1) : at
  }

  /** The end of the value at `from`. */
  private skip(from: number): number {
    let depth = 0, at = from
    for (;;) {
      const code = this.text.charCodeAt(at)
      if (code === openObject || code === openArray) depth++
      else if (code === closeObject || code === closeArray) depth--
      if (code === quoteMark) at = this.skipString(at)
      else if (depth > 0 || code === closeObject || code === closeArray) at++
      else at = this.skipPlain(at)
      if (depth === 0) return at
    }
  }

  /** A number, `true`, `false` or `null`. */
  private skipPlain(from: number): number {
    let at = from
    for (let code = this.text.charCodeAt(at); code > 32 && code !== comma && code !== closeObject && code !== closeArray; code = this.text.charCodeAt(++at));
    return at
  }

  private skipString(from: number): number {
    for (let at = from + 1;; at++) {
      const code = this.text.charCodeAt(at)
      if (code === quoteMark) return at + 1
      if (code === backslash) at++
    }
  }
}

const unsafe: Partial<Record<number, string>> = {
  0x3c: "\\u003c", 0x3e: "\\u003e", 0x26: "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"
}

/** The first number in a value, at any depth, that no 64-bit floating point number is near: Go refuses it where any value may be. */
export const overflow = (value: GoValue): string | undefined => {
  for (const [token] of value.source.matchAll(/"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*/g)) {
    if (token[0] !== "\"" && !Number.isFinite(Number(token))) return token.slice(0, 40)
  }
  return undefined
}

/** A string as Go writes one: `\"`, `\\`, `\n`, `\r`, `\t`, other control bytes and `<`, `>`, `&`, U+2028, U+2029 as `\u00xx`. */
export const quote = (text: string): string =>
  // eslint-disable-next-line no-control-regex
  `"${text.toWellFormed().replace(/["\\<>&\u0000-\u001f\u2028\u2029]/g, (char) => {
    if (char === "\"" || char === "\\") return `\\${char}`
    if (char === "\n") return "\\n"
    if (char === "\r") return "\\r"
    if (char === "\t") return "\\t"
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  })}"`

/**
 * Checks a document as Go's encoding/json does (RFC 8259, at most `maxDepth` levels, repeated keys allowed, no byte order
 * mark) in linear time, and gives its value with the source text kept. `text` must be well-formed UTF-16.
 */
export const parse = (text: string): Result.Result<GoValue, InvalidGoJson> =>
  Result.try({
    try: () => new GoValue(text, ...new Checker(text).document()),
    catch: (cause) => {
      if (cause instanceof Stop) return new InvalidGoJson({ at: cause.at, reason: cause.message })
      throw cause
    }
  })
