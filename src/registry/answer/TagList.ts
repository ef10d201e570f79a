import { Result } from "effect"
import * as Json from "../../image/Json.ts"
import { printable } from "../../image/Printable.ts"

/** The longest page that is read, in bytes, and the most pages. */
export const pageCap = 4 << 20
export const maximumPages = 1000

/** Whether `text` is a tag (distribution-spec, "Pulling manifests"). */
export const isTag = (text: string): boolean => /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/.test(text)

/** The tags of one page of `tags/list`; fails with the field and what is wrong there. */
export const decode = (raw: Uint8Array): Result.Result<ReadonlyArray<string>, string> => Result.gen(function*() {
  const document = yield* Result.mapError(Json.decode(raw), ({ at, reason }) => `it is no acceptable JSON at character ${at + 1}: ${reason}`)
  if (!Json.isObject(document)) return yield* Result.fail("it is no JSON object")
  const tags = document["tags"] ?? []
  if (!Array.isArray(tags)) return yield* Result.fail("tags: it is no list")
  const found: Array<string> = []
  for (const [index, tag] of tags.entries()) {
    if (typeof tag !== "string" || !isTag(tag)) return yield* Result.fail(`tags[${index}]: ${typeof tag === "string" ? `"${printable(tag, 100)}"` : "it"} is no tag`)
    found.push(tag)
  }
  return found
})

/**
 * The path and query of the next page a Link header (RFC 8288) names, undefined without one. It must be another page of the same
 * list (`path`) at the same `origin`; fails with a rule otherwise.
 */
export const nextPage = (link: string | undefined, origin: string, path: string): Result.Result<string | undefined, string> => {
  const links = [...(link ?? "").matchAll(/<([^<>]*)>((?:[ \t]*;[ \t]*[^\s=;,"]+[ \t]*(?:=[ \t]*(?:"[^"]*"|[^\s;,"]*))?)*)/g)]
  const [, target] = links.find(([, , parameters = ""]) => /;[ \t]*rel[ \t]*=[ \t]*(?:"(?:[^"]* )?next(?: [^"]*)?"|next(?=[\s;]|$))/i.test(parameters)) ?? []
  if (target === undefined) return Result.succeed(undefined)
  const base = `${origin}${path}`
  if (!URL.canParse(target, base)) return Result.fail("its Link to the next page is no URL")
  const url = new URL(target, base)
  return url.origin === new URL(origin).origin && url.pathname === path ? Result.succeed(`${url.pathname}${url.search}`)
    : Result.fail("its Link to the next page leads somewhere else")
}
