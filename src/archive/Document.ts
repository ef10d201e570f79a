import { Result, Schema } from "effect"
import * as Json from "../image/Json.ts"
import * as Reference from "../image/Reference.ts"
import { ArchiveRefused } from "./Fault.ts"
import type { ArchiveFile } from "./ArchiveFile.ts"

/** Documents of an archive are read up to so many bytes: 4 MiB. */
export const documentCap = 4 * 1024 * 1024

/** A small document as data: strict JSON, see `Json.decode`. Throws `ArchiveRefused`. */
export const json = (file: ArchiveFile): Json.Value => {
  const read = Json.decode(file.bytes(documentCap))
  if (Result.isFailure(read)) throw file.refuse(`${read.failure.reason} (at character ${read.failure.at + 1})`)
  return read.success
}

/** The document as `schema` has it. Throws `ArchiveRefused`. */
export const decode = <S extends Schema.Constraint & { readonly DecodingServices: never }>(schema: S, file: ArchiveFile): S["Type"] => {
  const value = json(file)
  const read = Schema.decodeUnknownResult(schema)(value)
  if (Result.isFailure(read)) throw file.refuse(String(read.failure).replace(/\s*\n\s*/g, " "))
  return read.success
}

/** A name for an image: normalised repository (`docker.io/library/x`) and tag. */
export interface ImageName {
  readonly name: string
  readonly tag: string
}

/** Reads `repository:tag` as people write it, the grammar checked. Throws `ArchiveRefused` for `entry`. */
export const imageName = (archive: string, entry: string, text: string): ImageName => {
  const read = Reference.parseNormalized(text)
  if (Result.isFailure(read)) throw new ArchiveRefused({ archive, entry, rule: read.failure.message })
  const { digest, tag } = Reference.tagNameOnly(read.success)
  if (tag === undefined || digest !== undefined) throw new ArchiveRefused({ archive, entry, rule: `"${text}" is no name and tag` })
  const parsed = Reference.parse(text)
  if (Result.isFailure(parsed)) throw new ArchiveRefused({ archive, entry, rule: parsed.failure.message })
  return { name: `${parsed.success.domain}/${parsed.success.path}`, tag }
}
