/**
 * The language of fault scripts: faults as data. A script is a list of rules; a rule says which requests it meets (`Match`) and what
 * becomes of their answers (`Action`, one or several). It is given to `TestRegistry.make({ script })` or `registry.script(rules)`, can be
 * replaced at any time, and `registry.runs` counts how often each rule has acted.
 *
 * ```ts
 * registry.script([
 *   { match: { kind: "blob", nth: 1 }, do: Fault.cutAt(1000) },                          // the first blob answer ends after 1000 bytes
 *   { match: { kind: "blob", ranged: true }, do: Fault.wrongRange("lie-start") },        // whoever resumes is lied to
 *   { match: { kind: "manifest", name: "latest" }, do: [Fault.stall("headers", 500), Fault.status(503, { "retry-after": "1" })] },
 *   { match: { kind: "token", nth: [2, 3] }, do: Fault.drop }                            // the second and third token request get nothing
 * ])
 * ```
 *
 * - Which requests: by kind, repository, tag or digest as sent, digest of what would be served, method, whether a range is asked for, and
 *   `nth`, which counts the requests that match by all the rest, from 1. What is left out matches everything. Each rule counts for itself.
 * - Every rule that matches acts. Whatever the order of the list, an answer is first chosen (`status`, `redirect`, `html`), then come its
 *   bytes (`flip`), its range (`wrongRange`), its body's form (`contentEncoding`, `truncateLength`, `extraBytes`), its headers (`chunked`,
 *   `claimLength`, `setHeaders`), and last its delivery (`drop`, `stall`, `drip`, `cutAt`, `cutEach`). Of two that act on the same thing,
 *   the later rule has the last word; of two cuts the first byte's counts.
 * - Offsets count the bytes of the answer's body, except for `flip` and `cutEach`, which count those of the whole object. Waits are real
 *   time, whatever clock a test has.
 * - Tokens expire by `auth: { kind: "bearer", expiresIn }`, or at once by `registry.tokens.revoke()`. Requests that are refused for want
 *   of credentials meet no rule. `registry.strangers` are those that carried a secret which is not for this registry.
 */

/**
 * What a request is for. `page` is anything else: the target of a redirect, for instance. Of a v1 server: `ping` (`_ping`), `images`
 * (the index's list), `tags` (all, or the one in `name`), `ancestry`, `json` and `layer` (`name` is the image), `storage`.
 */
export type Kind = "ping" | "manifest" | "blob" | "tags" | "token" | "page" | "images" | "ancestry" | "json" | "layer" | "storage"

/** Which requests a rule meets. What is left out matches everything. */
export interface Match {
  readonly kind?: Kind
  /** Repository path, without host: `library/alpine`. */
  readonly repository?: string
  /** Tag or digest of the request's path, as it was sent. */
  readonly name?: string
  /** Digest of what would be served: also meets a manifest asked for by tag. */
  readonly digest?: string
  /** `GET`, `HEAD` or `POST`. */
  readonly method?: string
  /** true: only requests with a Range header; false: only those without. */
  readonly ranged?: boolean
  /** Which of the requests that match by all of the above, counted from 1: one, several, or (left out) every one. */
  readonly nth?: number | ReadonlyArray<number>
}

/** One rule of a script. */
export interface Rule {
  readonly match: Match
  readonly do: Action | ReadonlyArray<Action>
}

/**
 * The ways a Range request is answered wrongly (a request without Range is not changed).
 * - `ignore`: 200 and the whole object
 * - `lie-start`: 206 whose Content-Range names a start one byte further than the bytes have
 * - `lie-total`: 206 whose Content-Range names a total one byte longer than the object
 * - `lie-end`: 206 whose Content-Range names as its last byte the one past it, over the right bytes
 * - `lie-bytes`: 206 whose Content-Range is as asked, over bytes from the object's beginning
 * - `no-header`: 206 with the right bytes but no Content-Range
 * - `416`: 416 Range Not Satisfiable
 * - `multipart`: 206 `multipart/byteranges` with the asked range as its only part
 * - `short`: a correct 206 for only the first half of what was asked (RFC 9110 15.3.7 allows it)
 */
export type RangeFault = "ignore" | "lie-start" | "lie-total" | "lie-end" | "lie-bytes" | "no-header" | "416" | "multipart" | "short"

/** What becomes of an answer. Byte counts are of the body; waits are real time, whatever clock a test has. */
export type Action =
  | { readonly do: "drop" }
  | { readonly do: "cutAt"; readonly bytes: number; readonly reset: boolean }
  | { readonly do: "cutEach"; readonly step: number }
  | { readonly do: "stall"; readonly at: number | "headers"; readonly forMs: number }
  | { readonly do: "drip"; readonly bytesPerSecond: number }
  | { readonly do: "status"; readonly code: number; readonly headers: Readonly<Record<string, string>>; readonly body: string | Uint8Array }
  | { readonly do: "redirect"; readonly url: string; readonly code: number }
  | { readonly do: "html" }
  | { readonly do: "setHeaders"; readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | null>> }
  | { readonly do: "flip"; readonly at: number; readonly bit: number }
  | { readonly do: "truncateLength"; readonly bytes: number }
  | { readonly do: "claimLength"; readonly bytes: number }
  | { readonly do: "extraBytes"; readonly bytes: number }
  | { readonly do: "chunked"; readonly terminated: boolean }
  | { readonly do: "wrongRange"; readonly how: RangeFault }
  | { readonly do: "contentEncoding"; readonly coding: "gzip" | "deflate" | "br"; readonly applied: boolean }

