import { printable } from "../image/Printable.ts"
import { NetworkError } from "./Errors.ts"

const certificate: Record<string, string> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed and not trusted here",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate comes from a self-signed authority that is not trusted here",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate comes from an authority that is not trusted here",
  UNABLE_TO_GET_ISSUER_CERT: "its certificate comes from an authority that is not trusted here",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate comes from an authority that is not trusted here",
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet (is this machine's clock right?)",
  CERT_REVOKED: "its certificate has been revoked",
  CERT_UNTRUSTED: "its certificate is not trusted here",
  CERT_REJECTED: "its certificate was rejected",
  CERT_SIGNATURE_FAILURE: "its certificate's signature is wrong",
  INVALID_PURPOSE: "its certificate is not for servers",
  HOSTNAME_MISMATCH: "its certificate is for another name",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name"
}

const unknownAuthority = new Set(["DEPTH_ZERO_SELF_SIGNED_CERT", "SELF_SIGNED_CERT_IN_CHAIN", "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "UNABLE_TO_GET_ISSUER_CERT", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"])

/** Whether a failure is that of a certificate whose authority is not known: nothing was sent then. */
export const isUnknownAuthority = (cause: unknown): boolean => unknownAuthority.has(look(cause).code)

/** What a server says, in the words of TLS, to who shows it no certificate, or not the right one. */
const alerts: ReadonlyArray<readonly [pattern: RegExp, detail: string]> = [
  [/ALERT_CERTIFICATE_REQUIRED|alert certificate required/i, "it asks for a client certificate, and none is configured for it"],
  [/ALERT_UNKNOWN_CA|alert unknown ca/i, "it does not trust the authority of the client certificate that is configured for it"],
  [/ALERT_(?:BAD|UNSUPPORTED)_CERTIFICATE|alert (?:bad|unsupported) certificate|ALERT_CERTIFICATE_(?:EXPIRED|REVOKED|UNKNOWN)|alert certificate (?:expired|revoked|unknown)/i,
    "it does not accept the client certificate that is configured for it"],
  [/ALERT_HANDSHAKE_FAILURE|alert handshake failure/i, "it refused the TLS handshake (it may ask for a client certificate)"],
  [/ALERT_PROTOCOL_VERSION|alert protocol version/i, "it speaks no version of TLS that this machine accepts"],
  [/ALERT_UNRECOGNIZED_NAME|alert unrecognized name/i, "it does not know itself by this name"]
]

const field = (value: unknown, name: string): unknown => typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined

/** The system's or library's own code for a failure, looked for in it, its causes and what it gathers; and its text. */
const look = (cause: unknown): { readonly code: string; readonly text: string } => {
  let at: unknown = cause
  for (let depth = 0; depth < 8 && at !== undefined; depth++) {
    // undici gives its parser's errors a name and not always a code.
    const code = field(at, "name") === "HTTPParserError" ? "UND_ERR_HTTP_PARSER" : field(at, "code")
    if (typeof code === "string" && code !== "UND_ERR") return { code, text: printable(String(field(at, "message") ?? "")) }
    const gathered = field(at, "errors")
    at = field(at, "cause") ?? field(field(at, "reason"), "cause") ?? (Array.isArray(gathered) ? gathered[0] : undefined)
  }
  return { code: "", text: printable(cause instanceof Error ? cause.message : String(cause)) }
}

/** Whether what an HTTP parser could not read begins with this byte (0x15: an alert of TLS). */
const begins = (cause: unknown, byte: number): boolean => {
  let at: unknown = cause
  for (let depth = 0; depth < 8 && at !== undefined && at !== null; depth++) {
    const data = field(at, "data")
    if (data instanceof Uint8Array) return data[0] === byte
    if (typeof data === "string") return data.charCodeAt(0) === byte
    at = field(at, "cause") ?? field(field(at, "reason"), "cause")
  }
  return false
}

