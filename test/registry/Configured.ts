import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { ConfigProvider, Effect, Layer } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Load from "../../src/registry/config/Load.ts"
import * as Places from "../../src/registry/config/Places.ts"
import { Credentials } from "../../src/registry/auth/Credentials.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { Limits } from "../../src/registry/RetryPolicy.ts"
import { Transport } from "../../src/registry/Transport.ts"
import { V1Registry } from "../../src/registry/V1Registry.ts"
import { temporary } from "../harness.ts"
import { brief } from "./Client.ts"

/** A client whose configuration are these files, named as below `/etc` or the user's `~/.config`. */
export const configured = (files: Readonly<Record<string, string>>, environment: Readonly<Record<string, string>> = {}) => Effect.map(temporary, (folder) => {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text.replaceAll("FOLDER", folder))
  }
  const provider = ConfigProvider.layer(ConfigProvider.fromEnvRecord({ TOWLINE_ETC: `${folder}/etc`, XDG_CONFIG_HOME: `${folder}/user`, ...Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, value.replaceAll("FOLDER", folder)])) }))
  const context = Layer.merge(Registry.layer, V1Registry.layer).pipe(
    Layer.provideMerge(Layer.mergeAll(Transport.layer, Credentials.layer)), Layer.provideMerge(Load.layer), Layer.provideMerge(NodeFileSystem.layer),
    Layer.provideMerge(Layer.mergeAll(Layer.succeed(Limits, { ...brief, connect: "500 millis", headers: "1 second" }), Layer.succeed(Places.Place, undefined), provider)))
  return { folder, context }
})
