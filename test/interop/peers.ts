/** The real tools these tests run against, a folder to use them in, and the real command. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { accessSync, constants, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The project. */
export const root = join(import.meta.dirname, "..", "..")

const searched = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`
const there = (peer: string): boolean => peer === "root" ? process.getuid?.() === 0 : searched.split(":").some((folder) => {
  try {
    accessSync(join(folder, peer), constants.X_OK)
    return true
  } catch {
    return false
  }
})

/**
 * A suite that needs these commands (and `root`: to be it). Without one it is skipped under a name that says which, and
 * fails where TOWLINE_INTEROP=required.
 */
export const withPeers = (title: string, peers: ReadonlyArray<string>, body: () => void): void => {
  const missing = peers.filter((peer) => !there(peer))
  const name = missing.length === 0 ? title : `${title} (not here: ${missing.join(", ")})`
  if (missing.length === 0) describe(name, body)
  else if (process.env["TOWLINE_INTEROP"] === "required") describe(name, () => { it("has its peers", () => assert.fail(`install ${missing.join(", ")}`)) })
  else describe.skip(name, body)
}

/** How a command ended. */
export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  /** The most memory it was seen to hold, in bytes, where that was asked for. */
  readonly peak: number
}

/** What a command is given. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly measure?: boolean
}

const peakOf = (pid: number): number => {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

/** Runs a command to its end with the environment `env` alone; interrupted, it is ended. */
const run = (command: string, args: ReadonlyArray<string>, options: RunOptions & { readonly env: Readonly<Record<string, string>> }) =>
  Effect.callback<Ran>((resume) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: options.env, cwd: options.cwd ?? root })
    let stdout = ""
    let stderr = ""
    let peak = 0
    child.stdout.on("data", (chunk: Buffer) => { stdout += String(chunk) })
    child.stderr.on("data", (chunk: Buffer) => { stderr += String(chunk) })
    const meter = setInterval(() => { if (options.measure === true) peak = Math.max(peak, peakOf(child.pid ?? 0)) }, 20)
    child.on("error", (error) => { clearInterval(meter); resume(Effect.die(error)) })
    child.on("close", (code) => { clearInterval(meter); resume(Effect.succeed({ code: code ?? 255, stdout, stderr, peak })) })
    return Effect.sync(() => { clearInterval(meter); child.kill("SIGKILL") })
  })

/** A folder of its own, and commands that keep what they write in it. */
export class Lab {
  /** Lower case: buildah takes no other. Everyone may enter it. */
  readonly folder: string
  /** What commands find in their environment. Docker's config folder is `config`. */
  readonly env: Readonly<Record<string, string>>

  constructor(folder: string) {
    this.folder = folder
    for (const name of ["home", "tmp", "config"]) mkdirSync(join(folder, name))
    this.env = {
      PATH: searched, LANG: "C.UTF-8", HOME: this.path("home"), XDG_RUNTIME_DIR: this.path("home"), TMPDIR: this.path("tmp"),
      DOCKER_CONFIG: this.path("config"), TOWLINE_STORE: this.path("store")
    }
    this.login({})
  }

  path(...names: ReadonlyArray<string>): string { return join(this.folder, ...names) }

  /** Runs a command, whatever comes of it. */
  run(command: string, args: ReadonlyArray<string>, options: RunOptions = {}): Effect.Effect<Ran> {
    return run(command, args, { ...options, env: { ...this.env, ...options.env } })
  }

  /** What a command printed that has to succeed. */
  must(command: string, args: ReadonlyArray<string>, options?: RunOptions): Effect.Effect<string> {
    return Effect.map(this.run(command, args, options), ({ code, stderr, stdout }) => {
      assert.strictEqual(code, 0, `${command} ${args.join(" ")}\n${stderr}${stdout}`)
      return stdout.trim()
    })
  }

  /** Runs bin/pull. */
  pull(...args: ReadonlyArray<string>): Effect.Effect<Ran> { return this.run(join(root, "bin", "pull"), args) }

  /** Runs bin/pull, which has to succeed, and looks at the store it used. */
  pulled(...args: ReadonlyArray<string>): Effect.Effect<string> {
    return Effect.tap(this.must(join(root, "bin", "pull"), args), () => this.sound())
  }

  /** The store is sound and holds nothing half-made. */
  sound(store = this.path("store")): Effect.Effect<void> {
    return Effect.map(this.must(join(root, "bin", "graph"), ["check", "--json", "--store", store]), (found) => {
      assert.strictEqual(found, "[]")
      assert.deepStrictEqual(readdirSync(join(store, "ingest")), [])
    })
  }

  /**
   * skopeo copy between loopback registries and layouts, with the credentials of Docker's config. Without options nothing
   * changes: else skopeo may take another compression of a layer for the layer.
   */
  copy(from: string, to: string, ...options: ReadonlyArray<string>): Effect.Effect<string> {
    return this.must("skopeo", ["copy", "-q", ...(options.length === 0 ? ["--preserve-digests"] : options), "--src-tls-verify=false", "--dest-tls-verify=false", "--authfile", this.path("config", "config.json"), from, to])
  }

  /** Makes `user:password` of hosts, and only these, known to Docker's config. */
  login(users: Readonly<Record<string, string>>): void {
    const auths = Object.entries(users).map(([host, user]) => [host, { auth: Buffer.from(user).toString("base64") }])
    writeFileSync(this.path("config", "config.json"), JSON.stringify({ auths: Object.fromEntries(auths) }), { mode: 0o600 })
  }
}

let labs = 0

/** A lab that goes with the scope. dist/ is up to date when it is there. */
export const lab: Effect.Effect<Lab, never, Scope.Scope> = Effect.suspend(() => Effect.andThen(built, Effect.acquireRelease(
  Effect.sync(() => {
    const folder = join(tmpdir(), `towline-interop-${process.pid}-${labs++}`)
    mkdirSync(folder, { mode: 0o755 })
    return new Lab(folder)
  }),
  ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true })))))

/** A registry that is running. */
export interface Registry {
  /** 127.0.0.1:PORT */
  readonly host: string
  /** Lines of the access log so far that say GET or HEAD: `GET /v2/… 200`. */
  readonly requests: () => ReadonlyArray<string>
}

/** Debian's docker-registry on a free loopback port, with its files in `lab`, until the scope closes. Users make it ask for a password. */
export const dockerRegistry = Effect.fnUntraced(function*(lab: Lab, users?: Readonly<Record<string, string>>) {
  const folder = mkdtempSync(lab.path("registry-"))
  const config: Array<string> = [
    "version: 0.1", "log: {level: info}", `storage: {filesystem: {rootdirectory: ${folder}/data}}`,
    "http: {addr: '127.0.0.1:0', secret: lab}"
  ]
  if (users !== undefined) {
    const lines = yield* Effect.forEach(Object.entries(users), ([user, password]) => lab.must("htpasswd", ["-Bbn", user, password]))
    writeFileSync(join(folder, "htpasswd"), `${lines.join("\n")}\n`)
    config.push(`auth: {htpasswd: {realm: lab, path: ${folder}/htpasswd}}`)
  }
  writeFileSync(join(folder, "config.yml"), config.join("\n"))
  let log = ""
  const start = Effect.callback<{ readonly host: string; readonly end: () => void }>((resume) => {
    const child = spawn("docker-registry", ["serve", join(folder, "config.yml")], { stdio: ["ignore", "pipe", "pipe"], env: lab.env })
    const read = (chunk: Buffer) => {
      log += String(chunk)
      const host = /listening on (127\.0\.0\.1:\d+)/.exec(log)?.[1]
      if (host !== undefined) resume(Effect.succeed({ host, end: () => child.kill("SIGKILL") }))
    }
    child.stdout.on("data", read)
    child.stderr.on("data", read)
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("close", () => resume(Effect.die(new Error(`docker-registry ended: ${log}`))))
  })
  const { host } = yield* Effect.acquireRelease(start, ({ end }) => Effect.sync(end))
  return {
    host,
    requests: () => [...log.matchAll(/"((?:GET|HEAD) \/v2\/[^ "]*) HTTP\/1\.1" (\d+)/g)].map(([, request, status]) => `${request} ${status}`)
  } satisfies Registry
})

const cache = join(root, "node_modules", ".cache", "towline")

/** Whether dist/ is absent, or older than a file of src/, as bin/launch.sh sees it. */
const stale = (): boolean => {
  const time = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
  const oldest = Math.min(...["pull.js", "graph.js", "layer-worker.js"].map((name) => time(join(root, "dist", name))))
  return readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).some((name) => name.endsWith(".ts") && time(join(root, "src", name)) > oldest)
}

/** Builds dist/ if it has to be; test files that run beside each other build it once. */
const built: Effect.Effect<void> = Effect.gen(function*() {
  const lock = join(cache, "build.lock")
  const claim = Effect.sync(() => {
    mkdirSync(cache, { recursive: true })
    try {
      mkdirSync(lock)
      return true
    } catch {
      // Whoever held it longer than a build takes is gone.
      if (Date.now() - (statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Infinity) > 60_000) rmdirSync(lock)
      return false
    }
  })
  while (stale()) {
    if (!(yield* claim)) yield* Effect.sleep("100 millis")
    else yield* run(process.execPath, [join(root, "scripts", "build.ts")], { env: { PATH: searched, HOME: process.env["HOME"] ?? "/" } }).pipe(
      Effect.map(({ code, stderr }) => assert.strictEqual(code, 0, stderr)), Effect.ensuring(Effect.sync(() => rmdirSync(lock))))
  }
})

/**
 * A Debian userland as mmdebstrap makes it: a tar of a merged /usr with coreutils, dash and passwd. Made once a week, since
 * it is the one thing here that needs Debian's mirror.
 */
export const debian = Effect.fnUntraced(function*(lab: Lab) {
  const tar = join(cache, "debian.tar")
  if (Date.now() - (statSync(tar, { throwIfNoEntry: false })?.mtimeMs ?? 0) > 7 * 86_400_000) {
    mkdirSync(cache, { recursive: true })
    const hooks = "/usr/share/mmdebstrap/hooks/merged-usr"
    yield* lab.must("mmdebstrap", ["--variant=extract", "--mode=root", "--format=tar", `--hook-dir=${hooks}`, "--include=base-files,dash,coreutils,libc-bin,passwd,login", "bookworm", `${tar}.part`])
    yield* lab.must("mv", ["-T", `${tar}.part`, tar])
  }
  return tar
})

