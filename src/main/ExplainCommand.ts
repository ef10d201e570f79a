import { Effect, Layer, Option, Result } from "effect"
import type { FileSystem } from "effect"
import { short } from "../image/Digest.ts"
import * as Policy from "../Policy.ts"
import * as Format from "../progress/Format.ts"
import * as Pull from "../Pull.ts"
import type { PlannedLayer } from "../PullPlan.ts"
import * as Jws from "../registry/Jws.ts"
import * as Towline from "../Towline.ts"
import * as Cli from "./Cli.ts"
import { keys } from "./Keys.ts"
import * as Limits from "./Limits.ts"
import * as Network from "./Network.ts"
import type { PullFlags } from "./PullCommand.ts"
import * as Run from "./Run.ts"

type Plan = Effect.Success<ReturnType<typeof Pull.plan>>

/** A layer as plans of every kind have it. */
const layersOf = (plan: Plan): ReadonlyArray<Pick<PlannedLayer, "blob" | "have" | "state"> & { readonly diffId?: string | undefined }> => {
  switch (plan.kind) {
    case "schema1": return plan.images
    case "artifact": return plan.blobs
    case "index": return [...new Map(plan.images.flatMap(layersOf).map((layer) => [layer.blob.digest, layer])).values()]
    default: return plan.layers
  }
}

/** The form of what was asked for, as its media type tells. */
const protocolOf = ({ kind, target }: Plan): string =>
  kind === "schema1" ? "v2, signed schema1" : target.mediaType.startsWith("application/vnd.oci.") ? "v2, OCI" : "v2, schema2"

/** What the plan says, without the documents' bytes: each blob counts once. */
export const facts = (plan: Plan) => {
  const layers = layersOf(plan)
  const blobs = new Map(layers.map(({ blob, have, state }) => [blob.digest, { size: blob.size, missing: state === "unpacked" ? 0 : blob.size - have }]))
  const sum = (of: "size" | "missing") => [...blobs.values()].reduce((total, blob) => total + blob[of], 0)
  return {
    reference: plan.reference, endpoints: plan.endpoints ?? [], endpoint: plan.endpoint, credentials: plan.credentials ?? (plan.endpoint === "store" ? undefined : "anonymous"),
    protocol: protocolOf(plan), ...plan.kind === "artifact" ? { artifact: plan.type } : {},
    target: { digest: plan.target.digest, mediaType: plan.target.mediaType, size: plan.target.size },
    wanted: plan.wanted, platform: plan.platform, fits: plan.fits,
    candidates: plan.kind === "schema1" ? [] : plan.candidates,
    ...plan.kind === "oci" || plan.kind === "schema2" ? { manifest: plan.manifest.digest, config: plan.config.digest } : {},
    ...plan.kind === "artifact" ? { manifest: plan.manifest.digest } : {},
    layers: layers.map(({ blob, diffId, have, state }) => ({ digest: blob.digest, size: blob.size, ...diffId === undefined ? {} : { diffId }, state, have })),
    total: sum("size"), download: sum("missing")
  }
}

const label = 12

/** Rows of a label and its lines, which are broken between words so as to fit `columns`; `cut`: a word that is too long loses its middle. */
const rows = (columns: number, cut: boolean) => (name: string, texts: ReadonlyArray<string>): ReadonlyArray<string> => texts.flatMap((text, index) => {
  const lines: Array<string> = []
  let line = ""
  const indent = /^ */.exec(text)?.[0] ?? ""
  for (const whole of Format.printable(text).trim().split(" ")) {
    const word = cut ? Format.fit(whole, columns - label - indent.length - 2) : whole
    if (line !== "" && label + line.length + 1 + word.length > columns) {
      lines.push(line)
      line = `${indent}  ${word}`
    } else line = line === "" ? `${indent}${word}` : `${line} ${word}`
  }
  return [...lines, line].map((part, at) => `${(index === 0 && at === 0 ? name : "").padEnd(label)}${part}`)
})

