import type { LayerKey, PullEvent } from "./PullEvent.ts"

/** What a layer is doing, for the eye. */
export type Phase = "waiting" | "downloading" | "retrying" | "verified" | "extracting" | "done" | "exists"

/** One layer of one pull. `bytes` are those of the running phase; `fetched` those this pull has received; `total` may be unknown. */
export interface LayerView {
  readonly reference: string
  readonly layer: LayerKey
  readonly total: number | undefined
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

const key = (event: { readonly reference: string; readonly layer: LayerKey }) => `${event.reference} ${event.layer}`

/** The state after `event`. */
export const after = (state: State, event: PullEvent): State => {
  if (event._tag === "planned") {
    const layers = new Map(state.layers)
    for (const { layer, size, state: has } of event.layers) {
      const there = has === "unpacked" || has === "stored"
      layers.set(key({ reference: event.reference, layer }), {
        reference: event.reference, layer, total: size, phase: has === "unpacked" ? "exists" : "waiting", bytes: 0,
        had: there ? size ?? 0 : 0, fetched: there ? size ?? 0 : 0, note: undefined
      })
    }
    return { layers }
  }
  if (!("layer" in event)) return state
  const old = state.layers.get(key(event))
  if (old === undefined) return state
  const sized = event._tag === "downloading" && event.total !== undefined ? { ...old, total: event.total } : old
  return { layers: new Map(state.layers).set(key(event), { ...sized, ...change(sized, event) }) }
}

const change = (old: LayerView, event: Extract<PullEvent, { readonly layer: LayerKey }>): Partial<LayerView> => {
  const whole = old.total ?? old.fetched
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
    case "step": return event.cause === undefined ? {} : { phase: "retrying", note: event.cause }
    case "verified": return { ...(old.phase === "extracting" ? {} : { phase: "verified" }), fetched: whole }
    // Until the blob is whole its download is what the reader waits for.
    case "extracting": return old.total === undefined || old.fetched < old.total ? {} : { phase: "extracting", bytes: event.bytes }
    case "committed": return { phase: "done", total: whole, bytes: whole, fetched: whole }
    case "exists": return { phase: "exists", bytes: whole, had: whole, fetched: whole }
  }
}

/** Sums over all layers: bytes to have, bytes there before, bytes there now, and layers finished. What has no known size counts as it comes. */
export const totals = (state: State) => {
  let total = 0, had = 0, fetched = 0, finished = 0
  for (const layer of state.layers.values()) {
    total += layer.total ?? layer.fetched
    had += layer.had
    fetched += layer.fetched
    if (layer.phase === "done" || layer.phase === "exists") finished++
  }
  return { total, had, fetched, finished, layers: state.layers.size }
}
