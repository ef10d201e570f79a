import { Result } from "effect"
import * as Json from "../../image/Json.ts"
import { printable } from "../../image/Printable.ts"
import { isImageId } from "../../image/v1/FixManifest.ts"
import { isTag } from "../answer/TagList.ts"

/** One image of a repository's list. */
export interface ListedImage {
  readonly id: string
  readonly tag: string | undefined
  readonly checksum: string | undefined
}

/** The longest document that is read, in bytes. */
export const documentCap = 4 << 20
/** The longest chain of images: Docker never made one of more than 127. */
export const maximumDepth = 1024

type Read<A> = Result.Result<A, string>

const fail = (field: string, rule: string) => Result.fail(field === "" ? rule : `${field}: ${rule}`)
const shown = (value: Json.Value | undefined) => typeof value === "string" ? `"${printable(value, 100)}"` : value === undefined ? "nothing" : value === null ? "null" : Array.isArray(value) ? "a list" : typeof value === "object" && !(value instanceof Json.Decimal) ? "an object" : `a ${typeof value === "boolean" ? "boolean" : "number"}`

const parse = (raw: Uint8Array): Read<Json.Value> =>
  Result.mapError(Json.decode(raw), ({ at, reason }) => `it is no acceptable JSON at character ${at + 1}: ${reason}`)

const idOf = (field: string, value: Json.Value | undefined): Read<string> =>
  typeof value === "string" && isImageId(value) ? Result.succeed(value) : fail(field, `expected 64 lower-case hexadecimal digits, found ${shown(value)}`)

/** Text; null, "" and absence are undefined. */
const textOf = (field: string, value: Json.Value | undefined): Read<string | undefined> =>
  value === undefined || value === null || value === "" ? Result.succeed(undefined)
    : typeof value === "string" ? Result.succeed(value) : fail(field, `expected a text, found ${shown(value)}`)

const tagOf = (field: string, value: Json.Value | undefined): Read<string> =>
  typeof value === "string" && isTag(value) ? Result.succeed(value) : fail(field, `expected a tag, found ${shown(value)}`)

/** `repositories/R/images`: the images of a repository in any order. Entries without an id and unknown keys are left out. */
export const images = (raw: Uint8Array): Read<ReadonlyArray<ListedImage>> => Result.gen(function*() {
  const document = yield* parse(raw)
  if (document === null) return []
  if (!Array.isArray(document)) return yield* fail("", `expected a list, found ${shown(document)}`)
  const found: Array<ListedImage> = []
  for (const [index, entry] of document.entries()) {
    if (!Json.isObject(entry)) return yield* fail(`[${index}]`, `expected an object, found ${shown(entry)}`)
    if (entry["id"] === undefined || entry["id"] === null) continue
    const id = yield* idOf(`[${index}].id`, entry["id"])
    const tag = yield* textOf(`[${index}].Tag`, entry["Tag"])
    if (tag !== undefined) yield* tagOf(`[${index}].Tag`, tag)
    found.push({ id, tag, checksum: yield* textOf(`[${index}].checksum`, entry["checksum"]) })
  }
  return found
})

/**
 * `repositories/R/tags`: `{"tag":"ID"}`, or the old hub's `[{"layer":"ID or its beginning","name":"tag"}]`, whose beginnings must
 * mean one of `known`.
 */
export const tags = (raw: Uint8Array, known: ReadonlyArray<string>): Read<ReadonlyMap<string, string>> => Result.gen(function*() {
  const document = yield* parse(raw)
  const found = new Map<string, string>()
  if (document === null) return found
  if (Array.isArray(document)) {
    const ids = new Set(known)
    for (const [index, entry] of document.entries()) {
      if (!Json.isObject(entry)) return yield* fail(`[${index}]`, `expected an object, found ${shown(entry)}`)
      const name = yield* tagOf(`[${index}].name`, entry["name"])
      if (found.has(name)) return yield* fail(`[${index}].name`, `the tag ${name} a second time`)
      const layer = entry["layer"]
      if (typeof layer !== "string" || !/^[a-f0-9]{8,64}$/.test(layer)) return yield* fail(`[${index}].layer`, `expected an image ID or its first 8 digits or more, found ${shown(layer)}`)
      const meant = isImageId(layer) ? [layer] : [...ids].filter((id) => id.startsWith(layer))
      const [id] = meant
      if (id === undefined || meant.length > 1) return yield* fail(`[${index}].layer`, `"${layer}" is the beginning of ${meant.length} images of the repository's list`)
      found.set(name, id)
    }
    return found
  }
  if (!Json.isObject(document)) return yield* fail("", `expected an object or a list, found ${shown(document)}`)
  for (const [name, id] of Object.entries(document)) found.set(yield* tagOf("", name), yield* idOf(name, id))
  return found
})

/** `repositories/R/tags/T`: the image a tag names, as a JSON string. */
export const tag = (raw: Uint8Array): Read<string> => Result.flatMap(parse(raw), (value) => idOf("", value))

/** `images/ID/ancestry`: `id` itself first, the base last. */
export const ancestry = (raw: Uint8Array, id: string): Read<ReadonlyArray<string>> => Result.gen(function*() {
  const document = yield* parse(raw)
  if (!Array.isArray(document)) return yield* fail("", `expected a list, found ${shown(document)}`)
  if (document.length > maximumDepth) return yield* fail("", `it has ${document.length} images, at most ${maximumDepth} are taken`)
  const found = new Set<string>()
  for (const [index, entry] of document.entries()) {
    const one = yield* idOf(`[${index}]`, entry)
    if (index === 0 && one !== id) return yield* fail("[0]", `expected ${id} itself, found ${one}`)
    if (found.has(one)) return yield* fail(`[${index}]`, `the image ${one} a second time`)
    found.add(one)
  }
  return found.size === 0 ? yield* fail("", "it is empty") : [...found]
})

/** What the body of a `_ping` says about `standalone`; undefined: nothing. Anything may stand there. */
export const standalone = (raw: Uint8Array): boolean | undefined => {
  const document = Result.getOrUndefined(Json.decode(raw))
  const said = document !== undefined && Json.isObject(document) ? document["standalone"] : undefined
  return typeof said === "boolean" ? said : undefined
}

/** A size header: undefined if absent or -1 (unknown). */
export const size = (header: string | undefined): Read<number | undefined> => {
  const text = header?.trim()
  if (text === undefined || text === "-1") return Result.succeed(undefined)
  return /^\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text)) ? Result.succeed(Number(text)) : fail("X-Docker-Size", `expected a number of bytes, found "${printable(text, 100)}"`)
}

/** The sha256 digests of X-Docker-Checksum-Payload, of which one must be that of the json, a new line and the layer as stored. Other algorithms are left out. */
export const payloadChecksums = (header: string | undefined): Read<ReadonlyArray<string>> => Result.gen(function*() {
  const found: Array<string> = []
  for (const text of (header ?? "").split(",").map((part) => part.trim())) {
    if (!text.startsWith("sha256:")) continue
    if (!/^sha256:[a-f0-9]{64}$/.test(text)) return yield* fail("X-Docker-Checksum-Payload", `expected sha256: and 64 hexadecimal digits, found "${printable(text, 100)}"`)
    found.push(text)
  }
  return found
})
