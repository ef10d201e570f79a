const token = /^"(\d{4})-(\d\d)-(\d\d)T(\d\d?):(\d\d):(?:(\d\d)([.,]\d+)?|([.,]\d+))(?:Z|([+-])(\d\d|[+-]\d):(\d\d|[+-]\d))"$/

/** Go's zero time, which a missing `created` stands for. */
export const zero = "0001-01-01T00:00:00Z"

const days = (year: number, month: number) =>
  month === 2 ? (year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31

/**
 * A time as Docker 1.9 read and wrote it back: `source` is a JSON token as written (escapes are not decoded) in RFC 3339,
 * read as leniently as Go did (one digit for the hour, a comma before the fraction, no seconds before a fraction).
 * Gives the text Go prints (RFC 3339 with up to nine digits of fraction, the offset kept), or the part out of range.
 */
export const reprint = (source: string): { readonly text: string } | { readonly reason: string } => {
  const match = token.exec(source)
  if (match === null) return { reason: "expected a time such as 2015-09-08T21:30:30.5Z (RFC 3339)" }
  const [, year = "", month = "", day = "", hour = "", minute = "", second = "00", fraction, bare, sign, offsetHours, offsetMinutes] = match
  if (Number(month) < 1 || Number(month) > 12) return { reason: "month out of range" }
  if (Number(hour) >= 24) return { reason: "hour out of range" }
  if (Number(minute) >= 60) return { reason: "minute out of range" }
  if (Number(second) >= 60) return { reason: "second out of range" }
  if (Number(day) < 1 || Number(day) > days(Number(year), Number(month))) return { reason: "day out of range" }
  const nanos = (fraction ?? bare ?? "").slice(1, 10).replace(/0+$/, "")
  const offset = (sign === "-" ? -1 : 1) * (Number(offsetHours ?? 0) * 60 + Number(offsetMinutes ?? 0)), size = Math.abs(offset)
  const two = (number: number) => String(number).padStart(2, "0")
  return {
    text: `${year}-${month}-${day}T${hour.padStart(2, "0")}:${minute}:${second}${nanos === "" ? "" : `.${nanos}`}`
      + (size === 0 ? "Z" : `${offset < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`)
  }
}
