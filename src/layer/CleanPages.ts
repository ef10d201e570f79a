/**
 * Where `file` is mapped so that nothing can be, and nothing was, written: those pages are the file's, and may be given back. `smaps` is what
 * /proc/self/smaps says. While a child is being forked, pages of ours that differ from the file count as shared, and others may be in
 * swap: only where none is anonymous and none is swapped is all of it the file's.
 */
export const cleanPages = (smaps: string, file: string): ReadonlyArray<readonly [from: string, to: string]> => {
  const clean: Array<readonly [string, string]> = []
  let found: readonly [string, string] | undefined
  for (const line of smaps.split("\n")) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)$/.exec(line)
    if (mapping !== null) {
      const [, from = "", to = "", access = "", path] = mapping
      found = /^r-[x-]p$/.test(access) && path === file ? [from, to] : undefined
    } else if (/^(?:Anonymous|Swap): +[1-9]/.test(line)) found = undefined
    else if (found !== undefined && line.startsWith("VmFlags:")) {
      clean.push(found)
      found = undefined
    }
  }
  return clean
}
