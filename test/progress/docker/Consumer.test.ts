import { assert, describe, it } from "@effect/vitest"
import Modem from "docker-modem"
import { Effect } from "effect"
import { join } from "node:path"
import { Readable } from "node:stream"
import { Fault, ImageBuilder } from "../../../src/testing/index.ts"
import { command } from "../../command.ts"
import { setting } from "../../main/setting.ts"

const demo = ImageBuilder.demo()

/** What dockerode's users see of a stream: docker-modem as it was while daemons of 1.9's kind were about, in chunks of `size` bytes. */
const follow = (bytes: Buffer, size: number) => Effect.callback<{ readonly error: unknown; readonly events: ReadonlyArray<unknown> }>((resume) => {
  const chunks = [...Array(Math.ceil(bytes.length / size)).keys()].map((n) => bytes.subarray(n * size, (n + 1) * size))
  new Modem().followProgress(Readable.from(chunks), (error, events) => resume(Effect.succeed({ error, events })))
})

/** The objects of the stream, taken apart by another rule: a message ends where the next begins. */
const objects = (text: string): ReadonlyArray<unknown> => text.replaceAll("\r\n", "").split(/(?<=\})(?=\{"(?:status|errorDetail)")/).map((message): unknown => JSON.parse(message))

describe("Docker's clients", () => {
  for (const kind of ["docker-1.9", "json"] as const) {
    it.live(`docker-modem reads --progress ${kind}, whatever the chunks; a failing pull ends it with an error`, () => Effect.gen(function*() {
      const { folder, reference, registry } = yield* setting()
      const pull = (reference: string) => command("pull", ["--store", join(folder, kind), "--progress", kind, reference])
      const good = yield* pull(reference)
      assert.strictEqual(good.code, 0)
      const expected = objects(good.stderr)
      for (const size of [1, 7, 100, 65_536]) {
        const { error, events } = yield* follow(Buffer.from(good.stderr), size)
        assert.isNull(error)
        assert.deepStrictEqual(events, expected)
      }
      const of = (status: string) => expected.filter((event) => typeof event === "object" && event !== null && "status" in event && event.status === status)
      assert.deepStrictEqual(expected[0], { status: "Pulling from app", id: "1" })
      for (const status of ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]) {
        assert.sameDeepMembers([...of(status)], demo.layers.map(({ digest }) => ({ status, progressDetail: {}, id: digest.slice(7, 19) })))
      }
      // Strictly in order, with nothing between a layer's last bytes and its end.
      if (kind === "docker-1.9") assert.deepStrictEqual(of("Pull complete"), demo.layers.map(({ digest }) => ({ status: "Pull complete", progressDetail: {}, id: digest.slice(7, 19) })))
      assert.deepStrictEqual(expected.slice(-2), [{ status: `Digest: ${demo.manifest.descriptor.digest}` }, { status: `Status: Downloaded newer image for ${reference}` }])
      // Today a message is a line; 1.9.1 ended only those without progress.
      const ends = good.stderr.split("\r\n").length - 1
      assert.strictEqual(ends, kind === "json" ? expected.length : 3)

      const layer = demo.layers[1]?.digest ?? ""
      registry.put("app", "bad", demo).script([{ match: { kind: "blob", digest: layer }, do: Fault.flip(100, 1) }])
      const bad = yield* command("pull", ["--store", join(folder, `${kind}-bad`), "--progress", kind, `${registry.host}/app:bad`])
      assert.strictEqual(bad.code, 6)
      const { error, events } = yield* follow(Buffer.from(bad.stderr), 100)
      assert.include(String(error), layer)
      assert.deepStrictEqual(events.at(-1), { errorDetail: { message: error }, error })
      assert.isTrue(bad.stderr.endsWith("}\r\n"))
      const locked = yield* command("pull", ["--store", "/proc/nowhere", "--progress", kind, reference])
      assert.strictEqual(locked.code, 7)
      assert.match(locked.stderr, /^\{"errorDetail":\{"message":"[^"]*\/proc\/nowhere.*\}\r\n$/)
    }).pipe(Effect.scoped), 120_000)
  }
})
