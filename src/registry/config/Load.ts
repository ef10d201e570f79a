import { Config, ConfigProvider, Effect, FileSystem, Layer, Option } from "effect"
import { lookup } from "node:dns/promises"
import { hostOf, hubNames, isAddress, isListed, nameOf, type RegistryOptions, schemes } from "../route/Endpoint.ts"
import { type Candidate, direct, plainTls, type Repository, type Route, Routes, type Tls } from "../route/Route.ts"
import { Blocked, type ConfigError, where } from "./ConfigError.ts"
import * as Daemon from "./Daemon.ts"
import * as Files from "./Files.ts"
import * as Hosts from "./Hosts.ts"
import * as Places from "./Places.ts"
import * as Registries from "./Registries.ts"

/** What names a host by address ranges: its addresses; none where they cannot be found. */
const addresses = (host: string) => isAddress(nameOf(host)) ? Effect.succeed([nameOf(host)]) : Effect.tryPromise(() => lookup(nameOf(host), { all: true })).pipe(
  Effect.map((all) => all.map(({ address }) => address)), Effect.timeout("5 seconds"), Effect.orElseSucceed((): ReadonlyArray<string> => []))

/** `scheme://host[:port][/path]` in its parts. */
const parsed = (url: string) => {
  const { host, pathname, protocol } = new URL(url)
  return { scheme: protocol === "http:" ? "http" : "https", host, path: pathname.replace(/\/$/, "") } as const
}

