import type { Sink } from "./Decoder.ts"
import type { InflateOptions } from "./Inflate.ts"

/** From here on a window is large: 32 MiB. */
const large = 32 * 2 ** 20
/** While a window is large, memory is given back every so many bytes that came out. */
const step = 16 * 2 ** 20

/** `hold` waits for so many bytes of memory; `trim` gives back what is not needed. */
export interface WindowedOptions extends Pick<InflateOptions, "native" | "maxWindow"> {
  readonly hold: (bytes: number) => void
  readonly trim: () => void
}

/**
 * A sink and options for `inflater` by which large windows have memory: each waits for it, and what earlier work has left, or the
 * process has read of its own file, makes room while the window fills.
 */
export const windowed = (sink: Sink, { hold, trim, ...options }: WindowedOptions): readonly [Sink, InflateOptions] => {
  let isLarge = false
  let most = large
  let since = 0
  const reserve = (bytes: number) => {
    hold(bytes)
    isLarge = bytes > large
    // A layer may have many frames.
    if (bytes <= most) return
    most = bytes
    since = 0
    trim()
  }
  return [(bytes) => {
    if (isLarge && (since += bytes.byteLength) >= step) {
      since = 0
      trim()
    }
    sink(bytes)
  }, { ...options, reserve }]
}
