import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Meter } from "../../../src/progress/docker/Meter.ts"
import * as Message from "../../../src/progress/docker/Message.ts"
import * as Units from "../../../src/progress/docker/Units.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

describe("Go's numbers", () => {
  it("%.4g as Go prints it", () => {
    const table: ReadonlyArray<readonly [value: number, text: string]> = [
      [0, "0"], [-0, "-0"], [1, "1"], [-1, "-1"], [5, "5"], [10, "10"], [999, "999"], [1000, "1000"], [9999, "9999"], [9999.5, "1e+04"], [12345, "1.234e+04"],
      [12355, "1.236e+04"], [-50_000, "-5e+04"], [100_000, "1e+05"], [1.5, "1.5"], [1.0625, "1.062"], [1.1875, "1.188"], [100.25, "100.2"], [100.75, "100.8"],
      [999.94, "999.9"], [999.96, "1000"], [0.1, "0.1"], [0.0001, "0.0001"], [0.00012345, "0.0001234"], [0.00001, "1e-05"], [1e21, "1e+21"], [1.5e100, "1.5e+100"],
      [5e-324, "4.941e-324"], [1.0005, "1"], [2.0005, "2.001"]
    ]
    assert.deepStrictEqual(table.map(([value]) => Units.general(value, 4)), table.map(([, text]) => text))
    assert.deepStrictEqual([Units.general(123, 1), Units.general(123, 0), Units.general(0.5, 1), Units.general(120_000, 6)], ["1e+02", "1e+02", "0.5", "120000"])
  })
  it.prop("%.4g is the nearest number of four digits, the even one of two", [between(1, 999_999_999), between(0, 12)], ([mantissa, power]) => {
    // A number with few binary places, so that all is exact: mantissa / 2^power.
    const text = Units.general(mantissa / 2 ** power, 4)
    const [digits = "", exponent = "0"] = text.split("e")
    const scaled = BigInt(Math.round(Number(digits) * 1e8)) * 10n ** BigInt(exponent) // times 1e8
    const exact = BigInt(mantissa) * 10n ** 8n, found = scaled * 2n ** BigInt(power)
    // The last of four digits counts so much.
    const size = String(Math.floor(mantissa / 2 ** power)).length
    const unit = mantissa < 2 ** power ? undefined : 10n ** BigInt(8 + size - 4) * 2n ** BigInt(power)
    if (unit === undefined) return
    const off = found > exact ? found - exact : exact - found
    assert.isTrue(off * 2n <= unit, text)
    if (off * 2n === unit) assert.strictEqual(found / unit % 2n, 0n, text)
  })
  it("sizes: decimal units, a blank only in 1.9.1", () => {
    const table: ReadonlyArray<readonly [bytes: number, text: string]> = [
      [0, "0 B"], [999, "999 B"], [1000, "1 kB"], [1024, "1.024 kB"], [100_250, "100.2 kB"], [1_062_500, "1.062 MB"], [3_145_728, "3.146 MB"], [999_949, "999.9 kB"],
      [999_999, "1000 kB"], [51_370_000, "51.37 MB"], [2 ** 40, "1.1 TB"], [Number.MAX_SAFE_INTEGER, "9.007 PB"], [-1, "-1 B"], [-50_000, "-5e+04 B"]
    ]
    assert.deepStrictEqual(table.map(([bytes]) => Units.size(bytes, " ")), table.map(([, text]) => text))
    assert.strictEqual(Units.size(3_145_728, ""), "3.146MB")
  })
  it("a progress line's text", () => {
    const bar = (cells: number) => `[${"=".repeat(cells)}>${" ".repeat(50 - cells)}] `
    const table: ReadonlyArray<readonly [current: number, total: number, text: string]> = [
      [0, 0, ""], [0, -1, ""], [-5, 0, ""], [50, 0, "    50 B"], [1_234_567, -1, "1.235 MB"], [0, 100, `${bar(0)}     0 B/100 B`], [1, 100, `${bar(0)}     1 B/100 B`],
      [2, 100, `${bar(1)}     2 B/100 B`], [59, 118, `${bar(25)}    59 B/118 B`], [50, 100, `${bar(25)}    50 B/100 B`], [99, 100, `${bar(49)}    99 B/100 B`],
      [100, 100, `${bar(50)}   100 B/100 B`], [101, 100, `${bar(50)}   101 B`], [1_048_576, 3_145_728, `${bar(16)}1.049 MB/3.146 MB`], [10_000_000, 10, `${bar(50)}   10 MB`]
    ]
    assert.deepStrictEqual(table.map(([current, total]) => Units.progress({ current, total }, " ")), table.map(([, , text]) => text))
    assert.strictEqual(Units.progress({ current: 50, total: 100 }, " ", 110), "    50 B/100 B")
    assert.strictEqual(Units.progress({ current: 50, total: 100 }, "", 111), `${bar(25)}     50B/100B`)
  })
})

