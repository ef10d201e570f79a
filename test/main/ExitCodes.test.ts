import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Fault, ImageBuilder, TestRegistry } from "../../src/testing/index.ts"
import { command } from "../command.ts"
import { assertChecked, assertDigest, assertFailed, setting } from "./setting.ts"

const { image, index, layer, layerOf } = ImageBuilder

/** A config.json that holds these credentials for `host`. */
const loggedIn = (folder: string, host: string, login: string) => {
  mkdirSync(join(folder, "docker"), { recursive: true })
  writeFileSync(join(folder, "docker", "config.json"), JSON.stringify({ auths: { [host]: { auth: Buffer.from(login).toString("base64") } } }))
  return { env: { DOCKER_CONFIG: join(folder, "docker") } }
}

describe("What fails has its exit code and one sentence with the next step", () => {
  it.live("5: a host that does not exist, a port where nobody listens", () => Effect.gen(function*() {
    const { pull } = yield* setting()
    assertFailed(yield* pull(["registry.invalid/app:1"]), 5, /registry\.invalid/, /does not resolve/, /; check /)
    const { host } = yield* Effect.scoped(TestRegistry.make()) // its port is free again
    assertFailed(yield* pull([`${host}/app:1`]), 5, new RegExp(host), /refused/, /; check /)
  }).pipe(Effect.scoped), 120_000)

  it.live("5: TLS to a plain port, and what --insecure makes of it; a certificate nobody signed", () => Effect.gen(function*() {
    const { pull, registry } = yield* setting()
    const host = `0.0.0.0:${registry.host.split(":")[1] ?? ""}` // leads to this machine, but is no loopback address
    assertFailed(yield* pull([`${host}/app:1`]), 5, new RegExp(host), /TLS/, /--insecure/)
    assertDigest(yield* pull(["-q", "--insecure", host, `${host}/app:1`]))

    const tls = yield* setting({ tls: true })
    assertFailed(yield* tls.pull([tls.reference]), 5, new RegExp(tls.registry.host), /self-signed/, /NODE_EXTRA_CA_CERTS/)
    writeFileSync(join(tls.folder, "ca.pem"), tls.registry.certificate ?? "")
    assertDigest(yield* tls.pull(["-q", tls.reference], { env: { NODE_EXTRA_CA_CERTS: join(tls.folder, "ca.pem") } }))
  }).pipe(Effect.scoped), 120_000)

  it.live("4: credentials missing, wrong or not enough; never shown", () => Effect.gen(function*() {
    const { folder, pull, reference, registry } = yield* setting({ auth: { kind: "basic", users: { sailor: "anchor-1" } } })
    assertFailed(yield* pull([reference]), 4, new RegExp(registry.host), /log in/)
    const wrong = yield* pull([reference], loggedIn(folder, registry.host, "sailor:guess-77"))
    assertFailed(wrong, 4, /config\.json/, /check the credentials/)
    assert.notMatch(wrong.stderr, /guess-77|anchor-1|c2FpbG9y/)
    assertDigest(yield* pull(["-q", reference], loggedIn(folder, registry.host, "sailor:anchor-1")))
    writeFileSync(join(folder, "docker", "config.json"), "{ \"auths\": { \"h\": ")
    assertFailed(yield* pull([reference], { env: { DOCKER_CONFIG: join(folder, "docker") } }), 4, /config\.json/, /repair or remove/)

    const denied = yield* setting()
    denied.registry.script([{ match: { kind: "manifest" }, do: Fault.status(403) }])
    assertFailed(yield* denied.pull([denied.reference]), 4, /denies access to app/)
  }).pipe(Effect.scoped), 120_000)

  it.live("3: no such repository, tag or platform", () => Effect.gen(function*() {
    const { pull, registry } = yield* setting()
    assertFailed(yield* pull([`${registry.host}/nothing:1`]), 3, /no repository nothing/, /; check /)
    assertFailed(yield* pull([`${registry.host}/app:2`]), 3, /\b2\b.* in app/, /; check the tag/)
    const arch = (architecture: string) => image({ layers: [[{ path: architecture }]], platform: { os: "linux", architecture } })
    registry.put("many", "1", index([arch("amd64"), arch("s390x"), ImageBuilder.attestation(arch("amd64"))]))
    const ended = yield* pull(["--platform", "linux/riscv64", `${registry.host}/many:1`])
    assertFailed(ended, 3, /linux\/riscv64/, /linux\/amd64/, /linux\/s390x/)
    assert.notInclude(ended.stderr, "unknown/unknown")
  }).pipe(Effect.scoped), 120_000)

  it.live("6: a blob, a layer or a manifest that is not what it says", () => Effect.gen(function*() {
    const { folder, pull, reference, registry, store } = yield* setting()
    const [bad] = ImageBuilder.demo().layers
    registry.script([{ match: { kind: "blob", digest: bad?.digest ?? "" }, do: Fault.flip(1000) }])
    assertFailed(yield* pull(["--progress", "quiet", reference]), 6, new RegExp(bad?.digest ?? "-"))
    registry.script([])
    registry.put("junk", "1", image({ layers: [layerOf(Buffer.alloc(5000, 7))] }))
    assertFailed(yield* pull(["--progress", "quiet", `${registry.host}/junk:1`]), 6, /layer/)
    registry.put("escape", "1", image({ layers: [layer([{ path: "a", type: "link", linkpath: "../../etc/passwd" }])] }))
    assertFailed(yield* pull(["--progress", "quiet", "--rootfs", join(folder, "root"), `${registry.host}/escape:1`]), 6)
    assert.isFalse(existsSync(join(folder, "root")))
    registry.addManifest("odd", "1", Buffer.from("{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}"), ImageBuilder.mediaTypes.oci.manifest)
    assertFailed(yield* pull([`${registry.host}/odd:1`]), 6)
    yield* assertChecked(store)
    assertDigest(yield* pull(["-q", reference]))
  }).pipe(Effect.scoped), 120_000)

  it.live("2: references, flags and platforms that are none, with the place", () => Effect.gen(function*() {
    const { folder, pull, reference, store } = yield* setting()
    assertFailed(yield* pull(["app:tag:tag"]), 2, /"app:tag:tag"/, /at character 8, ":"/)
    assertFailed(yield* pull(["app@sha256:12"]), 2, /"app@sha256:12"/, /ends too early/)
    assertFailed(yield* pull(["--platform", "nonsense", reference]), 2, /"nonsense"/, /linux\/arm64/)
    assertFailed(yield* pull(["--frobnicate", reference]), 2, /--frobnicate/, /--help/)
    assertFailed(yield* pull(["--link", "symlink", reference]), 2, /--link/, /"copy"/, /--help/)
    assertFailed(yield* pull(["--jobs", "65", reference]), 2, /--jobs/, /1 to 64/, /--help/)
    assertFailed(yield* pull(["--rootfs", "", reference]), 2, /--rootfs/, /the path of a folder/, /--help/)
    assertFailed(yield* pull(["--output", "zip:x", reference]), 2, /zip:x/, /oci:DIR/)
    assertFailed(yield* pull(["--rootfs", "x", reference, reference]), 2, /--rootfs/)
    assertFailed(yield* pull([]), 2, /reference/, /--help/)
    assertFailed(yield* command("graph", []), 2, /subcommand/, /--help/)
    assertFailed(yield* command("graph", ["rn"]), 2, /rn/, /--help/)
    assertFailed(yield* command("graph", ["rm"]), 2, /image/, /--help/)
    for (const [name, problem] of [["file", "not a folder"], ["full", "not empty"]] as const) {
      const target = join(folder, name)
      if (name === "full") mkdirSync(join(target, "sub"), { recursive: true })
      else writeFileSync(target, "")
      assertFailed(yield* pull(["--rootfs", target, reference]), 2, new RegExp(target), new RegExp(problem), /name a folder/)
    }
    mkdirSync(join(folder, "layout"))
    writeFileSync(join(folder, "layout", "mine"), "")
    assertFailed(yield* pull(["--progress", "quiet", "--output", `oci:${join(folder, "layout")}`, reference]), 2, /not an OCI image layout/)
    yield* assertChecked(store)
  }).pipe(Effect.scoped), 120_000)

  it.live("several references: all are tried, and the first failure's code is given", () => Effect.gen(function*() {
    const { graph, pull, reference, registry } = yield* setting()
    const ended = yield* pull(["-q", `${registry.host}/nothing:1`, reference, "a:b:c"])
    assert.strictEqual(ended.code, 3)
    assert.strictEqual(ended.stdout, `${ImageBuilder.demo().manifest.descriptor.digest}\n`)
    assert.match(ended.stderr, /^pull: .*\/nothing:1: .*\npull: a:b:c: .*\n$/)
    assert.include((yield* graph("ls")).stdout, reference)
    assert.strictEqual((yield* pull(["-q", "a:b:c", `${registry.host}/nothing:1`])).code, 2)
  }).pipe(Effect.scoped), 120_000)
})
