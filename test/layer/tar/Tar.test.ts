import { assert, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Readable } from "node:stream"
import { buffer } from "node:stream/consumers"
import { extract, pack } from "tar-stream"
import { Refused } from "../../../src/layer/Fault.ts"
import { defaultLimits } from "../../../src/layer/Limits.ts"
import { TarReader } from "../../../src/layer/tar/Tar.ts"
import { archive, base256, cuts, end, entry, type Fields, type Found, header, padded, pax, read, record, refusal } from "./TarBytes.ts"

const Int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Name = Schema.NonEmptyArray(Schema.Struct({ part: Schema.Literals(["a", "Ab.", "é", "文件", "x y", "😀", "..", "=\n"]), times: Int(1, 60) }))
  .check(Schema.isMaxLength(6))
const Common = { name: Name, mode: Int(0, 0o7777), uid: Int(0, 0o7777777), gid: Int(0, 0o7777777), mtime: Int(0, 0o17777777777) }
const Item = Schema.Union([
  Schema.Struct({ type: Schema.Literals(["file", "contiguous-file"]), data: Schema.Uint8Array, times: Schema.Literals([0, 1, 3, 200]), ...Common }),
  Schema.Struct({ type: Schema.Literals(["link", "symlink"]), target: Name, ...Common }),
  Schema.Struct({ type: Schema.Literals(["directory", "fifo"]), ...Common }),
  Schema.Struct({ type: Schema.Literals(["character-device", "block-device"]), devmajor: Int(0, 0xfff), devminor: Int(0, 0xfffff), ...Common })
])

const nameOf = (name: typeof Name.Type) => name.map(({ part, times }) => part.repeat(times)).join("/")

const packed = async (items: ReadonlyArray<typeof Item.Type>): Promise<Buffer> => {
  const out = pack()
  for (const item of items) {
    const { mode, uid, gid, type } = item
    const common = { name: nameOf(item.name), mode, uid, gid, type, mtime: new Date(item.mtime * 1000) }
    if ("data" in item) out.entry(common, Buffer.concat(Array.from({ length: item.times }, () => item.data)))
    else if ("target" in item) out.entry({ ...common, linkname: nameOf(item.target) })
    else if ("devmajor" in item) out.entry({ ...common, devmajor: item.devmajor, devminor: item.devminor })
    else out.entry(common)
  }
  out.finalize()
  return buffer(out)
}

const types: Readonly<Record<string, Found["type"]>> = {
  file: "file", "contiguous-file": "file", link: "link", symlink: "symlink", directory: "dir", fifo: "fifo", "character-device": "char", "block-device": "block"
}

/** What tar-stream makes of the archive, in the terms both readers know. */
const second = async (bytes: Buffer) => {
  const found: Array<object> = []
  for await (const one of Readable.from([bytes]).pipe(extract())) {
    const content = await buffer(one)
    const { name, type, linkname, mode, uid, gid, size, mtime, devmajor, devminor } = one.header
    const device = type.endsWith("-device")
    found.push({
      path: name, type: types[type], linkpath: linkname ?? "", mode, uid, gid, size, mtime: mtime.getTime() / 1000,
      devices: device ? [devmajor, devminor] : [0, 0], content: content.toString("hex")
    })
  }
  return found
}

const first = (found: ReadonlyArray<Found>) =>
  found.map(({ path, type, linkpath, mode, uid, gid, size, mtimeSeconds, mtimeNanos, devmajor, devminor, content }) => ({
    path: path.toString(), type, linkpath: linkpath.toString(), mode, uid, gid, size, mtime: mtimeSeconds + mtimeNanos,
    devices: [devmajor, devminor], content: content.toString("hex")
  }))

it.effect.prop("reads what tar-stream writes as tar-stream does, in any chunks", [Schema.Array(Item), Schema.Array(Int(1, 2000))],
  ([items, sizes]) => Effect.promise(async () => {
    const bytes = await packed(items)
    const chunks: Array<Buffer> = []
    let at = 0
    for (const size of sizes) chunks.push(bytes.subarray(at, at += size))
    chunks.push(bytes.subarray(at))
    const expected = await second(bytes)
    assert.strictEqual(expected.length, items.length)
    assert.deepStrictEqual(first(read(chunks)), expected)
    assert.deepStrictEqual(first(read(Array.from(bytes, (_, n) => bytes.subarray(n, n + 1)))), expected)
  }), { arbitrary: { runs: 150 } })

