import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer } from "effect"
import { Pull, RootFs, Towline } from "towline"

const program = Effect.gen(function*() {
  const image = yield* Pull.pull(process.argv[2] ?? "debian:12")
  const root = yield* RootFs.make(image) // removed when the scope closes
  yield* Console.log(`${image.target.digest} is at ${root} and runs ${image.config.image.config?.Cmd?.join(" ")}`)
}).pipe(Effect.scoped, Effect.provide(Towline.layer({ store: "./store" }).pipe(Layer.provideMerge(NodeServices.layer))))

NodeRuntime.runMain(program)
