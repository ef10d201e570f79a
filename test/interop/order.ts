/** One traced call: the path its descriptor or first name stands for, a second name, and the data it wrote as strace shows it. */
export interface Call {
  readonly name: string
  readonly path: string
  readonly to: string
  readonly text: string
}

/** What strace must be told so that `callsIn` can read its log. */
export const options = ["-f", "-y", "-s", "70000", "-e", `trace=${["rename", "renameat", "renameat2", "unlink", "mkdir", "mkdirat", "fsync", "fdatasync", "syncfs", "write", "pwrite64", "pwritev", "ftruncate"].map((name) => `?${name}`).join(",")}`]

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
    else if (name === "unlink" || name.startsWith("mkdir")) calls.push({ name: name === "unlink" ? name : "mkdir", path: names[0] ?? "", to: "", text: "" })
    else if (name === "syncfs") calls.push({ name: "syncfs", path: descriptor ?? "", to: "", text: "" })
    else if (name === "fsync" || name === "fdatasync") calls.push({ name: "sync", path: descriptor ?? "", to: "", text: "" })
    else calls.push({ name: "write", path: descriptor ?? "", to: "", text: names.join("") })
  }
  return calls
}

/**
 * Where a run commits: its store, text of the row that comes last (if one must), a root file system, and files or folders it writes otherwise.
 * `given`: blobs it gives up, each with the file that has the digests of its layer's files, and that file's own, as its row says it.
 */
export interface Places {
  readonly store: string
  readonly tag?: string
  readonly root?: string
  readonly outputs?: ReadonlyArray<string>
  readonly given?: ReadonlyArray<{ readonly blob: string; readonly sums: string; readonly hash: string }>
}

/**
 * What a power loss could hurt in a traced run, as sentences. Every rename is looked at: blobs, layers, root file systems,
 * and all other files, in the store (receipts, sums) or elsewhere (archives, layouts), and the new folders above them; also
 * what is removed or put away, whose row must say so first, what is given up, which must be known otherwise first, and what is
 * written to a layer's files after they were synced.
 */
export const faults = (calls: ReadonlyArray<Call>, { given = [], outputs = [], root, store, tag }: Places): ReadonlyArray<string> => {
  const found: Array<string> = []
  const after = (from: number, test: (call: Call) => boolean) => calls.findIndex((call, index) => index > from && test(call))
  const before = (from: number, test: (call: Call) => boolean) => calls.findLastIndex((call, index) => index < from && test(call))
  const log = `${store}/graph.db-wal`
  const named = tag === undefined ? calls.length : calls.findIndex(({ name, path, text }) => name === "write" && path === log && text.includes(tag))
  if (named === -1) found.push("no write of the tag was seen")
  const isSync = (path: string) => (call: Call) => call.name === "sync" && call.path === path
  const isWrite = (path: string) => (call: Call) => call.name === "write" && call.path === path
  const folderOf = (path: string) => path.slice(0, path.lastIndexOf("/")) || "/"
  const inStore = (path: string, folder: string) => path.startsWith(`${store}/${folder}/`)
  /** A file's names so far: descriptors are shown with the one of the moment. */
  const namesOf = (at: number, path: string): ReadonlyArray<string> => {
    const from = before(at, (call) => call.name === "rename" && call.to === path)
    return from === -1 ? [path] : [path, ...namesOf(from, calls[from]?.path ?? "")]
  }
  const bytesFirst = (at: number, path: string, to: string) => {
    const names = namesOf(at, path)
    const last = (name: string) => before(at, (call) => call.name === name && names.includes(call.path))
    if (last("sync") === -1 || last("sync") < last("write")) found.push(`the bytes of ${to} were not on the disk when it got its name`)
  }
  /** Folders that were made above what got its name at `at` have durable names themselves before the call `until`. */
  const foldersFirst = (at: number, to: string, until = calls.length) => {
    for (const [made, { name, path }] of calls.slice(0, at).entries()) {
      if (name !== "mkdir" || !to.startsWith(`${path}/`)) continue
      const synced = after(made, (call) => call.name === "syncfs" || isSync(folderOf(path))(call))
      if (synced === -1 || synced > until) found.push(`the name of the folder ${path} was not on the disk before what is in it counted: ${to}`)
    }
  }
  const rowFirst = (at: number, path: string) => {
    const written = before(at, isWrite(log))
    if (written === -1 || before(at, isSync(log)) < written) found.push(`${path} went before its row that says so was on the disk`)
  }
  for (const [at, { name, path, to }] of calls.entries()) {
    if (name === "unlink" && inStore(path, "blobs")) rowFirst(at, path)
    if (name === "write" && inStore(path, "layers") && after(at, ({ name }) => name === "syncfs") === -1) found.push(`${path} was written after its layer was synced`)
    if (name !== "rename") continue
    // Put away because it is damaged, or on its way out: nobody needs it again.
    if (inStore(to, "quarantine")) continue
    if (inStore(to, "ingest")) {
      if (inStore(path, "layers")) rowFirst(at, path)
      continue
    }
    if (inStore(to, "blobs")) {
      bytesFirst(at, path, to)
      const folder = after(at, isSync(folderOf(to)))
      if (folder === -1) found.push(`the name of ${to} was never made durable`)
      else if (after(folder, isSync(log)) === -1) found.push(`the row of ${to} came before its name was durable`)
      else foldersFirst(at, to, after(folder, isWrite(log)))
      if (named !== -1 && folder > named) found.push(`the tag came before the name of ${to} was durable`)
    } else if (inStore(to, "layers") && folderOf(folderOf(to)) === `${store}/layers`) {
      const synced = after(at, ({ name }) => name === "syncfs")
      if (synced === -1) found.push(`the files of ${to} were never made durable`)
      else if (named !== -1 && synced > named) found.push(`the tag came before the files of ${to} were durable`)
      foldersFirst(at, to, named === -1 ? calls.length : named)
    } else if (to === root) {
      if (before(at, ({ name }) => name === "syncfs") === -1) found.push(`${to} was not on the disk when it got its name`)
      if (after(at, isSync(folderOf(to))) === -1) found.push(`the name of ${to} was never made durable`)
      foldersFirst(at, to)
    } else if (to.startsWith(`${store}/`) || outputs.some((output) => to === output || to.startsWith(`${output}/`))) {
      // One sync of all serves many files, if it is before the last of them, which names them.
      const whole = after(at, ({ name }) => name === "syncfs")
      if (whole === -1) {
        bytesFirst(at, path, to)
        if (after(at, isSync(folderOf(to))) === -1) found.push(`the name of ${to} was never made durable`)
      }
      foldersFirst(at, to)
    }
  }
  for (const { blob, hash, sums } of given) {
    const named = calls.findIndex(({ name, to }) => name === "rename" && to === sums)
    const known = after(named, isSync(folderOf(sums)))
    const row = calls.findIndex((call) => isWrite(log)(call) && call.text.includes(hash))
    const gone = calls.findIndex(({ name, path }) => name === "unlink" && path === blob)
    if (named === -1 || known === -1 || row === -1) found.push(`${sums} was never recorded`)
    else if (row < known) found.push(`the row of ${sums} came before its name was durable`)
    else if (gone === -1 || gone < after(row, isSync(log))) found.push(`${blob} went before the row of ${sums} was on the disk`)
  }
  if (tag !== undefined && named !== -1 && after(named, isSync(log)) === -1) found.push("the tag itself was never made durable")
  return found
}
