import { Result, Schema } from "effect"
import { fields, GoDecode, type Read } from "./go/GoDecode.ts"
import * as GoJson from "./go/GoJson.ts"
import * as GoTime from "./go/GoTime.ts"
import { Broken, V1Config } from "./V1Config.ts"

/**
 * An image's old JSON (one `v1Compatibility`, a v1 registry's or archive's `json`) does not fit 1.9.1's record. `rule` is
 * `created` when that time is wrong, else `json`; `field` is "" when the text is no JSON at all.
 */
export class InvalidV1Image extends Schema.TaggedError<InvalidV1Image>()("InvalidV1Image", {
  rule: Schema.Literals(["json", "created"]),
  field: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return this.field === "" ? this.reason : `${this.field}: ${this.reason}`
  }
}

const names = ["id", "parent", "comment", "container", "docker_version", "author", "architecture", "os", "parent_id", "layer_id"] as const

/** What Docker 1.9.1 knew of an image. Texts are "" when missing. */
export class V1Image {
  private readonly strings = new Map<string, string>()
  /** As Go prints it (RFC 3339). */
  created = GoTime.zero
  size = 0n
  readonly containerConfig = new V1Config()
  config: V1Config | undefined

  string(name: (typeof names)[number]): string {
    return this.strings.get(name) ?? ""
  }

  /** The 64 hexadecimal digits by which v1 knows the image; the form is not checked here. */
  get id(): string {
    return this.string("id")
  }

  get parent(): string {
    return this.string("parent")
  }

  /** Reads the document into this record. Throws `Broken`. */
  read(decode: GoDecode, document: GoJson.GoValue): void {
    decode.struct(document, "", V1Image.fields, this)
  }

  private static readonly fields = fields<V1Image>([
    ...names.map((name): readonly [string, Read<V1Image>] =>
      [name, (image, value, field, decode) => image.strings.set(name, decode.string(value, field, image.string(name)))]),
    ["created", (image, value, field) => {
      if (value.kind === "null") return
      const time = GoTime.reprint(value.source)
      if ("reason" in time) throw new Broken("created", field, time.reason)
      image.created = time.text
    }],
    ["container_config", (image, value, field, decode) => image.containerConfig.read(decode, value, field)],
    ["config", (image, value, field, decode) => {
      if (value.kind === "null") image.config = undefined
      else (image.config ??= new V1Config()).read(decode, value, field)
    }],
    ["Size", (image, value, field, decode) => {
      image.size = decode.int64(value, field, image.size)
    }]
  ])

  /** The fields as 1.9.1 wrote them: JSON texts by key, those it left out missing. */
  print(): Map<string, string> {
    const written = new Map(names.filter((name) => this.string(name) !== "").map((name): [string, string] => [name, GoJson.quote(this.string(name))]))
    written.set("created", GoJson.quote(this.created)).set("container_config", this.containerConfig.print())
    if (this.config !== undefined) written.set("config", this.config.print())
    if (this.size !== 0n) written.set("Size", String(this.size))
    return written
  }
}

/**
 * Reads one image's old JSON as Docker 1.9.1 did (docker: image.NewImgJSON): unknown fields and wrong types in them do not
 * matter, `null` is an empty record. Time and memory are linear in the text's length.
 */
export const decode = (text: string): Result.Result<V1Image, InvalidV1Image> =>
  Result.flatMap(
    Result.mapError(GoJson.parse(text), ({ reason }) => new InvalidV1Image({ rule: "json", field: "", reason })),
    (document) => {
      const image = new V1Image(), decode = new GoDecode()
      const read = Result.try({
        try: () => image.read(decode, document),
        catch: (cause) => {
          if (cause instanceof Broken) return new InvalidV1Image({ rule: cause.rule, field: cause.field, reason: cause.reason })
          throw cause
        }
      })
      return Result.flatMap(read, () => decode.mismatch === undefined ? Result.succeed(image)
        : Result.fail(new InvalidV1Image({ rule: "json", ...decode.mismatch })))
    }
  )
