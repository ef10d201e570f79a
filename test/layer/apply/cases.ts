import { lstatSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { Refused } from "../../../src/layer/Fault.ts"
import { Apply } from "../../../src/layer/apply/Apply.ts"
import type { Syscalls } from "../../../src/layer/Syscalls.ts"
import { TarReader } from "../../../src/layer/tar/Tar.ts"
import { tree } from "./Entries.ts"

/** The rule that a layer breaks when it is applied below `folder` in chunks of `size` bytes, or undefined. */
export const applyTar = (tar: Buffer, folder: string, syscalls: Syscalls, size: number): string | undefined => {
  mkdirSync(folder, { mode: 0o700 })
  mkdirSync(join(folder, "fs"), { mode: 0o700 })
  const apply = new Apply(join(folder, "fs"), join(folder, "meta"), { syscalls })
  const reader = new TarReader(apply)
  try {
    for (let at = 0; at < tar.byteLength; at += size) reader.write(tar.subarray(at, at + size))
    reader.end()
    apply.finish()
    return undefined
  } catch (error) {
    if (error instanceof Refused) return error.rule
    throw error
  } finally {
    apply.abort()
  }
}

const timeText = (ns: bigint): string => {
  const text = `${ns < 0n ? "-" : ""}${String((ns < 0n ? -ns : ns) / 1_000_000_000n)}.${String((ns < 0n ? -ns : ns) % 1_000_000_000n).padStart(9, "0")}`
  return text.replace(/\.?0+$/, "")
}

/** What a case expects of a tree, said of the tree that is there: as many of the facts as `expected` names, and this user and host can set. */
export const described = (folder: string, expected: ReadonlyArray<string>, facts: { readonly owners: boolean; readonly exact: boolean }): ReadonlyArray<string> => {
  const wanted = new Map(expected.map((line) => [/^([\s\S]*?) (?:file|dir|symlink)/.exec(line)?.[1] ?? "", line]))
  return [...tree(join(folder, "fs"))].filter(([name]) => name !== "").map(([name, found]) => {
    const about = wanted.get(name) ?? ""
    const { content, mode, mtime, target, type, uid, xattrs } = found
    const shown = type === "file" ? ` ${(content ?? "").replaceAll("\0", "\\0")}` : type === "symlink" ? ` ${target ?? ""}` : ""
    return [`${name} ${type}${shown}`, ...[...about.matchAll(/ (mode|uid|mtime|xattr:([^ ]*))=[^= ]*/g)].map(([text, key = "", xattr]) => {
      if (key === "mode") return `mode=${mode.toString(8)}`
      if (key === "uid") return facts.owners ? `uid=${uid}` : text.trim()
      if (!facts.exact) return text.trim()
      if (key === "mtime") return `mtime=${timeText(mtime)}`
      return xattr === undefined ? "" : `${key}=${Buffer.from(xattrs?.[xattr] ?? "", "latin1").toString("hex")}`
    })].join(" ")
  }).sort()
}

/** A folder's inode, owner, mode, time and names: none of it may change. */
export const fingerprint = (folder: string): string => {
  const found = [...tree(folder)].map(([name, { inode, mode, mtime, uid, content }]) => `${name} ${inode} ${mode} ${mtime} ${uid} ${content ?? ""}`)
  return [lstatSync(folder).ino, ...found].join("\n")
}
