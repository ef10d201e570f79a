import { Schema } from "effect"
import { printable } from "../image/Printable.ts"

/**
 * An image archive, or layout, is refused: `archive` is the path it was given by, `entry` the name of what breaks the `rule`
 * ("" = the archive itself); `advice` is what to do about it, if it is not to save the archive again.
 */
export class ArchiveRefused extends Schema.TaggedError<ArchiveRefused>()("ArchiveRefused", {
  archive: Schema.String,
  entry: Schema.String,
  rule: Schema.String,
  advice: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const entry = this.entry === "" ? "" : `entry "${printable(this.entry)}": `
    return `${printable(this.archive)} is refused: ${entry}${printable(this.rule)}; ${this.advice === undefined ? "it must be saved again as a whole" : printable(this.advice)}`
  }
}

const words: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or folder; check the path",
  ENOTDIR: "a part of the path is not a folder; check the path",
  ELOOP: "it is a link, which is not followed there; check the path",
  EACCES: "permission denied; check the path",
  EIO: "the disk reported a read or write error; check it before trying again",
  EMFILE: "too many open files; raise the limit (ulimit -n)",
  ENFILE: "the system has too many open files; try again later"
}

/** An archive or layout could not be read: the disk refused. `code` is errno's name. */
export class ArchiveUnreadable extends Schema.TaggedError<ArchiveUnreadable>()("ArchiveUnreadable", {
  path: Schema.String,
  code: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `cannot read ${printable(this.path)}: ${words[this.code] ?? "the system refuses it; check the path"} (${this.code})`
  }
}

/** What opening and reading an archive can fail with. */
export type ArchiveError = ArchiveRefused | ArchiveUnreadable

/** A thrown value as the error it is: the system's become `ArchiveUnreadable`, bugs stay what they are. */
export const faultOf = (cause: unknown, path: string): ArchiveError => {
  if (cause instanceof ArchiveRefused || cause instanceof ArchiveUnreadable) return cause
  if (cause instanceof Error && "code" in cause && typeof cause.code === "string") return new ArchiveUnreadable({ path, code: cause.code, cause })
  throw cause
}
