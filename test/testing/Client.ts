import { Effect } from "effect"
import { request as httpRequest, type IncomingHttpHeaders } from "node:http"
import { request as httpsRequest } from "node:https"
import { connect } from "node:net"

/** One answer as it came off the wire: nothing followed, decoded or repaired. */
export interface Seen {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** Whether the body ended as HTTP says it must; else `error` is the code of what ended it. */
  readonly whole: boolean
  readonly error: string | undefined
  /** Milliseconds until the headers, and until the end. */
  readonly head: number
  readonly end: number
}

/** What to send besides the path. */
export interface Ask {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
  readonly ca?: string | undefined
}

const codeOf = (cause: unknown): string => cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)

/** Sends one request on a connection of its own. A connection that gives no answer has status 0. */
export const ask = (url: string, options: Ask = {}): Effect.Effect<Seen> => Effect.callback((resume) => {
  const began = performance.now()
  const send = url.startsWith("https:") ? httpsRequest : httpRequest
  const request = send(url, { method: options.method ?? "GET", headers: { connection: "close", ...options.headers }, agent: false, ...options.ca === undefined ? {} : { ca: options.ca } })
  request.on("error", (cause) => resume(Effect.succeed({
    status: 0, headers: {}, body: Buffer.alloc(0), whole: false, error: codeOf(cause), head: NaN, end: performance.now() - began
  })))
  request.on("response", (response) => {
    const head = performance.now() - began
    const pieces: Array<Buffer> = []
    const done = (whole: boolean, error: string | undefined) => resume(Effect.succeed({
      status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces), whole, error, head, end: performance.now() - began
    }))
    response.on("data", (piece: Buffer) => pieces.push(piece))
    response.on("end", () => done(response.complete, undefined))
    response.on("error", (cause) => done(false, codeOf(cause)))
  })
  request.end(options.body)
  return Effect.sync(() => request.destroy())
})

/** Everything that comes back on a bare socket for a GET. */
export const raw = (host: string, path: string): Effect.Effect<Buffer> => Effect.callback((resume) => {
  const pieces: Array<Buffer> = []
  const [name = "", port] = host.split(":")
  connect(Number(port), name)
    .on("data", (piece) => pieces.push(piece))
    .on("close", () => resume(Effect.succeed(Buffer.concat(pieces))))
    .on("error", () => {})
    .write(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)
})
