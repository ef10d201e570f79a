import * as NodeStream from "@effect/platform-node/NodeStream"
import { Result, type Stream } from "effect"
import {
  brotliDecompressSync, createBrotliDecompress, createGunzip, createInflate, createZstdDecompress, gunzipSync, inflateSync, zstdDecompressSync
} from "node:zlib"
import { NetworkError } from "../Errors.ts"

const codings = {
  gzip: { create: createGunzip, sync: gunzipSync },
  "x-gzip": { create: createGunzip, sync: gunzipSync },
  deflate: { create: createInflate, sync: inflateSync },
  br: { create: createBrotliDecompress, sync: brotliDecompressSync },
  zstd: { create: createZstdDecompress, sync: zstdDecompressSync }
}

/** A content coding we can undo. None is ever asked for, but some servers apply one all the same. */
export type Coding = keyof typeof codings

/** What a Content-Encoding header means: undefined for none (or identity); a failure for what we cannot undo (several, or unknown). */
export const codingOf = (header: string | undefined): Result.Result<Coding | undefined, string> => {
  const name = (header ?? "").trim().toLowerCase()
  if (name === "" || name === "identity") return Result.succeed(undefined)
  const coding = Object.keys(codings).find((key): key is Coding => key === name)
  return coding === undefined ? Result.fail(name) : Result.succeed(coding)
}

/** `raw` without its coding, at most `cap` bytes; undefined if it is longer, or not so coded. */
export const undo = (raw: Uint8Array, coding: Coding, cap: number): Uint8Array | undefined =>
  Result.getOrUndefined(Result.try((): Uint8Array => codings[coding].sync(raw, { maxOutputLength: cap })))

/** A document that no digest is over, whatever its Content-Encoding (`header`) says: undone where it is so coded, else as it came. Its form tells whether it is good. */
export const readable = (raw: Uint8Array, header: string | undefined, cap: number): Uint8Array =>
  Result.match(codingOf(header), { onFailure: () => raw, onSuccess: (coding) => coding === undefined ? raw : undo(raw, coding, cap) ?? raw })

/** A body without its coding. What the decoder refuses is a lost body: transient, since it may be the transfer that was damaged. */
export const undone = (body: Stream.Stream<Uint8Array, NetworkError>, coding: Coding, host: string): Stream.Stream<Uint8Array, NetworkError> =>
  NodeStream.pipeThroughDuplex(body, {
    evaluate: () => codings[coding].create(),
    onError: () => new NetworkError({ host, reason: "body", transient: true, phase: "body", detail: `its body says Content-Encoding: ${coding} and is not` })
  })
