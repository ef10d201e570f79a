import { Context, Effect, Layer, Option, Queue, Schema, type Scope } from "effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import { setTimeout as pause } from "node:timers/promises"
import { Budget, type Control, Gate } from "./Control.ts"
import { maxWindow } from "./inflate/Inflate.ts"
import type { Answers, Job, JobFault, Reply, Request, UnpackJob } from "./Job.ts"
import { Ring } from "./Ring.ts"

/** A layer that is refused: the rule it breaks, and the entry that breaks it if one does (rules.md). Nothing of it is kept. */
export class LayerRefused extends Schema.TaggedError<LayerRefused>()("LayerRefused", {
  layer: Schema.String,
  rule: Schema.String,
  entry: Schema.optionalKey(Schema.String),
  /** The limit that is in the way, if one is: `--limit` of commands, `LayerLimits` in programs. */
  limit: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const limit = this.limit === undefined ? "" : `; if you trust it, --limit ${this.limit}=VALUE allows more`
    return `layer ${this.layer} is refused: ${this.entry === undefined ? "" : `entry "${this.entry}": `}${this.rule}; nothing of it was kept${limit}`
  }
}

/** The system refused a call while a layer, or a root file system, was written. `code` is Node's, as in ENOSPC. */
export class SystemFault extends Schema.TaggedError<SystemFault>()("SystemFault", {
  code: Schema.String,
  syscall: Schema.String,
  path: Schema.String,
  detail: Schema.String
}) {
  override get message() { return this.detail }
}

/** A worker was stopped before its job was done; it says so only to those who stopped it by its control. */
export class JobStopped extends Schema.TaggedError<JobStopped>()("JobStopped", {}) {}

/** How many threads are started before there is work for them. */
const warmed = 2
/** How long a worker that was asked to stop may take before it is terminated: 500 ms. */
const patience = "500 millis"

const entry = new URL(import.meta.url.endsWith(".ts") ? "./worker.ts" : "./layer-worker.js", import.meta.url)

/** One thread and the job it has, if any. */
class Thread {
  private readonly gate = new Gate()
  private readonly worker: Worker
  private settle: ((reply: Reply | undefined) => void) | undefined
  private next = 0
  private gone = false
  /** Set once the thread has ended: it takes no more jobs. */
  dead = false

  /** `windows` is the thread's own share. */
  constructor(windows: Budget) {
    this.worker = new Worker(entry, { stdout: false, stderr: false, workerData: { gate: this.gate.buffer, budget: windows.buffer, share: windows.share } })
    this.worker.on("message", (reply: Reply) => this.answer(reply))
    this.worker.on("error", (error) => this.fail(error))
    this.worker.on("exit", () => {
      this.gone = true
      windows.hold(0)
      this.fail(new Error("the worker ended"))
    })
    this.worker.unref()
  }

  /** Gives it `job`; `done` gets the reply, or undefined when the thread was ended first. */
  start(job: Job, control: Control, done: (reply: Reply | undefined) => void): void {
    this.settle = done
    this.worker.ref()
    const request: Request = { id: ++this.next, job, control: control.buffer }
    this.worker.postMessage(request)
  }

  /** Ends the thread, unless it is loading native calls: then after that. The descriptors it opened are closed by Node. */
  async terminate(): Promise<void> {
    this.dead = true
    while (!this.gone && !this.gate.shut()) await pause(5)
    await this.worker.terminate()
  }

  private answer(reply: Reply): void {
    const settle = this.settle
    this.settle = undefined
    this.worker.unref()
    settle?.(reply)
  }

  private fail(error: unknown): void {
    this.dead = true
    if (this.settle === undefined) return
    const fault: JobFault = { kind: "bug", message: String(error), stack: error instanceof Error ? error.stack : undefined }
    this.answer({ id: this.next, ok: false, fault })
  }
}

const errorOf = (fault: JobFault, subject: string): Effect.Effect<never, LayerRefused | SystemFault | JobStopped> => {
  switch (fault.kind) {
    case "refused":
      return Effect.fail(new LayerRefused({ layer: subject, rule: fault.rule, ...(fault.entry === undefined ? {} : { entry: fault.entry }), ...(fault.limit === undefined ? {} : { limit: fault.limit }) }))
    case "system":
      return Effect.fail(new SystemFault({ code: fault.code, syscall: fault.syscall, path: fault.path, detail: fault.message }))
    case "stopped":
      return Effect.fail(new JobStopped())
    case "bug":
      return Effect.die(Object.assign(new Error(`in a layer worker: ${fault.message}`), fault.stack === undefined ? {} : { stack: fault.stack }))
  }
}

