import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib"
import type { Action, Due, RangeFault } from "./Fault.ts"
import * as Source from "../Source.ts"

/** Header names in lower case; a list is sent as several headers. */
export type Headers = Record<string, string | ReadonlyArray<string>>

/** What a registry answers before any fault: always about a whole object. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Source.Source
  /** Digest of the object, when it is one. */
  readonly digest: string | undefined
  /** Whether a Range header is honoured. */
  readonly ranges: boolean
}

/** An answer as it goes to the socket, faults included. Offsets count bytes of `body`. */
export interface Delivery {
  status: number
  headers: Headers
  body: Source.Source
  /** Where in the object the body's first byte belongs. */
  start: number
  drop: boolean
  stalls: Array<{ readonly at: number; readonly forMs: number }>
  /** Bytes per second. */
  rate: number
  cut: { readonly at: number; readonly reset: boolean } | undefined
  /** Whether the body ends as HTTP says it must; else the connection is closed after the last byte. */
  ends: boolean
}

/** An answer of JSON. */
export const json = (status: number, content: unknown, headers: Headers = {}): Answer => ({
  status,
  headers: { "content-type": "application/json; charset=utf-8", ...headers },
  body: Source.bytes(Buffer.from(JSON.stringify(content))),
  digest: undefined,
  ranges: false
})

/** An error in the form of the distribution specification ("Error Codes"). */
export const error = (status: number, code: string, message: string, detail?: unknown, headers?: Headers): Answer =>
  json(status, { errors: [{ code, message, detail }] }, headers)

/** What distribution's registry answers to a path it does not know. */
export const notFound: Answer = {
  status: 404,
  headers: { "content-type": "text/plain; charset=utf-8" },
  body: Source.bytes(Buffer.from("404 page not found\n")),
  digest: undefined,
  ranges: false
}

const text = (status: number, headers: Headers, body: string | Uint8Array): Answer =>
  ({ status, headers, body: Source.bytes(typeof body === "string" ? Buffer.from(body) : body), digest: undefined, ranges: false })

const page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Please sign in to this network</h1></body></html>\n"

/** The answer that the chosen faults leave standing, and its bytes. */
const choose = (answer: Answer, action: Action, url: string): Answer => {
  switch (action.do) {
    case "status": return text(action.code, action.headers, action.body)
    case "redirect": return text(action.code, { location: action.url.replaceAll("{url}", url) }, "")
    case "html": return text(200, { "content-type": "text/html; charset=utf-8" }, page)
    case "flip": return { ...answer, body: Source.flip(answer.body, action.at, action.bit) }
    default: return answer
  }
}

/** First and last byte that a Range header asks for, or why there are none. Only one range is understood. */
const asked = (range: string, size: number): readonly [first: number, last: number] | "malformed" | "outside" => {
  const [, from = "", to = ""] = /^bytes=(\d*)-(\d*)$/.exec(range) ?? []
  if (from === "" && to === "" || from !== "" && to !== "" && Number(from) > Number(to)) return "malformed"
  if (from === "") return size === 0 || Number(to) === 0 ? "outside" : [Math.max(0, size - Number(to)), size - 1]
  return Number(from) >= size ? "outside" : [Number(from), to === "" ? size - 1 : Math.min(Number(to), size - 1)]
}

