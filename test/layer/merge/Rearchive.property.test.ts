import { assert, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { flatten } from "../../../src/layer/merge/Flatten.ts"
import { merge } from "../../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { archive, type EntrySpec } from "../../../src/testing/Archive.ts"
import { applyTar } from "../apply/cases.ts"
import { inTemp } from "../apply/Entries.ts"
import { type Found, read } from "../tar/TarBytes.ts"

const Segment = Schema.Literals(["a", "b", "c", "d.e", "\u00e9", "n".repeat(130)])
const Whole = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Made = Schema.Struct({
  type: Schema.Literals(["file", "file", "dir", "symlink", "char", "fifo", "link"]), path: Schema.Array(Segment).check(Schema.isMinLength(1), Schema.isMaxLength(3)),
  mode: Whole(0, 0o7777), uid: Whole(0, 2 ** 32 - 2), gid: Whole(0, 70_000), seconds: Whole(-(2 ** 31), 2 ** 31 - 1), nanos: Whole(0, 999_999_999), contents: Schema.Uint8Array, xattr: Schema.Uint8Array
})
type Item = typeof Made.Type

/** An archive in canonical form: each folder has an entry, before what is in it, names in the order of their bytes, none twice. */
const canonical = (items: ReadonlyArray<Item>): ReadonlyArray<EntrySpec> => {
  const entries = new Map<string, EntrySpec>([["", { path: "./", type: "dir", mtime: 5 }]])
  const files: Array<string> = []
  for (const { contents, gid, mode, nanos, path, seconds, type, uid, xattr } of items) {
    const folders = path.slice(0, -1).map((_, at) => path.slice(0, at + 1).join("/"))
    const name = path.join("/")
    if (entries.has(name) || folders.some((folder) => (entries.get(folder)?.type ?? "dir") !== "dir")) continue
    for (const folder of folders) if (!entries.has(folder)) entries.set(folder, { path: `${folder}/`, type: "dir", mode: 0o751, mtime: 7 })
    const about = { uid, gid, mtime: [seconds, nanos] as const }
    const target = files.at(-1)
    switch (type) {
      case "file":
        entries.set(name, { path: name, type, contents, mode, ...about, xattrs: xattr.byteLength % 2 === 0 ? {} : { "user.x": xattr } })
        files.push(name)
        break
      case "dir": entries.set(name, { path: `${name}/`, type, mode, ...about }); break
      case "symlink": entries.set(name, { path: name, type, linkpath: `../${"t".repeat(contents.byteLength * 9)}x`, mode: 0o777, ...about }); break
      case "link":
        // A link comes after what it is a link to, in the order of bytes.
        if (target !== undefined && Buffer.compare(Buffer.from(target), Buffer.from(name)) < 0 && !name.startsWith(`${target}/`)) entries.set(name, { path: name, type, linkpath: target })
        break
      case "char": entries.set(name, { path: name, type, device: [contents.byteLength + 1, 3], mode, ...about }); break
      case "fifo": entries.set(name, { path: name, type, mode, ...about })
    }
  }
  const key = (name: string) => name.split("/").map((segment) => Buffer.from(segment).toString("latin1"))
  return [...entries].sort(([a], [b]) => {
    const [one, other] = [key(a), key(b)]
    for (let n = 0; n < Math.min(one.length, other.length); n++) if (one[n] !== other[n]) return (one[n] ?? "") < (other[n] ?? "") ? -1 : 1
    return one.length - other.length
  }).map(([, entry]) => entry)
}

/** What an entry says; a link says nothing but where it leads. */
const said = ({ content, devmajor, devminor, gid, linkpath, mode, mtimeNanos, mtimeSeconds, path, type, uid, xattrs }: Found) => type === "link"
  ? [path.toString("latin1"), type, linkpath.toString("latin1")]
  : [path.toString("latin1"), type, mode, uid, gid, mtimeSeconds, mtimeNanos, linkpath.toString("latin1"), content.toString("hex"), devmajor, devminor, xattrs.map(([name, value]) => `${name.toString()}=${value.toString("hex")}`)]

const again = (tar: Buffer, folder: string, native: boolean, memory?: number): Buffer => {
  const syscalls = Syscalls.load({ native })
  assert.isUndefined(applyTar(tar, join(folder, "layer"), syscalls, 3000))
  mkdirSync(join(folder, "root"))
  const fd = openSync(join(folder, "tar"), "wx")
  merge(join(folder, "root"), [{ folder: join(folder, "layer"), move: false }], { link: "hardlink", hold: join(folder, "hold"), syscalls, memory, inspect: (assembly) => flatten(assembly, fd, { syscalls, stop: () => {} }) })
  closeSync(fd)
  return readFileSync(join(folder, "tar"))
}

it.effect.prop("A layer that is applied and archived again says what it said, whatever this host could set", [Schema.Array(Made), Schema.Boolean, Schema.Boolean], ([items, native, spills]) =>
  Effect.sync(inTemp((folder) => {
    const tar = archive(canonical(items))
    assert.deepStrictEqual(read([again(tar, folder, native, spills ? 0 : undefined)]).map(said), read([tar]).map(said))
  })), { arbitrary: { runs: 60 } })
