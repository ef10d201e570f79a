import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Cli from "./Cli.ts"
import * as RootFs from "./RootFsFlags.ts"
import { version } from "./version.ts"

const verbs = Effect.promise(() => import("./GraphCommand.ts"))
const names = Argument.String("image").pipe(
  Argument.withDescription("name:tag, name@digest, an image id or the first digits of one"), Argument.variadic({ min: 1 }))
const flags = { store: Cli.store, json: Cli.json }

const ls = Command.make("ls", flags, (flags) => Effect.flatMap(verbs, ({ ls }) => ls(flags))).pipe(
  Command.withDescription("List tags and images"),
  Command.withExamples([{ command: "graph ls", description: "A line for each tag, and for each image without one" }]))

const show = Command.make("show", { ...flags, names }, (flags) => Effect.flatMap(verbs, ({ show }) => show(flags))).pipe(
  Command.withDescription("Show images: digests, platform, layers and config"),
  Command.withExamples([{ command: "graph show debian:12", description: "What the tag points at, its layers, and what it runs" }]))

const rm = Command.make("rm", { ...flags, names }, (flags) => Effect.flatMap(verbs, ({ rm }) => rm(flags))).pipe(
  Command.withDescription("Remove tags, and images with their last tag"),
  Command.withExamples([{ command: "graph rm debian:12", description: "Remove the tag, and what only it needed" }]))

const check = Command.make("check", flags, (flags) => Effect.flatMap(verbs, ({ check }) => check(flags))).pipe(
  Command.withDescription("Hash every blob again and look for what has no partner; exit code 6 if something is wrong"),
  Command.withExamples([{ command: "graph check", description: "Say whether the store is sound" }]))

const load = Command.make("load", {
  ...flags,
  file: Argument.String("file").pipe(Argument.withDescription("An archive, the folder of an OCI layout, or - for an archive on standard input")),
  platform: Flag.String("platform").pipe(
    Flag.withDescription("os/arch[/variant] to choose of an image for several (default: this host's)"), Flag.withMetavar("OS/ARCH"), Flag.optional),
  unpack: Flag.Boolean("unpack").pipe(Flag.withDescription("Unpack the layers into the store (default: yes)"), Flag.withDefault(true)),
  durability: Cli.durability, progress: Cli.progress, quiet: Cli.quiet
}, (flags) => Effect.flatMap(Effect.promise(() => import("./LoadCommand.ts")), ({ load }) => load(flags))).pipe(
  Command.withDescription("Load the images of an archive: what docker save and podman save write, of any age, or an OCI layout; plain or compressed"),
  Command.withExamples([
    { command: "graph load app.tar.gz", description: "Load what docker save wrote" },
    { command: "ssh host docker save app:1 | graph load -", description: "Load an archive as it comes" },
    { command: "graph load ./layout", description: "Load an OCI layout" }
  ]))

const save = Command.make("save", {
  store: Cli.store, names,
  output: Flag.String("output").pipe(Flag.withAlias("o"), Flag.withDescription("The file to write (default: stdout)"), Flag.withMetavar("FILE"), Flag.optional),
  format: Flag.Literals("format", ["docker-archive", "oci-archive"]).pipe(
    Flag.withDescription("docker-archive: what docker, podman and skopeo load, and a layout that keeps digests; oci-archive: an OCI layout alone (default: docker-archive)"),
    Flag.withDefault("docker-archive"))
}, (flags) => Effect.flatMap(Effect.promise(() => import("./SaveCommand.ts")), ({ save }) => save(flags))).pipe(
  Command.withDescription("Write images as an archive that graph load, docker load, podman load and skopeo read"),
  Command.withExamples([
    { command: "graph save debian:12 -o debian.tar", description: "Write an image to a file" },
    { command: "graph save debian:12 | ssh host docker load", description: "Send an image to another machine's Docker" }
  ]))

const old = Effect.promise(() => import("./OldCommand.ts"))
const image = Argument.String("image").pipe(Argument.withDescription("name:tag, name@digest, an image id or the first digits of one"))

const tag = Command.make("tag", {
  store: Cli.store, image,
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
  store: Cli.store, image, ...RootFs.flags,
  target: Argument.String("target").pipe(Argument.withDescription("A new or empty folder, or tar:FILE or tar:- for one tar archive of it with all owners, devices and attributes, whoever writes it"))
}, (flags) => Effect.flatMap(Effect.promise(() => import("./RootFsCommand.ts")), ({ rootfs }) => rootfs(flags))).pipe(
  Command.withDescription("Write an image's root file system, without a registry"),
  Command.withExamples([
    { command: "graph rootfs debian:12 ./root", description: "To a folder" },
    { command: "graph rootfs debian:12 tar:- | ssh host tar -x -C /srv/root --xattrs", description: "As one archive, to another machine" },
    { command: "graph rootfs --link hardlink debian:12 ./look", description: "At once and for reading only: its files are the store's" }
  ]))

Cli.main(Command.make("graph").pipe(
  Command.withDescription("Look at and change the local image graph."),
  Command.withSubcommands([ls, show, history, tag, rm, load, save, rootfs, set, check])
), version)
