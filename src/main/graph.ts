import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Cli from "./Cli.ts"
import { limits } from "./LimitFlags.ts"
import * as Network from "./NetworkFlags.ts"
import * as RootFs from "./RootFsFlags.ts"
import { version } from "./version.ts"

const verbs = Effect.promise(() => import("./commands/GraphCommand.ts"))
const upkeep = Effect.promise(() => import("./commands/UpkeepCommand.ts"))
const names = Argument.String("image").pipe(
  Argument.withDescription("name:tag, name@digest, an image id or the first digits of one"), Argument.variadic({ min: 1 }))
const flags = { store: Cli.store, json: Cli.json }

const lists = Effect.promise(() => import("./commands/ListCommand.ts"))
const ls = Command.make("ls", {
  ...flags,
  names: Argument.String("name").pipe(Argument.withDescription("Only these: name, name:tag, or a pattern with * and ? (default: all)"), Argument.variadic({ min: 0 })),
  all: Flag.Boolean("all").pipe(Flag.withAlias("a"), Flag.withDescription("Also images without a tag that only others stand on, as the steps of old images do"), Flag.withoutNegation, Flag.withDefault(false)),
  untagged: Flag.Boolean("untagged").pipe(Flag.withDescription("Only images without a tag; --no-untagged: only tags"), Flag.optional),
  platform: Flag.String("platform").pipe(Flag.withDescription("Only images for os/arch[/variant]"), Flag.withMetavar("OS/ARCH"), Flag.optional),
  labels: Flag.String("label").pipe(Flag.withDescription("Only images with this label (may be repeated)"), Flag.withMetavar("KEY[=VALUE]"), Flag.atLeast(0)),
  newer: Cli.age("newer-than").pipe(Flag.withDescription("Only what was tagged or came here since so long"), Flag.optional),
  older: Cli.age("older-than").pipe(Flag.withDescription("Only what was tagged or came here longer ago"), Flag.optional),
  digests: Flag.Boolean("digests").pipe(Flag.withDescription("Show what each tag led to: the digest to pin"), Flag.withoutNegation, Flag.withDefault(false))
}, (flags) => Effect.flatMap(lists, ({ ls }) => ls(flags))).pipe(
  Command.withDescription("List tags and images: the size of their blobs, and what no other image needs of blobs and unpacked layers"),
  Command.withExamples([
    { command: "graph ls", description: "A line for each tag, and for each image without one" },
    { command: "graph ls 'debian:*' --digests", description: "The tags of a repository, and the digests to pin" }
  ]))

const tree = Command.make("tree", flags, (flags) => Effect.flatMap(lists, ({ tree }) => tree(flags))).pipe(
  Command.withDescription("Draw the graph: which images stand on which, the layers they share, and the tags at its heads"),
  Command.withExamples([{ command: "graph tree", description: "All images, each under what it stands on" }]))

const show = Command.make("show", { ...flags, names }, (flags) => Effect.flatMap(verbs, ({ show }) => show(flags))).pipe(
  Command.withDescription("Show images: digests, platform, layers and config"),
  Command.withExamples([{ command: "graph show debian:12", description: "What the tag points at, its layers, and what it runs" }]))

const rm = Command.make("rm", { ...flags, names }, (flags) => Effect.flatMap(verbs, ({ rm }) => rm(flags))).pipe(
  Command.withDescription("Remove tags, and images with their last tag"),
  Command.withExamples([{ command: "graph rm debian:12", description: "Remove the tag, and what only it needed" }]))

const check = Command.make("check", {
  ...flags,
  repair: Flag.Boolean("repair").pipe(
    Flag.withDescription("Fetch damaged blobs again and unpack damaged layers again; what cannot be mended goes to the store's folder quarantine"),
    Flag.withoutNegation, Flag.withDefault(false)),
  quiet: Cli.quiet, ...Network.flags
}, (flags) => Effect.flatMap(upkeep, ({ check }) => check(flags))).pipe(
  Command.withDescription("Hash every blob again, compare every unpacked layer with its blob, and look for what has no partner; exit code 6 if something is wrong. The flags of the network are --repair's"),
  Command.withExamples([
    { command: "graph check", description: "Say whether the store is sound" },
    { command: "graph check --repair", description: "And mend what is not" }
  ]))

