import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Cli from "./Cli.ts"
import { limits } from "./LimitFlags.ts"
import * as Network from "./NetworkFlags.ts"
import * as RootFs from "./RootFsFlags.ts"
import { version } from "./version.ts"

const command = Command.make("pull", {
  references: Argument.String("reference").pipe(
    Argument.withDescription("What to pull: name, name:tag, name@digest, host:port/name:tag"), Argument.variadic({ min: 1 })),
  store: Cli.store,
  allTags: Flag.Boolean("all-tags").pipe(Flag.withAlias("a"), Flag.withDescription("Pull every tag of the repository"), Flag.withoutNegation, Flag.withDefault(false)),
  platform: Flag.String("platform").pipe(Flag.withDescription("os/arch[/variant] to choose, or all for every image and artifact of an index (default: this host's)"), Flag.withMetavar("OS/ARCH"), Flag.optional),
  jobs: Flag.Int("jobs").pipe(Flag.withAlias("j"), Flag.withDescription("Blobs to fetch at a time, 1 to 64 (default: 4)"), Flag.withMetavar("N"), Flag.withDefault(4),
    Flag.filter((jobs) => jobs >= 1 && jobs <= 64, () => "1 to 64")),
  rootfs: Cli.folder("rootfs").pipe(Flag.withDescription("Write the image's root file system to a new or empty folder"), Flag.optional),
  unpack: Flag.Boolean("unpack").pipe(Flag.withDescription("Unpack the layers into the store (default: yes, unless --rootfs is given)"), Flag.optional),
  ...RootFs.flags,
  outputs: Flag.String("output").pipe(Flag.withDescription("Also write the image: oci:DIR, oci-archive:FILE, docker-archive:FILE; tar:FILE or tar:- is its root file system as one tar archive (may be repeated)"), Flag.withMetavar("KIND:PATH"), Flag.atLeast(0)),
  limits,
  ...Network.flags,
  trustKeys: Flag.String("trust-key").pipe(
    Flag.withDescription("A public key (PEM or JWK) of which one must have signed a schema1 manifest (may be repeated; default: any key, whose signature must verify)"),
    Flag.withMetavar("FILE"), Flag.atLeast(0)),
  docker19: Flag.Boolean("docker-1.9").pipe(
    Flag.withDescription("Choose endpoints and protocols as Docker 1.9.1 did, v1 after v2 failures too, and check no signatures"), Flag.withoutNegation, Flag.withDefault(false)),
  durability: Flag.Literals("durability", ["safe", "fast"]).pipe(
    Flag.withDescription("safe: unpacked files outlive a power loss; fast: do not wait for them (default: safe)"), Flag.withDefault("safe")),
  progress: Flag.Literals("progress", ["auto", "tty", "plain", "json", "docker-1.9", "events", "quiet"]).pipe(
    Flag.withDescription("How progress is shown on stderr; json: the lines of Docker's API; docker-1.9: its stream in Docker 1.9.1, byte for byte; events: one event a line (default: auto)"), Flag.withDefault("auto")),
  quiet: Flag.Boolean("quiet").pipe(Flag.withAlias("q"), Flag.withDescription("No progress; print the digest alone"), Flag.withoutNegation, Flag.withDefault(false)),
  explain: Flag.Boolean("explain").pipe(
    Flag.withDescription("Say what would be done and why: endpoints, credentials, platforms, layers; write nothing"), Flag.withoutNegation, Flag.withDefault(false)),
  rollback: Flag.Boolean("rollback").pipe(
    Flag.withDescription("Let the tags point at what they pointed at before; once more goes one further back (graph log shows it)"),
    Flag.withoutNegation, Flag.withDefault(false)),
  json: Cli.json
}, ({ explain, rollback, ...flags }) => explain
  ? Effect.flatMap(Effect.promise(() => import("./commands/ExplainCommand.ts")), ({ explain }) => explain(flags))
  : rollback
  ? Effect.flatMap(Effect.promise(() => import("./commands/RollbackCommand.ts")), ({ rollback }) => rollback(flags))
  : Effect.flatMap(Effect.promise(() => import("./commands/PullCommand.ts")), ({ pull }) => pull(flags))).pipe(
  Command.withDescription("Pull container images into a local store, verified and in parallel, without a daemon."),
  Command.withExamples([
    { command: "pull debian:12", description: "Pull an image of Docker Hub for this host's platform" },
    { command: "pull -a 127.0.0.1:5000/app", description: "Pull every tag of a repository" },
    { command: "pull --explain debian:12", description: "Say where it would come from, by which rule, and what is missing" },
    { command: "pull 127.0.0.1:5000/app:1 --rootfs ./root", description: "Write its root file system to a folder" },
    { command: "pull --platform all app:1 --output oci:./layout", description: "Pull the images for every platform, and write them with their index" },
    { command: "pull --rollback app:1", description: "Let the tag point at what it was before" },
    { command: "pull -q --platform linux/arm64 alpine:3.20 --output oci:./layout", description: "Write another platform's image as an OCI layout; print its digest alone" }
  ])
)

Cli.main(command, version)
