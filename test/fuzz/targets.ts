import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Result } from "effect"
import { Apply } from "../../src/layer/apply/Apply.ts"
import { Refused } from "../../src/layer/Fault.ts"
import { inflater } from "../../src/layer/inflate/Inflate.ts"
import { defaultLimits } from "../../src/layer/Limits.ts"
import { merge } from "../../src/layer/merge/Merge.ts"
import * as Syscalls from "../../src/layer/Syscalls.ts"
import { TarReader } from "../../src/layer/tar/Tar.ts"
import { removeTree } from "../../src/layer/tree/Remove.ts"
import * as Config from "../../src/image/ImageConfig.ts"
import * as Json from "../../src/image/Json.ts"
import * as Manifest from "../../src/image/Manifest.ts"
import * as SignedManifest from "../../src/image/v1/SignedManifest.ts"
import * as Jws from "../../src/registry/Jws.ts"
import { ImageBuilder } from "../../src/testing/index.ts"
import { layerCases } from "../../src/testing/LayerCases.ts"
import { fingerprint } from "../layer/apply/cases.ts"
import { descriptors } from "../layer/apply/Entries.ts"
import type { Random, Target } from "./Fuzz.ts"

const words = [
  "..", "../", "/", "//", "./", "\0", ".wh.", ".wh..", ".wh...", ".wh..wh..opq", ".wh..wh.plnk", "../../canary/file", "../../canary", "canary", "a/b", "d", "s", "l", "f",
  "0", "1", "2", "3", "4", "5", "6", "7", "x", "g", "L", "K", "S", "X", "ustar\x0000", "ustar  \0", "tar\0", "00000000000\0", "00000000010\0", "77777777777\0", "\x80\0\0\0\0\0\0\0\0\0\x02\0", "\xff\xff\xff\xff\xff\xff\xff\xff",
  "12 path=../x\n", "11 size=10\n", "GNU.sparse.major", "30 SCHILY.xattr.user.a=\xff\0\n", "\n", "="
].map((text) => Buffer.from(text, "latin1"))

/** Runs something; true if it refused, in words of its own. */
const refusing = (run: () => void): boolean => {
  try {
    run()
    return false
  } catch (error) {
    if (error instanceof Refused && error.rule !== "") return true
    throw error
  }
}

const chunks = (input: Buffer, random: Random): ReadonlyArray<Buffer> => {
  const made: Array<Buffer> = []
  for (let at = 0; at < input.byteLength;) made.push(input.subarray(at, at += 1 + random.int(random.of([3, 600, 5000]))))
  return made
}

/** Puts right the checksum of every block that has most of a header's look. */
const sealed = (input: Buffer): Buffer => {
  const copy = Buffer.from(input)
  for (let at = 0; at + 512 <= copy.byteLength; at += 512) {
    const block = copy.subarray(at, at + 512)
    if (block.toString("latin1", 257, 262) !== "ustar" && !/^[0-7]{6}\0 $/.test(block.toString("latin1", 148, 156))) continue
    block.fill(0x20, 148, 156)
    let sum = 0
    for (const byte of block) sum += byte
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1")
  }
  return copy
}

/** What a reader makes of an archive in these pieces. */
const account = (pieces: ReadonlyArray<Buffer>): string => {
  const hash = createHash("sha256")
  let end = 0
  const reader = new TarReader({
    entry: (entry) => {
      if (entry.path.byteLength === 0 || entry.path.includes(0) || entry.uid > 2 ** 32 - 2 || entry.uid < 0 || !Number.isSafeInteger(entry.size) || entry.size < 0) throw new Error("an entry that cannot be")
      end = 0
      hash.update(JSON.stringify(entry, (_, value: unknown) => value))
    },
    data: (bytes, at) => {
      if (at < end) throw new Error("data that goes back")
      end = at + bytes.byteLength
      hash.update(bytes)
    },
    end: () => { hash.update("end") }
  }, { ...defaultLimits, bytes: 2 ** 26, entries: 5000 })
  try {
    for (const piece of pieces) reader.write(piece)
    reader.end()
  } catch (error) {
    if (error instanceof Refused) return `refused: ${error.rule}`
    throw error
  }
  return `${reader.entries} ${reader.size} ${hash.digest("hex")}`
}

