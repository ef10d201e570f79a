import { chmodSync, closeSync, constants, fstatSync, openSync } from "node:fs"
import { constants as system } from "node:os"
import { systemError, type SystemPath } from "../Syscalls.ts"

const handle = 0o10000000 /* O_PATH */ | constants.O_NOFOLLOW

/** Sets the permission bits of what is at `path`, which `chmod` would follow if it had become a symlink; that fails with ELOOP. */
export const chmodItself = (path: SystemPath, mode: number): void => {
  const fd = openSync(path, handle)
  try {
    if (fstatSync(fd).isSymbolicLink()) throw systemError(system.errno.ELOOP, "chmod", path)
    chmodSync(`/proc/self/fd/${fd}`, mode)
  } finally {
    closeSync(fd)
  }
}
