import { Clock, Effect, Schedule, Schema, type Scope } from "effect"
import { randomUUID } from "node:crypto"
import { readFileSync, readlinkSync } from "node:fs"
import type { StoreError } from "./Disk.ts"
import type { Database } from "./Sqlite.ts"

/** Who has something in the store: `started` is the process's start in clock ticks since boot, `beat` milliseconds since 1970. */
export const OwnerRow = Schema.Struct({
  token: Schema.String, pid: Schema.Int, started: Schema.String, boot: Schema.String, namespace: Schema.String, beat: Schema.Int
})

/** A row of `owners`. */
export type OwnerRow = typeof OwnerRow.Type

/** How long an owner that cannot be looked at may be silent, in milliseconds. */
export const expiry = 15_000

const heartbeat = "2 seconds"

const tryRead = (read: () => string) => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** State letter and start time of a process, from /proc; undefined if there is none, or no /proc. */
const processOf = (pid: number | "self") => {
  const stat = tryRead(() => readFileSync(`/proc/${pid}/stat`, "latin1"))
  if (stat === undefined) return undefined
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ") // the name before may hold anything
  return { state: fields[0] ?? "", started: fields[19] ?? "" }
}

/** This process, as an owner of its own token. Without /proc the fields that need it are empty. */
export const identify = (beat: number): OwnerRow => ({
  token: randomUUID(),
  pid: process.pid,
  started: processOf("self")?.started ?? "",
  boot: tryRead(() => readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()) ?? "",
  namespace: tryRead(() => readlinkSync("/proc/self/ns/pid")) ?? "",
  beat
})

const exists = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH")
  }
}

/**
 * What is known of another owner, seen by `self` at `now` (milliseconds since 1970): `gone` if its process provably ended
 * (same boot and PID namespace), `expired` if it cannot be looked at, or is stopped, and was silent for 15 s; then it may
 * still be there.
 * Another opening in this very process is judged by its silence: one that could not take its row away is not waited for.
 */
export const judge = (owner: OwnerRow, self: OwnerRow, now: number): "alive" | "gone" | "expired" => {
  const silent = Math.abs(now - owner.beat) > expiry // a beat from the future: the clock was set back
  if (owner.boot !== self.boot || owner.namespace !== self.namespace) return silent ? "expired" : "alive"
  if (self.started === "") return exists(owner.pid) ? silent ? "expired" : "alive" : "gone"
  if (owner.pid === self.pid && owner.started === self.started) return silent ? "expired" : "alive"
  const found = processOf(owner.pid)
  if (found === undefined || found.started !== owner.started || found.state === "Z" || found.state === "X") return "gone"
  // Stopped, by Ctrl-Z or a debugger: it may wake up, but nobody should wait for that.
  return silent && (found.state === "T" || found.state === "t") ? "expired" : "alive"
}

/** This opening of the store as an owner. Its row is there from the first `enter` until the scope closes. */
export interface Owner {
  readonly self: OwnerRow
  /** Makes sure the row is there; to be run inside the transaction that uses the token. */
  readonly enter: Effect.Effect<void, StoreError>
  /** Takes the rows of dead owners away: what they had is void, their leases end. Gives whether there were any. */
  readonly bury: Effect.Effect<boolean, StoreError>
}

/** An owner that beats every 2 s while its scope is open. Closing leaves what it still has void. */
export const make = Effect.fnUntraced(function*(db: Database): Effect.fn.Return<Owner, never, Scope.Scope> {
  const { sql } = db
  const self = identify(yield* Clock.currentTimeMillis)
  let entered = false
  const enter = Effect.gen(function*() {
    entered = true
    const { token, pid, started, boot, namespace } = self
    const beat = yield* Clock.currentTimeMillis
    yield* db.run(sql`INSERT INTO owners ${sql.insert({ token, pid, started, boot, namespace, beat })}
      ON CONFLICT (token) DO UPDATE SET beat = excluded.beat`)
  })
  const leave = db.run(sql`DELETE FROM owners WHERE token = ${self.token}`)
  // If it cannot leave now, the end of the process says the same.
  yield* Effect.addFinalizer(() => Effect.suspend(() =>
    entered ? leave.pipe(Effect.interruptible, Effect.timeout("500 millis"), Effect.ignore) : Effect.void
  ))
  yield* Effect.suspend(() => entered ? Effect.ignore(enter) : Effect.void).pipe(
    Effect.repeat(Schedule.spaced(heartbeat)), Effect.forkScoped
  )
  const others = sql`SELECT token, pid, started, boot, namespace, beat FROM owners WHERE token <> ${self.token}`
  const dead = Effect.gen(function*() {
    const rows = yield* db.rows(OwnerRow, others)
    const now = yield* Clock.currentTimeMillis
    return rows.map((row) => ({ token: row.token, verdict: judge(row, self, now) })).filter(({ verdict }) => verdict !== "alive")
  })
  const bury = Effect.gen(function*() {
    if ((yield* dead).length === 0) return false
    yield* db.transaction(Effect.gen(function*() {
      for (const { token, verdict } of yield* dead) {
        if (verdict === "expired") yield* db.run(sql`UPDATE ingests SET doubtful = 1 WHERE owner = ${token}`)
        yield* db.run(sql`DELETE FROM owners WHERE token = ${token}`)
      }
    }))
    return true
  })
  return { self, enter, bury }
})
