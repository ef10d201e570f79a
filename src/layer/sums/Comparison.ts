import { printable } from "../Fault.ts"
import * as Name from "../tree/Name.ts"
import { behind, lost, type Sum } from "./Sums.ts"

/** A name that is not as it should be: not there, not to be there, or what of it is different. */
export interface Difference {
  readonly path: string
  readonly what: "missing" | "extra" | "type" | "content" | "mode" | "owner" | "time" | "attributes" | "journal"
}

/** How many names differ, the first of them, and whether attributes could not be looked at. */
export interface Comparison {
  readonly count: number
  readonly differences: ReadonlyArray<Difference>
  /** Names whose extended attributes this host does not let us read (koffi is missing). */
  readonly unread: number
}

const shown = 20

const differ = (a: Sum, b: Sum, attributes: boolean): Difference["what"] | undefined => {
  if (a.type !== b.type) return "type"
  if (a.data !== b.data || b.data === lost) return "content"
  if (a.mode !== b.mode) return "mode"
  if (a.owner !== b.owner) return "owner"
  if (a.mtime !== b.mtime) return "time"
  return attributes && JSON.stringify(a.xattrs) !== JSON.stringify(b.xattrs) ? "attributes" : undefined
}

/** Compares what is with what should be, both in the order of a walk. */
export const compare = (should: Iterator<Sum>, is: Iterator<Sum>, options: { readonly attributes: boolean }): Comparison => {
  const differences: Array<Difference> = []
  let count = 0
  let unread = 0
  const note = ({ name, type }: Sum, what: Difference["what"]) => {
    count++
    const said = type === "journal" ? Name.bytes(name.slice(behind.length)) : Name.bytes(name)
    if (differences.length < shown) differences.push({ path: type === "journal" ? printable(said) : printable(Buffer.from(`/${said.toString("latin1")}`, "latin1")), what: type === "journal" ? "journal" : what })
  }
  let [a, b] = [next(should), next(is)]
  while (a !== undefined || b !== undefined) {
    const order = a === undefined ? 1 : b === undefined ? -1 : compareNames(a.name, b.name)
    if (a !== undefined && order < 0) {
      note(a, "missing")
      a = next(should)
    } else if (b !== undefined && order > 0) {
      note(b, "extra")
      b = next(is)
    } else if (a !== undefined && b !== undefined) {
      if (!options.attributes && a.xattrs.length + b.xattrs.length > 0) unread++
      const what = differ(a, b, options.attributes)
      if (what !== undefined) note(b, what)
      ;[a, b] = [next(should), next(is)]
    }
  }
  return { count, differences, unread }
}

const next = (iterator: Iterator<Sum>): Sum | undefined => {
  const { done, value } = iterator.next()
  return done === true ? undefined : value
}

const compareNames = (a: string, b: string): number => {
  if (a === b) return 0
  return Name.inOrder(a) < Name.inOrder(b) ? -1 : 1
}
