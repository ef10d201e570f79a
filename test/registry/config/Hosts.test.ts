import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import * as Hosts from "../../../src/registry/config/Hosts.ts"
import { fixture } from "./fixture.ts"

const read = (text: string) => Hosts.decode("/c/hosts.toml", "/c", text)
const entries = (text: string) => Result.getOrThrow(read(text))
const problem = (text: string) => Result.getOrThrow(Result.flip(read(text)))

describe("hosts.toml", () => {
  it("a mirror before Docker Hub: order, capabilities, relative files, lines", () => {
    assert.deepStrictEqual(entries(fixture("certs.d/docker.io/hosts.toml")).map(({ ca, line, origin, path, pull, resolve }) => [origin, path, pull, resolve, ca, line]), [
      ["https://public-mirror.example.com", "/v2", true, false, [], 4],
      ["https://docker-mirror.internal", "/v2", true, true, ["/c/docker-mirror.crt"], 7],
      ["https://registry-1.docker.io", "/v2", true, true, [], 2]
    ])
  })
  it("every field in every form", () => {
    const all = entries(fixture("certs.d/registry.example_5000_/hosts.toml"))
    assert.deepStrictEqual(all.map(({ client, origin, path, skipVerify }) => [origin, path, skipVerify, client]), [
      ["https://mirror.registry", "/v2", false, []],
      ["https://mirror-bak.registry", "/us/v2", true, []],
      ["http://mirror.registry", "/v2", false, []],
      ["https://test-1.registry", "/v2", false, [["/etc/certs/client.cert", "/etc/certs/client.key"], ["/etc/certs/client.pem", "/c/client.key"]]],
      ["https://test-2.registry", "/v2", false, [["/etc/certs/client.pem", undefined]]],
      ["https://test-3.registry", "/v2", false, [["/etc/certs/client-1.pem", undefined], ["/c/client-2.pem", undefined]]],
      ["https://non-compliant-mirror.registry", "/v2/upstream", false, []],
      ["https://test-4.registry:5000", "/v2", false, []],
      ["https://registry-1.docker.io", "/v2", false, []]
    ])
    assert.deepStrictEqual(all[3]?.ca, ["/etc/certs/test-1-ca.pem", "/etc/certs/special.pem"])
    assert.strictEqual(all[3]?.dialTimeout, 90_000)
    assert.deepStrictEqual(all.at(-1)?.ca, ["/etc/path/default"])
    assert.deepStrictEqual(Object.entries(all[0]?.headers ?? {}).map(([name, value]) => [name, Redacted.value(value)]), [["x-custom-2", "value1, value2"]])
    assert.notInclude(JSON.stringify(all), "value1")
  })
  it("no server: the registry's own host comes last, with all capabilities; an empty file is that alone", () => {
    assert.deepStrictEqual(entries(`capabilities = ["push"]\n[host."http://m:5000"]\ncapabilities=["Pull"]\n`).map(({ origin, pull, resolve }) => [origin, pull, resolve]), [
      ["http://m:5000", true, false], [undefined, true, true]
    ])
    assert.deepStrictEqual(entries("").map(({ origin, path }) => [origin, path]), [[undefined, "/v2"]])
  })
  it("paths: /v2 is added once, and cleaned; with override_path nothing is", () => {
    const paths = (url: string, override = false) => entries(`[host."${url}"]\noverride_path = ${override}\n`)[0]?.path
    assert.deepStrictEqual(["https://m", "https://m/", "https://m/v2", "https://m/v2/", "https://m//a/../b/"].map((url) => paths(url)), ["/v2", "/v2", "/v2", "/v2", "/b/v2"])
    assert.deepStrictEqual(["https://m", "https://m/x/", "https://m/v2/p"].map((url) => paths(url, true)), ["", "/x", "/v2/p"])
  })
  it("mistakes name the file, the line and the field, and never a secret", () => {
    assert.strictEqual(problem(`server = "x"\n[host."https://m"]\ncapabilities = ["pul"]\n`).message,
      `the configuration file /c/hosts.toml:2 cannot be used: unknown capability "pul" (there are pull, resolve and push); repair or remove it`)
    assert.include(problem("server = \n").message, "/c/hosts.toml:1 cannot be used: it is not TOML")
    assert.include(problem(`[host."https://m"]\nca = 7\n`).problem, "host.https://m.ca")
    assert.include(problem(`[host."https://m"]\nclient = [["a", "b", "c"]]\n`).problem, "a certificate and its key")
    assert.include(problem(`[host."http://"]\n`).problem, "is no http(s) URL")
    assert.include(problem(`dial_timeout = "soon"`).problem, "no duration")
    for (const text of [`[host."https://m".header]\nauthorization = { a = "hush" }`, `[host."https://m".header]\nauthorization = "hush\\n"`]) assert.notInclude(problem(text).message, "hush")
  })
  it("the folders of a host", () => {
    assert.deepStrictEqual(Hosts.folders("r.example:5000"), ["r.example_5000_", "r.example:5000"])
    assert.deepStrictEqual(Hosts.folders("docker.io"), ["docker.io"])
  })
})
