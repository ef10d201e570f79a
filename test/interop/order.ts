/** One traced call: the path its descriptor or first name stands for, a second name, and the data it wrote as strace shows it. */
export interface Call {
  readonly name: string
  readonly path: string
  readonly to: string
  readonly text: string
}

/** What strace must be told so that `callsIn` can read its log. */
export const options = ["-f", "-y", "-s", "70000", "-e", `trace=${["rename", "renameat", "renameat2", "fsync", "fdatasync", "syncfs", "write", "pwrite64", "pwritev", "ftruncate"].map((name) => `?${name}`).join(",")}`]

const line = /^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed)(.*)$/

/** The calls that succeeded, in the order in which they ended: a call is as good as done only then. */
export const callsIn = (log: string): ReadonlyArray<Call> => {
  const begun = new Map<string, string>()
  const calls: Array<Call> = []
  for (const text of log.split("\n")) {
    const [, thread = "", name = "", how, rest = ""] = line.exec(text) ?? []
    if (name === "") continue
    if (rest.endsWith("<unfinished ...>")) {
      begun.set(thread, rest.slice(0, -"<unfinished ...>".length))
      continue
    }
    const whole = how === "(" ? rest : `${begun.get(thread) ?? ""}${rest.replace(/^>/, "")}`
    if (!/= \d+(?:<.*>)?$/.test(whole)) continue
    const descriptor = /^\d+<([^>]*)>/.exec(whole)?.[1]
    const names = [...whole.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, found = ""]) => found)
    if (name.startsWith("rename")) calls.push({ name: "rename", path: names[0] ?? "", to: names[1] ?? "", text: "" })
    else if (name === "syncfs") calls.push({ name: "syncfs", path: descriptor ?? "", to: "", text: "" })
    else if (name === "fsync" || name === "fdatasync") calls.push({ name: "sync", path: descriptor ?? "", to: "", text: "" })
    else calls.push({ name: "write", path: descriptor ?? "", to: "", text: names.join("") })
  }
  return calls
}

/** What a power loss could hurt in a run that was traced on `store`, as sentences; `tag` is text of the row that comes last. */
export const faults = (calls: ReadonlyArray<Call>, store: string, tag: string, root?: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  const after = (from: number, test: (call: Call) => boolean) => calls.findIndex((call, index) => index > from && test(call))
  const log = `${store}/graph.db-wal`
  const named = calls.findIndex(({ name, path, text }) => name === "write" && path === log && text.includes(tag))
  if (named === -1) found.push("no write of the tag was seen")
  const isSync = (path: string) => (call: Call) => call.name === "sync" && call.path === path
  for (const [at, { name, path, to }] of calls.entries()) {
    if (name !== "rename" || (!to.startsWith(`${store}/`) && to !== root)) continue
    if (to.startsWith(`${store}/blobs/`)) {
      const written = calls.findLastIndex((call, index) => index < at && call.name === "write" && call.path === path)
      const synced = calls.findLastIndex((call, index) => index < at && isSync(path)(call))
      if (synced === -1 || synced < written) found.push(`the bytes of ${to} were not on the disk when it got its name`)
      const folder = after(at, isSync(to.slice(0, to.lastIndexOf("/"))))
      if (folder === -1) found.push(`the name of ${to} was never made durable`)
      else if (after(folder, isSync(log)) === -1) found.push(`the row of ${to} came before its name was durable`)
      if (named !== -1 && folder > named) found.push(`the tag came before the name of ${to} was durable`)
    } else if (to.startsWith(`${store}/layers/`)) {
      const synced = after(at, ({ name }) => name === "syncfs")
      if (synced === -1) found.push(`the files of ${to} were never made durable`)
      else if (named !== -1 && synced > named) found.push(`the tag came before the files of ${to} were durable`)
    } else if (to === root) {
      if (calls.findLastIndex((call, index) => index < at && call.name === "syncfs") === -1) found.push(`${to} was not on the disk when it got its name`)
      if (after(at, isSync(to.slice(0, to.lastIndexOf("/")))) === -1) found.push(`the name of ${to} was never made durable`)
    }
  }
  if (named !== -1 && after(named, isSync(log)) === -1) found.push("the tag itself was never made durable")
  return found
}
