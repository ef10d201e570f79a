import * as Format from "../progress/Format.ts"

/** The columns of the terminal that results go to; undefined where it is none. */
export const terminalColumns = (): number | undefined => process.stdout.isTTY ? process.stdout.columns : undefined

/** What the first and the last column keep of their width in a narrow terminal. */
const least = [12, 10] as const

/** Rows as columns as wide as they need; in a terminal the first column gives way, then the last, and what still does not fit is cut. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>, columns: number | undefined = terminalColumns()): string => {
  const widths = (rows[0] ?? []).map((_, column) => rows.reduce((widest, row) => Math.max(widest, row[column]?.length ?? 0), 0))
  const others = widths.slice(1).reduce((sum, width) => sum + width + 2, 0)
  const last = widths.length - 1
  if (columns !== undefined && last > 0) {
    widths[0] = Math.min(widths[0] ?? 0, Math.max(least[0], columns - others))
    const over = widths.reduce((sum, width) => sum + width + 2, -2) - columns
    if (over > 0) widths[last] = Math.max(Math.min(widths[last] ?? 0, least[1]), (widths[last] ?? 0) - over)
  }
  return rows.map((row) => {
    const line = row.map((cell, column) => Format.fit(cell, widths[column] ?? cell.length).padEnd(widths[column] ?? 0)).join("  ").trimEnd()
    return columns === undefined ? line : line.slice(0, columns)
  }).join("\n")
}