const tar: Target = {
  corpus: layerCases.map(({ tar }) => tar).filter(({ byteLength }) => byteLength < 60_000), words, mend: sealed, close: () => {},
  run: (input, random) => {
    const whole = account([input])
    const cut = account(chunks(input, random))
    if (whole !== cut) throw new Error(`whole: ${whole}; in pieces: ${cut}`)
    return whole.startsWith("refused")
  }
}

const apply = (temp: string): Target => {
  const canary = join(temp, "canary")
  mkdirSync(join(canary, "b"), { recursive: true })
  writeFileSync(join(canary, "file"), "untouched")
  const before = fingerprint(canary)
  const calls = [Syscalls.load(), Syscalls.load({ native: false })]
  const open = descriptors()
  const unpack = (folder: string, input: Buffer, random: Random) => {
    mkdirSync(join(folder, "fs"), { recursive: true })
    const applying = new Apply(join(folder, "fs"), join(folder, "meta"), { syscalls: random.of(calls) })
    try {
      const reader = new TarReader(applying, { ...defaultLimits, bytes: 2 ** 24, entries: 2000 })
      for (const piece of chunks(input, random)) reader.write(piece)
      reader.end()
      applying.finish()
    } finally {
      applying.abort()
    }
  }
  let previous: Buffer | undefined
  const attempt = (place: string, input: Buffer, random: Random): boolean => {
    removeTree(place)
    if (refusing(() => unpack(join(place, "1"), input, random))) return true
    if (previous !== undefined) unpack(join(place, "0"), previous, random)
    mkdirSync(join(place, "root"))
    const parts = (previous === undefined ? ["1"] : ["0", "1"]).map((name) => ({ folder: join(place, name), move: random.int(2) === 0 }))
    const options = { link: random.of(["copy", "auto", "hardlink"] as const), hold: join(place, "hold"), syscalls: random.of(calls) }
    const refused = refusing(() => merge(join(place, "root"), parts, options))
    // One that only holds upon another is no base: links to what it has not.
    previous = refused ? undefined : input
    return refused
  }
  return {
    ...tar, close: () => removeTree(temp),
    run: (input, random) => {
      const place = join(temp, "case")
      const refused = attempt(place, input, random)
      removeTree(place)
      if (fingerprint(canary) !== before) throw new Error("something outside was changed")
      if (descriptors() !== open) throw new Error("a descriptor was left open")
      return refused
    }
  }
}

const gzip = (pack: (input: Uint8Array) => ReadonlyArray<Buffer>): Target => {
  const text = Buffer.from("layers of images, ".repeat(300))
  const parts = [Buffer.alloc(0), Buffer.from("x"), text, Buffer.concat([text, Buffer.alloc(3000), createHash("sha512").update("noise").digest()])].flatMap(pack)
  const cap = 2 ** 24
  const outcome = async (pieces: ReadonlyArray<Buffer>, native: boolean): Promise<string> => {
    const hash = createHash("sha256")
    let size = 0
    const inflate = inflater((bytes) => {
      if ((size += bytes.byteLength) > cap) throw new Refused("larger than the fuzzer looks at")
      hash.update(bytes)
    }, { native })
    try {
      for (const piece of pieces) await inflate.write(piece)
      await inflate.end()
      return `${inflate.compression} ${size} ${hash.digest("hex")}`
    } catch (error) {
      if (error instanceof Refused) return "refused"
      throw error
    } finally {
      inflate.close()
    }
  }
  return {
    corpus: [...parts, ...parts.map((part, n) => Buffer.concat([part, parts[(n * 7 + 4) % parts.length] ?? part]))], mend: (input) => input, close: () => {},
    words: [...words, ...parts.map((part) => part.subarray(0, 20)), ...parts.map((part) => part.subarray(-12))],
    run: async (input, random) => {
      const whole = await outcome([input], true)
      const cut = await outcome(chunks(input, random), true)
      const streamed = await outcome([input], false)
      if (whole !== cut || whole !== streamed) throw new Error(`whole: ${whole}; in pieces: ${cut}; by streams: ${streamed}`)
      return whole === "refused"
    }
  }
}