const ranged = (answer: Answer, range: string | undefined, fault: RangeFault | undefined): Answer & { readonly start: number } => {
  if (range === undefined || fault === "ignore" || !answer.ranges || answer.status !== 200 || range.includes(",")) return { ...answer, start: 0 }
  const size = answer.body.size
  const wanted = fault === "416" ? "outside" : asked(range, size)
  if (typeof wanted === "string") {
    const headers: Headers = { ...answer.headers, "content-type": "text/plain; charset=utf-8" }
    if (wanted === "outside") headers["content-range"] = `bytes */${size}`
    return { ...answer, status: 416, headers, body: Source.bytes(new Uint8Array()), start: 0 }
  }
  const [first] = wanted
  const last = fault === "short" ? Math.floor((first + wanted[1]) / 2) : wanted[1]
  const at = fault === "lie-bytes" ? 0 : first
  const body = Source.slice(answer.body, at, at + last - first + 1)
  const headers: Headers = { ...answer.headers, "content-range": `bytes ${first + (fault === "lie-start" ? 1 : 0)}-${last + (fault === "lie-end" ? 1 : 0)}/${size + (fault === "lie-total" ? 1 : 0)}` }
  if (fault === "no-header") delete headers["content-range"]
  if (fault !== "multipart") return { ...answer, status: 206, headers, body, start: at }
  const part = `--towline\r\ncontent-type: application/octet-stream\r\ncontent-range: ${String(headers["content-range"])}\r\n\r\n`
  return {
    ...answer,
    status: 206,
    headers: { ...answer.headers, "content-type": "multipart/byteranges; boundary=towline" },
    body: Source.join(Source.bytes(Buffer.from(part)), body, Source.bytes(Buffer.from("\r\n--towline--\r\n"))),
    start: first
  }
}

const encoders = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync }

/** What acts on the answer in its final extent. */
const shape = (delivery: Delivery, { action, run }: Due): void => {
  switch (action.do) {
    case "contentEncoding":
      delivery.headers["content-encoding"] = action.coding
      if (action.applied) delivery.body = Source.bytes(encoders[action.coding](Source.collect(delivery.body)))
      return
    case "truncateLength": delivery.body = Source.slice(delivery.body, 0, action.bytes); return
    case "extraBytes": delivery.body = Source.join(delivery.body, Source.filler(action.bytes)); return
    case "drop": delivery.drop = true; return
    case "stall": delivery.stalls.push({ at: action.at === "headers" ? -1 : action.at, forMs: action.forMs }); return
    case "drip": delivery.rate = action.bytesPerSecond; return
    case "cutAt": cut(delivery, action.bytes, action.reset); return
    case "cutEach": cut(delivery, run * action.step - delivery.start, false)
  }
}

/** Of several cuts the first byte's counts; one past the end never comes. */
const cut = (delivery: Delivery, place: number, reset: boolean): void => {
  const at = Math.max(0, place)
  if (at < delivery.body.size && at < (delivery.cut?.at ?? Infinity)) delivery.cut = { at, reset }
}

/** What is said about the length, and any other header. */
const entitle = (delivery: Delivery, action: Action): void => {
  if (action.do === "chunked") {
    delete delivery.headers["content-length"]
    delivery.ends &&= action.terminated
  } else if (action.do === "claimLength") {
    delivery.headers["content-length"] = String(action.bytes)
    delivery.ends = action.bytes === delivery.body.size
  } else if (action.do === "setHeaders") {
    for (const [name, value] of Object.entries(action.headers)) {
      if (value === null) delete delivery.headers[name.toLowerCase()]
      else delivery.headers[name.toLowerCase()] = value
    }
  }
}

/** What is sent for `answer` to a request with this path and query and this Range header, when `due` happens. */
export const deliver = (answer: Answer, due: ReadonlyArray<Due>, request: { readonly url: string; readonly range: string | undefined }): Delivery => {
  const chosen = due.reduce((so, { action }) => choose(so, action, request.url), answer)
  const fault = due.reduce<RangeFault | undefined>((so, { action }) => action.do === "wrongRange" ? action.how : so, undefined)
  const { status, headers, body, start } = ranged(chosen, request.range, fault)
  const delivery: Delivery = { status, headers: { ...headers }, body, start, drop: false, stalls: [], rate: Infinity, cut: undefined, ends: true }
  for (const one of due) shape(delivery, one)
  if (delivery.body.size !== Infinity) delivery.headers["content-length"] = String(delivery.body.size)
  for (const { action } of due) entitle(delivery, action)
  return delivery
}
