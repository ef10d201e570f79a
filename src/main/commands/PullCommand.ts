import { Effect, Fiber, Layer, Option, Result, Semaphore } from "effect"
import type { FileSystem } from "effect"
import { Concurrency } from "../../Download.ts"
import * as OciLayout from "../../OciLayout.ts"
import * as Platform from "../../image/Platform.ts"
import * as Reference from "../../image/Reference.ts"
import { Hub } from "../../progress/Hub.ts"
import { keyOf, type PullEvent } from "../../progress/PullEvent.ts"
import * as Policy from "../../Policy.ts"
import * as Pull from "../../Pull.ts"
import * as Jws from "../../registry/Jws.ts"
import { statusOf } from "../../registry/Errors.ts"
import type { Link } from "../../RootFs.ts"
import * as RootTar from "../../RootTar.ts"
import * as Save from "../../Save.ts"
import { NoFileSystem } from "../../StoreImages.ts"
import * as Tags from "../../Tags.ts"
import * as Towline from "../../Towline.ts"
import * as Cli from "../Cli.ts"
import { keys } from "../Keys.ts"
import * as Limits from "../Limits.ts"
import * as Network from "../Network.ts"
import type { NetworkFlags } from "../NetworkFlags.ts"
import * as Progress from "../Progress.ts"
import { type MapFlags, owners, sendable } from "../RootFsFlags.ts"
import * as Run from "../Run.ts"

/** What the command line of `pull` says. */
export interface PullFlags extends MapFlags, NetworkFlags {
  readonly references: ReadonlyArray<string>
  readonly store: string
  readonly allTags: boolean
  readonly trustKeys: ReadonlyArray<string>
  readonly docker19: boolean
  readonly platform: Option.Option<string>
  readonly jobs: number
  readonly rootfs: Option.Option<string>
  readonly unpack: Option.Option<boolean>
  readonly link: Link
  readonly limits: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  readonly durability: "safe" | "fast"
  readonly progress: Progress.Kind
  readonly quiet: boolean
  readonly json: boolean
}

/** Where else images go: into layouts one by one, into archives all at once. */
interface Outputs {
  readonly layouts: ReadonlyArray<string>
  readonly archives: ReadonlyArray<{ readonly format: Save.Format; readonly file: string }>
  /** Files for the root file system as a tar archive; `-` is stdout. */
  readonly roots: ReadonlyArray<string>
}

const outputsOf = Effect.fnUntraced(function*(flags: PullFlags): Effect.fn.Return<Outputs, Cli.UsageError> {
  const layouts: Array<string> = []
  const archives: Array<Outputs["archives"][number]> = []
  const roots: Array<string> = []
  for (const output of flags.outputs) {
    const [, kind, path] = /^(oci|oci-archive|docker-archive|tar):(.+)$/s.exec(output) ?? []
    if (path === undefined) return yield* new Cli.UsageError({ problem: `--output ${output} is not of the form oci:DIR, oci-archive:FILE, docker-archive:FILE or tar:FILE` })
    if (kind === "oci") layouts.push(path)
    else if (kind === "tar") roots.push(path)
    else archives.push({ format: kind === "oci-archive" ? kind : "docker-archive", file: path })
  }
  if (roots.includes("-")) yield* sendable
  return { layouts, archives, roots }
})

const resultOf = (image: Pull.PulledImage) => ({
  reference: image.reference, digest: image.target.digest, manifest: image.manifest.digest, image: image.id, platform: image.platform,
  changed: image.changed, ...image.artifact === undefined ? {} : { artifact: image.artifact.type, blobs: image.artifact.blobs },
  ...image.whole === undefined ? {} : { images: image.whole.members.map(({ artifact, id, manifest, platform }) => ({ image: id, manifest: manifest.digest, platform, ...artifact === undefined ? {} : { artifact: true } })) },
  layers: image.layers.map(({ blob, diffId }) => ({ digest: blob.digest, size: blob.size, diffId }))
})

const shortName = (reference: string): string => /:([^:/@]+)$/.exec(reference)?.[1] ?? "latest"

