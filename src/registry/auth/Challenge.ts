import { Result } from "effect"

/** One challenge: the scheme in lower case; its token68, or its parameters (names in lower case, values unquoted). */
export interface Challenge {
  readonly scheme: string
  readonly token68: string | undefined
  readonly parameters: ReadonlyMap<string, string>
}

/** The longest WWW-Authenticate that is read, in characters. */
export const maximumLength = 8192

const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const token68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y
const spaces = /[ \t]*/y
const separators = /[ \t,]*/y
const quoted = /"((?:[^"\\]|\\.)*)"/ys
/** What a server may have left unquoted although it is no token: `scope=repository:a/b:pull`. */
const bare = /[^\s",]+/y
const equals = /[ \t]*=[ \t]*/y

/**
 * Reads the value of WWW-Authenticate, several headers joined by commas included (RFC 9110, 11.6.1 with 11.2 and 5.6.1):
 * empty list elements, white space around `=` and commas, quoted strings with escapes and commas, token68.
 * A parameter given twice in one challenge, or anything else out of the grammar, fails with what is wrong and where.
 */
export const parse = (text: string): Result.Result<ReadonlyArray<Challenge>, string> => {
  if (text.length > maximumLength) return Result.fail(`it is longer than ${maximumLength} characters`)
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (match === null) return undefined
    at += match[0].length
    return match
  }
  const challenges: Array<Challenge> = []
  let parameters: Map<string, string> | undefined
  let commaNeeded = false
  for (;;) {
    const gap = take(separators)?.[0] ?? ""
    if (at === text.length) return Result.succeed(challenges)
    if (commaNeeded && !gap.includes(",")) return Result.fail(`a comma is missing at character ${at + 1}`)
    commaNeeded = true
    const name = take(token)?.[0]
    if (name === undefined) return Result.fail(`character ${at + 1} begins neither a scheme nor a parameter`)
    if (take(equals) !== undefined) {
      if (parameters === undefined) return Result.fail(`the parameter ${name} belongs to no scheme`)
      const value = take(quoted)?.[1]?.replace(/\\(.)/gs, "$1") ?? take(bare)?.[0]
      if (value === undefined) return Result.fail(`the parameter ${name} has no value`)
      if (parameters.has(name.toLowerCase())) return Result.fail(`the parameter ${name} is given twice`)
      parameters.set(name.toLowerCase(), value)
      continue
    }
    const apart = (take(spaces)?.[0] ?? "") !== ""
    const single = apart ? take(token68)?.[0] : undefined
    parameters = single === undefined ? new Map() : undefined
    challenges.push({ scheme: name.toLowerCase(), token68: single, parameters: parameters ?? new Map() })
    commaNeeded = !apart || single !== undefined
  }
}
