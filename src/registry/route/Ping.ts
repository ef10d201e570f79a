import { Effect } from "effect"
import { NetworkError } from "../Errors.ts"
import type { Tls } from "./Route.ts"
import { Transport } from "../Transport.ts"

/** How an origin answered `GET /v2/`: whether its Docker-Distribution-Api-Version names registry/2.0, whatever the status. */
export interface Pinged {
  readonly v2: boolean
  readonly status: number
}

/** How long a ping may take. */
const patience = "15 seconds"

/** Asks `origin` (scheme and host; a `/` at its end stays) whether it speaks v2. Without credentials, and once. */
export const v2 = Effect.fn("Ping.v2")(function*(origin: string, tls: Tls) {
  const { headers, status } = yield* (yield* Transport).send({ url: `${origin}/v2/`, tls })
  const versions = (headers["docker-distribution-api-version"] ?? "").split(/[\s,]+/)
  return { v2: versions.includes("registry/2.0"), status }
}, Effect.scoped, (ping, origin) => Effect.timeoutOrElse(ping, {
  duration: patience,
  orElse: () => Effect.fail(new NetworkError({
    host: origin.split("/")[2] ?? "", reason: "timeout", transient: true, phase: "headers", detail: `no answer to a ping in ${patience}`
  }))
}))
