/** A finite number as Go's `%.<precision>g` prints it: rounded to even where it lies in the middle, without trailing zeros. */
export const general = (value: number, precision: number): string => {
  const sign = value < 0 || Object.is(value, -0) ? "-" : ""
  if (value === 0) return `${sign}0`
  // 101 digits are all that a double near 1 has: what is cut off then decides exactly.
  // oxlint-disable-next-line oxc/number-arg-out-of-range -- 100 since ES2018
  const [mantissa = "", power = "0"] = Math.abs(value).toExponential(100).split("e")
  const all = mantissa.replace(".", ""), wanted = Math.max(1, precision)
  const rest = all.slice(wanted), half = "5".padEnd(rest.length, "0")
  const head = all.slice(0, wanted)
  const up = rest > half || (rest === half && Number(head.at(-1)) % 2 === 1)
  const rounded = up ? String(BigInt(head) + 1n) : head
  const exponent = Number(power) + rounded.length - wanted
  const digits = rounded.replace(/0+$/, "")
  const point = exponent + 1
  // As %e once the exponent reaches the precision, or the number of digits where that is smaller and all are before the point.
  const limit = wanted > digits.length && digits.length >= point ? digits.length : wanted
  if (exponent < -4 || exponent >= limit) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : ""
    return `${sign}${digits.slice(0, 1)}${fraction}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`
  }
  if (point <= 0) return `${sign}0.${"0".repeat(-point)}${digits}`
  return `${sign}${digits.slice(0, point).padEnd(point, "0")}${digits.length > point ? `.${digits.slice(point)}` : ""}`
}

const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"] as const

/** Bytes in decimal units with four digits (units.HumanSize): `%.4g %s` with a blank as Docker 1.9.1 had it, `%.4g%s` today. */
export const size = (bytes: number, blank: "" | " "): string => {
  let value = bytes, unit = 0
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000
  return `${general(value, 4)}${blank}${units[unit]}`
}

/** What a progress line shows: bytes done, and of how many; 0 or -1 where nobody knows. */
export interface Amount {
  readonly current: number
  readonly total: number
}

/**
 * The text of a progress line (jsonmessage.JSONProgress.String): nothing while nothing is known, the bytes alone while the
 * total is not, else a bar of 50 in terminals of more than 110 columns and both numbers.
 */
export const progress = ({ current, total }: Amount, blank: "" | " ", columns = 200): string => {
  if (current <= 0 && total <= 0) return ""
  const done = size(current, blank).padStart(8)
  if (total <= 0) return done
  const share = Math.min(50, Math.trunc(Math.trunc(current / total * 100) / 2))
  const bar = columns > 110 ? `[${"=".repeat(Math.max(0, share))}>${" ".repeat(50 - share)}] ` : ""
  return `${bar}${done}${current > total ? "" : `/${size(total, blank)}`}`
}
