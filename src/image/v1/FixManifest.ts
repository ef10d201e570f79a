import { Result, Schema } from "effect"
import type { LegacyManifest } from "./LegacyManifest.ts"
import * as V1Image from "./V1Image.ts"

/**
 * A manifest cannot be made into a chain of images. `rule` says why, `index` is the entry at fault (0 is the top) and
 * `reason` Docker 1.9.1's own words for it (the reason Go gave, for `json` and `created`).
 */
export class ManifestNotFixable extends Schema.TaggedError<ManifestNotFixable>()("ManifestNotFixable", {
  rule: Schema.Literals(["json", "created", "image-id", "base-parent", "repeated-id", "parent"]),
  index: Schema.Natural,
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** A manifest whose entries form a chain without repeats. */
export interface FixedManifest {
  readonly manifest: LegacyManifest
  /** The places its entries had before, top first. */
  readonly survivors: ReadonlyArray<number>
}

/** Whether `id` is one a v1 image can have: 64 lower-case hexadecimal digits (docker: image.ValidateID). */
export const isImageId = (id: string): boolean => /^[a-f0-9]{64}$/.test(id)

/**
 * Drops entries that repeat the one below them and checks that each image's parent is the image below it (docker 1.9.1:
 * graph.fixManifestLayers, in its order of checks). Takes a manifest that `SignedManifest.verify` accepts.
 */
export const fix = (manifest: LegacyManifest): Result.Result<FixedManifest, ManifestNotFixable> => Result.gen(function*() {
  const images: Array<{ readonly id: string; readonly parent: string }> = []
  for (const [index, { v1Compatibility }] of manifest.history.entries()) {
    const image = yield* Result.mapError(V1Image.decode(v1Compatibility), ({ rule, message }) => new ManifestNotFixable({ rule, index, reason: message }))
    if (!isImageId(image.id)) {
      return yield* fail("image-id", index, `invalidimageid: image ID '${image.id}' is invalid `)
    }
    images.push({ id: image.id, parent: image.parent })
  }
  const base = images.length - 1
  if (images[base]?.parent !== "") return yield* fail("base-parent", Math.max(base, 0), "Invalid parent ID in the base layer of the image.")

  const seen = new Set<string>()
  for (const [index, { id }] of images.entries()) {
    if (seen.has(id) && images[index - 1]?.id !== id) return yield* fail("repeated-id", index, `ID ${id} appears multiple times in manifest`)
    seen.add(id)
  }

  const survivors = [base]
  for (let index = base - 1; index >= 0; index--) {
    const image = images[index], below = images[index + 1]
    if (image === undefined || below === undefined || image.id === below.id) continue
    if (image.parent !== below.id) return yield* fail("parent", index, `Invalid parent ID. Expected ${below.id}, got ${image.parent}.`)
    survivors.push(index)
  }
  survivors.reverse()
  const kept = new Set(survivors)
  const keep = <A>(list: ReadonlyArray<A>) => list.filter((_, index) => kept.has(index))
  return { manifest: { ...manifest, fsLayers: keep(manifest.fsLayers), history: keep(manifest.history) }, survivors }
})

const fail = (rule: ManifestNotFixable["rule"], index: number, reason: string) => Result.fail(new ManifestNotFixable({ rule, index, reason }))
