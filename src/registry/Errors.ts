import { Duration, Schema } from "effect"
import type { VerifyError } from "../image/Descriptor.ts"
import type { Blocked, ConfigError } from "./config/ConfigError.ts"

/**
 * Why a request got no usable answer: the name does not resolve; nobody listens; TLS failed (certificate or handshake);
 * TLS was offered to a port that speaks plain HTTP; no route; the connection was lost; nothing came in time;
 * the registry asked for a pause (429, or 503 with Retry-After); it answered with another failure status;
 * it broke HTTP or the policy on redirects; its answer's body is not what the request was for.
 */
export const NetworkReason = Schema.Literals([
  "unknown-host", "refused", "tls", "plain-http", "unreachable", "reset", "timeout", "rate-limited", "server", "protocol", "body"
])

/** What to do about TLS, by what is wrong. */
const tlsStep = ({ detail, host }: { readonly detail: string; readonly host: string }): string => {
  if (/another name|know itself by this name/.test(detail)) return "check the host's name, or ask it by the name its certificate is for"
  if (/expired|not valid yet|revoked|version of TLS/.test(detail)) return "whoever runs the registry has to mend this; check this machine's clock too"
  if (/client certificate/.test(detail)) return `put yours, as client.cert and client.key, into ~/.config/docker/certs.d/${host} or /etc/docker/certs.d/${host}`
  return `put its authority, as ca.crt, into ~/.config/docker/certs.d/${host} or /etc/docker/certs.d/${host}, or name it in SSL_CERT_FILE or NODE_EXTRA_CA_CERTS`
}

const nextStep: Record<typeof NetworkReason.Type, string> = {
  "unknown-host": "check the spelling of the host, and this machine's DNS",
  refused: "check the host and port, and that the registry is running",
  tls: "",
  "plain-http": "if plain HTTP is meant, name the host with --insecure",
  unreachable: "check this machine's network and routes",
  reset: "try again; what was already received is kept",
  timeout: "try again; what was already received is kept",
  "rate-limited": "wait, or log in for a higher limit, then try again",
  server: "the fault is on the registry's side; try again later",
  protocol: "check that this is a registry, and what stands between it and this machine",
  body: "check that this is a registry, and what stands between it and this machine"
}

/** The code of the first error object in a v2 registry's answer, as Docker 1.9 read it (`Protocol.codeOf`). Absent: none stood there. */
const code = Schema.optionalKey(Schema.String)

/** An endpoint that was tried before the error came about, the rule that put it there, and how it ended there. */
export const Tried = Schema.Struct({ endpoint: Schema.String, why: Schema.String, reason: Schema.String })

/** What was tried before, in order. Absent: there was nothing else to try. */
const tried = Schema.optionalKey(Schema.Array(Tried))

/** The most useful sentence first, then each endpoint in the order in which they were tried. */
const withTried = (sentence: string, tried: ReadonlyArray<typeof Tried.Type> = []): string =>
  tried.length === 0 ? sentence : `${sentence}\n${tried.map(({ endpoint, reason, why }, index) => `  ${index + 1}. ${endpoint} (${why}): ${reason}`).join("\n")}`

/**
 * The network or the registry failed `host`. `detail` says what was seen, `transient` whether asking again may help, `phase` how
 * far the request was (connect: name, TCP and TLS), `status` is the HTTP status if one came, `retryAfter` how long the registry asked to wait.
 */
export class NetworkError extends Schema.TaggedError<NetworkError>()("NetworkError", {
  host: Schema.String,
  reason: NetworkReason,
  detail: Schema.String,
  transient: Schema.Boolean,
  phase: Schema.optionalKey(Schema.Literals(["connect", "headers", "body"])),
  status: Schema.optionalKey(Schema.Int),
  retryAfter: Schema.optionalKey(Schema.Duration),
  code, tried
}) {
  override get message() {
    const pause = this.retryAfter === undefined ? "" : ` (it asks to wait ${Duration.format(this.retryAfter)})`
    return withTried(`${this.host}: ${this.detail}${pause}; ${this.reason === "tls" ? tlsStep(this) : nextStep[this.reason]}`, this.tried)
  }
}

