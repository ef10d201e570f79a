import { archive, block, blocks, endMark, type EntrySpec, header, type Item, pax, type PaxRecord } from "./Archive.ts"

/**
 * One layer as data, and what must come of it: a rule that it breaks (a part of its text), or the names it makes below the
 * root it is applied to, each as `path type` and, of a file its content, of a link its target, of anything `mode=` and
 * `uid=` where they are the point. Nothing outside the root may change, whatever comes of it.
 */
export interface LayerCase {
  readonly name: string
  readonly tar: Buffer
  readonly expect: { readonly refused: string } | { readonly tree: ReadonlyArray<string> }
}

const file = (path: string | Uint8Array, contents = "x", more: Partial<EntrySpec> = {}): EntrySpec => ({ path, type: "file", contents, ...more })
const dir = (path: string, more: Partial<EntrySpec> = {}): EntrySpec => ({ path, type: "dir", ...more })
const symlink = (path: string, linkpath: string): EntrySpec => ({ path, type: "symlink", linkpath })
const link = (path: string, linkpath: string): EntrySpec => ({ path, type: "link", linkpath })
const device = (path: string, numbers: readonly [number, number]): EntrySpec => ({ path, type: "char", device: numbers })
const raw = (...parts: ReadonlyArray<Uint8Array>): Item => ({ bytes: Buffer.concat(parts) })
const padded = (text: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(text)
  return Buffer.concat([bytes, Buffer.alloc((512 - bytes.byteLength % 512) % 512)])
}
const octal = (value: number) => `${value.toString(8).padStart(11, "0")}\0`
const binary = (length: number, ...tail: ReadonlyArray<number>) => Buffer.from([0x80, ...Array.from({ length: length - 1 - tail.length }, () => 0), ...tail])
const negative = (length: number, last: number) => Buffer.from([...Array.from({ length: length - 1 }, () => 0xff), last])
const long = (flag: "L" | "K", text: string): Item => ({ bytes: block(flag, "././@LongLink", Buffer.from(`${text}\0`)) })
const records = (list: ReadonlyArray<PaxRecord>, flag: "x" | "g" = "x"): Item => ({ bytes: pax(list, flag) })
const body = (text: string): Item => ({ bytes: block("x", "PaxHeaders/entry", Buffer.from(text, "latin1")) })
const other = (flag: string, more: Partial<EntrySpec> = {}): EntrySpec => ({ path: "f", type: "file", header: [[156, flag]], ...more })

const made = (name: string, items: ReadonlyArray<Item>, ...tree: ReadonlyArray<string>): LayerCase => ({ name, tar: archive(items), expect: { tree } })
const bad = (name: string, items: ReadonlyArray<Item>, refused: string): LayerCase => ({ name, tar: archive(items), expect: { refused } })
const bytes = (name: string, tar: Buffer, ...tree: ReadonlyArray<string>): LayerCase => ({ name, tar, expect: { tree } })
const badBytes = (name: string, tar: Buffer, refused: string): LayerCase => ({ name, tar, expect: { refused } })

