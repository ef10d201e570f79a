import { Effect, Stream } from "effect"
import { printable } from "../../layer/Fault.ts"
import type { ViewEntry } from "../../layer/view/Facts.ts"
import { sizeOf } from "../../layer/view/NameList.ts"
import * as Format from "../../progress/Format.ts"
import * as ImageFiles from "../../ImageFiles.ts"
import type { Image } from "../../store/Graph.ts"
import * as Cli from "../Cli.ts"
import { reading } from "../Reading.ts"
import { terminalColumns } from "../Table.ts"

interface Flags {
  readonly store: string
  readonly json: boolean
}

/** What is shown as it is. */
const ordinary = /^[ -~]{0,300}$/

/** Names as people read them; what is no UTF-8 as `\xNN`. */
const shown = (name: string): string => ordinary.test(name) ? name : printable(Buffer.from(name, "latin1"))

const letters: Readonly<Record<ViewEntry["type"], string>> = { file: "-", dir: "d", symlink: "l", char: "c", block: "b", fifo: "p" }

/** `drwxr-sr-t`, as ls writes it. */
const modeOf = ({ mode, type }: ViewEntry): string => {
  const bits = [0o400, 0o200, 0o100, 0o40, 0o20, 0o10, 0o4, 0o2, 0o1].map((bit, index) => (mode & bit) === 0 ? "-" : "rwx"[index % 3] ?? "-")
  for (const [bit, at, letter] of [[0o4000, 2, "s"], [0o2000, 5, "s"], [0o1000, 8, "t"]] as const) {
    if ((mode & bit) !== 0) bits[at] = bits[at] === "x" ? letter : letter.toUpperCase()
  }
  return `${letters[type]}${bits.join("")}`
}

const digestOf = (image: Image, entry: ViewEntry) => image.layers[entry.layer]?.diffId

/** A list in JSON, as it comes. */
const sendList = <A, E>(items: Stream.Stream<A, E>, json: (item: A) => unknown, around: readonly [before: string, after: string]) => Effect.gen(function*() {
  yield* Cli.send(around[0])
  let between = ""
  yield* Stream.runForEachArray(items, (some) => {
    const text = between + some.map((item) => JSON.stringify(json(item))).join(",")
    between = ","
    return Cli.send(text)
  })
  yield* Cli.print(around[1])
})

/** A line each, as they come. */
const sendLines = <A, E>(items: Stream.Stream<A, E>, line: (item: A) => string) =>
  Stream.runForEachArray(items, (some) => Cli.print(some.map(line).join("\n")))

/** Lists the files of an image, its layers merged, without unpacking. */
export const files = Effect.fnUntraced(function*(flags: Flags & { readonly image: string; readonly path: string; readonly hash: boolean }) {
  const { image, list } = yield* Effect.gen(function*() {
    const image = yield* ImageFiles.imageOf(flags.image)
    return { image, list: yield* ImageFiles.list(image, { hash: flags.hash, path: flags.path }) }
  }).pipe(reading(flags.store))
  if (list.names === 0) return yield* new ImageFiles.FileNotFound({ image: flags.image, path: flags.path })
  if (flags.json) {
    return yield* sendList(list.entries, (entry) => ({
      path: `/${shown(entry.name)}`, type: entry.type, mode: entry.mode, uid: entry.uid, gid: entry.gid, size: entry.size, mtime: entry.mtime,
      ...entry.target === "" ? {} : { target: shown(entry.target) }, ...entry.link === undefined ? {} : { link: `/${shown(entry.link)}` },
      ...entry.sha256 === undefined ? {} : { sha256: entry.sha256 }, ...entry.xattrs.length === 0 ? {} : { xattrs: entry.xattrs },
      layer: digestOf(image, entry)
    }), ["[", "]"])
  }
  const columns = terminalColumns()
  yield* sendLines(list.entries, (entry) => {
    const { gid, link, name, sha256, target, type, uid } = entry
    const tail = type === "symlink" ? ` -> ${shown(target)}` : link === undefined ? "" : ` link to /${shown(link)}`
    const hash = flags.hash ? `  ${(sha256 ?? "").padEnd(64)}` : ""
    const facts = `${modeOf(entry)}  ${`${uid}:${gid}`.padEnd(list.widths.owner)}  ${sizeOf(entry).padStart(list.widths.size)}${hash}  `
    // Facts stay whole: of the name what there is room for, from both its ends.
    return columns === undefined ? `${facts}/${shown(name)}${tail}` : `${facts}${Format.fit(`/${shown(name)}${tail}`, Math.max(20, columns - facts.length))}`
  })
}, Effect.scoped)

