import { Buffer } from "node:buffer"
import type { Metadata } from "../apply/Attributes.ts"
import type { Unset } from "../apply/Meta.ts"
import { pairsSize } from "../table/Table.ts"
import type { Packing } from "./NameTree.ts"

/** Metadata as JSON can say it: names of attributes with a character a byte, their values in base64. */
export type PackedMetadata = readonly [mode: number, uid: number, gid: number, seconds: number, nanos: number, xattrs: Unset["xattrs"]]

const pack = ({ gid, mode, mtimeNanos, mtimeSeconds, uid, xattrs }: Metadata): PackedMetadata =>
  [mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs.map(([name, value]) => [name.toString("latin1"), value.toString("base64")] as const)]

const unpack = ([mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs]: PackedMetadata): Metadata => ({ mode, uid, gid, mtimeSeconds, mtimeNanos, xattrs: attributesOf(xattrs) })

const attributesOf = (xattrs: Unset["xattrs"] = []): Metadata["xattrs"] =>
  xattrs.map(([name, value]) => [Buffer.from(name, "latin1"), Buffer.from(value, "base64")] as const)

/** How a `NameTree` keeps metadata. */
export const packing: Packing<Metadata, PackedMetadata> = { pack, unpack, weight: (packed) => pairsSize(packed[5]) }

/** What something has, with what a record says it should have in its place. */
export const completed = (has: Metadata, { uid = has.uid, gid = has.gid, mode = has.mode, mtime, xattrs }: Unset): Metadata => {
  const [mtimeSeconds, mtimeNanos] = mtime ?? [has.mtimeSeconds, has.mtimeNanos]
  return { uid, gid, mode, mtimeSeconds, mtimeNanos, xattrs: [...has.xattrs, ...attributesOf(xattrs)] }
}
