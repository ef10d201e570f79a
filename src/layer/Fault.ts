import type { LimitName } from "./Limits.ts"

/** Text of raw name bytes for people: UTF-8 where it is, each byte of anything else, and every control character, as `\xNN`. */
export const printable = (bytes: Uint8Array): string => {
  const text = new TextDecoder("utf-8").decode(bytes)
  const exact = Buffer.from(text, "utf8").equals(bytes)
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  const unprintable = exact ? /[\u0000-\u001f\u007f-\u009f]/g : /[^\u0020-\u007e]/g
  const shown = (exact ? text : Buffer.from(bytes).toString("latin1"))
    .replace(unprintable, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`)
  return shown.length > 300 ? `${shown.slice(0, 300)}...` : shown
}

/**
 * An archive, its compression or its content is refused (rules.md, archive rows): `rule` says what it breaks, `entry` is
 * the printable name of the entry that does, if one does. Errors of the system stay Node's own (`code`, `syscall`, `path`).
 */
export class Refused extends Error {
  override readonly name = "Refused"
  readonly rule: string
  readonly entry: string | undefined
  /** The limit that is in the way, if one is. */
  readonly limit: LimitName | undefined

  /** `entry` may be a name's raw bytes; they are made printable. */
  constructor(rule: string, entry?: string | Uint8Array, limit?: LimitName) {
    const shown = typeof entry === "object" ? printable(entry) : entry
    super(shown === undefined ? rule : `entry "${shown}": ${rule}`)
    this.rule = rule
    this.entry = shown
    this.limit = limit
  }
}

/** A path leads through something that is no folder. */
export class NoFolder extends Refused {}
