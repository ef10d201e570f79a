import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Registries from "../../../src/registry/config/Registries.ts"
import { fixture } from "./fixture.ts"

const read = (text: string) => Registries.decode("/c/registries.conf", text)
const rules = (text: string) => Result.getOrThrow(read(text)).rules
const problem = (text: string) => Result.getOrThrow(Result.flip(read(text)))

describe("registries.conf", () => {
  const main = Result.getOrThrow(read(fixture("registries.conf")))
  it("rules, mirrors and where they stand", () => {
    assert.deepStrictEqual(main.rules.map(({ blocked, insecure, location, prefix, why }) => [prefix, location, insecure, blocked, why]), [
      ["example.com/foo", "internal-registry-for-example.net/bar", false, false, "/c/registries.conf:6"],
      ["registry.com", "registry.com", false, false, "/c/registries.conf:19"],
      ["*.example.org", undefined, false, false, "/c/registries.conf:30"],
      ["evil.example", "evil.example", false, true, "/c/registries.conf:33"]
    ])
    assert.deepStrictEqual(main.rules.map(({ mirrors }) => mirrors.map(({ digests, insecure, location, tags, why }) => [location, insecure, tags, digests, why])), [
      [["example-mirror-0.local/mirror-for-foo", false, true, true, "/c/registries.conf:12"], ["example-mirror-1.local/mirrors/foo", true, true, true, "/c/registries.conf:15"]],
      [["mirror.registry.com", false, false, true, "/c/registries.conf:22"], ["tags.registry.com", false, true, false, "/c/registries.conf:26"]],
      [], []
    ])
    assert.deepStrictEqual(main.search, { registries: ["registry.fedoraproject.org", "registry.access.redhat.com", "docker.io", "quay.io"], why: "/c/registries.conf:2" })
  })
  it("drop-ins replace a rule of the same prefix as a whole, the search list, and single aliases", () => {
    const all = ["registries.conf.d/000-shortnames.conf", "registries.conf.d/50-mirror.conf"]
      .reduce((so, name) => Registries.merge(so, Result.getOrThrow(Registries.decode(`/c/${name}`, fixture(name)))), main)
    const rule = Registries.find(all.rules, "registry.com/app")
    assert.deepStrictEqual(rule?.mirrors.map(({ digests, location, tags, why }) => [location, tags, digests, why]), [["mirror.internal:5000/registry", false, true, "/c/registries.conf.d/50-mirror.conf:9"]])
    assert.deepStrictEqual(all.search, { registries: ["quay.io"], why: "/c/registries.conf.d/50-mirror.conf:2" })
    assert.deepStrictEqual(all.aliases.get("centos"), { name: "quay.io/centos/centos", why: "/c/registries.conf.d/000-shortnames.conf:3" })
    assert.strictEqual(all.rules.length, 4)
    const gone = Registries.merge(all, Result.getOrThrow(read(`[aliases]\ncentos = ""\n`)))
    assert.isFalse(gone.aliases.has("centos"))
  })
  it.each<readonly [name: string, prefix: string | undefined]>([
    ["example.com/foo/app:1", "example.com/foo"], ["example.com/foo", "example.com/foo"], ["example.com/foo:1", "example.com/foo"],
    ["example.com/foobar", undefined], ["example.com/fo", undefined], ["registry.com:5000/a", undefined], ["registry.com/a/b@sha256:0", "registry.com"],
    ["a.example.org/x", "*.example.org"], ["a.b.example.org/x", "*.example.org"], ["example.org/x", undefined],
    ["evil.com/a.example.org/x", undefined], ["a.example.org.evil.com/x", undefined], ["a.example.org:5000/x", "*.example.org"], ["evil.example/a", "evil.example"]
  ])("%s is under %s", (name, prefix) => { assert.strictEqual(Registries.find(main.rules, name)?.prefix, prefix) })
  it("the longest prefix wins, wherever it stands", () => {
    const some = rules(["a.example/x/y", "a.example", "*.example", "a.example/x"].map((prefix) => `[[registry]]\nprefix = "${prefix}"\nlocation = "l.example"\n`).join(""))
    assert.deepStrictEqual(["a.example/x/y/z", "a.example/x/z", "a.example/z", "b.example/z"].map((name) => Registries.find(some, name)?.prefix), ["a.example/x/y", "a.example/x", "a.example", "*.example"])
  })
  it("rewrites what comes after the prefix", () => {
    assert.strictEqual(Registries.rewrite("example.com/foo/app:1", "example.com/foo", "m.local/bar"), "m.local/bar/app:1")
    assert.strictEqual(Registries.rewrite("docker.io/library/x", "docker.io", "m.local:5000"), "m.local:5000/library/x")
    assert.strictEqual(Registries.rewrite("a.example.org/x", "*.example.org", "m.local/org"), "m.local/org/x")
    assert.strictEqual(Registries.rewrite("a.example.org/x", "*.example.org", undefined), "a.example.org/x")
  })
  it("reads version 1, and refuses a mixture", () => {
    const old = Result.getOrThrow(read(`[registries.search]\nregistries = ["a"]\n[registries.insecure]\nregistries = ["i"]\n[registries.block]\nregistries = ["b", "i"]\n`))
    assert.deepStrictEqual(old.rules.map(({ blocked, insecure, prefix }) => [prefix, insecure, blocked]), [["i", true, true], ["b", false, true]])
    assert.deepStrictEqual(old.search?.registries, ["a"])
    assert.include(problem(`unqualified-search-registries = []\n[registries.search]\nregistries = []\n`).message, "mixing")
  })
  it.each<readonly [text: string, problem: string, line: number | undefined]>([
    [`[[registry]]\ninsecure = true\n`, "both location and prefix are unset", 1],
    [`[[registry]]\nprefix = "a"\n`, "location is unset", 1],
    [`[[registry]]\nlocation = "https://a"\n`, "URI schemes are not supported", 1],
    [`\n[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true`, "a mirror location is unset", 4],
    [`[[registry]]\nlocation = "a"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "all"`, "at the same time", 4],
    [`[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "some"`, "unsupported pull-from-mirror", 3],
    [`[[registry]]\nlocation = "a"\nprefix = "*.*.a"`, "not in the format", 1],
    [`[[registry]]\nlocation = "a"\nblocked = "yes"`, "registry.0.blocked", undefined],
    [`[[registry]\n`, "it is not TOML", 1]
  ])("refuses %j", (text, expected, line) => {
    const error = problem(text)
    assert.include(error.problem, expected)
    assert.strictEqual(error.line, line)
  })
})
