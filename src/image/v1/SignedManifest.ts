import { Result, Schema } from "effect"
import { maxLayers } from "../Manifest.ts"
import * as Envelope from "./Envelope.ts"
import * as GoJson from "./go/GoJson.ts"
import * as GoText from "./go/GoText.ts"
import * as LegacyDigest from "./LegacyDigest.ts"
import * as LegacyManifest from "./LegacyManifest.ts"

/**
 * A schema1 manifest is refused. `rule` says why; `reason` is Docker 1.9.1's own wording, or the field and what is wrong
 * with it for `document` (no manifest). `crash`: Docker 1.9.1 would have ended here.
 */
export class ManifestNotVerified extends Schema.TaggedError<ManifestNotVerified>()("ManifestNotVerified", {
  rule: Schema.Literals(["document", "digest", "crash", "schema-version", "unequal-lengths", "no-layers", "too-many-layers", "outer-differs"]),
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** A schema1 manifest as it came, taken apart; neither digest nor signatures are verified. */
export interface SignedManifest {
  /** The bytes without white space around the document: what Docker kept. */
  readonly raw: Uint8Array
  /** What the document itself says, signatures aside. */
  readonly outer: LegacyManifest.LegacyManifest
  readonly envelope: Result.Result<Envelope.Envelope, Envelope.InvalidEnvelope>
}

const refuse = (rule: ManifestNotVerified["rule"], reason: string) => Result.fail(new ManifestNotVerified({ rule, reason }))
const asDocument = ({ message }: { readonly message: string }) => new ManifestNotVerified({ rule: "document", reason: message })
const isSpace = (byte: number | undefined) => byte === 32 || byte === 10 || byte === 13 || byte === 9

/** Reads what a registry sent for a schema1 manifest, signed or not (docker/distribution of 2015: manifest.SignedManifest). */
export const decode = (bytes: Uint8Array, hash: LegacyDigest.Hash): Result.Result<SignedManifest, ManifestNotVerified> => {
  let start = 0, end = bytes.length
  while (start < end && isSpace(bytes[start])) start++
  while (end > start && isSpace(bytes[end - 1])) end--
  const raw = bytes.subarray(start, end), text = GoText.decode(raw)
  return Result.gen(function*() {
    const document = yield* Result.mapError(GoJson.parse(text), ({ reason }) => new ManifestNotVerified({ rule: "document", reason }))
    const outer = yield* Result.mapError(LegacyManifest.decode(text), asDocument)
    return { raw, outer, envelope: Envelope.open(raw, document, hash) }
  })
}

/** The bytes the manifest's digest is over: the payload, or the whole document if its signatures are missing or broken. */
export const content = (manifest: SignedManifest): Result.Result<Uint8Array, ManifestNotVerified> =>
  Result.match(manifest.envelope, {
    onSuccess: ({ payload }) => Result.succeed(payload),
    onFailure: ({ kind, reason }) => kind === "crash" ? refuse("crash", reason) : Result.succeed(manifest.raw)
  })

/** The manifest's digest: `sha256:` and the SHA-256 of `content` (docker: graph.digestFromManifest). */
export const digest = (manifest: SignedManifest, hash: LegacyDigest.Hash): Result.Result<string, ManifestNotVerified> =>
  Result.map(content(manifest), (bytes) => `sha256:${hash("sha256", bytes)}`)

/** The checks on a manifest's shape, in Docker's order, and ours on its length; `tag` is only for its messages. */
export const checkShape = (manifest: LegacyManifest.LegacyManifest, tag: string): Result.Result<LegacyManifest.LegacyManifest, ManifestNotVerified> => {
  const name = GoText.quote(tag)
  if (manifest.schemaVersion !== 1n) return refuse("schema-version", `unsupported schema version ${manifest.schemaVersion} for tag ${name}`)
  if (manifest.fsLayers.length !== manifest.history.length) return refuse("unequal-lengths", `length of history not equal to number of layers for tag ${name}`)
  if (manifest.fsLayers.length > maxLayers) return refuse("too-many-layers", `${manifest.fsLayers.length} FSLayers in manifest for tag ${name}, and at most ${maxLayers} are taken`)
  return manifest.fsLayers.length === 0 ? refuse("no-layers", `no FSLayers in manifest for tag ${name}`) : Result.succeed(manifest)
}

/**
 * What Docker 1.9.1 took from a manifest (graph.verifyManifest). `ref` is what was asked for: by a digest, the content must
 * have it, and it is the content that counts; by a tag, it is the outer document. Signatures are not looked at: see `signed`
 * for what a pull by tag may trust.
 */
export const verify = (manifest: SignedManifest, ref: string, hash: LegacyDigest.Hash): Result.Result<LegacyManifest.LegacyManifest, ManifestNotVerified> =>
  Result.flatMap(LegacyDigest.is(ref) ? byDigest(manifest, ref, hash) : Result.succeed(manifest.outer), (found) => checkShape(found, ref))

const byDigest = (manifest: SignedManifest, ref: LegacyDigest.LegacyDigest, hash: LegacyDigest.Hash) =>
  Result.flatMap(content(manifest), (bytes) => LegacyDigest.verifies(ref, bytes, hash)
    ? Result.mapError(LegacyManifest.decode(GoText.decode(bytes)), asDocument)
    : refuse("digest", `image verification failed for digest ${ref}`))

/** The parts of a manifest a pull uses, each as one text to compare. */
const parts = (manifest: LegacyManifest.LegacyManifest) => ({
  schemaVersion: String(manifest.schemaVersion),
  name: manifest.name,
  tag: manifest.tag,
  architecture: manifest.architecture,
  fsLayers: JSON.stringify(manifest.fsLayers),
  history: JSON.stringify(manifest.history)
})

/**
 * What the signatures of a manifest cover. The document around the payload must say the same in every field a pull uses;
 * Docker 1.9.1 took the outer document for a pull by tag and did not compare. Fails with the envelope's error if there is none.
 */
export const signed = (manifest: SignedManifest): Result.Result<LegacyManifest.LegacyManifest, ManifestNotVerified | Envelope.InvalidEnvelope> =>
  Result.gen(function*() {
    const { payload } = yield* manifest.envelope
    const inner = yield* Result.mapError(LegacyManifest.decode(GoText.decode(payload)), asDocument)
    const outside = new Map(Object.entries(parts(manifest.outer)))
    const differs = Object.entries(parts(inner)).find(([name, value]) => outside.get(name) !== value)
    return differs === undefined ? inner
      : yield* refuse("outer-differs", `${differs[0]}: the document says something else than the payload its signatures cover; whoever sent it changed it after it was signed`)
  })
