import { Option, Schema } from "effect"
import { isDeepStrictEqual } from "node:util"

/** One case run: what the file expects, as far as it counts, and what came out; equal (deeply) when it passed. */
export interface Outcome {
  readonly expected: unknown
  readonly actual: unknown
}

/** One kind of vectors: which lines are of it, and how one is run. */
export interface Kind {
  readonly name: string
  /** Undefined if the line is of another kind. */
  readonly read: (line: unknown) => Option.Option<() => Outcome | Promise<Outcome>>
}

/** A kind whose cases have the form of `schema`. */
export const kind = <S extends Schema.ConstraintDecoder<unknown>>(name: string, schema: S, run: (vector: S["Type"]) => Outcome | Promise<Outcome>): Kind => {
  const decode = Schema.decodeUnknownOption(schema)
  return { name, read: (line) => Option.map(decode(line), (vector) => () => run(vector)) }
}

/** Whether a case passed. */
export const passed = ({ expected, actual }: Outcome): boolean => isDeepStrictEqual(expected, actual)

/** What stands for a step that never returned in 1.9: here it must be an error. */
export const Hang = "the original never returned: an error"

const goLibrary = /json: |invalid character |unexpected end of JSON input|illegal base64 data|asn1: |x509: |io: |parsing time |runtime error|expected object|TarSum/

/**
 * The error to compare with `expected`: the one found, or `expected` itself if they differ only in what Go's own libraries
 * say, which is not ours to reproduce.
 */
export const error = (expected: string | undefined, found: string): string => {
  const foreign = expected?.search(goLibrary) ?? -1
  return expected !== undefined && foreign >= 0 && found.startsWith(expected.slice(0, foreign)) ? expected : found
}