describe("Docker's messages", () => {
  it("keys in order, empty ones left out, ends of line, Go's escapes", () => {
    assert.strictEqual(Message.status("latest", "Pulling from library/busybox"), `{"status":"Pulling from library/busybox","id":"latest"}\r\n`)
    assert.strictEqual(Message.status("", "a<b>&\u2028\u2029\u0001\n\"\\é"), String.raw`{"status":"a\u003cb\u003e\u0026\u2028\u2029\u0001\n\"\\é"}` + "\r\n")
    assert.strictEqual(Message.status("", ""), "{}\r\n")
    assert.strictEqual(Message.progress(Message.docker19, "8c2e06607696", "Pulling fs layer"), `{"status":"Pulling fs layer","progressDetail":{},"id":"8c2e06607696"}`)
    assert.strictEqual(
      Message.progress(Message.docker19, "8c2e06607696", "Downloading", { current: 59, total: 118 }),
      `{"status":"Downloading","progressDetail":{"current":59,"total":118},"progress":"[${"=".repeat(25)}\\u003e${" ".repeat(25)}]     59 B/118 B","id":"8c2e06607696"}`)
    assert.strictEqual(
      Message.progress(Message.docker19, "a", "Downloading", { current: 5, total: -1 }),
      `{"status":"Downloading","progressDetail":{"current":5,"total":-1},"progress":"     5 B","id":"a"}`)
    assert.strictEqual(Message.progress(Message.docker19, "a", "Downloading", { current: 0, total: -1 }), `{"status":"Downloading","progressDetail":{"total":-1},"id":"a"}`)
    assert.strictEqual(
      Message.progress(Message.today, "a", "Downloading", { current: 1_048_576, total: 3_145_728 }),
      `{"status":"Downloading","progressDetail":{"current":1048576,"total":3145728},"progress":"[${"=".repeat(16)}\\u003e${" ".repeat(34)}]  1.049MB/3.146MB","id":"a"}\r\n`)
    assert.strictEqual(Message.error("no <such> tag"), String.raw`{"errorDetail":{"message":"no \u003csuch\u003e tag"},"error":"no \u003csuch\u003e tag"}` + "\r\n")
    assert.strictEqual(Message.error("Authentication is required.", 401), `{"errorDetail":{"code":401,"message":"Authentication is required."},"error":"Authentication is required."}\r\n`)
    assert.strictEqual(Message.error(""), `{"errorDetail":{}}\r\n`)
  })
})

describe("A reader's progress", () => {
  const run = (size: number, positions: ReadonlyArray<number>) => {
    const meter = new Meter(size)
    return [...positions.flatMap((position) => meter.at(position)), ...meter.end()].map(({ current, total }) => `${current}/${total}`)
  }
  it("speaks after strictly more than 1 % or 512 KiB, and twice at the end", () => {
    assert.deepStrictEqual(run(1000, [0, 5, 10, 11, 21, 22, 1000]), ["11/1000", "22/1000", "1000/1000", "1000/1000", "1000/1000"])
    assert.deepStrictEqual(run(99, [0, 1, 99]), ["1/99", "99/99", "99/99", "99/99"], "1 % of less than 100 is nothing")
    const kib = 1024, mib = kib * kib
    assert.deepStrictEqual(run(100 * mib, [512 * kib, 512 * kib + 1, mib + 1, mib + 2]).slice(0, -2), [`${512 * kib + 1}/${100 * mib}`, `${mib + 2}/${100 * mib}`])
    assert.deepStrictEqual(run(-1, [512 * kib, 512 * kib + 1]), [`${512 * kib + 1}/-1`, `${512 * kib + 1}/-1`, `${512 * kib + 1}/-1`])
    assert.deepStrictEqual(run(0, []), ["0/0", "0/0"])
  })
  it("closed before the end it is done at once; after it says nothing", () => {
    const meter = new Meter(1000)
    meter.at(400)
    assert.deepStrictEqual([meter.close(), meter.close(), new Meter(-1).close()], [[{ current: 1000, total: 1000 }], [], []])
  })
  it.prop("never says less than before, nor skips more than it may", [between(1, 100_000_000), Schema.Array(between(1, 32_768))], ([size, reads]) => {
    const meter = new Meter(size)
    let position = 0, said = 0
    for (const read of reads) {
      position += read
      for (const { current } of meter.at(position)) {
        assert.isAbove(current - said, Math.min(524_288, Math.floor(size / 100)) - 1)
        said = current
      }
      assert.isAtMost(position - said, Math.min(524_288, Math.floor(size / 100)))
    }
  })
})
