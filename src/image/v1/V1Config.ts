import { elements, fields, GoDecode, type List } from "./go/GoDecode.ts"
import { type GoValue, quote } from "./go/GoJson.ts"
import * as GoText from "./go/GoText.ts"

/** A value of an unmarshaler of its own was wrong: reading ends at once. `rule` is the class of error; thrown within this folder. */
export class Broken extends Error {
  readonly rule: "json" | "created"
  readonly field: string
  readonly reason: string

  constructor(rule: "json" | "created", field: string, reason: string) {
    super(`${field}: ${reason}`)
    this.rule = rule
    this.field = field
    this.reason = reason
  }
}

/** Every field of a container's configuration as 1.9.1 wrote them, in that order; true: left out when empty or false. */
const order = [
  ["Hostname", "string", false], ["Domainname", "string", false], ["User", "string", false], ["AttachStdin", "boolean", false],
  ["AttachStdout", "boolean", false], ["AttachStderr", "boolean", false], ["ExposedPorts", "set", true], ["PublishService", "string", true],
  ["Tty", "boolean", false], ["OpenStdin", "boolean", false], ["StdinOnce", "boolean", false], ["Env", "list", false], ["Cmd", "words", false],
  ["Image", "string", false], ["Volumes", "set", false], ["WorkingDir", "string", false], ["Entrypoint", "words", false],
  ["NetworkDisabled", "boolean", true], ["MacAddress", "string", true], ["OnBuild", "list", false], ["Labels", "labels", false],
  ["StopSignal", "string", true]
] as const
type Order = (typeof order)[number]
type Name<K extends Order[1]> = Extract<Order, readonly [string, K, boolean]>[0]

/**
 * How a container was run, as 1.9.1 knew it (`config` and `container_config`). A missing list or map is `undefined`, an
 * empty one is not. Fields 1.9.1 did not know are dropped.
 */
export class V1Config {
  private readonly strings = new Map<string, string>()
  private readonly booleans = new Map<string, boolean>()
  private readonly lists = new Map<string, List<string> | undefined>()
  private readonly sets = new Map<string, Map<string, undefined> | undefined>()
  private labelMap: Map<string, string> | undefined

  /** "" when missing. */
  string(name: Name<"string">): string {
    return this.strings.get(name) ?? ""
  }

  /** False when missing. */
  boolean(name: Name<"boolean">): boolean {
    return this.booleans.get(name) ?? false
  }

  list(name: Name<"list" | "words">): ReadonlyArray<string> | undefined {
    const list = this.lists.get(name)
    return list && elements(list)
  }

  /** The keys of a map to empty objects. */
  set(name: Name<"set">): ReadonlyArray<string> | undefined {
    const set = this.sets.get(name)
    return set && [...set.keys()]
  }

  get labels(): ReadonlyMap<string, string> | undefined {
    return this.labelMap
  }

  /** Reads one more object over what is there already. Throws `Broken`. */
  read(decode: GoDecode, value: GoValue, field: string): void {
    decode.struct(value, field, V1Config.fields, this)
  }

  private static readonly fields = fields<V1Config>(order.map((entry) =>
    [entry[0], (config, value, field, decode) => config.readField(decode, entry, value, field)]))
  private static readonly empty = fields<undefined>([])

  private readField(decode: GoDecode, entry: Order, value: GoValue, field: string): void {
    const [name, kind] = entry
    if (kind === "string") this.strings.set(name, decode.string(value, field, this.string(name)))
    else if (kind === "boolean") this.booleans.set(name, decode.boolean(value, field, this.boolean(name)))
    else if (kind === "list") this.lists.set(name, decode.strings(value, field, this.lists.get(name)))
    else if (kind === "words") this.lists.set(name, words(value, field))
    else if (kind === "labels") this.labelMap = decode.map(value, field, this.labelMap, (member, field) => decode.string(member, field, ""))
    else this.sets.set(name, decode.map(value, field, this.sets.get(name), (member, field) => decode.struct(member, field, V1Config.empty, undefined)))
  }

  /** As 1.9.1 wrote it. */
  print(): string {
    const written = order.flatMap((entry) => {
      const [name, , omitEmpty] = entry
      const value = this.printField(entry)
      return omitEmpty && (value === "\"\"" || value === "false" || value === "null" || value === "{}") ? [] : [`${quote(name)}:${value}`]
    })
    return `{${written.join(",")}}`
  }

  private printField(entry: Order): string {
    const [name, kind] = entry
    if (kind === "string") return quote(this.string(name))
    if (kind === "boolean") return String(this.boolean(name))
    if (kind === "labels") return printMap(this.labelMap, quote)
    if (kind === "set") return printMap(this.sets.get(name), () => "{}")
    const list = this.list(name)
    return list === undefined ? "null" : `[${list.map(quote).join(",")}]`
  }
}

const printMap = <A>(map: ReadonlyMap<string, A> | undefined, print: (value: A) => string): string =>
  map === undefined ? "null"
    : `{${[...map].sort(([one], [other]) => GoText.compare(one, other)).map(([key, value]) => `${quote(key)}:${print(value)}`).join(",")}}`

/** A list of strings, or one string alone. */
const words = (value: GoValue, field: string): List<string> | undefined => {
  const decode = new GoDecode()
  const list = decode.strings(value, field, undefined)
  if (decode.mismatch === undefined) return list
  if (value.kind === "string") return { slots: [value.string], length: 1 }
  throw new Broken("json", decode.mismatch.field, decode.mismatch.reason)
}
