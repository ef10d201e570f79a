import { MetaDamaged } from "./apply/Meta.ts"
import { Stopped } from "./Control.ts"
import { Refused } from "./Fault.ts"
import type { Job, JobFault } from "./Job.ts"
import * as Piece from "./Piece.ts"
import { RingBroken } from "./Ring.ts"
import { relocate } from "./Syscalls.ts"

const isSystemError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && "code" in error && typeof error.code === "string" && "syscall" in error

/** Where a job works, for errors of calls on handles and descriptors, which name no path. */
const placeOf = (job: Job): string => {
  switch (job.kind) {
    case "unpack": case "compare": return job.folder
    case "merge": return job.root
    case "remove": return job.path
    case "verify": return job.layer
    case "pump": case "hash": case "inflate": return Piece.pathOf(job.fd)
    case "list": case "find": return job.layers.map((layer) => "folder" in layer ? layer.folder : Piece.pathOf(layer.fd)).join(", ")
  }
}

/** What a job's thread tells of what was thrown in it. */
export const faultOf = (thrown: unknown, job: Job): JobFault => {
  const error = relocate(thrown, placeOf(job))
  if (error instanceof Stopped || error instanceof RingBroken) return { kind: "stopped" }
  if (error instanceof Refused) return { kind: "refused", rule: error.rule, entry: error.entry, limit: error.limit }
  if (error instanceof MetaDamaged) return { kind: "system", code: "EUCLEAN", syscall: "read", path: error.file, message: error.message }
  if (isSystemError(error)) {
    const { code = "EIO", syscall = "call", path = "", message } = error
    return { kind: "system", code, syscall, path: String(path), message }
  }
  return { kind: "bug", message: String(error), stack: error instanceof Error ? error.stack : undefined }
}