/** The name an image gets in a layout: its tag, or its digest's hex; where another one has the same, the whole reference. */
const layoutName = (reference: string, { references }: PullFlags): string =>
  references.filter((other) => shortName(other) === shortName(reference)).length > 1 ? reference : shortName(reference)

/** What the events say of a failure; the reference is normalised, if it can be read. */
const failed = (text: string, error: unknown): PullEvent => {
  const reference = Result.match(Reference.parse(text), { onFailure: () => text, onSuccess: Reference.print })
  const code = statusOf(error)
  return { _tag: "failed", reference, message: Run.sentence(error), ...(code === undefined ? {} : { code }) }
}

const savable = (image: Pull.PulledImage): Save.Savable => ({ ...OciLayout.bundled(image), artifact: image.artifact, references: [image.reference] })

/** A reference to pull, or why it is not known which. */
interface Target {
  readonly reference: string
  readonly error?: unknown
}

/** The references that are asked for: with --all-tags those of every tag, told as one repository. */
const targetsOf = Effect.fnUntraced(function*(flags: PullFlags, hub: Hub<PullEvent>) {
  if (!flags.allTags) return flags.references.map((reference): Target => ({ reference }))
  return (yield* Effect.forEach(flags.references, Effect.fnUntraced(function*(text) {
    const listed = yield* Effect.result(Tags.list(text))
    if (Result.isFailure(listed)) return [{ reference: text, error: listed.failure } satisfies Target]
    const { name, protocol, tags } = listed.success
    hub.publish({ _tag: "repository", reference: name, name, protocol, tags })
    return tags.map((tag): Target => ({ reference: `${name}:${tag}` }))
  }))).flat()
})

