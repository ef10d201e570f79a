import { Refused } from "../Fault.ts"

/** Owners from `inside` on, `count` of them, are those from `outside` on. */
export interface Range {
  readonly inside: number
  readonly outside: number
  readonly count: number
}

/** Who owns what of a root file system: ranges, which every owner must be in, or the user this process runs as (`squash`). */
export interface OwnerMap {
  readonly uid: ReadonlyArray<Range> | "squash" | undefined
  readonly gid: ReadonlyArray<Range> | "squash" | undefined
}

const id = (map: ReadonlyArray<Range> | "squash" | undefined, own: number, value: number, what: "uid" | "gid", name: Uint8Array): number => {
  if (map === undefined) return value
  if (map === "squash") return own
  for (const { count, inside, outside } of map) if (value >= inside && value < inside + count) return outside + value - inside
  throw new Refused(`its ${what} is ${value}, which is in no range of the ${what} map`, name)
}

/** Owners as a map says; those of `name` that no range has are refused. */
export const mapped = ({ gid, uid }: OwnerMap, owner: { readonly uid: number; readonly gid: number }, name: Uint8Array): { readonly uid: number; readonly gid: number } => ({
  uid: id(uid, process.geteuid?.() ?? 0, owner.uid, "uid", name), gid: id(gid, process.getegid?.() ?? 0, owner.gid, "gid", name)
})

/** Reads `squash`, or ranges as `newuidmap` takes them: `INSIDE:OUTSIDE:COUNT`, more after commas. Undefined if it is neither, or ranges overlap. */
export const parse = (text: string): ReadonlyArray<Range> | "squash" | undefined => {
  if (text === "squash") return text
  const ranges: Array<Range> = []
  for (const part of text.split(",")) {
    const [, inside, outside, count] = (/^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(part) ?? []).map(Number)
    if (inside === undefined || outside === undefined || count === undefined || count === 0) return undefined
    if (Math.max(inside, outside) + count > 2 ** 32 - 1) return undefined
    if (ranges.some((other) => inside < other.inside + other.count && other.inside < inside + count)) return undefined
    ranges.push({ inside, outside, count })
  }
  return ranges
}
