import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { Readable } from "node:stream"
import { extract, type Header } from "tar-stream"
import { archive, block, header, pax, type EntrySpec } from "../../src/testing/Archive.ts"

/** What tar-stream reads: an independent reader for all that fits its strings. */
const entries = (tar: Uint8Array) => Effect.promise(async () => {
  const found: Array<{ readonly header: Header; readonly body: Buffer }> = []
  const reader = extract()
  Readable.from([Buffer.from(tar)]).pipe(reader)
  for await (const entry of reader) {
    const body: Array<Buffer> = []
    for await (const piece of entry as AsyncIterable<Buffer>) body.push(piece)
    found.push({ header: entry.header, body: Buffer.concat(body) })
  }
  return found
})

const Name = Schema.String.check(Schema.isPattern(/^[a-zé]{1,8}(\/[a-z]{1,30}){0,9}$/))
const Id = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0o7777777 })) // tar-stream does not read ids from PAX
const File = Schema.Struct({
  path: Name,
  contents: Schema.Uint8Array,
  mode: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0o7777 })),
  uid: Id,
  gid: Id,
  mtime: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 33 - 1 }))
})

describe("Archive", () => {
  it.effect.prop("is read back by tar-stream as it was given", [Schema.Array(File)], Effect.fnUntraced(function*([files]) {
    const found = yield* entries(archive(files))
    assert.deepStrictEqual(
      found.map(({ header: { name, mode, uid, gid, mtime }, body }) => ({ path: name, contents: body, mode, uid, gid, mtime: (mtime?.getTime() ?? 0) / 1000 })),
      files.map(({ path, contents, mode, uid, gid, mtime }) => ({ path, contents: Buffer.from(contents), mode, uid, gid, mtime })))
  }), { arbitrary: { runs: 100 } })

  it.effect("writes every type, long names in either format, devices", Effect.fnUntraced(function*() {
    const long = `${"d".repeat(80)}/`.repeat(5)
    const items: ReadonlyArray<EntrySpec> = [
      { path: "dir/" }, { path: "file", contents: "x" }, { path: "hard", type: "link", linkpath: "file" },
      { path: "soft", type: "symlink", linkpath: long }, { path: "c", type: "char", device: [1, 3] }, { path: "b", type: "block", device: [8, 1] },
      { path: "p", type: "fifo" }, { path: `${long}pax`, contents: "1" }, { path: `${long}gnu`, contents: "2", format: "gnu" },
      { path: "to", type: "symlink", linkpath: long, format: "gnu" }
    ]
    const found = yield* entries(archive(items))
    assert.deepStrictEqual(found.map(({ header: { name, type, linkname, devmajor, devminor } }) => [name, type, linkname, devmajor, devminor]), [
      ["dir/", "directory", null, 0, 0], ["file", "file", null, 0, 0], ["hard", "link", "file", 0, 0], ["soft", "symlink", long, 0, 0],
      ["c", "character-device", null, 1, 3], ["b", "block-device", null, 8, 1], ["p", "fifo", null, 0, 0],
      [`${long}pax`, "file", null, 0, 0], [`${long}gnu`, "file", null, 0, 0], ["to", "symlink", long, 0, 0]
    ])
    assert.deepStrictEqual([found[7]?.body.toString(), found[8]?.body.toString()], ["1", "2"])
  }))

  it("is listed by the system's tar, with times, owners and names that are not UTF-8", () => {
    const tar = archive([
      { path: "a", mtime: [1_600_000_000, 123_456_789], uid: 3_000_000_000, gid: 2_097_152 },
      { path: Buffer.from([0x62, 0xff]), mtime: -3600, format: "gnu", uid: 3_000_000_000 },
      { path: Buffer.from([...Buffer.alloc(300, "l"), 0xfe]), contents: "x", mtime: 0 }
    ])
    const listed = execFileSync("tar", ["-tv", "--full-time", "--numeric-owner", "--quoting-style=escape", "-f", "-"], { input: tar, env: { TZ: "UTC", LC_ALL: "C" } })
    const lines = listed.toString().trim().split("\n").map((line) => line.replace(/ +/g, " "))
    assert.deepStrictEqual(lines, [
      "-rw-r--r-- 3000000000/2097152 0 2020-09-13 12:26:40.123456789 a",
      "-rw-r--r-- 3000000000/0 0 1969-12-31 23:00:00 b\\377",
      `-rw-r--r-- 0/0 1 1970-01-01 00:00:00 ${"l".repeat(300)}\\376`
    ])
  })

  it("writes xattr values as bytes, in records that count their own length", () => {
    const value = Buffer.from([0, 1, 0x0a, 0xff, 0xc3, 0x28, 0x3d])
    const tar = archive([{ path: "f", xattrs: { "security.capability": value }, pax: [["comment", "x".repeat(80)]] }])
    const record = Buffer.concat([Buffer.from("41 SCHILY.xattr.security.capability="), value, Buffer.from("\n")])
    assert.strictEqual(record.length, 41 + 3)
    const exact = Buffer.concat([Buffer.from("44 SCHILY.xattr.security.capability="), value, Buffer.from("\n")])
    assert.strictEqual(tar.indexOf(exact), 512)
    assert.strictEqual(tar.indexOf(`92 comment=${"x".repeat(80)}\n`), 512 + 44)
    for (let size = 1; size < 1200; size++) {
      const [, digits = "", rest = ""] = /^(\d+)( k=x+\n)/.exec(pax([["k", "x".repeat(size)]]).subarray(512).toString("latin1")) ?? []
      assert.strictEqual(Number(digits), digits.length + rest.length)
    }
  })

  it.effect("overwrites header bytes, with a right or a wrong checksum", Effect.fnUntraced(function*() {
    const [right] = yield* entries(archive([{ path: "name", header: [[0, "game"]] }]))
    assert.strictEqual(right?.header.name, "game")
    const wrong = header({ path: "name", header: [[0, "game"]], checksum: false })
    assert.deepStrictEqual([wrong.subarray(0, 4).toString(), wrong.subarray(148, 156)], ["game", header({ path: "name" }).subarray(148, 156)])
    const [global] = yield* entries(archive([{ bytes: pax([["comment", "all"]], "g") }, { bytes: block("0", "raw", Buffer.from("bytes")) }]))
    assert.deepStrictEqual([global?.header.name, global?.body.toString()], ["raw", "bytes"])
  }))

  it("says times before 1970 as GNU tar does (whose listing shows the fraction wrong)", () => {
    const text = (mtime: readonly [number, number]) => /mtime=(.*)\n/.exec(header({ path: "f", mtime }).toString("latin1"))?.[1]
    assert.deepStrictEqual([text([-2, 750_000_000]), text([-1, 1]), text([-1, 999_999_999]), text([7, 10]), text([2 ** 33, 5e8])],
      ["-1.25", "-0.999999999", "-0.000000001", "7.00000001", "8589934592.5"])
  })

  it("says sizes past 8 GiB by PAX, or in base 256", () => {
    const size = 2 ** 34 + 5
    assert.include(header({ path: "big" }, size).toString("latin1"), ` size=${size}\n`)
    assert.strictEqual(header({ path: "big", format: "gnu" }, size).readBigUInt64BE(128), BigInt(size))
  })
})
