import { Result, Schema } from "effect"
import * as StrongId from "../../src/image/v1/StrongId.ts"
import { hash } from "../../src/registry/Jws.ts"
import { kind } from "./Kind.ts"

/** Strong IDs of single images. Of an error its class counts, not Go's wording. */
export const imageIds = kind("image-ids", Schema.Struct({
  v1Compatibility: Schema.String,
  layerID: Schema.String,
  parentID: Schema.String,
  expect: Schema.Union([
    Schema.Struct({ ok: Schema.Literal(true), config: Schema.String, strongID: Schema.String, compatibilityID: Schema.String, fallback: Schema.Boolean }),
    Schema.Struct({ ok: Schema.Literal(false), errorClass: Schema.String })
  ])
}), ({ v1Compatibility, layerID, parentID, expect }) => ({
  expected: expect,
  actual: Result.match(StrongId.address(v1Compatibility, layerID, parentID, hash), {
    onFailure: ({ rule }) => ({ ok: false, errorClass: rule }),
    onSuccess: ({ config, strongId, compatibilityId, fallback }) => ({ ok: true, config, strongID: strongId, compatibilityID: compatibilityId, fallback })
  })
}))
