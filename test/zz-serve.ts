import { Effect } from "effect"
import { ImageBuilder, TestRegistry } from "../src/testing/index.ts"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { writeFileSync } from "node:fs"
const program = Effect.gen(function*() {
  const registry = yield* TestRegistry.make()
  registry.put("app", "1", ImageBuilder.demo())
  const { image } = ImageBuilder
  registry.put("two", "1", image({ layers: [[{ path: "etc", type: "dir" as const }, { path: "etc/name", contents: "two\n", mode: 0o4755 }], [{ path: "bin/x", contents: "x".repeat(100000) }]], config: { Cmd: ["/x"], Env: ["A=1"], Labels: { kind: "two" } } }))
  writeFileSync("/tmp/serve.host", registry.host)
  yield* Effect.never
}).pipe(Effect.scoped)
NodeRuntime.runMain(program)
