import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { ftruncateSync, openSync, writeSync, closeSync } from "node:fs"
import { join } from "node:path"
import * as Archive from "../../src/archive/Archive.ts"
import { ArchiveRefused } from "../../src/archive/Fault.ts"
import * as Tar from "../../src/testing/Archive.ts"
import { temporary } from "../harness.ts"
import { opened, refusalOf, text, tree } from "./Opened.ts"

const refused = (items: ReadonlyArray<Tar.Item>) => Effect.map(Effect.flip(tree(items)), (error) =>
  error instanceof ArchiveRefused ? [error.entry, error.rule] : [error._tag])

describe("TarIndex", () => {
  it.effect("finds files by name however they are written, and the last of two", Effect.fnUntraced(function*() {
    const long = `${"folder/".repeat(20)}${"n".repeat(200)}`
    const archive = yield* tree([
      { path: "./a", contents: "first" }, { path: "/b//c", contents: "bc" }, { path: "a", contents: "last" },
      { path: long, contents: "pax" }, { path: `${long}2`, contents: "gnu", format: "gnu" }, { path: "größe", contents: "utf-8" },
      { path: Buffer.from([0xff, 0x2f, 0x61]), contents: "bytes" }
    ])
    assert.deepStrictEqual(["a", "b/c", "./b/./c", long, `${long}2`, "größe"].map((name) => text(archive, name)), ["last", "bc", "bc", "pax", "gnu", "utf-8"])
    assert.strictEqual(Buffer.from(archive.find("\xff/a")?.bytes(10) ?? "").toString(), "bytes")
    assert.deepStrictEqual(archive.folders, ["b", "folder", "\xff"])
    assert.deepStrictEqual([text(archive, "b"), text(archive, "a/x"), text(archive, "none")], [undefined, undefined, undefined])
  }), 15_000)

  it.effect("follows links in the archive alone", Effect.fnUntraced(function*() {
    const archive = yield* tree([
      { path: "one/layer.tar", contents: "one" }, { path: "two/layer.tar", type: "symlink", linkpath: "../one/layer.tar" },
      { path: "three", type: "symlink", linkpath: "two" }, { path: "four/layer.tar", type: "symlink", linkpath: "../three/layer.tar" },
      { path: "hard", type: "link", linkpath: "one/layer.tar" }, { path: "early", type: "link", linkpath: "late" }, { path: "late", contents: "late" },
      { path: "loop", type: "symlink", linkpath: "pool" }, { path: "pool", type: "symlink", linkpath: "loop" },
      { path: "out/a", type: "symlink", linkpath: "../../etc/passwd" }, { path: "absolute", type: "symlink", linkpath: "/etc/passwd" },
      { path: "dangling", type: "symlink", linkpath: "nothing" }, { path: "fifo", type: "fifo" }, { path: "null", type: "char", device: [1, 3] }
    ])
    assert.deepStrictEqual(["two/layer.tar", "three/layer.tar", "four/layer.tar", "hard", "dangling"].map((name) => text(archive, name)), ["one", "one", "one", "one", undefined])
    const why = (name: string) => refusalOf(() => archive.find(name))?.[1]
    assert.strictEqual(why("loop"), "more than 40 symbolic links follow each other")
    assert.strictEqual(why("out/a"), "a symbolic link of it leads outside")
    assert.strictEqual(why("absolute"), "it is a symbolic link to an absolute name: /etc/passwd")
    assert.strictEqual(why("early"), "it links to late, which is no file before it")
    assert.strictEqual(why("fifo"), "it is no file but a fifo")
    assert.strictEqual(why("null"), "it is no file but a char")
    assert.strictEqual(why("../x"), "it names something outside: it has a part `..`")
  }))

  it.effect("a hard link keeps what it was linked to, and a file in a folder's place what was in the folder goes", Effect.fnUntraced(function*() {
    const archive = yield* tree([
      { path: "a", contents: "old" }, { path: "b", type: "link", linkpath: "a" }, { path: "a", contents: "new" },
      { path: "f/in", contents: "in" }, { path: "f", contents: "file" }, { path: "g", contents: "file" }, { path: "g/" }
    ])
    assert.deepStrictEqual(["a", "b", "f", "f/in", "g"].map((name) => text(archive, name)), ["new", "old", "file", undefined, undefined])
  }))

  it.effect("refuses names that lead outside or through what is no folder", Effect.fnUntraced(function*() {
    assert.deepStrictEqual(yield* refused([{ path: "../evil", contents: "x" }]), ["../evil", "its name leads outside: it has a part `..`"])
    assert.deepStrictEqual(yield* refused([{ path: "a/../../evil" }]), ["a/../../evil", "its name leads outside: it has a part `..`"])
    assert.deepStrictEqual(yield* refused([{ path: "link", type: "symlink", linkpath: "/tmp" }, { path: "link/x", contents: "x" }]),
      ["link/x", "its name leads through link, which is no folder"])
    assert.deepStrictEqual(yield* refused([{ path: "hard", type: "link", linkpath: "../../etc/passwd" }]), ["hard", "it links to a name outside: it has a part `..`"])
    assert.deepStrictEqual(yield* refused([{ path: "d/".repeat(33) }]), ["d/".repeat(33), "it is more than 32 folders deep"])
  }))

  it.effect("refuses names that imply more folders than memory should hold", Effect.fnUntraced(function*() {
    const deep = (n: number) => ({ path: `${n}${"/d".repeat(29)}/file` })
    assert.isDefined(yield* tree(Array.from({ length: 3333 }, (_, n) => deep(n))))
    const [entry, rule] = (yield* refused(Array.from({ length: 3334 }, (_, n) => deep(n)))) ?? []
    assert.deepStrictEqual([entry, rule], [deep(3333).path, "the names of the archive's entries imply more than 100000 folders"])
  }))

  it.effect("refuses what is cut anywhere but between entries", Effect.fnUntraced(function*() {
    const bytes = Tar.archive([{ path: "a", contents: "x".repeat(700) }, { path: "b", contents: "y" }])
    const lengths = Array.from({ length: Math.ceil(bytes.byteLength / 100) }, (_, n) => n * 100).concat([512 + 1024, 512 + 1024 + 1024])
    for (const length of lengths) {
      const cut = yield* Effect.exit(opened(bytes.subarray(0, length)))
      assert.strictEqual(cut._tag, length === 1536 || length >= 2560 && length % 512 === 0 ? "Success" : "Failure", String(length))
      const whole = yield* opened(bytes.subarray(0, 2560))
      assert.strictEqual(text(whole, "b"), "y")
    }
    assert.deepStrictEqual(yield* Effect.flip(opened(bytes.subarray(0, 600))), new ArchiveRefused({ archive: "archive.tar", entry: "a", rule: "the archive is truncated in its data" }))
  }))

  it.effect("refuses sparse files where they are asked for", Effect.fnUntraced(function*() {
    const archive = yield* tree([{ path: "s", contents: "abc", pax: [["GNU.sparse.major", "0"], ["GNU.sparse.minor", "1"], ["GNU.sparse.name", "s"], ["GNU.sparse.size", "4096"], ["GNU.sparse.numblocks", "1"], ["GNU.sparse.map", "0,3"]] }])
    assert.deepStrictEqual(refusalOf(() => archive.find("s")), ["s", "it is a sparse file: only layers may hold such"])
  }))

  it.live("an archive of 20 GiB is indexed without being read", Effect.fnUntraced(function*() {
    const file = join(yield* temporary, "huge.tar")
    const fd = openSync(file, "wx")
    const size = 20 * 2 ** 30
    const head = Tar.header({ path: "big/layer.tar" }, size)
    const tail = Tar.archive([{ path: "manifest.json", contents: "[]" }])
    writeSync(fd, head)
    ftruncateSync(fd, head.byteLength + size)
    writeSync(fd, tail, 0, tail.byteLength, head.byteLength + size)
    closeSync(fd)
    const archive = yield* Effect.flatMap(Archive.openFile(file), Archive.index)
    assert.deepStrictEqual([archive.find("big/layer.tar")?.size, text(archive, "manifest.json")], [size, "[]"])
    const end = yield* Stream.runFold(archive.find("big/layer.tar")?.stream(size - 3_000_000) ?? Stream.empty, () => 0, (sum, piece) => sum + piece.byteLength)
    assert.strictEqual(end, 3_000_000)
  }))
})
