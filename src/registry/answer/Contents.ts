import { Result } from "effect"
import * as MediaType from "../../image/MediaType.ts"
import * as SignedManifest from "../../image/v1/SignedManifest.ts"
import { hash } from "../Jws.ts"

const modern = (contentType: string) => MediaType.isIndex(contentType) || MediaType.isManifest(contentType)

/**
 * The bytes of a manifest its digest is over: those that came, but for a schema1 manifest what its signatures cover (all of it
 * without white space around it, if there are none). Old registries give schema1 as `application/json`, so that there the document
 * tells. Fails with a rule for what has no digest at all.
 */
export const contentOf = (raw: Uint8Array, contentType: string | undefined): Result.Result<Uint8Array, string> => {
  if (contentType !== undefined && modern(contentType)) return Result.succeed(raw)
  const named = contentType === MediaType.schema1 || contentType === MediaType.schema1Signed
  return Result.match(SignedManifest.decode(raw, hash), {
    onFailure: () => Result.succeed(raw),
    onSuccess: (manifest) => named || manifest.outer.schemaVersion === 1n
      ? Result.mapError(SignedManifest.content(manifest), ({ reason }) => reason)
      : Result.succeed(raw)
  })
}
