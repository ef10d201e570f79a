import { Result, Schema, SchemaIssue } from "effect"
import { parse, TomlError } from "smol-toml"
import { printable } from "../../image/Printable.ts"
import { ConfigError } from "./ConfigError.ts"

/** The line (from 1) on which each table begins, in the order of the file. `key`: its parts without quotes; `array`: `[[key]]`. */
export interface Heading {
  readonly key: ReadonlyArray<string>
  readonly array: boolean
  readonly line: number
}

const keyOf = (text: string): ReadonlyArray<string> => {
  const key: Array<string> = []
  let at: unknown = Result.getOrUndefined(Result.try(() => parse(`[${text}]`)))
  while (typeof at === "object" && at !== null) {
    const [entry] = Object.entries(at)
    if (entry === undefined) break
    key.push(entry[0])
    at = entry[1]
  }
  return key
}

/** Where the tables of a TOML document begin: its parser tells no places. */
export const headings = (text: string): ReadonlyArray<Heading> => text.split("\n").flatMap((line, index) => {
  const [, open = "", key = ""] = /^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$/.exec(line.replace(/\r$/, "")) ?? []
  return open === "" ? [] : [{ key: keyOf(key), array: open === "[[", line: index + 1 }]
})

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** What is wrong with decoded data, without the data: it may hold secrets. */
export const problemOf = (error: Schema.SchemaError): string => {
  const [issue] = format(error.issue).issues
  const path = (issue?.path ?? []).map((part) => String(typeof part === "object" ? part.key : part)).join(".")
  const expected = /^Expected (.*?)(?:, (?:got|actual) |$)/is.exec(issue?.message ?? "")?.[1] ?? "something else"
  return printable(path === "" ? `${expected} was expected` : `\`${path}\` should be ${expected}`)
}

/** Reads the TOML document `text` of the file `path` by `schema`; an error names the file, and the line where the parser knows it. */
export const decode = <A>(schema: Schema.Decoder<A>, path: string, text: string): Result.Result<A, ConfigError> =>
  Result.flatMap(
    Result.try({
      try: (): unknown => parse(text, { unsafeKeyBehaviour: "throw" }),
      catch: (error) => error instanceof TomlError
        ? new ConfigError({ path, line: error.line, problem: `it is not TOML (${printable((error.message.split("\n")[0] ?? "").replace(/^Invalid TOML document: /, ""))})` })
        : new ConfigError({ path, problem: "it is not TOML" })
    }),
    (value) => Result.mapError(Schema.decodeUnknownResult(schema)(value), (error) => new ConfigError({ path, problem: problemOf(error) }))
  )
