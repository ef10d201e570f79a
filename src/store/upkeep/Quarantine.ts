import { Clock, Duration, Effect } from "effect"
import { lstatSync, readdirSync, renameSync } from "node:fs"
import { basename } from "node:path"
import { type Digest, parts } from "../../image/Digest.ts"
import * as Disk from "../disk/Disk.ts"
import { blobPath, type Home, layerPath, look } from "../disk/Home.ts"

type Shape = Home["Service"]

/** How long what was put away is kept for who wants to look at it: 30 days. */
export const kept = Duration.days(30)

/** Something that was put away: its path in the store, when (milliseconds since 1970), and its bytes. */
export interface PutAway {
  readonly path: string
  readonly at: number
  readonly size: number
}

const sizeOf = (path: string): number => {
  const stat = lstatSync(path)
  return stat.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + sizeOf(`${path}/${name}`), 0) : stat.size
}

/** All that was put away, the latest first. It is walked: there is little of it, or much is wrong. */
export const list = ({ root }: Pick<Shape, "root">) => Disk.call("list", folder(root), () =>
  (Disk.unlessAbsent(() => readdirSync(folder(root))) ?? []).flatMap((name): ReadonlyArray<PutAway> => {
    const path = `${folder(root)}/${name}`
    const size = Disk.unlessAbsent(() => sizeOf(path))
    const at = Number(/-(\d{13})$/.exec(name)?.[1] ?? look(path)?.mtimeMs ?? 0)
    return size === undefined ? [] : [{ path: `quarantine/${name}`, at, size }]
  }).sort((a, b) => b.at - a.at))

/** Where what is damaged goes, in the store. */
export const folder = (root: string): string => `${root}/quarantine`

/** Moves a path of the store into the folder under a name nothing had before; undefined if nothing is there. Throws. */
const moveAway = (root: string, from: string, label: string, now: number): string | undefined => {
  if (look(from) === undefined) return undefined
  Disk.makeFolders(folder(root), 0o700)
  const to = `${folder(root)}/${label}-${now}`
  renameSync(from, to)
  return to
}

/**
 * Puts a damaged blob or layer away, for who wants to look at it: the store has it no more. The move and its row go in one
 * transaction; killed in between, the store lists something that is not there, which it knows how to get again. Gives
 * where it is now.
 */
export const quarantine = Effect.fn("Quarantine.quarantine")(function*({ db, root }: Shape, kind: "blob" | "layer", digest: Digest) {
  const { sql } = db
  const { algorithm, hex } = parts(digest)
  const from = kind === "blob" ? blobPath(root, digest) : layerPath(root, digest)
  const now = yield* Clock.currentTimeMillis
  return yield* db.transaction(Effect.gen(function*() {
    const moved = yield* Disk.call("quarantine", from, () => moveAway(root, from, `${kind}-${algorithm}-${hex}`, now))
    yield* db.run(kind === "blob" ? sql`DELETE FROM blobs WHERE digest = ${digest}` : sql`DELETE FROM layers WHERE diff_id = ${digest}`)
    return moved
  }))
})

/** Puts away a path that no row knows. */
export const putAway = Effect.fn("Quarantine.putAway")(function*({ root }: Shape, path: string) {
  const now = yield* Clock.currentTimeMillis
  return (yield* Disk.call("quarantine", path, () => moveAway(root, path, `stray-${basename(path)}`, now))) ?? path
})
