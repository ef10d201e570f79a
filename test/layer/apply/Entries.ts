import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Apply, type ApplyOptions, type ApplySummary } from "../../../src/layer/apply/Apply.ts"
import type { Entry, EntryType } from "../../../src/layer/tar/Entry.ts"
import * as Meta from "../../../src/layer/apply/Meta.ts"
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"

/** An entry to apply: names, target, content and attribute names as text with one character per byte. */
export interface Item {
  readonly type: EntryType
  readonly path: string
  readonly to?: string
  readonly content?: string
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: readonly [seconds: number, nanos: number]
  readonly device?: readonly [major: number, minor: number]
  readonly xattrs?: Readonly<Record<string, string>>
  readonly size?: number
  readonly sparse?: ReadonlyArray<readonly [offset: number, length: number]>
}

export const file = (path: string, content = "", more: Partial<Item> = {}): Item => ({ type: "file", path, content, ...more })
export const dir = (path: string, more: Partial<Item> = {}): Item => ({ type: "dir", path, mode: 0o755, ...more })
export const symlink = (path: string, to: string, more: Partial<Item> = {}): Item => ({ type: "symlink", path, to, mode: 0o777, ...more })
export const link = (path: string, to: string): Item => ({ type: "link", path, to })
export const device = (type: "char" | "block" | "fifo", path: string, numbers: readonly [number, number] = [0, 0], more: Partial<Item> = {}): Item =>
  ({ type, path, device: numbers, ...more })

const bytes = (text: string) => Buffer.from(text, "latin1")

/** The entry a reader would give for an item. */
export const entryOf = (item: Item): Entry => ({
  type: item.type, path: bytes(item.path), linkpath: bytes(item.to ?? ""), mode: item.mode ?? 0o644, uid: item.uid ?? 0, gid: item.gid ?? 0,
  size: item.size ?? item.content?.length ?? 0, mtimeSeconds: item.mtime?.[0] ?? 1, mtimeNanos: item.mtime?.[1] ?? 0,
  devmajor: item.device?.[0] ?? 0, devminor: item.device?.[1] ?? 0,
  xattrs: Object.entries(item.xattrs ?? {}).map(([name, value]) => [bytes(name), bytes(value)]), sparse: item.sparse
})

/** Gives items to a sink as a reader would. */
export const feed = (apply: Apply, items: ReadonlyArray<Item>): void => {
  for (const item of items) {
    apply.entry(entryOf(item))
    const content = bytes(item.content ?? "")
    let taken = 0
    for (const [offset, length] of item.sparse ?? (content.length > 0 ? [[0, content.length] as const] : [])) {
      apply.data(content.subarray(taken, taken + length), offset)
      taken += length
    }
    apply.end()
  }
}

/** A layer that was applied. */
export interface Applied {
  readonly fs: string
  readonly summary: ApplySummary
  readonly records: ReadonlyArray<Meta.MetaRecord>
}

/** Applies items to `folder`/fs; a failure aborts and is thrown. */
export const applied = (folder: string, items: ReadonlyArray<Item>, options: Partial<ApplyOptions> = {}): Applied => {
  const fs = join(folder, "fs")
  mkdirSync(fs, { mode: 0o700 })
  const apply = new Apply(fs, join(folder, "meta"), { syscalls: Syscalls.load(), ...options })
  try {
    feed(apply, items)
    const summary = apply.finish()
    return { fs, summary, records: [...Meta.read(join(folder, "meta"))] }
  } catch (error) {
    apply.abort()
    throw error
  }
}

/** The error `run` throws. */
export const thrown = (run: () => unknown): unknown => {
  try {
    run()
  } catch (error) {
    return error
  }
  return undefined
}

/** Open descriptors of this process. */
export const descriptors = (): number => readdirSync("/proc/self/fd").length

/** Runs a test in a temporary folder that is then removed. */
export const inTemp = <A>(run: (folder: string) => A) => (): A => {
  const folder = mkdtempSync(join(tmpdir(), "towline-apply-"))
  try {
    return run(folder)
  } finally {
    removeTree(folder)
  }
}

/** What is at a path, without following it. */
export interface Found {
  readonly type: "file" | "dir" | "symlink" | "char" | "block" | "fifo" | "other"
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: bigint
  readonly links: number
  readonly inode: number
  readonly blocks: number
  readonly size: number
  readonly content?: string
  readonly target?: string
  readonly device?: readonly [major: number, minor: number]
  readonly xattrs?: Readonly<Record<string, string>>
}

const typeOf = (is: ReturnType<typeof lstatSync>): Found["type"] => {
  if (is === undefined) return "other"
  if (is.isFile()) return "file"
  if (is.isDirectory()) return "dir"
  if (is.isSymbolicLink()) return "symlink"
  if (is.isCharacterDevice()) return "char"
  if (is.isBlockDevice()) return "block"
  return is.isFIFO() ? "fifo" : "other"
}

const { llistxattr, lgetxattr, native } = Syscalls.load()

/** A path of a tree whose names are text of their bytes. */
export const at = (folder: string, name: string) => Buffer.concat([Buffer.from(`${folder}/`), bytes(name)])

export const look = (path: Buffer): Found => {
  const is = lstatSync(path)
  const type = typeOf(is)
  const xattrs = native ? llistxattr(path).map((name): [string, string] => [name.toString("latin1"), lgetxattr(path, name)?.toString("latin1") ?? ""]) : []
  return {
    type, mode: is.mode & 0o7777, uid: is.uid, gid: is.gid, mtime: lstatSync(path, { bigint: true }).mtimeNs, links: is.nlink, inode: is.ino,
    blocks: is.blocks, size: is.size,
    ...type === "file" ? { content: readFileSync(path, "latin1") } : {},
    ...type === "symlink" ? { target: readlinkSync(path, "latin1") } : {},
    ...type === "char" || type === "block" ? { device: [is.rdev >> 8 & 0xfff, is.rdev & 0xff] as const } : {},
    ...xattrs.length > 0 ? { xattrs: Object.fromEntries(xattrs) } : {}
  }
}

/** Everything under a folder by name (text of its bytes), itself as "". */
export const tree = (folder: string, name = ""): Map<string, Found> => {
  const path = name === "" ? Buffer.from(folder) : at(folder, name)
  const found = new Map([[name, look(path)]])
  if (found.get(name)?.type !== "dir") return found
  for (const segment of readdirSync(path, "latin1").sort()) {
    for (const [key, value] of tree(folder, name === "" ? segment : `${name}/${segment}`)) found.set(key, value)
  }
  return found
}

/** The same in one line each: type, and content or target. */
export const shape = (folder: string): ReadonlyArray<string> =>
  [...tree(folder)].slice(1).map(([name, { type, content, target }]) => `${name} ${type}${content === undefined ? "" : ` ${content}`}${target === undefined ? "" : ` ${target}`}`.trimEnd())

/** Whether tests of what only root may do can run here. */
export const privileged = process.getuid?.() === 0
