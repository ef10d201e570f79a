import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as Challenge from "../../../src/registry/auth/Challenge.ts"

const plain = (text: string) => Result.match(Challenge.parse(text), {
  onFailure: (reason) => reason,
  onSuccess: (all) => all.map(({ scheme, token68, parameters }) => token68 === undefined ? [scheme, Object.fromEntries(parameters)] : [scheme, token68])
})

const good: ReadonlyArray<readonly [string, unknown]> = [
  ["", []],
  [" , ,", []],
  ["Basic", [["basic", {}]]],
  [`Basic realm="a"`, [["basic", { realm: "a" }]]],
  [`Basic realm=a`, [["basic", { realm: "a" }]]],
  [`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"`,
    [["bearer", { realm: "https://auth.docker.io/token", service: "registry.docker.io", scope: "repository:a/b:pull,push" }]]],
  [`BEARER REALM="x" , Service = "y"`, [["bearer", { realm: "x", service: "y" }]]],
  [`Bearer realm="a\\"b\\\\c, Basic realm=d"`, [["bearer", { realm: `a"b\\c, Basic realm=d` }]]],
  [`Bearer realm=""`, [["bearer", { realm: "" }]]],
  [`Negotiate, Basic realm="x"`, [["negotiate", {}], ["basic", { realm: "x" }]]],
  [`Negotiate YWJj==, Bearer realm="x",scope="y", Basic realm="z"`, [["negotiate", "YWJj=="], ["bearer", { realm: "x", scope: "y" }], ["basic", { realm: "z" }]]],
  [`Bearer realm=`, [["bearer", "realm="]]],
  [`NTLM a/b+c~d`, [["ntlm", "a/b+c~d"]]],
  [`Basic realm="x",Bearer realm="y",error="invalid_token"`, [["basic", { realm: "x" }], ["bearer", { realm: "y", error: "invalid_token" }]]],
  [`,Bearer ,realm="x",,service="y",`, [["bearer", { realm: "x", service: "y" }]]],
  [`Bearer\trealm="x"\t,\tservice="y"`, [["bearer", { realm: "x", service: "y" }]]],
  [`Bearer realm="x",scope=repository:a/b:pull`, [["bearer", { realm: "x", scope: "repository:a/b:pull" }]]],
  [`Bearer scope=a=b`, [["bearer", { scope: "a=b" }]]],
  [`Bearer realm="é\u{1f600}"`, [["bearer", { realm: "é\u{1f600}" }]]]
]

const bad = [
  `realm="x"`, `Bearer realm="x`, `Bearer realm="x" service="y"`, `Bearer realm="x", realm="y"`, `"Bearer"`, `Bearer realm="a"b`,
  `=`, `Bearer a=b c=d`, `Negotiate YWJj==, x=y`, `Bearer realm="x",service=`
]

const Token = Schema.String.check(Schema.isPattern(/^[A-Za-z][A-Za-z0-9-]{0,8}$/))
const Parameters = Schema.Array(Schema.Struct({ name: Token, value: Schema.String.check(Schema.isMaxLength(40)) }))
const Printed = Schema.Array(Schema.Struct({ scheme: Token, parameters: Parameters })).check(Schema.isMaxLength(5))

describe("Challenge", () => {
  it.each(good)("reads %s", (text, expected) => { assert.deepStrictEqual(plain(text), expected) })
  it.each(bad)("refuses %.60s", (text) => { assert.isString(plain(text)) })

  it.effect.prop("reads back what was printed", { challenges: Printed, gap: Schema.Literals([",", ", ", " ,\t", ",,"]) }, ({ challenges, gap }) => Effect.sync(() => {
    const expected = challenges.map(({ scheme, parameters }) =>
      [scheme.toLowerCase(), Object.fromEntries(parameters.map(({ name, value }, at) => [`${name}-${at}`.toLowerCase(), value]))])
    const text = challenges.map(({ scheme, parameters }) =>
      `${scheme} ${parameters.map(({ name, value }, at) => `${name}-${at}="${value.replace(/["\\]/g, "\\$&")}"`).join(gap)}`).join(gap)
    assert.deepStrictEqual(plain(text), expected)
  }))

  it.effect.prop("never throws", { text: Schema.String }, ({ text }) => Effect.sync(() => {
    for (const one of [text, `Bearer ${text}`, `Bearer realm="${text}`, `Bearer realm="x",${text}`]) Challenge.parse(one)
  }))

  it("refuses what is too long", () => { assert.include(plain(`Bearer realm="${"x".repeat(Challenge.maximumLength)}"`), "longer than") })

  it("takes linear time over hostile headers", () => {
    for (const unit of ["a", " ", ",", "=", `"`, "\\", "a=", "a =", `a="b",`, "a b ", "a,", "\t,"]) {
      const began = performance.now()
      for (const start of ["", "Bearer ", `Bearer realm="`]) Challenge.parse(start + unit.repeat(8000 / unit.length))
      assert.isBelow(performance.now() - began, 200, unit)
    }
  })
})
