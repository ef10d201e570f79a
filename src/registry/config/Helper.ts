import { Context, Duration, Effect, Option, Redacted, Schema } from "effect"
import { spawn } from "node:child_process"
import { printable } from "../../image/Printable.ts"
import { HelperError } from "../Errors.ts"
import type { Found } from "./AuthFile.ts"

/** How long a credential helper may take: 10 s. */
export const Patience = Context.Reference<Duration.Input>("registry/HelperPatience", { defaultValue: () => "10 seconds" })

/** What a helper may write, in bytes. */
const cap = 1 << 16

const Answer = Schema.fromJsonString(Schema.Struct({ Username: Schema.String, Secret: Schema.String }))

interface Ended { readonly code: number | null; readonly signal: string | null; readonly out: string; readonly long: boolean }

/** Runs `docker-credential-NAME get`, which is told `host`; it goes with the fiber, and what it started with it. */
const run = (program: string, host: string, path: string | undefined): Effect.Effect<Ended, NodeJS.ErrnoException> =>
  Effect.callback((resume) => {
    // A group of its own, so that a script's children end with it; what it writes to stderr is not for our user.
    const child = spawn(program, ["get"], {
      detached: true, stdio: ["pipe", "pipe", "ignore"], env: { ...process.env, ...path !== undefined && { PATH: path } }
    })
    const end = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
      } catch {
        // It has ended.
      }
    }
    let out = ""
    let long = false
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text
      if (out.length <= cap) return
      long = true
      end()
    })
    child.stdin.on("error", () => {}) // it need not read
    child.stdin.end(`${host}\n`)
    child.on("error", (error) => resume(Effect.fail(error)))
    const ended = (code: number | null, signal: string | null) => resume(Effect.sync(() => ({ code, signal, out, long })))
    child.on("close", ended)
    // An agent that it left behind may hold its pipe.
    child.on("exit", (code, signal) => setTimeout(ended, 300, code, signal).unref())
    return Effect.sync(end)
  })

/** Words of helpers that have nothing for a host (docker-credential-helpers, credentials/error.go), and of others. */
const nothing = /credentials not found|no credentials|not found in (?:native )?keychain|specified item could not be found/i

/**
 * What the helper `name` (`docker-credential-NAME`, from PATH) has for `host`: docker-credential-helpers' protocol. `from` says which
 * configuration names it. The user `<token>` means an identity token.
 */
export const get = Effect.fnUntraced(function*(name: string, host: string, from: string, searched: string | undefined) {
  const program = `docker-credential-${name}`
  const fail = (problem: string) => new HelperError({ helper: printable(program), from, host, problem })
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return yield* fail("this is no name of a helper")
  const patience = yield* Patience
  const ended = yield* run(program, host, searched).pipe(
    Effect.catch((error) => Effect.fail(fail(error.code === "ENOENT" ? "it is not in PATH" : `it cannot be run (${error.code ?? error.message})`))),
    Effect.timeoutOrElse({
      duration: patience, orElse: () => Effect.fail(fail(`it did not answer in ${Duration.format(Duration.fromInputUnsafe(patience))}`))
    }))
  if (ended.long) return yield* fail(`it wrote more than ${cap} bytes`)
  if (ended.code !== 0) {
    if (nothing.test(ended.out)) return Option.none<Found>()
    const said = printable(ended.out.trim().split("\n")[0] ?? "", 120)
    // What is JSON may hold a secret.
    return yield* fail(`it ended with ${ended.signal ?? `exit code ${ended.code}`}${said === "" || said.includes("{") ? "" : `: ${said}`}`)
  }
  const answer = yield* Schema.decodeUnknownEffect(Answer)(ended.out).pipe(
    Effect.mapError(() => fail("what it wrote is not JSON with a Username and a Secret")))
  const source = `${program} (${from})`
  if (answer.Username === "" && answer.Secret === "") return Option.none<Found>()
  return Option.some<Found>(answer.Username === "<token>"
    ? { username: "", password: Redacted.make(""), identityToken: Redacted.make(answer.Secret), source }
    : { username: answer.Username, password: Redacted.make(answer.Secret), source })
})