const v7: EntrySpec["header"] = [[257, Buffer.alloc(8)]]
const deep = `${"folder/".repeat(20)}name`
const folders = (path: string): ReadonlyArray<string> => path.split("/").slice(0, -1).map((_, at, all) => `${all.slice(0, at + 1).join("/")} dir`)
const sparse1 = (map: string, data: string, real: number): ReadonlyArray<Item> => [
  records([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.name", "s"], ["GNU.sparse.realsize", String(real)]]),
  file("GNUSparseFile.0/s", Buffer.concat([padded(map), Buffer.from(data)]).toString())
]
const oldSparse = (real: number, stored: number, ...pairs: ReadonlyArray<number>): EntrySpec =>
  ({ path: "s", type: "file", format: "gnu", header: [[156, "S"], [124, octal(stored)], [386, pairs.map(octal).join("")], [483, octal(real)]] })
const hole = "\\0\\0ab\\0\\0\\0c"

/** Archives as the world writes them. */
const sound: ReadonlyArray<LayerCase> = [
  bytes("an empty stream", Buffer.alloc(0)),
  bytes("an archive of nothing", Buffer.from(endMark)),
  bytes("no end mark", blocks([file("f")]), "f file x"),
  bytes("half an end mark", Buffer.concat([blocks([file("f")]), Buffer.alloc(512)]), "f file x"),
  bytes("garbage after the end", Buffer.concat([archive([file("f")]), Buffer.alloc(700, 0xa5)]), "f file x"),
  bytes("a second archive after the end", Buffer.concat([archive([file("f")]), archive([file("g")])]), "f file x"),
  made("v7", [file("f", "x", { header: v7 ?? [] }), { path: "d/", type: "file", header: [...v7 ?? [], [156, "\0"]] }], "d dir", "f file x"),
  made("a prefix of ustar", [file(deep)], ...folders(deep), `${deep} file x`),
  made("old GNU's long names and targets", [long("L", "n".repeat(200)), long("K", "t".repeat(300)), { path: "n", type: "symlink", linkpath: "t", format: "gnu" }], `${"n".repeat(200)} symlink ${"t".repeat(300)}`),
  made("PAX names and targets", [records([["path", "n".repeat(200)], ["linkpath", "t".repeat(300)]]), symlink("n", "t")], `${"n".repeat(200)} symlink ${"t".repeat(300)}`),
  made("names that are not UTF-8", [file(Buffer.from([0xff, 0xe9])), records([["path", Buffer.from([0x80, 0x3d, 0x0a])]]), file("z")], "\x80=\x0a file x", "\xff\xe9 file x"),
  made("names that are one but for case or form", [file("e\u0301", "1"), file("\u00e9", "2"), file("E", "3"), file("e", "4")],
    "E file 3", "e file 4", `${Buffer.from("e\u0301").toString("latin1")} file 1`, `${Buffer.from("\u00e9").toString("latin1")} file 2`),
  made("numbers in base 256", [file("f", "x", { header: [[108, binary(8, 1, 0, 0)], [136, binary(12, 5)], [124, binary(12, 1)]] })], "f file x uid=65536"),
  made("a time before the epoch in base 256", [file("f", "x", { header: [[136, negative(12, 0xfe)]] })], "f file x mtime=-2"),
  made("numbers with spaces, without an end, blank", [file("f", "x", { header: [[108, "     17\0"], [116, "0000017 "], [136, Buffer.alloc(12)], [100, "000644 \0"]] })], "f file x uid=15 mtime=0"),
  made("PAX times", [file("f", "x", { mtime: [-2, 750_000_000] }), file("g", "x", { mtime: [1_600_000_000, 123_456_789] })], "f file x mtime=-1.25", "g file x mtime=1600000000.123456789"),
  made("PAX sizes", [records([["size", "3"]]), raw(header(file("f"), 0), padded("abc"))], "f file abc"),
  made("PAX sizes of what has no data", [records([["size", "5000"]]), dir("d"), file("f")], "d dir", "f file x"),
  made("a link with a size", [file("f"), raw(header(link("l", "f"), 99))], "f file x", "l file x"),
  made("global owners and times, taken back and overridden", [
    records([["uid", "7"], ["mtime", "9"], ["comment", "any"]], "g"), file("a"), records([["uid", ""]]), file("b", "x", { uid: 3 }), records([["uid", "8"]]), file("c"), records([["uid", ""], ["mtime", ""]], "g"), file("d", "x", { uid: 4 })
  ], "a file x uid=7 mtime=9", "b file x uid=3 mtime=9", "c file x uid=8 mtime=9", "d file x uid=4 mtime=1700000000"),
  made("Solaris' extended headers", [{ bytes: block("X", "PaxHeaders/entry", Buffer.from("10 path=p\n")) }, file("f")], "p file x"),
  made("star", [file("f", "x", { header: [[345, "prefix"], [476, "00000000001 00000000001 "], [508, "tar\0"]] })], "prefix dir", "prefix/f file x"),
  made("attributes of both vendors", [records([["SCHILY.xattr.user.a", Buffer.from([0xff, 0, 0x0a])], ["LIBARCHIVE.xattr.user.%62", "AP8K"], ["SCHILY.xattr.user.c%3Dd%25", "e"]]), file("f")],
    "f file x xattr:user.a=ff000a xattr:user.b=00ff0a xattr:user.c=d%=65"),
  made("contiguous files and signed checksums", [other("7"), { path: "\xe9", type: "file", contents: "" }], "f file ", `${Buffer.from("\xe9").toString("latin1")} file `),
  made("old GNU sparse", [raw(header(oldSparse(8, 3, 2, 2, 7, 1), 3), padded("abc"))], `s file ${hole}`),
  made("PAX sparse 0.0", [records([["GNU.sparse.size", "8"], ["GNU.sparse.numblocks", "2"], ["GNU.sparse.offset", "2"], ["GNU.sparse.numbytes", "2"], ["GNU.sparse.offset", "7"], ["GNU.sparse.numbytes", "1"]]), file("s", "abc")], `s file ${hole}`),
  made("PAX sparse 0.1", [records([["GNU.sparse.size", "8"], ["GNU.sparse.name", "s"], ["GNU.sparse.numblocks", "2"], ["GNU.sparse.map", "2,2,7,1"]]), file("GNUSparseFile.0/s", "abc")], `s file ${hole}`),
  made("PAX sparse 1.0", sparse1("2\n2\n2\n7\n1\n", "abc", 8), `s file ${hole}`),
  made("folders after what is in them", [file("d/e/f"), dir("d/e", { mode: 0o700 }), dir("d", { mode: 0o711 })], "d dir mode=711", "d/e dir mode=700", "d/e/f file x"),
  made("modes that umask and owners would cut", [file("f", "x", { mode: 0o6777 }), dir("d", { mode: 0o1777 })], "d dir mode=1777", "f file x mode=6777"),
  made("duplicates of every type", [file("a", "1"), dir("b"), file("b/x"), symlink("c", "a"), file("a", "2"), file("b", "3"), dir("c"), file("c/y")], "a file 2", "b file 3", "c dir", "c/y file x"),
  made("links to what is replaced later", [file("a", "1"), link("b", "a"), file("a", "2"), link("c", "b")], "a file 2", "b file 1", "c file 1"),
  made("a link to a symlink", [symlink("s", "gone"), link("l", "s")], "l symlink gone", "s symlink gone"),
  made("hard links by way of what aufs kept", [file(".wh..wh.plnk/1.2", "kept", { uid: 7 }), link("d/one", ".wh..wh.plnk/1.2"), link("two", "/.wh..wh.plnk/1.2")], "d dir", "d/one file kept", "two file kept uid=7"),
  made("whiteouts and what aufs left", [file("a/.wh.b", ""), file("a/.wh..wh..opq", ""), file(".wh..wh.plnk/1.2", ""), file(".wh..wh.aufs", ""), file(".wh..wh.orph/x", ""), file("f")], "f file x"),
  made("names that need cleaning", [file("./a//b/./c"), file("/d"), dir("e/../g/")], "a dir", "a/b dir", "a/b/c file x", "d file x", "g dir")
]

/** What tries to get out, and must find itself inside or refused. */
const attacks: ReadonlyArray<LayerCase> = [
  made("names that lead up", [file("../../../../canary/file", "evil")], "canary dir", "canary/file file evil"),
  made("writing through a symlink", [symlink("s", "../../canary"), file("s/file", "evil")], "canary dir", "canary/file file evil", "s symlink ../../canary"),
  made("a folder that becomes a symlink after it was used", [dir("d"), file("d/a"), symlink("d", "/canary"), file("d/file", "evil")], "canary dir", "canary/file file evil", "d symlink /canary"),
  made("writing over a symlink", [symlink("s", "../../canary/file"), file("s", "evil")], "s file evil"),
  made("writing through a hard link to a symlink", [symlink("s", "../../canary/file"), link("l", "s"), file("l", "evil")], "l file evil", "s symlink ../../canary/file"),
  made("a hard link to outside", [link("l", "../../canary/file")]),
  made("a whiteout that leads out", [symlink("s", "../../canary"), file("s/.wh.file", ""), file("../../canary/.wh.file", "")], "s symlink ../../canary"),
  made("attributes of an overlay", [records([["SCHILY.xattr.trusted.overlay.opaque", "y"], ["SCHILY.xattr.user.overlay.redirect", "/"]]), dir("d")], "d dir"),
  bad("a loop", [symlink("a", "b"), symlink("b", "a"), file("a/x")], "more than 40 symlinks"),
  bad("a parent that is a file", [file("f"), file("f/x")], "is not a folder"),
  bad("the root as something else", [symlink("./", "x")], "the root can only be a folder"),
  bad("a hard link to a folder", [dir("d"), link("l", "d")], "is a folder"),
  bad("a hard link to itself", [file("a"), link("a", "a")], "a hard link to itself"),
  bad("a hard link to what the layer removes", [file(".wh.x", ""), link("l", "x")], "removed by this layer"),
  bad("a whiteout of nothing", [file("d/.wh.", "")], "must name something"),
  bad("a whiteout of its folder", [file("d/.wh..", "")], "must name something"),
  bad("a whiteout of the folder above", [file("d/.wh...", "")], "must name something"),
  bad("an overlay's whiteout", [device("d", [0, 0])], "0:0"),
  bad("an owner that means nobody", [file("f", "x", { uid: 2 ** 32 - 1 })], "owners are 0 to 2^32-2"),
  bad("an owner beyond that", [file("f", "x", { gid: 2 ** 40, format: "gnu" })], "owners are 0 to 2^32-2"),
  bad("a negative owner", [file("f", "x", { header: [[108, negative(8, 0xff)]] })], "owners are 0 to 2^32-2"),
  bad("a negative size", [file("f", "x", { header: [[124, negative(12, 0xff)]] })], "size is negative"),
  bad("a size beyond 2^53", [file("f", "x", { header: [[124, binary(12, 0x40, 0, 0, 0, 0, 0, 0, 0)]] })], "2^53 or more"),
  bad("a PAX size beyond 2^53", [records([["size", "9007199254740992"]]), file("f")], "not a decimal number up to 2^53-1"),
  bad("a PAX size that is no number", [records([["size", "-1"]]), file("f")], "not a decimal number"),
  bad("a size of more than there is", [records([["size", "100000"]]), file("f")], "truncated in its data"),
  bad("a size beyond the limit", [file("f", "x", { header: [[124, "77777777777\0"]] }), raw(Buffer.alloc(0))], "truncated in its data"),
  bad("a global name", [records([["path", "evil"]], "g"), file("f")], "a global header may not set path"),
  bad("a global size", [records([["size", "512"]], "g"), file("f")], "a global header may not set size"),
  bad("a record that is too short", [body("3 path=x\n"), file("f")], "malformed"),
  bad("a record that is too long", [body("99 path=x\n"), file("f")], "malformed"),
  bad("a record without an end", [body("8 path=x"), file("f")], "malformed"),
  bad("a record without a key", [body("5 =x\n"), file("f")], "malformed"),
  bad("a record without a value", [body("7 path\n"), file("f")], "malformed"),
  bad("a name with a NUL in it", [records([["path", "a\0b"]]), file("f")], "has a NUL"),
  bad("a key with a NUL in it", [records([["pa\0th", "x"]]), file("f")], "has a NUL"),
  bad("an extended header of more than 1 MiB", [{ bytes: block("x", "PaxHeaders/entry", Buffer.alloc(2 ** 20 + 1, 0x30)) }, file("f")], "larger than 1048576 bytes"),
  bad("a long name of more than 1 MiB", [{ bytes: block("L", "././@LongLink", Buffer.alloc(2 ** 20 + 1, 0x61)) }, file("f")], "larger than 1048576 bytes"),
  bad("a path longer than Linux takes", [long("L", "a/".repeat(2100)), file("f")], "longer than 4095 bytes"),
  bad("a name of 256 bytes", [long("L", "n".repeat(256)), file("f")], "longer than 255 bytes"),
  bad("an empty name", [file("")], "name is empty"),
  bad("a symlink without a target", [symlink("s", "")], "link target is empty"),
  bad("an extended header without its entry", [records([["path", "x"]])], "not followed by the entry"),
  bad("an extended header before a global one", [records([["path", "x"]]), records([["comment", "x"]], "g"), file("f")], "not followed by the entry"),
  bad("a sparse map that falls", [raw(header(oldSparse(8, 3, 7, 1, 2, 2), 3), padded("abc"))], "not rising"),
  bad("a sparse map beyond its size", sparse1("1\n6\n3\n", "abc", 8), "not rising within the file's size"),
  bad("a sparse map of another size than its data", sparse1("1\n2\n2\n", "abc", 8), "wants 2 bytes of data"),
  bad("a sparse map that is no number", sparse1("x\n", "abc", 8), "not lines of decimal numbers"),
  bad("a sparse map of more pairs than it may have", sparse1("99999999999\n", "abc", 8), "larger than"),
  bad("a sparse file larger than a layer may be", [records([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.name", "s"], ["GNU.sparse.realsize", String(2 ** 50)]]), file("s", padded("0\n").toString())], "claims to be, larger than"),
  bad("a multi-volume entry", [other("M")], "no layer can hold an entry of type"),
  bad("a type nobody knows", [other("Z")], "no layer can hold an entry of type"),
  bad("a wrong checksum", [file("f", "x", { header: [[0, "g"]], checksum: false })], "checksum is wrong"),
  bad("a wrong checksum after an entry", [file("f"), file("g", "x", { header: [[0, "h"]], checksum: false })], "checksum is wrong"),
  bad("a block of zeros in the middle", [file("f"), raw(Buffer.alloc(512)), file("g")], "a block of zeros is followed"),
  badBytes("something else than an archive", Buffer.from(`{"layers":[]}${" ".repeat(600)}`), "does not begin with a tar header"),
  badBytes("a cut in a header", archive([file("f")]).subarray(0, 300), "truncated in a header"),
  badBytes("a cut in data", archive([file("f", "x".repeat(600))]).subarray(0, 1000), "truncated in its data"),
  badBytes("a cut in padding", archive([file("f")]).subarray(0, 600), "truncated in the padding"),
  badBytes("a cut in an extended header", archive([records([["path", "x"]]), file("f")]).subarray(0, 600), "truncated"),
  badBytes("a cut in a sparse map", archive([raw(header({ ...oldSparse(8, 3, 2, 2, 7, 1), header: [...oldSparse(8, 3, 2, 2, 7, 1).header ?? [], [482, "\x01"]] }, 3))]).subarray(0, 800), "truncated")
]

/** Every case, whole and hostile. */
export const layerCases: ReadonlyArray<LayerCase> = [...sound, ...attacks]
/** Those that are whole: other readers of archives make the same of nearly all of them. */
export const soundCases: ReadonlyArray<LayerCase> = sound