const states = { unpacked: "unpacked", stored: "in the store", partial: "partial", missing: "missing" } as const

/** The plan as people read it; `columns`: of their terminal, if it is one. Elsewhere names stay whole. */
export const table = (plan: Plan, columns: number | undefined): string => {
  const { artifact, candidates, credentials, download, endpoints, layers, protocol, target, total } = facts(plan)
  const row = rows(Math.max(40, columns ?? 60), columns !== undefined)
  return [
    row("reference", [plan.reference]),
    row("endpoints", endpoints.flatMap(({ aside, chosen, content, mirror, tags, url, verified, why }, index) => {
      const notes = [
        ...mirror ? ["mirror"] : [], ...tags ? [] : ["content only"], ...content ? [] : ["tags only"], ...verified ? [] : ["certificate not checked"],
        ...aside === undefined ? [] : [`left out: ${aside}`], ...chosen ? ["answered"] : []
      ]
      return [`${index + 1}. ${url}`, `   by ${why}`, ...notes.length === 0 ? [] : [`   ${notes.join(", ")}`]]
    })),
    row("answered", [plan.endpoint]),
    row("credentials", credentials === undefined ? [] : [credentials]),
    row("protocol", [protocol]),
    row("digest", [target.digest]),
    row("artifact", artifact === undefined ? [] : [`${artifact}: it is stored whole and not unpacked`]),
    row("platform", plan.kind === "artifact" ? [] : [plan.kind === "index" ? "all: every image and artifact of the index" : plan.fits ? plan.platform : `${plan.platform}, wanted was ${plan.wanted}`]),
    row("candidates", candidates.map(({ digest, lost, platform }) => `${short(digest)} ${platform}: ${lost ?? "chosen"}`)),
    row(artifact === undefined ? "layers" : "blobs", layers.map(({ digest, have, size, state }) =>
      `${short(digest)} ${Format.bytes(size).padStart(7)} ${states[state]}${state === "partial" ? `, ${Format.bytes(have)} there` : ""}`)),
    row("download", [`${Format.bytes(download)} of ${Format.bytes(total)}`])
  ].flat().join("\n")
}

/** Says what a pull of each reference would do, and writes nothing. All are tried, and the first failure's exit code is given. */
export const explain = Effect.fnUntraced(function*(flags: PullFlags) {
  const trusted = flags.trustKeys.length === 0 ? undefined : yield* keys(flags.trustKeys, Jws.trustKeyId)
  const options = Option.isSome(flags.platform) ? { platform: flags.platform.value } : {}
  const settings = Layer.mergeAll(
    Layer.succeed(Policy.TrustedKeys, trusted), Layer.succeed(Policy.Protocol, flags.docker19 ? "docker-1.9" : "safe"), Network.settings(flags), Limits.settings(flags.limits))
  const plans = yield* Effect.forEach(flags.references, (reference) => Effect.map(Effect.result(Pull.plan(reference, options)), (result) => ({ reference, result }))).pipe(
    Effect.provide(Towline.layer({ store: flags.store }).pipe(Layer.provideMerge(settings))))
  let code = 0
  for (const [index, { reference, result }] of plans.entries()) {
    if (Result.isSuccess(result)) {
      if (flags.json) yield* Cli.print(JSON.stringify(facts(result.success)))
      else yield* Cli.print(`${index === 0 ? "" : "\n"}${table(result.success, process.stdout.isTTY ? process.stdout.columns : undefined)}`)
      continue
    }
    code = code === 0 ? Run.exitCode(result.failure) : code
    yield* Cli.tell(`pull: ${plans.length > 1 ? `${reference}: ` : ""}${Run.sentence(result.failure)}`)
  }
  if (code !== 0) return yield* Effect.fail(new Run.Failed(code))
}) satisfies (flags: PullFlags) => Effect.Effect<void, unknown, FileSystem.FileSystem>