const gc = Command.make("gc", {
  ...flags,
  dryRun: Flag.Boolean("dry-run").pipe(Flag.withDescription("Say what would go; change nothing"), Flag.withoutNegation, Flag.withDefault(false)),
  keepStorage: Cli.size("keep-storage").pipe(Flag.withDescription("Stop once the store has no more than so many bytes; longest unused goes first"), Flag.optional),
  olderThan: Cli.age("older-than").pipe(
    Flag.withDescription("Only what has had no name for so long (default: images at once, blobs without an image after 1h, partial blobs after 7d, what a repair put away after 30d)"), Flag.optional),
  keepPartials: Cli.size("keep-partials").pipe(Flag.withDescription("Bytes of partial blobs to keep, the latest (default: 8GiB)"), Flag.optional),
  keepLast: Flag.Int("keep-last").pipe(Flag.withDescription("Keep what the last N values of each tag were (default: 1, the present one)"), Flag.withMetavar("N"), Flag.withDefault(1),
    Flag.filter((count) => count >= 1, () => "1 or more")),
  dropBlobs: Flag.Boolean("drop-blobs").pipe(
    Flag.withDescription("Give up the compressed form of layers that are unpacked and can be fetched again; the digests of their files are recorded first, and check goes by them"),
    Flag.withoutNegation, Flag.withDefault(false)),
  quiet: Cli.quiet
}, (flags) => Effect.flatMap(upkeep, ({ gc }) => gc(flags))).pipe(
  Command.withDescription("Remove images without a tag, and blobs, layers and partial blobs that nothing needs"),
  Command.withExamples([
    { command: "graph gc --dry-run", description: "Say what would go" },
    { command: "graph gc --older-than 7d --keep-last 3", description: "Keep a week's leavings, and what each tag was the last three times" },
    { command: "graph gc --drop-blobs", description: "Keep unpacked layers alone, where their blobs can be fetched again" }
  ]))

const du = Command.make("du", flags, (flags) => Effect.flatMap(upkeep, ({ du }) => du(flags))).pipe(
  Command.withDescription("Show what the store takes: blobs, unpacked layers, partial blobs; by image, unique and shared"),
  Command.withExamples([{ command: "graph du", description: "What each image takes, and what gc would free" }]))

const log = Command.make("log", {
  ...flags,
  names: Argument.String("tag").pipe(Argument.withDescription("name:tag (default: every tag)"), Argument.variadic({ min: 0 }))
}, (flags) => Effect.flatMap(upkeep, ({ log }) => log(flags))).pipe(
  Command.withDescription("Show what tags pointed to, when, and which endpoint answered; the latest first"),
  Command.withExamples([{ command: "graph log debian:12", description: "Every value the tag had; pull --rollback debian:12 goes one back" }]))

const filesVerbs = Effect.promise(() => import("./commands/FilesCommand.ts"))
const oneImage = (name: string) => Argument.String(name).pipe(Argument.withDescription("name:tag, name@digest, an image id or the first digits of one"))

const files = Command.make("files", {
  ...flags, image: oneImage("image"),
  path: Argument.String("path").pipe(Argument.withDescription("Only this file, or what is in this folder (default: all)"), Argument.withDefault("/")),
  hash: Flag.Boolean("hash").pipe(Flag.withDescription("Show the SHA-256 of every file"), Flag.withoutNegation, Flag.withDefault(false))
}, (flags) => Effect.flatMap(filesVerbs, ({ files }) => files(flags))).pipe(
  Command.withDescription("List the files of an image, its layers merged, without unpacking"),
  Command.withExamples([{ command: "graph files debian:12 /etc", description: "What the image has in /etc" }]))

const cat = Command.make("cat", {
  store: Cli.store, image: oneImage("image"), path: Argument.String("file").pipe(Argument.withDescription("The file's path in the image"))
}, (flags) => Effect.flatMap(filesVerbs, ({ cat }) => cat(flags))).pipe(
  Command.withDescription("Write a file of an image to stdout, without unpacking"),
  Command.withExamples([{ command: "graph cat debian:12 /etc/os-release", description: "Show one file" }]))

const diff = Command.make("diff", { ...flags, before: oneImage("before"), after: oneImage("after") }, (flags) => Effect.flatMap(filesVerbs, ({ diff }) => diff(flags))).pipe(
  Command.withDescription("Show how two images differ: layers, config, files (A added, D removed, C changed)"),
  Command.withExamples([{ command: "graph diff debian:11 debian:12", description: "What changed from one to the other" }]))

const load = Command.make("load", {
  ...flags,
  file: Argument.String("file").pipe(Argument.withDescription("An archive, the folder of an OCI layout, or - for an archive on standard input")),
  platform: Flag.String("platform").pipe(
    Flag.withDescription("os/arch[/variant] to choose of an image for several, or all for every image and artifact of an index (default: this host's)"), Flag.withMetavar("OS/ARCH"), Flag.optional),
  unpack: Flag.Boolean("unpack").pipe(Flag.withDescription("Unpack the layers into the store (default: yes)"), Flag.withDefault(true)),
  limits, durability: Cli.durability, progress: Cli.progress, quiet: Cli.quiet
}, (flags) => Effect.flatMap(Effect.promise(() => import("./commands/LoadCommand.ts")), ({ load }) => load(flags))).pipe(
  Command.withDescription("Load the images of an archive: what docker save and podman save write, of any age, or an OCI layout; plain or compressed"),
  Command.withExamples([
    { command: "graph load app.tar.gz", description: "Load what docker save wrote" },
    { command: "ssh host docker save app:1 | graph load -", description: "Load an archive as it comes" },
    { command: "graph load ./layout", description: "Load an OCI layout" }
  ]))

