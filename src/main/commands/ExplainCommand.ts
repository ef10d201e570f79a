import { Effect, Layer, Option, Result } from "effect"
import type { FileSystem } from "effect"
import { short } from "../../image/Digest.ts"
import * as Policy from "../../Policy.ts"
import * as Format from "../../progress/Format.ts"
import * as Pull from "../../Pull.ts"
import type { PlannedLayer } from "../../PullPlan.ts"
import * as Jws from "../../registry/Jws.ts"
import * as Towline from "../../Towline.ts"
import type { V1Plan } from "../../V1Plan.ts"
import * as Cli from "../Cli.ts"
import { keys } from "../Keys.ts"
import * as Limits from "../Limits.ts"
import * as Network from "../Network.ts"
import type { PullFlags } from "./PullCommand.ts"
import * as Run from "../Run.ts"

type Plan = Effect.Success<ReturnType<typeof Pull.plan>>

type Modern = Exclude<Plan, { readonly kind: "v1" }>
type Layered = Pick<PlannedLayer, "blob" | "have" | "state"> & { readonly diffId?: string | undefined; readonly id?: string }

/** A layer as plans of every kind but v1 have it, and of schema1 the image that it is. */
const layersOf = (plan: Modern): ReadonlyArray<Layered> => {
  switch (plan.kind) {
    case "schema1": return plan.images
    case "artifact": return plan.blobs
    case "index": return [...new Map(plan.images.flatMap(layersOf).map((layer) => [layer.blob.digest, layer])).values()]
    default: return plan.layers
  }
}

/** The form of what was asked for, as its media type tells. */
const protocolOf = ({ kind, target }: Modern): string =>
  kind === "schema1" ? "v2, signed schema1" : target.mediaType.startsWith("application/vnd.oci.") ? "v2, OCI" : "v2, schema2"

/** What plans of every kind say. */
const common = (plan: Plan) => ({
  reference: plan.reference, endpoints: plan.endpoints ?? [], endpoint: plan.endpoint, credentials: plan.credentials ?? (plan.endpoint === "store" ? undefined : "anonymous"),
  wanted: plan.wanted, platform: plan.platform, fits: plan.fits
})

/** What the plan says, without the documents' bytes: each blob counts once. */
const modern = (plan: Modern) => {
  const layers = layersOf(plan)
  const blobs = new Map(layers.map(({ blob, have, state }) => [blob.digest, { size: blob.size, missing: state === "unpacked" ? 0 : blob.size - have }]))
  const sum = (of: "size" | "missing") => [...blobs.values()].reduce((total, blob) => total + blob[of], 0)
  return {
    ...common(plan), protocol: protocolOf(plan), ...plan.kind === "artifact" ? { artifact: plan.type } : {},
    target: { digest: plan.target.digest, mediaType: plan.target.mediaType, size: plan.target.size },
    candidates: plan.kind === "schema1" ? [] : plan.candidates,
    ...plan.kind === "schema1" ? { signedBy: plan.keys } : {},
    ...plan.kind === "oci" || plan.kind === "schema2" ? { manifest: plan.manifest.digest, config: plan.config.digest } : {},
    ...plan.kind === "artifact" ? { manifest: plan.manifest.digest } : {},
    layers: layers.map(({ blob, diffId, have, id, state }) =>
      ({ digest: blob.digest, size: blob.size, ...diffId === undefined ? {} : { diffId }, state, have, ...id === undefined ? {} : { image: id } })),
    total: sum("size"), download: sum("missing")
  }
}

/** What a plan for a v1 registry says. `download`: what its registry tells of the sizes of missing layers; `unsized`: of how many it tells nothing. */
const old = (plan: V1Plan) => {
  const missing = plan.images.filter(({ state }) => state === "missing")
  return {
    ...common(plan), protocol: "v1", index: plan.index, grant: plan.grant, image: plan.images.at(-1)?.id, images: plan.images,
    download: missing.reduce((sum, { size = 0 }) => sum + size, 0), unsized: missing.filter(({ size }) => size === undefined).length
  }
}

/** A plan as `--json` prints it. */
export const facts = (plan: Plan) => plan.kind === "v1" ? old(plan) : modern(plan)

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

const grants = { token: "a token of the index goes with requests", basic: "they go with every request", none: "nothing goes with requests" } as const

/** The plan as people read it; `columns`: of their terminal, if it is one. Elsewhere names stay whole. */
export const table = (plan: Plan, columns: number | undefined): string => {
  const { credentials, endpoints, fits, platform, wanted } = common(plan)
  const row = rows(Math.max(40, columns ?? 60), columns !== undefined)
  const listed = row("endpoints", endpoints.flatMap(({ aside, chosen, content, mirror, tags, url, verified, why }, index) => {
    const notes = [
      ...mirror ? ["mirror"] : [], ...tags ? [] : ["content only"], ...content ? [] : ["tags only"], ...verified ? [] : ["certificate not checked"],
      ...aside === undefined ? [] : [`left out: ${aside}`], ...chosen ? ["answered"] : []
    ]
    return [`${index + 1}. ${url}`, `   by ${why}`, ...notes.length === 0 ? [] : [`   ${notes.join(", ")}`]]
  }))
  const first = [row("reference", [plan.reference]), listed, row("answered", [plan.endpoint])]
  const runs = row("platform", [fits ? platform : `${platform}, wanted was ${wanted}`])
  if (plan.kind === "v1") {
    const { download, grant, image, images, index, protocol, unsized } = old(plan)
    return [
      ...first,
      row("index", [index]),
      row("credentials", [`${credentials ?? "anonymous"}; ${grants[grant]}`]),
      row("protocol", [protocol]),
      row("image", [image ?? ""]),
      runs,
      row("ancestry", images.map(({ id, size, state }) => `${id.slice(0, 12)} ${(size === undefined ? "" : Format.bytes(size)).padStart(7)} ${state === "missing" ? "missing" : "present"}`)),
      row("download", [`${Format.bytes(download)}${unsized === 0 ? "" : `, and ${unsized} of unknown size`}`])
    ].flat().join("\n")
  }
  const { artifact, candidates, download, layers, protocol, target, total } = modern(plan)
  return [
    ...first,
    row("credentials", credentials === undefined ? [] : [credentials]),
    row("protocol", [protocol]),
    row("signed by", plan.kind === "schema1" ? [plan.keys.length === 0 ? "nobody whose signature was looked at" : plan.keys.join(" ")] : []),
    row("digest", [target.digest]),
    row("artifact", artifact === undefined ? [] : [`${artifact}: it is stored whole and not unpacked`]),
    ...plan.kind === "artifact" ? [] : [plan.kind === "index" ? row("platform", ["all: every image and artifact of the index"]) : runs],
    row("candidates", candidates.map(({ digest, lost, platform }) => `${short(digest)} ${platform}: ${lost ?? "chosen"}`)),
    row(artifact === undefined ? "layers" : "blobs", layers.map(({ digest, have, image, size, state }) =>
      `${short(digest)} ${Format.bytes(size).padStart(7)} ${states[state]}${state === "partial" ? `, ${Format.bytes(have)} there` : ""}${image === undefined ? "" : `, image ${image.slice(0, 12)}`}`)),
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