/** Pulls every reference; all are tried, and the first failure's exit code is given. */
export const pull = Effect.fnUntraced(function*(flags: PullFlags) {
  const outputs = yield* outputsOf(flags)
  const single = Option.isSome(flags.rootfs) ? "--rootfs" : outputs.roots.length > 0 ? "--output tar:" : undefined
  const map = owners(flags)
  if (single !== undefined && flags.references.length > 1) return yield* new Cli.UsageError({ problem: `${single} takes one reference at a time` })
  if (map !== undefined && single === undefined) {
    return yield* new Cli.UsageError({ problem: "--uid-map and --gid-map act on root file systems: they need --rootfs or --output tar:" })
  }
  if (map !== undefined && Option.isSome(flags.rootfs) && flags.link === "hardlink") {
    return yield* new Cli.UsageError({ problem: "owners cannot be mapped with --link hardlink, which would change the store" })
  }
  if (flags.allTags) {
    if (single !== undefined) return yield* new Cli.UsageError({ problem: `${single} takes one image, and --all-tags may be many` })
    for (const text of flags.references) {
      const { digest, tag } = yield* Effect.fromResult(Reference.parseNormalized(text))
      if (tag !== undefined || digest !== undefined) return yield* new Cli.UsageError({ problem: `${text}: tag can't be used with --all-tags/-a` })
    }
  }
  if (single !== undefined && Option.contains(flags.platform, Platform.all)) return yield* new Cli.UsageError({ problem: `${single} takes one image, and --platform all may be many` })
  const trusted = flags.trustKeys.length === 0 ? undefined : yield* keys(flags.trustKeys, Jws.trustKeyId)
  const hub = new Hub<PullEvent>(keyOf)
  const options: Pull.PullOptions = {
    link: flags.link, blobs: outputs.layouts.length + outputs.archives.length > 0, ...map === undefined ? {} : { owners: map },
    ...(Option.isSome(flags.platform) ? { platform: flags.platform.value } : {}),
    ...(Option.isSome(flags.rootfs) ? { rootfs: flags.rootfs.value } : {}),
    ...(Option.isSome(flags.unpack) ? { unpack: flags.unpack.value } : {})
  }
  const turn = yield* Semaphore.make(1) // a layout's index is read, changed and written: one at a time
  const one = Effect.fnUntraced(function*(reference: string) {
    const image = yield* Pull.held(hub, reference, options)
    yield* Effect.forEach(outputs.layouts, (path) => turn.withPermits(1)(OciLayout.write(image, path, layoutName(image.reference, flags))), { discard: true })
    if (image.artifact !== undefined && outputs.roots.length > 0) return yield* new NoFileSystem({ name: image.reference, type: image.artifact.type })
    for (const file of outputs.roots) yield* file === "-" ? RootTar.send(image.layers, 1, map) : RootTar.write(image.layers, file, map)
    return image
  })
  const attempt = ({ error, reference }: Target) =>
    Effect.map(Effect.result(error === undefined ? one(reference) : Effect.fail(error)), (result) => ({ reference, result }))
  const all = Effect.flatMap(targetsOf(flags, hub), (targets) => Effect.forEach(targets, attempt, { concurrency: 4 })).pipe(
    // An archive holds all that was asked for, or is not written.
    Effect.tap((outcomes) => {
      const images = outcomes.flatMap(({ result }) => Result.isSuccess(result) ? [savable(result.success)] : [])
      return images.length < outcomes.length ? Effect.void
        : Effect.forEach(outputs.archives, ({ file, format }) => Save.write(images, format, file), { discard: true })
    }), Effect.scoped)
  const repositoriesDone = (outcomes: Effect.Success<typeof all>) => Effect.sync(() => {
    for (const text of flags.allTags ? flags.references : []) {
      const name = Result.match(Reference.parse(text), { onFailure: () => text, onSuccess: Reference.name })
      const own = outcomes.filter(({ reference }) => reference.startsWith(`${name}:`))
      if (own.length === 0 || own.some(({ result }) => Result.isFailure(result))) continue
      hub.publish({ _tag: "done", reference: name, changed: own.some(({ result }) => Result.isSuccess(result) && result.success.changed) })
    }
  })
  const settings = Layer.mergeAll(
    Layer.succeed(Concurrency, flags.jobs), Layer.succeed(Pull.Durability, flags.durability), Layer.succeed(Policy.TrustedKeys, trusted),
    Layer.succeed(Policy.Protocol, flags.docker19 ? "docker-1.9" : "safe"),
    Network.settings(flags), Limits.settings(flags.limits)
  )
  const kind = flags.quiet ? "quiet" : flags.progress
  const shown = yield* Progress.show(kind, hub.stream).pipe(Effect.forkChild({ startImmediately: true }))
  const tell = (reference: string, error: unknown) => Effect.sync(() => hub.publish(failed(reference, error)))
  const outcomes = yield* all.pipe(
    Effect.tap(repositoriesDone),
    Effect.tap(Effect.forEach(({ reference, result }) => Result.isFailure(result) ? tell(reference, result.failure) : Effect.void)),
    Effect.provide(Towline.layer({ store: flags.store }).pipe(Layer.provideMerge(settings))),
    // What no pull can begin without.
    Effect.tapError((error) => Effect.forEach(flags.references, (reference) => tell(reference, error))),
    Effect.ensuring(Effect.andThen(Effect.sync(() => hub.end()), Effect.ignore(Fiber.join(shown)))),
    Effect.catch((error) => Effect.fail(Progress.isStream(kind) ? new Run.Failed(Run.exitCode(error)) : error))
  )
  let code = 0
  for (const { reference, result } of outcomes) {
    if (Result.isSuccess(result)) {
      const image = result.success
      // What stdout gets then is the archive alone.
      if (!outputs.roots.includes("-")) yield* Cli.print(flags.json ? JSON.stringify(resultOf(image)) : flags.quiet ? image.target.digest : `${image.reference} ${image.target.digest}`)
      continue
    }
    code = code === 0 ? Run.exitCode(result.failure) : code
    if (!Progress.isStream(kind)) yield* Cli.tell(`pull: ${outcomes.length > 1 ? `${reference}: ` : ""}${Run.sentence(result.failure)}`)
  }
  if (code !== 0) return yield* Effect.fail(new Run.Failed(code))
}) satisfies (flags: PullFlags) => Effect.Effect<void, unknown, FileSystem.FileSystem>