const file = entry({ name: "file" }, "content")

it("passes data on without copying it", () => {
  const bytes = archive(file)
  let seen: Uint8Array | undefined
  new TarReader({ entry: () => {}, data: (data) => { seen = data }, end: () => {} }).write(bytes)
  assert.strictEqual(seen?.buffer, bytes.buffer)
  assert.strictEqual(seen?.byteLength, 7)
})

it("keeps no part of a chunk in an entry", () => {
  const bytes = archive(pax([["path", "long/name"], ["SCHILY.xattr.user.a", "value"], ["linkpath", "elsewhere"]]), entry({ type: "2" }))
  const names: Array<Buffer> = []
  new TarReader({
    entry: ({ path, linkpath, xattrs }) => names.push(path, linkpath, ...xattrs.flat()), data: () => {}, end: () => {}
  }).write(bytes)
  bytes.fill(0xff)
  assert.deepStrictEqual(names.map(String), ["long/name", "elsewhere", "user.a", "value"])
})

it("lets the sink's exceptions out", () => {
  const stop = new Error("stop")
  const fail = () => { throw stop }
  const pass = () => {}
  for (const sink of [{ entry: fail, data: pass, end: pass }, { entry: pass, data: fail, end: pass }, { entry: pass, data: pass, end: fail }]) {
    assert.throws(() => new TarReader(sink).write(archive(file)), stop)
  }
})

const names = (bytes: Buffer) => read([bytes]).map(({ path }) => String(path))

it("takes archives that end after an entry, with any part of the end marker's blocks", () => {
  assert.deepStrictEqual(names(Buffer.alloc(0)), [])
  assert.deepStrictEqual(names(end), [])
  assert.deepStrictEqual(names(file), ["file"])
  assert.deepStrictEqual(names(Buffer.concat([file, Buffer.alloc(512)])), ["file"])
  assert.deepStrictEqual(names(archive(file)), ["file"])
  assert.deepStrictEqual(names(archive(pax([["comment", "nothing follows"]], "g"))), [])
})

it("reads nothing after the end marker", () => {
  for (const rest of [archive(entry({ name: "second" })), Buffer.from("junk"), Buffer.alloc(9000), Buffer.alloc(700, 7)]) {
    for (const chunks of cuts(archive(file, end, rest))) assert.deepStrictEqual(read(chunks).map(({ path }) => String(path)), ["file"])
  }
})

