import { Result } from "effect"
import { printable } from "../../image/Printable.ts"
import { isListed, isPrivate, schemes } from "../route/Endpoint.ts"

/** More endpoints than any index names. */
const most = 16
const host = /^(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::\d{1,5})?$/

const split = (header: string | undefined) => (header ?? "").split(",").map((part) => part.trim()).filter((part) => part !== "")

/** The hosts (`host[:port]`, as URLs write them) that X-Docker-Endpoints names, as far as they are any. */
export const hosts = (header: string | undefined): ReadonlyArray<string> =>
  split(header).filter((name) => host.test(name) && URL.canParse(`http://${name}`)).slice(0, most).map((name) => new URL(`http://${name}`).host)

/**
 * The origins X-Docker-Endpoints (`host[:port], host2`) names, in order and once each, with the scheme of the `index` that sent it;
 * without the header that is the index itself. Fails with a rule for what is no host, for plain HTTP to a host it is not allowed for,
 * and for a private address named by an index that is none (unless it is listed as insecure).
 */
export const parse = (header: string | undefined, index: string, insecure: ReadonlyArray<string>): Result.Result<ReadonlyArray<string>, string> => {
  const { host: own, protocol } = new URL(index)
  const named = split(header)
  if (named.length === 0) return Result.succeed([index])
  if (named.length > most) return Result.fail(`X-Docker-Endpoints names ${named.length} hosts, at most ${most} are taken`)
  const found = new Set<string>()
  for (const name of named) {
    const url = `${protocol}//${name.toLowerCase()}`
    if (!host.test(name) || !URL.canParse(url)) return Result.fail(`X-Docker-Endpoints: "${printable(name, 100)}" is no host with an optional port`)
    // As URLs write it: 0x7f.1 is an address too.
    const { host: plain, origin } = new URL(url)
    if (protocol === "http:" && !schemes(plain, insecure).includes("http"))
      return Result.fail(`X-Docker-Endpoints: ${plain} would be asked by plain HTTP, as the index was; name it with --insecure if that is meant`)
    if (isPrivate(plain) && !isPrivate(own) && !isListed(plain, insecure))
      return Result.fail(`X-Docker-Endpoints: ${plain} is an address of a private network and the index is not`)
    found.add(origin)
  }
  return Result.succeed([...found])
}
