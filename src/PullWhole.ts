import { Effect } from "effect"
import type { ArtifactPlan } from "./ArtifactPlan.ts"
import * as Config from "./image/ImageConfig.ts"
import * as Platform from "./image/Platform.ts"
import type { Hub } from "./progress/Hub.ts"
import type { PullEvent } from "./progress/PullEvent.ts"
import type { PulledImage, PullOptions } from "./Pull.ts"
import type { IndexPlan, PullPlan } from "./PullPlan.ts"
import { bundled } from "./OciLayout.ts"
import * as StoreImages from "./StoreImages.ts"

/** The config of what is no image. */
const noConfig = new Config.ImageConfig({ platform: new Platform.Platform({ os: "unknown", architecture: "unknown" }), rootfs: { diffIds: [] }, history: [] })

const pulled = (plan: PullPlan | ArtifactPlan, reference: string, { changed, id }: { readonly changed: boolean; readonly id: string }) => Effect.gen(function*() {
  const common = { reference, target: plan.target, manifest: plan.manifest, id, platform: plan.platform, changed }
  if (plan.kind === "artifact") {
    const [config, ...blobs] = plan.blobs.map(({ blob }) => blob)
    const artifact: PulledImage = { ...common, config: { descriptor: config ?? plan.manifest, image: noConfig }, layers: [], artifact: { type: plan.type, blobs } }
    return artifact
  }
  const image: PulledImage = {
    ...common, config: { descriptor: plan.config, image: yield* Effect.fromResult(Config.decode(plan.documents.at(-1)?.raw ?? new Uint8Array())) },
    layers: plan.layers.map(({ blob, diffId }) => ({ blob, diffId, repository: plan.repository }))
  }
  return image
})

/** Pulls an artifact, or every image of an index: all that is needed first, then what can be seen of it in one step. */
export const execute = Effect.fn("PullWhole.execute")(function*(hub: Hub<PullEvent>, plan: ArtifactPlan | IndexPlan, options: PullOptions) {
  const { reference, repository, target } = plan
  if (options.rootfs !== undefined) {
    return yield* plan.kind === "artifact" ? new StoreImages.NoFileSystem({ name: reference, type: plan.type })
      : new Platform.InvalidPlatform({ input: Platform.all, reason: "a root file system is of one image" })
  }
  const name = { name: `${repository.domain}/${repository.path}`, reference: plan.name }
  const stored = yield* StoreImages.store(hub, StoreImages.expanded(plan, reference, [name]), { unpack: options.unpack ?? true, blobs: options.blobs ?? false, remote: true })
  const images = yield* Effect.forEach(stored, (one) => pulled(one.planned.plan, one.planned.reference, one))
  const chosen = images[plan.kind === "index" ? plan.chosen : 0] ?? (yield* Effect.die(new Error("nothing was pulled")))
  const changed = stored.some(({ changed }) => changed)
  for (const { changed, id, planned } of stored) {
    if (planned.reference !== reference) hub.publish({ _tag: "done", reference: planned.reference, digest: planned.plan.manifest.digest, image: id, changed })
  }
  hub.publish({ _tag: "done", reference, digest: target.digest, image: chosen.id, changed })
  const image: PulledImage = {
    ...chosen, changed, ...plan.kind === "index" ? { whole: { index: target, members: images.map((image) => ({ ...bundled(image), id: image.id, platform: image.platform })) } } : {}
  }
  return image
}, Effect.scoped)
