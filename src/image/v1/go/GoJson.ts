import { Result } from "effect"
import * as GoSyntax from "./GoSyntax.ts"

const { isDigit, isSpace } = GoSyntax
const openObject = 123, closeObject = 125, openArray = 91, closeArray = 93, quoteMark = 34, backslash = 92, comma = 44

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

  /** The first number in the value, at any depth, that is out of a 64-bit float's range: Go refuses it where anything may stand. */
  overflow(): string | undefined {
    for (let at = this.start; at < this.end;) {
      const code = this.text.charCodeAt(at)
      if (code === quoteMark) {
        at = this.skipString(at)
      } else if (code === 45 || isDigit(code)) {
        const end = this.skipPlain(at), number = this.text.slice(at, end)
        if (!Number.isFinite(Number(number))) return number.slice(0, 40)
        at = end
      } else {
        at++
      }
    }
    return undefined
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

/** A string as Go writes one: `\"`, `\\`, `\n`, `\r`, `\t`, other control bytes and `<`, `>`, `&`, U+2028, U+2029 as `\u00xx`. */
export const quote = (text: string): string =>
  `"${text.toWellFormed().replace(/[^ !#-%'-;=?-[\]-\u2027\u202a-\u{10ffff}]/gu, (char) => {
    if (char === "\"" || char === "\\") return `\\${char}`
    if (char === "\n") return "\\n"
    if (char === "\r") return "\\r"
    if (char === "\t") return "\\t"
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  })}"`

/** Checks a document as `GoSyntax.check` does and gives its value with the source text kept. `text` must be well-formed UTF-16. */
export const parse = (text: string): Result.Result<GoValue, GoSyntax.InvalidGoJson> =>
  Result.map(GoSyntax.check(text), ([start, end]) => new GoValue(text, start, end))
