import { assert, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import { closeSync, lstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync, symlinkSync, linkSync, truncateSync, lutimesSync, writeFileSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { archive, base256, cuts, entry, type Found, header, padded, pax, read, type Fields } from "./TarBytes.ts"

/** Reads an archive cut in many ways; all must agree. */
const readAll = (bytes: Buffer): Array<Found> => {
  const found = read([bytes])
  for (const chunks of cuts(bytes)) assert.deepStrictEqual(read(chunks), found)
  return found
}
const readOne = (...parts: ReadonlyArray<Buffer>): Found => {
  const [found, ...more] = readAll(archive(...parts))
  assert.strictEqual(more.length, 0)
  if (found === undefined) throw new Error("no entry was read")
  return found
}
const path = (found: Found) => found.path.toString("latin1")
const xattrs = (found: Found) => found.xattrs.map(([name, value]) => [name.toString("latin1"), value.toString("latin1")])

const fullName = "n".repeat(100)
const names: ReadonlyArray<readonly [string, Fields, string]> = [
  ["a v7 name of 100 bytes", { name: fullName, magic: "v7" }, fullName],
  ["no prefix of v7", { name: "name", magic: "v7", prefix: "prefix" }, "name"],
  ["bytes that are not UTF-8", { name: Buffer.from([0xff, 0x2f, 0xe9]) }, "\xff/\xe9"],
  ["nothing after a NUL", { name: "name\0rest" }, "name"],
  ["a ustar prefix", { name: fullName, prefix: "p".repeat(155) }, `${"p".repeat(155)}/${fullName}`],
  ["a ustar prefix and a short name", { name: "name", prefix: "pre/fix" }, "pre/fix/name"],
  ["star's prefix, which has 131 bytes", { name: "name", magic: "star", prefix: "p".repeat(131) }, `${"p".repeat(131)}/name`],
  ["star's prefix before its times", { name: "name", magic: "star", prefix: "prefix", at: [[476, "00000000001"]] }, "prefix/name"],
  ["no prefix of old GNU", { name: "name", magic: "gnu", at: [[345, "14600000000\x0014600000000\0"]] }, "name"],
  ["the prefix that old Go wrote with GNU's magic", { name: "name", magic: "gnu", prefix: "a/folder/with/a/long/name" }, "a/folder/with/a/long/name/name"],
  ["no such prefix if it is not ASCII", { name: "name", magic: "gnu", prefix: "\xff a/folder/with/a/long/name" }, "name"],
  ["an absolute name as it is", { name: "/../a//b/." }, "/../a//b/."]
]
for (const [what, fields, expected] of names) it(`reads ${what}`, () => assert.strictEqual(path(readOne(header(fields))), expected))

it("reads a checksum of signed bytes", () => {
  assert.strictEqual(path(readOne(header({ name: Buffer.from([0xe9, 0xff]), checksum: "signed" }))), "\xe9\xff")
})

it("reads numbers as writers write them", () => {
  const read = (value: string | Buffer) => readOne(header({ mtime: value })).mtimeSeconds
  for (const value of ["00000000017\0", "         17 ", "17\0         ", "000000000017", " \0 17       ", "17          ", "17\0junk"]) assert.strictEqual(read(value), 15)
  assert.strictEqual(read("\0".repeat(12)), 0)
  assert.strictEqual(read("777777777777"), 8 ** 12 - 1)
  for (const value of [0n, 1n, 255n, 2n ** 33n, 2n ** 53n - 1n, -1n, -2n, -256n, -(2n ** 53n - 1n)]) {
    assert.strictEqual(read(base256(value)), Number(value))
  }
})

it("reads owners up to 2^32-2 and sizes and modes as they are", () => {
  const found = readOne(header({ uid: base256(2n ** 32n - 2n, 8), gid: 0o7777777, mode: 0o104755 }))
  assert.deepStrictEqual([found.uid, found.gid, found.mode], [2 ** 32 - 2, 0o7777777, 0o4755])
})

it("reads every type", () => {
  const kinds: ReadonlyArray<readonly [string, Found["type"], Fields]> = [
    ["0", "file", {}], ["\0", "file", {}], ["7", "file", {}], ["1", "link", { linkname: "target" }], ["2", "symlink", { linkname: "target" }],
    ["3", "char", { devmajor: 0xfff, devminor: 0xfffff }], ["4", "block", { devmajor: 8, devminor: 1 }], ["5", "dir", {}], ["6", "fifo", {}],
    ["0", "dir", { name: "folder/", magic: "v7" }], ["\0", "dir", { name: "folder/" }]
  ]
  for (const [type, expected, fields] of kinds) {
    const found = readOne(header({ type, ...fields }))
    assert.deepStrictEqual([found.type, found.devmajor, found.devminor], [expected, fields.devmajor ?? 0, fields.devminor ?? 0])
    assert.strictEqual(found.linkpath.toString(), fields.linkname ?? "")
  }
})

it("reads devices' junk only of devices", () => assert.strictEqual(readOne(header({ devmajor: "junk" })).type, "file"))

it("takes no data for links, folders, fifos and devices, whatever their size says", () => {
  for (const type of ["1", "2", "3", "4", "5", "6"]) {
    const found = readAll(archive(header({ type, linkname: "target", size: 99 }), pax([["size", "5000"]]), header({ type, linkname: "target" }), entry({ name: "next" }, "data")))
    assert.deepStrictEqual(found.map(({ size }) => size), [0, 0, 4])
  }
})

it("reads GNU long names and targets, in any order, over PAX ones", () => {
  const name = entry({ name: "././@LongLink", type: "L", magic: "gnu" }, `${"l".repeat(600)}\0rest`)
  const target = entry({ name: "././@LongLink", type: "K", magic: "gnu" }, "t".repeat(511))
  for (const parts of [[name, target], [target, name], [pax([["path", "p"], ["linkpath", "q"]]), name, target], [name, target, pax([["path", "p"]])]]) {
    const [found, next] = readAll(archive(...parts, header({ type: "2", linkname: "short", magic: "gnu" }), header({ name: "next" })))
    assert.deepStrictEqual([found?.path.toString(), found?.linkpath.toString()], ["l".repeat(600), "t".repeat(511)])
    assert.strictEqual(next?.path.toString(), "next")
  }
})

it("reads PAX records", () => {
  const found = readOne(pax([
    ["path", "wrong"], ["path", Buffer.from([0x70, 0xff, 0x3d, 0x0a, 0x71])], ["uid", "4294967294"], ["gid", "3000000"], ["size", "5"], ["hdrcharset", "BINARY"],
    ["uname", "somebody"], ["atime", "junk"], ["comment", ""], ["SCHILY.xattr.security.capability", Buffer.from([1, 0, 0, 2, 0xff, 0x0a, 0x3d])],
    ["SCHILY.xattr.user.empty", ""], ["LIBARCHIVE.xattr.user.%41%3d", "AP8K"], ["LIBARCHIVE.xattr.security.capability", "AA=="]
  ]), entry({ name: "short", size: 0, uid: 7 }), padded("12345"))
  assert.strictEqual(path(found), "p\xff=\nq")
  assert.deepStrictEqual([found.uid, found.gid, found.size, found.content.toString()], [4294967294, 3000000, 5, "12345"])
  assert.deepStrictEqual(xattrs(found), [["security.capability", "\x01\0\0\x02\xff\n="], ["user.empty", ""], ["user.A=", "\0\xff\n"]])
})

it("reads PAX times to the nanosecond", () => {
  const times: ReadonlyArray<readonly [string, number, number]> = [
    ["0", 0, 0], ["1.5", 1, 5e8], ["1700000000.123456789", 1700000000, 123456789], ["1.0000000019", 1, 1], ["1.", 1, 0], ["1.000000001", 1, 1],
    ["-1", -1, 0], ["-0.5", -1, 5e8], ["-1.25", -2, 75e7], ["-0.000000001", -1, 999999999], ["-0", 0, 0], ["9007199254740991", 9007199254740991, 0]
  ]
  for (const [text, seconds, nanos] of times) {
    const found = readOne(pax([["mtime", text]]), header({ mtime: 3 }))
    assert.deepStrictEqual([found.mtimeSeconds, found.mtimeNanos], [seconds, nanos], text)
  }
})

it("reads Solaris' extended headers", () => assert.strictEqual(path(readOne(pax([["path", "p"]], "X"), header({}))), "p"))

it("applies global owners and times until they are changed, under local ones; an empty record takes one back", () => {
  const found = readAll(archive(
    pax([["uid", "5"], ["gid", "6"], ["mtime", "7.5"], ["comment", "anything"]], "g"), header({ uid: 1 }), pax([["uid", "8"], ["gid", ""], ["mtime", ""]]), header({ gid: 2, mtime: 3 }),
    pax([["uid", ""], ["mtime", "9"]], "g"), header({ uid: 1 })
  ))
  assert.deepStrictEqual(found.map(({ uid, gid, mtimeSeconds, mtimeNanos }) => [uid, gid, mtimeSeconds, mtimeNanos]), [[5, 6, 7, 5e8], [8, 2, 3, 0], [1, 6, 9, 0]])
})

it("takes back a path by an empty record", () => {
  assert.strictEqual(path(readOne(pax([["path", ""], ["linkpath", "x"], ["size", ""]]), entry({ name: "header" }, "data"))), "header")
})

const sparse = Buffer.from("\0\0ab\0\0\0cde\0")
const segments = [[2, 2], [7, 3]] as const
const pair = (offset: number, length: number) => `${offset.toString(8).padStart(11, "0")}\0${length.toString(8).padStart(11, "0")}\0`

it("reads sparse files of all versions", () => {
  const map = "2,2,7,3,11,0"
  const old = header({ type: "S", magic: "gnu", size: 5, at: [[386, pair(2, 2) + pair(7, 3) + pair(11, 0)], [483, "00000000013"]] })
  const forms: ReadonlyArray<ReadonlyArray<Buffer>> = [
    [old, padded("abcde")],
    [pax([["GNU.sparse.size", "11"], ["GNU.sparse.numblocks", "2"], ["GNU.sparse.offset", "2"], ["GNU.sparse.numbytes", "2"], ["GNU.sparse.offset", "7"], ["GNU.sparse.numbytes", "3"]]),
      entry({ name: "name" }, "abcde")],
    [pax([["GNU.sparse.size", "11"], ["GNU.sparse.name", "name"], ["GNU.sparse.numblocks", "3"], ["GNU.sparse.map", map]]), entry({ name: "GNUSparseFile.1/name" }, "abcde")],
    [pax([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.name", "name"], ["GNU.sparse.realsize", "11"]]),
      entry({ name: "GNUSparseFile.1/name" }, Buffer.concat([padded("3\n2\n2\n7\n3\n11\n0\n"), Buffer.from("abcde")]))]
  ]
  for (const parts of forms) {
    const found = readOne(...parts)
    assert.deepStrictEqual([path(found), found.size, found.sparse, found.content], ["name", 11, segments, sparse])
  }
})

it("reads old GNU sparse maps in extension blocks, and such maps of more than a block in PAX 1.0", () => {
  const count = 100
  const data = Buffer.alloc(count, "x")
  const expected = Buffer.alloc(count * 3)
  for (let n = 0; n < count; n++) expected[n * 3] = 0x78
  const pairs = Array.from({ length: count }, (_, n) => pair(n * 3, 1))
  const blocks: Array<Buffer> = []
  for (let n = 4; n < count; n += 21) {
    const block = Buffer.alloc(512)
    block.write(pairs.slice(n, n + 21).join(""), "latin1")
    block[504] = n + 21 < count ? 1 : 0
    blocks.push(block)
  }
  const old = header({ type: "S", magic: "gnu", size: count, at: [[386, pairs.slice(0, 4).join("")], [482, "\x01"], [483, base256(BigInt(count * 3))]] })
  const map = padded([`${count}`, ...Array.from({ length: count }, (_, n) => `${n * 3}\n1`), ""].join("\n"))
  const new1 = pax([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.realsize", String(count * 3)]])
  for (const parts of [[old, ...blocks, padded(data)], [new1, entry({}, Buffer.concat([map, data]))]]) {
    const found = readOne(...parts)
    assert.isTrue(found.content.equals(expected))
    assert.strictEqual(found.sparse?.length, count)
  }
})

it("reads sparse files that are all hole, or none", () => {
  const hole = readOne(pax([["GNU.sparse.size", "5"], ["GNU.sparse.map", "5,0"]]), entry({}))
  assert.deepStrictEqual([hole.size, hole.sparse, hole.content], [5, [], Buffer.alloc(5)])
  const empty = readOne(header({ type: "S", magic: "gnu", at: [[483, "00000000005"]] }))
  assert.deepStrictEqual([empty.size, empty.sparse], [5, []])
  const full = readOne(pax([["GNU.sparse.size", "3"], ["GNU.sparse.map", "0,1,1,2"]]), entry({}, "abc"))
  assert.deepStrictEqual(full.content.toString(), "abc")
})

const hasTar = spawnSync("tar", ["--version"], { encoding: "utf8" }).stdout?.includes("GNU tar") === true

const made = (folder: string) => {
  const put = (name: string, text: string, time = 1_600_000_000) => {
    writeFileSync(join(folder, name), text)
    lutimesSync(join(folder, name), time, time)
  }
  mkdirSync(join(folder, "dir"))
  put("dir/short", "short")
  put("empty", "")
  put("old", "before the epoch", -86_400)
  put("split", "x".repeat(2000))
  linkSync(join(folder, "dir/short"), join(folder, "hard"))
  symlinkSync("dir/short", join(folder, "soft"))
}
const madeLong = (folder: string) => {
  const deep = join(folder, "long".repeat(30), "er".repeat(60))
  mkdirSync(deep, { recursive: true })
  writeFileSync(join(deep, "name".repeat(40)), "deep")
  symlinkSync("target/".repeat(80), join(folder, "far"))
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0xe9])]), "bytes")
  writeFileSync(join(folder, "exact"), "now")
  lutimesSync(join(folder, "exact"), 1_600_000_000.25, 1_600_000_000.25)
  for (const [name, holes] of [["holes", 60], ["hole", 0]] as const) {
    const fd = openSync(join(folder, name), "w")
    for (let n = 0; n < holes; n++) writeSync(fd, `data ${n}`, n * 65_536 + 32_768)
    closeSync(fd)
    truncateSync(join(folder, name), 5_000_000)
  }
}

/** Compares what was read of a folder with the folder. */
const sameAs = (folder: string, found: ReadonlyArray<Found>, exact: boolean) => {
  for (const one of found) {
    const place = Buffer.concat([Buffer.from(`${folder}/`), one.path])
    const stat = lstatSync(place, { bigint: true })
    assert.deepStrictEqual([one.mode, one.uid, one.gid], [Number(stat.mode & 0o7777n), Number(stat.uid), Number(stat.gid)])
    assert.strictEqual(one.mtimeSeconds, Number(stat.mtimeNs / 1_000_000_000n))
    if (exact) assert.strictEqual(BigInt(one.mtimeSeconds) * 1_000_000_000n + BigInt(one.mtimeNanos), stat.mtimeNs)
    if (one.type === "file") assert.isTrue(one.content.equals(readFileSync(place)), path(one))
    else if (one.type === "symlink") assert.deepStrictEqual(one.linkpath, readlinkSync(place, { encoding: "buffer" }))
    else if (one.type === "link") assert.strictEqual(lstatSync(Buffer.concat([Buffer.from(`${folder}/`), one.linkpath]), { bigint: true }).ino, stat.ino)
    else assert.isTrue(one.type === "dir" && stat.isDirectory())
  }
}

const forms = [
  ["v7", false, []], ["ustar", false, []], ["oldgnu", true, []], ["gnu", true, []], ["gnu", true, ["--sparse"]], ["oldgnu", true, ["--sparse"]], ["pax", true, []],
  ...["0.0", "0.1", "1.0"].map((version) => ["pax", true, ["--sparse", `--sparse-version=${version}`]] as const)
] as const

for (const [format, long, options] of forms) {
  it.runIf(hasTar)(`reads what GNU tar writes as ${[format, ...options].join(" ")}`, () => {
    const folder = mkdtempSync(join(tmpdir(), "towline-tar-"))
    try {
      made(folder)
      if (format === "v7" || format === "ustar") rmSync(join(folder, "old"))
      if (long) madeLong(folder)
      const bytes = execFileSync("tar", ["-c", `--format=${format}`, "--sort=name", "-C", folder, ...options, "."], { maxBuffer: 1 << 28 })
      const found = read([bytes])
      assert.strictEqual(found.length, long ? 16 : format === "v7" || format === "ustar" ? 7 : 8)
      assert.strictEqual(found.some((one) => one.sparse !== undefined), options.length > 0)
      sameAs(folder, found, format === "pax")
      for (const size of [1, 511, 513, 10_240]) {
        if (size === 1 && bytes.byteLength > 1e6) continue
        assert.deepStrictEqual(read(Array.from({ length: Math.ceil(bytes.byteLength / size) }, (_, n) => bytes.subarray(n * size, (n + 1) * size))), found)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
}
