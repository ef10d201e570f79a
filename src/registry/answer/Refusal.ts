import { Clock, Duration, Effect, Option, Schema } from "effect"
import { printable } from "../../image/Printable.ts"
import { collect } from "./Body.ts"
import * as Coding from "./Coding.ts"
import { NetworkError, NotFound, type RegistryFailure, Unauthorized } from "../Errors.ts"
import { codeOf } from "../route/Protocol.ts"
import type { Limits } from "../RetryPolicy.ts"
import type { Answer } from "../Transport.ts"

/** The longest error or token body that is read, in bytes. */
export const documentCap = 1 << 20

/** What a request was for, as its errors name it. */
export interface Subject {
  readonly what: NotFound["what"]
  readonly repository: string
  /** Tag, digest or v1 image ID. */
  readonly name: string
  /** Where the credentials that were sent come from, or "anonymous". */
  readonly credentials: string
}

/** What an error body says: the specification's codes, one line for people (both empty if it says nothing that can be read), and the body itself. */
export interface Problem {
  readonly codes: ReadonlyArray<string>
  readonly text: string
  readonly raw: Uint8Array
}

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))
const ErrorBody = Schema.fromJsonString(Schema.Union([
  Schema.Struct({ errors: Schema.NonEmptyArray(Schema.Struct({ code: Text, message: Text })) }),
  Schema.Struct({ error: Schema.String, error_description: Text }),
  Schema.Struct({ details: Schema.String }),
  Schema.Struct({ message: Schema.String }),
  Schema.String
]))

const decodeProblem = (raw: Uint8Array): Omit<Problem, "raw"> => {
  const body = Option.getOrUndefined(Schema.decodeUnknownOption(ErrorBody)(new TextDecoder().decode(raw)))
  if (body === undefined) return { codes: [], text: "" }
  if (typeof body === "string") return { codes: [], text: printable(body) }
  if ("errors" in body) {
    const codes = body.errors.flatMap(({ code }) => typeof code === "string" && /^[A-Z_]{1,64}$/.test(code) ? [code] : [])
    return { codes, text: printable(body.errors.map(({ code, message }) => [code, message].filter(Boolean).join(": ")).join("; ")) }
  }
  if ("error" in body) return { codes: [], text: printable([body.error, body.error_description].filter(Boolean).join(": ")) }
  return { codes: [], text: printable("details" in body ? body.details : body.message) }
}

/** Reads an error body leniently (distribution-spec, "Error Codes"; RFC 6749 5.2) and closes the answer. Never fails: pages, junk, cuts and silence say nothing. */
export const problem = (answer: Answer, limits: Limits): Effect.Effect<Problem> =>
  collect(answer.body, documentCap).pipe(
    Effect.timeoutOption(limits.settle),
    Effect.map(Option.getOrUndefined),
    Effect.orElseSucceed(() => undefined),
    Effect.map((sent = new Uint8Array()) => {
      const raw = Coding.readable(sent, answer.headers["content-encoding"], documentCap)
      return { ...decodeProblem(raw), raw }
    }),
    Effect.ensuring(answer.close)
  )

const httpDate = /^(?:[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d\d:\d\d:\d\d GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})$/
const dateOf = (text: string | undefined): number | undefined => {
  if (text === undefined || !httpDate.test(text)) return undefined
  const time = Date.parse(text.endsWith("GMT") ? text : `${text} GMT`)
  return Number.isNaN(time) ? undefined : time
}

/**
 * Retry-After in seconds or as an HTTP date in any of its three forms (RFC 9110, 10.2.3 and 5.6.7); a date counts from `date`, the
 * answer's own Date, else from `now` (milliseconds since 1970). undefined: absent, or junk.
 */
export const retryAfter = (text: string | undefined, date: string | undefined, now: number): Duration.Duration | undefined => {
  const value = text?.trim()
  if (value === undefined) return undefined
  if (/^\d+$/.test(value)) return Duration.seconds(Math.min(Number(value), 1e9))
  const until = dateOf(value)
  return until === undefined ? undefined : Duration.millis(Math.max(0, until - (dateOf(date?.trim()) ?? now)))
}

/** Turns an answer that is not what was asked for into the failure it means, and closes it. */
export const refusal = Effect.fnUntraced(function*(answer: Answer, subject: Subject, limits: Limits): Effect.fn.Return<never, RegistryFailure> {
  const { codes, raw, text } = yield* problem(answer, limits)
  const { host, status } = answer
  const found = codeOf(status, raw)
  const code = found === undefined ? {} : { code: found }
  const said = text === "" ? "" : `: ${text}`
  const server = (transient: boolean) => new NetworkError({ host, reason: "server", phase: "headers", status, transient, detail: `it answered ${status}${said}`, ...code })
  // What another origin says after a redirect (an expired signature) is no word of the registry: asking it again gives a new one.
  if (answer.moved && (status === 401 || status === 403)) return yield* server(true)
  if (status === 401 || status === 403)
    return yield* new Unauthorized({
      host, repository: subject.repository, denied: status === 403, credentials: subject.credentials, detail: text === "" ? `it answered ${status}` : text, ...code
    })
  if (status === 404 || status === 410)
    return yield* new NotFound({ host, what: codes.includes("NAME_UNKNOWN") ? "repository" : subject.what, repository: subject.repository, name: subject.name, ...code })
  if (status === 429 || status === 503) {
    const pause = retryAfter(answer.headers["retry-after"], answer.headers["date"], yield* Clock.currentTimeMillis)
    const tooLong = pause !== undefined && Duration.isGreaterThan(pause, Duration.fromInputUnsafe(limits.pause))
    return yield* new NetworkError({
      host, status, phase: "headers", transient: !tooLong, reason: status === 429 || pause !== undefined ? "rate-limited" : "server",
      detail: `it answered ${status}${said}`, ...code, ...pause !== undefined && { retryAfter: pause }
    })
  }
  // What servers say over HTTP that is about TLS: Go's and nginx's to plain HTTP at a TLS port, nginx's to who shows no certificate.
  const page = status === 400 ? Buffer.from(raw).toString("latin1", 0, 2048) : ""
  const wrong = (reason: "protocol" | "tls", detail: string) => new NetworkError({ host, reason, phase: "connect", status, transient: false, detail })
  if (/HTTP request (?:was sent )?to (?:an )?HTTPS (?:server|port)/i.test(page)) return yield* wrong("protocol", "plain HTTP was sent to a port that speaks TLS: it is to be asked by https")
  if (/No required SSL certificate was sent/i.test(page)) return yield* wrong("tls", "it asks for a client certificate, and none is configured for it")
  if (/SSL certificate error/i.test(page)) return yield* wrong("tls", "it does not accept the client certificate that is configured for it")
  if (status === 408 || status === 425 || (status >= 500 && status !== 501 && status !== 505 && status !== 511)) return yield* server(true)
  if (status >= 300 && status < 400)
    return yield* new NetworkError({ host, reason: "protocol", phase: "headers", status, transient: false, detail: `it answered ${status} without a usable Location` })
  if (status < 300)
    return yield* new NetworkError({ host, reason: "protocol", phase: "headers", status, transient: true, detail: `it answered ${status} where 200 was expected` })
  return yield* server(false)
})
