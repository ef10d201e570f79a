import type { OwnerMap } from "./merge/Owners.ts"
import type { LimitName, Limits } from "./Limits.ts"
import type { ApplySummary } from "./apply/Apply.ts"
import type { Comparison } from "./sums/Comparison.ts"
import type { ViewEntry } from "./view/Facts.ts"
import type { Written } from "./view/NameList.ts"

/** Unpack a layer: follow the file `fd` up to `size` bytes as `control` allows, into `folder`/fs and `folder`/meta. */
export interface UnpackJob {
  readonly kind: "unpack"
  /** A descriptor of this process, read with explicit positions; its owner keeps it open until the job has ended. */
  readonly fd: number
  readonly size: number
  /** An existing 0700 folder that is this job's own. */
  readonly folder: string
  /** The digest the uncompressed tar must have; unknown for kinds of images that name none. */
  readonly diffId: string | undefined
  /** Use native calls and the native inflate handle where they are there. */
  readonly native: boolean
  /** `defaultLimits` unless told otherwise. */
  readonly limits?: Limits
  /** The ring (`Ring`) that another thread inflates the layer into; by default this one does that too. */
  readonly ring?: SharedArrayBuffer
}

/** Inflate the layer of an `UnpackJob` into its ring, and hash what comes out. */
export interface PumpJob extends Omit<UnpackJob, "kind" | "folder" | "ring"> {
  readonly kind: "pump"
  readonly ring: SharedArrayBuffer
}

/** Build a root file system in the existing 0700 folder `root` from `layers`, bottom first. */
export interface MergeJob {
  readonly kind: "merge"
  readonly root: string
  /** A folder on the same file system for what is held between steps. */
  readonly hold: string
  /** `move`: the layer is this pull's own and may be taken apart; else it is copied. */
  readonly layers: ReadonlyArray<{ readonly folder: string; readonly move: boolean }>
  readonly link: "auto" | "reflink" | "copy" | "hardlink"
  /** Who owns what; as the layers say unless told otherwise. */
  readonly owners?: OwnerMap | undefined
  /** Write it as a tar archive to this descriptor; what is in `root` then is to be thrown away. */
  readonly into?: number | undefined
  readonly native: boolean
}

/** Remove a tree, never following links. */
export interface RemoveJob {
  readonly kind: "remove"
  readonly path: string
}

/**
 * Unpack a blob as `UnpackJob` does, and compare the unpacked layer in the folder `layer` with what came out. If they are the same in all, what
 * came out is recorded in the new file `record`, if one is given.
 */
export interface CompareJob extends Omit<UnpackJob, "kind"> {
  readonly kind: "compare"
  readonly layer: string
  readonly record?: string
}

/** Compare the unpacked layer in the folder `layer` with the sums in the file `sums`, whose SHA-256 must be `hash`. */
export interface VerifyJob {
  readonly kind: "verify"
  readonly layer: string
  readonly sums: string
  readonly hash: string
  readonly native: boolean
}

/** Hash the first `size` bytes of the file `fd`. */
export interface HashJob {
  readonly kind: "hash"
  readonly fd: number
  readonly size: number
  readonly algorithm: string
}

/** Inflate the tar archive in the first `size` bytes of the file `fd`, at most to `limit` bytes, into the empty file `into`, if one is given. */
export interface InflateJob {
  readonly kind: "inflate"
  /** Descriptors of this process; their owner keeps them open until the job has ended. */
  readonly fd: number
  readonly size: number
  readonly into: number | undefined
  readonly limit: number
  /** The digest the uncompressed tar must have, if it is a layer's. */
  readonly diffId?: string
  readonly native: boolean
}

/** Read the layers, tars in files or unpacked in folders, lowest first, into one root file system. */
interface Viewing {
  readonly layers: ReadonlyArray<{ readonly fd: number; readonly size: number } | { readonly folder: string }>
  /** Where files are made, without names, for what is too much for memory. */
  readonly scratch: string
  readonly native: boolean
}

/** List the names of layers' root file system, those `under` one of them. */
export interface ListJob extends Viewing {
  readonly kind: "list"
  readonly under: string
  /** Hash what files hold. */
  readonly hash: boolean
  /** An empty file for the list, if that is too much for memory. */
  readonly into: number | undefined
}

/** Find what is at a path in layers' root file system. */
export interface FindJob extends Viewing {
  readonly kind: "find"
  readonly path: string
}

/** What a worker can be asked. */
export type Job = UnpackJob | PumpJob | MergeJob | RemoveJob | InflateJob | CompareJob | VerifyJob | HashJob | ListJob | FindJob

/** What applying could not set on this host. */
export type Unset = ApplySummary["unset"]

/** A layer as it was unpacked: its diff ID, the tar's entries, the sum of their header sizes, and what could not be set. */
export interface Unpacked {
  readonly diffId: string
  readonly entries: number
  readonly size: number
  readonly unset: Unset
}

/** The answer of each kind of job. */
export interface Answers {
  readonly unpack: Unpacked
  readonly pump: { readonly pumped: true }
  readonly merge: { readonly unset: Unset }
  readonly remove: { readonly removed: true }
  /** `recorded`: the SHA-256 of the sums, if they were written. */
  readonly compare: Comparison & Pick<Unpacked, "entries" | "size"> & { readonly recorded: string | undefined }
  /** Undefined where the file of sums is not what it was. */
  readonly verify: (Comparison & Pick<Unpacked, "entries" | "size">) | undefined
  readonly hash: { readonly hex: string }
  /** Undefined where a file was needed and there is none. */
  readonly list: Written | undefined
  readonly find: { readonly entry: ViewEntry | undefined }
  readonly inflate: { readonly size: number }
}

/** How a job can end badly: refused content, a refusing disk, a request to stop, or a bug of ours. */
export type JobFault =
  | { readonly kind: "refused"; readonly rule: string; readonly entry: string | undefined; readonly limit: LimitName | undefined }
  | { readonly kind: "system"; readonly code: string; readonly syscall: string; readonly path: string; readonly message: string }
  | { readonly kind: "stopped" }
  | { readonly kind: "bug"; readonly message: string; readonly stack: string | undefined }

/** To the worker: a job under a number, with its shared words. */
export interface Request {
  readonly id: number
  readonly job: Job
  readonly control: SharedArrayBuffer
}

/** From the worker: the same number, and how it ended. */
export type Reply =
  | { readonly id: number; readonly ok: true; readonly answer: Answers[Job["kind"]] }
  | { readonly id: number; readonly ok: false; readonly fault: JobFault }