/** The pool of threads that unpack, merge and remove: min(available cores, 4), each started when first needed. */
export class Workers extends Context.Service<Workers, {
  /** How many jobs run at once. */
  readonly size: number
  /**
   * One more layer will be unpacked in this scope. While there are no more of them than half the threads, each has two: one
   * inflates and hashes, the other makes the files.
   */
  readonly expect: Effect.Effect<void, never, Scope.Scope>
  /** Starts two threads, so that the first jobs need not wait for one; each of the others costs 12 MiB and is started when it is needed. */
  readonly warm: Effect.Effect<void>
  /**
   * Runs one job when a thread is free; `subject` names it in errors. Interrupting it asks the thread to stop through
   * `control` and waits for its answer; a thread that gives none within 500 ms is terminated and replaced.
   */
  readonly run: <K extends Job["kind"]>(
    job: Extract<Job, { readonly kind: K }>, subject: string, control: Control
  ) => Effect.Effect<Answers[K], LayerRefused | SystemFault | JobStopped>
}>()("layer/Workers") {
  static readonly layer = Layer.effect(Workers, Effect.gen(function*() {
    const size = Math.min(availableParallelism(), 4)
    const free = yield* Queue.unbounded<Thread | undefined>()
    const threads = new Set<Thread>()
    const budget = new Budget(maxWindow)
    for (let n = 0; n < size; n++) yield* Queue.offer(free, undefined)
    yield* Effect.addFinalizer(() =>
      Effect.forEach(threads, (thread) => Effect.promise(() => thread.terminate()), { concurrency: "unbounded", discard: true }).pipe(Effect.ignore))
    const live = (thread: Thread | undefined) => Effect.sync(() => {
      if (thread !== undefined && !thread.dead) return thread
      if (thread !== undefined) threads.delete(thread)
      const fresh = new Thread(new Budget(budget.buffer))
      threads.add(fresh)
      return fresh
    })
    const perform = (thread: Thread, job: Job, control: Control) =>
      Effect.callback<Reply>((resume) => {
        let ended = false
        let answered: () => void = () => {}
        const answer = new Promise<void>((resolve) => { answered = resolve })
        thread.start(job, control, (reply) => {
          ended = true
          answered()
          if (reply !== undefined) resume(Effect.succeed(reply))
        })
        return Effect.suspend(() => {
          if (ended) return Effect.void
          control.stop()
          return Effect.promise(() => answer).pipe(
            Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.promise(() => thread.terminate()).pipe(Effect.asVoid) })
          )
        })
      })
    let expected = 0
    /** A second thread, if one has nothing to do and nobody is going to want it. */
    const spare = Effect.suspend(() => expected === 0 || expected * 2 > size
      ? Effect.succeedNone
      : Effect.flatMap(Queue.poll(free), Option.match({ onNone: () => Effect.succeedNone, onSome: (thread) => Effect.asSome(live(thread)) })))
    /** Rings that no pair uses: memory that threads share is long in being given back. */
    const rings: Array<Ring> = []
    const pair = Effect.fnUntraced(function*(first: Thread, second: Thread, job: UnpackJob, control: Control) {
      const ring = rings.pop() ?? new Ring()
      // Whoever is left waits for nobody: also where a thread died.
      const half = (thread: Thread, job: Job) => Effect.tap(perform(thread, job, control), (reply) => Effect.sync(() => { if (!reply.ok) ring.break() }))
      const [made, pumped] = yield* Effect.all([
        half(first, { ...job, ring: ring.buffer }),
        half(second, { kind: "pump", fd: job.fd, size: job.size, diffId: job.diffId, native: job.native, ring: ring.buffer, ...(job.limits === undefined ? {} : { limits: job.limits }) })
      ], { concurrency: 2 })
      ring.reset()
      rings.push(ring)
      const told = made.ok || made.fault.kind !== "stopped"
      return told || pumped.ok ? made : pumped
    })
    const work = (thread: Thread, job: Job, control: Control): Effect.Effect<Reply> => job.kind !== "unpack" ? perform(thread, job, control) : Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(spare, Option.match({
        onNone: () => restore(perform(thread, job, control)),
        onSome: (second) => restore(pair(thread, second, job, control)).pipe(Effect.ensuring(Queue.offer(free, second)))
      })))
    return Workers.of({
      size,
      expect: Effect.acquireRelease(Effect.sync(() => { expected++ }), () => Effect.sync(() => { expected-- })),
      warm: Effect.gen(function*() {
        const idle = yield* Queue.clear(free)
        for (const [at, thread] of idle.entries()) yield* Queue.offer(free, at < warmed ? yield* live(thread) : thread)
      }).pipe(Effect.uninterruptible),
      run: <K extends Job["kind"]>(job: Extract<Job, { readonly kind: K }>, subject: string, control: Control) =>
        Effect.uninterruptibleMask((restore) =>
          restore(Queue.take(free)).pipe(Effect.flatMap(live), Effect.flatMap((thread) =>
            restore(work(thread, job, control)).pipe(Effect.ensuring(Queue.offer(free, thread)))))
        ).pipe(Effect.flatMap((reply) => reply.ok ? Effect.succeed(reply.answer as Answers[K]) : errorOf(reply.fault, subject)))
    })
  }))
}
