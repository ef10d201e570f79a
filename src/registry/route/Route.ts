import { Context, Effect, type Redacted } from "effect"
import type { Blocked, ConfigError } from "../config/ConfigError.ts"
import { hostOf, isListed, type RegistryOptions, schemes } from "./Endpoint.ts"

/** How a host is spoken to by TLS; all PEM. */
export interface Tls {
  /** Authorities trusted besides those that are anyway: also those a host redirects to, and its token server. */
  readonly ca: ReadonlyArray<string>
  /** Client certificates, shown to this host and port alone. */
  readonly client: ReadonlyArray<{ readonly cert: string; readonly key: Redacted.Redacted }>
  /** Whether its certificate is checked. */
  readonly verify: boolean
  /** Longest wait for a connection, in milliseconds, where it is not that of `Limits`. */
  readonly connect: number | undefined
}

/** Nothing special. */
export const plainTls: Tls = { ca: [], client: [], verify: true, connect: undefined }

/** Where an image lives: the registry's domain as references write it (`docker.io`, `localhost:5000`) and the path in it. */
export interface Repository {
  readonly domain: string
  readonly path: string
  /** Whether the reference it is from names a digest: some mirrors are for such references alone. Default: no. */
  readonly pinned?: boolean
  /** By digest, the addresses that manifests in it give for layers which registries need not hold. */
  readonly foreign?: Readonly<Record<string, ReadonlyArray<string>>>
}

/** One place that serves a repository, and why it is asked. */
export interface Route {
  /** The schemes to try, best first. */
  readonly schemes: ReadonlyArray<"https" | "http">
  /** `host[:port]`. */
  readonly host: string
  /** What stands before the repository's path: `/v2`, unless the configuration says otherwise. */
  readonly prefix: string
  /** Whose credentials are meant, as references write it, and the repository's path there. */
  readonly domain: string
  readonly path: string
  /** What every request's query ends with: `ns=docker.io`, or nothing. */
  readonly query: string
  /** The rule that put it there: `file:line`, or a sentence. */
  readonly why: string
  /** Whether it stands in for the registry: its failures are passed over. */
  readonly mirror: boolean
  /** Whether it may say what a tag points at, and give content by digest. */
  readonly tags: boolean
  readonly content: boolean
  readonly tls: Tls
  /** Headers of the configuration; they are for this origin alone. */
  readonly headers: Readonly<Record<string, Redacted.Redacted>>
}

/** The repository's URL at a route, as people are shown it. */
export const urlOf = ({ host, path, prefix, schemes: [scheme] }: Route): string => `${scheme ?? "https"}://${host}${prefix}/${path}`

/** How a host is spoken to where nothing is configured. */
const plainly = (host: string, insecure: ReadonlyArray<string>) =>
  ({ schemes: schemes(host, insecure), tls: isListed(host, insecure) ? { ...plainTls, verify: false } : plainTls })

/** The route to the registry itself: what there is where nothing is configured. */
export const direct = ({ domain, path }: Repository, insecure: ReadonlyArray<string>): Route => {
  const host = hostOf(domain)
  return {
    ...plainly(host, insecure), host, prefix: "/v2", domain, path, query: "", mirror: false, tags: true, content: true,
    why: host === domain ? "the registry of the reference" : "Docker Hub's registry", headers: {}
  }
}

/** A name as it was written, made whole by the configuration, and the rule that did it. */
export interface Candidate {
  readonly name: string
  readonly why: string
}

/** Authorities (PEM, one each), and whether those that the operating system itself keeps are meant too. */
export interface Trust {
  readonly authorities: ReadonlyArray<string>
  readonly keychain: boolean
}

/** How repositories are reached. */
export interface Routes {
  /** The routes to a repository in the order they are tried. */
  readonly of: (repository: Repository, options: RegistryOptions) => Effect.Effect<ReadonlyArray<Route>, ConfigError | Blocked>
  /** How `host[:port]` is spoken to, whatever names it: the schemes to try, best first, and its TLS. */
  readonly host: (host: string, options: RegistryOptions) => Effect.Effect<Pick<Route, "schemes" | "tls">, ConfigError>
  /** The names that a name without a registry may stand for, in the order they are tried; none: Docker's rule holds. */
  readonly names: (text: string) => Effect.Effect<ReadonlyArray<Candidate>, ConfigError>
  /** Authorities trusted for every host besides Node's: the user's and the machine's. Asked for when a certificate's is not known. */
  readonly trust: Effect.Effect<Trust, ConfigError>
}

/** The routes in force: the registry itself. `config/Load` makes those of the user's configuration. */
export const Routes = Context.Reference<Routes>("registry/Routes", {
  defaultValue: () => ({
    of: (repository, { insecure }) => Effect.succeed([direct(repository, insecure)]), host: (host, { insecure }) => Effect.succeed(plainly(host, insecure)),
    names: () => Effect.succeed([]), trust: Effect.succeed({ authorities: [], keychain: false })
  })
})
