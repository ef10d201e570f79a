import { Result, Schema } from "effect"
import { maxValues } from "../../Json.ts"
import * as GoText from "./GoText.ts"

/** The text is no JSON to Go's encoding/json. `at` is the index (UTF-16) of the first wrong character; `reason` is in Go's words, but for our own limit. */
export class InvalidGoJson extends Schema.TaggedError<InvalidGoJson>()("InvalidGoJson", { at: Schema.Natural, reason: Schema.String }) {
  override get message() {
    return `not JSON at character ${this.at + 1}: ${this.reason}; the document must come from its author again`
  }
}

/** Go's own limit on how deep objects and arrays may nest. */
export const maxDepth = 10_000

const openObject = 123, closeObject = 125, openArray = 91, quoteMark = 34, backslash = 92, comma = 44, colon = 58

/** JSON's white space. */
export const isSpace = (code: number) => code === 32 || code === 10 || code === 13 || code === 9

/** An ASCII digit. */
export const isDigit = (code: number) => code >= 48 && code <= 57

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
  private values = 0
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
      const end = this.value(open) ? undefined : this.after(open)
      if (end !== undefined) return [start, end]
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
    if (++this.values > maxValues) throw new Stop(this.at, `more than ${maxValues} values in one document`)
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

  /** After a value: undefined if one more comes; after the last, where the document's value ended. */
  private after(open: Array<number>): number | undefined {
    for (;;) {
      const end = this.at
      this.space()
      const close = open.at(-1)
      if (close === undefined) {
        if (this.at < this.text.length) throw wrong(this.text, this.at, "after top-level value")
        return end
      }
      const code = this.code()
      if (code === comma) {
        this.at++
        this.space()
        if (close === closeObject) this.key()
        return undefined
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

/**
 * Checks that `text` is one JSON document to Go's encoding/json (RFC 8259, at most `maxDepth` levels, repeated keys allowed,
 * no byte order mark) of at most `maxValues` values, which is our own limit, in linear time, and gives where its value starts and ends.
 */
export const check = (text: string): Result.Result<readonly [start: number, end: number], InvalidGoJson> =>
  Result.try({
    try: () => new Checker(text).document(),
    catch: (cause) => {
      if (cause instanceof Stop) return new InvalidGoJson({ at: cause.at, reason: cause.message })
      throw cause
    }
  })