/** Closes the connection without an answer. */
export const drop: Action = { do: "drop" }

/** Closes the socket after `bytes` body bytes of this answer (0: after the headers); with `reset` by RST instead of FIN. */
export const cutAt = (bytes: number, options?: { readonly reset?: boolean }): Action =>
  ({ do: "cutAt", bytes, reset: options?.reset ?? false })

/**
 * Cuts every answer a little further into the object: the k-th at byte `k * step` of the object, wherever the answer began.
 * A client that resumes gains at most `step` bytes each time; one that starts over gets through too, at a price.
 */
export const cutEach = (step: number): Action => ({ do: "cutEach", step })

/** Waits `forMs` (Infinity: until the client leaves) after `at` body bytes, or before the headers, then goes on. */
export const stall = (at: number | "headers", forMs: number): Action => ({ do: "stall", at, forMs })

/** Sends the body at this rate, twenty pieces a second. */
export const drip = (bytesPerSecond: number): Action => ({ do: "drip", bytesPerSecond })

const codes: Readonly<Record<number, string>> =
  { 400: "UNSUPPORTED", 401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 429: "TOOMANYREQUESTS", 503: "UNAVAILABLE" }

/** Another answer altogether: status, headers, body (default: an error document in distribution's form, with a code that fits). */
export const status = (code: number, headers: Readonly<Record<string, string>> = {}, body?: string | Uint8Array): Action => ({
  do: "status",
  code,
  headers: body === undefined ? { "content-type": "application/json; charset=utf-8", ...headers } : headers,
  body: body ?? JSON.stringify({ errors: [{ code: codes[code] ?? "UNKNOWN", message: `status ${code} by script` }] })
})

/** Redirects to `url`, in which `{url}` stands for the request's own path and query. */
export const redirect = (url: string, code = 307): Action => ({ do: "redirect", url, code })

/** 200 with an HTML page, as a captive portal answers. */
export const html: Action = { do: "html" }

/** Sets headers of the answer; a list sends one several times, null removes it. */
export const setHeaders = (headers: Readonly<Record<string, string | ReadonlyArray<string> | null>>): Action => ({ do: "setHeaders", headers })

/** Flips one bit (default the lowest) of the byte at offset `at` of the object, when this answer holds that byte. */
export const flip = (at: number, bit = 0): Action => ({ do: "flip", at, bit })

/** Ends the body cleanly after `bytes` bytes: Content-Length says so too, so only the expected size tells. 0: an empty body. */
export const truncateLength = (bytes: number): Action => ({ do: "truncateLength", bytes })

/** Content-Length says `bytes`, whatever is sent; when more is promised than there is, the connection then closes. */
export const claimLength = (bytes: number): Action => ({ do: "claimLength", bytes })

/** Appends `bytes` bytes of 0x2e, and Content-Length counts them; Infinity: an endless chunked body. */
export const extraBytes = (bytes: number): Action => ({ do: "extraBytes", bytes })

/** Sends the body chunked, without Content-Length; not `terminated`: the last chunk is missing and the connection closes. */
export const chunked = (terminated = true): Action => ({ do: "chunked", terminated })

/** Answers a Range request wrongly; see `RangeFault`. */
export const wrongRange = (how: RangeFault): Action => ({ do: "wrongRange", how })

/** Sends the body with a Content-Encoding; not `applied`: the header alone, over bytes that are not encoded. */
export const contentEncoding = (coding: "gzip" | "deflate" | "br", applied = true): Action => ({ do: "contentEncoding", coding, applied })

/** What of a request the rules look at. */
export interface Subject {
  readonly kind: Kind
  readonly method: string
  readonly repository: string | undefined
  readonly name: string | undefined
  readonly range: string | undefined
  /** Digest of what would be served. */
  readonly digest: string | undefined
}

/** Whether `subject` is met by `match`, its `nth` left aside. */
export const meets = (match: Match, subject: Subject): boolean =>
  (match.kind === undefined || match.kind === subject.kind) &&
  (match.method === undefined || match.method === subject.method) &&
  (match.repository === undefined || match.repository === subject.repository) &&
  (match.name === undefined || match.name === subject.name) &&
  (match.digest === undefined || match.digest === subject.digest) &&
  (match.ranged === undefined || match.ranged === (subject.range !== undefined))

/** Whether the `count`-th request (from 1) is one that `match.nth` picks. */
export const picks = ({ nth }: Match, count: number): boolean =>
  nth === undefined || (typeof nth === "number" ? nth === count : nth.includes(count))

/** An action about to happen, and how often its rule has acted, this time included. */
export interface Due {
  readonly action: Action
  readonly run: number
}

/** A script being played: its rules and their counters. */
export class Script {
  private readonly rules: ReadonlyArray<Rule>
  private readonly met: Array<number>
  /** How often each rule has acted. */
  readonly runs: Array<number>

  constructor(rules: ReadonlyArray<Rule>) {
    this.rules = rules
    this.met = rules.map(() => 0)
    this.runs = rules.map(() => 0)
  }

  /** Counts `subject` against every rule and gives what happens to its answer. */
  take(subject: Subject): ReadonlyArray<Due> {
    return this.rules.flatMap((rule, at) => {
      if (!meets(rule.match, subject)) return []
      const met = this.met[at] = (this.met[at] ?? 0) + 1
      if (!picks(rule.match, met)) return []
      const run = this.runs[at] = (this.runs[at] ?? 0) + 1
      return ("do" in rule.do ? [rule.do] : rule.do).map((action) => ({ action, run }))
    })
  }
}
