import { assert } from "@effect/vitest"
import { resolve } from "node:path"

/** The calls that `changed` reads; strace takes them as its own options. */
export const options = ["-f", "-y", "-s", "5000", "-e", "trace=file,fchmod,fchown,fsetxattr,fremovexattr,ftruncate"]

const reading = new Set([
  "access", "chdir", "execve", "faccessat", "faccessat2", "getcwd", "getxattr", "lgetxattr", "listxattr", "llistxattr", "lstat",
  "newfstatat", "openat2", "readlink", "readlinkat", "stat", "statfs", "statx"
])
const opening = new Set(["open", "openat", "openat2"])
/** A descriptor or AT_FDCWD with its path, or a string. */
const argument = /(AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>|"((?:[^"\\]|\\.)*)"/g

/**
 * The paths that a traced process and its children opened for writing or tried to make, rename, remove or change otherwise.
 * Paths through /proc/self/fd are those of the folder that the descriptor stood for; relative ones begin at the folder that
 * strace names, or at `cwd`.
 */
export const changed = (log: string, cwd: string): ReadonlySet<string> => {
  const paths = new Set<string>()
  const descriptors = new Map<string, string>()
  for (const line of log.split("\n")) {
    const text = line.replace(/^\d+ +/, "")
    const opened = /(?:open\w*\(.*|open\w* resumed.*)= (\d+)<((?:[^>\\]|\\.)*)>$/.exec(text)
    const [, call, rest = ""] = /^(\w+)\((.*)$/.exec(text) ?? []
    if (call !== undefined && (!reading.has(call) || call === "openat2") && (!opening.has(call) || /O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND/.test(rest))) {
      const given = rest.replace(/\) += .*$/, "")
      let folder = cwd
      let bare: string | undefined
      const found: Array<string> = []
      for (const [, number, path = "", string] of given.matchAll(argument)) {
        if (number === undefined) {
          found.push(resolve(folder, string ?? ""))
          bare = undefined
        } else {
          folder = path
          if (number !== "AT_FDCWD") bare = path
        }
      }
      if (call.startsWith("symlink")) found.shift()
      if (/xattr/.test(call)) found.splice(1)
      for (const path of bare === undefined ? found : [...found, bare]) paths.add(path.replace(/^\/proc\/self\/fd\/(\d+)/, (_, number: string) => {
        const folder = descriptors.get(number)
        assert.isDefined(folder, `nobody opened the descriptor of ${line}`)
        return folder ?? ""
      }))
    }
    if (opened?.[1] !== undefined && opened[2] !== undefined) descriptors.set(opened[1], opened[2].replace(/ \(deleted\)$/, ""))
  }
  return paths
}
