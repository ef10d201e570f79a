import type { Unset } from "./layer/Job.ts"

/** One sentence on what could not be set on this host, or nothing. */
export const unsetSentence = (unsets: ReadonlyArray<Unset>): string | undefined => {
  const total = (key: keyof Unset) => unsets.reduce((sum, unset) => sum + unset[key], 0)
  const counts = [[total("owners"), "owner"], [total("devices"), "device node"], [total("xattrs"), "extended attribute"], [total("times"), "time"]] as const
  const missing = counts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}${count === 1 ? "" : "s"}`)
  return missing.length === 0 ? undefined
    : `this user or host could not set ${missing.join(", ")}: they are recorded with the layers; pull as root on Linux to have them set`
}