const save = Command.make("save", {
  ...flags, ...Network.flags, names,
  output: Flag.String("output").pipe(Flag.withAlias("o"), Flag.withDescription("The file to write (default: stdout), or with --format oci the folder"), Flag.withMetavar("PATH"), Flag.optional),
  format: Flag.Literals("format", ["docker-archive", "oci-archive", "oci", "docker-1.9"]).pipe(
    Flag.withDescription("docker-archive: what docker, podman and skopeo load, and a layout that keeps digests; oci-archive: an OCI layout alone; oci: a layout's folder, to which is added what it has not; docker-1.9: schema1 and v1 images as Docker 1.9 saved them (default: docker-archive; with artifacts oci-archive)"),
    Flag.optional)
}, (flags) => Effect.flatMap(Effect.promise(() => import("./commands/SaveCommand.ts")), ({ save }) => save(flags))).pipe(
  Command.withDescription("Write images as an archive that graph load, docker load, podman load and skopeo read, or as an OCI layout; layers whose compressed form was given up are fetched again"),
  Command.withExamples([
    { command: "graph save debian:12 -o debian.tar", description: "Write an image to a file" },
    { command: "graph save debian:12 | ssh host docker load", description: "Send an image to another machine's Docker" }
  ]))

const old = Effect.promise(() => import("./commands/OldCommand.ts"))
const image = Argument.String("image").pipe(Argument.withDescription("name:tag, name@digest, an image id or the first digits of one"))

const tag = Command.make("tag", {
  ...flags, image,
  name: Argument.String("name").pipe(Argument.withDescription("The new name: name, name:tag or name@digest")),
  force: Flag.Boolean("force").pipe(Flag.withAlias("f"), Flag.withDescription("Move a tag that names another image; a digest never moves"), Flag.withoutNegation, Flag.withDefault(false))
}, (flags) => Effect.flatMap(old, ({ tag }) => tag(flags))).pipe(
  Command.withDescription("Give an image one more name"),
  Command.withExamples([{ command: "graph tag debian:12 127.0.0.1:5000/debian:mine", description: "Name an image for another registry" }]))

const set = Command.make("set", {
  store: Cli.store, durability: Cli.durability,
  id: Argument.String("id").pipe(Argument.withDescription("The image's id: 64 hexadecimal digits")),
  json: Flag.String("json").pipe(Flag.withDescription("The file with the image's JSON, which is kept byte for byte"), Flag.withMetavar("FILE"))
}, (flags) => Effect.flatMap(old, ({ set }) => set(flags))).pipe(
  Command.withDescription("Add one image of Docker's old graph: its JSON from a file, its layer's tar (plain or compressed; none is a layer too) from standard input"),
  Command.withExamples([{ command: "graph set $(cat id) --json json < layer.tar", description: "Add an image from the parts of a v1 archive" }]))

const history = Command.make("history", {
  ...flags, image,
  v1: Flag.Boolean("v1").pipe(Flag.withDescription("Show v1 IDs too: by these a v1 registry would know the images"), Flag.withoutNegation, Flag.withDefault(false))
}, (flags) => Effect.flatMap(old, ({ history }) => history(flags))).pipe(
  Command.withDescription("Show how an image was made, newest step first; for schema1 and v1 images with the image of each step"),
  Command.withExamples([{ command: "graph history debian:7", description: "Each step, when, and how many bytes it added" }]))

const rootfs = Command.make("rootfs", {
  ...flags, image, ...RootFs.flags, limits,
  target: Argument.String("target").pipe(Argument.withDescription("A new or empty folder, or tar:FILE or tar:- for one tar archive of it with all owners, devices and attributes, whoever writes it"))
}, (flags) => Effect.flatMap(Effect.promise(() => import("./commands/RootFsCommand.ts")), ({ rootfs }) => rootfs(flags))).pipe(
  Command.withDescription("Write an image's root file system, without a registry"),
  Command.withExamples([
    { command: "graph rootfs debian:12 ./root", description: "To a folder" },
    { command: "graph rootfs debian:12 tar:- | ssh host tar -x -C /srv/root --xattrs", description: "As one archive, to another machine" },
    { command: "graph rootfs --link hardlink debian:12 ./look", description: "At once and for reading only: its files are the store's" }
  ]))

Cli.main(Command.make("graph").pipe(
  Command.withDescription("Look at and change the local image graph."),
  Command.withSubcommands([ls, tree, show, history, files, cat, diff, tag, rm, load, save, rootfs, set, check, gc, du, log])
), version)
