import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { chownSync, constants, copyFileSync, cpSync, existsSync, mkdirSync, readdirSync } from "node:fs"
import { load } from "../../src/layer/Syscalls.ts"
import { ImageBuilder, Tree } from "../../src/testing/index.ts"
import { dockerRegistry, type Lab, lab, root, withPeers } from "./peers.ts"
import { layout, reference } from "./trees.ts"

const { image, layer } = ImageBuilder
const nobody = 65_534

/** Our commands as an ordinary user runs them who has them installed, and folders of its own below `user`. */
const asUser = (lab: Lab) => {
  const home = lab.path("user")
  for (const name of ["user", "installed", "installed/node_modules", "installed/node_modules/.bin"]) mkdirSync(lab.path(name))
  for (const name of ["bin", "dist", "node_modules/koffi", "node_modules/@koromix"]) {
    if (existsSync(`${root}/${name}`)) cpSync(`${root}/${name}`, lab.path("installed", name), { recursive: true, dereference: true })
  }
  copyFileSync(process.execPath, lab.path("installed", "node_modules", ".bin", "node"), constants.COPYFILE_FICLONE)
  chownSync(home, nobody, nobody)
  const env = { HOME: home, TMPDIR: home, XDG_RUNTIME_DIR: home, DOCKER_CONFIG: `${home}/config`, TOWLINE_STORE: `${home}/store` }
  return (command: "pull" | "graph", ...args: ReadonlyArray<string>) => lab.run("setpriv", [
    `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", lab.path("installed", "bin", command), ...args
  ], { env, cwd: home })
}

withPeers("As an ordinary user", ["root", "docker-registry", "skopeo", "umoci", "setpriv"], () => {
  it.live("folders that may not be entered apply, with one warning; the next command and the removal work too", () => Effect.gen(function*() {
    const one = yield* lab
    const { host } = yield* dockerRegistry(one)
    const built = image({ layers: [
      layer([
        { path: "read/", mode: 0o555, mtime: [1_500_000_000, 5] }, { path: "read/file", contents: "r", mode: 0o400 }, { path: "read/gone", contents: "g" },
        { path: "write/", mode: 0o300, uid: 1000 }, { path: "write/sub/", mode: 0o000 }, { path: "write/sub/deep", contents: "d", uid: 5, gid: 6 },
        { path: "shut/", mode: 0o000 }, { path: "shut/in", contents: "in", mode: 0o000 }, { path: "shut/full/", mode: 0o111 }, { path: "shut/full/old", contents: "o" },
        { path: "su", contents: "#!", mode: 0o4755 }, { path: "mine", contents: "m", xattrs: { "user.note": "kept", "security.capability": Buffer.from("0100000200200000000000000000000000000000", "hex") } },
        { path: "dev/" }, { path: "dev/null", type: "char", device: [1, 3], mode: 0o666 }, { path: "dev/pipe", type: "fifo", mode: 0o600 },
        { path: "link", type: "symlink", linkpath: "shut" }
      ]),
      layer([
        { path: "read/.wh.gone" }, { path: "shut/later", contents: "later" }, { path: "shut/full/.wh..wh..opq" }, { path: "shut/full/new", contents: "n" },
        { path: "link/through", contents: "t" }, { path: "write/sub/linked", type: "link", linkpath: "write/sub/deep" }, { path: "write/", mode: 0o200, mtime: 1_500_000_007 }
      ])
    ] })
    yield* one.copy(`oci:${layout(one.path("made"), "1", built)}`, `docker://${host}/shut:1`)
    const theirs = yield* reference(one, `${host}/shut:1`, "shut")
    const ours = asUser(one)
    const native = load().native
    const unlike = (path: string, field: Tree.TreeField | "path") => {
      const type = theirs.find((record) => record.path === path)?.type
      if (field === "uid" || field === "gid") return true
      if (field === "path") return type === "char" || (type === "fifo" && !native)
      return field === "xattrs" && path === "mine"
    }
    for (const [folder, ...options] of [["moved"], ["copied", "--unpack"]] as const) {
      const ran = yield* ours("pull", ...options, "--rootfs", one.path("user", folder), `${host}/shut:1`)
      assert.strictEqual(ran.code, 0, ran.stderr)
      assert.strictEqual(ran.stderr.match(/warning/gi)?.length, 1, ran.stderr)
      const tree = Tree.walk(one.path("user", folder))
      assert.deepStrictEqual(Tree.diff(tree, theirs, { ignore: unlike }), [])
      assert.isTrue(tree.every(({ gid, uid }) => uid === nobody && gid === nobody))
      if (native) assert.deepStrictEqual(tree.find(({ path }) => path === "mine")?.xattrs, ["user.note=6b657074"])
    }
    for (const args of [["ls"], ["check"], ["show", `${host}/shut:1`], ["rm", `${host}/shut:1`], ["check"]]) {
      const ran = yield* ours("graph", ...args)
      assert.strictEqual(ran.code, 0, `graph ${args.join(" ")}: ${ran.stdout}${ran.stderr}`)
    }
    for (const folder of ["layers/sha256", "blobs/sha256", "ingest"]) assert.deepStrictEqual(readdirSync(one.path("user", "store", folder)), [])
    assert.deepStrictEqual(readdirSync(one.path("user")).sort(), ["copied", "moved", "store"])
  }), 60_000)
})
