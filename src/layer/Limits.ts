/** What a layer may ask of us before it is refused. */
export interface Limits {
  /** Entries of the archive, extension headers not counted. */
  readonly entries: number
  /** Bytes of the whole stream, those after the end marker included, and bytes that sparse files claim beyond what is stored. */
  readonly bytes: number
  /** Bytes of one extended header, GNU long name or sparse map. */
  readonly record: number
  /** Bytes of a path or link target. */
  readonly path: number
  /** Names in a path. */
  readonly depth: number
  /** How many times as large as its compressed form a stream may become, once it has become larger than `freely` bytes. */
  readonly ratio: number
  readonly freely: number
  /** Bytes of a zstd window or an xz dictionary. */
  readonly window: number
}

/**
 * 2,000,000 entries; 256 GiB; 1 MiB a record; 4095 bytes and 2048 names a path, the most that Linux takes (PATH_MAX); 500
 * times its compressed size above 8 GiB (text and programs shrink to a tenth, only zeros to less than a hundredth); 128 MiB
 * of window, what `zstd -d` takes without being told otherwise, and twice what `xz -9` makes.
 */
export const defaultLimits: Limits = {
  entries: 2_000_000, bytes: 256 * 2 ** 30, record: 2 ** 20, path: 4095, depth: 2048, ratio: 500, freely: 8 * 2 ** 30, window: 2 ** 27
}

/** What users call a limit that is in the way: `--limit NAME=VALUE`. */
export type LimitName = "size" | "entries" | "path" | "depth" | "record" | "ratio" | "window"

/** For layers that were let in before: what they hold is asked for again, whatever their limits were. */
export const noLimits: Limits = {
  ...defaultLimits, entries: Number.MAX_SAFE_INTEGER, bytes: Number.MAX_SAFE_INTEGER, record: 2 ** 30, path: 2 ** 20, depth: 2 ** 20, ratio: Number.MAX_SAFE_INTEGER
}
