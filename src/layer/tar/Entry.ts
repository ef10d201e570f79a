/** What an entry makes. Contiguous files are files; a v7 file whose name ends in `/` is a dir. */
export type EntryType = "file" | "link" | "symlink" | "char" | "block" | "dir" | "fifo"

/** One entry of a tar archive with all its extension headers applied. Its buffers are its own and may be kept. */
export interface Entry {
  readonly type: EntryType
  /** The name's bytes (after PAX path, GNU long name, ustar prefix), never empty, without NUL, not cleaned. */
  readonly path: Buffer
  /** Target of a link or symlink, never empty, without NUL; of other types empty. */
  readonly linkpath: Buffer
  /** Permission, setuid, setgid and sticky bits: 0 to 0o7777. */
  readonly mode: number
  /** 0 to 2^32-2. */
  readonly uid: number
  /** 0 to 2^32-2. */
  readonly gid: number
  /** Bytes of a file as it ends up (sparse: expanded); 0 for other types. */
  readonly size: number
  /** Whole seconds since the epoch, rounded down: may be negative. */
  readonly mtimeSeconds: number
  /** Nanoseconds after `mtimeSeconds`: 0 to 999999999. */
  readonly mtimeNanos: number
  /** Of char and block, else 0. */
  readonly devmajor: number
  /** Of char and block, else 0. */
  readonly devminor: number
  /** SCHILY.xattr.* and LIBARCHIVE.xattr.* records, each name once. */
  readonly xattrs: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
  /** Where a sparse file has data, rising and not overlapping; the rest reads as zeros. Undefined: all of it is data. */
  readonly sparse: ReadonlyArray<readonly [offset: number, length: number]> | undefined
}

/**
 * What a `TarReader` drives: per entry `entry`, then `data` any number of times with rising offsets `at` in the file, then
 * `end`. All are synchronous and may throw. `bytes` are valid during the call only.
 */
export interface EntrySink {
  entry(entry: Entry): void
  data(bytes: Uint8Array, at: number): void
  end(): void
}
