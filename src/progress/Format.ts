const units = ["B", "kB", "MB", "GB", "TB", "PB"] as const

/** Bytes in decimal units with about three digits: `0 B`, `12.3 MB`, `415 MB`. */
export const bytes = (count: number): string => {
  let value = count
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit++ }
  return `${unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`
}

/** How far something is: `12.3 MB / 415 MB`, or `12.3 MB` where nobody knows how long it is. */
export const part = (done: number, total: number | undefined): string => total === undefined ? bytes(done) : `${bytes(done)} / ${bytes(total)}`

/** Seconds as `8s`, `1m05s` or `2h03m`. */
export const duration = (seconds: number): string => {
  const whole = Math.max(0, Math.ceil(seconds))
  const two = (n: number) => String(n).padStart(2, "0")
  if (whole < 60) return `${whole}s`
  return whole < 3600 ? `${Math.floor(whole / 60)}m${two(whole % 60)}s` : `${Math.floor(whole / 3600)}h${two(Math.floor(whole / 60) % 60)}m`
}

/** A bar `width` cells wide, brackets included, filled for `share` (0 to 1). */
export const bar = (share: number, width: number): string => {
  const cells = Math.max(0, width - 2)
  const full = Math.min(cells, Math.floor(share * cells))
  const head = full < cells && share > 0 ? ">" : ""
  return `[${"=".repeat(full)}${head}${" ".repeat(cells - full - head.length)}]`
}

/** `text` without control characters: what comes from a registry or an archive must not steer the reader's terminal. */
export const printable = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- taking control characters out is the point
  text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?")

/** `text` in at most `width` columns, its middle left out if it is longer. */
export const fit = (text: string, width: number): string => {
  if (text.length <= width) return text
  if (width < 5) return text.slice(0, width)
  const tail = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - tail)}…${text.slice(text.length - tail)}`
}