const connecting = new Set<NetworkError["reason"]>(["unknown-host", "refused", "tls", "plain-http", "unreachable"])

/**
 * Makes a failure of Node, undici or HttpClient while `host` (`host[:port]`) was asked, in `phase` or before, the NetworkError it means.
 * `proxy`: what it was asked through; where no connection came about, that may be to blame.
 */
export const fault = (host: string, cause: unknown, phase: "headers" | "body", proxy?: string): NetworkError => {
  const { code, text } = look(cause)
  const handshake = /before secure TLS/.test(text)
  const error = (reason: NetworkError["reason"], detail: string, transient: boolean) => new NetworkError({
    host, reason, transient,
    detail: proxy === undefined || phase === "body" ? detail : `${detail} (through the proxy ${proxy} of the environment)`,
    phase: phase === "headers" && (connecting.has(reason) || handshake || reason === "timeout") ? "connect" : phase
  })
  const refusal = /Proxy response \((\d+)\)/.exec(text)?.[1]
  if (refusal !== undefined) return error("protocol", `the proxy answered ${refusal} instead of connecting to it`, refusal.startsWith("5"))
  const known = certificate[code]
  if (known !== undefined) return error("tls", code === "ERR_TLS_CERT_ALTNAME_INVALID" ? `${known} (${text})` : `${known} (${code})`, false)
  if (/wrong version number|packet length too long|http request|SSL_WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG/i.test(`${code} ${text}`))
    return error("plain-http", "TLS was offered to a port that does not speak it (plain HTTP?)", false)
  const alert = alerts.find(([pattern]) => pattern.test(`${code} ${text}`))
  if (alert !== undefined) return error("tls", alert[1], false)
  if (code === "EPROTO" || code.startsWith("ERR_SSL_") || code.startsWith("ERR_TLS_")) return error("tls", `the TLS handshake failed (${text})`, false)
  switch (code) {
    case "ENOTFOUND":
    case "ENODATA":
    case "EAI_NODATA":
    case "EAI_NONAME":
      return error("unknown-host", `the host name does not resolve (${code})`, false)
    case "EAI_AGAIN":
    case "EAI_FAIL":
    case "ESERVFAIL":
    case "ETIMEOUT":
      return error("unknown-host", `the host name does not resolve: the name server did not answer (${code})`, true)
    case "ECONNREFUSED":
      return error("refused", "the connection was refused", true)
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "ENETDOWN":
    case "EHOSTDOWN":
      return error("unreachable", `there is no route to it (${code})`, true)
    case "EADDRNOTAVAIL":
    case "EACCES":
    case "EPERM":
    case "EINVAL":
      return error("unreachable", `this machine does not let us connect (${code})`, false)
    case "EMFILE":
    case "ENFILE":
      return error("unreachable", `this machine has no file descriptor left for a connection (${code})`, true)
    case "UND_ERR_CONNECT_TIMEOUT":
    case "ETIMEDOUT":
      return error("timeout", "no connection in time", true)
    case "UND_ERR_HEADERS_OVERFLOW":
      return error("protocol", "the headers of its answer are too long", false)
    case "UND_ERR_RES_CONTENT_LENGTH_MISMATCH":
      return error("reset", "the body has not the length its headers say", true)
    case "UND_ERR_INVALID_ARG":
      return error("protocol", `the request cannot be made (${text})`, false)
    case "UND_ERR_HTTP_PARSER":
      if (begins(cause, 0x15)) return error("protocol", "plain HTTP was sent to a port that speaks TLS: it is to be asked by https", false)
      return error("protocol", `what it sent is not HTTP (${text})`, true)
    case "ECONNRESET":
    case "ECONNABORTED":
    case "EPIPE":
    case "UND_ERR_SOCKET":
      return error("reset", handshake ? "the connection was closed during the TLS handshake" : `the connection was lost (${text || code})`, true)
  }
  return error("reset", `the connection was lost (${text || code || "no reason given"})`, true)
}
