import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { chmodSync } from "node:fs"
import { join } from "node:path"
import { inTemp, privileged } from "./Entries.ts"

const own = process.getuid?.() ?? 0
const users = privileged ? [own, 65534] : [own]

describe.each(users)("While another process swaps folders for symlinks, as the user %i", (user) => {
  it.each([
    ["apply", "a layer that is applied stays inside"], ["folders", "so does what its folders get in the end"], ["merge", "a merge stays inside, and takes nothing from outside"], ["remove", "a removal stays inside"]
  ])("%s: %s", { timeout: 60_000 }, (scene) => inTemp((temp) => {
    chmodSync(temp, 0o777)
    const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", join(import.meta.dirname, "RaceScenes.ts"), temp, scene, String(user)], { encoding: "utf8" })
    assert.strictEqual(stderr, "")
    assert.deepStrictEqual(JSON.parse(stdout), { uid: user, swapped: true }, "it was the user's, and folders were swapped while it worked")
  })())
})
