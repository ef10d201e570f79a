import { Effect, Option } from "effect"
import { Flag } from "effect/cli"
import * as Owners from "../layer/merge/Owners.ts"
import * as Cli from "./Cli.ts"

const map = (name: "uid-map" | "gid-map") => Flag.String(name).pipe(
  Flag.withDescription(`Owners in the root file system: INSIDE:OUTSIDE:COUNT[,...], or squash for this user's own ${name.slice(0, 3)} everywhere`),
  Flag.withMetavar("MAP"), Flag.filterMap((text) => Option.fromUndefinedOr(Owners.parse(text)), () => "squash, or INSIDE:OUTSIDE:COUNT of numbers, ranges after commas, none of them overlapping"), Flag.optional)

/** What commands that write a root file system take. */
export const flags = {
  link: Flag.Literals("link", ["auto", "reflink", "copy", "hardlink"]).pipe(
    Flag.withDescription("How files of stored layers get into the root file system; hardlink shares them with the store: for reading only (default: auto, reflink where possible, else copy)"),
    Flag.withDefault("auto")),
  uidMap: map("uid-map"),
  gidMap: map("gid-map")
}

type Map = Option.Option<ReadonlyArray<Owners.Range> | "squash">

/** The maps of a command line. */
export interface MapFlags {
  readonly uidMap: Map
  readonly gidMap: Map
}

/** The maps of a command line; undefined if there are none. */
export const owners = ({ gidMap, uidMap }: MapFlags): Owners.OwnerMap | undefined =>
  Option.isNone(uidMap) && Option.isNone(gidMap) ? undefined : { uid: Option.getOrUndefined(uidMap), gid: Option.getOrUndefined(gidMap) }

/** Fails where stdout, which is to get an archive, is a terminal. */
export const sendable: Effect.Effect<void, Cli.UsageError> = Effect.suspend(() => process.stdout.isTTY
  ? Effect.fail(new Cli.UsageError({ problem: "an archive is not written to a terminal: name a file with tar:FILE, or send it on" }))
  : Effect.void)
