/**
 * A path inside a root, as text with one character (U+0000 to U+00FF) per byte, cleaned: relative, segments joined by
 * single slashes, none of them empty, `.` or `..`. The root itself is "".
 */
export type Name = string

/** The bytes of a name. */
export const bytes = (name: Name): Buffer => Buffer.from(name, "latin1")

const unclean = /(?:^|\/)(?:\.{0,2})(?:\/|$)/

/** The name for raw bytes from an archive: relative to the root, `..` taken away with what is before it, never above the root. */
export const clean = (raw: Buffer): Name => {
  const text = raw.toString("latin1", raw[0] === 0x2e && raw[1] === 0x2f ? 2 : 0)
  if (!unclean.test(text)) return text
  const segments: Array<string> = []
  for (const segment of text.split("/")) {
    if (segment === "" || segment === ".") continue
    if (segment === "..") segments.pop()
    else segments.push(segment)
  }
  return segments.join("/")
}

/** Whether a path that is taken from the folder `from` on, step by step, leads above the root (Go: `filepath.Clean` of it begins with `..`). */
export const climbs = (raw: Buffer, from: Name = ""): boolean => {
  let depth = from === "" ? 0 : from.split("/").length
  let above = 0
  for (const segment of raw.toString("latin1").split("/")) {
    if (segment === "" || segment === ".") continue
    if (segment !== "..") depth++
    else if (depth > 0) depth--
    else above++
  }
  return above > 0
}

/** A name as it stands in the order of a walk: a folder, then what is in it. */
export const inOrder = (name: Name): string => name.replaceAll("/", "\u0000")

/** The folder a name is in; of a name at the root, and of the root, "". */
export const parent = (name: Name): Name => name.slice(0, Math.max(0, name.lastIndexOf("/")))

/** The last segment. */
export const last = (name: Name): Name => name.slice(name.lastIndexOf("/") + 1)

/** `segment` in the folder `name`. */
export const join = (name: Name, segment: Name): Name => name === "" ? segment : `${name}/${segment}`