/** A name without a registry: what Docker would look for on its hub. */
const isShort = (text: string): boolean => {
  const first = text.split("/")[0] ?? ""
  return text !== "" && (!text.includes("/") || !(/[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first))
}

/**
 * The routes that the user's and the system's configuration give. For one repository the first of these that says something is all
 * that is used, so that files of different tools are never mixed:
 * 1. containerd's `certs.d/<host>/hosts.toml` (`docker.io` is Docker Hub)
 * 2. the `[[registry]]` of `registries.conf` with the longest prefix
 * 3. `registry-mirrors` of Docker's `daemon.json`, for Docker Hub
 * 4. containerd's `certs.d/_default/hosts.toml`
 * 5. the registry itself
 *
 * A rule of `registries.conf` that blocks holds whatever else there is. Certificates of `certs.d/<host>` are used with whatever host is
 * asked, and `--insecure` and `insecure-registries` with every rule. Authorities for all hosts are `$SSL_CERT_FILE` or the machine's bundle,
 * and the folders of `$SSL_CERT_DIR` or the machine's. Files are read once, when they are first needed.
 */
export const make = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const provider = yield* ConfigProvider.ConfigProvider
  const places = (yield* Places.Place) ?? (yield* Places.fromEnvironment(provider))
  const files = Files.make(fs)

  const daemon = yield* Effect.cached(Effect.gen(function*() {
    for (const path of places.daemon) {
      const text = yield* files.text(path)
      if (text !== undefined) return { path, ...yield* Effect.fromResult(Daemon.decode(path, text)) }
    }
    return { path: "", mirrors: [], insecure: [] }
  }))

  const registries = yield* Effect.cached(Effect.gen(function*() {
    let all = Registries.empty
    for (const { file, folders } of places.registries) {
      const main = yield* files.text(file)
      if (main === undefined && file !== places.registries.at(-1)?.file) continue
      const dropIns: Array<string> = []
      for (const folder of folders) dropIns.push(...((yield* files.names(folder)) ?? []).filter((name) => name.endsWith(".conf")).sort().map((name) => `${folder}/${name}`))
      for (const path of [...main === undefined ? [] : [file], ...dropIns]) {
        const text = path === file ? main : yield* files.text(path)
        if (text !== undefined) all = Registries.merge(all, yield* Effect.fromResult(Registries.decode(path, text)))
      }
      break
    }
    return all
  }))

  /** Whether the daemon's word or the user's makes a host insecure. */
  const isInsecure = Effect.fnUntraced(function*(host: string, options: RegistryOptions) {
    const { insecure } = yield* daemon
    if (isListed(host, [...options.insecure, ...insecure])) return true
    const ranges = insecure.filter(Daemon.isRange)
    return ranges.length > 0 && (yield* addresses(host)).some((address) => ranges.some((range) => Daemon.within(address, range)))
  })

  /** A host, with all that is known of how to speak to it. */
  const host = Effect.fnUntraced(function*(name: string, options: RegistryOptions, insecure: boolean, more: Tls = plainTls) {
    const open = insecure || (yield* isInsecure(name, options))
    const own = yield* files.certificates(places.certificates, name === hostOf("docker.io") ? [name, "docker.io"] : [name])
    return { host: name, schemes: schemes(name, open ? [name] : []), tls: Files.both(Files.both(more, own), open ? { ...plainTls, verify: false } : plainTls) }
  })

  const itself = Effect.fnUntraced(function*(repository: Repository, options: RegistryOptions) {
    const route = direct(repository, options.insecure)
    return { ...route, ...yield* host(route.host, options, false) }
  })

  /** The routes of a folder with a `hosts.toml`, or certificates alone; undefined: there is no such folder. */
  const fromHosts = Effect.fnUntraced(function*(names: ReadonlyArray<string>, repository: Repository, options: RegistryOptions) {
    const asked = hubNames.includes(repository.domain.toLowerCase()) ? "docker.io" : repository.domain.toLowerCase()
    for (const base of places.hosts) for (const name of names) {
      const folder = `${base}/${name}`
      const listed = yield* files.names(folder)
      if (listed === undefined) continue
      const path = `${folder}/hosts.toml`
      const text = yield* files.text(path)
      const last = yield* itself(repository, options)
      if (text === undefined) return [{ ...last, tls: Files.both(yield* files.certificates([base], [name]), last.tls) }]
      const routes: Array<Route> = []
      for (const entry of yield* Effect.fromResult(Hosts.decode(path, folder, text))) {
        const tls = { ...yield* files.tls(where(path, entry.line), entry), verify: !entry.skipVerify, connect: entry.dialTimeout }
        const shared = { tags: entry.resolve, content: entry.pull, headers: entry.headers, why: where(path, entry.line), domain: repository.domain, path: repository.path }
        if (entry.origin === undefined) {
          routes.push({ ...last, ...shared, tls: Files.both(tls, last.tls), mirror: false })
          continue
        }
        const { host: named, scheme } = parsed(entry.origin)
        const there = yield* host(named, options, false, tls)
        const mirror = named !== last.host
        routes.push({ ...there, ...shared, schemes: [scheme], prefix: entry.path, domain: mirror ? named : repository.domain, query: mirror ? `ns=${encodeURIComponent(asked)}` : "", mirror })
      }
      // The last is the server: what stands for the registry, whoever it is.
      return routes.map((route, index) => index === routes.length - 1 ? { ...route, mirror: false } : { ...route, mirror: true })
    }
    return undefined
  })

  const fromRule = Effect.fnUntraced(function*(rule: Registries.Rule, name: string, repository: Repository, options: RegistryOptions) {
    const one = Effect.fnUntraced(function*(location: string | undefined, insecure: boolean, why: string, mirror: boolean) {
      const served = Registries.rewrite(name, rule.prefix, location)
      const slash = served.indexOf("/")
      const domain = slash < 0 ? served : served.slice(0, slash)
      const there = yield* host(hostOf(domain), options, insecure)
      return { ...there, prefix: "/v2", domain, path: slash < 0 ? "" : served.slice(slash + 1), query: "", why, mirror, tags: true, content: true, headers: {} } satisfies Route
    })
    const mirrors = yield* Effect.forEach(rule.mirrors.filter(({ digests, tags }) => repository.pinned === true ? digests : tags), (mirror) => one(mirror.location, mirror.insecure, mirror.why, true))
    return [...mirrors, yield* one(rule.location, rule.insecure, rule.why, false)]
  })

  const of = Effect.fnUntraced(function*(repository: Repository, options: RegistryOptions): Effect.fn.Return<ReadonlyArray<Route>, ConfigError | Blocked> {
    const domain = hubNames.includes(repository.domain.toLowerCase()) ? "docker.io" : repository.domain.toLowerCase()
    const name = `${domain}/${repository.path}`
    const rule = Registries.find((yield* registries).rules, name)
    if (rule?.blocked === true) return yield* new Blocked({ name, why: rule.why })
    const specific = yield* fromHosts(Hosts.folders(domain), repository, options)
    if (specific !== undefined) return specific
    if (rule !== undefined) return yield* fromRule(rule, name, repository, options)
    const { mirrors, path } = yield* daemon
    if (domain === "docker.io" && mirrors.length > 0) {
      const routes = yield* Effect.forEach(mirrors, Effect.fnUntraced(function*({ line, url }) {
        const { host: named, path: base, scheme } = parsed(url)
        const there = yield* host(named, options, false)
        return { ...there, schemes: [scheme], prefix: `${base}/v2`, domain: named, path: repository.path, query: "", why: where(path, line), mirror: true, tags: true, content: true, headers: {} } satisfies Route
      }))
      return [...routes, yield* itself(repository, options)]
    }
    return (yield* fromHosts(["_default"], repository, options)) ?? [yield* itself(repository, options)]
  })

  const names = Effect.fnUntraced(function*(text: string): Effect.fn.Return<ReadonlyArray<Candidate>, ConfigError> {
    if (!isShort(text)) return []
    const { aliases, search } = yield* registries
    const bare = text.replace(/@.*$/, "").replace(/:[^:/]*$/, "")
    const alias = aliases.get(bare)
    if (alias !== undefined) return [{ name: `${alias.name}${text.slice(bare.length)}`, why: alias.why }]
    return (search?.registries ?? []).map((registry) => ({ name: `${registry}/${text}`, why: search?.why ?? "" }))
  })

  const trust = yield* Effect.cached(Effect.gen(function*() {
    const path = yield* Config.option(Config.String("SSL_CERT_FILE")).pipe(
      Effect.map(Option.getOrElse(() => "")), Effect.orElseSucceed(() => ""), Effect.provideService(ConfigProvider.ConfigProvider, provider))
    const named = path === "" ? undefined : (yield* files.tls("$SSL_CERT_FILE", { ca: [path], client: [] })).ca.flatMap(Files.each)
    const { authorities: { files: bundles, folders, keychain } } = places
    const found = new Set(named)
    for (const bundle of named === undefined ? bundles : []) {
      const all = yield* files.authorities(bundle)
      for (const one of all ?? []) found.add(one)
      if (all !== undefined) break
    }
    for (const folder of folders) for (const name of (yield* files.names(folder)) ?? []) for (const one of (yield* files.authorities(`${folder}/${name}`)) ?? []) found.add(one)
    return { authorities: [...found], keychain: keychain && named === undefined }
  }))

  return { of, host: (name, options) => host(name.toLowerCase(), options, false), names, trust } satisfies Routes
})

/** The routes of the user's configuration. */
export const layer: Layer.Layer<never, never, FileSystem.FileSystem> = Layer.effect(Routes, make)
