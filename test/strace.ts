import { spawnSync } from "node:child_process"

// strace sends a real process a signal, or fails a call, as it enters its n-th call of a kind.
const strace = ["strace", "-f", "-qq", "-y"] // with --seccomp-bpf, strace 6.1 does not count

/** Whether strace is missing, or may not trace. */
export const missing: boolean = spawnSync("strace", ["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).status !== 0

/** What changes a disk, or reads it, by the names it has on one architecture or another. */
export const kinds = {
  rename: ["rename", "renameat", "renameat2"],
  fsync: ["fsync", "fdatasync"],
  link: ["link", "linkat", "symlink", "symlinkat"],
  unlink: ["unlink", "unlinkat", "rmdir"],
  mkdir: ["mkdir", "mkdirat"],
  write: ["write", "writev", "pwrite64", "pwritev", "ftruncate", "copy_file_range"],
  mode: ["chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utimensat"],
  open: ["open", "openat"],
  read: ["read", "pread64", "getdents64"]
} as const
/** A kind of call. */
export type Kind = keyof typeof kinds

/** A call, and which of the thread that makes most of it: strace counts for each thread. */
export interface Point {
  readonly kind: Kind
  readonly call: string
  readonly nth: number
}

/** Runs what follows, and writes all its calls of these kinds to the file. */
export const traced = (file: string, wanted: ReadonlyArray<Kind>): ReadonlyArray<string> =>
  [...strace, "-o", file, "-e", `trace=${wanted.flatMap((kind) => kinds[kind]).map((name) => `?${name}`).join(",")}`]

/**
 * Points of each kind in a trace of a whole run, among the calls on paths in `folder`: at most `count` of a kind, spread over
 * all there are.
 */
export const pointsIn = (trace: string, folder: string, wanted: ReadonlyArray<Kind>, count: number): ReadonlyArray<Point> => {
  const kindOf = new Map<string, Kind>(wanted.flatMap((kind) => kinds[kind].map((call) => [call, kind] as const)))
  const counts = new Map<string, number>()
  const found = new Map<string, Point>()
  for (const line of trace.split("\n")) {
    const [, thread = "", call = ""] = /^(\d+) +(\w+)\(/.exec(line) ?? []
    const kind = kindOf.get(call)
    if (kind === undefined) continue
    const nth = (counts.get(`${thread} ${call}`) ?? 0) + 1
    counts.set(`${thread} ${call}`, nth)
    if (line.includes(folder)) found.set(`${call} ${nth}`, { kind, call, nth })
  }
  return wanted.flatMap((wanted) => {
    const all = [...found.values()].filter(({ kind }) => kind === wanted).sort((a, b) => a.call === b.call ? a.nth - b.nth : a.call < b.call ? -1 : 1)
    if (all.length <= count) return all
    const place = (at: number) => Math.round((count === 1 ? 0.5 : at / (count - 1)) * (all.length - 1))
    return Array.from({ length: count }, (_, at) => all[place(at)]).filter((point) => point !== undefined)
  })
}

/** Runs what follows so that it meets `how` at the point: `signal=KILL`, or `error=ENOSPC`. What it met is in the file. */
export const met = ({ call, nth }: Point, how: string, file = "/dev/null"): ReadonlyArray<string> =>
  [...strace, "-o", file, "-e", `trace=${call}`, "-e", `inject=${call}:${how}:when=${nth}`]

/** The calls that were made to fail, as strace shows them. */
export const injected = (log: string): ReadonlyArray<string> => log.split("\n").filter((line) => line.includes("(INJECTED)"))
