import { Effect, type Scope } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Archive from "../../src/archive/Archive.ts"
import { ArchiveRefused, type ArchiveError } from "../../src/archive/Fault.ts"
import type { Tree } from "../../src/archive/Tree.ts"
import * as Tar from "../../src/testing/Archive.ts"
import { temporary } from "../harness.ts"

/** The tree of these bytes in a file called `archive.tar`. */
export const opened = (bytes: Uint8Array): Effect.Effect<Tree, ArchiveError, Scope.Scope> => Effect.gen(function*() {
  const file = join(yield* temporary, "archive.tar")
  writeFileSync(file, bytes)
  return yield* Effect.flatMap(Archive.openFile(file, "archive.tar"), Archive.index)
})

/** The tree of these entries. */
export const tree = (items: ReadonlyArray<Tar.Item>) => opened(Tar.archive(items))

/** What `run` is refused for: entry and rule. */
export const refusalOf = (run: () => unknown): readonly [string, string] | undefined => {
  try {
    run()
    return undefined
  } catch (error) {
    if (error instanceof ArchiveRefused) return [error.entry, error.rule]
    throw error
  }
}

/** A file's text, or undefined where there is none. */
export const text = (tree: Tree, name: string): string | undefined => {
  const file = tree.find(Buffer.from(name).toString("latin1"))
  return file === undefined ? undefined : Buffer.from(file.bytes(1 << 20)).toString()
}
