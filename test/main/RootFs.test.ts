import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ImageBuilder, Tree } from "../../src/testing/index.ts"
import { root as project } from "../command.ts"
import { assertChecked, assertFailed, ingests, setting } from "./setting.ts"

const root = process.geteuid?.() === 0
const image = ImageBuilder.image({
  layers: [
    [{ path: "etc/", uid: 3, gid: 4 }, { path: "etc/f", contents: "f", uid: 5, mode: 0o4755 }, { path: "etc/l", type: "link", linkpath: "etc/f" }, { path: "dev/null", type: "char", device: [1, 3] }, { path: "gone/x", contents: "x" }],
    [{ path: ".wh.gone" }, { path: "s", type: "symlink", linkpath: "etc" }, { path: "etc/g", contents: "g", uid: 70_000 }]
  ]
})

describe.runIf(root)("Root file systems by the commands", () => {
  it.live("are equal whatever the way: while it is pulled, from the store, from blobs, as one archive", () => Effect.gen(function*() {
    const { folder, graph, pull, reference, registry, store } = yield* setting()
    registry.put("app", "1", image)
    const at = (name: string) => join(folder, name)
    const ok = (ended: { readonly code: number | null; readonly stderr: string }) => assert.deepStrictEqual([ended.code, ended.stderr], [0, ""])
    const tree = (name: string) => Tree.walk(at(name))
    const same = (name: string) => assert.deepStrictEqual(Tree.diff(tree(name), tree("pulled")), [])
    const extracted = (name: string) => {
      mkdirSync(at(name))
      execFileSync("tar", ["-xpf", at(`${name}.tar`), "--numeric-owner", "-C", at(name)])
      same(name)
    }
    ok(yield* pull(["-q", "--rootfs", at("pulled"), "--output", `tar:${at("whole")}.tar`, reference]))
    assert.includeMembers(tree("pulled").map(({ path, type, uid }) => `${path} ${type} ${uid}`), ["etc/l file 5", "dev/null char 0", "s symlink 0", "etc/g file 70000"])
    extracted("whole")
    const before = registry.requests.length
    ok(yield* graph("rootfs", [reference, at("blobs")]))
    ok(yield* graph("rootfs", [reference, `tar:${at("flat")}.tar`]))
    same("blobs")
    extracted("flat")
    assert.strictEqual(registry.requests.length, before, "nobody was asked")
    ok(yield* pull(["-q", "--unpack", reference]))
    for (const link of ["copy", "hardlink", "auto"]) {
      ok(yield* graph("rootfs", ["--link", link, reference, at(link)]))
      same(link)
    }
    assert.isAbove(statSync(join(at("hardlink"), "etc/g")).nlink, 1)
    execFileSync("sh", ["-c", `"$0" rootfs --store "$1" "$2" tar:- > "$3"`, join(project, "bin/graph"), store, reference, `${at("piped")}.tar`])
    extracted("piped")
    assert.deepStrictEqual(readFileSync(`${at("piped")}.tar`), readFileSync(`${at("whole")}.tar`))
    assert.deepStrictEqual(ingests(store), [])
    for (const name of ["hardlink"]) rmSync(at(name), { recursive: true })
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live("have the owners a map gives them, and are refused what does not go together", () => Effect.gen(function*() {
    const { folder, graph, pull, reference, registry } = yield* setting()
    registry.put("app", "1", image)
    const at = (name: string) => join(folder, name)
    assert.strictEqual((yield* pull(["-q", "--rootfs", at("mapped"), "--uid-map", "0:100000:65536,70000:7:1", "--gid-map", "squash", reference])).stderr, "")
    const uids = Object.fromEntries(Tree.walk(at("mapped")).map(({ gid, path, uid }) => [path, [uid, gid]]))
    assert.deepStrictEqual([uids["etc"], uids["etc/l"], uids["etc/g"], uids["dev/null"], uids["s"]], [[100_003, 0], [100_005, 0], [7, 0], [100_000, 0], [100_000, 0]])
    assert.strictEqual(statSync(join(at("mapped"), "etc/f")).mode & 0o7777, 0o4755)
    assertFailed(yield* graph("rootfs", ["--uid-map", "0:100000:10", reference, at("narrow")]), 6, /etc\/g.*its uid is 70000, which is in no range of the uid map/)
    assert.isFalse(existsSync(at("narrow")))
    assertFailed(yield* graph("rootfs", ["--uid-map", "0:1:x", reference, at("x")]), 2, /INSIDE:OUTSIDE:COUNT/)
    assertFailed(yield* pull(["-q", "--uid-map", "squash", reference]), 2, /need --rootfs or --output tar:/)
    assertFailed(yield* pull(["-q", "--link", "hardlink", "--gid-map", "squash", "--rootfs", at("x"), reference]), 2, /would change the store/)
    assertFailed(yield* pull(["-q", "--output", "tar:", reference]), 2, /tar:FILE/)
    assertFailed(yield* graph("rootfs", ["nothing:1", at("x")]), 3)
    mkdirSync(at("full"))
    writeFileSync(at("full/x"), "")
    assertFailed(yield* graph("rootfs", [reference, at("full")]), 2, /not exist yet, or an empty one/)
    assertFailed(yield* graph("rootfs", [reference, `tar:${at("full")}`]), 7, /no file/)
    yield* pull(["-q", "--unpack", reference])
    const shared = statSync("/dev/shm", { throwIfNoEntry: false })
    if (shared === undefined || shared.dev === statSync(folder).dev) return
    const elsewhere = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync("/dev/shm/towline-test-")), (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })))
    for (const link of ["hardlink", "reflink"]) assertFailed(yield* graph("rootfs", ["--link", link, reference, join(elsewhere, "root")]), 7, /use --link copy/)
    const sharing = yield* graph("rootfs", ["--link", "reflink", reference, at("shared")])
    if (sharing.code !== 0) assertFailed(sharing, 7, /--link copy does without/)
    assert.deepStrictEqual(readdirSync(elsewhere), [])
  }).pipe(Effect.scoped), 120_000)
})
