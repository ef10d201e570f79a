import { createHash } from "node:crypto"
import { lstatSync, mkdirSync } from "node:fs"
import { parentPort, workerData } from "node:worker_threads"
import { Apply } from "./apply/Apply.ts"
import { Budget, Control, Gate, Stopped } from "./Control.ts"
import { Refused } from "./Fault.ts"
import { MetaDamaged } from "./apply/Meta.ts"
import { defaultLimits, noLimits } from "./Limits.ts"
import type { Sink } from "./inflate/Decoder.ts"
import { inflater } from "./inflate/Inflate.ts"
import { windowed } from "./inflate/Windowed.ts"
import type { Answers, CompareJob, FindJob, HashJob, InflateJob, Job, ListJob, MergeJob, PumpJob, RemoveJob, Reply, Request, Unpacked, UnpackJob, VerifyJob } from "./Job.ts"
import { faultOf } from "./JobFaults.ts"
import { flatten } from "./merge/Flatten.ts"
import { merge } from "./merge/Merge.ts"
import { removeTree } from "./tree/Remove.ts"
import * as Piece from "./Piece.ts"
import { Ring } from "./Ring.ts"
import * as Comparison from "./sums/Comparison.ts"
import * as Record from "./sums/Record.ts"
import * as Sums from "./sums/Sums.ts"
import * as Syscalls from "./Syscalls.ts"
import { show } from "./Unpacked.ts"
import { Room } from "./table/Table.ts"
import { NameWriter, NoFile } from "./view/NameList.ts"
import { View } from "./view/View.ts"
import { TarReader } from "./tar/Tar.ts"

/** What the pool shares with its threads. */
interface Shared {
  readonly gate: SharedArrayBuffer
  readonly budget: SharedArrayBuffer
  readonly share: SharedArrayBuffer
}
const shared: Shared = workerData
const gate = new Gate(shared.gate)
const budget = new Budget(shared.budget, shared.share)
const loaded = new Map<boolean, Syscalls.Syscalls>()

/** The calls, loaded once a thread. */
const syscalls = (native: boolean): Syscalls.Syscalls => {
  const calls = loaded.get(native) ?? gate.through(() => Syscalls.load({ native }))
  loaded.set(native, calls)
  return calls
}

/** An inflater that waits for the memory of its windows. */
const inflating = (sink: Sink, native: boolean, stop: () => void, window?: number) => inflater(...windowed(sink, {
  native, hold: (bytes) => budget.hold(bytes, stop), trim: () => syscalls(native).trim(), ...window !== undefined && { maxWindow: window }
}))

const stopOf = (control: Control) => () => {
  if (control.stopped) throw new Stopped()
}

const checkDiffId = (diffId: string, wanted: string): void => {
  if (diffId !== wanted) throw new Refused(`the uncompressed layer has the digest ${diffId}, its image's config says ${wanted}`)
}

/** Follows the file of a layer and gives what it inflates to `take`, piece by piece; its diff ID, which is not checked yet. */
const inflated = async (job: UnpackJob | PumpJob, control: Control, take: (bytes: Uint8Array) => void): Promise<string> => {
  const stop = stopOf(control)
  const algorithm = job.diffId?.startsWith("sha512:") ? "sha512" : "sha256"
  const hash = createHash(algorithm)
  const { freely, ratio, window } = job.limits ?? defaultLimits
  let [taken, given] = [0, 0]
  const inflate = inflating((bytes) => {
    stop()
    given += bytes.byteLength
    if (given > freely && given > taken * ratio) throw new Refused(`the layer inflates to more than ${ratio} times its size: ${taken} bytes became ${given}`, undefined, "ratio")
    hash.update(bytes)
    take(bytes)
  }, job.native, stop, window)
  try {
    for (let at = 0; at < job.size;) {
      const available = control.waitBeyond(at)
      stop()
      const read = Piece.read(job.fd, available - at, at)
      if (read === 0) throw new Error(`the file ended at ${at} of ${job.size} bytes`)
      taken = at += read
      await inflate.write(Piece.bytes.subarray(0, read))
      control.consume(at)
    }
    await inflate.end()
  } finally {
    inflate.close()
    budget.hold(0)
  }
  return `${algorithm}:${hash.digest("hex")}`
}