const manifest: Target = {
  corpus: [ImageBuilder.demo(), ImageBuilder.image({ layers: [[{ path: "a" }]], format: "docker" })].flatMap(({ config, manifest }) => [manifest.raw, config.raw]).map((raw) => Buffer.from(raw)),
  words: [
    "{", "}", "[", "]", ",", ":", "\"", "null", "true", "1e999", "-0", "{\"__proto__\":{\"x\":1}}", "\"__proto__\":1,", "\ufeff", "[[[[[[[[", "\"size\":-1", "\"mediaType\":\"x\"", "\"manifests\":[],", "\"layers\":null,", "\"digest\":\"sha256:..\"",
    "\\u0000", "\\ud800", "sha256:", "application/vnd.oci.image.index.v1+json", "\"schemaVersion\":1,", "\"LAYERS\":[],", "\xff"
  ].map((text) => Buffer.from(text, "latin1")),
  mend: (input) => input, close: () => {},
  run: (input) => {
    const began = performance.now()
    const refused = Result.isFailure(Manifest.decode(input)) && Result.isFailure(Config.decode(input))
    if (performance.now() - began > 2000) throw new Error("it took more than 2 seconds")
    if (Object.hasOwn(Object.prototype, "x")) throw new Error("a prototype was changed")
    return refused
  }
}

/** What JSON.parse makes of a document that was taken must be the same; numbers that are no plain integers are compared as numbers. */
const same = (ours: Json.Value, theirs: unknown): boolean => {
  if (ours instanceof Json.Decimal) return Object.is(Number(ours.text), theirs)
  if (Array.isArray(ours)) return Array.isArray(theirs) && ours.length === theirs.length && ours.every((item, index) => same(item, theirs[index]))
  if (!Json.isObject(ours)) return Object.is(ours, theirs)
  if (typeof theirs !== "object" || theirs === null || Array.isArray(theirs)) return false
  const fields = new Map(Object.entries(theirs))
  const keys = Object.keys(ours)
  return keys.length === fields.size && keys.every((key) => fields.has(key) && same(ours[key] ?? null, fields.get(key)))
}

const json: Target = {
  ...manifest,
  run: (input) => {
    const began = performance.now()
    const decoded = Json.decode(input)
    if (performance.now() - began > 2000) throw new Error("it took more than 2 seconds")
    if (Result.isFailure(decoded)) return true
    if (!same(decoded.success, JSON.parse(input.toString()))) throw new Error("JSON.parse makes something else of it")
    return false
  }
}

const schema1: Target = {
  corpus: readFileSync(new URL("../fixtures/schema1.jsonl", import.meta.url), "utf8").split("\n").filter((line) => line !== "").flatMap((line) => {
    const { manifest }: { readonly manifest?: string } = JSON.parse(line)
    return manifest === undefined || manifest.length > 20_000 ? [] : [Buffer.from(manifest)]
  }),
  words: [
    ...manifest.words,
    ...["\"formatLength\":1,", "\"formatTail\":\"Cn0\"", "\"protected\":\"e30\"", "\"alg\":\"RS256\"", "\"alg\":\"ES256\"", "\"alg\":\"none\"", "\"kty\":\"RSA\"", "\"x5c\":[\"\"]", "\"signatures\":[],", "\"fsLayers\":[],", "\\u2028", "AAAA", "=="]
      .map((text) => Buffer.from(text))
  ],
  mend: (input) => input, close: () => {},
  run: (input) => {
    const began = performance.now()
    const decoded = SignedManifest.decode(input, Jws.hash)
    const refused = Result.isFailure(decoded) || Result.isFailure(Result.flatMap(decoded.success.envelope, Jws.verify)) || Result.isFailure(SignedManifest.signed(decoded.success))
    if (performance.now() - began > 2000) throw new Error("it took more than 2 seconds")
    return refused
  }
}

/** All targets by name; `pack` compresses in every known way, `temp` is a folder for what is applied. */
export const targets = (temp: string, pack: (input: Uint8Array) => ReadonlyArray<Buffer>): Readonly<Partial<Record<string, () => Target>>> =>
  ({ tar: () => tar, apply: () => apply(temp), gzip: () => gzip(pack), manifest: () => manifest, json: () => json, schema1: () => schema1 })
