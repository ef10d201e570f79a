/**
 * The test kit: images as data, and an in-process registry that serves them over real HTTP with faults as data.
 *
 * ```ts
 * const registry = yield* TestRegistry.make()
 * registry.put("demo", "latest", ImageBuilder.demo())
 * registry.script([{ match: { kind: "blob", nth: 1 }, do: Fault.cutAt(1000) }])
 * // pull `${registry.host}/demo`, then look at registry.requests
 * ```
 */
export * as Archive from "./Archive.ts"
export * as Certificate from "./server/Certificate.ts"
export * as Fault from "./server/Fault.ts"
export * as ImageBuilder from "./ImageBuilder.ts"
export * as LayerCases from "./LayerCases.ts"
export * as MemoryStore from "./MemoryStore.ts"
export * as LegacyImage from "./old/LegacyImage.ts"
export * as SavedArchive from "./old/SavedArchive.ts"
export * as Signature from "./old/Signature.ts"
export * as Tree from "./Tree.ts"
export { TestRegistry, type Auth, type LoggedRequest, type TestRegistryOptions } from "./server/TestRegistry.ts"
export { V1Server, type V1ServerOptions } from "./old/V1Server.ts"
export { payloadChecksum, type V1Forms } from "./old/V1Content.ts"
export type { IssuedToken, TokenServer, TokenServerOptions } from "./server/TokenServer.ts"
