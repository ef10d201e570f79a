import { Config, ConfigProvider, Context, Effect, Option } from "effect"

/** Where the configuration of others is looked for; in each list the first that has something for a host wins. */
export interface Places {
  /** Folders of containerd's `<host>/hosts.toml`. */
  readonly hosts: ReadonlyArray<string>
  /** Folders of `<host>/*.crt`, `*.cert` and `*.key`, as Docker and containers have them. */
  readonly certificates: ReadonlyArray<string>
  /** `registries.conf`: the first that is there, with the drop-ins of its folders. */
  readonly registries: ReadonlyArray<{ readonly file: string; readonly folders: ReadonlyArray<string> }>
  /** Docker's `daemon.json`: the first that is there. */
  readonly daemon: ReadonlyArray<string>
  /** Certificate authorities that this machine trusts: the first file that is there, all files of the folders, and (`keychain`) what the operating system itself keeps. */
  readonly authorities: { readonly files: ReadonlyArray<string>; readonly folders: ReadonlyArray<string>; readonly keychain: boolean }
}

/** Nowhere. */
export const nowhere: Places = { hosts: [], certificates: [], registries: [], daemon: [], authorities: { files: [], folders: [], keychain: false } }

/** The places in force; undefined: those of `fromEnvironment`. */
export const Place = Context.Reference<Places | undefined>("registry/Places", { defaultValue: () => undefined })

/**
 * The usual places, the user's before the system's:
 * - hosts.toml: `~/.config/containerd/certs.d`, `/etc/containerd/certs.d`
 * - certificates: `~/.config/docker/certs.d`, `~/.docker/certs.d`, `/etc/docker/certs.d`, `~/.config/containers/certs.d`, `/etc/containers/certs.d`
 * - registries.conf: `$CONTAINERS_REGISTRIES_CONF` alone with the system's and the user's drop-ins; else `~/.config/containers/registries.conf`
 *   with the user's drop-ins; else `/etc/containers/registries.conf` with both
 * - daemon.json: `~/.config/docker/daemon.json`, `~/.docker/daemon.json`, `/etc/docker/daemon.json`
 *
 * - authorities: the bundles and folders where Linux distributions keep them (as Go looks for them), the folders of `$SSL_CERT_DIR` in place
 *   of those; on macOS and Windows the system's own
 *
 * `$XDG_CONFIG_HOME` stands for `~/.config`, `$DOCKER_CONFIG` for `~/.docker`, `$TOWLINE_ETC` for `/etc`.
 */
export const fromEnvironment = (provider: ConfigProvider.ConfigProvider): Effect.Effect<Places> => Effect.gen(function*() {
  const read = (name: string) => Config.option(Config.String(name)).pipe(
    Effect.map(Option.getOrElse(() => "")), Effect.orElseSucceed(() => ""), Effect.provideService(ConfigProvider.ConfigProvider, provider))
  const home = yield* read("HOME")
  const named = yield* read("XDG_CONFIG_HOME")
  const docker = (yield* read("DOCKER_CONFIG")) || (home === "" ? "" : `${home}/.docker`)
  const user = named !== "" ? named : home === "" ? "" : `${home}/.config`
  const system = (yield* read("TOWLINE_ETC")) || "/etc"
  const conf = yield* read("CONTAINERS_REGISTRIES_CONF")
  const certificates = yield* read("SSL_CERT_DIR")
  const of = (folder: string, rest: string) => folder === "" ? [] : [`${folder}/${rest}`]
  const drop = { system: of(system, "containers/registries.conf.d"), user: of(user, "containers/registries.conf.d") }
  const both = [...drop.system, ...drop.user]
  return {
    hosts: [...of(user, "containerd/certs.d"), ...of(system, "containerd/certs.d")],
    certificates: [
      ...of(user, "docker/certs.d"), ...of(docker, "certs.d"), ...of(system, "docker/certs.d"), ...of(user, "containers/certs.d"), ...of(system, "containers/certs.d")
    ],
    registries: conf !== "" ? [{ file: conf, folders: both }] : [
      ...of(user, "containers/registries.conf").map((file) => ({ file, folders: drop.user })), { file: `${system}/containers/registries.conf`, folders: both }
    ],
    authorities: {
      files: ["ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt", "ssl/ca-bundle.pem", "pki/tls/cacert.pem", "pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "ssl/cert.pem"]
        .map((rest) => `${system}/${rest}`),
      folders: certificates === "" ? [`${system}/ssl/certs`, `${system}/pki/tls/certs`] : certificates.split(":").filter((path) => path !== ""),
      keychain: process.platform === "darwin" || process.platform === "win32"
    },
    daemon: [...of(user, "docker/daemon.json"), ...of(docker, "daemon.json"), `${system}/docker/daemon.json`]
  }
})
