import { quote } from "../../image/v1/go/GoJson.ts"
import * as Units from "./Units.ts"

/** How a Docker writes its stream: what is between a number and its unit, and what ends a progress message. */
export interface Dialect {
  readonly blank: "" | " "
  readonly progressEnd: "" | "\r\n"
}

/** Docker 1.9.1: `1.2 MB`, and progress messages follow each other without an end of line. */
export const docker19: Dialect = { blank: " ", progressEnd: "" }

/** The Docker Engine API of today: `1.2MB`, and every message is a line. */
export const today: Dialect = { blank: "", progressEnd: "\r\n" }

/** Members with their values' JSON; the empty ones are left out, as Go's omitempty does. */
const object = (members: ReadonlyArray<readonly [key: string, json: string]>): string =>
  `{${members.filter(([, json]) => json !== "" && json !== `""` && json !== "0").map(([key, json]) => `"${key}":${json}`).join(",")}}`

/** A message with a status alone (FormatStatus); it always ends its line. */
export const status = (id: string, text: string): string => `${object([["status", quote(text)], ["id", quote(id)]])}\r\n`

/** A message on something under way (FormatProgress); without an amount `progressDetail` is empty. */
export const progress = (dialect: Dialect, id: string, action: string, amount?: Units.Amount, columns?: number): string => {
  const { current, total } = amount ?? { current: 0, total: 0 }
  return object([
    ["status", quote(action)],
    ["progressDetail", object([["current", String(current)], ["total", String(total)]])],
    ["progress", quote(Units.progress({ current, total }, dialect.blank, columns))],
    ["id", quote(id)]
  ]) + dialect.progressEnd
}

/** What a failing pull ends with (FormatError); `code` is the HTTP status it failed with. */
export const error = (message: string, code = 0): string =>
  `${object([["errorDetail", object([["code", String(code)], ["message", quote(message)]])], ["error", quote(message)]])}\r\n`
