import { Schema } from "effect"

/** Something in the store that has no partner or is not what it should be. `subject` is a path, digest, id or name. */
export const Finding = Schema.Struct({
  kind: Schema.Literals([
    "blob-file-missing", "blob-row-missing", "blob-size", "blob-digest", "layer-folder-missing", "layer-row-missing",
    "ingest-row-missing", "ingest-entry-missing", "chain-dangling", "image-dangling", "manifest-dangling", "tag-dangling",
    "mode", "database"
  ]),
  subject: Schema.String,
  detail: Schema.String
})

/** One line of `graph check`. */
export type Finding = typeof Finding.Type