const unpack = async (job: UnpackJob, control: Control): Promise<Unpacked> => {
  const stop = stopOf(control)
  const fs = `${job.folder}/fs`
  mkdirSync(fs, { mode: 0o700 })
  const apply = new Apply(fs, `${job.folder}/meta`, {
    syscalls: syscalls(job.native), stop,
    // An image that names no diff IDs is one of Docker's old graph.
    confined: job.diffId === undefined
  })
  try {
    const tar = new TarReader(apply, job.limits ?? defaultLimits)
    const take = (bytes: Uint8Array) => tar.write(bytes)
    const diffId = job.ring === undefined ? await inflated(job, control, take) : new Ring(job.ring).read(take, stop)
    tar.end()
    if (job.diffId !== undefined) checkDiffId(diffId, job.diffId)
    const { unset } = apply.finish()
    return { diffId, entries: tar.entries, size: tar.size, unset }
  } catch (error) {
    apply.abort()
    throw error
  }
}

const pump = async (job: PumpJob, control: Control): Promise<Answers["pump"]> => {
  const ring = new Ring(job.ring)
  const stop = stopOf(control)
  ring.end(await inflated(job, control, (bytes) => ring.write(bytes, stop)))
  return { pumped: true }
}

const assemble = (job: MergeJob, control: Control): Answers["merge"] => {
  const { hold, into, link, owners } = job
  const calls = syscalls(job.native)
  const stop = stopOf(control)
  const { unset } = merge(job.root, job.layers, {
    link, hold, owners, syscalls: calls, stop, inspect: into === undefined ? undefined : (assembly) => flatten(assembly, into, { syscalls: calls, owners, stop })
  })
  return { unset }
}

const remove = (job: RemoveJob, control: Control): Answers["remove"] => {
  removeTree(job.path, { stop: stopOf(control) })
  return { removed: true }
}

/** Compares the layer in a folder with what it should be; a journal that cannot be read is a difference. */
const against = (layer: string, should: Generator<Sums.Sum>, options: Sums.SumsOptions): Comparison.Comparison => {
  try {
    return Comparison.compare(should, Sums.of(layer, { ...options, unreadable: true }), { attributes: options.syscalls.native })
  } catch (error) {
    if (!(error instanceof MetaDamaged) || !error.file.startsWith(layer)) throw error
    return { count: 1, differences: [{ path: `line ${error.line}`, what: "journal" }], unread: 0 }
  } finally {
    should.return(undefined)
  }
}

const compare = async (job: CompareJob, control: Control): Promise<Answers["compare"]> => {
  const { diffId, entries, size } = await unpack({ ...job, kind: "unpack" }, control)
  const options = { syscalls: syscalls(job.native), stop: stopOf(control) }
  const record = job.record === undefined ? undefined : new Record.Record(job.record, { diffId, size, entries })
  try {
    const made = Sums.of(job.folder, options)
    const found = against(job.layer, record === undefined ? made : record.while(made), options)
    return { entries, size, ...found, recorded: found.count === 0 && found.unread === 0 ? record?.commit() : undefined }
  } finally {
    record?.close()
  }
}

const verify = (job: VerifyJob, control: Control): Answers["verify"] => {
  const options = { syscalls: syscalls(job.native), stop: stopOf(control) }
  if (lstatSync(job.sums, { throwIfNoEntry: false })?.isFile() !== true || Record.hashOf(job.sums, options.stop) !== job.hash) return undefined
  const { facts: { entries, size }, sums } = Record.open(job.sums)
  return { entries, size, ...against(job.layer, sums, options) }
}

/** What the names of a root file system may take in memory. */
const viewRoom = 4 * 2 ** 20

/** Gives the layers' root file system to `use`; with `hash` the digests of files are known. */
const view = async <A>(job: ListJob | FindJob, hash: boolean, control: Control, use: (view: View, room: Room) => A): Promise<A> => {
  const stop = stopOf(control)
  const room = new Room(job.scratch, viewRoom)
  const made = new View(room, { hash })
  try {
    for (const layer of job.layers) {
      if ("folder" in layer) {
        show(made, layer.folder, { syscalls: syscalls(job.native), stop, contents: hash, room })
        continue
      }
      const { fd, size } = layer
      made.begin()
      const tar = new TarReader(made, noLimits)
      const inflate = inflating((bytes) => {
        stop()
        tar.write(bytes)
      }, job.native, stop)
      try {
        for (let at = 0; at < size;) {
          const read = Piece.read(fd, size - at, at)
          if (read === 0) throw new Refused(`a layer's file ended at ${at} of ${size} bytes`)
          at += read
          await inflate.write(Piece.bytes.subarray(0, read))
        }
        await inflate.end()
      } finally {
        inflate.close()
        budget.hold(0)
      }
      tar.end()
      made.finish()
    }
    return use(made, room)
  } finally {
    made.close()
  }
}

