import type { Digest } from "../image/Digest.ts"
import type { PullEvent } from "./PullEvent.ts"

/** What a layer is doing, for the eye. */
export type Phase = "waiting" | "downloading" | "retrying" | "verified" | "extracting" | "done" | "exists"

/** One layer of one pull. `bytes` are those of the running phase; `fetched` those this pull has received. */
export interface LayerView {
  readonly reference: string
  readonly layer: Digest
  readonly total: number
  readonly phase: Phase
  readonly bytes: number
  readonly had: number
  readonly fetched: number
  readonly note: string | undefined
}

/** All that the renderers know: layers in the order of the plan, bottom first, and how many bytes are to be fetched. */
export interface State {
  readonly layers: ReadonlyMap<string, LayerView>
}

export const empty: State = { layers: new Map() }

const key = (event: { readonly reference: string; readonly layer: Digest }) => `${event.reference} ${event.layer}`

/** The state after `event`. */
export const after = (state: State, event: PullEvent): State => {
  if (event._tag === "planned") {
    const layers = new Map(state.layers)
    for (const { layer, size, state: has } of event.layers) {
      const there = has === "unpacked" || has === "stored"
      layers.set(key({ reference: event.reference, layer }), {
        reference: event.reference, layer, total: size, phase: has === "unpacked" ? "exists" : "waiting", bytes: 0,
        had: there ? size : 0, fetched: there ? size : 0, note: undefined
      })
    }
    return { layers }
  }
  if (!("layer" in event)) return state
  const old = state.layers.get(key(event))
  if (old === undefined) return state
  return { layers: new Map(state.layers).set(key(event), { ...old, ...change(old, event) }) }
}

const change = (old: LayerView, event: Extract<PullEvent, { readonly layer: Digest }>): Partial<LayerView> => {
  switch (event._tag) {
    // Unpacked, and its blob is wanted after all: nothing of that was there.
    case "waiting": return { phase: "waiting", ...(old.phase === "exists" ? { had: 0, fetched: 0 } : {}) }
    case "downloading":
      return { ...(old.phase === "extracting" ? {} : { phase: "downloading", bytes: event.bytes, note: undefined }), fetched: event.bytes }
    case "retrying": return { phase: "retrying", note: event.cause }
    case "resumed": return {
      phase: "downloading", bytes: event.offset, fetched: event.offset, note: undefined,
      // What an earlier pull left counts neither as fetched now nor for the rate.
      ...(old.phase === "waiting" ? { had: event.offset } : {})
    }
    case "verified": return { ...(old.phase === "extracting" ? {} : { phase: "verified" }), fetched: old.total }
    // Until the blob is whole its download is what the reader waits for.
    case "extracting": return old.fetched < old.total ? {} : { phase: "extracting", bytes: event.bytes }
    case "committed": return { phase: "done", bytes: old.total, fetched: old.total }
    case "exists": return { phase: "exists", bytes: old.total, had: old.total, fetched: old.total }
  }
}

/** Sums over all layers: bytes to have, bytes there before, bytes there now, and layers finished. */
export const totals = (state: State) => {
  let total = 0, had = 0, fetched = 0, finished = 0
  for (const layer of state.layers.values()) {
    total += layer.total
    had += layer.had
    fetched += layer.fetched
    if (layer.phase === "done" || layer.phase === "exists") finished++
  }
  return { total, had, fetched, finished, layers: state.layers.size }
}
