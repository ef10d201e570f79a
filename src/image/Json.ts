import { Result, Schema } from "effect"

/** The bytes are no JSON document we take. `at` is the index of the first wrong UTF-16 unit of the decoded text. */
export class InvalidJson extends Schema.TaggedError<InvalidJson>()("InvalidJson", { at: Schema.Natural, reason: Schema.String }) {
  override get message() {
    return `not acceptable as JSON at character ${this.at + 1}: ${this.reason}; the document must come from its author again`
  }
}

/** A number that is not written as a plain integer of at most 2^53-1: its text, so that nothing is rounded to an integer. */
export class Decimal {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** An object without a prototype: every key is its own. */
export interface JsonObject {
  readonly [key: string]: Value
}

/** What `decode` makes: plain integers as numbers, all other numbers as `Decimal`. */
export type Value = null | boolean | number | string | Decimal | ReadonlyArray<Value> | JsonObject

/** Objects and arrays may nest so deep; real manifests and configs stay under ten. */
export const maxDepth = 128

/** So many values (131,072) a document may have: what 4 MiB could say would take hundreds as many in memory. Real ones stay under 10,000. */
export const maxValues = 2 ** 17

/** Thrown and caught within this file. */
class Stop extends Error {
  readonly at: number

  constructor(at: number, reason: string) {
    super(reason)
    this.at = at
  }
}

const escapes: Partial<Record<string, string>> = { "\"": "\"", "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }

/** RFC 8259, one pass; the depth limit bounds its recursion. */
class Parser {
  private at = 0
  private values = 0
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  document(): Value {
    if (this.text.charCodeAt(0) === 0xfeff) throw new Stop(0, "it begins with a byte order mark")
    const value = this.value(0)
    this.space()
    if (this.at < this.text.length) throw this.stop("more bytes follow the document")
    return value
  }

  private stop(reason: string, at = this.at): Stop {
    return at >= this.text.length ? new Stop(this.text.length, "it ends too early") : new Stop(at, reason)
  }

  private space(): void {
    for (;; this.at++) {
      const code = this.text.charCodeAt(this.at)
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return
    }
  }

  private value(depth: number): Value {
    this.space()
    if (++this.values > maxValues) throw this.stop(`more than ${maxValues} values in one document`)
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth + 1)
      case "[":
        return this.array(depth + 1)
      case "\"":
        return this.string()
      case "t":
        return this.word("true", true)
      case "f":
        return this.word("false", false)
      case "n":
        return this.word("null", null)
      default:
        return this.number()
    }
  }

  private word<A>(word: string, value: A): A {
    if (!this.text.startsWith(word, this.at)) throw this.stop("expected a value")
    this.at += word.length
    return value
  }

  private digits(): void {
    const from = this.at
    for (let code = this.text.charCodeAt(this.at); code >= 48 && code <= 57; code = this.text.charCodeAt(++this.at));
    if (this.at === from) throw this.stop("expected a digit")
  }

  private number(): number | Decimal {
    const from = this.at
    if (this.text[this.at] === "-") this.at++
    else if (!/^[0-9]$/.test(this.text[this.at] ?? "")) throw this.stop("expected a value")
    if (this.text[this.at] === "0") this.at++
    else this.digits()
    const integerEnd = this.at
    if (this.text[this.at] === ".") {
      this.at++
      this.digits()
    }
    if (this.text[this.at] === "e" || this.text[this.at] === "E") {
      this.at++
      if (this.text[this.at] === "+" || this.text[this.at] === "-") this.at++
      this.digits()
    }
    const text = this.text.slice(from, this.at), number = Number(text)
    return this.at === integerEnd && Number.isSafeInteger(number) && !Object.is(number, -0) ? number : new Decimal(text)
  }