/**
 * The registry does not let us read `repository`: 401 after what could be tried, or 403 (`denied`). `credentials` says
 * where those that were used come from, or "anonymous"; `detail` what the registry or the token server said.
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", {
  host: Schema.String,
  repository: Schema.String,
  denied: Schema.Boolean,
  credentials: Schema.String,
  detail: Schema.String,
  code, tried
}) {
  override get message() {
    const verb = this.denied ? "denies access to" : "does not authorise reading"
    const next = this.credentials === "anonymous"
      ? "check the name (registries answer so for repositories that do not exist), or log in (docker login writes config.json)"
      : `check the credentials from ${this.credentials}`
    return withTried(`${this.host} ${verb} ${this.repository}: ${this.detail}; ${next}`, this.tried)
  }
}

/** The registry has no such `repository`, or in it no such manifest, blob, tag, image or layer (`name`: tag, digest or v1 image ID). */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", {
  host: Schema.String,
  what: Schema.Literals(["repository", "manifest", "blob", "tag", "image", "layer"]),
  repository: Schema.String,
  name: Schema.String,
  /** It is a foreign layer, and its addresses are not asked. */
  foreign: Schema.optionalKey(Schema.Boolean),
  code, tried
}) {
  override get message() { return withTried(this.sentence, this.tried) }
  private get sentence(): string {
    switch (this.what) {
      case "repository":
        return `${this.host} has no repository ${this.repository}; check the name`
      case "manifest":
        return `${this.host} has no manifest "${this.name}" in ${this.repository}; check the tag or digest`
      case "blob":
        if (this.foreign === true) return `${this.host} lacks the blob ${this.name}, a foreign layer that its manifest gives other addresses for; --allow-foreign fetches it from there`
        return `${this.host} lacks the blob ${this.name} that an image in ${this.repository} names; the image is incomplete there and must be pushed again`
      case "tag":
        return `Tag ${this.name} not found in repository ${this.repository} at ${this.host}; check the tag`
      case "image":
      case "layer":
        return `${this.host} lacks the ${this.what === "image" ? "image" : "layer of the image"} ${this.name} that ${this.repository} names; the image is incomplete there and must be pushed again`
    }
  }
}

/** The answer for `subject` came and is refused by `rule`: too long, an HTML page instead of a manifest, an unknown encoding. */
export class AnswerRefused extends Schema.TaggedError<AnswerRefused>()("AnswerRefused", {
  host: Schema.String,
  subject: Schema.String,
  rule: Schema.String,
  tried
}) {
  override get message() {
    return withTried(`${this.host} sent something for ${this.subject} that is refused: ${this.rule}; check that this is a registry, and what stands between it and this machine`, this.tried)
  }
}

/** The file `path` that should hold credentials cannot be used; `problem` says why, without any of its contents. */
export class CredentialsError extends Schema.TaggedError<CredentialsError>()("CredentialsError", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `the credentials file ${this.path} cannot be used: ${this.problem}; repair or remove it`
  }
}

/** The credential helper `helper`, which the configuration `from` names, gave nothing that can be used for `host`; `problem` says why, without what it wrote. */
export class HelperError extends Schema.TaggedError<HelperError>()("HelperError", {
  helper: Schema.String,
  from: Schema.String,
  host: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `the credential helper ${this.helper} failed for ${this.host}: ${this.problem}; repair it, or take it out of ${this.from}`
  }
}

/** Everything a request to a registry can fail with. `VerifyError`: the bytes are not those of the digest asked for. */
export type RegistryFailure = NetworkError | Unauthorized | NotFound | AnswerRefused | CredentialsError | HelperError | ConfigError | Blocked | VerifyError

/** The HTTP status that a request failed with, if it was one. */
export const statusOf = (error: unknown): number | undefined => {
  if (error instanceof NetworkError) return error.status
  if (error instanceof Unauthorized) return error.denied ? 403 : 401
  return error instanceof NotFound ? 404 : undefined
}