/** Writes one file of an image to stdout, byte for byte. */
export const cat = Effect.fnUntraced(function*(flags: { readonly store: string; readonly image: string; readonly path: string }) {
  yield* Effect.gen(function*() {
    const image = yield* ImageFiles.imageOf(flags.image)
    yield* Stream.runForEach(ImageFiles.file(image, flags.path, flags.image), (chunk) => Cli.send(chunk))
  }).pipe(Effect.scoped, reading(flags.store))
})

/** What of two configs differs: a line taken away or added for each. */
const configLines = (before: Uint8Array, after: Uint8Array): ReadonlyArray<string> => {
  const [a, b] = [before, after].map((bytes) => flat(JSON.parse(Buffer.from(bytes).toString())))
  const [old, now] = [new Set(a), new Set(b)]
  return [...[...old].filter((line) => !now.has(line)).map((line) => `- ${line}`), ...[...now].filter((line) => !old.has(line)).map((line) => `+ ${line}`)]
    .sort((x, y) => x.slice(2) < y.slice(2) ? -1 : 1)
}

const skipped = new Set(["history", "rootfs", "container", "container_config", "id", "parent"])

/** A config as lines `config.Env: A=b`; lists by their items, histories and layers left out. */
const flat = (value: unknown, path = ""): ReadonlyArray<string> => {
  if (Array.isArray(value)) return path === "config.Env" || path.endsWith("Volumes") ? value.map((item) => `${path}: ${String(item)}`) : [`${path}: ${JSON.stringify(value)}`]
  if (typeof value !== "object" || value === null) return value === null || value === "" ? [] : [`${path}: ${String(value)}`]
  return Object.entries(value).flatMap(([key, item]) => path === "" && skipped.has(key) ? [] : flat(item, path === "" ? key : `${path}.${key}`))
}

const marks = { added: "A", removed: "D", changed: "C" } as const

/** Shows how two images differ: layers, config, files. */
export const diff = Effect.fnUntraced(function*(flags: Flags & { readonly before: string; readonly after: string }) {
  const { after, before, changes } = yield* Effect.gen(function*() {
    const [before, after] = [yield* ImageFiles.imageOf(flags.before), yield* ImageFiles.imageOf(flags.after)]
    const same = before.chain !== undefined && before.chain === after.chain
    if (same) return { before, after, changes: Stream.empty }
    const [a, b] = yield* Effect.all([ImageFiles.list(before, { hash: true }), ImageFiles.list(after, { hash: true })], { concurrency: 2 })
    return { before, after, changes: ImageFiles.compare(a, b) }
  }).pipe(reading(flags.store))
  const shared = before.layers.findIndex(({ diffId }, index) => after.layers[index]?.diffId !== diffId)
  const common = shared === -1 ? before.layers.length : shared
  const config = configLines(before.configBytes, after.configBytes)
  const [gone, come] = [before, after].map(({ layers }) => layers.slice(common).map(({ diffId }) => diffId))
  if (flags.json) {
    const head = JSON.stringify({ before: before.id, after: after.id, layers: { shared: common, removed: gone, added: come }, config })
    return yield* sendList(changes, ({ name, ...change }) => ({ path: `/${shown(name)}`, ...change }), [`${head.slice(0, -1)},"files":[`, "]}"])
  }
  const columns = terminalColumns()
  const fit = (line: string) => columns === undefined ? line : Format.fit(line, columns)
  yield* Cli.print([
    `layers ${common} shared${common === before.layers.length && common === after.layers.length ? "" : `, ${before.layers.length - common} removed, ${after.layers.length - common} added`}`,
    ...(gone ?? []).map((digest) => `- layer ${digest}`), ...(come ?? []).map((digest) => `+ layer ${digest}`),
    ...config.map((line) => Format.printable(line))
  ].map(fit).join("\n"))
  yield* sendLines(changes, ({ change, name, what }) => fit(`${marks[change]} /${shown(name)}${what.length === 0 ? "" : ` (${what.join(", ")})`}`))
}, Effect.scoped)
