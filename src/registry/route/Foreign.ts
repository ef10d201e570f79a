import { Effect, type Scope } from "effect"
import type { Descriptor } from "../../image/Descriptor.ts"
import { printable } from "../../image/Printable.ts"
import { bounded } from "../answer/Body.ts"
import { isPrivate } from "./Endpoint.ts"
import { NetworkError, NotFound, type RegistryFailure, type Tried } from "../Errors.ts"
import { holdsFrom } from "../answer/Range.ts"
import type { BlobAnswer } from "../Registry.ts"
import type { Limits } from "../RetryPolicy.ts"
import type { Transport } from "../Transport.ts"

/** Why an address is not asked; undefined: it is. `registry`: the host whose manifest gives it. */
export const refusal = (address: string, registry: string): string | undefined => {
  if (!URL.canParse(address)) return "it is not a URL"
  const { host, password, protocol, username } = new URL(address)
  if (protocol !== "https:") return "it is not https"
  if (username !== "" || password !== "") return "it has a user name in it"
  return isPrivate(host) && !isPrivate(registry) ? "it is an address of a private network and the registry is not" : undefined
}

/** Addresses that are tried, at most. */
const most = 16

/**
 * A foreign layer from the addresses its manifest gives, in order: by https, without credentials, cookies or client certificate. `missing`
 * is the error where none has it. Whoever takes the bytes checks size and digest.
 */
export const blob = Effect.fn("Foreign.blob")(function*(
  addresses: ReadonlyArray<string>, blob: Descriptor, from: number, missing: NotFound, use: { readonly transport: Transport["Service"]; readonly limits: Limits }
): Effect.fn.Return<BlobAnswer, RegistryFailure, Scope.Scope> {
  const tried: Array<typeof Tried.Type> = [...missing.tried ?? []]
  let broken: NetworkError | undefined
  for (const address of addresses.slice(0, most)) {
    const endpoint = printable(address.replace(/[?#].*$/s, "").replace(/\/\/[^/]*@/, "//"))
    const told = (reason: string) => tried.push({ endpoint, why: "urls of the layer", reason })
    const rule = refusal(address, missing.host)
    if (rule !== undefined) {
      told(`refused: ${rule}`)
      continue
    }
    const result = yield* use.transport.send({ url: address, headers: { accept: "*/*", ...from > 0 && { range: `bytes=${from}-` } } }).pipe(
      Effect.catch((error) => Effect.sync(() => {
        told(error.detail)
        broken = error.transient ? error : broken
        return undefined
      })))
    if (result === undefined) continue
    if (result.status === 206 && holdsFrom(result, from, blob.size)) return { from, body: bounded(result.body, blob.size - from, use.limits.settle) }
    if (result.status === 200) return { from: 0, body: bounded(result.body, blob.size, use.limits.settle) }
    yield* result.close
    told(`it answered ${result.status}`)
    if (result.status >= 500 || result.status === 429) broken = new NetworkError({ host: result.host, reason: "server", phase: "headers", status: result.status, transient: true, detail: `it answered ${result.status}` })
  }
  return yield* broken === undefined ? new NotFound({ ...missing, tried }) : new NetworkError({ ...broken, tried })
})
