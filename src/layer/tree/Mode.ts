import { chmodSync, closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs"
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

const dacOverride = 2n

/** Whether no mode is in this process's way (Linux: the capability CAP_DAC_OVERRIDE). */
export const entersAll = (): boolean => {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1]
  return (BigInt(`0x${effective ?? "0"}`) & dacOverride) !== 0n
}

/** What an ordinary user needs to read a file of a stored layer, and to go through a folder of it. */
export const ownBits = { file: 0o400, dir: 0o700 } as const
