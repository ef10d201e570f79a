import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { Readable } from "node:stream"
import { extract } from "tar-stream"
import * as Syscalls from "../../../src/layer/Syscalls.ts"
import { soundCases } from "../../../src/testing/LayerCases.ts"
import { diff, walk } from "../../../src/testing/Tree.ts"
import { read } from "../tar/TarBytes.ts"
import { applyTar } from "./cases.ts"
import { inTemp, privileged } from "./Entries.ts"

const sparse = "it takes each run of a sparse file from a block of its own, which only differs where no archiver ends a run"
const global = "it does not know records that take back"

/** Where a peer makes something else of a case, and why ours is right. */
const others: Readonly<Record<string, Partial<Record<"tar" | "bsdtar" | "tar-stream", string>>>> = {
  "an empty stream": { tar: "it takes nothing for no archive; Docker's layers may be empty" },
  "names that are not UTF-8": { bsdtar: "it converts names to the locale", "tar-stream": "it reads names as UTF-8" },
  "PAX times": { bsdtar: "it counts the fraction of a negative time forwards; POSIX has it as part of the number" },
  "PAX sizes of what has no data": { bsdtar: "it skips data that a folder cannot have", "tar-stream": "the same" },
  "a link with a size": { "tar-stream": "it skips data that links have not" },
  "global owners and times, taken back and overridden": { tar: global, bsdtar: "it ignores global records", "tar-stream": global },
  "attributes of both vendors": { tar: "it knows one vendor's", bsdtar: "it does not undo what GNU tar writes for = in a name" },
  "old GNU sparse": { tar: sparse, "tar-stream": "it knows no sparse files" }, "PAX sparse 0.0": { tar: sparse, "tar-stream": "the same" },
  "PAX sparse 0.1": { tar: sparse, "tar-stream": "the same" }, "PAX sparse 1.0": { tar: sparse, "tar-stream": "the same" },
  "duplicates of every type": { tar: "it does not replace a folder that is not empty", bsdtar: "the same" },
  "hard links by way of what aufs kept": { tar: "they are files to it", bsdtar: "the same" },
  "whiteouts and what aufs left": { tar: "they are files to it", bsdtar: "the same" },
  "names that need cleaning": { tar: "it refuses ..", bsdtar: "the same" },
  "star": { "tar-stream": "it does not know star's prefix" }, "Solaris' extended headers": { "tar-stream": "it does not know them" },
  "numbers with spaces, without an end, blank": { "tar-stream": "it reads a blank number as none" },
  "garbage after the end": { "tar-stream": "it reads on after the end" }, "a second archive after the end": { "tar-stream": "the same" },
  "v7": { "tar-stream": "it refuses it unless told otherwise" }
}
const agreeing = (peer: "tar" | "bsdtar" | "tar-stream") => soundCases.filter(({ name }) => others[name]?.[peer] === undefined)
const has = (tool: string) => spawnSync(tool, ["--version"]).status === 0

describe("Other readers of archives", () => {
  for (const [tool, options] of [["tar", ["--xattrs", "--xattrs-include=*"]], ["bsdtar", []]] as const) {
    it.runIf(privileged && has(tool))(`${tool} makes the same of every archive that is not named with a reason`, inTemp((temp) => {
      const syscalls = Syscalls.load()
      agreeing(tool).forEach(({ name, tar }, index) => {
        const [ours, theirs] = [join(temp, `${index}`), join(temp, `${index}-theirs`)]
        assert.isUndefined(applyTar(tar, ours, syscalls, 4096))
        mkdirSync(theirs)
        const { status, stderr } = spawnSync(tool, ["-x", "-p", "-f", "-", "--numeric-owner", ...options, "-C", theirs], { input: tar })
        assert.strictEqual(status, 0, `${name}: ${String(stderr)}`)
        const named = new Set(read([tar]).map(({ path }) => path.toString("latin1").replace(/\/$/, "")))
        // What no entry names has the time when it was made there.
        assert.deepStrictEqual(diff(walk(join(ours, "fs")), walk(theirs), { ignore: (path, field) => path === "" || (field === "mtimeNs" && !named.has(path)) }), [], name)
      })
    }))
  }

  it("tar-stream reads the same of every archive that is not named with a reason", async () => {
    for (const { name, tar } of agreeing("tar-stream")) {
      const theirs: Array<unknown> = []
      const reader = extract()
      Readable.from([tar]).pipe(reader)
      for await (const entry of reader) {
        const chunks: Array<Uint8Array> = []
        for await (const chunk of entry) if (chunk instanceof Uint8Array) chunks.push(chunk)
        const { gid, linkname, mode = 0, name: path, type, uid } = entry.header
        theirs.push([path.replace(/\/$/, ""), type === "contiguous-file" ? "file" : type, mode & 0o7777, uid, gid, linkname ?? "", Buffer.concat(chunks).toString("latin1")])
      }
      const types = { file: "file", dir: "directory", link: "link", symlink: "symlink", char: "character-device", block: "block-device", fifo: "fifo" }
      assert.deepStrictEqual(theirs, read([tar]).map(({ content, gid, linkpath, mode, path, type, uid }) =>
        [path.toString().replace(/\/$/, ""), types[type], mode, uid, gid, linkpath.toString(), content.toString("latin1")]), name)
    }
  })
})