  private string(): string {
    const start = this.at++
    let out = "", from = this.at
    for (;; this.at++) {
      const code = this.text.charCodeAt(this.at)
      if (code === 34) break
      if (code === 92) {
        out += this.text.slice(from, this.at) + this.escape()
        from = this.at + 1
      } else if (!(code >= 32)) {
        throw this.stop("a control character inside a string")
      }
    }
    out += this.text.slice(from, this.at++)
    // UTF-8 holds no halves of surrogate pairs; escapes can, and decoders differ in what they make of them.
    if (!out.isWellFormed()) throw new Stop(start, "a string with half of a surrogate pair")
    return out
  }

  /** From a backslash to the last unit of its escape. */
  private escape(): string {
    const kind = this.text[++this.at] ?? ""
    if (kind === "u") {
      const hex = this.text.slice(this.at + 1, this.at + 5)
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) throw this.stop("expected four hexadecimal digits after \\u", this.at + 1)
      this.at += 4
      return String.fromCharCode(Number.parseInt(hex, 16))
    }
    const plain = escapes[kind]
    if (plain === undefined) throw this.stop("an unknown escape in a string")
    return plain
  }

  /** After an item: true if a comma says that one more comes, false at `close`. */
  private more(close: string): boolean {
    this.space()
    const found = this.text[this.at]
    if (found !== "," && found !== close) throw this.stop(`expected \`,\` or \`${close}\``)
    this.at++
    return found === ","
  }

  /** Enters an object or array; true if it is not empty. */
  private enter(depth: number, close: string): boolean {
    if (depth > maxDepth) throw this.stop(`nested deeper than ${maxDepth} levels`)
    this.at++
    this.space()
    if (this.text[this.at] !== close) return true
    this.at++
    return false
  }

  private array(depth: number): ReadonlyArray<Value> {
    const items: Array<Value> = []
    if (this.enter(depth, "]")) {
      do items.push(this.value(depth))
      while (this.more("]"))
    }
    return items
  }

  private object(depth: number): JsonObject {
    const fields: Record<string, Value> = Object.create(null)
    if (!this.enter(depth, "}")) return fields
    do {
      this.space()
      const keyAt = this.at
      if (this.text[keyAt] !== "\"") throw this.stop("expected a key in double quotes")
      const key = this.string()
      if (key === "__proto__") throw new Stop(keyAt, "the key \"__proto__\", which no document needs")
      if (key in fields) throw new Stop(keyAt, `the key ${JSON.stringify(key.slice(0, 100))} a second time in one object`)
      this.space()
      if (this.text[this.at] !== ":") throw this.stop("expected `:`")
      this.at++
      fields[key] = this.value(depth)
    } while (this.more("}"))
    return fields
  }
}

/**
 * Decodes one JSON document (RFC 8259) of hostile origin in linear time: UTF-8 without byte order mark, nothing after it,
 * no key twice in one object, no `__proto__`, at most `maxDepth` levels and `maxValues` values. Objects have no prototype. The caller caps `raw`.
 */
export const decode = (raw: Uint8Array): Result.Result<Value, InvalidJson> =>
  Result.try({
    try: () => new Parser(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw)).document(),
    catch: (cause) => cause instanceof Stop ? new InvalidJson({ at: cause.at, reason: cause.message })
      : new InvalidJson({ at: 0, reason: "the bytes are not UTF-8" })
  })

/** An object, and not null, an array or a number. */
export const isObject = (value: Value | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Decimal)

// As Go's encoding/json compares keys: ASCII case and the two letters that fold into ASCII.
const fold = (key: string) => key.replaceAll("\u212a", "k").replaceAll("\u017f", "s").toLowerCase()

/**
 * The first key that is one of `names` but for upper or lower case. Some readers take it for that name and some do not,
 * so the document would mean different things to them.
 */
export const miscased = (object: JsonObject, names: ReadonlySet<string>): string | undefined => {
  const folded = new Set(Array.from(names, fold))
  return Object.keys(object).find((key) => !names.has(key) && folded.has(fold(key)))
}
