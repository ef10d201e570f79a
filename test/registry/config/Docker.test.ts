import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as Certificates from "../../../src/registry/config/Certificates.ts"
import * as Daemon from "../../../src/registry/config/Daemon.ts"
import { fixture } from "./fixture.ts"

describe("daemon.json", () => {
  const problem = (text: string) => Result.getOrThrow(Result.flip(Daemon.decode("/d/daemon.json", text)))
  it("mirrors with their lines, and insecure registries", () => {
    assert.deepStrictEqual(Result.getOrThrow(Daemon.decode("/d/daemon.json", fixture("daemon.json"))), {
      mirrors: [{ url: "https://mirror.gcr.example", line: 5 }, { url: "http://127.0.0.1:5000", line: 6 }],
      insecure: ["registry.lan:5000", "10.0.0.0/8", "fd00::/8"]
    })
    for (const text of ["", "{}", `{"registry-mirrors": null}`]) assert.deepStrictEqual(Result.getOrThrow(Daemon.decode("/d", text)), { mirrors: [], insecure: [] })
  })
  it("refuses what Docker refuses", () => {
    assert.include(problem(`{"registry-mirrors":\n["ftp://m"]}`).message, `/d/daemon.json:2 cannot be used: the mirror "ftp://m" has a scheme`)
    assert.include(problem(`{"registry-mirrors": ["https://m/?q"]}`).problem, "query")
    assert.notInclude(problem(`{"registry-mirrors": ["https://u:hush@m"]}`).message, "hush")
    assert.include(problem(`{"insecure-registries": ["http://r"]}`).problem, "://")
    assert.include(problem(`{"registry-mirrors": "x"}`).problem, "registry-mirrors")
    assert.include(problem(`{`).problem, "not JSON")
  })
  it.each<readonly [address: string, range: string, inside: boolean]>([
    ["10.1.2.3", "10.0.0.0/8", true], ["11.0.0.1", "10.0.0.0/8", false], ["192.168.1.5", "192.168.1.4/30", true], ["192.168.1.8", "192.168.1.4/30", false],
    ["1.2.3.4", "0.0.0.0/0", true], ["1.2.3.4", "1.2.3.4/32", true], ["fd12::1", "fd00::/8", true], ["fe80::1", "fd00::/8", false], ["::1", "::1/128", true],
    ["1.2.3.4", "::/0", false], ["::ffff:10.0.0.1", "10.0.0.0/8", true], ["r.example", "0.0.0.0/0", false], ["1.2.3.4", "1.2.3.4", false], ["1.2.3.4", "1.2.3.4/33", false]
  ])("%s in %s: %s", (address, range, inside) => { assert.strictEqual(Daemon.within(address, range), inside) })
  it.effect.prop("an address is in its own network whatever its length, and not in one that differs in a bit of it", {
    a: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 32 - 1 })), length: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 32 }))
  }, ({ a, length }) => Effect.sync(() => {
    const text = (n: number) => [24, 16, 8, 0].map((shift) => (n >>> shift) & 255).join(".")
    assert.isTrue(Daemon.within(text(a), `${text(a)}/${length}`))
    assert.isFalse(Daemon.within(text(a), `${text((a ^ (1 << (32 - length))) >>> 0)}/${length}`))
  }))
})

describe("certs.d", () => {
  it("authorities and client certificates, by their extensions", () => {
    assert.deepStrictEqual(Result.getOrThrow(Certificates.read("/c/r", ["client.key", "ca.crt", "client.cert", "README", "b.crt"])), {
      ca: ["/c/r/b.crt", "/c/r/ca.crt"], client: [["/c/r/client.cert", "/c/r/client.key"]]
    })
  })
  it("a partner that is missing, in Docker's words", () => {
    const problem = (...names: Array<string>) => Result.getOrThrow(Result.flip(Certificates.read("/c/r", names))).problem
    assert.strictEqual(problem("client.cert"), "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt")
    assert.strictEqual(problem("client.key"), "missing client certificate client.cert for key client.key")
  })
})
