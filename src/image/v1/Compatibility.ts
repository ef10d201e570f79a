import { Result } from "effect"
import { fields, GoDecode } from "./go/GoDecode.ts"
import * as GoJson from "./go/GoJson.ts"
import * as V1Image from "./V1Image.ts"

/** The order in which Docker 1.9.1 wrote an image's fields. */
const order = [
  "id", "parent", "comment", "created", "container", "container_config", "docker_version", "author", "config", "architecture", "os",
  "Size", "parent_id", "layer_id"
] as const

/** What an image is in the graph it is in: what its JSON need not say. `parent` is "" at the base, `size` in bytes. */
export interface Place {
  readonly id: string
  readonly parent: string
  readonly size: number
}

/** An image's JSON as Docker 1.9.1 wrote it out of its graph (Go's json.Marshal of image.Image), for v1 pushes and `docker save`. */
export const marshal = (json: string, { id, parent, size }: Place): Result.Result<string, V1Image.InvalidV1Image> =>
  Result.map(V1Image.decode(json.toWellFormed()), (image) => {
    const fields = image.print()
    fields.set("id", GoJson.quote(id))
    if (parent === "") fields.delete("parent")
    else fields.set("parent", GoJson.quote(parent))
    if (size === 0) fields.delete("Size")
    else fields.set("Size", String(size))
    return `{${order.flatMap((name) => {
      const value = fields.get(name)
      return value === undefined ? [] : [`${GoJson.quote(name)}:${value}`]
    }).join(",")}}`
  })

const known = fields<{ id: string }>([["id", (found, value, field, decode) => { found.id = decode.string(value, field, found.id) }]])

/** The v1 ID an image goes by in its v1Compatibility text (docker: graph.getV1ID); "" if it says none. Nothing else in it is looked at. */
export const idOf = (compatibility: string): Result.Result<string, V1Image.InvalidV1Image> =>
  Result.flatMap(
    Result.mapError(GoJson.parse(compatibility.toWellFormed()), ({ reason }) => new V1Image.InvalidV1Image({ rule: "json", field: "", reason })),
    (document) => {
      const found = { id: "" }, decode = new GoDecode()
      decode.struct(document, "", known, found)
      return decode.mismatch === undefined ? Result.succeed(found.id) : Result.fail(new V1Image.InvalidV1Image({ rule: "json", ...decode.mismatch }))
    }
  )
