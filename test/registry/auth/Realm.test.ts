import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Endpoint from "../../../src/registry/route/Endpoint.ts"
import * as Realm from "../../../src/registry/auth/Realm.ts"

const verdict = (origin: string, realm: string, allowed: ReadonlyArray<string> = []) => {
  const given = Realm.judge(origin, realm, allowed)
  return given._tag === "Refuse" ? "refuse" : given.credentials ? "credentials" : "anonymous"
}

const cases: ReadonlyArray<readonly [origin: string, realm: string, expected: string]> = [
  ["https://registry-1.docker.io", "https://auth.docker.io/token", "credentials"],
  ["https://registry.gitlab.com", "https://gitlab.com/jwt/auth", "credentials"],
  ["https://registry.example.com", "https://registry.example.com/token", "credentials"],
  ["https://registry.example.com", "https://REGISTRY.example.com:443/token", "credentials"],
  ["https://registry.example.com:5000", "https://registry.example.com:5001/auth", "credentials"],
  ["https://registry.example.com", "https://auth.example.com/token", "credentials"],
  ["https://registry.example.com", "https://auth.example.org/token", "anonymous"],
  ["https://registry.example.com", "https://notexample.com/token", "anonymous"],
  ["https://registry.example.com", "https://example.com.evil.org/token", "anonymous"],
  ["https://example.com", "https://auth.example.com/token", "anonymous"],
  ["https://example.com", "https://evil.com/token", "anonymous"],
  ["https://shop.co.uk", "https://evil.co.uk/token", "anonymous"],
  ["https://mine.azurecr.io", "https://yours.azurecr.io/token", "anonymous"],
  ["https://mine.azurecr.io", "https://mine.azurecr.io/oauth2/token", "credentials"],
  ["http://127.0.0.1:5000", "http://127.0.0.1:5000/token", "credentials"],
  ["http://127.0.0.1:5000", "http://127.0.0.1:5001/token", "anonymous"],
  ["http://localhost:5000", "http://localhost:5001/token", "anonymous"],
  ["http://localhost:5000", "http://localhost:5000/token", "credentials"],
  ["http://127.0.0.1:5000", "https://127.0.0.1:5000/token", "credentials"],
  ["https://10.1.2.3", "https://10.1.2.4/token", "anonymous"],
  ["https://[fd00::1]:5000", "https://[fd00::1]:5000/token", "credentials"],
  ["https://registry.example.com", "http://registry.example.com/token", "refuse"],
  ["http://registry.example.com", "http://registry.example.com/token", "credentials"],
  ["https://registry.example.com", "file:///etc/passwd", "refuse"],
  ["https://registry.example.com", "ftp://registry.example.com/", "refuse"],
  ["https://registry.example.com", "javascript:alert(1)", "refuse"],
  ["https://registry.example.com", "/token", "refuse"],
  ["https://registry.example.com", "", "refuse"],
  ["https://registry.example.com", "https://user:pw@registry.example.com/token", "refuse"],
  ["https://registry.example.com", "https://169.254.169.254/latest/meta-data", "refuse"],
  ["https://registry.example.com", "https://127.0.0.1/token", "refuse"],
  ["https://registry.example.com", "https://0x7f.1/token", "refuse"],
  ["https://registry.example.com", "https://2130706433/token", "refuse"],
  ["https://registry.example.com", "https://10.0.0.1/token", "refuse"],
  ["https://registry.example.com", "https://172.31.0.1/token", "refuse"],
  ["https://registry.example.com", "https://172.32.0.1/token", "anonymous"],
  ["https://registry.example.com", "https://100.64.0.1/token", "refuse"],
  ["https://registry.example.com", "https://0.0.0.0/token", "refuse"],
  ["https://registry.example.com", "https://[::1]/token", "refuse"],
  ["https://registry.example.com", "https://[::ffff:127.0.0.1]/token", "refuse"],
  ["https://registry.example.com", "https://[fe80::1]/token", "refuse"],
  ["https://registry.example.com", "https://[fd00::1]/token", "refuse"],
  ["https://registry.example.com", "https://[2606:4700::1]/token", "anonymous"],
  ["https://registry.example.com", "https://localhost/token", "refuse"],
  ["https://registry.example.com", "https://localhost./token", "refuse"],
  ["https://registry.example.com", "https://x.localhost/token", "refuse"]
]

describe("Realm", () => {
  it.each(cases)("of %s, %s: %s", (origin, realm, expected) => { assert.strictEqual(verdict(origin, realm), expected) })

  it("gives credentials to a host the user allows, with and without its port", () => {
    for (const allowed of ["auth.example.org", "auth.example.org:8443"])
      assert.strictEqual(verdict("https://registry.example.com", "https://auth.example.org:8443/token", [allowed]), "credentials")
  })

  it.effect.prop("never throws, and asks only http(s)", { realm: Schema.String }, ({ realm }) => Effect.sync(() => {
    for (const one of [realm, `https://${realm}`, `http://${realm}/token`]) {
      const given = Realm.judge("https://registry.example.com", one, [])
      if (given._tag === "Ask") assert.strictEqual(given.url.protocol, "https:")
    }
  }))
})

describe("Endpoint", () => {
  it("maps the hub's names", () => {
    assert.deepStrictEqual(["docker.io", "index.docker.io", "Docker.IO", "ghcr.io", "LOCALHOST:5000"].map(Endpoint.hostOf),
      ["registry-1.docker.io", "registry-1.docker.io", "registry-1.docker.io", "ghcr.io", "localhost:5000"])
  })
  it("allows plain HTTP for loopback and for what is named", () => {
    const tries = (host: string) => Endpoint.schemes(host, ["a.example:5000", "b.example"]).length
    const both = ["localhost", "localhost:1", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]", "a.example:5000", "b.example", "b.example:9"]
    assert.deepStrictEqual(both.filter((host) => tries(host) !== 2), [])
    const one = ["a.example", "a.example:1", "x.localhost", "localhost.example", "127.0.0.1.example", "10.0.0.1", "[::2]"]
    assert.deepStrictEqual(one.filter((host) => tries(host) !== 1), [])
  })
})