it("refuses an archive cut anywhere but after an entry", () => {
  const bytes = archive(
    file, pax([["path", "p"]]), entry({}, "more content"), entry({ name: "@long", type: "L" }, "a long name\0"), entry({ magic: "gnu" }),
    pax([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.realsize", "9"]]),
    entry({}, Buffer.concat([padded("1\n4\n5\n"), Buffer.from("holes")])),
    header({ type: "S", magic: "gnu", at: [[482, "\x01"], [483, "00000000000"]] }), Buffer.alloc(512)
  )
  const ends = new Set([0, 1024, 3072, 4608, 7168, 8192, 8704, 9216])
  assert.strictEqual(bytes.byteLength, 9216)
  for (let length = 0; length <= bytes.byteLength; length++) {
    const rule = refusal([bytes.subarray(0, length)])
    if (ends.has(length)) assert.strictEqual(rule, "taken", `${length}`)
    else assert.match(rule, /truncated|not followed/, `${length}`)
  }
})

const sparseMap = (map: string, size: string, data: string) =>
  archive(pax([["GNU.sparse.size", size], ["GNU.sparse.map", map]]), entry({}, data))
const sparseHead = (map: string, data = "") =>
  archive(pax([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.realsize", "100"]]), entry({}, Buffer.concat([padded(map), Buffer.from(data)])))
const withPax = (key: string, value: string | Buffer, fields: Fields = {}) => archive(pax([[key, value]]), entry(fields))
const rawPax = (body: string) => archive(entry({ type: "x" }, body), file)
const one = (fields: Fields) => archive(entry(fields))

const refusals: ReadonlyArray<readonly [name: string, archive: Buffer, rule: RegExp]> = [
  ["garbage at the start", Buffer.alloc(1024, 7), /does not begin with a tar header/],
  ["a short garbage", Buffer.from("<html>not found</html>"), /truncated in a header/],
  ["garbage after an entry", Buffer.concat([file, Buffer.alloc(512, 7)]), /entry "file": what follows it is no tar header/],
  ["a wrong checksum", one({ checksum: "wrong" }), /checksum/],
  ["a blank checksum", Buffer.concat([file.subarray(0, 148), Buffer.alloc(8), file.subarray(156)]), /checksum/],
  ["one block of zeros before an entry", Buffer.concat([file, Buffer.alloc(512), file]), /block of zeros/],
  ["one block of zeros before junk", Buffer.concat([file, Buffer.alloc(512), Buffer.alloc(512, 1)]), /block of zeros/],
  ["an octal size with junk", one({ size: "0000000001x\0" }), /the size of its header/],
  ["an octal size with two numbers", one({ size: "000001 00001" }), /the size of its header/],
  ["a digit that is not octal", one({ size: "00000000008\0" }), /the size of its header/],
  ["a signed octal size", one({ size: "-0000000001\0" }), /the size of its header/],
  ["a junk mode", one({ mode: "rw-r--r-" }), /the mode of its header/],
  ["a junk uid", one({ uid: "root\0\0\0\0" }), /the uid of its header/],
  ["a junk gid", one({ gid: "0x10\0\0\0\0" }), /the gid of its header/],
  ["a junk mtime", one({ mtime: "yesterday..." }), /the mtime of its header/],
  ["a junk devmajor of a device", one({ type: "3", devmajor: "?" }), /the devmajor of its header/],
  ["a device number Linux does not know", one({ type: "4", devmajor: 0x1000 }), /devmajor is 4096/],
  ["a negative mode", one({ mode: base256(-1n, 8) }), /mode is negative/],
  ["a negative size", one({ size: base256(-1n) }), /size is negative/],
  ["a size of 2^53", one({ size: base256(2n ** 53n) }), /the size of its header/],
  ["a size of 2^64 - 1", one({ size: base256(2n ** 64n - 1n) }), /the size of its header/],
  ["a size of 2^90", one({ size: base256(2n ** 90n) }), /the size of its header/],
  ["a size above the limit", one({ size: base256(2n ** 53n - 1n) }), /larger than 274877906944 bytes/],
  ["a uid of 2^32 - 1", one({ uid: base256(2n ** 32n - 1n, 8) }), /uid is 4294967295/],
  ["a gid of 2^32 - 1", one({ gid: base256(2n ** 32n - 1n, 8) }), /gid is 4294967295/],
  ["a uid of -1", one({ uid: base256(-1n, 8) }), /uid is -1/],
  ["a uid of 2^40", one({ uid: base256(2n ** 40n, 8) }), /uid is 1099511627776/],
  ["an empty name", one({ name: "" }), /its name is empty/],
  ["an empty link target", one({ type: "1" }), /its link target is empty/],
  ["an empty symlink target", one({ type: "2" }), /its link target is empty/],
  ["a name longer than Linux takes", withPax("path", "a/".repeat(2048)), /its name is longer than 4095/],
  ["a target longer than Linux takes", withPax("linkpath", "a".repeat(4096), { type: "2" }), /its link target is longer than 4095/],
  ["data in a file that is a folder by its name", archive(entry({ name: "dir/" }, "data")), /whose name ends in a slash/],
  ["data in a folder", archive(entry({ name: "dir/", type: "5" }, "data")), /no tar header/],
  ["a type nobody knows", one({ type: "Z" }), /type "Z"/],
  ["a dump of folder names", one({ type: "D" }), /type "D"/],
  ["a continued volume", one({ type: "M" }), /type "M"/],
  ["a volume label", one({ type: "V" }), /type "V"/],
  ["a GNU long name without its entry", archive(entry({ type: "L" }, "name\0")), /not followed/],
  ["a GNU long target without its entry, and no end", entry({ type: "K" }, "name\0"), /not followed/],
  ["an empty GNU long name", archive(entry({ type: "L" }, "\0"), file), /its name is empty/],
  ["an empty GNU long target", archive(entry({ type: "K" }, ""), file), /its link target is empty/],
  ["a GNU long name of more than 1 MiB", archive(entry({ type: "L" }, Buffer.alloc(2 ** 20 + 1, 97)), file), /larger than 1048576 bytes/],
  ["an extended header of more than 1 MiB", one({ type: "x", size: 2 ** 20 + 1 }), /larger than 1048576 bytes/],
  ["a global header of 2^53 - 1 bytes", one({ type: "g", size: base256(2n ** 53n - 1n) }), /larger than 1048576 bytes/],
  ["an extended header without its entry", archive(pax([["path", "p"]])), /not followed/],
  ["a global header between an extended header and its entry", archive(pax([["path", "p"]]), pax([["uid", "1"]], "g"), file), /not followed/],
  ["a record without a length", rawPax(" path=x\n"), /malformed/],
  ["a record with a wrong length", rawPax("8 path=x\n"), /malformed/],
  ["a record that is longer than its header", rawPax("99 path=x\n"), /malformed/],
  ["a record of a huge length", rawPax("99999999999999999999 path=x\n"), /malformed/],
  ["a record of a negative length", rawPax("-10 path=x\n"), /malformed/],
  ["a record without a value", rawPax("7 path\n"), /malformed/],
  ["a record without a key", rawPax("6 =abc\n".slice(0, 6)), /malformed/],
  ["a record shorter than its own length", rawPax("2 \n"), /malformed/],
  ["zeros after a record", rawPax("10 path=x\n\0\0"), /malformed/],
  ["a NUL in a key", archive(pax([["pa\0th", "x"]]), file), /key of its extended header has a NUL/],
  ["a NUL in a path", withPax("path", "a\0b"), /path of its extended header has a NUL/],
  ["a NUL in a target", withPax("linkpath", "a\0b", { type: "2" }), /linkpath of its extended header has a NUL/],
  ["a negative size record", withPax("size", "-1"), /size of its extended header/],
  ["a size record of 2^53", withPax("size", "9007199254740992"), /size of its extended header/],
  ["a fractional size record", withPax("size", "1.5"), /size of its extended header/],
  ["a size record in hexadecimal", withPax("size", "0x10"), /size of its extended header/],
  ["a uid record of 2^32 - 1", withPax("uid", "4294967295"), /uid is 4294967295/],
  ["a gid record of -1", withPax("gid", "-1"), /gid of its extended header/],
  ["an mtime record of junk", withPax("mtime", "now"), /mtime of its extended header/],
  ["an mtime record with a junk fraction", withPax("mtime", "1.2x"), /mtime of its extended header/],
  ["an mtime record with an exponent", withPax("mtime", "1e9"), /mtime of its extended header/],
  ["an attribute without a name", withPax("SCHILY.xattr.", "x"), /no proper name/],
  ["an attribute whose name is not encoded well", withPax("LIBARCHIVE.xattr.user.%zz", "AA"), /not URL-encoded/],
  ["an attribute with a NUL in its name", withPax("LIBARCHIVE.xattr.user.%00", "AA"), /no proper name/],
  ["an attribute that is not base64", withPax("LIBARCHIVE.xattr.user.a", "A*A="), /not base64/],
  ...["path", "linkpath", "size", "GNU.sparse.map", "SCHILY.xattr.user.a", "LIBARCHIVE.xattr.user.a"].map((key) =>
    [`a global ${key}`, archive(pax([[key, "1"]], "g"), file), /a global header may not set/] as const),
  ["a global uid that is junk", archive(pax([["uid", "junk"]], "g"), file), /uid of its extended header/],
  ["old GNU sparse without GNU's magic", one({ type: "S" }), /not old GNU's/],
  ["old GNU sparse of a negative size", one({ type: "S", magic: "gnu", at: [[483, base256(-5n)]] }), /realsize is negative/],
  ["old GNU sparse with a junk offset", one({ type: "S", magic: "gnu", at: [[386, "junk"], [483, "00000000777"]] }), /not rising/],
  ["a sparse map out of order", sparseMap("5,2,1,2", "10", "abcd"), /not rising/],
  ["a sparse map that overlaps", sparseMap("0,3,2,2", "10", "abcde"), /not rising/],
  ["a sparse map past the size", sparseMap("0,2,9,2", "10", "abcd"), /not rising/],
  ["a sparse map of half a pair", sparseMap("0,2,9", "10", "ab"), /offset without a length/],
  ["a sparse map of junk", sparseMap("0,two", "10", "ab"), /GNU.sparse.map of its extended header/],
  ["a sparse map that wants more data", sparseMap("0,2,5,2", "10", "abc"), /wants 4 bytes of data, the archive holds 3/],
  ["a sparse map that wants less data", sparseMap("0,2", "10", "abc"), /wants 2 bytes of data, the archive holds 3/],
  ["a sparse file that claims to be beyond the limit", sparseMap("0,2", "9007199254740991", "ab"), /larger than 274877906944 bytes/],
  ["a sparse map without a size", archive(pax([["GNU.sparse.map", "0,0"]]), file), /incomplete/],
  ["a sparse size without a map", archive(pax([["GNU.sparse.size", "3"]]), file), /incomplete/],
  ["a sparse map with a wrong count", archive(pax([["GNU.sparse.size", "0"], ["GNU.sparse.numblocks", "2"], ["GNU.sparse.map", "0,0"]]), entry({})), /incomplete/],
  ["a sparse file of an unknown version", archive(pax([["GNU.sparse.major", "2"], ["GNU.sparse.size", "0"], ["GNU.sparse.map", "0,0"]]), entry({})), /unknown version/],
  ["a sparse folder", archive(pax([["GNU.sparse.size", "3"], ["GNU.sparse.map", "0,0"]]), entry({ type: "5" })), /it is no file/],
  ["sparse records out of turn", archive(pax([["GNU.sparse.size", "3"], ["GNU.sparse.numbytes", "0"]]), file), /offset without a length/],
  ["a sparse head of junk", sparseHead("one\n"), /not lines of decimal numbers/],
  ["a sparse head with an empty line", sparseHead("\n1\n"), /not lines of decimal numbers/],
  ["a sparse head of a huge count", sparseHead("9007199254740991\n"), /sparse map is larger/],
  ["a sparse head that ends too early", sparseHead("2\n0\n1\n"), /not lines of decimal numbers|truncated/],
  ["a sparse head without data", archive(pax([["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"], ["GNU.sparse.realsize", "9"]]), entry({})), /truncated/],
  ["a sparse head that fits no data", sparseHead("1\n0\n5\n", "four"), /wants 5 bytes of data, the archive holds 4/]
]

for (const [name, bytes, rule] of refusals) {
  it(`refuses ${name}`, () => {
    assert.match(refusal([bytes]), rule)
    if (bytes.byteLength < 10_000) for (const chunks of cuts(bytes)) assert.strictEqual(refusal(chunks), refusal([bytes]))
  })
}

it("names the entry it refuses, however its name looks", () => {
  assert.strictEqual(refusal([one({ name: "a\tb\x80", size: base256(-1n) })]), "entry \"a\\x09b\\x80\": its size is negative")
  assert.throws(() => read([one({ name: "dev", type: "3", devmajor: 9999 })]), Refused)
})

it("holds its limits to the byte, however the chunks are cut", () => {
  const bytes = archive(file, file, file)
  const sparse = archive(pax([["GNU.sparse.size", "5000"], ["GNU.sparse.map", "0,2"]]), entry({}, "ab"))
  for (const size of [1, 100, 512, 5000]) {
    const pieces = (from: Buffer) => Array.from({ length: Math.ceil(from.byteLength / size) }, (_, n) => from.subarray(n * size, (n + 1) * size))
    assert.strictEqual(refusal(pieces(bytes), { bytes: bytes.byteLength }), "taken")
    assert.match(refusal(pieces(bytes), { bytes: bytes.byteLength - 1 }), /larger than/)
    assert.strictEqual(refusal(pieces(sparse), { bytes: sparse.byteLength + 4998 }), "taken")
    assert.match(refusal(pieces(sparse), { bytes: sparse.byteLength + 4997 }), /larger than/)
    assert.strictEqual(refusal(pieces(bytes), { entries: 3 }), "taken")
    assert.match(refusal(pieces(bytes), { entries: 2 }), /more than 2 entries/)
    const deep = archive(entry({ name: "./a//b/c/d" }), entry({ name: "l", type: "2", linkname: "../../../x" }))
    assert.strictEqual(refusal(pieces(deep), { depth: 5 }), "taken")
    assert.match(refusal(pieces(deep), { depth: 4 }), /name is more than 4 names deep/)
    assert.strictEqual(refusal(pieces(archive(pax([["comment", "x".repeat(80)]]), file)), { record: record("comment", "x".repeat(80)).byteLength }), "taken")
    assert.match(refusal(pieces(archive(pax([["comment", "x".repeat(80)]]), file)), { record: 90 }), /larger than 90/)
  }
  assert.strictEqual(defaultLimits.entries, 2_000_000)
})