const list = (job: ListJob, control: Control): Promise<Answers["list"]> => view(job, job.hash, control, (view, room) => {
  const names = new NameWriter(job.into, new Room(room.folder, viewRoom / 4), job.under)
  try {
    for (const named of view.names(stopOf(control))) names.add(named)
    return names.end()
  } catch (error) {
    if (error instanceof NoFile) return undefined
    throw error
  } finally {
    names.close()
  }
})

const find = (job: FindJob, control: Control): Promise<Answers["find"]> =>
  view(job, false, control, (view) => ({ entry: view.lookUp(job.path) }))

const hash = (job: HashJob, control: Control): Answers["hash"] => {
  const stop = stopOf(control)
  const hash = createHash(job.algorithm)
  for (let at = 0; at < job.size;) {
    stop()
    const read = Piece.read(job.fd, job.size - at, at)
    if (read === 0) break
    hash.update(Piece.bytes.subarray(0, read))
    at += read
    control.consume(at)
  }
  return { hex: hash.digest("hex") }
}

/** Bytes that may follow an archive's end marker, which writers pad to their record size. */
const tailCap = 16 * 1024 * 1024

const inflateArchive = async (job: InflateJob, control: Control): Promise<Answers["inflate"]> => {
  const stop = stopOf(control)
  let size = 0
  let tail = 0
  // What is no archive, and what inflates without end after one, is noticed here and not when the disk is full.
  const tar = new TarReader({ entry: () => {}, data: () => {}, end: () => {} })
  const algorithm = job.diffId?.startsWith("sha512:") ? "sha512" : "sha256"
  const hash = createHash(algorithm)
  const inflate = inflating((bytes) => {
    stop()
    if (tar.ended) tail += bytes.byteLength
    if (tail > tailCap && job.diffId === undefined) throw new Refused(`more than ${tailCap} bytes follow the end of the archive`)
    if (size + bytes.byteLength > job.limit) throw new Refused(`it inflates to more than ${job.limit} bytes`, undefined, "size")
    tar.write(bytes)
    if (job.diffId !== undefined) hash.update(bytes)
    if (job.into !== undefined) Piece.write(job.into, bytes, size)
    size += bytes.byteLength
  }, job.native, stop)
  try {
    for (let at = 0; at < job.size;) {
      stop()
      const read = Piece.read(job.fd, job.size - at, at)
      if (read === 0) throw new Refused(`the file ended at ${at} of ${job.size} bytes`)
      at += read
      await inflate.write(Piece.bytes.subarray(0, read))
      control.consume(at)
    }
    await inflate.end()
    tar.end()
  } finally {
    inflate.close()
    budget.hold(0)
  }
  if (job.diffId !== undefined) checkDiffId(`${algorithm}:${hash.digest("hex")}`, job.diffId)
  return { size }
}

const perform = (job: Job, control: Control): Answers[Job["kind"]] | Promise<Answers[Job["kind"]]> => {
  switch (job.kind) {
    case "unpack": return unpack(job, control)
    case "pump": return pump(job, control)
    case "merge": return assemble(job, control)
    case "remove": return remove(job, control)
    case "compare": return compare(job, control)
    case "verify": return verify(job, control)
    case "hash": return hash(job, control)
    case "list": return list(job, control)
    case "find": return find(job, control)
    case "inflate": return inflateArchive(job, control)
  }
}

const port = parentPort
if (port === null) throw new Error("the layer worker is not started by hand")
port.on("message", async ({ id, job, control }: Request) => {
  let reply: Reply
  try {
    reply = { id, ok: true, answer: await perform(job, new Control(control)) }
  } catch (error) {
    reply = { id, ok: false, fault: faultOf(error, job) }
  }
  port.postMessage(reply)
})
