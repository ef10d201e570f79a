import { assert, describe, it } from "@effect/vitest"
import * as Proxy from "../../../src/registry/config/Proxy.ts"

const proxies = (no: string) => ({ http: "http://p.example:3128", https: "q.example:8080", no })
const through = (url: string, no = "") => Proxy.choose(proxies(no), url)?.href

describe("Proxy", () => {
  it("is chosen by scheme; this machine needs none", () => {
    assert.strictEqual(through("http://r.example/"), "http://p.example:3128/")
    assert.strictEqual(through("https://r.example/"), "http://q.example:8080/")
    for (const url of ["http://localhost:5000/", "https://127.0.0.1/", "http://127.9.9.9:1/", "http://[::1]:5000/"]) assert.isUndefined(through(url), url)
    assert.isUndefined(Proxy.choose(Proxy.none, "https://r.example/"))
  })
  it.each<readonly [no: string, url: string, direct: boolean]>([
    ["*", "https://r.example/", true], ["r.example", "https://r.example/", true], ["r.example", "https://a.r.example/", true], ["r.example", "https://ar.example/", false],
    [".r.example", "https://r.example/", false], [".r.example", "https://a.r.example/", true], ["*.r.example", "https://a.r.example/", true],
    ["r.example:443", "https://r.example/", true], ["r.example:5000", "https://r.example/", false], ["r.example:5000", "http://r.example:5000/", true], ["r.example:80", "http://r.example/", true],
    ["10.0.0.0/8", "http://10.1.2.3:5000/", true], ["10.0.0.0/8", "http://11.1.2.3/", false], ["10.1.2.3", "http://10.1.2.3:5000/", true], ["10.1.2.3:80", "http://10.1.2.3:5000/", false],
    ["fd00::/8", "http://[fd00::1]:5000/", true], ["[fd00::1]:5000", "http://[fd00::1]:5000/", true], ["fd00::1", "http://[fd00::1]/", true],
    [" a.example , R.Example ", "https://r.example/", true], [",,", "https://r.example/", false], ["2.3", "http://10.1.2.3/", false]
  ])("NO_PROXY=%s, %s: direct %s", (no, url, direct) => { assert.strictEqual(through(url, no) === undefined, direct) })
})
