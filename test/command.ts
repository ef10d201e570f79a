import { Deferred, Effect, type Scope } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { closeSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The project's root, with a slash at its end. */
export const root: string = new URL("..", import.meta.url).pathname

const newest = (folder: string): number => Math.max(...readdirSync(folder, { withFileTypes: true }).map((entry) => {
  const path = join(folder, entry.name)
  return entry.isDirectory() ? newest(path) : entry.name.endsWith(".ts") ? statSync(path).mtimeMs : 0
}))

const isBuilt = (): boolean => {
  const made = ["pull.js", "graph.js", "layer-worker.js"].map((name) => statSync(join(root, "dist", name), { throwIfNoEntry: false })?.mtimeMs ?? 0)
  return Math.min(...made) >= newest(join(root, "src"))
}

const isAlive = (pid: number): boolean => {
  try {
    return pid > 0 && process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Builds dist/ if it is older than src/; of several test processes one does it and the others wait. */
export const built: Effect.Effect<void> = Effect.gen(function*() {
  const lock = join(tmpdir(), `towline-build-${createHash("sha256").update(root).digest("hex").slice(0, 12)}`)
  while (!isBuilt()) {
    let fd: number
    try {
      fd = openSync(lock, "wx")
    } catch {
      yield* Effect.sleep("100 millis")
      const holder = statSync(lock, { throwIfNoEntry: false })
      const old = holder !== undefined && Date.now() - holder.mtimeMs > 1000
      if (old && !isAlive(Number(readFileSync(lock, "utf8")))) rmSync(lock, { force: true })
      continue
    }
    try {
      writeSync(fd, String(process.pid))
      if (isBuilt()) return
      const { status, stderr } = spawnSync(process.execPath, ["scripts/build.ts"], { cwd: root, encoding: "utf8" })
      if (status !== 0) return yield* Effect.die(new Error(`the build failed: ${stderr}`))
    } finally {
      closeSync(fd)
      rmSync(lock, { force: true })
    }
  }
})

/** A process that ended. */
export interface Ended {
  /** null: a signal ended it. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A process that was started. */
export interface Running {
  readonly pid: number
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Its end, with all it wrote; a process of its own that outlives it and holds its pipes is waited for. */
  readonly ended: Effect.Effect<Ended>
  /** It is gone. */
  readonly gone: Effect.Effect<void>
}

/** How to start a process. */
export interface StartOptions {
  /** Joins PATH, and replaces everything else. Default: no credentials file. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** A command and its arguments that runs it, such as strace. */
  readonly under?: ReadonlyArray<string>
}

/** Starts a program, as the leader of a process group that the scope's end kills. */
export const start = (file: string, args: ReadonlyArray<string>, options: StartOptions = {}): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<Ended>()
    const gone = yield* Deferred.make<void>()
    const [program = file, ...rest] = [...options.under ?? [], file, ...args]
    const { PATH, TMPDIR } = process.env
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(program, rest, {
          cwd: options.cwd, detached: true, stdio: ["ignore", "pipe", "pipe"],
          env: { PATH, TMPDIR, HOME: "/nonexistent", DOCKER_CONFIG: "/nonexistent", ...options.env }
        })
        let stdout = ""
        let stderr = ""
        child.stdout.setEncoding("utf8").on("data", (text: string) => { stdout += text })
        child.stderr.setEncoding("utf8").on("data", (text: string) => { stderr += text })
        child.on("error", (cause) => Deferred.doneUnsafe(ended, Effect.die(cause)))
        child.on("exit", () => Deferred.doneUnsafe(gone, Effect.void))
        child.on("close", (code, signal) => Deferred.doneUnsafe(ended, Effect.succeed({ code, signal, stdout, stderr })))
        return child
      }),
      ({ pid }) => Effect.sync(() => {
        try {
          if (pid !== undefined) process.kill(-pid, "SIGKILL")
        } catch {
          // It has ended.
        }
      })
    )
    return {
      pid: child.pid ?? 0,
      kill: (signal) => Effect.sync(() => { child.kill(signal) }),
      ended: Deferred.await(ended),
      gone: Deferred.await(gone)
    }
  })

/** Starts one of our commands, as a user does, on a fresh build. */
export const startCommand = (name: "pull" | "graph", args: ReadonlyArray<string>, options?: StartOptions): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.andThen(built, start(join(root, "bin", name), args, options))

/** Runs one of our commands to its end. */
export const command = (name: "pull" | "graph", args: ReadonlyArray<string>, options?: StartOptions): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(startCommand(name, args, options), ({ ended }) => ended))

/** Runs any program to its end. */
export const program = (file: string, args: ReadonlyArray<string>, options?: StartOptions): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(start(file, args, options), ({ ended }) => ended))
