import { Context } from "effect"
import type { Mode } from "./registry/route/Protocol.ts"

/**
 * `safe`: v2 first, v1 only where v2 is absent, signatures must verify. `docker-1.9`: the endpoints, fallbacks and signatures
 * (not checked) of Docker 1.9.1.
 */
export const Protocol = Context.Reference<Mode>("Policy/Protocol", { defaultValue: () => "safe" })

/**
 * IDs of keys in libtrust's form (`Jws.trustKeyId`), of which one must have signed a schema1 manifest; undefined: any key
 * will do, and so does none, with a warning.
 */
export const TrustedKeys = Context.Reference<ReadonlyArray<string> | undefined>("Policy/TrustedKeys", { defaultValue: () => undefined })
