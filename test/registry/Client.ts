import { ConfigProvider, Effect, Layer, Option, Redacted, Stream } from "effect"
import { Descriptor } from "../../src/image/Descriptor.ts"
import * as Digest from "../../src/image/Digest.ts"
import { Credentials, type Found } from "../../src/registry/auth/Credentials.ts"
import { RegistryOptions } from "../../src/registry/route/Endpoint.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { Limits } from "../../src/registry/RetryPolicy.ts"
import { Transport } from "../../src/registry/Transport.ts"
import { V1Registry } from "../../src/registry/V1Registry.ts"
import { createHash } from "node:crypto"

/** Limits for tests with real sockets: nothing waits for long. */
export const brief: Limits = {
  connect: "2 seconds", headers: "400 millis", idle: "300 millis", minimumRate: 1024, rateWindow: "1 second",
  settle: "150 millis", pause: "60 seconds", pace: 0.01
}

export interface Setup {
  readonly limits?: Partial<Limits>
  readonly options?: Partial<RegistryOptions>
  /** Variables of the environment; default: none. */
  readonly environment?: Readonly<Record<string, string>>
  /** By domain. */
  readonly credentials?: Readonly<Record<string, Partial<{ username: string; password: string; identityToken: string }>>>
}

const none: RegistryOptions = { insecure: [], authorities: [], realms: [], connections: 8 }

/** A registry client, and its transport, over real HTTP. */
export const client = ({ environment = {}, limits, options, credentials = {} }: Setup = {}) => {
  const found = (domain: string): Option.Option<Found> => {
    const entry = credentials[domain]
    return entry === undefined ? Option.none() : Option.some({
      username: entry.username ?? "", password: Redacted.make(entry.password ?? ""), source: "/home/x/.docker/config.json",
      ...entry.identityToken !== undefined && { identityToken: Redacted.make(entry.identityToken) }
    })
  }
  const settings = Layer.mergeAll(Layer.succeed(Limits, { ...brief, ...limits }), Layer.succeed(RegistryOptions, { ...none, ...options }),
    ConfigProvider.layer(ConfigProvider.fromEnvRecord({ ...environment })))
  return Layer.mergeAll(Registry.layer, V1Registry.layer).pipe(
    Layer.provideMerge(Layer.mergeAll(Transport.layer, Layer.succeed(Credentials, { find: (domain) => Effect.sync(() => found(domain)) }))),
    Layer.provideMerge(settings)
  )
}

/** The descriptor of `bytes`. */
export const descriptorOf = (bytes: Uint8Array, size = bytes.byteLength): Descriptor =>
  new Descriptor({ mediaType: "application/octet-stream", digest: Digest.Digest.make(`sha256:${createHash("sha256").update(bytes).digest("hex")}`), size })

/** All bytes of a body. */
export const bytesOf = <E>(body: Stream.Stream<Uint8Array, E>) => Effect.map(Stream.runCollect(body), (chunks) => Buffer.concat(chunks))
