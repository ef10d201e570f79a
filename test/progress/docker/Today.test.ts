import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Digest } from "../../../src/image/Digest.ts"
import * as Today from "../../../src/progress/docker/Today.ts"
import type { PullEvent } from "../../../src/progress/PullEvent.ts"

const digest = (letter: string) => Schema.decodeSync(Digest)(`sha256:${letter.repeat(64)}`)
const reference = "docker.io/library/busybox:1"
const still = (letter: string, status: string) => `{"status":"${status}","progressDetail":{},"id":"${letter.repeat(12)}"}\r\n`
const moving = (status: string, current: number, share: number, text: string) =>
  `{"status":"${status}","progressDetail":{"current":${current},"total":3145728},"progress":"[${"=".repeat(share)}\\u003e${" ".repeat(50 - share)}] ${text}","id":"${"a".repeat(12)}"}\r\n`

describe("json: today's API", () => {
  it.effect("a line a message, in the words and units of today's daemon", Effect.fnUntraced(function*() {
    const layer = { reference, layer: digest("a") }, total = 3_145_728
    const events: ReadonlyArray<PullEvent> = [
      { _tag: "resolved", reference, digest: digest("f"), mediaType: "m", endpoint: "https://registry-1.docker.io" },
      { _tag: "planned", reference, manifest: digest("f"), platform: "linux/amd64", total, missing: total, layers: [
        { layer: digest("b"), size: 1, state: "unpacked" }, { layer: digest("a"), size: total, state: "missing" }
      ] },
      { _tag: "exists", reference, layer: digest("b") }, { _tag: "waiting", ...layer }, { _tag: "downloading", ...layer, bytes: 0, total },
      { _tag: "downloading", ...layer, bytes: 1_048_576, total }, { _tag: "extracting", ...layer, bytes: 1_000_000, total },
      { _tag: "retrying", ...layer, cause: "lost", delay: 200 }, { _tag: "retrying", ...layer, cause: "lost", delay: 4100 }, { _tag: "resumed", ...layer, offset: 1_048_576 },
      { _tag: "verified", ...layer }, { _tag: "extracting", ...layer, bytes: 2_000_000, total }, { _tag: "committed", ...layer },
      { _tag: "verified", reference, by: ["ABCD"] }, { _tag: "warning", reference, message: "mind <it>" }, { _tag: "tagged", reference, digest: digest("f") },
      { _tag: "done", reference, digest: digest("f"), image: "i", changed: true }, { _tag: "failed", reference, message: "no", code: 404 }
    ]
    assert.deepStrictEqual([...yield* Stream.runCollect(Today.render(Stream.fromIterable(events)))], [
      `{"status":"Pulling from library/busybox","id":"1"}\r\n`, still("a", "Pulling fs layer"), still("b", "Already exists"), still("a", "Waiting"),
      moving("Downloading", 1_048_576, 16, " 1.049MB/3.146MB"), still("a", "Retrying in 1 second"), still("a", "Retrying in 5 seconds"),
      moving("Downloading", 3_145_728, 50, " 3.146MB/3.146MB"), still("a", "Verifying Checksum"), still("a", "Download complete"),
      moving("Extracting", 2_000_000, 31, "     2MB/3.146MB"), moving("Extracting", 3_145_728, 50, " 3.146MB/3.146MB"), still("a", "Pull complete"),
      `{"status":"mind \\u003cit\\u003e"}\r\n`, `{"status":"Digest: ${digest("f")}"}\r\n`, `{"status":"Status: Downloaded newer image for busybox:1"}\r\n`,
      `{"errorDetail":{"message":"no"},"error":"no"}\r\n`
    ])
  }))
})
