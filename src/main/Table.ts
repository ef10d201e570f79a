import * as Format from "../progress/Format.ts"

/** Rows as columns as wide as they need; in a terminal the first column gives way. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>, columns: number | undefined): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const others = widths.slice(1).reduce((sum, width) => sum + width + 2, 0)
  widths[0] = columns === undefined ? widths[0] ?? 0 : Math.min(widths[0] ?? 0, Math.max(12, columns - others))
  return rows.map((row) => row.map((cell, column) => Format.fit(cell, widths[column] ?? cell.length).padEnd(widths[column] ?? 0)).join("  ").trimEnd()).join("\n")
}
