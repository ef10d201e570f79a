import { Effect, Layer } from "effect"
import { Workers } from "../layer/Workers.ts"
import * as Towline from "../Towline.ts"

/** Runs a command that only reads, on a store that may be mounted read-only. */
export const reading = (store: string) => Effect.provide(Towline.layerReading({ store }).pipe(Layer.provideMerge(Workers.layer)))
