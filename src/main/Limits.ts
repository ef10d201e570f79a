import { Effect, Layer } from "effect"
import type { LimitName, Limits } from "../layer/Limits.ts"
import { Limits as LayerLimits } from "../Layers.ts"
import { IndexLimits } from "../Documents.ts"
import * as Cli from "./Cli.ts"

/** The layer limit of a name; `index-depth` and `index-entries` are those of `IndexLimits`. */
const layerLimits: Readonly<Record<LimitName, keyof Limits>> = {
  size: "bytes", entries: "entries", path: "path", depth: "depth", record: "record", ratio: "ratio", window: "window"
}
/** What no setting may exceed: what our decoders, Linux and memory can take. */
const most: Readonly<Partial<Record<string, number>>> = { path: 4095, depth: 2048, record: 64 * 2 ** 20, window: 2 ** 27, "index-depth": 64, "index-entries": 65_536 }
/** A ratio that is asked for holds from 1 MiB on, and not only where its default does. */
const freely = 2 ** 20

/** The settings that `--limit` and the environment make; the command line counts more. */
export const settings = (given: ReadonlyArray<string>) => Layer.unwrap(Effect.gen(function*() {
  const environment = (process.env["TOWLINE_LIMITS"] ?? "").split(",").map((text) => text.trim()).filter((text) => text !== "")
  const layers: { -readonly [key in keyof Limits]?: number } = {}
  const indexes: { depth?: number; entries?: number } = {}
  for (const text of [...environment, ...given]) {
    const [, name = "", number = ""] = /^([a-z-]+)=(.+)$/.exec(text) ?? []
    const value = Cli.parseSize(number)
    const field = Object.entries(layerLimits).find(([key]) => key === name)?.[1]
    if (field === undefined && name !== "index-depth" && name !== "index-entries") {
      return yield* new Cli.UsageError({ problem: `--limit ${text} is not of the form NAME=VALUE, where NAME is one of ${[...Object.keys(layerLimits), "index-depth", "index-entries"].join(", ")}` })
    }
    if (value === undefined || value < 1 || !Number.isSafeInteger(value)) return yield* new Cli.UsageError({ problem: `--limit ${text}: a whole number, or a size such as 8GiB, is expected` })
    const cap = most[name]
    if (cap !== undefined && value > cap) return yield* new Cli.UsageError({ problem: `--limit ${text}: at most ${cap}` })
    if (field !== undefined) layers[field] = value
    else if (name === "index-depth") indexes.depth = value
    else indexes.entries = value
    if (name === "ratio") layers.freely = freely
  }
  return Layer.mergeAll(
    Layer.effect(LayerLimits, Effect.map(LayerLimits, (limits) => ({ ...limits, ...layers }))),
    Layer.effect(IndexLimits, Effect.map(IndexLimits, (limits) => ({ ...limits, ...indexes }))))
}))
