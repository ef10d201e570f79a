import { assert, describe, it } from "@effect/vitest"
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Syscalls from "../../src/layer/Syscalls.ts"
import { descriptors, inTemp, privileged, thrown } from "./apply/Entries.ts"

const native = Syscalls.load()
const plain = Syscalls.load({ native: false })
const facts = (error: unknown) => {
  const { code, syscall, path } = error as NodeJS.ErrnoException
  return [code, syscall, path]
}
const mtime = (path: string) => lstatSync(path, { bigint: true }).mtimeNs

describe("Syscalls", () => {
  it("is native where koffi is installed and not where it is told so", () => {
    assert.deepStrictEqual([native.native, plain.native], [process.platform === "linux", false])
  })

  it("keeps binary attributes and names that are not UTF-8", inTemp((folder) => {
    const path = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0x80])])
    writeFileSync(path, "")
    const name = Buffer.from("user.a\u00e9", "latin1")
    const value = Buffer.from([0, 1, 255, 0])
    native.lsetxattr(path, name, value)
    native.lsetxattr(path, Buffer.from("user.empty"), Buffer.alloc(0))
    assert.deepStrictEqual(native.lgetxattr(path, name), value)
    assert.deepStrictEqual(native.lgetxattr(path, Buffer.from("user.empty")), Buffer.alloc(0))
    assert.strictEqual(native.lgetxattr(path, Buffer.from("user.none")), undefined)
    assert.deepStrictEqual(native.llistxattr(path).map(String).sort(), [String(name), "user.empty"].sort())
    assert.deepStrictEqual(native.llistxattr(folder), [])
  }))

  it("sets times to the nanosecond, of a symlink itself too, and says when they were not kept", inTemp((folder) => {
    const path = join(folder, "file")
    writeFileSync(path, "")
    symlinkSync("file", join(folder, "link"))
    const fd = openSync(path, "r+")
    for (const [seconds, nanos] of [[1_700_000_000, 123_456_789], [0, 1], [-1, 999_999_999], [-1_000_000, 0]] as const) {
      assert.isTrue(native.futimens(fd, seconds, nanos))
      assert.strictEqual(mtime(path), BigInt(seconds) * 1_000_000_000n + BigInt(nanos))
      assert.isTrue(native.lutimens(join(folder, "link"), seconds - 1, nanos))
      assert.strictEqual(mtime(join(folder, "link")), BigInt(seconds - 1) * 1_000_000_000n + BigInt(nanos))
      assert.strictEqual(mtime(path), BigInt(seconds) * 1_000_000_000n + BigInt(nanos))
    }
    // The kernel drops the nanoseconds of the first and the last second that a file system has.
    for (const seconds of [-(2 ** 31), 2 ** 31 - 1]) {
      const time = BigInt(seconds) * 1_000_000_000n + 5n
      assert.strictEqual(native.futimens(fd, seconds, 5), mtime(path) === time)
      assert.strictEqual(native.lutimens(join(folder, "link"), seconds, 5), mtime(join(folder, "link")) === time)
    }
    assert.isFalse(native.futimens(fd, 2 ** 50, 0))
    assert.isFalse(plain.futimens(fd, 2 ** 50, 0))
    for (const seconds of [0, 1_700_000_000, -1, -1_000_000]) {
      assert.isTrue(plain.futimens(fd, seconds, 0))
      assert.strictEqual(mtime(path), BigInt(seconds) * 1_000_000_000n)
      assert.isTrue(plain.lutimens(join(folder, "link"), seconds + 5, 0))
      assert.strictEqual(mtime(join(folder, "link")), BigInt(seconds + 5) * 1_000_000_000n)
    }
    assert.isFalse(plain.futimens(fd, 1_700_000_000, 123_456_789))
    closeSync(fd)
  }))

  it("fails as Node's own calls do", inTemp((folder) => {
    const path = join(folder, "none")
    assert.deepStrictEqual(facts(thrown(() => native.lutimens(path, 1, 1))), ["ENOENT", "utimensat", path])
    assert.deepStrictEqual(facts(thrown(() => native.lgetxattr(path, Buffer.from("user.a")))), ["ENOENT", "lgetxattr", path])
    assert.deepStrictEqual(facts(thrown(() => native.futimens(-1, 1, 1))), ["EBADF", "futimens", undefined])
    assert.deepStrictEqual(facts(thrown(() => native.lsetxattr(folder, Buffer.from("nospace.a"), Buffer.from("a")))), ["ENOTSUP", "lsetxattr", folder])
    assert.deepStrictEqual(facts(thrown(() => plain.lsetxattr(folder, Buffer.from("user.a"), Buffer.from("a")))), ["ENOTSUP", "lsetxattr", folder])
    assert.deepStrictEqual(facts(thrown(() => plain.mknod(path, 0o010600, 0, 0))), ["ENOTSUP", "mknod", path])
    assert.deepStrictEqual(facts(thrown(() => native.mknod("a\0b", 0o010600, 0, 0))), ["EINVAL", "path", "a\0b"])
    assert.match(String(thrown(() => native.mknod(folder, 0o010600, 0, 0))), /^Error: EEXIST: file already exists, mknod '/)
  }))

  it.each([["natively", native], ["through Node", plain]])("makes folders and dates them below a handle, %s", (_, calls) => inTemp((folder) => {
    const inside = join(folder, "inside")
    calls.mkdir(inside, 0o750)
    const fd = openSync(inside, "r")
    const handle = `/proc/self/fd/${fd}`
    try {
      symlinkSync("/", join(inside, "out"))
      calls.mkdir(`${handle}/one`, 0o700)
      calls.mkdir(Buffer.from(`${handle}/two`), 0o700)
      // Two slashes are no way out of it.
      calls.mkdir(`${handle}//${folder.slice(1).split("/").join("-")}`, 0o700)
      for (const name of ["one", "two", "out", "."]) assert.isTrue(calls.lutimens(`${handle}/${name}`, 77, 0))
      assert.deepStrictEqual(["one", "two", "out", "."].map((name) => mtime(join(inside, name))), Array.from({ length: 4 }, () => 77_000_000_000n))
      assert.deepStrictEqual(readdirSync(inside).sort(), ["one", "out", "two", folder.slice(1).split("/").join("-")].sort())
      for (const name of ["one", "out"]) assert.deepStrictEqual(facts(thrown(() => calls.mkdir(`${handle}/${name}`, 0o700))), ["EEXIST", "mkdir", `${handle}/${name}`])
    } finally {
      closeSync(fd)
    }
    assert.strictEqual(lstatSync(inside).mode & 0o7777, 0o750)
    assert.isDefined(thrown(() => calls.mkdir("/proc/self/fd/-1/x", 0o700)))
  })())

  it("makes FIFOs", inTemp((folder) => {
    native.mknod(join(folder, "fifo"), 0o010600, 0, 0)
    assert.isTrue(lstatSync(join(folder, "fifo")).isFIFO())
  }))

  it.skipIf(!privileged)("makes devices with large numbers", inTemp((folder) => {
    native.mknod(join(folder, "null"), 0o020600, 0xabc, 0xabcde)
    const { rdev } = statSync(join(folder, "null"), { bigint: true })
    assert.strictEqual(rdev, (0xabcden & 0xffn) | (0xabcn << 8n) | ((0xabcden & ~0xffn) << 12n))
  }))

  it("gives memory back and holds no descriptor", inTemp((folder) => {
    const before = descriptors()
    const fd = openSync(folder, "r")
    native.trim()
    closeSync(fd)
    assert.strictEqual(descriptors(), before)
  }))

  it("shares content or says that it cannot", inTemp((folder) => {
    writeFileSync(join(folder, "a"), "content")
    const error = thrown(() => native.reflink(join(folder, "a"), join(folder, "b")))
    if (error === undefined) assert.strictEqual(readFileSync(join(folder, "b"), "utf8"), "content")
    else assert.include(["ENOTSUP", "EOPNOTSUPP", "EXDEV", "ENOTTY", "ENOSYS", "EINVAL"], Syscalls.codeOf(error))
  }))

  it("tells a handle's errors of the path they are about", () => {
    const failed = thrown(() => openSync("/proc/self/fd/100000/name", "r"))
    assert.deepStrictEqual(facts(Syscalls.relocate(failed, "/layer/name")), ["ENOENT", "open", "/layer/name"])
    const symlink = thrown(() => symlinkSync("/etc/passwd", "/proc/self/fd/100000/name"))
    assert.deepStrictEqual(facts(Syscalls.relocate(symlink, "/layer/name")), ["ENOENT", "symlink", "/layer/name"])
    const other = thrown(() => openSync("/none", "r"))
    assert.strictEqual(Syscalls.relocate(other, "/layer/name"), other)
  })
})
