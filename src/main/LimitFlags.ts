import { Flag } from "effect/cli"

/** What layers and indexes may ask before they are refused. */
export const limits = Flag.String("limit").pipe(
  Flag.withDescription("What is refused, as NAME=VALUE (may be repeated; also $TOWLINE_LIMITS, with commas between). Of a layer: size (inflated, and what sparse files claim; default 256GiB), entries (2000000), "
    + "path (bytes of a name; 4095), depth (names in a path; 2048), record (bytes of a PAX header; 1MiB), ratio (inflated to compressed; 500 above 8GiB), window (of zstd and xz; 128MiB). "
    + "Of an index: index-depth (8), index-entries (4096)"),
  Flag.withMetavar("NAME=VALUE"), Flag.atLeast(0))
